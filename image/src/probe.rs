//! Image formats: detection by content for a top image, and by declared name for the layers below it.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, quoted};

use crate::{Content, ImageFile};

/// The number of bytes that are examined, as QEMU's BLOCK_PROBE_BUF_SIZE.
const PROBED: usize = 512;

/// The image formats that QEMU distinguishes, and LUKS2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A raw disk.
    Raw,
    /// qcow2, versions 2 and 3.
    Qcow2,
    /// qcow version 1, which has the same magic number.
    Qcow,
    /// QEMU enhanced disk.
    Qed,
    /// VMware disk.
    Vmdk,
    /// VirtualBox disk.
    Vdi,
    /// Hyper-V disk.
    Vhdx,
    /// Virtual PC disk, also called VHD.
    Vpc,
    /// Parallels disk.
    Parallels,
    /// Bochs growing redo log.
    Bochs,
    /// A compressed loop image.
    Cloop,
    /// A macOS disk image.
    Dmg,
    /// LUKS encrypted disk, version 1.
    Luks,
    /// LUKS encrypted disk, version 2, which QEMU doesn't support.
    Luks2,
}

impl Format {
    /// Detects the format from the first bytes, as QEMU's probe functions do, and for dmg and VHD from the last bytes.
    /// Raw if no other format matches.
    ///
    /// # Errors
    ///
    /// The first bytes can't be read.
    pub fn probe(file: &ImageFile) -> Result<Self> {
        Ok(Self::and_content(file)?.0)
    }

    /// Detects the format, and for a raw file whether its content is an archive or compressed.
    ///
    /// # Errors
    ///
    /// The first bytes can't be read.
    pub fn and_content(file: &ImageFile) -> Result<(Self, Option<Content>)> {
        let mut start = [0; PROBED];
        file.read_at(0, &mut start)?;
        let there = usize::try_from(file.len()).unwrap_or(PROBED).min(PROBED);
        let found = Self::of_start(&start[..there]);
        if found != Self::Raw {
            return Ok((found, None));
        }
        // dmg and VHD have a magic number in their last 512 bytes. QEMU differs: it detects a dmg by its name only,
        // which a raw disk may have too, and it takes a VHD of fixed size, which begins with the data, for a raw disk
        // that includes the footer.
        let mut end = [0; 8];
        // If the last bytes can't be read, the transfer will report it.
        let _unreadable = file.read_at(file.len().saturating_sub(512), &mut end);
        let is_dmg = end.starts_with(b"koly") && file.path().as_os_str().as_bytes().ends_with(b".dmg");
        Ok(match () {
            () if is_dmg => (Self::Dmg, None),
            () if &end == b"conectix" => (Self::Vpc, None),
            () => (Self::Raw, Content::of_start(&start[..there])),
        })
    }

    /// The format of a file that begins with these bytes.
    fn of_start(start: &[u8]) -> Self {
        let at = |offset: usize, magic: &[u8]| start.get(offset..).is_some_and(|start| start.starts_with(magic));
        match () {
            () if at(0, b"QFI\xfb\0\0\0\x01") => Self::Qcow,
            // Version 0 is accepted too: it is probably a damaged image, although QEMU takes it for a raw disk.
            () if at(0, b"QFI\xfb") => Self::Qcow2,
            () if at(0, b"QED\0") => Self::Qed,
            () if at(0, b"KDMV") || at(0, b"COWD") || is_vmdk_text(start) => Self::Vmdk,
            () if at(0x40, b"\x7f\x10\xda\xbe") => Self::Vdi,
            () if at(0, b"vhdxfile") => Self::Vhdx,
            () if at(0, b"conectix") => Self::Vpc,
            () if (at(0, b"WithoutFreeSpace") || at(0, b"WithouFreSpacExt")) && at(16, &[2, 0, 0, 0]) => {
                Self::Parallels
            }
            () if at(0, b"Bochs Virtual HD Image\0") && at(32, b"Redolog\0") && at(48, b"Growing\0") => Self::Bochs,
            () if at(0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n") => {
                Self::Cloop
            }
            () if at(0, b"LUKS\xba\xbe\0\x01") => Self::Luks,
            () if at(0, b"LUKS\xba\xbe\0\x02") => Self::Luks2,
            () => Self::Raw,
        }
    }

