//! What the user may ask of a new file: that nothing is there, its directories, its permissions, its owner, its name, patience.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rig::{
    Before, Filesystem, Fs, Outcome, Running, TestDisk, mark_part, mode, part_of, pour, requires, run, tools,
    wait_until,
};
use xfer_hole_os::{DiskError, DiskErrorKind};
use xfer_hole_target::{DiskWriter, Owner, Target, TargetOptions};

const MIB: u64 = 1 << 20;
/// nobody
const USER: u32 = 65534;

/// A small disk, its bytes, and its stream.
fn disk(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let image = folder.join("disk.img");
    TestDisk::empty(40_000).with(8192, 9000, 1).make(&image);
    (fs::read(&image).unwrap(), pour(&tools!(), &["--hash"], &image))
}

fn command(args: &[&str], dest: &Path) -> Command {
    let mut command = Command::new(tools!().recv_hole);
    command.args(args).arg("--").arg(dest);
    command
}

fn receive(args: &[&str], dest: &Path, stream: &[u8]) -> Outcome {
    run(&mut command(args, dest), stream)
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn find(dest: &Path, options: TargetOptions) -> Result<Target, DiskError> {
    Target::find(dest, options)
}

fn named(name: &str) -> TargetOptions {
    TargetOptions { name: Some(name.into()), ..TargetOptions::default() }
}

#[test]
fn whatever_is_there_is_not_clobbered() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (bytes, stream) = disk(fs.path());
    let folder = fs.join("folder");
    fs::create_dir(&folder).unwrap();
    let at = |name: &str| folder.join(name);
    fs::write(at("file"), "the old disk").unwrap();
    fs::create_dir(at("directory")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("file", at("link")).unwrap();
    symlink("nothing", at("dangling")).unwrap();
    let (before, all) = (Before::of(&at("file")), names(&folder));
    for name in &all {
        receive(&["--no-clobber"], &folder.join(name), &stream).refused(&["is there already", "--no-clobber"]);
        assert_eq!(names(&folder), all, "{name:?}");
    }
    before.untouched("--no-clobber");
    receive(&["--no-clobber"], &at("new"), &stream).ok();
    assert!(fs::read(at("new")).unwrap() == bytes);
    assert!(!part_of(&at("new")).exists());
}

#[test]
fn a_file_that_appears_while_the_disk_arrives_is_not_clobbered_either() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (bytes, stream) = disk(fs.path());
    for args in [&["--no-clobber"][..], &["--no-clobber", "--no-sync"]] {
        let dest = fs.join("out.img");
        let mut running = Running::start(&mut command(args, &dest));
        running.say(&stream[..stream.len() / 2]);
        wait_until("it has begun", || fs::metadata(part_of(&dest)).is_ok_and(|stat| stat.len() > 0));
        fs::write(&dest, "somebody else's").unwrap();
        let before = Before::of(&dest);
        running.say(&stream[stream.len() / 2..]);
        running.end().refused(&["out.img: was made by somebody else meanwhile", "kept", "out.img.part"]);
        before.untouched("--no-clobber");
        assert!(fs::read(part_of(&dest)).unwrap() == bytes);
        fs::remove_file(&dest).unwrap();
        fs::remove_file(part_of(&dest)).unwrap();
    }
}

#[test]
fn where_a_rename_can_not_refuse_a_second_name_does() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (bytes, stream) = disk(fs.path());
    for existing in [false, true] {
        let dest = fs.join("out.img");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:error=EINVAL"]);
        command.arg(tools!().recv_hole).args(["--no-clobber", "--"]).arg(&dest);
        let mut running = Running::start(&mut command);
        running.say(&stream[..stream.len() / 2]);
        wait_until("it has begun", || fs::metadata(part_of(&dest)).is_ok_and(|part| part.len() > 0));
        if existing {
            fs::write(&dest, "somebody else's").unwrap();
        }
        running.say(&stream[stream.len() / 2..]);
        let outcome = running.end();
        if existing {
            outcome.refused(&["meanwhile"]);
            assert_eq!(fs::read(&dest).unwrap(), b"somebody else's");
        } else {
            outcome.ok();
            assert!(fs::read(&dest).unwrap() == bytes);
            assert_eq!(fs::metadata(&dest).unwrap().nlink(), 1);
            assert!(!part_of(&dest).exists());
            fs::remove_file(&dest).unwrap();
        }
    }
}

