//! One run of the bench: it makes the disks, and has all contenders of a case move them in turns.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::case::{Case, On, Way};
use crate::contender::{Contender, Side, Target, Tools, Wire, contenders, key};
use crate::disk::{BenchDisk, Maker};
use crate::error::{Error, Result, Told};
use crate::line::Tap;
use crate::measure::{Measure, Memory};
use crate::past::{Due, Past};
use crate::ranges::{self, Range};
use crate::seeded::Seeded;
use crate::stats::Spread;
use crate::tool::{self, find, text};
use crate::{room, work};

/// Where everything is, and how often it is done.
#[derive(Debug)]
pub struct Session {
    /// Makes the disks.
    pub maker: Maker,
    /// Takes results: on disk, and in memory.
    pub places: [PathBuf; 2],
    /// The commands.
    pub tools: Tools,
    /// What measures them.
    pub measure: Measure,
    /// Rounds in which each contender has one turn.
    pub runs: u32,
}

/// What one contender has come to.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is asked for by.
    pub key: &'static str,
    /// How the report calls it.
    pub name: &'static str,
    /// Whose it is.
    pub side: Side,
    /// Seconds.
    pub time: Spread,
    /// Seconds of processors, the median.
    pub cpu: f64,
    /// Memory at most, in bytes.
    pub memory: Memory,
    /// Bytes on the wire, where there is one that can be looked at.
    pub wire: Option<u64>,
    /// What its result takes, in bytes; `None` if there is none.
    pub allocated: Option<u64>,
}

/// A case, and what all contenders have come to.
#[derive(Clone, Debug)]
pub struct Table {
    /// The case.
    pub case: Case,
    /// The name of the file system that results were written to.
    pub file_system: &'static str,
    /// What the disk's sizes were divided by.
    pub scale: u64,
    /// What the disk takes as a raw file, in bytes.
    pub disk_allocated: u64,
    /// What has to flow where something is at the target already.
    pub due: Option<Due>,
    /// One for each contender.
    pub rows: Vec<Row>,
    /// Who was left out, and why: one line each.
    pub failed: Vec<(Side, String)>,
}

/// Seconds after which a contender that isn't ours has no more turns than it needs for a median of three.
const ENOUGH: f64 = 12.0;
/// A peer that is no rival has no more turns once it has taken so many seconds.
const OUT_OF_IT: f64 = 8.0;
/// What a result may take more than the raw disk: file systems keep their own tables in blocks, too.
const SLACK: u64 = 1 << 20;

