//! The recipes of README.md and doc/sync.md that send only what changed, or compare, run as they stand there: against a sshd at the far end of a cable,
//! which is really cut.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rig::{
    Machine, Running, TestDisk, assert_same, extents, gone_back, holes, part_of, qemu_disk, qemu_img, recipes,
    requires, tool, tools, wait_until,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What a disk of the machine's has.
const SIZE: u64 = 48 * MIB;

#[test]
fn every_recipe_that_sends_what_changed_runs_as_it_stands_there() {
    if !Machine::inside("every_recipe_that_sends_what_changed_runs_as_it_stands_there") {
        return;
    }
    requires(&["fincore"]);
    let machine = Machine::apart(tools!());
    machine.equip_hosts();
    let [_deploy, _device, _pull, _jump, nightly, resume] = &recipes("README.md");
    let [snapshot, layers, verify, verify_there] = &recipes("doc/sync.md");
    sends_what_differs_and_reads_nothing_that_nobody_touched(&machine, nightly);
    sends_what_a_snapshot_changed(&machine, snapshot);
    folds_a_layer_there(&machine, layers);
    goes_on_where_the_link_was_cut(&machine, resume);
    tells_whether_the_disk_is_that_of_the_manifest(&machine, [verify, verify_there]);
}

/// What a recipe that must succeed says last: its summary.
#[track_caller]
fn followed(machine: &Machine, recipe: &str) -> String {
    let outcome = machine.follow(recipe);
    assert_eq!(outcome.code, Some(0), "{recipe}\n{}", outcome.err);
    outcome.err.lines().last().unwrap_or_default().to_owned()
}

/// Changes so many bytes of a file there, and nothing else.
fn change(path: &Path, at: u64, len: u64, seed: u8) {
    let file = File::options().write(true).open(path).unwrap();
    TestDisk::empty(0).with(at, len, seed).write(&file);
    file.sync_all().unwrap();
}