#[test]
fn directories_are_made_when_writing_begins_and_not_before() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (bytes, stream) = disk(fs.path());
    let dest = fs.join("a/b c/../d/out.img");
    receive(&[], &dest, &stream).refused(&["no such directory"]);
    let options = TargetOptions { mkpath: true, ..TargetOptions::default() };
    drop(find(&dest, options).unwrap());
    // A stream that is refused makes nothing either.
    receive(&["--mkpath"], &dest, b"XFER-HOLE 2 40000\n").refused(&[]);
    receive(&["--mkpath"], &dest, b"XFER-HOLE 1 9000000000000000000\nHOLE 9000000000000000000\nEND\n").refused(&[]);
    assert!(!fs.join("a").exists());
    receive(&["--mkpath"], &dest, &stream).ok();
    assert!(fs::read(fs.join("a/d/out.img")).unwrap() == bytes);
    // Again, where all is there.
    receive(&["--mkpath"], &dest, &stream).ok();
}

#[test]
fn a_path_through_a_file_or_a_dangling_link_is_not_made() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (_, stream) = disk(fs.path());
    fs::write(fs.join("file"), "a file").unwrap();
    symlink("nothing", fs.join("dangling")).unwrap();
    let before = names(fs.path());
    for name in ["file/a/out.img", "file/out.img", "dangling/out.img", "dangling/a/out.img"] {
        let outcome = receive(&["--mkpath"], &fs.join(name), &stream);
        outcome.refused(&[name.split('/').next().unwrap()]);
        assert_eq!(names(fs.path()), before, "{name}");
    }
}

#[test]
fn made_directories_are_synced_from_the_inside_out_after_the_rename() {
    requires(&["strace"]);
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (_, stream) = disk(fs.path());
    let log = fs.join("log");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-e", "trace=fsync,rename,renameat,renameat2,mkdir", "-o"]).arg(&log);
    command.arg(tools!().recv_hole).args(["--mkpath", "--"]).arg(fs.join("a/b/out.img"));
    run(&mut command, &stream).ok();
    let mount = fs.path().canonicalize().unwrap().display().to_string();
    let calls: Vec<String> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.trim().replace(&mount, "DIR"))
        .filter(|line| line.contains("DIR"))
        .map(|line| match line.split_once('(') {
            Some(("fsync", rest)) => {
                format!("fsync {}", rest.split_once('<').unwrap().1.split_once('>').unwrap().0)
            }
            Some((call, _)) => call.to_owned(),
            None => line,
        })
        .collect();
    let expected = [
        "mkdir",
        "mkdir",
        "fsync DIR/a/b/out.img.part",
        "fsync DIR/a/b/out.img.part",
        "rename",
        "fsync DIR/a/b",
        "fsync DIR/a",
        "fsync DIR",
    ];
    assert_eq!(calls, expected);
}

#[test]
fn permissions_and_owner_are_those_asked_for_before_the_file_has_its_name() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (bytes, stream) = disk(fs.path());
    let dest = fs.join("out.img");
    for existing in [false, true] {
        for in_place in [false, true] {
            for (args, bits, ids) in [
                (&["--chmod", "604"][..], 0o604, (0, 0)),
                (&["--chmod", "4711"], 0o4711, (0, 0)),
                (&["--chown", "65534:7"], if existing { 0o640 } else { 0o644 }, (USER, 7)),
                (&["--chown", ":7", "--chmod", "0660"], 0o660, (0, 7)),
                (&["--chown", "nobody", "--chmod", "6755"], 0o6755, (USER, 0)),
            ] {
                let what = format!("{args:?} existing {existing} in place {in_place}");
                let _gone = fs::remove_file(&dest);
                if existing {
                    fs::write(&dest, "the old disk").unwrap();
                    fs::set_permissions(&dest, Permissions::from_mode(0o640)).unwrap();
                }
                let args = if in_place { [&["--in-place"], args].concat() } else { args.to_vec() };
                let outcome = receive(&args, &dest, &stream).ok();
                assert_eq!(outcome.err, "", "{what}");
                assert_eq!((mode(&dest), owner(&dest)), (bits, ids), "{what}");
                assert!(fs::read(&dest).unwrap() == bytes, "{what}");
            }
        }
    }
}

