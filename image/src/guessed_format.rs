//! Detects the format of a top file for which the user names none, and limits the trust in it.
//!
//! A guest can write any bytes to its disk. So a guest may have written a qcow2 header, with the names of other files
//! in it, to a raw disk. Therefore a block device is always raw, and a regular file whose content is qcow2, but whose
//! name isn't, is read without opening another file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use xfer_hole_os::Result;

use crate::{Content, Format, ImageFile};

/// The detected format of a top file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GuessedFormat {
    pub(crate) format: Format,
    /// Only the content indicates qcow2: the image must not open another file.
    pub(crate) by_content: bool,
    /// A warning for the user, without the file's name.
    pub(crate) warning: Option<String>,
    /// The content of a regular file, if it is no disk.
    pub(crate) content: Option<Content>,
}

impl GuessedFormat {
    /// Detects the format from the type, content and name of the file.
    pub(crate) fn of(file: &ImageFile) -> Result<Self> {
        if file.is_device() {
            let warning = Self::in_device(file);
            return Ok(Self { warning, ..Self::known(Format::Raw) });
        }
        let (format, content) = Format::and_content(file)?;
        let by_content = format == Format::Qcow2 && !is_named_qcow2(file);
        let warning = by_content.then(|| {
            "is read as a qcow2 image, as its content has it and its name does not: --format qcow2|raw says which it is".into()
        });
        Ok(Self { format, by_content, warning, content })
    }

    /// The format that the user named.
    pub(crate) fn known(format: Format) -> Self {
        Self { format, by_content: false, warning: None, content: None }
    }

    /// A warning about a device that is read as raw, but begins with an image header. Read errors are ignored here,
    /// since reading the disk reports them.
    fn in_device(file: &ImageFile) -> Option<String> {
        Some(match Format::and_content(file).ok()? {
            (Format::Raw, content) => format!("is read as a raw disk, though its bytes are those of {}", content?),
            (Format::Qcow2, _) => {
                "is read as a raw disk, though it begins as a qcow2 image does: --format qcow2 reads the image in it"
                    .into()
            }
            (found, _) => format!("is read as a raw disk, though its bytes are those of a {found} image"),
        })
    }
}

/// True if both the given name and the file's own name, with symbolic links followed, indicate qcow2. A link alone is
/// not sufficient, since it may lead to a raw disk. Names such as /dev/stdin indicate nothing.
fn is_named_qcow2(file: &ImageFile) -> bool {
    says_qcow2(file.path()) && file.true_path().is_some_and(|path| says_qcow2(&path))
}

/// True for `*.qcow2`, `*.qcow` and `*.qcow2.*`, in upper or lower case. False for `*.qcow2.*` whose last suffix is
/// that of a raw disk or of a temporary file of this project.
fn says_qcow2(path: &Path) -> bool {
    const RAW: [&str; 7] = ["raw", "img", "dd", "bin", "iso", "dsk", "part"];
    let Some(name) = path.file_name().map(OsStr::as_bytes).map(<[u8]>::to_ascii_lowercase) else { return false };
    if name.ends_with(b".qcow2") || name.ends_with(b".qcow") {
        return true;
    }
    let last = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    name.windows(7).any(|part| part == b".qcow2.") && !RAW.iter().any(|raw| raw.as_bytes() == last)
}
