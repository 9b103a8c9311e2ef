//! Images with numbers in them that can't be, or that harm who believes them: refused in one line that says where, without a panic,
//! in bounded time and memory.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rig::{
    Field, Filesystem, Fill, Fs, Op, Outcome, Qcow2, Tools, l1_entry, l2_entry, peek, poke, requires, run, tools,
    write_at,
};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const MOST_KIB: u64 = 64 << 10;
/// Longer is a hang.
const GUARD: Duration = Duration::from_secs(5);
const U32: u64 = 0xffff_ffff;

/// Runs one of ours under time(1): how it ended, within time and memory, and without a panic.
#[track_caller]
fn bounded(tools: &Tools, args: &[&str], image: &Path, what: &str) -> Outcome {
    requires(&["time"]);
    let report = image.with_extension("report");
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M", "-o"]).arg(&report).args(["timeout", "-s", "KILL", "20"]);
    timed.arg(&tools.xfer_hole).args(args).arg(image);
    let start = Instant::now();
    let outcome = run(&mut timed, b"");
    assert!(start.elapsed() < GUARD, "{what}: took {:?}", start.elapsed());
    let peak: u64 = fs::read_to_string(&report).unwrap().lines().last().unwrap().parse().unwrap();
    assert!(peak <= MOST_KIB, "{what}: {peak} KiB");
    assert!(!outcome.err.contains("panick") && outcome.code.is_some(), "{what}: {outcome:?}");
    outcome
}

/// What is wrong with how send and map refuse this image: it must be one line that has its name and these words.
fn wrong(tools: &Tools, args: &[&str], image: &Path, words: &[&str], what: &str) -> Option<String> {
    [&[][..], &["map"]].iter().find_map(|command| {
        let outcome = bounded(tools, &[command, args].concat(), image, what);
        let lines = outcome.complaints();
        let said = lines.join("\n").to_lowercase();
        let fine = outcome.code == Some(2)
            && lines.len() == 1
            && lines[0].starts_with("xfer-hole: ")
            && lines[0].contains("disk.qcow2")
            && words.iter().all(|word| said.contains(word));
        (!fine).then(|| format!("{what}: {words:?}, but {command:?} ended with {:?}: {}", outcome.code, outcome.err))
    })
}

/// A change to an image that makes it a bad one.
type Change<'a> = Box<dyn Fn(&Path) + 'a>;

/// A small good image, of which each case spoils a copy.
struct Good {
    fs: Filesystem,
    image: PathBuf,
}

impl Good {
    /// 4 KiB clusters, 8 MiB: an L2 table maps 2 MiB of them. Data at 0 and 5 MiB, compressed at 1 MiB, a snapshot.
    fn new(options: &str) -> Self {
        let fs = Filesystem::new(Fs::Tmpfs, 256 * M);
        let good = Self { image: fs.join("disk.qcow2"), fs };
        let (disk, compressed) =
            if options.contains("extended_l2") { ("cluster_size=16k", 16 * K) } else { ("cluster_size=4k", 4 * K) };
        let disk = Qcow2::new(8 * M).option(disk).option(options).write(0, 20 * K, Fill::Noise(1));
        let disk = disk.snapshot("first").write(0, 20 * K, Fill::Noise(2));
        let ops = [
            Op::Write(5 * M, 20 * K, Fill::Noise(3)),
            Op::Compressed(M, compressed, Fill::Text(1)),
            Op::Compressed(M + 2 * compressed, compressed, Fill::Text(2)),
        ];
        disk.ops(ops).make(&good.fs.join("good.qcow2"));
        good
    }

    fn spoiled(&self, change: &dyn Fn(&Path)) -> &Path {
        fs::copy(self.fs.join("good.qcow2"), &self.image).unwrap();
        change(&self.image);
        &self.image
    }

