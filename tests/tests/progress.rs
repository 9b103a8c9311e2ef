//! What people see of a transfer on a real terminal, and what programs read of it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use rig::{
    Filesystem, Frozen, Fs, Outcome, Running, TestDisk, Tmux, foretold, part_of, pour, run, tool, tools, wait_until,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A command line for sh, under its name in messages.
fn line(program: &Path, words: &str) -> String {
    format!("exec '{}' {words}", program.display())
}

/// The percentage on a screen.
fn percent(screen: &[String]) -> Option<u64> {
    let at = screen[0].find('%')?;
    screen[0][..at].rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_bar_names_its_phases_grows_to_the_end_and_leaves_nothing_behind() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (fifo, dest) = (fs.join("fifo"), fs.join("out.img"));
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    for columns in [100, 80, 40, 20] {
        let words = format!("-v --progress bar '{}' < '{}'", dest.display(), fifo.display());
        let terminal = Tmux::start(columns, 10, &line(&tools!().recv_hole, &words));
        let mut stream = OpenOptions::new().write(true).open(&fifo).unwrap();
        assert_eq!(terminal.wait_for("preparing").len(), 1, "{columns}");
        stream.write_all(b"XFER-HOLE 1 10485760\nDATA 2097152\n").unwrap();
        let mut last = 0;
        for part in 1..=4 {
            stream.write_all(&[1; 1 << 19]).unwrap();
            let screen = terminal.wait_for(&format!("{}%", part * 5));
            assert_eq!(screen.len(), 1, "{screen:?}");
            assert!(screen[0].contains("receiving") && screen[0].len() < usize::from(columns), "{screen:?}");
            assert!(percent(&screen).unwrap() > last, "{screen:?}");
            last = percent(&screen).unwrap();
            if columns == 100 {
                let done = ["", "512 KiB", "1 MiB", "1.50 MiB", "2 MiB"][part];
                assert!(screen[0].contains(&format!("{done} of 10 MiB, {done} data, ")), "{screen:?}");
                assert!(screen[0].contains("] ") && screen[0].contains("/s, "), "{screen:?}");
            }
        }
        stream.write_all(b"HOLE 8388608\n").unwrap();
        terminal.wait_for("100%");
        let frozen = Frozen::new(&fs);
        stream.write_all(b"END\n").unwrap();
        drop(stream);
        assert_eq!(terminal.wait_for("syncing").len(), 1);
        drop(frozen);
        assert_eq!(terminal.exit(), 0);
        wait_until("the summary stands there, and nothing else", || {
            let screen = terminal.screen().concat();
            screen.contains("out.img: ")
                && screen.contains("disk 10 MiB, data 2 MiB, wire 2.00 MiB in ")
                && screen.ends_with("/s")
        });
        assert!(!terminal.screen().concat().contains('%'));
        assert_eq!(fs::metadata(&dest).unwrap().len(), 10 * MIB);
    }
}

#[test]
fn zeroing_has_its_name_while_it_lasts() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    fs::write(&dest, vec![1; 8 << 20]).unwrap();
    let other = tempfile::tempdir().unwrap();
    let fifo = other.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let words = format!("--in-place --progress bar '{}' < '{}'", dest.display(), fifo.display());
    let terminal = Tmux::start(80, 10, &line(&tools!().recv_hole, &words));
    let mut stream = OpenOptions::new().write(true).open(&fifo).unwrap();
    stream.write_all(b"XFER-HOLE 1 8388608\nDATA 4096\n").unwrap();
    stream.write_all(&[7; 4096]).unwrap();
    terminal.wait_for("receiving");
    let frozen = Frozen::new(&fs);
    stream.write_all(b"HOLE 8384512\n").unwrap();
    terminal.wait_for("zeroing");
    drop(frozen);
    stream.write_all(b"END\n").unwrap();
    drop(stream);
    assert_eq!(terminal.exit(), 0);
    wait_until("nothing is left on the screen", || terminal.screen().is_empty());
}

