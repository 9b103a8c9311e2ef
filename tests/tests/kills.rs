//! Any process of a transfer dies at any moment: no success without a whole and synced image, no damage to the old one, nobody left
//! behind. `XFER_HOLE_KILLS` says how many times; `XFER_HOLE_SEED` begins elsewhere.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::{
    Before, FarEnd, Filesystem, Fs, HOST, LoopDevice, Process, Running, Setup, TestDisk, Toolbox, assert_same, part_of,
    requires, run, tools, wait_until,
};

const MIB: u64 = 1 << 20;

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Everything that has to do with a transfer to this account, at both ends: its sessions, and what names it.
fn involved(far: &FarEnd) -> Vec<Process> {
    let mut all = far.account.processes();
    all.extend(Process::all().into_iter().filter(|process| process.argv.contains(far.account.name())));
    all
}

/// Waits until nobody is left; who stays too long is named.
#[track_caller]
fn ended(far: &FarEnd, what: &str) {
    let start = Instant::now();
    let mut left = involved(far);
    while !left.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: a minute later there is still {left:#?}");
        thread::sleep(Duration::from_millis(1));
        left = involved(far);
    }
}

/// The transfer itself, without a guard that could be killed in its stead.
fn sender(far: &FarEnd, receiver: &str, image: &Path, dest: &Path) -> Command {
    let mut sender = Command::new(tools!().xfer_hole);
    sender.arg("-F").arg(far.sshd.config()).args(["--receiver", receiver]).arg(image).arg(far.place(dest));
    sender
}

#[test]
fn whoever_is_killed_whenever_there_is_a_whole_image_or_the_old_one_and_no_false_success() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let image = far.image("disk.img", &TestDisk::empty(64 * MIB).with(0, 24 * MIB, 1).with(63 * MIB, MIB, 2));
    let dest = far.account.home("out.img");
    let receivers = ["binary", "sh"];
    // How long it takes undisturbed: kills fall anywhere in it.
    let lasts = receivers.map(|receiver| {
        let start = Instant::now();
        run(&mut sender(&far, receiver, &image, &dest), b"").ok();
        start.elapsed()
    });
    let (rounds, mut random) = (number("XFER_HOLE_KILLS", 12), Random(number("XFER_HOLE_SEED", 1)));
    let mut survived = 0;
    for round in 0..rounds {
        fs::write(&dest, "the old disk").unwrap();
        chown(&dest, Some(far.account.uid()), None).unwrap();
        let before = Before::of(&dest);
        let which = random.below(2);
        let mut sends =
            Running::between(Stdio::null(), &mut sender(&far, receivers[which], &image, &dest), Stdio::null());
        thread::sleep(lasts[which].mul_f64(f64::from(u32::try_from(random.below(1000)).unwrap()) / 1000.0));
        let victims = involved(&far);
        let victim = (!victims.is_empty()).then(|| &victims[random.below(victims.len())]);
        victim.inspect(|process| process.signal(Signal::SIGKILL));
        let what = format!("round {round}, {}, killed {:?}", receivers[which], victim.map(|process| &process.argv));
        wait_until(&format!("the near end has ended: {what}"), || !sends.lives());
        ended(&far, &what);
        let sent = sends.end();
        let replaced = fs::metadata(&dest).unwrap().len() == 64 * MIB;
        if replaced {
            assert_same(&image, &dest);
        } else {
            before.untouched(&what);
            assert_ne!(sent.code, Some(0), "{what}: {}", sent.err);
        }
        if sent.code == Some(0) {
            survived += 1;
        } else if sent.code == Some(75) {
            sent.blamed_for_now(HOST, &[]);
        } else if sent.code.is_some() {
            sent.blamed(HOST, &[]);
        }
        if round % 4 == 0 {
            // What is left of it is no hindrance.
            run(&mut sender(&far, receivers[1 - which], &image, &dest), b"").ok();
            assert_same(&image, &dest);
        }
    }
    // How long they take now is not how long they took before: some come too late, but not all of many.
    assert!(rounds < 8 || survived < rounds, "all {rounds} kills came too late");
}

/// The calls that count, in their order, of the far end of `xfer-hole ARGS IMAGE there:DEST`.
fn calls(args: &[&str], image: &Path, dest: &Path) -> Vec<String> {
    requires(&["strace"]);
    let log = image.with_extension("strace");
    let which = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync,rename,renameat,renameat2,write";
    // The far end is this machine: the command is the last word.
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let text = format!(
        "for command; do :; done\nPATH='{}'\nexec strace -f -y -qq -s 60 -e {which} -o '{}' sh -c \"$command\"",
        toolbox.path(),
        log.display()
    );
    let toolbox = toolbox.script("rsh", &text);
    let mut sends = Command::new("timeout");
    sends
        .args(["-s", "KILL", "120"])
        .arg(tools!().xfer_hole)
        .args(["-e", &toolbox.program("rsh")])
        .args(args)
        .arg(image);
    let mut place = std::ffi::OsString::from("there:");
    place.push(dest);
    run(sends.arg(place), b"").ok();
    let log = fs::read_to_string(log).unwrap();
    // The number of the process, then the call and its words.
    let call = |line: &str| line.split_once(' ').map(|(_, call)| call.trim_start().to_owned());
    log.lines().filter_map(call).filter(|call| syncs(call) || call.starts_with("rename") || said_done(call)).collect()
}