/// Has a file leave the page cache.
fn forget(path: &Path) {
    posix_fadvise(File::open(path).unwrap(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    assert!(remembered(path) < MIB, "{} is still there", path.display());
}

/// Bytes of a file that are in the page cache.
fn remembered(path: &Path) -> u64 {
    tool("fincore", &["-n", "-b", "-o", "RES", path.to_str().unwrap()]).trim().parse().unwrap()
}

fn sends_what_differs_and_reads_nothing_that_nobody_touched(machine: &Machine, recipe: &str) {
    let (image, dest) = (machine.work("web.img"), Path::new("/srv/backup/web.img"));
    TestDisk::empty(SIZE).with(0, 8 * MIB, 3).with(30 * MIB, 4 * MIB, 4).make(&image);
    // What was touched just now isn't remembered.
    let night = || thread::sleep(Duration::from_millis(2100));
    night();
    for (data, changed) in [("data 12 MiB", None), ("data 128 KiB", Some(31 * MIB + 63 * KIB)), ("data 0 B", None)] {
        if let Some(at) = changed {
            change(&image, at, 2 * KIB, 5);
            night();
        }
        let files = [image.as_path(), dest];
        files.into_iter().filter(|file| file.exists()).for_each(forget);
        let said = followed(machine, recipe);
        assert!(said.contains("disk 48 MiB") && said.contains(data), "{said}");
        // But for its beginning, which tells what it is.
        let read = files.map(|file| remembered(file) > MIB);
        assert_eq!(read[0], data != "data 0 B", "{said}: whether the image was read");
        assert!(read[1] == read[0], "{said}: whether what is there was read");
        assert_same(&image, dest);
        assert_eq!(holes(&image), holes(dest));
    }
}

fn sends_what_a_snapshot_changed(machine: &Machine, recipe: &str) {
    let (image, dest) = (machine.work("web.qcow2"), Path::new("/srv/images/web.img"));
    let name = image.to_str().unwrap();
    let write = |what: &str| tool("qemu-io", &["-c", what, name]);
    qemu_img(&["snapshot", "-c", "yesterday"], &image);
    followed(machine, "xfer-hole --snapshot yesterday web.qcow2 node-b:/srv/images/web.img");
    // Data over data and over a hole, and zeros.
    write("write -P 7 5M 64k");
    write("write -P 8 20M 128k");
    write("write -z -u 40M 64k");
    qemu_img(&["snapshot", "-c", "today"], &image);
    // What has changed since is not in it.
    write("write -P 9 30M 1M");
    let said = followed(machine, recipe);
    assert!(said.contains("disk 48 MiB") && said.contains("data 192 KiB"), "{said}");
    let today = qemu_disk(&gone_back(&image, "today"));
    assert_same(&today, dest);
    assert_eq!(fs::metadata(dest).unwrap().len(), SIZE);
    assert!(!part_of(dest).exists());
}

fn folds_a_layer_there(machine: &Machine, recipe: &str) {
    let (lower, upper) = (machine.work("web-1.img"), machine.work("web-2.img"));
    let old = TestDisk::empty(4 * MIB).with(0, MIB, 1).with(2 * MIB, MIB, 2);
    // Over data, over a hole, zeros over data; larger than the one below it. Space that is only allocated, and was read, hides nothing.
    let new = TestDisk::empty(SIZE).with(4096, 8192, 3).with(MIB + 8192, 4096, 4).with(2 * MIB, 64 * KIB, 0);
    old.make(&lower);
    new.make(&upper);
    tool("fallocate", &["-n", "-o", &(2 * MIB + 512 * KIB).to_string(), "-l", "65536", upper.to_str().unwrap()]);
    drop(fs::read(&upper).unwrap());
    let layers = "xfer-hole --no-hash --detect-zeroes off --extents fiemap";
    followed(machine, &format!("{layers} web-1.img node-b:/srv/volumes/"));
    followed(machine, recipe);
    let mut expected = old.bytes();
    expected.resize(usize::try_from(SIZE).unwrap(), 0);
    for &(at, len, _) in &new.data {
        let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
        expected[range.clone()].copy_from_slice(&new.bytes()[range]);
    }
    let folded = Path::new("/srv/volumes/web-1.img");
    assert!(fs::read(folded).unwrap() == expected, "other bytes");
    assert_eq!(extents(folded), [(0, MIB), (MIB + 8192, 4096), (2 * MIB, MIB)]);
    assert_eq!(extents(Path::new("/srv/volumes/web-2.img")), [(4096, 8192), (MIB + 8192, 4096), (2 * MIB, 64 * KIB)]);
}

fn goes_on_where_the_link_was_cut(machine: &Machine, recipe: &str) {
    let (image, dest) = (machine.work("web.img"), Path::new("/srv/backup/web.img"));
    fs::remove_file(dest).unwrap();
    let data = 40 * MIB;
    TestDisk::empty(SIZE).with(0, data / 2, 6).with(26 * MIB, data / 2, 7).make(&image);
    let network = machine.network.as_ref().unwrap();
    network.slow("40mbit");
    let before = network.carried();
    let mut runs = Running::between(Stdio::null(), &mut machine.following(recipe), Stdio::null());
    let arrived = |bytes: u64| fs::metadata(part_of(dest)).is_ok_and(|part| part.blocks() * 512 >= bytes);
    wait_until("more than half of it is there", || arrived(data / 8 * 5) || !runs.lives());
    network.cut();
    assert!(runs.lives() && !dest.exists(), "it was there before the link was cut");
    // As long as it takes to be given up at both ends.
    thread::sleep(Duration::from_secs(20));
    assert!(runs.lives() && !dest.exists());
    network.restore();
    network.slow("100mbit");
    let outcome = runs.end();
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    network.restore();
    assert_same(&image, dest);
    assert_eq!(holes(&image), holes(dest));
    assert!(!part_of(dest).exists());
    // It was given up, and went on; headers are a twentieth.
    assert!(outcome.err.contains("backup: "), "{}", outcome.err);
    let carried = network.carried() - before;
    assert!(carried > data && carried < data / 4 * 5, "{carried} bytes for {data}: {}", outcome.err);
}

fn tells_whether_the_disk_is_that_of_the_manifest(machine: &Machine, recipes: [&str; 2]) {
    let dest = Path::new("/srv/images/web.img");
    followed(machine, "xfer-hole web.qcow2 hypervisor:/srv/images/web.img");
    for recipe in recipes {
        let outcome = machine.follow(recipe);
        assert_eq!((outcome.code, outcome.err.as_str(), outcome.out.len()), (Some(0), "", 0), "{recipe}");
    }
    assert_same(&qemu_disk(&machine.work("web.qcow2")), dest);
    let file = File::options().read(true).write(true).open(dest).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5 * MIB + 77).unwrap();
    file.write_all_at(&[!byte[0]], 5 * MIB + 77).unwrap();
    for recipe in recipes {
        let outcome = machine.follow(recipe);
        let said = String::from_utf8(outcome.out).unwrap();
        assert_eq!(outcome.code, Some(1), "{recipe}: {}", outcome.err);
        assert!(said.ends_with(": 1 interval of 1048576 bytes differs, at offset 5242880\n"), "{recipe}: {said}");
    }
}