#[test]
fn a_senders_bar_never_falls_and_never_exceeds_the_whole() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(100 * MIB).with(0, 2 * MIB, 1).with(50 * MIB, 3 * MIB, 2).make(&image);
    let words = format!("--bwlimit 2M --progress=auto '{}' > '{}'", image.display(), fs.join("stream").display());
    let terminal = Tmux::start(80, 10, &line(&tools!().xfer_hole, &words));
    let (mut last, mut seen) = (0, 0);
    while terminal.ended().is_none() {
        let screen = terminal.screen();
        assert!(screen.len() <= 1, "{screen:?}");
        let Some(percent) = screen.first().and_then(|_| percent(&screen)) else { continue };
        assert!((last..=100).contains(&percent), "{percent} after {last}");
        seen += u32::from(percent > last);
        last = percent;
    }
    assert_eq!(terminal.exit(), 0);
    assert!(seen >= 3, "{seen} steps");
    wait_until("nothing is left on the screen", || terminal.screen().is_empty());
}

#[test]
fn messages_and_interruptions_have_lines_of_their_own_and_narrower_windows_leave_no_pieces() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(100 * MIB).with(0, 20 * MIB, 1).make(&image);
    let words = format!("--bwlimit 1M --progress=bar '{}' > /dev/null", image.display());
    let terminal = Tmux::start(120, 10, &line(&tools!().xfer_hole, &words));
    terminal.wait_for("sending");
    kill(Pid::from_raw(terminal.pid()), Signal::SIGUSR1).unwrap();
    let screen = terminal.wait_for(" wire, ");
    assert!(screen[0].starts_with("xfer-hole: sending: "), "{screen:?}");
    assert!(screen.len() == 2 && screen[1].contains("% ["), "{screen:?}");
    terminal.press("Enter");
    terminal.resize(30);
    wait_until("the bar is narrower", || {
        terminal.screen().last().is_some_and(|line| line.len() < 30 && line.contains("sending"))
    });
    wait_until("only one bar is there", || {
        terminal.screen().iter().filter(|line| line.contains("sending ")).count() == 1
    });
    terminal.press("C-c");
    assert_eq!(terminal.exit(), 130);
    wait_until("the message stands there instead of the bar", || {
        let screen = terminal.screen().concat();
        screen.ends_with("xfer-hole: interrupted by SIGINT") && !screen.contains("sending ")
    });
}

/// All that was said, each line an object.
fn events(said: &str) -> Vec<Value> {
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for event in &events {
        assert_eq!(event["version"], 1, "{event}");
        assert!(event["program"].is_string() && event["event"].is_string(), "{event}");
        if ["warning", "hint", "note", "error", "result"].contains(&event["event"].as_str().unwrap()) {
            assert!(event["text"].is_string(), "{event}");
        }
    }
    events
}

fn number(event: &Value, name: &str) -> f64 {
    event[name].as_f64().unwrap_or_else(|| panic!("{name} of {event}"))
}

/// Holds what a run said against the documented shape: its last event.
#[track_caller]
fn shaped(outcome: &Outcome, how: &str) -> Value {
    let all = events(&outcome.err);
    let (end, before) = all.split_last().unwrap();
    assert_eq!((&end["event"], &end["outcome"]), (&Value::from("end"), &Value::from(how)), "{}", outcome.err);
    assert!(before.iter().all(|event| event["event"] != "end"), "{}", outcome.err);
    assert_eq!(number(end, "exit"), f64::from(outcome.code.unwrap()));
    assert_eq!(end["error"].is_string(), how != "done", "{end}");
    let progress: Vec<_> = before.iter().filter(|event| event["event"] == "progress").chain([end]).collect();
    assert!(progress.len() >= 2 && progress[0]["phase"] == "preparing", "{}", outcome.err);
    for pair in progress.windows(2) {
        for name in ["disk_done", "data", "wire", "elapsed"] {
            assert!(number(pair[0], name) <= number(pair[1], name), "{name} of {} and {}", pair[0], pair[1]);
        }
    }
    for event in progress {
        assert!(event["rate"].is_u64() && (event["disk_size"].is_u64() || event["disk_size"].is_null()), "{event}");
        assert!(event["event"] == "end" || event["left"].is_u64() || event["left"].is_null(), "{event}");
        if let Some(size) = event["disk_size"].as_f64() {
            assert!(number(event, "disk_done") <= size, "{event}");
        }
    }
    end.clone()
}

