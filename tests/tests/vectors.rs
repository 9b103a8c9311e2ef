//! Every vector of the protocol, through the binary and through the script in every shell: accepted or refused as the index says.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs::{self, File};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rig::{
    Bad, Dialects, Filesystem, Fs, Good, Index, Outcome, Receiver, Tools, assert_holes_within, holes, run, tools,
    vector,
};
use xfer_hole_proto::Hasher;

/// Room for what the vectors make, which is mostly holes.
const ROOM: u64 = 1 << 30;

/// Who gets a vector: the script only where it has to know better than to accept.
fn receivers(script: bool) -> Vec<Receiver> {
    if script { Receiver::all() } else { vec![Receiver::Binary] }
}

/// Does all the work on as many threads as there are processors; each has a folder of its own.
fn share_out<T: Sync>(work: &[T], room: &Path, each: impl Fn(&T, &Path) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..thread::available_parallelism().unwrap().get() {
            let (next, failed, each, folder) = (&next, &failed, &each, room.join(number.to_string()));
            fs::create_dir(&folder).unwrap();
            scope.spawn(move || {
                while let Some(item) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // All that fail are shown, not only the first.
                    failed.fetch_or(catch_unwind(AssertUnwindSafe(|| each(item, &folder))).is_err(), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(!failed.into_inner(), "see above");
}

/// The receiver on this stream. The binary is told of the dialect.
fn receive(
    tools: &Tools,
    receiver: Receiver,
    dialect: Dialects,
    in_place: bool,
    dest: &Path,
    stream: &[u8],
) -> Outcome {
    let mut command = receiver.command(tools, dest, in_place, true);
    if dialect == Dialects::Classic {
        // Behind "--" an option would be a name.
        command = std::process::Command::new(&tools.recv_hole);
        command.args(["--classic", "--no-sync"]).args(in_place.then_some("--in-place")).arg("--").arg(dest);
    }
    run(&mut command, stream)
}

fn sha256(path: &Path) -> String {
    let mut hasher = Hasher::default();
    let (mut file, mut buffer) = (File::open(path).unwrap(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.digest().to_string(),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A good stream into `out.img`: the disk of the index, and nothing else beside it.
fn assert_good(tools: &Tools, name: &str, good: &Good, receiver: Receiver, in_place: bool, folder: &Path) {
    let what = format!("{name} by {receiver:?}{}", if in_place { " in place" } else { "" });
    let dest = folder.join("out.img");
    let _not_there = fs::remove_file(&dest);
    if let Some(old) = &good.dest {
        old.make(&dest);
    }
    let outcome = receive(tools, receiver, good.dialect, in_place, &dest, &vector("good", name));
    assert_eq!((outcome.code, outcome.complaints()), (Some(0), Vec::new()), "{what}");
    assert_eq!(fs::metadata(&dest).unwrap().len(), good.size, "{what}: size");
    if let Some(expected) = &good.sha256 {
        assert_eq!(&sha256(&dest), expected, "{what}: SHA-256");
    }
    assert_holes_within(&good.holes, &holes(&dest), &what);
    assert_eq!(names_in(folder), ["out.img"], "{what}");
}

/// A bad stream into `out.img`: one line with the place of the index, and an old file as it was.
fn assert_bad(tools: &Tools, name: &str, bad: &Bad, receiver: Receiver, folder: &Path) {
    let what = format!("{name} by {receiver:?}");
    let (dest, part, before) = (folder.join("out.img"), folder.join("out.img.part"), folder.join("before"));
    for path in [&dest, &part, &before] {
        let _not_there = fs::remove_file(path);
    }
    if let Some(old) = &bad.dest {
        old.make(&dest);
        old.make(&before);
    }
    let outcome = receive(tools, receiver, bad.dialect, false, &dest, &vector("bad", name));
    assert_eq!(outcome.code, Some(2), "{what}: {}", outcome.err);
    let [line] = outcome.complaints()[..] else { panic!("{what}: not one line: {}", outcome.err) };
    let place = match (receiver, bad.record) {
        // It depends on the target alone, so it is told of the target.
        (Receiver::Binary, _) if bad.kind == "target" => "recv-hole: ".to_owned(),
        (Receiver::Binary, 0) => "recv-hole: open line: ".to_owned(),
        (Receiver::Binary, record) => format!("recv-hole: record {record} at disk offset {}: ", bad.offset),
        (Receiver::Script(_), record) => format!("recv-hole.sh: record {record} at disk offset {}: ", bad.offset),
    };
    assert!(line.starts_with(&place), "{what}: \"{place}\" is not how this begins: {line}");
    if bad.dest.is_some() {
        assert!(fs::read(&dest).unwrap() == fs::read(&before).unwrap(), "{what}: the old file changed");
        assert_eq!(holes(&dest), holes(&before), "{what}: the old file's holes");
    } else {
        assert!(!dest.exists(), "{what}: there is a file under the final name");
    }
    if part.exists() {
        assert!(line.contains("out.img.part"), "{what}: doesn't name what is left: {line}");
    }
}

#[test]
fn good_vectors_become_the_disk_of_the_index_with_its_holes() {
    let (tools, fs, index) = (tools!(), Filesystem::new(Fs::Tmpfs, ROOM), Index::read());
    let work = index.good.iter().flat_map(|(name, good)| {
        receivers(good.dialect == Dialects::V1 && good.shell_takes)
            .into_iter()
            .map(move |receiver| (name, good, receiver))
    });
    share_out(&work.collect::<Vec<_>>(), fs.path(), |(name, good, receiver), folder| {
        assert_good(&tools, name, good, *receiver, false, folder);
    });
}

#[test]
fn good_vectors_become_the_same_disk_in_place() {
    let (tools, fs, index) = (tools!(), Filesystem::new(Fs::Ext4, ROOM), Index::read());
    let both = |good: &Good| if good.dialect == Dialects::V1 && good.shell_takes { 2 } else { 1 };
    let work = index
        .good
        .iter()
        .flat_map(|(name, good)| Receiver::both().map(|it| (name, good, it)).into_iter().take(both(good)));
    share_out(&work.collect::<Vec<_>>(), fs.path(), |(name, good, receiver), folder| {
        assert_good(&tools, name, good, *receiver, true, folder);
    });
}

#[test]
fn bad_vectors_are_refused_at_the_place_of_the_index_and_change_nothing() {
    let (tools, fs, index) = (tools!(), Filesystem::new(Fs::Tmpfs, ROOM), Index::read());
    let work = index.bad.iter().flat_map(|(name, bad)| {
        let script = bad.shell_sees && bad.dialect == Dialects::V1;
        receivers(script).into_iter().map(move |receiver| (name, bad, receiver))
    });
    share_out(&work.collect::<Vec<_>>(), fs.path(), |(name, bad, receiver), folder| {
        assert_bad(&tools, name, bad, *receiver, folder);
    });
}
