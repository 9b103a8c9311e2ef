//! What is asked of us, and whether it is met.

use crate::case::Way;
use crate::contender::{Side, key};
use crate::disk::Kind;
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

const ASKS: [Ask; 22] = [
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
];

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
    /// Whether it is met.
    pub met: bool,
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
                met: ratio.is_some_and(|ratio| ratio <= ask.limit),
            });
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
            met: most <= MEMORY,
        });
    }
    verdicts
}