#[test]
fn programs_read_json_with_totals_and_digest_at_the_end() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(20 * MIB).with(MIB, 3 * MIB, 1).make(&image);
    let args = ["-v", "--hash", "--print-digest", "--progress", "json"];
    let sent = run(Command::new(tools!().xfer_hole).args(args).args(["--bwlimit", "2M"]).arg(&image), b"").ok();
    let received = run(Command::new(tools!().recv_hole).args(["--progress=json", "-v"]).arg(&dest), &sent.out).ok();
    let ends = [&sent, &received].map(|outcome| shaped(outcome, "done"));
    for end in &ends {
        assert_eq!((number(end, "disk_size"), number(end, "disk_done")), (20_971_520.0, 20_971_520.0));
        assert_eq!((number(end, "data"), number(end, "wire")), (3_145_728.0, sent.out.len() as f64));
        assert!(end["error"].is_null() && number(end, "elapsed") >= 0.0);
    }
    let digest = ends[0]["digest"].as_str().unwrap();
    assert!(digest.starts_with("sha256:1048576:4096:") && ends[1]["digest"] == digest);
    let all = events(&sent.err);
    assert!(all.iter().any(|event| event["event"] == "result" && event["text"] == digest), "{}", sent.err);
    assert!(all.iter().filter(|event| event["phase"] == "sending").count() >= 2, "once a second: {}", sent.err);
    // Without digests, and a disk of nothing.
    let stream = pour(&tools!(), &[], &image);
    let end = shaped(&run(Command::new(tools!().recv_hole).args(["--progress=json"]).arg(&dest), &stream).ok(), "done");
    assert!(end["digest"].is_null());
    let empty = b"XFER-HOLE 1 0\nEND\n";
    let end = shaped(&run(Command::new(tools!().recv_hole).args(["--progress=json"]).arg(&dest), empty).ok(), "done");
    assert_eq!((number(&end, "disk_size"), number(&end, "disk_done")), (0.0, 0.0));
}

#[test]
fn every_failure_has_its_json_end_with_the_reason() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(MIB).make(&image);
    let (image, dest) = (image.to_str().unwrap(), dest.to_str().unwrap());
    let (missing, folder) = (format!("{image}.not"), format!("{dest}.not/out.img"));
    let sends: [(&[&str], &str); 4] = [
        (&[&missing], "no such file"),
        (&[fs.path().to_str().unwrap()], "directory"),
        (&["--hash", "--hash-interval", "5000", image], "power of two"),
        (&["--format", "qcow2", image], "qcow2"),
    ];
    let of_sender =
        sends.map(|(args, why)| (run(Command::new(tools!().xfer_hole).arg("--progress=json").args(args), b""), why));
    let receives: [(&[&str], &[u8], &str); 5] = [
        (&[&folder], b"", "no such directory"),
        (&[dest], b"", ""),
        (&[dest], b"no stream\n", ""),
        (&["--classic", dest], b"DATA\n5\nab", "cut"),
        (&["--require-hash", dest], b"XFER-HOLE 1 0\nEND\n", "--require-hash"),
    ];
    let of_receiver = receives.map(|(args, stream, why)| {
        (run(Command::new(tools!().recv_hole).arg("--progress=json").args(args), stream), why)
    });
    for (outcome, why) in of_sender.into_iter().chain(of_receiver) {
        assert_eq!(outcome.code, Some(2), "{}", outcome.err);
        let end = shaped(&outcome, "failed");
        assert!(end["error"].as_str().unwrap().contains(why), "{why}: {}", outcome.err);
        let errors: Vec<_> = events(&outcome.err).into_iter().filter(|event| event["event"] == "error").collect();
        assert!(errors.len() == 1 && errors[0]["text"] == end["error"], "{}", outcome.err);
    }
}