    /// The format with this name in QEMU, as in the backing format extension or a `json:` name. `None` for an unknown
    /// name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            // The drivers of plain files return the bytes unchanged.
            "raw" | "file" | "host_device" => Self::Raw,
            "qcow2" => Self::Qcow2,
            "qcow" => Self::Qcow,
            "qed" => Self::Qed,
            "vmdk" => Self::Vmdk,
            "vdi" => Self::Vdi,
            "vhdx" => Self::Vhdx,
            "vpc" => Self::Vpc,
            "parallels" => Self::Parallels,
            "bochs" => Self::Bochs,
            "cloop" => Self::Cloop,
            "dmg" => Self::Dmg,
            "luks" => Self::Luks,
            _ => return None,
        })
    }

    /// The name of the format in QEMU.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qcow => "qcow",
            Self::Qed => "qed",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
            Self::Parallels => "parallels",
            Self::Bochs => "bochs",
            Self::Cloop => "cloop",
            Self::Dmg => "dmg",
            Self::Luks => "luks",
            Self::Luks2 => "luks2",
        }
    }

    /// True if this crate reads the format.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(self, Self::Raw | Self::Qcow2)
    }

    /// The refusal of a top image in a format that this crate doesn't read. Its hint is the command that converts the
    /// image.
    #[must_use]
    pub fn refusal(self, path: &Path) -> DiskError {
        let hint = match self.converting(path) {
            Some(line) => format!("{line}, or --format raw to send the file as it is"),
            None => "use --format raw to send the file as it is".into(),
        };
        DiskError::new(DiskErrorKind::Unsupported, path, format!("is a {self} image, which xfer-hole does not read"))
            .hint(hint)
    }

    /// The refusal of a `what` ("backing file") in a format that this crate doesn't read. `named_by` is the image that
    /// refers to it.
    #[must_use]
    pub fn refusal_below(self, named_by: &Path, what: &str, name: &Path) -> DiskError {
        let text = format!("{what} {} is a {self} image, which xfer-hole does not read", xfer_hole_os::named(name));
        let (from, to) = (quoted(named_by), quoted(&beside(named_by)));
        DiskError::new(DiskErrorKind::Unsupported, named_by, text)
            .hint(format!("qemu-img convert -O qcow2 {from} {to} makes one image of it and what is below"))
    }

    /// The qemu-img command that converts the image to qcow2, if there is one.
    fn converting(self, path: &Path) -> Option<String> {
        let to = quoted(&beside(path));
        match self {
            Self::Luks2 => None,
            Self::Luks => Some(with_key("driver=luks,key-secret=key,file.filename=", path)),
            _ => Some(format!("qemu-img convert -f {self} -O qcow2 {} {to}", quoted(path))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The qemu-img command that decrypts an encrypted qcow2 image.
pub(crate) fn decrypting(path: &Path) -> String {
    with_key("driver=qcow2,encrypt.key-secret=key,file.filename=", path)
}

/// The qemu-img command that converts an image which needs a key and these options. `options` end where the file name
/// follows.
fn with_key(options: &str, path: &Path) -> String {
    // A comma in the value of an option is doubled.
    let file = path.as_os_str().as_bytes().split(|&byte| byte == b',').collect::<Vec<_>>().join(&b",,"[..]);
    let mut options = OsString::from(options);
    options.push(OsString::from_vec(file));
    let (options, to) = (quoted(Path::new(&options)), quoted(&beside(path)));
    format!("qemu-img convert --object secret,id=key,file=KEYFILE --image-opts {options} -O qcow2 {to}")
}

/// The name of a new qcow2 image in the directory of this one.
fn beside(path: &Path) -> PathBuf {
    let is_qcow2 = path.extension().is_some_and(|extension| extension == "qcow2");
    path.with_extension(if is_qcow2 { "new.qcow2" } else { "qcow2" })
}

/// True for a VMDK descriptor: comments and blank lines, then a version.
fn is_vmdk_text(start: &[u8]) -> bool {
    for line in start.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") || line.starts_with(b" ") && line.iter().all(|&byte| byte == b' ') {
            continue;
        }
        return matches!(line, b"version=1" | b"version=2" | b"version=3");
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn probed(path: &Path) -> Format {
        Format::probe(&ImageFile::open(path).unwrap()).unwrap()
    }

    #[test]
    fn formats_of_qemu_img_are_detected_and_hints_convert_them() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels", "luks"] {
            let path = dir.path().join(format!("it's a disk.{name}"));
            let mut create = Command::new("qemu-img");
            create.args(["create", "-q", "-f", name]);
            if name == "luks" {
                create.args(["--object", "secret,id=s,data=abc", "-o", "key-secret=s,iter-time=10"]);
            }
            assert!(create.arg(&path).arg("1M").status().unwrap().success(), "{name}");
            let format = probed(&path);
            assert_eq!(format.name(), name);
            assert_eq!(Format::of_name(name), Some(format));
            assert_eq!(format.is_read(), ["raw", "qcow2"].contains(&name));
            if format.is_read() {
                continue;
            }
            let refusal = format.refusal(&path);
            assert!(refusal.to_string().ends_with(&format!(": is a {name} image, which xfer-hole does not read")));
            let (line, rest) = refusal.hint_text().unwrap().split_once(", or --").unwrap();
            assert_eq!(rest, "format raw to send the file as it is");
            // A shell runs exactly this command.
            fs::write(dir.path().join("key"), "abc").unwrap();
            let line = line.replace("KEYFILE", &dir.path().join("key").display().to_string());
            assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
            assert_eq!(probed(&dir.path().join("it's a disk.qcow2")), Format::Qcow2);
            fs::remove_file(dir.path().join("it's a disk.qcow2")).unwrap();
        }
    }

    #[test]
    fn magic_numbers_are_those_of_qemu() {
        let at = |offset: usize, magic: &[u8]| {
            let mut start = [0; PROBED];
            start[offset..offset + magic.len()].copy_from_slice(magic);
            Format::of_start(&start)
        };
        for (magic, format) in [
            (&b"QFI\xfb\0\0\0\x02"[..], Format::Qcow2),
            (b"QFI\xfb\0\0\0\x03", Format::Qcow2),
            (b"QFI\xfb\xff\xff\xff\xff", Format::Qcow2),
            (b"QFI\xfb\0\0\0\x01", Format::Qcow),
            (b"QFI\xfb\0\0\0\0", Format::Qcow2),
            (b"COWD", Format::Vmdk),
            (b"# Disk DescriptorFile\nversion=1\nCID=1", Format::Vmdk),
            (b"# Disk DescriptorFile\r\n  \r\nversion=2\r\n", Format::Vmdk),
            (b"# Disk DescriptorFile\nencoding=x\nversion=1\n", Format::Raw),
            (b"# version=1", Format::Raw),
            (b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n", Format::Cloop),
            (b"#!/bin/sh\necho\n", Format::Raw),
            (b"WithoutFreeSpace\x02\0\0\0", Format::Parallels),
            (b"WithouFreSpacExt\x02\0\0\0", Format::Parallels),
            (b"WithouFreSpacExt\x03\0\0\0", Format::Raw),
            (b"LUKS\xba\xbe\0\x01", Format::Luks),
            (b"LUKS\xba\xbe\0\x02", Format::Luks2),
            (b"Bochs Virtual HD Image\0\0\0\0\0\0\0\0\0\0Redolog\0\0\0\0\0\0\0\0\0Growing\0", Format::Bochs),
            (b"", Format::Raw),
        ] {
            assert_eq!(at(0, magic), format, "{}", magic.escape_ascii());
        }
        // An ISO image is sent as it is.
        assert_eq!(at(1, b"CD001"), Format::Raw);
        assert_eq!(at(0x40, b"\x7f\x10\xda\xbe"), Format::Vdi);
    }

    #[test]
    fn short_files_are_raw_and_dmg_is_detected_by_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (empty, short, dmg) = (dir.path().join("a.dmg"), dir.path().join("b.qcow2"), dir.path().join("c.dmg"));
        fs::write(&empty, "").unwrap();
        fs::write(&short, "QFI\u{fb}").unwrap();
        let mut bytes = vec![0; 2048];
        bytes[1536..1540].copy_from_slice(b"koly");
        fs::write(&dmg, &bytes).unwrap();
        assert_eq!([probed(&empty), probed(&short), probed(&dmg)], [Format::Raw, Format::Raw, Format::Dmg]);
        // A VHD of fixed size is the disk and a footer.
        let fixed = dir.path().join("disk.img");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "vpc", "-o", "subformat=fixed"]).arg(&fixed).arg("1M");
        assert!(create.status().unwrap().success());
        assert_eq!(probed(&fixed), Format::Vpc);
        fs::write(&fixed, b"conectix").unwrap();
        assert_eq!(probed(&fixed), Format::Vpc, "as short as it may be");
    }

    #[test]
    fn refusal_names_the_flag_or_the_image_above() {
        let refusal = Format::Luks2.refusal(Path::new("disk"));
        assert_eq!(refusal.to_string(), "disk: is a luks2 image, which xfer-hole does not read");
        assert_eq!(refusal.hint_text(), Some("use --format raw to send the file as it is"));
        let refusal = Format::Vmdk.refusal_below(Path::new("a.qcow2"), "backing file", Path::new("b\n.vmdk"));
        assert_eq!(
            refusal.to_string(),
            "a.qcow2: backing file \"b\\n.vmdk\" is a vmdk image, which xfer-hole does not read"
        );
        assert_eq!(
            refusal.hint_text(),
            Some("qemu-img convert -O qcow2 a.qcow2 a.new.qcow2 makes one image of it and what is below")
        );
    }
}
