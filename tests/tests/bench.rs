//! The bench measures our tools, checks what they make, says so, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use rig::{checkout, requires, requires_root, tools};
use xfer_hole_bench::cli::Cli;
use xfer_hole_bench::run;

/// A run takes all that descends from its process for its own: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A run of the bench on disks of some MiB, one turn for each command.
fn bench(
    tools: &Path,
    places: [&Path; 2],
    report: &Path,
    cases: &[&str],
) -> Result<bool, xfer_hole_bench::error::Error> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut words: Vec<PathBuf> = ["bench", "--runs", "1", "--scale", "256", "--where"].map(PathBuf::from).to_vec();
    words.extend([places[0].to_owned(), "--tmpfs".into(), places[1].to_owned(), "--report".into(), report.to_owned()]);
    words.extend(["--checkout".into(), checkout(""), "--tools".into(), tools.to_owned()]);
    words.extend(cases.iter().map(PathBuf::from));
    run(&Cli::parse_from(words))
}

#[test]
fn what_is_at_the_target_is_brought_up_to_date_and_the_slow_link_is_gone_afterwards() {
    requires(&["qemu-img", "mkfs.ext4", "sshd", "rsync", "ip", "tc"]);
    requires_root();
    let [here, report] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let programs = tools!().xfer_hole.parent().unwrap().to_owned();
    let places = [here.path(), memory.path()];
    let cases = ["guest-raw/delta-same", "guest-raw/resume", "guest-raw/delta-100mbit"];
    let document = "<!-- bench: changed begin -->\nold\n<!-- bench: changed end -->\n";
    fs::create_dir(report.path().join("doc")).unwrap();
    fs::write(report.path().join("doc/sync.md"), document).unwrap();
    bench(&programs, places, report.path(), &cases).unwrap();
    let document = fs::read_to_string(report.path().join("doc/sync.md")).unwrap();
    assert!(document.contains("raw: half, from an interrupted push | ") && !document.contains("old"), "{document}");
    let text = fs::read_to_string(report.path().join("BENCHMARKS.md")).unwrap();
    for (part, times) in [
        ("### guest-raw: over ssh at 100 Mbit/s, to a state in which 1 % is other bytes, to ", 1),
        ("| **`xfer-hole --delta` push** | ", 2),
        ("| **`xfer-hole --delta --remember` push** | ", 1),
        ("| **`xfer-hole` push again** | ", 1),
        ("| **`recv-hole` pull again** | ", 1),
        ("| floor: as many bytes as differ, over ssh to nowhere | ", 2),
        ("| `rsync --inplace --no-whole-file` | ", 3),
        ("| 10 | guest-raw/delta-same/disk: `--remember`: wire < 1 KiB | ", 1),
    ] {
        assert_eq!(text.matches(part).count(), times, "{part}: {text}");
    }
    assert!(!text.contains("Left out"), "{text}");
    for place in places {
        assert_eq!(fs::read_dir(place).unwrap().count(), 0, "{}", place.display());
    }
    let ours = format!("xfer-hole-bench.{}", std::process::id());
    assert!(!Path::new("/run/netns").join(ours).exists());
}

#[test]
fn a_tiny_run_reports_and_leaves_nothing_and_a_broken_tool_is_found_out() {
    requires(&["qemu-img", "qemu-io", "mkfs.ext4", "sshd"]);
    let [here, report] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // Only there a file of 16 TiB can be.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let readme = "<!-- bench: begin -->\nold\n<!-- bench: end -->\n";
    fs::write(report.path().join("README.md"), readme).unwrap();
    let programs = tools!().xfer_hole.parent().unwrap().to_owned();
    let places = [here.path(), memory.path()];

    bench(&programs, places, report.path(), &["scattered-raw/local/disk", "guest-zlib/tmpfs", "long-raw/disk", "map"])
        .unwrap();
    let text = fs::read_to_string(report.path().join("BENCHMARKS.md")).unwrap();
    for part in [
        "### scattered-raw: on this machine, to ",
        "| **`xfer-hole` \\| `recv-hole`** |",
        "| `qemu-img convert -W -m 16` |",
        "### guest-zlib: on this machine, to ",
        ", sizes divided by 256\n",
        "### empty-16t-qcow2: what lies where\n",
        "| **`xfer-hole --receiver sh` push** |",
        "| 8 | every case: memory of a process tree ≤ 64 MiB | ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for secret in [here.path(), report.path(), &programs] {
        assert!(!text.contains(secret.to_str().unwrap()), "a path of this machine: {text}");
    }
    let readme = fs::read_to_string(report.path().join("README.md")).unwrap();
    assert!(readme.contains("| 1 GiB of data in 8 GiB, in runs of 64 KiB to 4 MiB, raw | ") && !readme.contains("old"));
    let chart = fs::read_to_string(report.path().join("doc/speed.svg")).unwrap();
    assert!(chart.contains(">1 GiB of data in 8 GiB, in runs of 64 KiB to 4 MiB, raw<"), "{chart}");
    for place in places {
        assert_eq!(fs::read_dir(place).unwrap().count(), 0, "{}", place.display());
    }

    // A receiver that says it is done and has made another disk.
    let broken = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(tools!().xfer_hole, broken.path().join("xfer-hole")).unwrap();
    let lies = "#!/bin/sh\nfor to do :; done\nhead -c 1000000 /dev/urandom >\"$to\"\ncat >/dev/null\n";
    let liar = broken.path().join("recv-hole");
    fs::write(&liar, lies).unwrap();
    fs::set_permissions(&liar, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let why = bench(broken.path(), places, report.path(), &["scattered-raw/local/disk"]).unwrap_err().to_string();
    assert!(why.starts_with("2 of our own commands failed"), "{why}");
    let text = fs::read_to_string(report.path().join("BENCHMARKS.md")).unwrap();
    assert!(text.contains("Left out: `xfer-hole` \\| `recv-hole`: the result is another disk"), "{text}");
    for place in places {
        assert_eq!(fs::read_dir(place).unwrap().count(), 0, "{}", place.display());
    }
}
