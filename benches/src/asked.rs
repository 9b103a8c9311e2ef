//! What is asked of us, and whether it is met.

use crate::case::Way;
use crate::contender::{Side, key};
use crate::disk::Kind;
use crate::link::RATE;
use crate::report::{bytes, seconds};
use crate::session::Table;

/// Whom a time is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    /// The fastest of all rivals.
    BestPeer,
    /// The faster of qemu-img's two.
    BestQemu,
    /// The contenders of this key, the fastest of them.
    Key(&'static str),
}

/// A time of ours is at most so many times somebody else's.
#[derive(Clone, Copy, Debug)]
struct Ask {
    number: u32,
    kind: Kind,
    way: Way,
    ours: &'static str,
    limit: f64,
    against: Against,
}

const fn ask(number: u32, kind: Kind, way: Way, ours: &'static str, limit: f64, against: Against) -> Ask {
    Ask { number, kind, way, ours, limit, against }
}

const ASKS: [Ask; 25] = [
    ask(1, Kind::ScatteredRaw, Way::Local, key::PIPE, 1.0, Against::BestQemu),
    ask(1, Kind::ScatteredRaw, Way::Local, key::PIPE, 1.15, Against::Key(key::FLOOR_PIPE)),
    ask(1, Kind::ScatteredQcow2, Way::Local, key::PIPE, 1.0, Against::BestPeer),
    ask(2, Kind::GuestZlib, Way::Local, key::PIPE, 0.5, Against::BestPeer),
    ask(2, Kind::GuestZlib, Way::Local, key::COPY, 0.42, Against::BestPeer),
    ask(2, Kind::GuestZstd, Way::Local, key::PIPE, 0.75, Against::BestPeer),
    ask(2, Kind::GuestZstd, Way::Local, key::COPY, 0.6, Against::BestPeer),
    ask(3, Kind::GuestQcow2, Way::Local, key::PIPE, 1.1, Against::BestPeer),
    ask(3, Kind::GuestQcow2, Way::Local, key::COPY, 0.9, Against::BestPeer),
    ask(3, Kind::Chain, Way::Local, key::PIPE, 1.1, Against::BestPeer),
    ask(3, Kind::Chain, Way::Local, key::COPY, 0.9, Against::BestPeer),
    ask(4, Kind::Fragments, Way::Local, key::PIPE, 0.4, Against::BestQemu),
    ask(4, Kind::Fragments, Way::Local, key::COPY, 1.0, Against::Key(key::CP)),
    ask(5, Kind::Empty1tRaw, Way::Local, key::PIPE, 1.0, Against::BestQemu),
    ask(5, Kind::Empty1tRaw, Way::Local, key::COPY, 1.0, Against::BestQemu),
    ask(5, Kind::Empty1tQcow2, Way::Local, key::PIPE, 1.0, Against::BestQemu),
    ask(5, Kind::Empty1tQcow2, Way::Local, key::COPY, 1.0, Against::BestQemu),
    ask(5, Kind::Empty16tQcow2, Way::Map, key::MAP, 0.5, Against::Key(key::QEMU_MAP)),
    ask(6, Kind::ScatteredRaw, Way::Local, key::PIPE_HASH, 1.45, Against::Key(key::FLOOR_SHA)),
    ask(7, Kind::LongRaw, Way::Ssh, key::SSH, 1.05, Against::Key(key::FLOOR_SSH)),
    ask(7, Kind::LongRaw, Way::Ssh, key::SSH_SH, 1.5, Against::Key(key::FLOOR_SSH)),
    ask(7, Kind::LongRaw, Way::Ssh, key::PUSH_SH_PLAIN, 1.5, Against::Key(key::FLOOR_SSH)),
    ask(9, Kind::GuestRaw, Way::Delta, key::DELTA, 0.35, Against::Key(key::RSYNC)),
    ask(9, Kind::GuestRaw, Way::Delta, key::DELTA_IN_PLACE, 0.35, Against::Key(key::RSYNC)),
    ask(9, Kind::GuestRaw, Way::Delta, key::DELTA, 1.0, Against::Key(key::FULL)),
];

