//! Manifests: every test vector, and properties of generated manifests.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod folder;

use std::collections::BTreeMap;

use bytes::BytesMut;
use folder::Folder;
use proptest::prelude::*;
use serde::Deserialize;
use tokio_util::codec::Encoder;
use xfer_hole_proto::{
    Dialect, Digest, Frame, HashParams, ManifestEntry, ManifestHeader, ManifestReader, ManifestWriter, Record,
    StreamEncoder, StreamError, StreamErrorKind, StreamHeader,
};

const FOLDER: Folder = Folder("vectors/manifests");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    good: BTreeMap<String, Good>,
    bad: BTreeMap<String, Bad>,
}

/// Lengths are in bytes.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Good {
    size: u64,
    interval: u64,
    grain: u64,
    offered: u64,
    records: usize,
    data: u64,
    fingerprint: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Bad {
    kind: String,
    record: u64,
    offset: u64,
}

fn index() -> Index {
    FOLDER.index()
}

fn place(kind: StreamErrorKind, record: u64, offset: u64) -> Bad {
    Bad { kind: kind.word().to_owned(), record, offset }
}

impl From<StreamError> for Bad {
    fn from(error: StreamError) -> Self {
        let said = error.to_string();
        assert!(said.len() <= 900 && said.bytes().all(|c| matches!(c, b' '..=b'~')), "{said}");
        place(error.kind(), error.record(), error.offset())
    }
}

/// Reads a manifest up to end of file: its first line, its records, and the reader that checked them.
fn read(bytes: &[u8]) -> Result<(ManifestHeader, Vec<Record>, ManifestReader), Bad> {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let Some(first) = lines.next().and_then(|line| line.strip_suffix(b"\n")) else {
        return Err(place(StreamErrorKind::Cut, 0, 0));
    };
    let first = ManifestHeader::parse(first).map_err(|violation| place(violation.kind(), 0, 0))?;
    let (mut reader, mut records) = (ManifestReader::new(first), Vec::new());
    for line in lines {
        let (number, at) = (reader.next_number(), reader.at());
        let Some(line) = line.strip_suffix(b"\n").or(reader.has_ended().then_some(line)) else {
            return Err(reader.finish().unwrap_err().into());
        };
        match reader.line(line)? {
            ManifestEntry::Record(record) => records.push(record),
            ManifestEntry::Wait | ManifestEntry::End(_) => {}
            ManifestEntry::Fail(_) => return Err(place(StreamErrorKind::Fail, number, at)),
        }
    }
    reader.finish()?;
    assert_eq!(reader.at(), first.offered);
    Ok((first, records, reader))
}

/// The text of a manifest with these records.
fn written(first: ManifestHeader, records: &[Record]) -> (String, Digest) {
    let (mut writer, mut text) = (ManifestWriter::new(first), format!("{first}\n"));
    for record in records {
        writer.record(record, &mut text).unwrap();
    }
    let digest = writer.end(&mut text).unwrap();
    (text, digest)
}

#[test]
fn index_and_folders_list_the_same_manifests() {
    let index = index();
    FOLDER.assert_named(&index.good, &index.bad);
}

#[test]
fn good_manifests_match_the_index_and_round_trip() {
    for (name, meaning) in index().good {
        let bytes = FOLDER.read("good", &name);
        let (first, records, reader) = read(&bytes).unwrap_or_else(|bad| panic!("{name}: {bad:?}"));
        let found = Good {
            size: first.size,
            interval: first.sums.interval(),
            grain: first.sums.grain(),
            offered: first.offered,
            records: records.len(),
            data: records.iter().map(Record::payload_len).sum(),
            fingerprint: reader.fingerprint().map(|fingerprint| fingerprint.to_string()),
        };
        assert_eq!(found, meaning, "{name}");
        let plain = String::from_utf8(bytes).unwrap().replace("WAIT\n", "");
        assert_eq!(written(first, &records).0, plain, "{name}");
    }
}

#[test]
fn bad_manifests_are_refused_with_the_indexed_kind() {
    for (name, bad) in index().bad {
        let bytes = FOLDER.read("bad", &name);
        let found = read(&bytes).err().unwrap_or_else(|| panic!("{name} is accepted"));
        assert_eq!(found, bad, "{name}");
    }
}

/// A generated disk: for each block, whether it is data. The last block may be short.
#[derive(Clone, Debug)]
struct GeneratedDisk {
    hash_params: HashParams,
    blocks: Vec<bool>,
    /// Bytes that the last block is shorter than the others.
    short: u64,
}

fn generated_disks() -> impl Strategy<Value = GeneratedDisk> {
    let hash_params = (0..5_u32, 0..8_u32).prop_filter_map("a grain above the interval", |(interval, grain)| {
        HashParams::new(4096 << interval, 512 << grain)
    });
    let blocks = prop::collection::vec(any::<bool>(), 0..40);
    (hash_params, blocks, 0..512_u64).prop_map(|(hash_params, blocks, short)| GeneratedDisk {
        hash_params,
        blocks,
        short,
    })
}