impl Session {
    /// Makes the disk of a case, and measures all that can move it.
    ///
    /// # Errors
    /// If the disk can't be made, or a command fails that hasn't before.
    pub fn run(&self, case: &Case) -> Result<Table> {
        let disk = self.maker.disk(case.kind)?;
        let place = &self.places[usize::from(case.on == On::Tmpfs)];
        let file_system = work::file_system(place);
        let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).told(path.display());
        let target = Target {
            out: place.join("out.img"),
            reserves: file_system == "ext4",
            at_home: device(place)? == device(&disk.raw)?,
            bmap: self.block_map(case, &disk)?,
            past: Past::of(case.way, &disk)?,
        };
        let all = contenders(case, &disk, &target, &self.tools)?;
        let due = target.past.as_ref().map(|past| past.due);
        let mut table = Table {
            case: *case,
            file_system,
            scale: if case.kind.has_data() { self.maker.scale } else { 1 },
            disk_allocated: disk.allocated,
            due,
            rows: Vec::new(),
            failed: Vec::new(),
        };
        if case.way.renews() && all.is_empty() {
            table.failed.push((Side::Floor, "all: this machine can't reach such a far end".to_owned()));
        }
        let mut fit = Vec::new();
        for contender in &all {
            eprintln!("bench: {}: {}", case.name(), contender.line);
            match self.prove(case, contender, &disk, &target) {
                Ok(row) => fit.push((contender, row, Vec::new())),
                Err(why) => {
                    eprintln!("bench: {}: {}: {why}", case.name(), contender.name);
                    // Nobody goes on from there.
                    clear(&target.out)?;
                    table.failed.push((contender.side, format!("{}: {why}", contender.name)));
                }
            }
        }
        self.turns(case, &mut fit, &disk, &target)?;
        for (_, mut row, times) in fit {
            let [time, cpu] = [0, 1].map(|at| times.iter().map(|took: &[f64; 2]| took[at]).collect::<Vec<_>>());
            if let (Some(time), Some(cpu)) = (Spread::of(&time), Spread::of(&cpu)) {
                row.time = time;
                row.cpu = cpu.median;
                table.rows.push(row);
            }
        }
        clear(&target.out)?;
        Ok(table)
    }

    /// A contender's first runs: the result is checked, memory and bytes on the wire are looked at.
    fn prove(&self, case: &Case, contender: &Contender, disk: &BenchDisk, target: &Target) -> Result<Row> {
        let ready = || self.ready(contender, disk, target);
        let memory = self.measure.memory(&contender.line, Tap::Closed, ready)?;
        let allocated = contender.makes.then(|| judge(contender, disk, &target.out)).transpose()?;
        ready()?;
        let wire = match contender.wire {
            Wire::Unknown => None,
            Wire::Tapped => self.measure.wire(&contender.line)?,
            Wire::Told => self.measure.told_wire(&contender.line)?,
            Wire::Both => {
                let shell = self.tools.shell(case.way)?.unwrap_or_default();
                self.measure.wire_both(contender, &shell, &self.tools.folder.join("floor"))?
            }
        };
        let time = Spread { median: 0.0, least: 0.0, most: 0.0 };
        let Contender { key, name, side, .. } = *contender;
        Ok(Row { key, name, side, time, cpu: 0.0, memory, wire, allocated })
    }

    /// Each contender once a round, in an order that is another one each time.
    fn turns(
        &self,
        case: &Case,
        fit: &mut [(&Contender, Row, Vec<[f64; 2]>)],
        disk: &BenchDisk,
        target: &Target,
    ) -> Result<()> {
        let local = case.way == Way::Local;
        let data = data_of(disk)?;
        let mut order: Vec<usize> = (0..fit.len()).collect();
        let mut seeded = Seeded::new(u64::from(std::process::id()));
        for round in 0..self.runs {
            seeded.shuffle(&mut order);
            for &at in &order {
                let (contender, _, times) = &mut fit[at];
                let spent: f64 = times.iter().map(|took| took[0]).sum();
                let seen = match contender.side {
                    Side::Ours => false,
                    Side::Peer if spent > OUT_OF_IT => true,
                    _ => round >= 3 && spent > ENOUGH,
                };
                if seen {
                    continue;
                }
                self.ready(contender, disk, target)?;
                // Those before may have taken minutes, and some kernels give up what was not read for so long.
                warm(&data)?;
                if local && contender.makes {
                    room::make(disk.allocated);
                }
                let took = self.measure.time(&contender.line, Tap::Closed)?;
                times.push([took.time, took.cpu]);
            }
        }
        Ok(())
    }

    /// Has nothing stand at the target, or what is to be brought up to date.
    fn ready(&self, contender: &Contender, disk: &BenchDisk, target: &Target) -> Result<()> {
        let Some(past) = &target.past else { return clear(&target.out) };
        // rsync goes on from the file itself.
        let part = (contender.key != key::RSYNC).then(|| target.out.with_extension("img.part"));
        past.stand(disk, &target.out, part.as_deref())?;
        if contender.key == key::REMEMBER {
            // What it remembers is noted by a run before.
            self.measure.time(&contender.line, Tap::Closed)?;
        }
        Ok(())
    }

    /// What bmaptool needs to know beforehand.
    fn block_map(&self, case: &Case, disk: &BenchDisk) -> Result<Option<PathBuf>> {
        if case.way != Way::Local || disk.format != "raw" || disk.size >= 1 << 40 || find("bmaptool").is_none() {
            return Ok(None);
        }
        let map = disk.path.with_extension("bmap");
        if !map.exists() {
            tool::run("bmaptool", ["-q", "create", "-o", text(&map)?, text(&disk.path)?])?;
        }
        Ok(Some(map))
    }
}

/// Removes a result and what a run may have left beside it.
fn clear(out: &Path) -> Result<()> {
    for path in [out.to_owned(), out.with_extension("img.part"), out.with_extension("img.bmap")] {
        match fs::remove_file(&path) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why).told(path.display()),
            _ => {}
        }
    }
    Ok(())
}

/// The files that a disk is read from, and where they have data.
fn data_of(disk: &BenchDisk) -> Result<Vec<(PathBuf, Vec<Range>)>> {
    let mut files = vec![(disk.raw.clone(), ranges::read(&disk.ranges)?)];
    if disk.path != disk.raw {
        files.push((disk.path.clone(), ranges::of(&disk.path)?));
    }
    Ok(files)
}

