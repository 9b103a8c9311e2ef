//! Parses the name of a backing file as QEMU does: a plain path, a path with a protocol prefix, or a `json:` object of
//! options.
//!
//! ```text
//! base.qcow2, ../base.qcow2, /pool/base.qcow2      a file
//! file:base.qcow2, host_device:/dev/sdb            a file, even if the path contains a colon
//! json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/pool/base.qcow2"}}
//! json:{"driver": "qcow2", "file.filename": "/pool/base.qcow2"}
//! nbd://host/disk, ssh:..., fat:rw:dir             another protocol, refused by its name
//! ```
//!
//! A `json:` name may set options that change what is read. Options that are known to change nothing are accepted; all
//! others are refused by name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use xfer_hole_os::{DiskError, DiskErrorKind, Result, named};

use crate::Format;

/// A parsed backing file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackingFilename {
    /// The path of the file, in the bytes of the file system.
    pub(crate) file: PathBuf,
    /// The format that the name declares. If the image declares one beside the name too, that one has precedence, as in
    /// QEMU.
    pub(crate) format: Option<Format>,
}

impl BackingFilename {
    /// Parses the backing file name that the image `named_by` contains.
    pub(crate) fn read(named_by: &Path, name: &OsStr) -> Result<Self> {
        let refused = |why: String| {
            let text = format!("backing file {} {why}", named(Path::new(name)));
            DiskError::new(DiskErrorKind::Unsupported, named_by, text)
        };
        let bytes = name.as_bytes();
        let plain = |file: &[u8], format| BackingFilename { file: OsString::from_vec(file.into()).into(), format };
        let Some(colon) = bytes.iter().position(|byte| b":/".contains(byte)).filter(|&at| bytes[at] == b':') else {
            return Ok(plain(bytes, None));
        };
        let (protocol, rest) = (&bytes[..colon], &bytes[colon + 1..]);
        match protocol {
            b"file" | b"host_device" => Ok(plain(rest, None)),
            b"json" => {
                let (file, format) = json(rest).map_err(refused)?;
                Ok(plain(file.as_bytes(), format))
            }
            _ => Err(refused(format!(
                "is to be had by the protocol {}, which xfer-hole does not speak",
                shown_word(protocol)
            ))),
        }
    }
}

/// A word of a name, safe to print.
fn shown_word(word: &[u8]) -> String {
    named(Path::new(OsStr::from_bytes(word)))
}

/// Parses a `json:` object: the path that it names, and the format that it declares. The error is the reason for a
/// refusal.
fn json(text: &[u8]) -> std::result::Result<(String, Option<Format>), String> {
    let text = std::str::from_utf8(text).map_err(|_| "is no UTF-8, which JSON has to be".to_owned())?;
    let parsed = serde_json::from_str(&double_quoted(text));
    let JsonObject(options) = parsed.map_err(|error| format!("can't be read as JSON: {error}"))?;
    let mut flat = BTreeMap::new();
    flatten("", options, &mut flat)?;
    // The prefix of the current driver's options, from the format down to the file: "", "file.", "file.file.".
    let mut prefix = String::new();
    let mut format = None;
    loop {
        let driver = flat.remove(&format!("{prefix}driver"));
        let driver = match &driver {
            Some(OptionValue::Text(driver)) => Some(driver.as_str()),
            Some(_) => return Err(format!("has a {} that is no text", quoted_key(&prefix, "driver"))),
            None => None,
        };
        let filename = flat.remove(&format!("{prefix}filename"));
        match (driver, prefix.is_empty()) {
            (Some("file" | "host_device"), top) => {
                if top {
                    format = Some(Format::Raw);
                }
                return finish(&prefix, filename, flat, format);
            }
            (Some("raw"), true) => format = Some(Format::Raw),
            (Some("qcow2"), true) => format = Some(Format::Qcow2),
            // The raw driver without an offset or a size reads what the driver below it reads.
            (Some("raw"), false) => {}
            (Some("qcow2"), false) => return Err("has a qcow2 image inside of another format".into()),
            (Some(driver), _) => {
                return Err(format!("has the driver {}, which xfer-hole does not read", named(Path::new(driver))));
            }
            // The object doesn't declare the format.
            (None, true) => {}
            // Without a driver, the level below a format is a file.
            (None, false) => return finish(&prefix, filename, flat, format),
        }
        if filename.is_some() {
            return Err(format!("has a {} beside a format, and not in its \"file\"", quoted_key(&prefix, "filename")));
        }
        prefix.push_str("file.");
        if !flat.keys().any(|key| key.starts_with(&prefix)) {
            return Err(match flat.get(prefix.trim_end_matches('.')) {
                Some(OptionValue::Text(_)) => "refers to a node of QEMU's, and not to a file".into(),
                _ => "names no file".into(),
            });
        }
    }
}