#[test]
fn an_interruption_has_its_json_end_too() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(20 * MIB).with(MIB, 3 * MIB, 1).make(&image);
    let mut command = Command::new(tools!().xfer_hole);
    command.args(["--progress=json", "--bwlimit", "100K"]).arg(&image);
    let mut sender = Running::between(Stdio::null(), &mut command, File::create(fs.join("stream")).unwrap());
    sender.signal(Signal::SIGTERM);
    let outcome = sender.outlived();
    assert_eq!(
        (outcome.code, shaped(&outcome, "interrupted")["error"].as_str()),
        (Some(143), Some("interrupted by SIGTERM"))
    );
    let mut command = Command::new(tools!().recv_hole);
    let mut receiver = Running::start(command.arg("--progress=json").arg(&dest));
    receiver.say(b"XFER-HOLE 1 4096\nDATA 4096\n");
    wait_until("it has begun", || part_of(&dest).exists());
    // What remains is known a moment later.
    thread::sleep(Duration::from_millis(300));
    receiver.signal(Signal::SIGUSR1);
    receiver.signal(Signal::SIGINT);
    let outcome = receiver.outlived();
    let error = shaped(&outcome, "interrupted")["error"].as_str().unwrap().to_owned();
    assert!(outcome.code == Some(130) && error.starts_with("interrupted by SIGINT; kept "), "{error}");
}

#[test]
fn the_end_of_a_quiet_transfer_is_foretold_by_data_not_by_offset() {
    let fs = Filesystem::new(Fs::Ext4, 256 * MIB);
    let (raw, qcow2) = (fs.join("disk.img"), fs.join("disk.qcow2"));
    // Most of the data is in the first hundredth of the disk, the rest at its end.
    let mut disk = TestDisk::empty(40 << 30).with(39 << 30, 8 * MIB, 3);
    for at in 0..12 {
        disk = disk.with(at * 20 * MIB, 2 * MIB, 1 + u8::try_from(at).unwrap());
    }
    disk.make(&raw);
    tool("qemu-img", &["convert", "-O", "qcow2", raw.to_str().unwrap(), qcow2.to_str().unwrap()]);
    thread::scope(|scope| {
        for args in [&["--hash"][..], &[], &["--extents=fiemap"]] {
            let image = &raw;
            scope.spawn(move || {
                let args = [args, &["--progress=json", "--bwlimit=4M"]].concat();
                foretold(&run(Command::new(tools!().xfer_hole).args(args).arg(image), b"").ok(), 32 * MIB);
            });
        }
        let args = ["--progress=json", "--bwlimit=4M"];
        foretold(&run(Command::new(tools!().xfer_hole).args(args).arg(&qcow2), b"").ok(), 32 * MIB);
    });
}

#[test]
fn who_asks_by_signal_is_told_by_data_too() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(40 << 30).with(0, 16 * MIB, 1).make(&image);
    let mut sender = Command::new(tools!().xfer_hole);
    sender.args(["--bwlimit=2M", "--progress=none"]).arg(&image).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut sender = sender.spawn().unwrap();
    let pid = Pid::from_raw(sender.id().cast_signed());
    wait_until("signals are heard", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(caught, 16).unwrap() >> (Signal::SIGUSR1 as u32 - 1) & 1 == 1
    });
    let mut lines = BufReader::new(sender.stderr.take().unwrap()).lines();
    loop {
        kill(pid, Signal::SIGUSR1).unwrap();
        let line = lines.next().unwrap().unwrap();
        let told = line.split_once(" (").and_then(|(_, rest)| rest.split_once(" %)"));
        let Some((percent, rest)) = told else { continue };
        assert!(rest.contains(" of 16 MiB data, "), "{line}");
        match percent.parse::<u64>().unwrap() {
            0..25 => {}
            // By the disk's bytes it would be nothing.
            25..=100 => break,
            _ => panic!("{line}"),
        }
        // A flood of signals would hold up the pauses that --bwlimit makes.
        thread::sleep(Duration::from_millis(50));
    }
    kill(pid, Signal::SIGTERM).unwrap();
    sender.wait().unwrap();
}

