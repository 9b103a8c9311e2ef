//! Draws what is sent of a disk, for the README: `doc/what-is-sent.svg`.

use std::fmt::Write as _;

/// Size of the disk, in eighths of a GiB.
const SIZE: u32 = 64;
/// Ranges of data: offset and length, in eighths of a GiB. 1 GiB in total.
const DATA: [(u32, u32); 3] = [(4, 4), (26, 2), (48, 2)];
/// Size of the picture, and where the disk begins, in pixels.
const WIDTH: u32 = 830;
const HEIGHT: u32 = 272;
const LEFT: u32 = 164;
/// Pixels of an eighth of a GiB.
const SCALE: u32 = 10;
/// Vertical position and height of the three rows.
const SOURCE: u32 = 16;
const WIRE: u32 = 104;
const COPY: u32 = 192;
const BAR: u32 = 38;
/// Width of a record that is only a length, in pixels: a few bytes, whatever the length is.
const RECORD: u32 = 56;
const BLUE: &str = "#0072b2";

/// A range of the disk: data or a hole.
struct Range {
    offset: u32,
    len: u32,
    data: bool,
}

/// The whole disk, as ranges of data and of holes in turn.
fn ranges() -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut end = 0;
    for (offset, len) in DATA {
        ranges.push(Range { offset: end, len: offset - end, data: false });
        ranges.push(Range { offset, len, data: true });
        end = offset + len;
    }
    ranges.push(Range { offset: end, len: SIZE - end, data: false });
    ranges
}

/// A length in GiB or MiB.
fn length(eighths: u32) -> String {
    if eighths < 8 { format!("{} MiB", eighths * 128) } else { format!("{} GiB", f64::from(eighths) / 8.0) }
}

/// The picture: the source with its data and holes, the records on the wire, and the destination.
#[must_use]
pub fn draw() -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    title(&mut svg, SOURCE, ["source: web.qcow2", "8 GiB, 1 GiB of data"]);
    title(&mut svg, WIRE, ["sent over ssh", "1 GiB and four lengths"]);
    title(&mut svg, COPY, ["destination: web.img", "8 GiB, takes 1 GiB"]);
    for y in [SOURCE, COPY] {
        ranges().iter().for_each(|range| disk(&mut svg, y, range));
    }
    let mut x = LEFT;
    for range in ranges() {
        let width = if range.data { range.len * SCALE } else { RECORD };
        if range.data {
            let at = LEFT + range.offset * SCALE;
            shadow(&mut svg, (at, SOURCE + BAR), (x, WIRE), range.len * SCALE);
            shadow(&mut svg, (x, WIRE + BAR), (at, COPY), range.len * SCALE);
        }
        let (fill, colour) = if range.data { (BLUE, "white") } else { ("#eeeeee", "black") };
        let _always = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{WIRE}\" width=\"{width}\" height=\"{BAR}\" fill=\"{fill}\" stroke=\"white\"/>"
        );
        if !range.data {
            caption(&mut svg, (x + width / 2, WIRE + 17), colour, "hole");
            caption(&mut svg, (x + width / 2, WIRE + 31), colour, &length(range.len));
        } else if width >= 40 {
            caption(&mut svg, (x + width / 2, WIRE + 23), colour, "data");
        }
        x += width;
    }
    let _always = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" fill=\"#555\">Blue is data. A hole reads as zeros and takes no space; it is sent as its length, in one line of text.</text>",
        COPY + BAR + 26
    );
    svg + "</svg>\n"
}

/// What a row is, to the left of it.
fn title(svg: &mut String, row: u32, [name, size]: [&str; 2]) {
    let _always = writeln!(
        svg,
        "<text x=\"12\" y=\"{}\" font-weight=\"bold\">{name}</text><text x=\"12\" y=\"{}\" fill=\"#555\">{size}</text>",
        row + 16,
        row + 32
    );
}

fn caption(svg: &mut String, (x, y): (u32, u32), colour: &str, text: &str) {
    let _always = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" font-size=\"11\" fill=\"{colour}\">{text}</text>"
    );
}

/// A range of the disk, at its place.
fn disk(svg: &mut String, y: u32, range: &Range) {
    let (x, width) = (LEFT + range.offset * SCALE, range.len * SCALE);
    if range.data {
        let _always = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" fill=\"{BLUE}\" stroke=\"white\"/>"
        );
        if width >= 40 {
            caption(svg, (x + width / 2, y + 23), "white", "data");
        }
    } else {
        let _always = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" fill=\"#f8f8f8\" stroke=\"#bbb\" stroke-dasharray=\"3 3\"/>"
        );
        caption(svg, (x + width / 2, y + 23), "#555", "hole");
    }
}

/// Connects a range of data in one row with the same range in the next row.
fn shadow(svg: &mut String, (top_x, top): (u32, u32), (bottom_x, bottom): (u32, u32), width: u32) {
    let _always = writeln!(
        svg,
        "<path d=\"M{top_x} {top}H{}L{} {bottom}H{bottom_x}Z\" fill=\"{BLUE}\" fill-opacity=\"0.15\"/>",
        top_x + width,
        bottom_x + width,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_disk_once() {
        let mut end = 0;
        for range in ranges() {
            assert!(range.offset == end && range.len > 0);
            end += range.len;
        }
        assert_eq!(end, SIZE);
        assert_eq!(ranges().iter().filter(|range| range.data).map(|range| range.len).sum::<u32>(), 8);
        const { assert!(LEFT + SIZE * SCALE <= WIDTH) };
    }

    #[test]
    fn lengths_have_units() {
        assert_eq!([4, 8, 18].map(length), ["512 MiB", "1 GiB", "2.25 GiB"]);
    }
}
