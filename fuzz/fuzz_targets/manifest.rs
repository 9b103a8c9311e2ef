//! Any bytes as a manifest: no panic, what is taken covers the disk once and is what a writer writes, and nothing is taken after an
//! error or END.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xfer_hole_proto::{ManifestEntry, ManifestHeader, ManifestReader, ManifestRequest, ManifestWriter, Record};

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    if let Ok(want) = ManifestRequest::parse(first) {
        assert_eq!(want.to_string().as_bytes(), first);
    }
    let Ok(manifest) = ManifestHeader::parse(first) else { return };
    assert_eq!(manifest.to_string().as_bytes(), first);
    assert!(manifest.offered <= manifest.size);
    let (mut reader, mut writer) = (ManifestReader::new(manifest), ManifestWriter::new(manifest));
    let (mut read, mut written, mut covered, mut ended) = (String::new(), String::new(), 0_u64, false);
    for line in lines {
        let before = reader.at();
        let entry = match reader.line(line) {
            Ok(entry) => entry,
            Err(error) => {
                assert!(error.offset() == before && error.record() > 0, "{error}");
                assert_eq!(reader.at(), before, "an error moves nothing");
                break;
            }
        };
        assert!(!ended, "{entry:?} follows the end");
        match entry {
            ManifestEntry::Record(record) => {
                covered += record.len();
                match record {
                    Record::Data { len, digest } => {
                        writer
                            .data(len, digest.expect("DATA without a digest"), &mut written)
                            .expect("the writer refuses");
                    }
                    Record::Hole { len } => writer.zeros(len),
                    Record::Keep { .. } => panic!("KEEP"),
                }
                read.push_str(std::str::from_utf8(line).expect("a line of ASCII"));
                read.push('\n');
            }
            ManifestEntry::Wait => {}
            ManifestEntry::End(digest) => {
                assert_eq!(covered, manifest.offered);
                assert_eq!(writer.end(&mut written).expect("the writer refuses"), digest);
                assert_eq!(writer.fingerprint(digest), reader.fingerprint());
                read.push_str(std::str::from_utf8(line).expect("a line of ASCII"));
                read.push('\n');
                assert_eq!(read, written);
                ended = true;
            }
            ManifestEntry::Fail(_) => ended = true,
        }
        assert_eq!(reader.at(), covered);
    }
    assert_eq!(reader.finish().is_ok(), reader.has_ended());
});