fn syncs(call: &str) -> bool {
    call.split('(').next().unwrap().contains("sync")
}

fn said_done(call: &str) -> bool {
    call.starts_with("write(") && call.contains("\"DONE")
}

/// Where the first call of this kind stands.
#[track_caller]
fn first(calls: &[String], what: &str, is: impl Fn(&str) -> bool) -> usize {
    calls.iter().position(|call| is(call)).unwrap_or_else(|| panic!("no {what}: {calls:#?}"))
}

#[test]
fn data_is_synced_then_renamed_then_the_directory_synced_and_only_then_it_is_said_to_be_done() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let folder = fs.join("folder");
    fs::create_dir(&folder).unwrap();
    let image = fs.join("disk.img");
    TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
    let dest = folder.join("out.img");
    let named = [format!("{}>", folder.display()), format!("{}/>", folder.display())];
    for receiver in ["binary", "sh"] {
        for existing in [false, true] {
            let _gone = fs::remove_file(&dest);
            if existing {
                fs::write(&dest, "old").unwrap();
            }
            let calls = calls(&["--receiver", receiver], &image, &dest);
            let data = first(&calls, "sync of the data", |call| syncs(call) && call.contains("out.img.part>"));
            let rename = first(&calls, "rename", |call| call.starts_with("rename") && call.contains("out.img.part"));
            let folder = |call: &str| syncs(call) && named.iter().any(|name| call.contains(name));
            let synced = calls
                .iter()
                .rposition(|call| folder(call))
                .unwrap_or_else(|| panic!("no sync of the folder: {calls:#?}"));
            let done = first(&calls, "DONE", said_done);
            assert!(data < rename && rename < synced && synced < done, "{receiver}, existing {existing}: {calls:#?}");
            assert_same(&image, &dest);
        }
    }
}

#[test]
fn what_is_written_directly_is_synced_before_it_is_said_to_be_done() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
    let (device, file) = (LoopDevice::filled(MIB, 0xee), fs.join("out.img"));
    fs::write(&file, vec![0xee; 1 << 20]).unwrap();
    for receiver in ["binary", "sh"] {
        for (args, dest) in [(&[][..], device.path()), (&["--in-place"], &file)] {
            let calls = calls(&[&["--receiver", receiver], args].concat(), &image, dest);
            let name = format!("{}>", dest.display());
            let loose = format!("{}<", dest.display());
            let named = |call: &str| call.contains(&name) || call.contains(&loose);
            let synced = first(&calls, "sync", |call| syncs(call) && named(call));
            assert!(synced < first(&calls, "DONE", said_done), "{receiver} {args:?}: {calls:#?}");
        }
    }
}

#[test]
fn nothing_is_synced_where_nobody_asked_for_it() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(MIB).with(4096, 8192, 1).make(&image);
    for receiver in ["binary", "sh"] {
        let calls = calls(&["--receiver", receiver, "--no-sync"], &image, &fs.join("out.img"));
        assert!(!calls.iter().any(|call| syncs(call)), "{receiver}: {calls:#?}");
        assert!(calls.iter().any(|call| said_done(call)), "{receiver}: {calls:#?}");
        assert_same(&image, &fs.join("out.img"));
    }
}

#[test]
fn a_frozen_end_is_given_up_by_the_other() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", Setup { path: Some(&path), ..Setup::default() });
    let image = far.image("disk.img", &TestDisk::empty(256 * MIB).with(0, 200 * MIB, 1));
    let dest = far.account.home("out.img");
    for receiver in ["binary", "sh"] {
        let _left = fs::remove_file(part_of(&dest));
        let mut sender = sender(&far, receiver, &image, &dest);
        sender.args(["--timeout", "5"]);
        let mut sends = Running::between(Stdio::null(), &mut sender, Stdio::null());
        wait_until("bytes arrive", || {
            fs::metadata(part_of(&dest)).is_ok_and(|stat| stat.blocks() > 0) || !sends.lives()
        });
        let receives = |process: &&Process| !process.argv.starts_with("sshd");
        let frozen: Vec<_> = far.account.processes().into_iter().filter(|process| receives(&process)).collect();
        frozen.iter().for_each(|process| process.signal(Signal::SIGSTOP));
        assert!(sends.lives(), "{receiver}: too late, {:?}", sends.end());
        sends.end().blamed_for_now(HOST, &[]);
        frozen.iter().for_each(|process| process.signal(Signal::SIGCONT));
        wait_until("the far end has ended", || far.account.processes().is_empty());
        assert!(!dest.exists());
    }
}
