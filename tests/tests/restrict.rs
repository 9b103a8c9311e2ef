//! `recv-hole --restrict`: disks beneath one directory, and nothing else, whatever is asked for.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::stat::Mode;
use rig::{Disk, Outcome, Running, Sshd, mode, part_of, pour, requires_root, run, tool, tools, wait_until};
use tempfile::TempDir;

const ENV: &str = "SSH_ORIGINAL_COMMAND";
/// The shell text that a sender brings, in the command and ahead of the stream.
const PREAMBLE: &str = "echo never; touch never\n";

/// A word as a sender codes it.
fn coded(octets: &[u8]) -> String {
    let code = |&octet: &u8| match octet.is_ascii_alphanumeric() || b"/._,+:@%=-".contains(&octet) {
        true => char::from(octet).to_string(),
        false => format!("\\0{octet:03o}"),
    };
    format!("'{}'", octets.iter().map(code).collect::<String>())
}

/// A request by these options, all words coded.
fn request(options: &[&str], dest: &[u8], name: &[u8]) -> String {
    let options: String = options.iter().map(|option| format!("{} ", coded(option.as_bytes()))).collect();
    let len = PREAMBLE.len();
    let (dest, name) = (coded(dest), coded(name));
    format!("exec sh -c 'eval \"$(dd ibs=1 count=$2 2>/dev/null)\"' recv-hole 1 {len} {options}-- {dest} {name}")
}

/// The directory that a key may write to, what is around it, and a disk to send there.
struct Place {
    outer: TempDir,
    octets: Vec<u8>,
    stream: Vec<u8>,
    keeping: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        requires_root();
        let outer = tempfile::tempdir().unwrap();
        let at = |name: &str| outer.path().join(name);
        let image = at("disk.img");
        Disk::empty(40_000).with(8192, 9000, 1).make(&image);
        let (octets, stream) = (fs::read(&image).unwrap(), pour(&tools!(), &["--hash"], &image));
        fs::remove_file(&image).unwrap();
        for dir in ["dir/sub/deep", "dir/empty", "outside", "dir-2"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for file in ["dir/old.img", "dir/sub/old.img", "outside/precious", "dir-2/precious"] {
            fs::write(at(file), "precious").unwrap();
        }
        symlink("../outside", at("dir/door")).unwrap();
        symlink("sub", at("dir/inner")).unwrap();
        symlink("../outside/precious", at("dir/window")).unwrap();
        symlink("../outside/new", at("dir/dangling")).unwrap();
        symlink("old.img", at("dir/alias")).unwrap();
        symlink("/proc/self/root", at("dir/root")).unwrap();
        symlink("/proc/self/cwd", at("dir/cwd")).unwrap();
        fs::write(at("dir/half.img.part"), "what somebody left").unwrap();
        symlink("../outside/precious", at("dir/trap.img.part")).unwrap();
        symlink("../outside/made", at("dir/trap2.img.part")).unwrap();
        fs::hard_link(at("outside/precious"), at("dir/linked.img")).unwrap();
        fs::create_dir(at("dir/folder.img.part")).unwrap();
        fs::create_dir(at("dir/empty/given.img")).unwrap();
        for fifo in ["dir/fifo", "dir/fifo.img.part"] {
            nix::unistd::mkfifo(&at(fifo), Mode::from_bits_truncate(0o666)).unwrap();
        }
        drop(UnixListener::bind(at("dir/socket")).unwrap());
        for device in ["dir/null", "dir/null.img.part"] {
            tool("mknod", &[at(device).to_str().unwrap(), "c", "1", "3"]);
        }
        tool("mknod", &[at("dir/loop").to_str().unwrap(), "b", "7", "200"]);
        let keeping = b"XFER-HOLE 1 8\nBASE 8\nKEEP 8\nEND\n".to_vec();
        Self { outer, octets, stream, keeping }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    fn command(&self, args: &[&str], request: Option<&OsStr>) -> Command {
        let mut command = Command::new(tools!().recv_hole);
        command.arg("--restrict").arg(self.at("dir")).args(args).current_dir(self.at("outside")).env_remove(ENV);
        if let Some(request) = request {
            command.env(ENV, request);
        }
        command
    }

    fn input(&self, stream: &[u8]) -> Vec<u8> {
        [PREAMBLE.as_bytes(), stream].concat()
    }

    fn ask(&self, args: &[&str], request: &str) -> Outcome {
        self.ask_by(args, OsStr::new(request), &self.input(&self.stream))
    }

    fn ask_by(&self, args: &[&str], request: &OsStr, input: &[u8]) -> Outcome {
        run(&mut self.command(args, Some(request)), input)
    }

    /// All that is there: kind, mode, links, and octets or where a link leads.
    fn all(&self) -> BTreeMap<PathBuf, (u32, u64, u64, Vec<u8>)> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.outer.path().to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                let kind = stat.file_type();
                let octets = match kind {
                    _ if kind.is_dir() => {
                        folders.push(path.clone());
                        Vec::new()
                    }
                    _ if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
                    _ if kind.is_file() => fs::read(&path).unwrap(),
                    _ => Vec::new(),
                };
                let inode = if kind.is_dir() { 0 } else { stat.ino() };
                found.insert(path, (stat.mode(), stat.nlink(), inode, octets));
            }
        }
        found
    }
}