    /// Fails unless each copy, changed so, is refused with its words. Says all that are not.
    #[track_caller]
    fn all_refused(&self, args: &[&str], cases: &[(&str, &[&str], Change<'_>)]) {
        // The copy is good as long as it is not changed.
        bounded(&tools!(), args, self.spoiled(&|_| {}), "unchanged").ok();
        let wrong =
            cases.iter().filter_map(|(what, words, change)| wrong(&tools!(), args, self.spoiled(change), words, what));
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn set(field: Field, value: u64) -> Change<'static> {
    Box::new(move |image| poke(image, field, value))
}

fn cut(len: u64) -> Change<'static> {
    Box::new(move |image| File::options().write(true).open(image).unwrap().set_len(len).unwrap())
}

/// Sets a table's entry, given where it lies in the image.
fn entry(place: impl Fn(&Path) -> Field + 'static, value: impl Fn(&Path, u64) -> u64 + 'static) -> Change<'static> {
    Box::new(move |image| {
        let field = place(image);
        poke(image, field, value(image, peek(image, field)));
    })
}

fn bytes_of(image: &Path) -> u64 {
    fs::metadata(image).unwrap().len()
}

#[test]
fn numbers_in_the_header_that_can_t_be_are_refused() {
    let mut cases: Vec<(&str, &[&str], Change<'_>)> = vec![
        ("L1 of more than 32 MiB", &["l1"], set(Field::L1_SIZE, (4 << 20) + 1)),
        ("L1 of 32 GiB", &["l1"], set(Field::L1_SIZE, U32)),
        ("L1 too small for the size", &["l1"], set(Field::L1_SIZE, 1)),
        ("L1 absent", &["l1"], set(Field::L1_SIZE, 0)),
        ("size of 2^63", &["size"], set(Field::SIZE, 1 << 63)),
        ("size of 2^64", &["size"], set(Field::SIZE, u64::MAX)),
        ("size past the L1 table", &["l1"], set(Field::SIZE, 1 << 50)),
        ("refcount table absent", &["refcount"], set(Field::REFCOUNT_CLUSTERS, 0)),
        ("refcount table of 2^32 clusters", &["refcount"], set(Field::REFCOUNT_CLUSTERS, U32)),
        ("refcount table over 8 MiB", &["refcount"], set(Field::REFCOUNT_CLUSTERS, 2049)),
        ("refcount width of 128", &["refcount"], set(Field::REFCOUNT_ORDER, 7)),
        ("refcount width of 2^(2^32)", &["refcount"], set(Field::REFCOUNT_ORDER, U32)),
        ("2^32 snapshots", &["snapshot"], set(Field::SNAPSHOTS, U32)),
        ("65537 snapshots", &["snapshot"], set(Field::SNAPSHOTS, 65_537)),
        ("header length 0", &["header"], set(Field::HEADER_LENGTH, 0)),
        ("header length 103", &["header"], set(Field::HEADER_LENGTH, 103)),
        ("header longer than a cluster", &["header"], set(Field::HEADER_LENGTH, 4097)),
        ("header of 4 GiB", &["header"], set(Field::HEADER_LENGTH, U32)),
        ("backing name of 1024 bytes", &["backing"], Box::new(|image| backing(image, 1024, 1024))),
        ("backing name of 4 GiB", &["backing"], Box::new(|image| backing(image, 1024, U32))),
        ("backing name past the header", &["backing"], Box::new(|image| backing(image, 4096, 10))),
        ("backing name that ends past it", &["backing"], Box::new(|image| backing(image, 4090, 10))),
        ("backing name in the fields", &["backing"], Box::new(|image| backing(image, 8, 10))),
        ("backing name at 2^64", &["backing"], Box::new(|image| backing(image, u64::MAX, 10))),
        ("data file without a name", &["data file"], set(Field::INCOMPATIBLE, 4)),
        ("subclusters of 128 bytes", &["cluster"], set(Field::INCOMPATIBLE, 0x10)),
    ];
    for bits in [0, 8, 22, 31, 32, 63, 64, 255, U32] {
        cases.push(("cluster bits", &["cluster"], set(Field::CLUSTER_BITS, bits)));
    }
    let tables: [(&[&str], Field); 3] = [
        (&["l1", "0x"], Field::L1_OFFSET),
        (&["refcount", "0x"], Field::REFCOUNT_OFFSET),
        (&["snapshot", "0x"], Field::SNAPSHOTS_OFFSET),
    ];
    for (words, field) in tables {
        for (what, value) in [
            ("table off a cluster", 4096 + 8),
            ("table off a cluster", 512),
            ("table at 2^63", 1 << 63),
            ("table at the end of all numbers", 0u64.wrapping_sub(4096)),
        ] {
            cases.push((what, words, set(field, value)));
        }
    }
    for (words, one, other) in [
        (["overlap", "0x"], Field::L1_OFFSET, Field::REFCOUNT_OFFSET),
        (["overlap", "0x"], Field::REFCOUNT_OFFSET, Field::L1_OFFSET),
        (["overlap", "0x"], Field::SNAPSHOTS_OFFSET, Field::L1_OFFSET),
    ] {
        let change = move |image: &Path| poke(image, one, peek(image, other));
        cases.push(("tables that overlap", Box::leak(Box::new(words)), Box::new(change)));
    }
    for (what, value) in
        [("table past the end", 1 << 30), ("table past all files", 1 << 56), ("table in the header", 0)]
    {
        cases.push((what, &["l1", "0x"], set(Field::L1_OFFSET, value)));
    }
    for len in [4, 20, 71, 72, 103] {
        cases.push(("a file that ends in its header", &[], cut(len)));
    }
    Good::new("").all_refused(&[], &cases);
}

fn backing(image: &Path, at: u64, len: u64) {
    poke(image, Field::BACKING_OFFSET, at);
    poke(image, Field::BACKING_SIZE, len);
}

#[test]
fn extensions_that_reach_past_the_header_s_cluster_are_refused() {
    let extension = |at: u64, kind: u32, len: u32| -> Change<'static> {
        Box::new(move |image| {
            let at = peek(image, Field::HEADER_LENGTH) + at;
            write_at(image, at, &[kind.to_be_bytes(), len.to_be_bytes()].concat());
        })
    };
    let mut cases: Vec<(&str, &[&str], Change<'_>)> = Vec::new();
    for kind in [0x1234_5678, 0xe279_2aca, 0x6803_f857, 0x4441_5441] {
        for len in [4096, 1 << 20, 0x7fff_ffff, 0xffff_fff8, 0xffff_ffff] {
            cases.push(("an extension of this length", &["extension"], extension(0, kind, len)));
        }
    }
    // The last of them begins in the cluster's last bytes.
    cases.push((
        "an extension that begins at the cluster's end",
        &["extension"],
        Box::new(|image| {
            let header = peek(image, Field::HEADER_LENGTH);
            let len = u32::try_from(4096 - 8 - 8 - header).unwrap();
            write_at(image, header, &[0x1234_5678u32.to_be_bytes(), len.to_be_bytes()].concat());
            write_at(image, 4088, &[0x1234_5678u32.to_be_bytes(), 1u32.to_be_bytes()].concat());
        }),
    ));
    Good::new("").all_refused(&[], &cases);
}

#[test]
fn l1_entries_that_can_t_be_are_refused() {
    let l1 = |value: fn(&Path, u64) -> u64| entry(|image| l1_entry(image, 0), value);
    Good::new("").all_refused(
        &[],
        &[
            ("reserved bits below", &["l1", "0x"], l1(|_, old| old | 1)),
            ("reserved bits above", &["l1", "0x"], l1(|_, old| old | 1 << 56)),
            ("off a cluster", &["l1", "0x"], l1(|_, old| old + 512)),
            (
                "an L2 table at the file's end",
                &["l2", "0x"],
                l1(|image, _| bytes_of(image).next_multiple_of(4096) | 1 << 63),
            ),
            ("an L2 table past the end", &["l2", "0x"], l1(|_, _| 1 << 40 | 1 << 63)),
            ("an L2 table past all files", &["l2", "0x"], l1(|_, _| 0x80ff_ffff_ffff_f000)),
            ("itself as its L2 table", &["l2", "0x"], l1(|image, _| peek(image, Field::L1_OFFSET) | 1 << 63)),
            (
                "the refcount table as its L2 table",
                &["l2", "0x"],
                l1(|image, _| peek(image, Field::REFCOUNT_OFFSET) | 1 << 63),
            ),
            (
                "the snapshot table as its L2 table",
                &["l2", "0x"],
                l1(|image, _| peek(image, Field::SNAPSHOTS_OFFSET) | 1 << 63),
            ),
        ],
    );
}

#[test]
fn l2_entries_that_can_t_be_are_refused() {
    let l2 = |value: fn(&Path, u64) -> u64| entry(|image| l2_entry(image, 0, 2), value);
    Good::new("").all_refused(
        &[],
        &[
            ("reserved bits below", &["l2", "0x"], l2(|_, old| old | 2)),
            ("reserved bits above", &["l2", "0x"], l2(|_, old| old | 1 << 56)),
            ("off a cluster", &["l2", "0x"], l2(|_, old| old + 512)),
            ("off a cluster, zeroed", &["l2", "0x"], l2(|_, old| (old + 512) | 1)),
        ],
    );
    // What version 3 calls zero is reserved in version 2.
    Good::new("compat=v2").all_refused(&[], &[("zero in version 2", &["l2", "0x"], l2(|_, old| old | 1))]);
}

#[test]
fn subcluster_bitmaps_that_contradict_themselves_are_refused() {
    let bitmap = |index: u64, value: u64| -> Change<'static> {
        entry(move |image| Field(l2_entry(image, 0, index).0 + 8, 8), move |_, _| value)
    };
    Good::new("extended_l2=on").all_refused(
        &[],
        &[
            ("data and zero at once", &["l2", "0x"], bitmap(0, u64::MAX)),
            ("one subcluster data and zero", &["l2", "0x"], bitmap(0, 1 << 40 | 0xffff_ffff)),
            ("data without a place", &["l2", "0x"], bitmap(20, 1)),
            ("the zero bit of plain entries", &["l2", "0x"], entry(|image| l2_entry(image, 0, 0), |_, old| old | 1)),
        ],
    );
}