/// What a record may take in a manifest, in bytes.
const MANIFEST_RECORD: u64 = 80;
/// What a process tree of ours may hold at most.
const MEMORY: u64 = 64 << 20;

/// One line of what was asked, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The line's number in the list of what is asked.
    pub number: u32,
    /// What is asked, in words.
    pub asked: String,
    /// What was measured.
    pub measured: String,
    /// Whether it is met; `None` if that couldn't be measured.
    pub met: Option<bool>,
}

/// What is asked of these tables, and what came of it. What wasn't measured isn't judged.
#[must_use]
pub fn verdicts(tables: &[Table]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for ask in ASKS {
        let cases =
            tables.iter().filter(|table| table.case.kind == ask.kind && table.case.way == ask.way && !table.case.sync);
        for table in cases {
            let (against, whose) = match ask.against {
                Against::BestPeer => (table.best_peer(), "the best peer".to_owned()),
                Against::BestQemu => {
                    let both = [key::QEMU, key::QEMU_M].map(|key| table.time_of(key));
                    (both.into_iter().flatten().min_by(f64::total_cmp), "the better `qemu-img convert`".to_owned())
                }
                Against::Key(key) => {
                    let name = table.rows.iter().find(|row| row.key == key).map_or("", |row| row.name);
                    (table.time_of(key), name.to_owned())
                }
            };
            let ours = table.rows.iter().find(|row| row.key == ask.ours);
            let name = ours.map_or(ask.ours, |row| row.name);
            let (disk, place) = (table.case.kind.name(), &table.file_system);
            let ratio = ours.zip(against).map(|(ours, against)| ours.time.median / against);
            verdicts.push(Verdict {
                number: ask.number,
                asked: format!("{disk}, {place}: {name} ≤ {} × {whose}", ask.limit),
                measured: ratio.map_or_else(|| "not measured".to_owned(), |ratio| format!("{ratio:.2} ×")),
                met: ratio.map(|ratio| ratio <= ask.limit),
            });
        }
    }
    verdicts.extend(tables.iter().filter_map(on_the_wire));
    for table in tables {
        let name = table.case.name();
        let row = |key| table.rows.iter().find(|row| row.key == key);
        let mut judge = |number, asked: &str, measured: Option<(String, bool)>| {
            let met = measured.as_ref().map(|&(_, met)| met);
            let measured = measured.map_or_else(|| "not measured".to_owned(), |(measured, _)| measured);
            verdicts.push(Verdict { number, asked: format!("{name}: {asked}"), measured, met });
        };
        if table.case.way == Way::DeltaSlow {
            let times = row(key::DELTA).and_then(|row| {
                let times = row.time.median / (row.wire? as f64 * 8.0 / RATE as f64);
                Some((format!("{times:.2} ×"), times <= 1.1))
            });
            judge(9, "`xfer-hole --delta` push ≤ 1.1 × the time of its bytes, there and back", times);
        }
        if table.case.way == Way::DeltaSame {
            let wire = row(key::REMEMBER).and_then(|row| row.wire).map(|wire| (bytes(wire), wire < 1024));
            judge(10, "`--remember`: wire < 1 KiB", wire);
            let more = row(key::REMEMBER).zip(row(key::CONNECT)).map(|(ours, ssh)| ours.time.median - ssh.time.median);
            let more = more.map(|more| (seconds(more.max(0.0)), more < 0.5));
            judge(10, "`--remember`: < 500 ms more than an ssh connection", more);
        }
    }
    let ours = tables.iter().flat_map(|table| table.rows.iter().map(move |row| (table, row)));
    let ours = ours.filter(|(_, row)| row.side == Side::Ours);
    if let Some((table, row)) = ours.max_by_key(|(_, row)| row.memory.near.max(row.memory.far)) {
        let most = row.memory.near.max(row.memory.far);
        verdicts.push(Verdict {
            number: 8,
            asked: "every case: memory of a process tree ≤ 64 MiB".to_owned(),
            measured: format!("{} MiB at most ({}, {})", most.div_ceil(1 << 20), row.name, table.case.name()),
            met: Some(most <= MEMORY),
        });
    }
    verdicts
}

