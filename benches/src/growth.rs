//! How time and memory grow with the number of extents, the size of the disk, and the floors of a chain.

use std::fs;
use std::path::{Path, PathBuf};

use crate::contender::Tools;
use crate::error::{Result, Told};
use crate::line::{Line, Tap};
use crate::measure::Measure;
use crate::report::bytes;
use crate::stats::Spread;
use crate::tool::text;
use crate::{disk, tables};

/// What grows along one axis.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What the axis counts.
    pub along: &'static str,
    /// How its numbers are written.
    pub unit: Unit,
    /// What was measured.
    pub series: Vec<Series>,
}

/// How numbers on an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// As numbers.
    Count,
    /// As bytes.
    Bytes,
}

/// One command, over growing disks.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is.
    pub name: &'static str,
    /// In growing order.
    pub points: Vec<Point>,
}

/// What one disk took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// How large it is, along the axis.
    pub at: u64,
    /// Seconds, the median.
    pub time: f64,
    /// Memory at most, in bytes.
    pub memory: u64,
}

/// What is needed to measure it.
#[derive(Debug)]
pub struct Growth<'a> {
    /// Where disks are made, and results that take room.
    pub folder: &'a Path,
    /// A tmpfs, for results without data and for files larger than ext4 has them.
    pub vast: &'a Path,
    /// The commands.
    pub tools: &'a Tools,
    /// What measures them.
    pub measure: &'a Measure,
    /// Runs for each point.
    pub runs: u32,
    /// Numbers end so many times earlier.
    pub scale: u64,
}

const GIB: u64 = 1 << 30;

impl Unit {
    /// A number of it.
    #[must_use]
    pub fn text(self, number: u64) -> String {
        match self {
            Self::Count => number.to_string(),
            Self::Bytes => bytes(number).replace(".00", "").replace(".0", ""),
        }
    }
}

impl Growth<'_> {
    /// All of it.
    ///
    /// # Errors
    /// If a disk can't be made, or a command fails.
    pub fn panels(&self) -> Result<Vec<Panel>> {
        Ok(vec![self.extents()?, self.sizes()?, self.floors()?])
    }

    fn extents(&self) -> Result<Panel> {
        let (xfer, recv) = (self.tool("xfer-hole")?, self.tool("recv-hole")?);
        let mut series = [
            "raw, 4 KiB of data and 4 KiB of hole in turn: `xfer-hole | recv-hole`",
            "qcow2, clusters of 512 bytes, data and hole in turn: `xfer-hole | cat`",
            "the same: `xfer-hole map`",
        ]
        .map(|name| Series { name, points: Vec::new() });
        let (disk, out) = (self.folder.join("growing"), self.folder.join("grown"));
        let decades = |last: u32| {
            let most = 10u64.pow(last) / self.scale;
            (3..=last).map(|power| 10u64.pow(power)).filter(move |&count| count <= most)
        };
        for count in decades(6) {
            // Half of them are data.
            disk::fragments(&disk, count * 4096)?;
            let line = Line::one([&xfer, text(&disk)?]).then([&recv, "--no-sync", text(&out)?]);
            series[0].points.push(self.point(count, &line, Tap::Closed, Some(&out))?);
            remove(&disk)?;
        }
        for count in decades(7) {
            tables::alternating(&disk, count)?;
            let sent = Line::one([&xfer, text(&disk)?]);
            series[1].points.push(self.point(count, &sent, Tap::Last, None)?);
            let told = Line::one([&xfer, "map", "--output", "json", text(&disk)?]);
            series[2].points.push(self.point(count, &told, Tap::Last, None)?);
            remove(&disk)?;
        }
        Ok(Panel { along: "extents", unit: Unit::Count, series: series.into() })
    }

    fn sizes(&self) -> Result<Panel> {
        let (xfer, recv) = (self.tool("xfer-hole")?, self.tool("recv-hole")?);
        let mut series = ["nothing, raw: `xfer-hole | recv-hole`", "nothing, qcow2: `xfer-hole | recv-hole`"]
            .map(|name| Series { name, points: Vec::new() });
        let (disk, out) = (self.vast.join("growing"), self.vast.join("grown"));
        for power in (0..=14).step_by(2) {
            let size = GIB << power;
            for (at, make) in [disk::empty, disk::qcow2].into_iter().enumerate() {
                make(&disk, size)?;
                let line = Line::one([&xfer, text(&disk)?]).then([&recv, "--no-sync", text(&out)?]);
                series[at].points.push(self.point(size, &line, Tap::Closed, Some(&out))?);
                remove(&disk)?;
            }
        }
        Ok(Panel { along: "size", unit: Unit::Bytes, series: series.into() })
    }

    fn floors(&self) -> Result<Panel> {
        let (xfer, recv) = (self.tool("xfer-hole")?, self.tool("recv-hole")?);
        let name = "qcow2 of 8 GiB, each floor with 2.5 MiB of data of its own: `xfer-hole | recv-hole`";
        let mut series = Series { name, points: Vec::new() };
        let out = self.vast.join("grown");
        let floor = |number: u64| self.folder.join(format!("floor-{number}"));
        disk::qcow2(&floor(1), 8 * GIB)?;
        let last = 60;
        for number in 1..=last {
            if number > 1 {
                disk::overlay(&floor(number), &floor(number - 1))?;
            }
            disk::writes(&floor(number), 8 * GIB, 16, number)?;
            if [1, 2, 5, 10, 20, 40, last].contains(&number) {
                let line = Line::one([&xfer, text(&floor(number))?]).then([&recv, "--no-sync", text(&out)?]);
                series.points.push(self.point(number, &line, Tap::Closed, Some(&out))?);
            }
        }
        (1..=last).try_for_each(|number| remove(&floor(number)))?;
        Ok(Panel { along: "floors", unit: Unit::Count, series: vec![series] })
    }

    fn tool(&self, name: &str) -> Result<String> {
        text(&self.tools.folder.join(name)).map(str::to_owned)
    }

    fn point(&self, at: u64, line: &Line, tap: Tap, out: Option<&PathBuf>) -> Result<Point> {
        eprintln!("bench: growth: {at}: {line}");
        let clear = || out.filter(|out| out.exists()).map_or(Ok(()), |out| remove(out));
        // This warms the page cache, too.
        let memory = self.measure.memory(line, tap, clear)?.near;
        let mut times = Vec::new();
        for _ in 0..self.runs {
            clear()?;
            times.push(self.measure.time(line, tap)?.time);
        }
        clear()?;
        Ok(Point { at, time: Spread::of(&times).map_or(0.0, |spread| spread.median), memory })
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).told(path.display())
}
