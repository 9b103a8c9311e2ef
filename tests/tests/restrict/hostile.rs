//! Requests of every sort that may not be granted.

use crate::place::{Place, TEXT_LEN, failed, request};

#[test]
fn hostile_requests_are_refused_and_nothing_is_written_anywhere() {
    let place = Place::new();
    let dir = place.at("dir").display().to_string();
    let good = request(&[], b"new.img", b"disk.img");
    let by_dest = |dest: &str| request(&[], dest.as_bytes(), b"disk.img");
    let by_name = |name: &str| request(&[], b"empty", name.as_bytes());
    let by_option = |option: &str| request(&[option], b"new.img", b"disk.img");
    let by_len = |len: &str| good.replace(&format!(" 1 {TEXT_LEN} "), &format!(" 1 {len} "));
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
    let absolute = ["/", "/etc/passwd", "/dev/null", "/proc/self/fd/1", "//etc/x", "/./x"];
    for dest in absolute.into_iter().chain(beside.iter().map(String::as_str)) {
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
        "force",
        "discard",
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