/// The offset in the file of the compressed cluster at 1 MiB, of 4 KiB clusters.
fn compressed(image: &Path) -> u64 {
    // Bits 0 to x - 1 are the offset, x = 62 - (cluster bits - 8).
    peek(image, l2_entry(image, 0, 256)) & ((1 << 58) - 1)
}

#[test]
fn compressed_clusters_that_are_none_are_refused() {
    let data = |bytes: Vec<u8>| -> Change<'static> {
        Box::new(move |image| {
            let mut bytes = bytes.clone();
            bytes.resize(3000, 0xaa);
            write_at(image, compressed(image), &bytes);
        })
    };
    let at = |offset: fn(u64, u64) -> u64| {
        entry(|image| l2_entry(image, 0, 256), move |image, old| offset(bytes_of(image), old))
    };
    for method in ["zlib", "zstd"] {
        let mut cases: Vec<(&str, &[&str], Change<'_>)> = vec![
            ("garbage", &["compressed", "0x"], data(vec![0xff; 3000])),
            ("zeros", &["compressed", "0x"], data(vec![0; 3000])),
            ("past the end", &["compressed", "0x"], at(|_, old| old & !((1 << 58) - 1) | 1 << 40)),
            ("at the last place there is", &["compressed", "0x"], at(|_, old| old | ((1 << 58) - 1))),
            ("at the file's end", &["compressed", "0x"], at(|len, old| old & !((1 << 58) - 1) | len)),
        ];
        if method == "zlib" {
            // A stored block of 100 bytes, the last one.
            let short = [&[1, 100, 0, 0x9b, 0xff][..], &[7; 100]].concat();
            cases.push(("less than a cluster", &["compressed", "0x"], data(short)));
            cases.push(("a distance before the beginning", &["compressed", "0x"], data(vec![0x03 | 0x40, 0x02, 0xff])));
        } else {
            let frame = |descriptor: &[u8], block: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd], descriptor, block].concat();
            // One block of 100 equal bytes, the last one.
            let short = frame(&[0x20, 100], &[0x23, 0x03, 0, 7]);
            cases.push(("less than a cluster", &["compressed", "0x"], data(short)));
            let long = frame(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0], &[0x23, 0x03, 0, 7]);
            cases.push(("a frame of 4 GiB", &["compressed", "0x"], data(long)));
            let wide = frame(&[0, 0xff], &[0x04, 0x03, 0, 7]);
            cases.push(("a window of terabytes, and garbage", &["compressed", "0x"], data(wide)));
        }
        let good = Good::new(&format!("compression_type={method}"));
        // Data is what a map doesn't look at.
        bounded(&tools!(), &[], good.spoiled(&|_| {}), "unchanged").ok();
        let wrong = cases.iter().filter_map(|(what, words, change)| {
            let outcome = bounded(&tools!(), &[], good.spoiled(change), &format!("{method} {what}"));
            let fine = outcome.code == Some(2)
                && outcome.complaints().len() == 1
                && words.iter().all(|word| outcome.err.contains(word))
                && !outcome.out.ends_with(b"END\n");
            (!fine).then(|| format!("{method} {what}: {words:?}, but {:?}: {}", outcome.code, outcome.err))
        });
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // A window larger than there can be, and good data in it: QEMU refuses it, and who doesn't needs no memory for it.
        if method == "zstd" {
            let whole = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 0x03, 0x80, 0, 7];
            bounded(&tools!(), &[], good.spoiled(&data(whole)), "a window of terabytes");
        }
    }
}

