//! Tests of parsing push requests.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;

/// Encodes and quotes a word as a sender does.
fn coded(bytes: &[u8]) -> String {
    format!("'{}'", xfer_hole_transport::coded(OsStr::from_bytes(bytes)))
}

/// Decodes a quoted word of a request.
fn read(word: &[u8]) -> Result<Vec<u8>, &'static str> {
    unquoted(word).ok_or(NOT_CODED).and_then(decoded)
}

const PLAIN: &str = "exec sh -c '(echo; eval \"$(dd ibs=1 count=$2 2>/dev/null)\")' recv-hole 1 0 -- 'a' 'b'";

#[test]
fn every_option_of_a_request_is_parsed() {
    let words = "'receiver=binary' 'in-place' 'target-is-zero' 'discard' 'no-sync' 'direct' 'remember' 'read-back' 'check-base' 'no-clobber' 'force' 'mkpath' 'dry-run' 'private' 'chmod=0640' \
                 'chown=me:you' 'max-wait=90' 'source=web.qcow2' 'size=8589934592' 'data=0'";
    let text = format!("exec sh -c 'any;$(thing)\n' recv-hole 1 4096 {words} -- 'a/b\\0040c' '-n\\0047'");
    let request = ReceivedRequest::parse(text.as_bytes()).unwrap();
    let expected = ReceivedRequest {
        receiver: WantedReceiver::Binary,
        in_place: true,
        target_is_zero: true,
        discard: true,
        no_sync: true,
        direct: true,
        remember: true,
        read_back: true,
        check_base: true,
        no_clobber: true,
        force: true,
        mkpath: true,
        dry_run: true,
        private: true,
        chmod: Some(0o640),
        chown: Some("me:you".into()),
        max_wait: Some(Duration::from_secs(90)),
        source: Some("web.qcow2".into()),
        is_named: false,
        expected: ExpectedDisk { size: Some(8 << 30), data: Some(0), ..ExpectedDisk::default() },
        dest: "a/b c".into(),
        name: "-n'".into(),
    };
    assert_eq!(request, expected);
    let plain = ReceivedRequest::parse(PLAIN.as_bytes()).unwrap();
    assert_eq!(plain, ReceivedRequest { dest: "a".into(), name: "b".into(), ..ReceivedRequest::default() });
}

#[test]
fn words_without_quotes_are_parsed_alike() {
    let quoted = "1 17 'no-sync' 'chown=me\\0040:you' -- 'a\\0040b' '-n'";
    let parsed = ReceivedRequest::parse(format!("exec sh -c '' recv-hole {quoted}").as_bytes()).unwrap();
    assert_eq!(ReceivedRequest::of_words(quoted.replace('\'', "").as_bytes()).unwrap(), parsed);
    assert_eq!((parsed.dest, parsed.chown), ("a b".into(), Some("me :you".into())));
    for wrong in [
        "",
        "1",
        "2 0 -- a b",
        "1 0 a b",
        "1 0 -- a",
        "1 0 -- a b c",
        "1 0 -- a 'b'",
        "1 0 -- a  b",
        "1 0 -- a b/c",
        "1 262145 -- a b",
    ] {
        assert!(ReceivedRequest::of_words(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn a_changed_request_is_refused_or_different() {
    let good = ReceivedRequest::parse(PLAIN.as_bytes()).unwrap();
    let script = PLAIN.find("(echo").unwrap()..PLAIN.find("' recv").unwrap();
    for at in 0..PLAIN.len() {
        let cut = ReceivedRequest::parse(&PLAIN.as_bytes()[..at]);
        assert!(cut.is_err(), "cut at {at}");
        let mut less = PLAIN.as_bytes().to_vec();
        less.remove(at);
        let parsed = ReceivedRequest::parse(&less);
        assert!(script.contains(&at) || parsed.is_err(), "without {at}");
        for byte in [b' ', b'\'', b'\\', b'\n', b'"', b'0', b'x', b';', 0xff] {
            let mut other = PLAIN.as_bytes().to_vec();
            other[at] = byte;
            if let Ok(request) = ReceivedRequest::parse(&other) {
                let word = |byte: u8| byte.is_ascii_alphanumeric();
                assert!(script.contains(&at) || request == good || word(byte), "{byte:#x} at {at}: {request:?}");
            }
        }
    }
}

#[test]
fn a_word_has_exactly_one_encoding() {
    for word in ["'a'", "'\\0040'", "'\\0377\\0001'", "'a\\0134b'", "'AZaz09/._,+:@%=-'"] {
        assert!(read(word.as_bytes()).is_ok(), "{word}");
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
        assert!(read(word.as_bytes()).is_err(), "{word}");
    }
}

proptest! {
    #[test]
    fn encoding_and_parsing_returns_the_same_words(
        dest in prop::collection::vec(1_u8.., 1..300),
        name in prop::collection::vec(1_u8.., 1..60),
        text in 0..=TEXT_MAX,
        script in "[^'\0]*",
    ) {
        let text = format!("exec sh -c '{script}' recv-hole 1 {text} -- {} {}", coded(&dest), coded(&name));
        match ReceivedRequest::parse(text.as_bytes()) {
            Ok(request) => {
                prop_assert_eq!(request.dest.as_bytes(), &dest[..]);
                prop_assert_eq!(request.name.as_bytes(), &name[..]);
            }
            Err(_) => prop_assert!(name.contains(&b'/') || name == b"." || name == b".."),
        }
    }

    #[test]
    fn decoding_and_encoding_returns_the_same_word(word in prop::collection::vec(any::<u8>(), 0..20)) {
        let quoted = [b"'", &word[..], b"'"].concat();
        if let Ok(bytes) = read(&quoted) {
            prop_assert_eq!(coded(&bytes).into_bytes(), quoted);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..90_usize) {
        let _none = ReceivedRequest::parse(&bytes);
        let mixed = [&PLAIN.as_bytes()[..at.min(PLAIN.len())], &bytes[..]].concat();
        let _none = ReceivedRequest::parse(&mixed);
    }
}