/// One line of printable ASCII that says why, exit code 2, and nothing else.
#[track_caller]
fn failed(outcome: &Outcome, what: &str) -> String {
    let said = String::from_utf8(outcome.out.clone()).unwrap_or_else(|_| panic!("{what}: no text"));
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(2), ""), "{what}: {said}");
    let last = said.lines().last().unwrap_or_else(|| panic!("{what}: nothing is said"));
    let why = last.strip_prefix("FAIL ").unwrap_or_else(|| panic!("{what}: {said}"));
    assert!(!why.is_empty() && why.len() <= 900, "{what}: {said}");
    assert!(why.bytes().all(|octet| (0x20..0x7f).contains(&octet)), "{what}: {said}");
    assert!(said.ends_with('\n') && !said.contains("DONE"), "{what}: {said}");
    why.to_owned()
}

#[track_caller]
fn done(outcome: &Outcome, what: &str) {
    let said = String::from_utf8_lossy(&outcome.out);
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{what}: {said}");
    assert!(said.starts_with("XFER-HOLE-READY 1 recv-hole\n") && said.contains("\nDONE"), "{what}: {said}");
}

#[test]
fn hostile_requests_are_refused_and_nothing_is_written_anywhere() {
    let place = Place::new();
    let dir = place.at("dir").display().to_string();
    let good = request(&[], b"new.img", b"disk.img");
    let by_dest = |dest: &str| request(&[], dest.as_bytes(), b"disk.img");
    let by_name = |name: &str| request(&[], b"empty", name.as_bytes());
    let by_option = |option: &str| request(&[option], b"new.img", b"disk.img");
    let by_len = |len: &str| good.replace(&format!(" 1 {} ", PREAMBLE.len()), &format!(" 1 {len} "));
    let mut hostile: Vec<String> = Vec::new();
    // Out of the directory, by name.
    for dest in ["..", "../outside/new", "../outside/precious", "sub/../../outside/new", "sub/..", "sub/../new.img"] {
        hostile.push(by_dest(dest));
        hostile.push(request(&["mkpath"], dest.as_bytes(), b"disk.img"));
    }
    for dest in ["./..", "a/../../b", "../dir-2/new", "../dir/new", "..//x", ".../../..", "sub/deep/../../../outside/x"]
    {
        hostile.push(by_dest(dest));
    }
    let beside = [
        format!("{dir}-2/new"),
        format!("{dir}/../new"),
        format!("{dir}/door/new"),
        format!("{dir}x"),
        dir.replace('/', "//"),
    ];
    for dest in ["/", "/etc/passwd", "/dev/null", "/proc/self/fd/1", "//etc/x", "/./x"]
        .into_iter()
        .chain(beside.iter().map(String::as_str))
    {
        hostile.push(by_dest(dest));
    }
    // Out of the directory, by a link; or by one that stays inside.
    for dest in [
        "door",
        "door/",
        "door/new",
        "door/precious",
        "door/sub/new",
        "window",
        "dangling",
        "alias",
        "inner/new",
        "inner",
    ] {
        hostile.push(by_dest(dest));
        hostile.push(request(&["mkpath"], dest.as_bytes(), b"disk.img"));
    }
    for dest in ["root/tmp/new", "root", "cwd/new", "cwd", "root/proc/self/fd/1"] {
        hostile.push(by_dest(dest));
    }
    // What isn't a file, and what stands by the name of `.part`.
    for dest in ["fifo", "null", "loop", "socket", "old.img/new", "old.img/", "fifo/new", "null/new", "no/such/new"] {
        hostile.push(by_dest(dest));
    }
    for dest in ["trap.img", "trap2.img", "fifo.img", "null.img", "folder.img"] {
        hostile.push(by_dest(dest));
    }
    hostile.push(by_dest(&"a".repeat(300)));
    hostile.push(by_dest(&"a/".repeat(3000)));
    hostile.push(by_dest("empty/given.img/../../old.img"));
    // Names.
    for name in ["..", ".", "a/b", "../x", "/etc/passwd", "/", "x/", "given.img"] {
        hostile.push(by_name(name));
    }
    // Options that aren't any, or aren't allowed, or stand twice.
    for option in [
        "in-place",
        "no-clobber",
        "target-is-zero",
        "receiver=sh",
        "receiver=",
        "receiver=perl",
        "receiver",
        "chown=root",
        "chown=0:0",
        "chown=:0",
        "chown=",
        "chmod=4755",
        "chmod=2755",
        "chmod=1777",
        "chmod=888",
        "chmod=",
        "chmod=u+s",
        "chmod",
        "max-wait=0",
        "max-wait=-1",
        "max-wait=1e9",
        "max-wait=99999999999999999999",
        "max-wait=",
        "restrict=/",
        "restrict",
        "allow-read",
        "--allow-read",
        "--restrict=/",
        "--max-size=9E",
        "max-size=9E",
        "-o",
        "--",
        "mkpath=1",
        "no-sync=",
        "no sync",
        "",
        "\u{e9}",
    ] {
        hostile.push(by_option(option));
    }
    hostile.push(request(&["no-sync", "no-sync"], b"new.img", b"disk.img"));
    hostile.push(request(&["chmod=600", "chmod=644"], b"new.img", b"disk.img"));
    // Smuggled in, one way or another.
    for (from, to) in [
        ("-- 'new.img'", "'no-sync --allow-read' -- 'new.img'"),
        ("-- 'new.img'", "--allow-read -- 'new.img'"),
        ("-- 'new.img'", "--max-size=9E -- 'new.img'"),
        ("-- 'new.img'", "no-sync -- 'new.img'"),
        ("-- 'new.img'", "-- 'new.img' 'other.img'"),
        ("-- 'new.img'", "-- '' "),
        ("-- 'new.img'", "-- ''"),
        ("-- 'new.img'", "-- '\\0000'"),
        ("-- 'new.img'", "-- 'a\\0000b'"),
        ("-- 'new.img'", "-- '\\0056\\0056/outside/new'"),
        ("-- 'new.img'", "-- '\\0457'"),
        ("-- 'new.img'", "-- '\\04'"),
        ("-- 'new.img'", "-- '\\0089'"),
        ("-- 'new.img'", "-- '\\40'"),
        ("-- 'new.img'", "-- '\\\\'"),
        ("-- 'new.img'", "-- new.img"),
        ("-- 'new.img'", "-- \"new.img\""),
        ("-- 'new.img'", "-- $'new.img'"),
        ("-- 'new.img'", "-- 'new.img''x'"),
        ("-- 'new.img'", "-- 'new.img'\\''x'"),
        ("-- 'new.img'", "-- '$(touch x)'"),
        ("-- 'new.img'", "-- '`id`'"),
        ("-- 'new.img'", "-- 'a b'"),
        ("-- 'new.img'", "-- 'a\nb'"),
        ("-- 'new.img'", "-- 'a;b'"),
        ("-- 'new.img'", "-- '~root/x'"),
        ("-- 'new.img'", "-- 'caf\u{e9}'"),
        ("-- 'new.img'", " -- 'new.img'"),
        ("-- 'new.img'", "--  'new.img'"),
        ("-- 'new.img'", "--\t'new.img'"),
        ("-- 'new.img'", "-- -- 'new.img'"),
        ("-- 'new.img'", "'new.img'"),
        ("-- 'new.img'", "'--' 'new.img'"),
        (" 'disk.img'", ""),
        (" 'disk.img'", " ''"),
        ("'disk.img'", "'disk.img' "),
        ("'disk.img'", "'disk.img'\n"),
        ("'disk.img'", "'disk.img'; id"),
        ("'disk.img'", "'disk.img' && touch x"),
        ("'disk.img'", "'disk.img' | cat"),
        ("'disk.img'", "'disk.img' > ../outside/x"),
        ("'disk.img'", "'disk.img' 'third.img'"),
        ("'disk.img'", "'disk.img' --allow-read"),
        ("exec sh", " exec sh"),
        ("exec sh", "exec  sh"),
        ("exec sh", "sh"),
        ("exec sh", "exec dash"),
        ("exec sh", "exec /bin/sh"),
        ("exec sh", "id; exec sh"),
        ("sh -c", "sh -xc"),
        ("recv-hole 1", "recv-hole 2"),
        ("recv-hole 1", "recv-hole 01"),
        ("recv-hole 1", "recv-hole"),
        ("recv-hole 1", "recv-hole.sh 1"),
        ("recv-hole 1", "rm 1"),
        ("eval", "ev'al"),
        ("eval", "ev'; id; '"),
    ] {
        assert!(good.contains(from), "{from}");
        hostile.push(good.replacen(from, to, 1));
    }
    for len in
        ["", "-1", "+1", "0x10", "262145", "99999999999999999999999", "1 2", "024", "1.0", "'24'", "$((1))", "24;id"]
    {
        hostile.push(by_len(len));
    }
    // Other commands.
    for other in [
        "",
        " ",
        "id",
        "/bin/sh",
        "sh",
        "scp -t .",
        "rsync --server . .",
        "internal-sftp",
        "recv-hole new.img",
        "xfer-hole old.img",
        "recv-hole --restrict / new.img",
        "exec sh -c 'id'",
        "exec sh -c 'id' recv-hole",
        "exec sh -c '",
        "\n",
        "'",
        "--help",
        "cat > new.img",
        "exec",
        "XFER-HOLE 1 0",
    ] {
        hostile.push(other.into());
    }
    hostile.push(format!("{good}\n{good}"));
    hostile.push(good.replace("eval", &"x".repeat(70_000)));
    assert!(hostile.len() > 200);
    let before = place.all();
    for request in &hostile {
        let outcome = place.ask(&[], request);
        let what = request.get(..400).unwrap_or(request);
        let why = failed(&outcome, what);
        assert!(!why.contains(&dir) && !why.contains("precious"), "{what}: {why}");
        assert!(place.all() == before, "something changed: {what}: {why}");
    }
}

