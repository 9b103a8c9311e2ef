//! What a top file is read as where the user names no format, and how far that is trusted.
//!
//! A guest can write any bytes into its disk. A format that only the content speaks for may be the guest's work, and so may the names of
//! other files in it. So a block device is raw; and a regular file that is qcow2 by its content, but not by its name, is read
//! without opening another file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use xfer_hole_os::Result;

use crate::{Content, Format, ImageFile};

/// The format of a top file, without a flag for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GuessedFormat {
    pub(crate) format: Format,
    /// Only the content says that it is an image: it may open no other file.
    pub(crate) by_content: bool,
    /// What the user should know, without the file's name.
    pub(crate) warning: Option<String>,
    /// What a regular file holds, if that is no disk.
    pub(crate) content: Option<Content>,
}

impl GuessedFormat {
    /// Looks at the kind, the content and the names of the file.
    pub(crate) fn of(host: &ImageFile) -> Result<Self> {
        if host.is_device() {
            let warning = Self::in_device(host);
            return Ok(Self { warning, ..Self::known(Format::Raw) });
        }
        let (format, content) = Format::and_content(host)?;
        let by_content = format == Format::Qcow2 && !is_named_qcow2(host);
        let warning = by_content.then(|| {
            "is read as a qcow2 image, as its content has it and its name does not: --format qcow2|raw says which it is".into()
        });
        Ok(Self { format, by_content, warning, content })
    }

    /// The format that the user names.
    pub(crate) fn known(format: Format) -> Self {
        Self { format, by_content: false, warning: None, content: None }
    }

    /// What a device that is read as a raw disk begins as. That it can't be read is found out when it is read.
    fn in_device(host: &ImageFile) -> Option<String> {
        Some(match Format::and_content(host).ok()? {
            (Format::Raw, content) => format!("is read as a raw disk, though its bytes are those of {}", content?),
            (Format::Qcow2, _) => {
                "is read as a raw disk, though it begins as a qcow2 image does: --format qcow2 reads the image in it"
                    .into()
            }
            (found, _) => format!("is read as a raw disk, though its bytes are those of a {found} image"),
        })
    }
}

/// True if the name as given and the file's own name, links followed, both say that it is a qcow2 image. A link alone doesn't: a raw
/// disk may lie behind it. Names such as /dev/stdin say nothing.
fn is_named_qcow2(host: &ImageFile) -> bool {
    says_qcow2(host.path()) && host.true_path().is_some_and(|path| says_qcow2(&path))
}

/// True for `*.qcow2`, `*.qcow` and `*.qcow2.*`, capitals or not; but not for the last one's names of raw disks and of our temporary files.
fn says_qcow2(path: &Path) -> bool {
    const RAW: [&str; 7] = ["raw", "img", "dd", "bin", "iso", "dsk", "part"];
    let Some(name) = path.file_name().map(OsStr::as_bytes).map(<[u8]>::to_ascii_lowercase) else { return false };
    if name.ends_with(b".qcow2") || name.ends_with(b".qcow") {
        return true;
    }
    let last = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    name.windows(7).any(|part| part == b".qcow2.") && !RAW.iter().any(|raw| raw.as_bytes() == last)
}