/// Returns the file, if all remaining options change nothing.
fn finish(
    prefix: &str,
    filename: Option<OptionValue>,
    rest: BTreeMap<String, OptionValue>,
    format: Option<Format>,
) -> std::result::Result<(String, Option<Format>), String> {
    for key in rest.keys() {
        // Only the levels that were parsed, and no deeper one, may have such options.
        let option =
            (0..=prefix.len()).rev().find_map(|at| key.strip_prefix(&prefix[..at]).filter(|_| is_level(prefix, at)));
        if !option.is_some_and(is_harmless) {
            return Err(format!("sets {}, which may change what is read", named(Path::new(key))));
        }
    }
    match filename {
        Some(OptionValue::Text(name)) => Ok((name, format)),
        Some(_) => Err(format!("has a {} that is no text", quoted_key(prefix, "filename"))),
        None => Err("names no file".into()),
    }
}

/// True if the first `at` bytes of the prefix are whole levels.
fn is_level(prefix: &str, at: usize) -> bool {
    at == 0 || prefix.as_bytes()[at - 1] == b'.'
}

fn quoted_key(prefix: &str, key: &str) -> String {
    format!("\"{prefix}{key}\"")
}

/// True for options that change how QEMU reads or writes, but not the content that it reads.
fn is_harmless(option: &str) -> bool {
    const WORDS: [&str; 18] = [
        "aio",
        "aio-max-batch",
        "auto-read-only",
        "cache",
        "cache-clean-interval",
        "cache-size",
        "detect-zeroes",
        "discard",
        "drop-cache",
        "force-share",
        "l2-cache-entry-size",
        "l2-cache-size",
        "lazy-refcounts",
        "locking",
        "node-name",
        "read-only",
        "refcount-cache-size",
        "x-check-cache-dropped",
    ];
    const FAMILIES: [&str; 4] = ["cache.", "discard-no-unref", "overlap-check", "pass-discard-"];
    WORDS.contains(&option) || FAMILIES.iter().any(|family| option.starts_with(family))
}

/// Converts strings in single quotes, which QEMU accepts too, to strings in double quotes.
fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut escaped = false;
    for c in text.chars() {
        let (was_escaped, inside) = (escaped, quote.is_some());
        escaped = inside && c == '\\' && !was_escaped;
        match (quote, c) {
            // JSON has no escape `\'`.
            (Some('\''), '\'') if was_escaped => {
                out.pop();
                out.push('\'');
            }
            (Some('\''), '"') if !was_escaped => out.push_str("\\\""),
            (Some(open), c) if c == open && !was_escaped => {
                quote = None;
                out.push('"');
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                out.push('"');
            }
            _ => out.push(c),
        }
    }
    out
}

/// A JSON object whose keys are all different. The maps of serde_json would use the last of several equal keys.
struct JsonObject(BTreeMap<String, JsonValue>);

enum JsonValue {
    Leaf(OptionValue),
    Object(JsonObject),
}

/// A JSON value that is not an object.
enum OptionValue {
    Text(String),
    /// A number, a boolean, null or a list, none of which names a file.
    Other,
}

/// Flattens `{"file": {"filename": "x"}}` to `file.filename`. serde_json limits the depth.
fn flatten(
    prefix: &str,
    object: BTreeMap<String, JsonValue>,
    flat: &mut BTreeMap<String, OptionValue>,
) -> std::result::Result<(), String> {
    for (key, value) in object {
        let key = format!("{prefix}{key}");
        match value {
            // An empty object counts as an option: `"backing": {}`.
            JsonValue::Object(JsonObject(inner)) if inner.is_empty() => {
                flat.insert(key, OptionValue::Other);
            }
            JsonValue::Object(JsonObject(inner)) => flatten(&format!("{key}."), inner, flat)?,
            JsonValue::Leaf(leaf) => {
                if flat.insert(key.clone(), leaf).is_some() {
                    return Err(format!("sets {} twice", named(Path::new(&key))));
                }
            }
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(JsonReader).and_then(|value| match value {
            JsonValue::Object(object) => Ok(object),
            JsonValue::Leaf(_) => Err(D::Error::custom("no object")),
        })
    }
}

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(JsonReader)
    }
}

struct JsonReader;