/// Snapshot table entries: the offset of the first one, and its fields ("Snapshots").
fn snapshot(at: u64, width: u64) -> impl Fn(&Path) -> Field {
    move |image| Field(peek(image, Field::SNAPSHOTS_OFFSET) + at, width)
}

#[test]
fn snapshot_tables_that_can_t_be_are_refused() {
    let change = |at: u64, width: u64, value: u64| entry(snapshot(at, width), move |_, _| value);
    let cases: Vec<(&str, &[&str], Change<'_>)> = vec![
        ("L1 off a cluster", &["snapshot", "0x"], change(0, 8, 4096 + 8)),
        ("L1 past the end", &["snapshot", "0x"], change(0, 8, 1 << 40)),
        ("L1 in the header", &["snapshot"], change(0, 8, 0)),
        ("L1 of 32 GiB", &["snapshot", "l1"], change(8, 4, U32)),
        ("L1 too small", &["snapshot", "l1"], change(8, 4, 1)),
        ("extra data of 4 GiB", &["snapshot"], change(36, 4, U32)),
        ("extra data of 1 MiB", &["snapshot"], change(36, 4, 1 << 20)),
        ("size of 2^63", &["snapshot"], change(48, 8, 1 << 63)),
        ("size of 2^64", &["snapshot"], change(48, 8, u64::MAX)),
        ("more snapshots than the file holds", &["snapshot"], set(Field::SNAPSHOTS, 65_000)),
    ];
    Good::new("").all_refused(&["--snapshot", "1"], &cases);
}

