//! Draws how time and memory grow: SVG, both axes logarithmic.

use std::fmt::Write as _;

use crate::growth::{Panel, Point, Unit};
use crate::report::{bytes, seconds};

/// Of one diagram, in pixels: all of it, and what its axes have around them.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 40.0;
/// A line of the legend.
const LINE: f64 = 16.0;
/// That can be told apart without seeing colours well.
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// The values of an axis that have a mark, in growing order.
struct Axis {
    marks: Vec<f64>,
}

impl Axis {
    /// Powers of `base`, so many of them that all values lie between the first and the last.
    fn over(values: impl Iterator<Item = f64>, base: f64) -> Self {
        let powers: Vec<f64> = values.filter(|value| *value > 0.0).map(|value| value.log(base)).collect();
        let first = powers.iter().copied().fold(f64::INFINITY, f64::min);
        let last = powers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // What is a power but for its last bits is no reason for one more mark.
        let (first, last) = if powers.is_empty() { (0.0, 1.0) } else { ((first + 1e-9).floor(), (last - 1e-9).ceil()) };
        let last = last.max(first + 1.0);
        let mut marks = vec![base.powf(first)];
        while marks.len() < 60 && marks.len() as f64 <= last - first {
            marks.push(base.powf(first + marks.len() as f64));
        }
        Self { marks }
    }

    /// Where a value lies, 0 at the first mark, 1 at the last.
    fn place(&self, value: f64) -> f64 {
        let [first, last] = [self.marks[0], self.marks[self.marks.len() - 1]].map(f64::ln);
        ((value.ln() - first) / (last - first)).clamp(0.0, 1.0)
    }
}

/// All panels next to each other: time above, memory below.
#[must_use]
pub fn draw(panels: &[Panel]) -> String {
    let legend = panels.iter().map(|panel| panel.series.len()).max().unwrap_or(0) as f64 * LINE + 10.0;
    let (width, height) = (WIDTH * panels.len() as f64, 2.0 * HEIGHT + legend);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, panel) in panels.iter().enumerate() {
        let left = WIDTH * at as f64;
        diagram(&mut svg, panel, (left, 0.0), "time", |point| point.time, seconds);
        let memory = |byte: f64| bytes(byte as u64).replace(".00", "").replace(".0", "");
        diagram(&mut svg, panel, (left, HEIGHT), "peak memory", |point| point.memory as f64, memory);
        for (number, series) in panel.series.iter().enumerate() {
            let y = 2.0 * HEIGHT + LINE * (number as f64 + 1.0) - 4.0;
            let (colour, name) = (COLOURS[number % 3], escaped(series.name));
            let _always =
                writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", left + 14.0, y - 4.0);
            let _always = writeln!(svg, "<text x=\"{:.1}\" y=\"{y:.1}\" font-size=\"8\">{name}</text>", left + 22.0);
        }
    }
    svg + "</svg>\n"
}

fn diagram(
    svg: &mut String,
    panel: &Panel,
    (left, top): (f64, f64),
    title: &str,
    value: impl Fn(&Point) -> f64,
    text: impl Fn(f64) -> String,
) {
    let points = || panel.series.iter().flat_map(|series| &series.points);
    let base = if panel.unit == Unit::Bytes { 4.0 } else { 10.0 };
    let along = Axis::over(points().map(|point| point.at as f64), base);
    let up = Axis::over(points().map(&value), if title == "time" { 10.0 } else { 2.0 });
    let x = |number: f64| left + LEFT + (WIDTH - LEFT - RIGHT) * along.place(number);
    let y = |number: f64| top + HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up.place(number);
    let (first, last) = (x(along.marks[0]), x(along.marks[along.marks.len() - 1]));
    let (low, high) = (y(up.marks[0]), y(up.marks[up.marks.len() - 1]));
    let _always = writeln!(
        svg,
        "<text x=\"{first:.1}\" y=\"{:.1}\" font-weight=\"bold\">{title} over {}</text>",
        top + 16.0,
        panel.along
    );
    for (at, &mark) in along.marks.iter().enumerate() {
        let x = x(mark);
        let _always = writeln!(svg, "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"#ddd\"/>");
        // Bytes have more marks than there is room for names.
        if panel.unit == Unit::Count || at % 2 == 0 {
            let name = panel.unit.text(mark.round() as u64);
            let _always = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"9\">{name}</text>",
                low + 14.0
            );
        }
    }
    for &mark in &up.marks {
        let y = y(mark);
        let _always = writeln!(svg, "<path d=\"M{first:.1} {y:.1}H{last:.1}\" stroke=\"#ddd\"/>");
        let name = text(mark);
        let _always = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"9\">{name}</text>",
            first - 6.0,
            y + 3.0
        );
    }
    for (number, series) in panel.series.iter().enumerate() {
        let colour = COLOURS[number % 3];
        let places: Vec<_> =
            series.points.iter().map(|point| (x(point.at as f64), y(value(point).max(f64::MIN_POSITIVE)))).collect();
        let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        if !path.is_empty() {
            let _always = writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                path.join("L")
            );
        }
        for (x, y) in places {
            let _always = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::Series;

    #[test]
    fn an_axis_has_all_values_between_its_marks() {
        let axis = Axis::over([1000.0, 1e6].into_iter(), 10.0);
        assert_eq!(axis.marks.len(), 4);
        assert_eq!([1000.0, 1e6].map(|value| axis.place(value).round()), [0.0, 1.0]);
        assert!((axis.place(31622.8) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn every_point_is_drawn_in_both_diagrams() {
        let points = [1, 10, 100].map(|at| Point { at, time: at as f64 / 1e3, memory: 8 << 20 });
        let series = Series { name: "a < b", points: points.into() };
        let svg = draw(&[Panel { along: "floors", unit: Unit::Count, series: vec![series] }]);
        assert_eq!(svg.matches("r=\"2.5\"").count(), 6);
        assert!(svg.contains("a &lt; b") && svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
