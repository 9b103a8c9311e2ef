//! Detects files whose content is no disk: archives and compressed images. Detection uses their first bytes, not their
//! names.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, quoted};

/// The content of a file that is no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// RFC 1952.
    Gzip,
    /// The xz container.
    Xz,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// The LZ4 frame format.
    Lz4,
    /// A zip archive.
    Zip,
    /// A 7z archive.
    SevenZip,
    /// A tar archive, such as an OVA is.
    Tar,
    /// Android's sparse image.
    AndroidSparse,
}

impl Content {
    /// Detects the content by its first bytes. For a tar archive, the checksum of the first header must be correct too.
    pub fn of_start(start: &[u8]) -> Option<Self> {
        let at = |offset: usize, magic: &[u8]| start.get(offset..).is_some_and(|start| start.starts_with(magic));
        // The magic number of the first compressed block, or of the end of an empty stream.
        let blocks = [&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59], &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90]];
        match start {
            [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0 => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // A frame, or a skippable frame, which pzstd writes first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] if blocks.iter().any(|block| at(4, *block)) => Some(Self::Bzip2),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Some(Self::SevenZip),
            [0x3a, 0xff, 0x26, 0xed, ..] => Some(Self::AndroidSparse),
            _ if at(257, b"ustar") && has_tar_checksum(start) => Some(Self::Tar),
            _ => None,
        }
    }

    /// The name of the content, as a part of a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip data",
            Self::Xz => "xz data",
            Self::Zstd => "zstd data",
            Self::Bzip2 => "bzip2 data",
            Self::Lz4 => "lz4 data",
            Self::Zip => "a zip archive",
            Self::SevenZip => "a 7z archive",
            Self::Tar => "a tar archive",
            Self::AndroidSparse => "an Android sparse image",
        }
    }

    /// The refusal to write such a file to a block device, with a hint.
    #[must_use]
    pub fn refusal(self, path: &Path) -> DiskError {
        let what = format!("is {self} and no disk, and is not written to a block device");
        let hint = format!("{}, or --format raw to write its bytes as they are", self.unpacking(path));
        DiskError::new(DiskErrorKind::Refused, path, what).hint(hint)
    }

    /// The warning that such a file is sent as it is, with a hint.
    #[must_use]
    pub fn warning(self, path: &Path) -> String {
        format!("is {self} and no disk, and goes as it is ({})", self.unpacking(path))
    }

    /// The command that unpacks it to a disk image.
    fn unpacking(self, path: &Path) -> String {
        let (from, to) = (quoted(path), quoted(&unpacked(path)));
        let by = |program: &str| format!("{program} {from} > {to}");
        match self {
            Self::Gzip => by("gzip -dc"),
            Self::Xz => by("xz -dc"),
            Self::Zstd => by("zstd -dc"),
            Self::Bzip2 => by("bzip2 -dc"),
            Self::Lz4 => by("lz4 -dc"),
            Self::Zip => format!("unzip {from}"),
            Self::SevenZip => format!("7z x {from}"),
            Self::Tar => format!("tar -xf {from}"),
            Self::AndroidSparse => format!("simg2img {from} {to}"),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name without the suffix of compressed files. If it has none, another name than that of the file.
fn unpacked(path: &Path) -> PathBuf {
    const ENDS: [&str; 7] = ["gz", "xz", "zst", "bz2", "lz4", "simg", "sparse"];
    let ends = path.extension().and_then(OsStr::to_str).is_some_and(|end| ENDS.contains(&&*end.to_ascii_lowercase()));
    let name = path.with_extension("");
    if ends && name.extension().is_some() { name } else { path.with_extension("disk.img") }
}

/// True if the octal number at offset 148 is the sum of the header's 512 bytes, with spaces in place of the number
/// itself.
fn has_tar_checksum(start: &[u8]) -> bool {
    let Some(header) = start.get(..512) else { return false };
    let digits = header[148..156].iter().filter(|&&byte| byte != 0 && byte != b' ');
    let mut digits = digits.map(|&byte| char::from(byte).to_digit(8));
    let stated = digits.try_fold(0_u32, |sum, digit| sum.checked_mul(8).zip(digit).map(|(sum, digit)| sum + digit));
    let bytes = header.iter().enumerate();
    let sum = bytes.map(|(at, &byte)| u32::from(if (148..156).contains(&at) { b' ' } else { byte })).sum::<u32>();
    stated == Some(sum)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn content_is_detected_and_the_hint_unpacks_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.img");
        fs::write(&disk, b"a disk".repeat(1000)).unwrap();
        let sh = |line: &str| {
            assert!(Command::new("sh").args(["-ec", line]).current_dir(&dir).status().unwrap().success(), "{line}");
        };
        for (line, name, content) in [
            ("gzip -k disk.img", "disk.img.gz", Content::Gzip),
            ("xz -k disk.img", "disk.img.xz", Content::Xz),
            ("zstd -q disk.img", "disk.img.zst", Content::Zstd),
            ("bzip2 -k disk.img", "disk.img.bz2", Content::Bzip2),
            ("bzip2 -c /dev/null > it\\'s.bz2", "it's.bz2", Content::Bzip2),
            ("gzip -c disk.img > disk", "disk", Content::Gzip),
            ("tar -cf disk.ova disk.img", "disk.ova", Content::Tar),
            ("tar --format=ustar -cf x.tar disk.img", "x.tar", Content::Tar),
        ] {
            sh(line);
            let file = dir.path().join(name);
            let start = fs::read(&file).unwrap();
            assert_eq!(Content::of_start(&start[..start.len().min(512)]), Some(content), "{name}");
            let was = fs::read(&disk).unwrap();
            if content != Content::Tar {
                fs::rename(&disk, dir.path().join("kept")).unwrap();
            }
            sh(&content.unpacking(Path::new(name)));
            let made = if content == Content::Tar { disk.clone() } else { unpacked(&file) };
            let expected = if name == "it's.bz2" { Vec::new() } else { was.clone() };
            assert_eq!(fs::read(made).unwrap(), expected, "{name}");
            fs::write(&disk, was).unwrap();
        }
    }

    #[test]
    fn disk_with_parts_of_a_magic_number_is_a_disk() {
        let mut start = vec![0; 512];
        assert_eq!(Content::of_start(&start), None);
        start[257..262].copy_from_slice(b"ustar");
        assert_eq!(Content::of_start(&start), None, "without the checksum");
        start[148..156].copy_from_slice(b"99999999");
        assert_eq!(Content::of_start(&start), None);
        for short in
            [&b""[..], b"\x1f\x8b", b"\x1f\x8b\x08\xff", b"BZh9", b"BZh0\x31\x41\x59\x26\x53\x59", b"PK\x05\x06"]
        {
            assert_eq!(Content::of_start(short), None, "{short:?}");
        }
    }
}
