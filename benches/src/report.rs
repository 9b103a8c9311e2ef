//! The report: tables in Markdown, and those in README.md and doc/sync.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::asked::Verdict;
use crate::case::{Case, Way};
use crate::contender::{Side, key};
use crate::disk::Kind;
use crate::error::{Error, Result, Told};
use crate::growth::Panel;
use crate::session::{Row, Table};
use crate::speed;

/// The comments around a table in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks(&'static str, &'static str);

/// Around the table of whole disks, in README.md.
pub const WHOLE: Marks = Marks("<!-- bench: begin -->", "<!-- bench: end -->");
/// Around the table of what changed, in doc/sync.md.
pub const CHANGED: Marks = Marks("<!-- bench: changed begin -->", "<!-- bench: changed end -->");

/// `1.24 s`, `12.4 ms`: three figures.
#[must_use]
pub fn seconds(time: f64) -> String {
    if time < 1.0 { format!("{} ms", figures(time * 1000.0)) } else { format!("{} s", figures(time)) }
}

/// Bytes by binary units, three figures.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = (0..units.len() - 1).find(|at| bytes >> (10 * (at + 1)) == 0).unwrap_or(units.len() - 1);
    if at == 0 {
        return format!("{bytes} B");
    }
    format!("{} {}", figures(bytes as f64 / (1u64 << (10 * at)) as f64), units[at])
}