impl<'de> Visitor<'de> for JsonReader {
    type Value = JsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of options")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<JsonValue, E> {
        Ok(JsonValue::Leaf(OptionValue::Other))
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<JsonValue, E> {
        Ok(JsonValue::Leaf(OptionValue::Other))
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<JsonValue, E> {
        Ok(JsonValue::Leaf(OptionValue::Other))
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<JsonValue, E> {
        Ok(JsonValue::Leaf(OptionValue::Other))
    }

    fn visit_unit<E>(self) -> std::result::Result<JsonValue, E> {
        Ok(JsonValue::Leaf(OptionValue::Other))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<JsonValue, E> {
        Ok(JsonValue::Leaf(OptionValue::Text(text.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<JsonValue, A::Error> {
        while list.next_element::<JsonValue>()?.is_some() {}
        Ok(JsonValue::Leaf(OptionValue::Other))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<JsonValue, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, JsonValue>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands there twice")));
            }
            object.insert(key, value);
        }
        Ok(JsonValue::Object(JsonObject(object)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(name: &str) -> std::result::Result<(String, Option<Format>), String> {
        match BackingFilename::read(Path::new("o.qcow2"), OsStr::new(name)) {
            Ok(named) => Ok((named.file.to_str().unwrap().into(), named.format)),
            Err(error) => {
                assert_eq!(error.kind(), DiskErrorKind::Unsupported);
                let text = error.to_string();
                assert!(!text.contains(char::is_control), "{text}");
                let shown = xfer_hole_os::shown(Path::new(name));
                Err(text.strip_prefix(&format!("o.qcow2: backing file \"{shown}\" ")).unwrap().into())
            }
        }
    }

    #[test]
    fn file_names_are_parsed_to_paths_and_formats() {
        let (raw, qcow2) = (Some(Format::Raw), Some(Format::Qcow2));
        for (name, file, format) in [
            ("base.qcow2", "base.qcow2", None),
            ("../a b/base", "../a b/base", None),
            ("/pool/a:b", "/pool/a:b", None),
            ("./a:b", "./a:b", None),
            ("file:base", "base", None),
            ("file:///pool/base", "///pool/base", None),
            ("file:nbd:base", "nbd:base", None),
            ("host_device:/dev/sdb", "/dev/sdb", None),
            (r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"b"}}"#, "b", qcow2),
            (r#"json:{"driver":"raw","file":{"driver":"host_device","filename":"/dev/b"}}"#, "/dev/b", raw),
            (r#"json: {"file":{"filename":"b"}} "#, "b", None),
            (r#"json:{"file.filename":"b"}"#, "b", None),
            (r#"json:{"driver":"qcow2","file.driver":"file","file.filename":"b"}"#, "b", qcow2),
            (r#"json:{"driver":"file","filename":"b"}"#, "b", raw),
            // In an object of options, a filename is a plain path, without a protocol.
            (r#"json:{"file":{"driver":"file","filename":"nbd://b"}}"#, "nbd://b", None),
            (r#"json:{"file":{"filename":"json:{}"}}"#, "json:{}", None),
            (r#"json:{"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file","filename":"b"}}}"#, "b", qcow2),
            (r#"json:{"driver":"qcow2","file.file.filename":"b","file.driver":"raw"}"#, "b", qcow2),
            (r"json:{'driver':'qcow2','file':{'filename':'it\'s \u0022'}}", "it's \"", qcow2),
            (r#"json:{'file.filename':'a"b'}"#, "a\"b", None),
            (r#"json:{"file.filename":"a'b\"c\\"}"#, "a'b\"c\\", None),
            (
                r#"json:{"driver":"qcow2","node-name":"n","read-only":true,"auto-read-only":false,"discard":"unmap",
                   "detect-zeroes":"unmap","cache":{"direct":false,"no-flush":true},"l2-cache-size":1e6,"overlap-check":{"template":"all"},
                   "file":{"driver":"file","filename":"b","locking":"auto","aio":"native","node-name":null,"cache.direct":true}}"#,
                "b",
                qcow2,
            ),
        ] {
            assert_eq!(read(name), Ok((file.into(), format)), "{name}");
        }
        let odd = BackingFilename::read(Path::new("o"), OsStr::from_bytes(b"\xff\x01 b")).unwrap();
        assert_eq!(odd.file.as_os_str().as_bytes(), b"\xff\x01 b");
    }

    #[test]
    fn other_protocols_and_options_are_refused_by_name() {
        let nested = format!("json:{}", r#"{"a":"#.repeat(170));
        let protocol = |name| format!("is to be had by the protocol \"{name}\", which xfer-hole does not speak");
        for (name, why) in [
            ("nbd:localhost:10809", &*protocol("nbd")),
            ("nbd://host/disk", &protocol("nbd")),
            ("nbd+unix:///?socket=x", &protocol("nbd+unix")),
            ("http://host/disk", &protocol("http")),
            ("ssh:host", &protocol("ssh")),
            ("rbd:pool/disk", &protocol("rbd")),
            ("fat:rw:/etc", &protocol("fat")),
            ("JSON:{}", &protocol("JSON")),
            ("a\n:b", &protocol("a\\n")),
            (":b", &protocol("")),
            (r#"json:{"driver":"nbd","host":"h"}"#, "has the driver \"nbd\", which xfer-hole does not read"),
            (r#"json:{"driver":"vmdk","file.filename":"h"}"#, "has the driver \"vmdk\", which xfer-hole does not read"),
            (
                r#"json:{"file":{"driver":"https","url":"h"}}"#,
                "has the driver \"https\", which xfer-hole does not read",
            ),
            (
                r#"json:{"driver":"raw","offset":512,"file.filename":"b"}"#,
                "sets \"offset\", which may change what is read",
            ),
            (
                r#"json:{"driver":"raw","file":{"driver":"raw","size":1,"file.filename":"b"}}"#,
                "sets \"file.size\", which may change what is read",
            ),
            (
                r#"json:{"driver":"qcow2","backing":{"driver":"file"},"file.filename":"b"}"#,
                "sets \"backing.driver\", which may change what is read",
            ),
            (
                r#"json:{"driver":"qcow2","backing":null,"file.filename":"b"}"#,
                "sets \"backing\", which may change what is read",
            ),
            (
                r#"json:{"driver":"qcow2","data-file.filename":"c","file.filename":"b"}"#,
                "sets \"data-file.filename\", which may change what is read",
            ),
            (
                r#"json:{"encrypt":{"format":"luks"},"file.filename":"b"}"#,
                "sets \"encrypt.format\", which may change what is read",
            ),
            (
                r#"json:{"file.filename":"b","file.file.filename":"c"}"#,
                "sets \"file.file.filename\", which may change what is read",
            ),
            (
                r#"json:{"fil.node-name":"b","file.filename":"c"}"#,
                "sets \"fil.node-name\", which may change what is read",
            ),
            (r#"json:{"file.filename":"b","what\n":1}"#, "sets \"what\\n\", which may change what is read"),
            (r#"json:{"file":"node"}"#, "refers to a node of QEMU's, and not to a file"),
            (r#"json:{"driver":"qcow2"}"#, "names no file"),
            ("json:{}", "names no file"),
            (r#"json:{"file":{}}"#, "names no file"),
            (r#"json:{"backing":{},"file.filename":"b"}"#, "sets \"backing\", which may change what is read"),
            (r#"json:{"file":{"driver":"file"}}"#, "names no file"),
            (r#"json:{"filename":"b"}"#, "has a \"filename\" beside a format, and not in its \"file\""),
            (r#"json:{"file":{"filename":["b"]}}"#, "has a \"file.filename\" that is no text"),
            (r#"json:{"driver":7,"file":{"filename":"b"}}"#, "has a \"driver\" that is no text"),
            (r#"json:{"file":{"filename":"b"},"file.filename":"c"}"#, "sets \"file.filename\" twice"),
            (
                r#"json:{"driver":"raw","file":{"driver":"qcow2","file.filename":"b"}}"#,
                "has a qcow2 image inside of another format",
            ),
        ] {
            assert_eq!(read(name), Err(why.into()), "{name}");
        }
        for name in ["json:", "json:[]", "json:7", "json:{'a", r#"json:{"a":1,"a":2}"#, r#"json:{"a":1} x"#, &nested] {
            let why = read(name).unwrap_err();
            assert!(why.starts_with("can't be read as JSON: "), "{why}");
        }
        let why = BackingFilename::read(Path::new("o"), OsStr::from_bytes(b"json:\xff")).unwrap_err();
        assert!(why.to_string().ends_with("is no UTF-8, which JSON has to be"), "{why}");
    }

    proptest! {
        #[test]
        fn no_name_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), json in "json:[{}\\[\\]\":,'a\\\\.]{0,60}") {
            let _read = BackingFilename::read(Path::new("o"), OsStr::from_bytes(&bytes));
            let _read = BackingFilename::read(Path::new("o"), OsStr::new(&json));
        }

        #[test]
        fn any_file_name_survives_json(name in any::<String>()) {
            let text = format!("json:{{\"file\":{{\"filename\":{}}}}}", serde_json::to_string(&name).unwrap());
            prop_assert_eq!(read(&text), Ok((name, None)));
        }
    }
}
