//! The figures of whole disks, read from `BENCHMARKS.md`, and the chart that is drawn from them: `doc/speed.svg`.

use std::fmt::Write as _;

/// How one disk was copied, by the programs that README compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speed {
    /// What the disk is.
    pub about: String,
    /// `xfer-hole | recv-hole`.
    pub pipe: Option<Time>,
    /// `xfer-hole` copy.
    pub copy: Option<Time>,
    /// Name of the fastest peer, and its time.
    pub peer: (String, Time),
}

/// The time of a program, as the report has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    /// The median, with its unit.
    pub median: String,
    /// Relative to the fastest peer.
    pub ratio: String,
}

/// The disks of a report that were copied on one machine, each once, in the order of the report.
#[must_use]
pub fn parse(report: &str) -> Vec<Speed> {
    let mut speeds: Vec<Speed> = Vec::new();
    for section in report.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap_or_default();
        if !heading.contains(": on this machine, to ") || heading.contains(", synced") {
            continue;
        }
        let Some((about, _)) = section.lines().find_map(|line| line.split_once(". `./bench ")) else { continue };
        let rows: Vec<(String, Time)> = section.lines().filter_map(row).collect();
        let ours = |name: &str| rows.iter().find(|(found, _)| found == name).map(|(_, time)| time.clone());
        let is_peer = |name: &str| !name.starts_with("**") && !name.starts_with("floor");
        let peer = rows.iter().find(|(name, time)| is_peer(name) && time.ratio == "1.00");
        let seen = speeds.iter().any(|speed| speed.about == about);
        if let (Some(peer), false) = (peer, seen) {
            speeds.push(Speed {
                about: about.to_owned(),
                pipe: ours("**`xfer-hole` | `recv-hole`**"),
                copy: ours("**`xfer-hole` copy**"),
                peer: peer.clone(),
            });
        }
    }
    speeds
}

/// A row of a table: the program's name and its time.
fn row(line: &str) -> Option<(String, Time)> {
    // A bar in a name is not the end of its cell.
    let line = line.strip_prefix("| ")?.replace("\\|", "\u{1}");
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [name, median, _, _, _, _, _, ratio, _, _] = cells[..] else { return None };
    Some((name.replace('\u{1}', "|"), Time { median: median.to_owned(), ratio: ratio.to_owned() }))
}

/// Size of the chart's parts, in pixels.
const WIDTH: f64 = 800.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 58.0;
const BAR: f64 = 11.0;
const GAP: f64 = 9.0;
/// The ratio at the right end; longer bars are cut there.
const MOST: f64 = 2.0;
/// Local copy, pipe, peer.
const COLOURS: [&str; 3] = ["#0072b2", "#56b4e9", "#bbbbbb"];

/// The chart: three bars for each disk, in multiples of the fastest peer's time.
#[must_use]
pub fn draw(speeds: &[Speed]) -> String {
    let group = 3.0 * BAR + GAP;
    let bottom = TOP + group * speeds.len() as f64;
    let height = bottom + 30.0;
    let x = |ratio: f64| LEFT + (WIDTH - LEFT - RIGHT) * (ratio / MOST).min(1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"14\" y=\"20\" font-weight=\"bold\" font-size=\"13\">Time relative to the fastest peer; shorter is faster</text>\n"
    );
    for (at, name) in ["xfer-hole, local copy", "xfer-hole | recv-hole", "fastest peer"].into_iter().enumerate() {
        let left = 14.0 + 170.0 * at as f64;
        let _always = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"41\">{name}</text>",
            COLOURS[at],
            left + 15.0
        );
    }
    for mark in [0.0, 0.5, 1.0, 1.5, 2.0] {
        let (x, colour) = (x(mark), if mark == 1.0 { "#555" } else { "#ddd" });
        let _always = writeln!(
            svg,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"{colour}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{mark} ×</text>",
            bottom + 16.0
        );
    }
    for (at, speed) in speeds.iter().enumerate() {
        let top = TOP + group * at as f64 + GAP / 2.0;
        let _always = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"10\">{}</text>",
            LEFT - 8.0,
            top + 1.5 * BAR + 4.0,
            escaped(&speed.about)
        );
        let (peer, time) = &speed.peer;
        let bars = [
            speed.copy.as_ref().map(|time| (time, "")),
            speed.pipe.as_ref().map(|time| (time, "")),
            Some((time, &**peer)),
        ];
        for (row, (bar, colour)) in bars.into_iter().zip(COLOURS).enumerate() {
            let Some((time, name)) = bar else { continue };
            let (y, ratio) = (top + BAR * row as f64, time.ratio.parse::<f64>().unwrap_or(0.0));
            let cut = if ratio > MOST { format!(" ({} ×)", time.ratio) } else { String::new() };
            let label = format!("{}{cut} {}", time.median, escaped(name));
            let _always = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"9\" paint-order=\"stroke\" stroke=\"white\" stroke-width=\"2\">{}</text>",
                x(ratio) - LEFT,
                BAR - 1.0,
                x(ratio) + 5.0,
                y + BAR - 2.5,
                label.trim_end()
            );
        }
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
# Benchmarks

### long: over ssh on loopback, to ext4

A disk. `./bench long`

### empty: on this machine, to tmpfs

A & B. `./bench empty/local/tmpfs`

| | median | least to most | CPU | peak memory | wire | takes | × best peer | × floor |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
| floor: copy | 1.00 ms | 1.00 ms to 1.00 ms | 1.00 ms | 1.00 MiB | – | 0 B | 1.00 | 1.00 |
| `cp` | 2.00 ms | 1.00 ms to 2.00 ms | 1.00 ms | 1.00 MiB | – | 0 B | 1.00 | 2.00 |
| **`xfer-hole` \\| `recv-hole`** | 6.00 ms | 1.00 ms to 9.00 ms | 1.00 ms | 1.00 MiB | 1 B | 0 B | 3.00 | 6.00 |
";

    #[test]
    fn figures_are_read_from_the_report() {
        let time = |median: &str, ratio: &str| Time { median: median.to_owned(), ratio: ratio.to_owned() };
        let speed = Speed {
            about: "A & B".to_owned(),
            pipe: Some(time("6.00 ms", "3.00")),
            copy: None,
            peer: ("`cp`".to_owned(), time("2.00 ms", "1.00")),
        };
        assert_eq!(parse(REPORT), [speed]);
    }

    #[test]
    fn a_long_bar_is_cut_and_says_so() {
        let svg = draw(&parse(REPORT));
        assert!(svg.contains("6.00 ms (3.00 ×)<") && svg.contains("2.00 ms cp<") && svg.contains("A &amp; B"), "{svg}");
        assert_eq!(svg.matches(&format!("height=\"{}\"", BAR - 1.0)).count(), 2 + 3);
    }
}