/// Reads all of that once, so that it lies in the page cache.
fn warm(files: &[(PathBuf, Vec<Range>)]) -> Result<()> {
    let mut piece = vec![0; 1 << 20];
    for (path, ranges) in files {
        let file = File::open(path).told(path.display())?;
        for range in ranges {
            let mut at = range.start;
            while at < range.start + range.len {
                let len = usize::try_from(range.start + range.len - at).unwrap_or(usize::MAX).min(piece.len());
                match file.read_at(&mut piece[..len], at).told(path.display())? {
                    0 => break,
                    len => at += len as u64,
                }
            }
        }
    }
    Ok(())
}

/// Holds a result against the disk: the same bytes, and no more blocks than it takes. Comes back with the bytes that it takes.
fn judge(contender: &Contender, disk: &BenchDisk, out: &Path) -> Result<u64> {
    tool::run("qemu-img", ["compare", "-q", "-f", "raw", "-F", "raw", text(&disk.raw)?, text(out)?])
        .told("the result is another disk")?;
    let about = fs::metadata(out).told(out.display())?;
    if about.len() != disk.size {
        return Err(Error::new(format!("the result has {} bytes, the disk {}", about.len(), disk.size)));
    }
    let allocated = about.blocks() * 512;
    // Towards a shell, shorter holes are data.
    let by_sh = [key::SSH_SH, key::PUSH_SH, key::PUSH_SH_PLAIN].contains(&contender.key);
    let data = ranges::total_by(&ranges::read(&disk.ranges)?, if by_sh { 64 << 10 } else { 4096 }).max(disk.allocated);
    if contender.side == Side::Ours && allocated > data + data / 100 + SLACK {
        return Err(Error::new(format!("the result takes {allocated} bytes, its data {data}")));
    }
    Ok(allocated)
}

/// What qemu-img, the kernel and others say they are: one line each.
#[must_use]
pub fn machine(places: &[PathBuf; 2]) -> Vec<String> {
    let mut lines = Vec::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut about = String::new();
    let _unread = File::open("/proc/cpuinfo").and_then(|mut file| file.read_to_string(&mut about));
    let model =
        about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    let mut memory = String::new();
    let _unread = File::open("/proc/meminfo").and_then(|mut file| file.read_to_string(&mut memory));
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    lines.push(format!("{cores} cores ({model}), {} GiB of memory", total.unwrap_or(0).div_ceil(1 << 20)));
    let kernel = tool::run("uname", ["-sr"]).unwrap_or_default();
    let [disk, memory] = [0, 1].map(|at| work::file_system(&places[at]));
    lines.push(format!("{}; disks and results on {disk}, and results on {memory}", kernel.trim()));
    let versions = [("qemu-img", "--version"), ("nbdcopy", "--version"), ("cp", "--version"), ("rsync", "--version")];
    let first = |(program, word): (&str, &str)| {
        let said = tool::run(program, [word]).ok()?;
        said.lines().next().map(|line| line.split(" (Debian").next().unwrap_or(line).trim().to_owned())
    };
    lines.push(versions.into_iter().filter_map(first).collect::<Vec<_>>().join(", "));
    lines
}

impl Table {
    /// The medians of those that are asked for by this key: the least of them, in seconds.
    #[must_use]
    pub fn time_of(&self, key: &str) -> Option<f64> {
        let times = self.rows.iter().filter(|row| row.key == key).map(|row| row.time.median);
        times.min_by(f64::total_cmp)
    }

    /// The fastest peer that we want to be ahead of, in seconds.
    #[must_use]
    pub fn best_peer(&self) -> Option<f64> {
        let rivals = self.rows.iter().filter(|row| row.side == Side::Rival).map(|row| row.time.median);
        rivals.min_by(f64::total_cmp)
    }

    /// The floor that a contender stands on, in seconds.
    #[must_use]
    pub fn floor_of(&self, row: &Row) -> Option<f64> {
        match row.key {
            key::PIPE | key::PIPE_HASH | key::FLOOR_PIPE => self.time_of(key::FLOOR_PIPE),
            key::MAP | key::QEMU_MAP | key::FLOOR_SHA => None,
            key::CONNECT => None,
            _ if self.case.way.renews() => self.time_of(key::FLOOR_DUE).or_else(|| self.time_of(key::CONNECT)),
            _ if self.case.way == Way::Ssh => self.time_of(key::FLOOR_SSH),
            _ => self.time_of(key::FLOOR_COPY),
        }
    }
}