/// Where something is at the target already: that little more goes over the wire than has to. The one of ours that comes closest to the
/// limit.
fn on_the_wire(table: &Table) -> Option<Verdict> {
    let due = table.due?;
    let limit = (due.bytes as f64 * 1.02) as u64 + due.records * MANIFEST_RECORD;
    let ours = table.rows.iter().filter(|row| row.side == Side::Ours && ![key::FULL, key::REMEMBER].contains(&row.key));
    let most = ours.filter_map(|row| Some((row.wire?, row.name))).max();
    let asked = if due.bytes > 0 { "1.02 × what differs, and " } else { "" };
    Some(Verdict {
        number: if due.bytes > 0 { 9 } else { 10 },
        asked: format!("{}: wire, both ways ≤ {asked}80 bytes a record = {}", table.case.name(), bytes(limit)),
        measured: most.map_or("not measured".to_owned(), |(wire, name)| format!("{} at most ({name})", bytes(wire))),
        met: most.map(|(wire, _)| wire <= limit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, On};
    use crate::measure::Memory;
    use crate::past::Due;
    use crate::session::Row;
    use crate::stats::Spread;

    fn table(way: Way, bytes: u64, rows: &[(&'static str, Side, f64, u64)]) -> Table {
        let row = |&(key, side, median, wire)| {
            let time = Spread { median, least: median, most: median };
            Row { key, name: key, side, time, cpu: 0.0, memory: Memory::default(), wire: Some(wire), allocated: None }
        };
        Table {
            case: Case { kind: Kind::GuestRaw, way, on: On::Disk, sync: false },
            file_system: "ext4",
            scale: 1,
            disk_allocated: 2 << 30,
            due: Some(Due { bytes, records: 1000 }),
            rows: rows.iter().map(row).collect(),
            failed: Vec::new(),
        }
    }

    fn met(table: Table) -> Vec<(u32, bool)> {
        verdicts(&[table]).iter().filter(|one| one.number > 8).map(|one| (one.number, one.met.unwrap())).collect()
    }

    #[test]
    fn a_delta_is_held_against_rsync_a_full_send_and_what_differs() {
        let all = |ours, wire| {
            let rows = [
                (key::DELTA, Side::Ours, ours, 1 << 20),
                (key::DELTA_IN_PLACE, Side::Ours, 0.3, wire),
                (key::FULL, Side::Ours, 0.6, 1 << 30),
                (key::RSYNC, Side::Rival, 1.0, 1 << 30),
            ];
            met(table(Way::Delta, 10_000_000, &rows))
        };
        assert_eq!(all(0.35, 10_280_000), [(9, true); 4]);
        assert_eq!(all(0.61, 10_280_001), [(9, false), (9, true), (9, false), (9, false)]);
    }

    #[test]
    fn a_slow_link_takes_the_time_of_its_octets() {
        let all = |ours| met(table(Way::DeltaSlow, 100_000_000, &[(key::DELTA, Side::Ours, ours, 100_000_000)]));
        assert_eq!((all(8.8), all(8.9)), (vec![(9, true); 2], vec![(9, true), (9, false)]));
    }

    #[test]
    fn of_the_same_disk_nothing_flows_but_its_manifest_or_less() {
        let all = |wire, ours| {
            let rows = [
                (key::DELTA, Side::Ours, 1.0, 79_000),
                (key::REMEMBER, Side::Ours, ours, wire),
                (key::CONNECT, Side::Floor, 0.25, 0),
            ];
            met(table(Way::DeltaSame, 0, &rows))
        };
        assert_eq!(all(1023, 0.7), [(10, true); 3]);
        assert_eq!(all(1024, 0.76), [(10, true), (10, false), (10, false)]);
    }
}