#[test]
fn set_id_bits_of_an_old_file_do_not_go_to_an_owner_asked_for() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let (_, stream) = disk(fs.path());
    let dest = fs.join("out.img");
    fs::write(&dest, "the old disk").unwrap();
    fs::set_permissions(&dest, Permissions::from_mode(0o6751)).unwrap();
    receive(&["--chown", "65534"], &dest, &stream).ok();
    assert_eq!((mode(&dest), owner(&dest)), (0o751, (USER, 0)));
}

/// The tool as an unprivileged user, in a folder of theirs.
fn as_user(fs: &Filesystem, args: &[&str], dest: &Path) -> Command {
    requires(&["setpriv"]);
    for folder in fs.path().ancestors().take(2) {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let binary = fs.join("recv-hole");
    if !binary.exists() {
        fs::copy(tools!().recv_hole, &binary).unwrap();
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(binary);
    command.args(args).arg("--").arg(dest);
    command
}

#[test]
fn an_owner_that_can_not_be_given_is_an_error_before_anything_is_written() {
    let fs = Filesystem::new(Fs::Ext4, 512 * MIB);
    let (_, stream) = disk(fs.path());
    let folder = fs.join("theirs");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(USER), Some(USER)).unwrap();
    let dest = folder.join("out.img");
    fs::write(&dest, "the old disk").unwrap();
    chown(&dest, Some(USER), Some(USER)).unwrap();
    let before = Before::of(&dest);
    for args in [&["--chown", "0"][..], &["--chown", ":0"], &["--in-place", "--chown", "0:0"]] {
        run(&mut as_user(&fs, args, &dest), &stream).refused(&["cannot set the owner: operation not permitted"]);
        before.untouched(&format!("{args:?}"));
        assert_eq!(names(&folder), ["out.img"], "{args:?}");
    }
    let deep = folder.join("a/b/out.img");
    run(&mut as_user(&fs, &["--mkpath", "--chown", "0"], &deep), &stream).refused(&["cannot set the owner"]);
    assert_eq!(names(&folder), ["out.img"], "directories made for nothing are taken away");
    run(&mut as_user(&fs, &["--chown", "65534:65534"], &dest), &stream).ok();
}

#[test]
fn devices_pipes_and_standard_output_take_no_permissions_or_owner() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let (_, stream) = disk(fs.path());
    let fifo = fs.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let before = fs::metadata("/dev/null").unwrap();
    for dest in [Path::new("/dev/null"), Path::new("-"), &fifo] {
        for args in [["--chmod", "600"], ["--chown", "65534"]] {
            receive(&args, dest, &stream).refused(&["is no regular file", "--chmod and --chown"]);
        }
    }
    assert_eq!(owner(Path::new("/dev/null")), (before.uid(), before.gid()));
    assert_eq!(mode(Path::new("/dev/null")), before.mode() & 0o7777);
}

#[test]
fn what_is_no_mode_or_owner_is_wrong_usage() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    for args in [["--chmod", "u+x"], ["--chmod", "888"], ["--chown", "no such user"], ["--chown", ":"]] {
        assert_eq!(receive(&args, &dest, b"").code, Some(2), "{args:?}");
        assert!(names(fs.path()).is_empty(), "{args:?}");
    }
}

#[test]
fn in_a_directory_the_file_has_the_name_given() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let folder = fs.join("folder");
    fs::create_dir(&folder).unwrap();
    symlink("folder", fs.join("link")).unwrap();
    fs::write(fs.join("file"), "a file").unwrap();
    let path =
        |dest: &str, options: TargetOptions| find(&fs.join(dest), options).map(|target| target.path().to_owned());
    assert_eq!(path("folder", named("disk.img")).unwrap(), folder.join("disk.img"));
    assert_eq!(path("folder/", named("disk.img")).unwrap(), folder.join("disk.img"));
    assert_eq!(path("link", named("disk.img")).unwrap(), fs.join("link/disk.img"));
    assert_eq!(path("file", named("disk.img")).unwrap(), fs.join("file"));
    assert_eq!(path("new", named("disk.img")).unwrap(), fs.join("new"));
    assert_eq!(path("-", named("disk.img")).unwrap(), fs.join("-"));
    // What is to be made may end in a slash, too.
    let mkpath = TargetOptions { mkpath: true, ..named("disk.img") };
    assert_eq!(path("new/", mkpath).unwrap(), fs.join("new/disk.img"));
    assert!(path("new/", named("disk.img")).is_err());
    assert!(path("file/", named("disk.img")).is_err());
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a/", "./a"] {
        let error = path("folder", named(name)).unwrap_err();
        assert_eq!(error.kind(), DiskErrorKind::Refused, "{name:?}");
    }
    fs::create_dir(folder.join("disk.img")).unwrap();
    assert!(path("folder", named("disk.img")).unwrap_err().to_string().contains("is a directory"));
    assert!(path("folder", TargetOptions { no_clobber: true, ..named("disk.img") }).is_err());
}

