//! `recv-hole --restrict`: disks beneath one directory, and nothing else, whatever is asked for.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod hostile;
mod place;
mod pull;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use rig::{Running, Sshd, mark_part, mode, part_of, requires, run, tools, wait_until};

use crate::place::{ENV, Place, TEXT_LEN, done, failed, request};

#[test]
fn a_request_of_bytes_that_are_no_text_and_none_at_all_are_refused() {
    let place = Place::new();
    let before = place.all();
    let good = request(&[], b"new.img", b"disk.img");
    for (from, to) in [("new", &b"\xff\xfe"[..]), ("new", b"\x01\x7f"), (" -- ", b" \x80 -- ")] {
        let (front, back) = good.split_once(from).unwrap();
        let bytes = [front.as_bytes(), to, back.as_bytes()].concat();
        failed(&place.ask_by(&[], OsStr::from_bytes(&bytes), &place.stream), "no text");
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
fn the_text_of_a_receiver_is_never_asked_for_and_is_no_stream() {
    let place = Place::new();
    let before = place.all();
    let good = request(&[], b"new.img", b"disk.img");
    let by_len = |len: usize| good.replace(&format!(" 1 {TEXT_LEN} "), &format!(" 1 {len} "));
    // It is announced, and comes all the same.
    let input = [&b"echo never; touch never\n"[..], &place.stream].concat();
    failed(&place.ask_by(&[], OsStr::new(&good), &input), "the text");
    failed(&place.ask(&[], &by_len(262_145)), "too much of it");
    assert!(place.all() == before);
    for len in [0, 262_144] {
        done(&place.ask(&[], &by_len(len)), "any length");
        assert!(fs::read(place.at("dir/new.img")).unwrap() == place.bytes);
        fs::remove_file(place.at("dir/new.img")).unwrap();
    }
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
        (&["direct"], b"new.img", b"disk.img", "new.img"),
        (&["read-back"], b"old.img", b"disk.img", "old.img"),
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
        assert!(fs::read(&at).unwrap() == place.bytes, "{what}");
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
    let all: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    for name in [&all[..127], &all[127..], b"\xff\n\x80"] {
        done(&place.ask(&[], &request(&[], name, b"x")), "a strange target");
        done(&place.ask(&[], &request(&[], b"empty/", name)), "a strange name");
        for folder in ["dir", "dir/empty"] {
            assert!(fs::read(place.at(folder).join(OsStr::from_bytes(name))).unwrap() == place.bytes);
        }
    }
}

#[test]
fn what_is_there_is_told_to_nobody_who_may_only_write() {
    let place = Place::new();
    let before = place.all();
    let want = format!("WANT {} sha256 65536 4096\n", place.bytes.len());
    let ask = |dest: &str, args: &[&str]| {
        let input = want.as_bytes().to_vec();
        place.ask_by(args, OsStr::new(&request(&[], dest.as_bytes(), b"x")), &input)
    };
    let whys = ["old.img", "new.img", "half.img"].map(|dest| failed(&ask(dest, &[]), dest));
    assert!(whys.iter().all(|why| *why == whys[0]), "{whys:?}");
    assert!(place.all() == before);
    // One who may read would be told; here nothing follows.
    let outcome = ask("old.img", &["--allow-read"]);
    let said = String::from_utf8_lossy(&outcome.out);
    // A cut link may be there again later.
    assert_eq!(outcome.code, Some(75), "{said}{}", outcome.err);
    assert!(said.contains("FAIL (again left) ") && said.contains("was cut in its first line"), "{said}");
}

#[test]
fn what_is_kept_of_the_old_is_refused_before_it_is_looked_at() {
    let place = Place::new();
    let before = place.all();
    let ask = |dest: &str, args: &[&str]| {
        let input = place.keeping.clone();
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
    let cut = place.stream[..place.stream.len() / 2].to_vec();
    let wrong = b"XFER-HOLE 1 4096\nDATA 5000\n".to_vec();
    let large = b"XFER-HOLE 1 1099511627776\nHOLE 1099511627776\nEND\n".to_vec();
    let whole = place.stream.clone();
    fs::write(place.at("dir/left.img.part"), "what somebody left").unwrap();
    mark_part(&place.at("dir/left.img.part"));
    fs::write(place.at("dir/there.img"), "what is there").unwrap();
    fs::set_permissions(place.at("dir/there.img"), fs::Permissions::from_mode(0o4711)).unwrap();
    chown(place.at("dir/there.img"), Some(65534), Some(7)).unwrap();
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
fn an_account_that_can_not_give_files_away_does_not_tell_whose_they_were() {
    requires(&["setpriv"]);
    let place = Place::new();
    let binary = place.at("recv-hole");
    fs::copy(tools!().recv_hole, &binary).unwrap();
    for open in [place.outer.path(), &binary] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(place.at("dir/sub"), Some(65534), Some(65534)).unwrap();
    let answers = ["new.img", "old.img"].map(|dest| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&binary);
        command.arg("--restrict").arg(place.at("dir")).env(ENV, request(&[], format!("sub/{dest}").as_bytes(), b"x"));
        let outcome = run(&mut command, &place.stream);
        done(&outcome, dest);
        assert!(fs::read(place.at("dir/sub").join(dest)).unwrap() == place.bytes);
        String::from_utf8(outcome.out).unwrap()
    });
    assert_eq!(answers[0], answers[1]);
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
fn a_file_that_part_is_another_name_of_is_not_replaced() {
    let place = Place::new();
    fs::hard_link(place.at("outside/precious"), place.at("dir/new.img.part")).unwrap();
    let refused = failed(&place.ask(&[], &request(&[], b"new.img", b"x")), "a linked .part");
    assert!(refused.contains("cannot be made or replaced here"), "{refused}");
    assert_eq!(fs::read(place.at("outside/precious")).unwrap(), b"precious");
    assert!(place.at("dir/new.img.part").exists() && !place.at("dir/new.img").exists());
}

#[test]
fn sizes_and_digests_are_held_to() {
    let place = Place::new();
    let before = place.all();
    let good = request(&[], b"new.img", b"x");
    assert!(failed(&place.ask(&["--max-size", "39999"], &good), "max").contains("--max-size"));
    let plain = b"XFER-HOLE 1 4096\nHOLE 4096\nEND\n".to_vec();
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
        done(&place.ask_by(&[], OsStr::new(&request(options, dest.as_bytes(), b"x")), b""), dest);
        assert!(place.all() == before, "{dest}");
    }
    failed(&place.ask(&[], &request(&["dry-run"], b"a/b/new.img", b"x")), "no such directory");
    failed(&place.ask(&[], &request(&["dry-run", "mkpath"], b"door/b/new.img", b"x")), "a link");
}

#[test]
fn the_directory_is_held_to_while_it_is_moved_and_replaced() {
    let place = Place::new();
    let mut running = Running::start(&mut place.command(&[], Some(OsStr::new(&request(&[], b"sub/new.img", b"x")))));
    let input = place.stream.clone();
    let half = input.len() / 2;
    running.say(&input[..half]);
    wait_until("it has begun", || place.at("dir/sub/new.img.part").exists());
    fs::rename(place.at("dir/sub"), place.at("dir/moved")).unwrap();
    symlink("../outside", place.at("dir/sub")).unwrap();
    running.say(&input[half..]);
    done(&running.end(), "moved meanwhile");
    assert!(fs::read(place.at("dir/moved/new.img")).unwrap() == place.bytes);
    assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 1);
}

#[test]
fn a_kernel_that_can_not_hold_us_to_a_directory_gets_nothing_written() {
    let place = Place::new();
    let before = place.all();
    requires(&["strace"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=openat2", "-e", "inject=openat2:error=ENOSYS"]);
    command.arg(tools!().recv_hole).arg("--restrict").arg(place.at("dir"));
    command.env(ENV, request(&[], b"sub/new.img", b"x"));
    let why = failed(&run(&mut command, &place.stream), "no openat2");
    assert!(why.contains("openat2"), "{why}");
    command.env(ENV, request(&[], b"new.img", b"x"));
    failed(&run(&mut command, &place.stream), "no openat2");
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
    let ask = |request: &str| run(sshd.ssh().arg(request), &place.stream);
    done(&ask(&request(&["mkpath"], b"a b/it's new.img", b"x")), "by ssh");
    assert!(fs::read(place.at("dir/a b/it's new.img")).unwrap() == place.bytes);
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
        failed(&run(&mut command, &place.stream), dir);
        assert!(!place.at("nowhere").exists());
    }
}

#[test]
fn an_append_only_key_makes_new_files_and_changes_none() {
    let place = Place::new();
    for args in [&["--no-clobber"][..], &["--no-clobber", "--allow-read"]] {
        let before = place.all();
        for options in [&[][..], &["no-clobber"], &["mkpath"]] {
            let there = failed(&place.ask(args, &request(options, b"old.img", b"x")), "there");
            assert!(there.contains("is there already"), "{there}");
            failed(&place.ask(args, &request(options, b"sub/old.img", b"x")), "there");
            failed(&place.ask(args, &request(options, b"linked.img", b"x")), "there");
        }
        let why = failed(&place.ask(args, &request(&["in-place"], b"old.img", b"x")), "in place");
        assert!(why.contains("--in-place"), "{why}");
        failed(&place.ask(args, &request(&["force"], b"old.img", b"x")), "force");
        let keeping = place.keeping.clone();
        failed(&place.ask_by(args, OsStr::new(&request(&[], b"old.img", b"x")), &keeping), "keeping");
        assert!(place.all() == before);
        done(&place.ask(args, &request(&[], b"new.img", b"x")), "new");
        done(&place.ask(args, &request(&["no-clobber", "mkpath"], b"a/b/new.img", b"x")), "new");
        fs::remove_file(place.at("dir/new.img")).unwrap();
        fs::remove_dir_all(place.at("dir/a")).unwrap();
    }
    // One that comes while the disk does is spared, too.
    let asked = request(&[], b"sub/new.img", b"x");
    let mut running = Running::start(&mut place.command(&["--no-clobber"], Some(OsStr::new(&asked))));
    let input = place.stream.clone();
    running.say(&input[..input.len() / 2]);
    wait_until("it has begun", || place.at("dir/sub/new.img.part").exists());
    fs::write(place.at("dir/sub/new.img"), "another's").unwrap();
    running.say(&input[input.len() / 2..]);
    failed(&running.end(), "there meanwhile");
    assert_eq!(fs::read(place.at("dir/sub/new.img")).unwrap(), b"another's");
}
