//! The reference of an image to its backing file, and how it is opened.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, named};

use crate::backing_filename::BackingFilename;
use crate::image_path::path_of;
use crate::qcow2::header::Header;
use crate::{DiskOptions, Format, ImageFile};

/// The role of the file in messages.
const WHAT: &str = "backing file";

/// An image's reference to its backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingRef {
    /// The name in the image, byte for byte.
    pub name: OsString,
    /// The format that the image declares for it.
    pub format: Option<String>,
}

impl BackingRef {
    /// The reference in this header, if there is one.
    pub(crate) fn of(header: &Header) -> Option<Self> {
        let name = OsString::from_vec(header.backing_name.clone()?);
        Some(Self { name, format: header.extensions.backing_format.clone() })
    }

    /// Opens the backing file of the image `named_by` through the gate. Returns it with its format, which is one that
    /// this crate reads.
    pub(crate) fn open(
        &self,
        named_by: &Path,
        dir: Option<&Path>,
        options: &DiskOptions,
    ) -> Result<(ImageFile, Format)> {
        options.gate.check_open(named_by, WHAT, Path::new(&self.name))?;
        let read = BackingFilename::read(named_by, &self.name)?;
        let declared = match &self.format {
            Some(name) => Some(Format::of_name(name).ok_or_else(|| self.unknown(named_by, name))?),
            None => read.format,
        };
        let format = declared.or(options.backing_format).ok_or_else(|| self.undeclared(named_by))?;
        if !format.is_read() {
            return Err(format.refusal_below(named_by, WHAT, &read.file));
        }
        let file = options.gate.open(named_by, dir, WHAT, &read.file)?;
        Ok((options.lock(file)?, format))
    }

    /// The path of the backing file of `named_by`, which may not exist. `None` if the name denotes no file.
    #[must_use]
    pub fn path(&self, named_by: &Path) -> Option<PathBuf> {
        Some(path_of(named_by, &BackingFilename::read(named_by, &self.name).ok()?.file))
    }

    fn unknown(&self, named_by: &Path, format: &str) -> DiskError {
        let text = format!("{WHAT} {} has the format {}, which is unknown", self.shown(), named(Path::new(format)));
        DiskError::new(DiskErrorKind::Unsupported, named_by, text)
    }

    /// The refusal of a backing file without a declared format. The format is not detected from the content, because a
    /// guest controls the beginning of its raw disk, and could name files of the host there.
    fn undeclared(&self, named_by: &Path) -> DiskError {
        let text = format!("{WHAT} {} has no declared format, and is not searched for one", self.shown());
        DiskError::new(DiskErrorKind::Refused, named_by, text).hint("say which it is: --backing-format raw|qcow2")
    }

    fn shown(&self) -> String {
        named(Path::new(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn declared_format_precedes_that_of_name_and_flag() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("o.qcow2");
        fs::write(dir.path().join("b"), "").unwrap();
        let json = r#"json:{"driver":"raw","file.filename":"b"}"#;
        let (raw, qcow2) = (Some(Format::Raw), Some(Format::Qcow2));
        for (name, declared, flag, is) in [
            ("b", Some("qcow2"), raw, Format::Qcow2),
            ("b", Some("host_device"), qcow2, Format::Raw),
            (json, Some("qcow2"), None, Format::Qcow2),
            (json, None, qcow2, Format::Raw),
            ("b", None, qcow2, Format::Qcow2),
        ] {
            let backing = BackingRef { name: name.into(), format: declared.map(str::to_owned) };
            let options = DiskOptions { backing_format: flag, ..DiskOptions::default() };
            assert_eq!(
                backing.open(&image, Some(&dir.path().canonicalize().unwrap()), &options).unwrap().1,
                is,
                "{name} {declared:?} {flag:?}"
            );
        }
    }

    #[test]
    fn undeclared_unknown_and_unsupported_formats_are_refused() {
        let image = Path::new("o.qcow2");
        let refusal = |format: Option<&str>| {
            let backing = BackingRef { name: "b".into(), format: format.map(str::to_owned) };
            backing.open(image, None, &DiskOptions::default()).unwrap_err()
        };
        let error = refusal(None);
        assert_eq!(
            error.to_string(),
            "o.qcow2: backing file \"b\" has no declared format, and is not searched for one"
        );
        assert_eq!(error.hint_text(), Some("say which it is: --backing-format raw|qcow2"));
        assert_eq!(
            refusal(Some("a\nb")).to_string(),
            "o.qcow2: backing file \"b\" has the format \"a\\nb\", which is unknown"
        );
        assert!(refusal(Some("vmdk")).to_string().contains("is a vmdk image, which xfer-hole does not read"));
    }
}