#[test]
fn a_request_of_octets_that_are_no_text_and_none_at_all_are_refused() {
    let place = Place::new();
    let before = place.all();
    let good = request(&[], b"new.img", b"disk.img");
    for (from, to) in [("new", &b"\xff\xfe"[..]), ("new", b"\x01\x7f"), (" -- ", b" \x80 -- ")] {
        let (front, back) = good.split_once(from).unwrap();
        let octets = [front.as_bytes(), to, back.as_bytes()].concat();
        failed(&place.ask_by(&[], OsStr::from_bytes(&octets), &place.input(&place.stream)), "no text");
    }
    let outcome = run(&mut place.command(&[], None), &place.stream);
    assert!(failed(&outcome, "not set").contains("SSH_ORIGINAL_COMMAND"));
    // Nor is it looked for elsewhere.
    let mut command = place.command(&[], None);
    command.arg("new.img");
    assert_eq!(run(&mut command, &place.stream).code, Some(2));
    assert!(place.all() == before);
}

#[test]
fn the_script_s_length_counts_and_a_cut_script_is_no_stream() {
    let place = Place::new();
    let before = place.all();
    let good = request(&[], b"new.img", b"disk.img");
    let by_len = |len: usize| good.replace(&format!(" 1 {} ", PREAMBLE.len()), &format!(" 1 {len} "));
    for len in [0, 1, PREAMBLE.len() - 1, PREAMBLE.len() + 1, 262_144] {
        failed(&place.ask(&[], &by_len(len)), &format!("{len} octets"));
        assert!(place.all() == before, "{len}");
    }
    let long = "x".repeat(262_144);
    let input = [long.as_bytes(), &place.stream].concat();
    done(&place.ask_by(&[], OsStr::new(&by_len(long.len())), &input), "the longest script");
    assert!(fs::read(place.at("dir/new.img")).unwrap() == place.octets);
    assert!(!place.at("outside/never").exists() && !place.at("dir/never").exists());
}