#[test]
fn a_target_tells_whether_it_is_a_file() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let is_file = |dest: &Path| find(dest, TargetOptions::default()).unwrap().is_file();
    assert!(is_file(&fs.join("new")));
    assert!(!is_file(Path::new("/dev/null")) && !is_file(Path::new("-")));
}

/// Holds the lock of `.part` as a receiver does that isn't told that its link is dead.
fn holder(dest: &Path) -> File {
    fs::write(part_of(dest), "what arrived before").unwrap();
    mark_part(&part_of(dest));
    let file = File::options().read(true).write(true).open(part_of(dest)).unwrap();
    file.lock().unwrap();
    file
}

fn with_patience(dest: PathBuf, seconds: u64) -> Result<Box<dyn DiskWriter>, DiskError> {
    let options = TargetOptions { patience: Some(Duration::from_secs(seconds)), no_sync: true, ..Default::default() };
    find(&dest, options)?.open(Some(4096), None)
}

#[test]
fn a_lock_is_waited_for_until_its_holder_is_dead() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    let holder = holder(&dest);
    let waiting = thread::spawn({
        let dest = dest.clone();
        move || with_patience(dest, 60).map(|sink| sink.commit(4096).unwrap())
    });
    thread::sleep(Duration::from_secs(1));
    assert!(!waiting.is_finished());
    drop(holder);
    waiting.join().unwrap().unwrap();
    assert_eq!(fs::read(&dest).unwrap(), vec![0; 4096]);
    assert!(!part_of(&dest).exists());
}

#[test]
fn a_holder_that_writes_is_alive_and_is_not_waited_for() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    let holder = holder(&dest);
    let start = Instant::now();
    let waiting = thread::spawn({
        let dest = dest.clone();
        move || with_patience(dest, 60).err().unwrap().to_string()
    });
    while !waiting.is_finished() {
        thread::sleep(Duration::from_millis(50));
        std::io::Write::write_all(&mut &holder, b"x").unwrap();
        assert!(start.elapsed() < Duration::from_secs(50), "it is waited for");
    }
    assert!(waiting.join().unwrap().contains("is being written by another receiver"));
    assert!(part_of(&dest).exists());
}

#[test]
fn patience_ends_and_without_any_a_lock_is_refused_at_once() {
    let fs = Filesystem::new(Fs::Ext4, 64 * MIB);
    let dest = fs.join("out.img");
    let _holder = holder(&dest);
    let before = Before::of(&part_of(&dest));
    for seconds in [0, 1] {
        let error = with_patience(dest.clone(), seconds).err().unwrap();
        assert!(error.to_string().contains("is being written by another receiver"), "{error}");
    }
    assert!(find(&dest, TargetOptions::default()).unwrap().open(Some(4096), None).is_err());
    before.untouched("it is somebody else's");
}

#[test]
fn an_owner_is_given_by_the_library_as_by_the_tool() {
    let fs = Filesystem::new(Fs::Tmpfs, 64 * MIB);
    let dest = fs.join("out.img");
    let owner_asked = Some(Owner { user: Some(USER), group: None });
    let options = TargetOptions { owner: owner_asked, mode: Some(0o400), ..Default::default() };
    let sink = find(&dest, options).unwrap().open(Some(4096), None).unwrap();
    // Nobody else's until it is whole.
    assert_eq!((owner(&part_of(&dest)), mode(&part_of(&dest))), ((0, 0), 0o600));
    assert!(sink.commit(4096).unwrap().is_empty());
    assert_eq!((owner(&dest), mode(&dest)), ((USER, 0), 0o400));
}