impl GeneratedDisk {
    fn size(&self) -> u64 {
        (self.blocks.len() as u64 * self.hash_params.grain()).saturating_sub(self.short)
    }

    /// The segments in canonical form: length in bytes, and whether it is data.
    fn segments(&self) -> Vec<(u64, bool)> {
        let (grain, mut segments) = (self.hash_params.grain(), Vec::<(u64, bool)>::new());
        for (number, &data) in self.blocks.iter().enumerate() {
            let at = number as u64 * grain;
            let len = grain.min(self.size() - at);
            match segments.last_mut() {
                Some((before, kind)) if *kind == data && !(data && at.is_multiple_of(self.hash_params.interval())) => {
                    *before += len;
                }
                _ => segments.push((len, data)),
            }
        }
        segments
    }

    fn records(&self) -> Vec<Record> {
        let mut at = 0_u64;
        let record = |(len, data)| {
            at += len;
            match data {
                true => Record::Data { len, digest: Some(Digest::of(&payload(at, len))) },
                false => Record::Hole { len },
            }
        };
        self.segments().into_iter().map(record).collect()
    }
}

/// The bytes of the segment that ends at `end`.
fn payload(end: u64, len: u64) -> Vec<u8> {
    vec![u8::try_from(end % 251).unwrap() + 1; usize::try_from(len).unwrap()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reader_accepts_written_manifest_for_any_split_of_zeros(disk in generated_disks(), piece in 1..9_u64) {
        let (first, records) = (ManifestHeader::whole(disk.size(), disk.hash_params), disk.records());
        let pieces: Vec<_> = records.iter().flat_map(|record| match *record {
            Record::Hole { len } if len > piece => vec![Record::Hole { len: len - piece }, Record::Hole { len: piece }],
            other => vec![other],
        }).collect();
        let (text, digest) = written(first, &pieces);
        prop_assert_eq!(&text, &written(first, &records).0);
        let (again, found, reader) = read(text.as_bytes()).unwrap();
        prop_assert_eq!((again, found), (first, records));
        prop_assert_eq!(reader.fingerprint().unwrap().digest, digest);
    }

    #[test]
    fn manifest_has_the_record_lines_of_the_stream(disk in generated_disks()) {
        let (mut encoder, mut stream) = (StreamEncoder::new(Dialect::V1), BytesMut::new());
        let mut line = |encoder: &mut StreamEncoder, frame| {
            let from = stream.len();
            encoder.encode(frame, &mut stream).unwrap();
            String::from_utf8(stream[from..].to_vec()).unwrap()
        };
        let _open = line(&mut encoder, Frame::Open(StreamHeader { size: disk.size(), sums: Some(disk.hash_params) }));
        let (mut at, mut lines) = (0, String::new());
        for record in disk.records() {
            at += record.len();
            lines += &line(&mut encoder, Frame::Record(record));
            if record.payload_len() > 0 {
                encoder.encode(Frame::Payload(payload(at, record.len()).into()), &mut BytesMut::new()).unwrap();
            }
        }
        let end = encoder.end();
        lines += &line(&mut encoder, Frame::End(end));
        let first = ManifestHeader::whole(disk.size(), disk.hash_params);
        let (text, digest) = written(first, &disk.records());
        prop_assert_eq!(text.split_once('\n').unwrap().1, lines);
        prop_assert_eq!(encoder.fingerprint().unwrap().digest, digest);
    }

    #[test]
    fn manifest_cut_at_any_byte_is_refused(disk in generated_disks()) {
        let (text, _) = written(ManifestHeader::whole(disk.size(), disk.hash_params), &disk.records());
        for cut in 0..text.len() {
            let bad = read(&text.as_bytes()[..cut]).expect_err("a cut");
            prop_assert_eq!(bad.kind, "cut", "at {}", cut);
        }
    }

    #[test]
    fn changed_byte_is_refused_or_changes_the_first_line(disk in generated_disks(), seeds: [u8; 3]) {
        let first = ManifestHeader::whole(disk.size(), disk.hash_params);
        let (text, _) = written(first, &disk.records());
        let head = text.find('\n').unwrap();
        // Each digit of the first line is replaced by all others, and each other byte by some values and the next one.
        for at in 0..text.len() {
            let others: Vec<u8> = match at {
                _ if at < head => b"0123456789 \n".to_vec(),
                _ => seeds.iter().copied().chain([text.as_bytes()[at] ^ 1, b'\n', b' ']).collect(),
            };
            for other in others {
                let mut changed = text.clone().into_bytes();
                changed[at] = other;
                if changed == text.as_bytes() {
                    continue;
                }
                if let Ok((another, records, _)) = read(&changed) {
                    prop_assert!(at < head && another != first, "byte {} made {}", at, other);
                    prop_assert_eq!(&records, &disk.records());
                    prop_assert_eq!(written(another, &records).0.into_bytes(), changed);
                }
            }
        }
    }
}