#[test]
fn good_requests_are_done_beneath_the_directory() {
    let place = Place::new();
    let absolute = place.at("dir/sub/absolute.img").into_os_string();
    for (options, dest, name, at) in [
        (&[][..], absolute.as_bytes(), &b"disk.img"[..], "sub/absolute.img"),
        (&[][..], &b"new.img"[..], &b"disk.img"[..], "new.img"),
        (&["receiver=auto"], b"./new.img", b"disk.img", "new.img"),
        (&["receiver=binary"], b"old.img", b"disk.img", "old.img"),
        (&["no-sync"], b"sub/old.img", b"disk.img", "sub/old.img"),
        (&["max-wait=60"], b"sub//deep/./new.img", b"disk.img", "sub/deep/new.img"),
        (&[], b"sub", b"disk.img", "sub/disk.img"),
        (&[], b"sub/", b"disk.img", "sub/disk.img"),
        (&[], b".", b"disk.img", "disk.img"),
        (&[], b"./", b"-rf --allow-read", "-rf --allow-read"),
        (&[], b"-", b"disk.img", "-"),
        (&[], b"--", b"disk.img", "--"),
        (&[], b"--max-size=1", b"x", "--max-size=1"),
        (&[], b"-o", b"x", "-o"),
        (&[], b"...", b"x", "..."),
        (&[], b"~", b"$(id)", "~"),
        (&[], b"two words'\"`$(id)`;\\", b"x", "two words'\"`$(id)`;\\"),
        (&["chmod=0604"], b"new.img", b"x", "new.img"),
        (&["mkpath"], b"a/b/new.img", b"x", "a/b/new.img"),
        (&["mkpath"], b"c/d/", b"x", "c/d/x"),
        (&["mkpath", "no-sync"], b"sub/e/new.img", b"x", "sub/e/new.img"),
        (&[], b"half.img", b"x", "half.img"),
    ] {
        let what = request(options, dest, name);
        done(&place.ask(&[], &what), &what);
        let at = place.at("dir").join(at);
        assert!(fs::read(&at).unwrap() == place.octets, "{what}");
        assert!(!part_of(&at).exists(), "{what}");
        if options == ["chmod=0604"] {
            assert_eq!(mode(&at), 0o604);
        }
    }
    assert_eq!(fs::read(place.at("outside/precious")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 1);
}

#[test]
fn a_name_that_is_no_text_is_only_a_name() {
    let place = Place::new();
    let all: Vec<u8> = (1..=255).filter(|&octet| octet != b'/').collect();
    for name in [&all[..127], &all[127..], b"\xff\n\x80"] {
        done(&place.ask(&[], &request(&[], name, b"x")), "a strange target");
        done(&place.ask(&[], &request(&[], b"empty/", name)), "a strange name");
        for folder in ["dir", "dir/empty"] {
            assert!(fs::read(place.at(folder).join(OsStr::from_bytes(name))).unwrap() == place.octets);
        }
    }
}

#[test]
fn what_is_kept_of_the_old_is_refused_before_it_is_looked_at() {
    let place = Place::new();
    let before = place.all();
    let ask = |dest: &str, args: &[&str]| {
        let input = place.input(&place.keeping);
        place.ask_by(args, OsStr::new(&request(&[], dest.as_bytes(), b"x")), &input)
    };
    let whys = ["old.img", "new.img", "half.img"].map(|dest| failed(&ask(dest, &[]), dest));
    assert!(whys[0].contains("keeps parts of an older image"), "{}", whys[0]);
    assert!(whys.iter().all(|why| *why == whys[0]), "{whys:?}");
    assert!(place.all() == before);
    failed(&ask("new.img", &["--allow-read"]), "there is nothing to be kept");
    failed(&ask("alias", &["--allow-read"]), "links are not followed");
    done(&ask("old.img", &["--allow-read"]), "--allow-read");
    assert_eq!(fs::read(place.at("dir/old.img")).unwrap(), b"precious");
}

#[test]
fn answers_do_not_tell_what_was_there() {
    let place = Place::new();
    let cut = place.input(&place.stream[..place.stream.len() / 2]);
    let wrong = place.input(b"XFER-HOLE 1 4096\nDATA 5000\n");
    let large = place.input(b"XFER-HOLE 1 1099511627776\nHOLE 1099511627776\nEND\n");
    let whole = place.input(&place.stream);
    fs::write(place.at("dir/left.img.part"), "what somebody left").unwrap();
    fs::write(place.at("dir/there.img"), "what is there").unwrap();
    fs::set_permissions(place.at("dir/there.img"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(place.at("dir/there.img"), Some(65534), Some(7)).unwrap();
    for input in [&cut, &wrong, &large, &whole] {
        let answers = ["gone.img", "left.img", "there.img"].map(|dest| {
            let outcome = place.ask_by(&["--max-size", "1G"], OsStr::new(&request(&[], dest.as_bytes(), b"x")), input);
            (outcome.code, String::from_utf8(outcome.out).unwrap().replace(dest, "DEST"), outcome.err)
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], answers[2]);
    }
    // Nor does the new file take over what only the old one may be trusted with.
    assert_eq!(mode(&place.at("dir/there.img")) & 0o7000, 0);
}

#[test]
fn what_reads_or_keeps_is_allowed_by_a_flag() {
    let place = Place::new();
    let before = fs::metadata(place.at("dir/sub/old.img")).unwrap().ino();
    done(&place.ask(&["--allow-read"], &request(&["in-place"], b"sub/old.img", b"x")), "in place");
    assert_eq!(fs::metadata(place.at("dir/sub/old.img")).unwrap().ino(), before);
    done(&place.ask(&["--allow-read"], &request(&["no-clobber"], b"new.img", b"x")), "no-clobber");
    let there = failed(&place.ask(&["--allow-read"], &request(&["no-clobber"], b"new.img", b"x")), "there");
    assert!(there.contains("is there already"), "{there}");
    // A file with another name outside is not written through.
    failed(&place.ask(&["--allow-read"], &request(&["in-place"], b"linked.img", b"x")), "linked");
    for dest in ["fifo", "null", "loop", "alias", "window", "door/precious"] {
        failed(&place.ask(&["--allow-read"], &request(&["in-place"], dest.as_bytes(), b"x")), dest);
    }
    assert_eq!(fs::read(place.at("outside/precious")).unwrap(), b"precious");
    // Nor otherwise: its name is another file's afterwards.
    done(&place.ask(&[], &request(&[], b"linked.img", b"x")), "a new file by that name");
    assert_eq!(fs::read(place.at("outside/precious")).unwrap(), b"precious");
}

#[test]
fn a_hard_link_by_the_name_of_part_is_not_written_through() {
    let place = Place::new();
    fs::hard_link(place.at("outside/precious"), place.at("dir/new.img.part")).unwrap();
    done(&place.ask(&[], &request(&[], b"new.img", b"x")), "a linked .part");
    assert_eq!(fs::read(place.at("outside/precious")).unwrap(), b"precious");
    assert!(fs::read(place.at("dir/new.img")).unwrap() == place.octets);
}

#[test]
fn sizes_and_digests_are_held_to() {
    let place = Place::new();
    let before = place.all();
    let good = request(&[], b"new.img", b"x");
    assert!(failed(&place.ask(&["--max-size", "39999"], &good), "max").contains("--max-size"));
    let plain = place.input(b"XFER-HOLE 1 4096\nHOLE 4096\nEND\n");
    let outcome = place.ask_by(&["--require-hash"], OsStr::new(&good), &plain);
    assert!(failed(&outcome, "no digests").contains("digests"));
    assert!(place.all() == before);
    done(&place.ask(&["--max-size", "40000", "--require-hash"], &good), "good");
}

#[test]
fn a_dry_run_makes_nothing() {
    let place = Place::new();
    let before = place.all();
    for (options, dest) in
        [(&["dry-run"][..], "new.img"), (&["dry-run", "mkpath"], "a/b/new.img"), (&["dry-run", "mkpath"], "a/b/")]
    {
        done(&place.ask_by(&[], OsStr::new(&request(options, dest.as_bytes(), b"x")), PREAMBLE.as_bytes()), dest);
        assert!(place.all() == before, "{dest}");
    }
    failed(&place.ask(&[], &request(&["dry-run"], b"a/b/new.img", b"x")), "no such directory");
    failed(&place.ask(&[], &request(&["dry-run", "mkpath"], b"door/b/new.img", b"x")), "a link");
}

#[test]
fn the_directory_is_held_to_while_it_is_moved_and_replaced() {
    let place = Place::new();
    let mut running = Running::start(&mut place.command(&[], Some(OsStr::new(&request(&[], b"sub/new.img", b"x")))));
    let input = place.input(&place.stream);
    let half = input.len() / 2;
    running.say(&input[..half]);
    wait_until("it has begun", || place.at("dir/sub/new.img.part").exists());
    fs::rename(place.at("dir/sub"), place.at("dir/moved")).unwrap();
    symlink("../outside", place.at("dir/sub")).unwrap();
    running.say(&input[half..]);
    done(&running.end(), "moved meanwhile");
    assert!(fs::read(place.at("dir/moved/new.img")).unwrap() == place.octets);
    assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 1);
}

#[test]
fn a_kernel_that_can_not_hold_us_to_a_directory_gets_nothing_written() {
    let place = Place::new();
    let before = place.all();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=openat2", "-e", "inject=openat2:error=ENOSYS"]);
    command.arg(tools!().recv_hole).arg("--restrict").arg(place.at("dir"));
    command.env(ENV, request(&[], b"sub/new.img", b"x"));
    let why = failed(&run(&mut command, &place.input(&place.stream)), "no openat2");
    assert!(why.contains("openat2"), "{why}");
    command.env(ENV, request(&[], b"new.img", b"x"));
    failed(&run(&mut command, &place.input(&place.stream)), "no openat2");
    assert!(place.all() == before);
}

#[test]
fn it_goes_with_no_other_target_and_speaks_one_version() {
    let place = Place::new();
    for args in [&["out.img"][..], &["--in-place"], &["--classic"], &["--mkpath"], &["--chmod", "600"], &["-v"]] {
        let outcome = run(&mut place.command(args, Some(OsStr::new("id"))), b"");
        assert_eq!(outcome.code, Some(2), "{args:?}");
        assert!(outcome.err.contains("--restrict"), "{args:?}: {}", outcome.err);
    }
    let speaks = |version: &str| run(Command::new(tools!().recv_hole).args(["--speaks", version]), b"");
    assert_eq!((speaks("1").code, speaks("1").err.as_str()), (Some(0), ""));
    for version in ["0", "2", "4294967295"] {
        assert_eq!((speaks(version).code, speaks(version).err.as_str()), (Some(2), ""), "{version}");
    }
    assert_eq!(run(Command::new(tools!().recv_hole).args(["--allow-read", "x"]), b"").code, Some(2));
}

#[test]
fn the_line_in_authorized_keys_holds_a_key_to_it() {
    let (place, sshd) = (Place::new(), Sshd::start());
    let keys = sshd.config().with_file_name("authorized_keys");
    let key = fs::read_to_string(&keys).unwrap();
    let (program, dir) = (tools!().recv_hole.display().to_string(), place.at("dir").display().to_string());
    fs::write(&keys, format!("restrict,command=\"{program} --restrict {dir} --max-size 1G\" {key}")).unwrap();
    let ask = |request: &str| run(sshd.ssh().arg(request), &place.input(&place.stream));
    done(&ask(&request(&["mkpath"], b"a b/it's new.img", b"x")), "by ssh");
    assert!(fs::read(place.at("dir/a b/it's new.img")).unwrap() == place.octets);
    let before = place.all();
    for other in ["id", "cat > new.img", "exec sh -c 'id'", &request(&[], b"../outside/new", b"x")] {
        failed(&ask(other), other);
    }
    // A shell.
    failed(&run(&mut sshd.ssh(), b"id\n"), "a shell");
    assert!(place.all() == before);
}

#[test]
fn a_directory_that_is_not_there_allows_nothing() {
    let place = Place::new();
    fs::write(place.at("a file"), "x").unwrap();
    for dir in ["nowhere", "a file"] {
        let mut command = Command::new(tools!().recv_hole);
        command.arg("--restrict").arg(place.at(dir)).env(ENV, request(&["mkpath"], b"new.img", b"x"));
        failed(&run(&mut command, &place.input(&place.stream)), dir);
        assert!(!place.at("nowhere").exists());
    }
}