fn figures(number: f64) -> String {
    match number {
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

fn ratio(time: f64, to: Option<f64>) -> String {
    to.map_or("–".to_owned(), |to| format!("{:.2}", time / to))
}

/// A case and its contenders, the fastest first.
#[must_use]
pub fn table(table: &Table) -> String {
    let case = &table.case;
    let way = match case.way {
        Way::Local => "on this machine",
        Way::Ssh => "over ssh on loopback",
        Way::Delta => "over ssh on loopback, to a state in which 1 % is other bytes",
        Way::DeltaSlow => "over ssh at 100 Mbit/s, to a state in which 1 % is other bytes",
        Way::DeltaSame => "over ssh on loopback, to the same disk",
        Way::Resume => "over ssh on loopback, to what was cut at half",
        Way::Map => "what lies where",
    };
    let sync = if case.sync { ", synced" } else { "" };
    let to = if case.way == Way::Map { String::new() } else { format!(", to {}{sync}", table.file_system) };
    let scale = if table.scale == 1 { String::new() } else { format!(", sizes divided by {}", table.scale) };
    let (kind, about, name) = (case.kind.name(), case.kind.about(), case.name());
    let mut text = format!("### {kind}: {way}{to}{scale}\n\n{about}. `./bench {name}`\n\n");
    text.push_str("| | median | least to most | CPU | peak memory | wire | takes | × best peer | × floor |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    let mut rows: Vec<&Row> = table.rows.iter().collect();
    rows.sort_by(|a, b| a.time.median.total_cmp(&b.time.median));
    for row in rows {
        let memory = match row.memory.far {
            0 => bytes(row.memory.near),
            far => format!("{} + {}", bytes(row.memory.near), bytes(far)),
        };
        let name = if row.side == Side::Ours { format!("**{}**", row.name) } else { row.name.to_owned() };
        let optional = |value: Option<u64>| value.map_or("–".to_owned(), bytes);
        let _always = writeln!(
            text,
            "| {name} | {} | {} to {} | {} | {memory} | {} | {} | {} | {} |",
            seconds(row.time.median),
            seconds(row.time.least),
            seconds(row.time.most),
            seconds(row.cpu),
            optional(row.wire),
            optional(row.allocated),
            ratio(row.time.median, table.best_peer()),
            ratio(row.time.median, table.floor_of(row)),
        );
    }
    if let Some(due) = table.due {
        let _always =
            writeln!(text, "\nTo flow: {} of data, and a manifest of {} records.", bytes(due.bytes), due.records);
    }
    for (_, line) in &table.failed {
        let _always = writeln!(text, "\nLeft out: {line}");
    }
    text
}

/// What was asked, measured.
#[must_use]
pub fn verdicts(verdicts: &[Verdict]) -> String {
    let mut text = "| | asked | measured | |\n|--:|---|--:|---|\n".to_owned();
    for verdict in verdicts {
        let met = if verdict.met == Some(true) { "met" } else { "**not met**" };
        let _always = writeln!(text, "| {} | {} | {} | {met} |", verdict.number, verdict.asked, verdict.measured);
    }
    text
}

/// How time and memory grow.
#[must_use]
pub fn growth(panels: &[Panel]) -> String {
    let mut text = String::new();
    for panel in panels {
        for series in &panel.series {
            let _always = writeln!(text, "{}\n", series.name);
            let _always = writeln!(text, "| {} | time | peak memory |\n|--:|--:|--:|", panel.along);
            for point in &series.points {
                let memory = bytes(point.memory);
                let _always = writeln!(text, "| {} | {} | {memory} |", panel.unit.text(point.at), seconds(point.time));
            }
            text.push('\n');
        }
    }
    text
}

/// All of it.
#[must_use]
pub fn whole(machine: &[String], runs: u32, tables: &[Table], asked: &[Verdict], panels: &[Panel]) -> String {
    let mut text = "# Benchmarks\n\nMade by `./bench`; don't edit. To repeat it all: `./bench`, as root, which installs the peers. One \
                    case: `./bench CASE`; `./bench --list` names them.\n\n"
        .to_owned();
    for line in machine {
        let _always = writeln!(text, "- {line}");
    }
    let _always = write!(
        text,
        "- medians of {runs} rounds, in each of which every command has a turn, in random order; one that isn't ours and has taken 12 s \
         has no more than 3, one that is no rival and has taken 8 s no more\n\n\
         The page cache is warm, and what a run makes is removed before the next begins; where there is no ssh, memory for it is touched before. All but the cases that say so don't sync. CPU is \
         that of all processes, at both ends (over ssh to 10 ms). Peak memory is of the process tree, in a run of its own: the most that \
         each process has had resident, shared libraries included, of those that are there at the same time; over ssh, the near end's and \
         the far end's. Wire is what the first program writes to the second (a push: what it says itself, before ssh's own; where something is at the target already: what goes there and comes back, before ssh's own, a push without the \
         text of sh in front of it); takes is what the result occupies on its file system. Every \
         result has been compared with the disk.\n\n\
         The floor moves the same bytes by the cheapest system calls, from a list of ranges made beforehand: it looks at nothing, checks \
         nothing, and for compressed images it reads the raw disk. The best peer is the fastest of `qemu-img convert` (both), `nbdcopy` and \
         `cp --sparse=always`, or `rsync`, where something is at the target already. An old state has other bytes wherever \
         one in a hundred of the disk's intervals of 64 KiB has data, always the same ones; it is put back before each run, untimed.\n\n",
    );
    if !asked.is_empty() {
        let met = asked.iter().filter(|verdict| verdict.met == Some(true)).count();
        let _always = writeln!(text, "## What is asked\n\n{met} of {} are met.\n\n{}", asked.len(), verdicts(asked));
    }
    if !tables.is_empty() {
        text.push_str("## Cases\n\n");
        tables.iter().for_each(|one| text.push_str(&(table(one) + "\n")));
    }
    if !panels.is_empty() {
        text.push_str("## Growth\n\n![time and memory over size](doc/growth.svg)\n\n");
        text.push_str(&growth(panels));
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The table in README: for each disk our two ways and the peers, relative to the best peer.
#[must_use]
pub fn main_table(tables: &[Table]) -> String {
    let mut text =
        "| disk | pipe | local copy | fastest peer | pipe / peer | copy / peer |\n|---|--:|--:|---|--:|--:|\n"
            .to_owned();
    let shown = |case: &Case| case.way == Way::Local && !case.sync;
    for kind in Kind::ALL {
        // One place for each disk: on disk, if it has been there.
        let Some(table) = tables.iter().find(|table| table.case.kind == kind && shown(&table.case)) else { continue };
        let rivals = table.rows.iter().filter(|row| row.side == Side::Rival);
        let Some(best) = rivals.min_by(|a, b| a.time.median.total_cmp(&b.time.median)) else { continue };
        let [pipe, copy] = [key::PIPE, key::COPY].map(|key| table.time_of(key));
        let time = |time: Option<f64>| time.map_or("–".to_owned(), seconds);
        let times =
            |time: Option<f64>| time.map_or("–".to_owned(), |time| format!("{:.2} ×", time / best.time.median));
        let _always = writeln!(
            text,
            "| {} | {} | {} | {}, {} | {} | {} |",
            kind.about(),
            time(pipe),
            time(copy),
            seconds(best.time.median),
            best.name,
            times(pipe),
            times(copy),
        );
    }
    text
}

/// The table in doc/sync.md: transfers to a destination that holds an older state, relative to rsync.
#[must_use]
pub fn changed_table(tables: &[Table]) -> String {
    let mut text =
        "| already at the destination | push | in place | pull | full push | `rsync` | push / `rsync` | wire | `rsync`'s wire |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for table in tables.iter().filter(|table| table.case.way.renews()) {
        let there = match table.case.way {
            Way::Delta => "all but 1 %",
            Way::DeltaSlow => "all but 1 %, at 100 Mbit/s",
            Way::DeltaSame => "everything",
            _ => "half, from an interrupted push",
        };
        let row = |key| table.rows.iter().find(|row| row.key == key);
        let time = |key| row(key).map_or("–".to_owned(), |row| seconds(row.time.median));
        let wire = |key| row(key).and_then(|row| row.wire).map_or("–".to_owned(), bytes);
        let times = table.time_of(key::DELTA).zip(table.time_of(key::RSYNC));
        let _always = writeln!(
            text,
            "| {}: {there} | {} | {} | {} | {} | {} | {} | {} | {} |",
            table.case.kind.about(),
            time(key::DELTA),
            time(key::DELTA_IN_PLACE),
            time(key::DELTA_PULL),
            time(key::FULL),
            time(key::RSYNC),
            times.map_or("–".to_owned(), |(ours, theirs)| format!("{:.2} ×", ours / theirs)),
            wire(key::DELTA),
            wire(key::RSYNC),
        );
    }
    text
}

/// A document with another table.
///
/// # Errors
/// If the comments that it stands between aren't there.
pub fn with_table(document: &str, marks: Marks, table: &str) -> Result<String> {
    let Marks(begin, end) = marks;
    let found = document.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, behind) = found.ok_or_else(|| Error::new(format!("no {begin} and {end}")))?;
    Ok(format!("{before}{begin}\n{table}{end}{behind}"))
}

/// Writes `BENCHMARKS.md`, the charts in `doc/`, and the tables in README.md and doc/sync.md, each if there are figures for it.
///
/// # Errors
/// If a file can't be written.
pub fn write(folder: &Path, text: &str, tables: &[Table], drawing: Option<&str>) -> Result<()> {
    let path = folder.join("BENCHMARKS.md");
    fs::write(&path, text).told(path.display())?;
    let speeds = speed::parse(text);
    let chart = (!speeds.is_empty()).then(|| speed::draw(&speeds));
    for (name, svg) in [("doc/growth.svg", drawing), ("doc/speed.svg", chart.as_deref())] {
        if let Some(svg) = svg {
            let path = folder.join(name);
            fs::create_dir_all(folder.join("doc")).and_then(|()| fs::write(&path, svg)).told(path.display())?;
        }
    }
    let (changed, whole): (Vec<_>, Vec<_>) = tables.iter().cloned().partition(|table| table.case.way.renews());
    if !whole.is_empty() {
        replace_table(&folder.join("README.md"), WHOLE, &main_table(&whole))?;
    }
    if !changed.is_empty() {
        replace_table(&folder.join("doc/sync.md"), CHANGED, &changed_table(&changed))?;
    }
    Ok(())
}

/// Replaces the table in a document, if that is there.
fn replace_table(path: &Path, marks: Marks, table: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let document = fs::read_to_string(path).told(path.display())?;
    fs::write(path, with_table(&document, marks, table).told(path.display())?).told(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asked;
    use crate::case::On;
    use crate::measure::Memory;
    use crate::stats::Spread;

    fn row(key: &'static str, side: Side, median: f64, near: u64) -> Row {
        let time = Spread { median, least: median / 2.0, most: median * 2.0 };
        let memory = Memory { near, far: 0 };
        Row { key, name: key, side, time, cpu: 0.5, memory, wire: Some(1000), allocated: Some(1 << 30) }
    }

    fn measured() -> Table {
        Table {
            case: Case { kind: Kind::ScatteredRaw, way: Way::Local, on: On::Disk, sync: false },
            file_system: "ext4",
            scale: 1,
            disk_allocated: 1 << 30,
            due: None,
            rows: vec![
                row(key::PIPE, Side::Ours, 0.5, 65 << 20),
                row(key::QEMU, Side::Rival, 1.0, 0),
                row(key::QEMU_M, Side::Rival, 0.8, 0),
                row(key::OTHER, Side::Peer, 0.1, 0),
                row(key::FLOOR_PIPE, Side::Floor, 0.4, 0),
            ],
            failed: vec![(Side::Peer, "rsync: gone".to_owned())],
        }
    }

    #[test]
    fn times_and_sizes_have_three_figures() {
        assert_eq!(
            [0.0012345, 0.0555, 0.9999, 1.0, 59.96, 123.4].map(seconds),
            ["1.23 ms", "55.5 ms", "1000 ms", "1.00 s", "60.0 s", "123 s"]
        );
        assert_eq!(
            [0, 1023, 1024, 100 << 20, 16 << 40].map(bytes),
            ["0 B", "1023 B", "1.00 KiB", "100 MiB", "16.0 TiB"]
        );
    }

    #[test]
    fn a_table_has_the_fastest_first_and_ratios_to_best_peer_and_floor() {
        let text = table(&measured());
        let rows: Vec<&str> = text.lines().filter(|line| line.contains(" ms") || line.contains(" s ")).collect();
        assert!(rows[0].starts_with("| other |"), "{text}");
        let pipe = rows.iter().find(|row| row.starts_with("| **pipe** |")).unwrap();
        // The best peer is a rival: what is only there for comparison isn't.
        assert!(pipe.ends_with("| 65.0 MiB | 1000 B | 1.00 GiB | 0.62 | 1.25 |"), "{pipe}");
        assert!(text.contains("Left out: rsync: gone"));
        assert!(text.starts_with("### scattered-raw: on this machine, to ext4\n"), "{text}");
        let text = super::table(&Table { scale: 16, ..measured() });
        assert!(text.starts_with("### scattered-raw: on this machine, to ext4, sizes divided by 16\n"), "{text}");
    }

    #[test]
    fn what_is_asked_is_met_or_not() {
        let asked = asked::verdicts(&[measured()]);
        assert_eq!(
            asked.iter().map(|one| (one.number, one.met)).collect::<Vec<_>>(),
            [(1, Some(true)), (1, Some(false)), (6, None), (8, Some(false))]
        );
        let text = verdicts(&asked);
        assert!(
            text.contains("| 0.62 × | met |")
                && text.contains("| 1.25 × | **not met** |")
                && text.contains("| not measured | **not met** |"),
            "{text}"
        );
    }

    #[test]
    fn readme_keeps_all_but_the_table() {
        let Marks(begin, end) = WHOLE;
        let readme = format!("# A\n\n{begin}\nold\n{end}\n\nmore\n");
        let new = with_table(&readme, WHOLE, &main_table(&[measured()])).unwrap();
        assert!(
            new.starts_with(&format!("# A\n\n{begin}\n| disk |")) && new.ends_with(&format!("{end}\n\nmore\n")),
            "{new}"
        );
        assert!(!new.contains("old") && new.contains("| 0.62 × | – |"), "{new}");
        assert_eq!(with_table(&new, WHOLE, &main_table(&[measured()])).unwrap(), new);
        assert!(with_table("# A\n", WHOLE, "").is_err() && with_table(&new, CHANGED, "").is_err());
    }

    #[test]
    fn what_changed_is_told_relative_to_rsync() {
        let case = Case { kind: Kind::GuestRaw, way: Way::Delta, on: On::Disk, sync: false };
        let rows = vec![row(key::DELTA, Side::Ours, 0.5, 0), row(key::RSYNC, Side::Rival, 2.0, 0)];
        let text = changed_table(&[measured(), Table { case, rows, ..measured() }]);
        let line = "| ext4 with 2 GiB of /usr in 8 GiB, raw: all but 1 % | 500 ms | – | – | – | 2.00 s | 0.25 × | 1000 B | 1000 B |";
        assert!(text.lines().count() == 3 && text.ends_with(&format!("{line}\n")), "{text}");
    }

    #[test]
    fn the_report_has_all_of_it() {
        let text = whole(&["a machine".to_owned()], 7, &[measured()], &asked::verdicts(&[measured()]), &[]);
        for part in
            ["- a machine\n", "medians of 7 rounds", "1 of 4 are met", "### scattered-raw: on this machine, to ext4\n"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("growth.svg"));
    }
}