#[test]
fn only_a_terminal_gets_a_bar_by_itself_and_quiet_says_nothing() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (image, dest) = (fs.join("disk.img"), fs.join("out.img"));
    TestDisk::empty(20 * MIB).with(MIB, 3 * MIB, 1).make(&image);
    for args in [&[][..], &["-q"], &["--progress=auto"], &["--progress", "none"]] {
        let sent = run(Command::new(tools!().xfer_hole).args(args).arg(&image), b"").ok();
        let received = run(Command::new(tools!().recv_hole).args(args).arg(&dest), &sent.out).ok();
        assert_eq!((sent.err.as_str(), received.err.as_str()), ("", ""), "{args:?}");
    }
    let sent = run(Command::new(tools!().xfer_hole).arg("--progress=bar").arg(&image), b"").ok();
    assert!(sent.err.starts_with("xfer-hole: preparing ") && sent.err.ends_with('\r'), "{:?}", sent.err);
    let sent = run(Command::new(tools!().xfer_hole).arg("-v").arg(&image), b"").ok();
    assert!(sent.err.contains("xfer-hole: disk 20 MiB, data 3 MiB, wire 3.00 MiB in "), "{}", sent.err);
}

#[test]
fn bwlimit_holds_the_stream_to_its_rate() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let image = fs.join("disk.img");
    TestDisk::empty(20 * MIB).with(MIB, 3 * MIB, 1).make(&image);
    let whole = pour(&tools!(), &[], &image);
    for args in [&[][..], &["--hash"]] {
        let began = std::time::Instant::now();
        let limited = pour(&tools!(), &[args, &["--bwlimit", "2M"]].concat(), &image);
        // No guard against slowness: a rate of three MiB in less than 1.4 seconds is too high however slow the machine is.
        assert!(began.elapsed() >= std::time::Duration::from_millis(1400), "{:?}", began.elapsed());
        assert!(!args.is_empty() || limited == whole);
    }
    let refused = run(Command::new(tools!().xfer_hole).args(["--bwlimit", "0"]).arg(&image), b"");
    assert!(refused.code == Some(2) && refused.err.contains("a rate of nothing moves nothing"), "{}", refused.err);
}

#[test]
fn fold_prune_and_a_stored_stream_know_how_much_data_there_is() {
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    let (child, parent) = (fs.join("child.img"), fs.join("parent.img"));
    let disk = TestDisk::empty(40 << 30).with(0, 16 * MIB, 1).with(30 << 30, 8 * MIB, 2);
    disk.make(&child);
    TestDisk::empty(40 << 30).with(0, 32 * MIB, 3).make(&parent);
    let stream = fs.join("disk.stream");
    fs::write(&stream, rig::pour(&tools!(), &["--hash"], &child)).unwrap();
    let mut fold = Command::new(tools!().xfer_hole);
    fold.args(["fold", "--progress=json"]).args([&child, &parent]);
    let mut prune = Command::new(tools!().xfer_hole);
    prune.args(["prune", "--progress=json"]).args([&parent, &child]);
    let mut receive = Command::new(tools!().recv_hole);
    receive.arg("--progress=json").arg(fs.join("out.img")).stdin(fs::File::open(&stream).unwrap());
    for (name, mut command) in [("fold", fold), ("stored stream", receive), ("prune", prune)] {
        let said = String::from_utf8(command.stderr(Stdio::piped()).output().unwrap().stderr).unwrap();
        let told = events(&said);
        assert_eq!(told.last().unwrap()["exit"], 0, "{name}: {said}");
        let size = told.last().unwrap()["data_size"].as_u64().unwrap_or_default();
        assert!(size.abs_diff(24 * MIB) <= MIB, "{name}: {size} of {}: {said}", 24 * MIB);
    }
}
