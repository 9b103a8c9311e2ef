//! What a request says, and what is none.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;

/// A word as a sender codes and quotes it.
fn coded(octets: &[u8]) -> String {
    format!("'{}'", xfer_hole_link::coded(OsStr::from_bytes(octets)))
}

const PLAIN: &str = "exec sh -c '(n=80; while sleep 1 && kill -0 $$; do n=$((n-1)); [ $n -gt 0 ] || kill -9 $$; done) </dev/null >/dev/null 2>&1 & w=$! ; eval \"$(dd ibs=1 count=$2 2>/dev/null || echo exec dd count=0)\"' recv-hole 1 0 -- 'a' 'b'";

#[test]
fn a_request_says_what_is_asked_for() {
    let words = "'receiver=binary' 'in-place' 'target-is-zero' 'no-sync' 'direct' 'remember' 'read-back' 'check-base' 'no-clobber' 'mkpath' 'dry-run' 'private' 'chmod=0640' \
                 'chown=me:you' 'max-wait=90'";
    let text = format!("exec sh -c 'any;$(thing)\n' recv-hole 1 4096 {words} -- 'a/b\\0040c' '-n\\0047'");
    let asked = Request::parse(text.as_bytes()).unwrap();
    let expected = Request {
        receiver: Wanted::Binary,
        in_place: true,
        target_is_zero: true,
        no_sync: true,
        direct: true,
        remember: true,
        read_back: true,
        check_base: true,
        no_clobber: true,
        mkpath: true,
        dry_run: true,
        private: true,
        chmod: Some(0o640),
        chown: Some("me:you".into()),
        max_wait: Some(Duration::from_secs(90)),
        dest: "a/b c".into(),
        name: "-n'".into(),
        preamble: 4096,
    };
    assert_eq!(asked, expected);
    let plain = Request::parse(PLAIN.as_bytes()).unwrap();
    assert_eq!(plain, Request { dest: "a".into(), name: "b".into(), ..Request::default() });
}

#[test]
fn a_request_with_one_octet_less_or_another_one_is_another_or_none() {
    let good = Request::parse(PLAIN.as_bytes()).unwrap();
    let script = PLAIN.find("(n=80").unwrap()..PLAIN.find("' recv").unwrap();
    for at in 0..PLAIN.len() {
        let cut = Request::parse(&PLAIN.as_bytes()[..at]);
        assert!(cut.is_err(), "cut at {at}");
        let mut less = PLAIN.as_bytes().to_vec();
        less.remove(at);
        let parsed = Request::parse(&less);
        assert!(script.contains(&at) || parsed.is_err(), "without {at}");
        for octet in [b' ', b'\'', b'\\', b'\n', b'"', b'0', b'x', b';', 0xff] {
            let mut other = PLAIN.as_bytes().to_vec();
            other[at] = octet;
            if let Ok(asked) = Request::parse(&other) {
                let word = |octet: u8| octet.is_ascii_alphanumeric();
                assert!(script.contains(&at) || asked == good || word(octet), "{octet:#x} at {at}: {asked:?}");
            }
        }
    }
}

#[test]
fn there_is_one_way_to_code_a_word() {
    for word in ["'a'", "'\\0040'", "'\\0377\\0001'", "'a\\0134b'", "'AZaz09/._,+:@%=-'"] {
        assert!(decoded(word.as_bytes()).is_ok(), "{word}");
    }
    for word in [
        "''",
        "'",
        "",
        "a",
        "'a",
        "a'",
        "\"a\"",
        "'a'b'",
        "'~'",
        "'a b'",
        "'\\0000'",
        "'a\\0000'",
        "'\\0400'",
        "'\\0777'",
        "'\\0101'",
        "'\\0055'",
        "'\\040'",
        "'\\04'",
        "'\\0'",
        "'\\'",
        "'\\1040'",
        "'\\x20'",
        "'\\n'",
        "'\\\\'",
        "'\\0 40'",
        "'\\00400'x",
        "'\\0048'",
        "'\\004-'",
        "'$a'",
        "'`a`'",
        "'a;b'",
        "'a\nb'",
        "'a\tb'",
        "'!'",
        "'*'",
        "'\u{e9}'",
    ] {
        assert!(decoded(word.as_bytes()).is_err(), "{word}");
    }
}

proptest! {
    #[test]
    fn coding_and_then_reading_gives_the_words_back(
        dest in prop::collection::vec(1_u8.., 1..300),
        name in prop::collection::vec(1_u8.., 1..60),
        preamble in 0..=PREAMBLE_MAX,
        script in "[^'\0]*",
    ) {
        let text = format!("exec sh -c '{script}' recv-hole 1 {preamble} -- {} {}", coded(&dest), coded(&name));
        match Request::parse(text.as_bytes()) {
            Ok(asked) => {
                prop_assert_eq!(asked.dest.as_bytes(), &dest[..]);
                prop_assert_eq!(asked.name.as_bytes(), &name[..]);
                prop_assert_eq!(asked.preamble, preamble);
            }
            Err(_) => prop_assert!(name.contains(&b'/') || name == b"." || name == b".."),
        }
    }

    #[test]
    fn what_is_decoded_was_coded_so(word in prop::collection::vec(any::<u8>(), 0..20)) {
        let quoted = [b"'", &word[..], b"'"].concat();
        if let Ok(octets) = decoded(&quoted) {
            prop_assert_eq!(coded(&octets).into_bytes(), quoted);
        }
    }

    #[test]
    fn no_octets_make_it_fail_otherwise_than_by_an_error(octets in prop::collection::vec(any::<u8>(), 0..200), at in 0..90_usize) {
        let _none = Request::parse(&octets);
        let mixed = [&PLAIN.as_bytes()[..at.min(PLAIN.len())], &octets[..]].concat();
        let _none = Request::parse(&mixed);
    }
}