/// What changes in a random place of a good image: which table, where in it, and to what.
#[derive(Clone, Debug)]
struct Flip {
    table: usize,
    at: u64,
    bytes: Vec<u8>,
}

#[test]
fn images_with_random_bytes_in_their_tables_are_read_as_qemu_reads_them_or_refused() {
    let tools = tools!();
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(proptest::sample::select(vec![0, 1, 2, 0x10, 0x40, 0x7f, 0x80, 0xff]), 1..5);
    let flip = (0..5usize, 0..200u64, bytes).prop_map(|(table, at, bytes)| Flip { table, at, bytes });
    for options in ["", "compression_type=zstd", "extended_l2=on", "compat=v2"] {
        let good = Good::new(options);
        for _ in 0..40 {
            let flip = flip.new_tree(&mut runner).unwrap().current();
            let image = good.spoiled(&|image| {
                let table = match flip.table {
                    0 => 0,
                    1 => peek(image, Field::L1_OFFSET),
                    2 => l2_entry(image, 0, 0).0,
                    3 => l2_entry(image, 0, if options.contains("extended") { 64 } else { 256 }).0,
                    _ => peek(image, Field::SNAPSHOTS_OFFSET),
                };
                write_at(image, table + flip.at, &flip.bytes);
            });
            let what = format!("{options} {flip:?}");
            let outcome = bounded(&tools, &["--format", "qcow2"], image, &what);
            if outcome.code == Some(0) {
                let disk = image.with_extension("judge");
                let judge = run(
                    Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).arg(image).arg(&disk),
                    b"",
                );
                assert_eq!(judge.code, Some(0), "{what}: QEMU refuses it: {}", judge.err);
                rig::assert_as(&tools, image, &["--format", "qcow2"], image);
            } else {
                assert_eq!(outcome.code, Some(2), "{what}: {}", outcome.err);
                let said = outcome.complaints().into_iter().filter(|line| !line.contains(": warning: ")).count();
                assert_eq!(said, 1, "{what}: {}", outcome.err);
            }
        }
    }
}
