//! Warnings about the format of a destination: a raw image is written, whatever the destination's name or content
//! suggests.

use std::fs::File;
use std::path::Path;

use xfer_hole_image::{Format, ImageFile};
use xfer_hole_os::shown;
use xfer_hole_target::Target;

/// A warning about the format of a destination, with a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatWarning {
    /// The warning, one line.
    pub what: String,
    /// What to do next, one line.
    pub hint: String,
}

impl FormatWarning {
    /// Returns the warning for a raw image with this file name. `dest` is the destination as it is shown to the user.
    #[must_use]
    pub fn of_name(name: &Path, dest: &str) -> Option<Self> {
        let format = format_of_name(name)?;
        let stem = Path::new(name.file_stem()?).with_extension("img");
        let (raw, file) = (shown(&stem), shown(name.file_name()?.as_ref()));
        Some(Self {
            what: format!("{dest}: becomes a raw image, though its name says {format}"),
            hint: format!(
                "call it {raw}; there, qemu-img convert -f raw -O {format} {raw} {file} makes a {format} image"
            ),
        })
    }

    fn of_content(path: &Path, format: Format) -> Self {
        let path = shown(path);
        Self {
            what: format!("{path}: a raw image takes the place of a {format} image"),
            hint: format!(
                "programs that use {path} as {format} have to be told that it is raw: see xfer-hole info {path}"
            ),
        }
    }
}

/// Returns the format, other than raw, that a file name suggests.
fn format_of_name(name: &Path) -> Option<Format> {
    const NAMES: [(&str, Format); 8] = [
        ("qcow2", Format::Qcow2),
        ("qcow", Format::Qcow),
        ("qed", Format::Qed),
        ("vmdk", Format::Vmdk),
        ("vdi", Format::Vdi),
        ("vhdx", Format::Vhdx),
        ("vhd", Format::Vpc),
        ("vpc", Format::Vpc),
    ];
    let extension = name.extension()?;
    NAMES.into_iter().find(|(name, _)| extension.eq_ignore_ascii_case(name)).map(|(_, format)| format)
}

/// Returns the format of an existing file, if it is not raw and is no format that a raw disk can begin with.
fn format_of_content(path: &Path) -> Option<Format> {
    let file = ImageFile::of(File::open(path).ok()?, path, None).ok()?;
    let found = Format::probe(&file).ok()?;
    NAMED.contains(&found).then_some(found)
}

/// Formats with a warning by content. Others are left out if a raw disk can begin with their header, as an encrypted
/// disk does.
const NAMED: [Format; 7] =
    [Format::Qcow2, Format::Qcow, Format::Qed, Format::Vmdk, Format::Vdi, Format::Vhdx, Format::Vpc];

impl FormatWarning {
    /// Returns the warning for an image of another format that is overwritten or replaced. Returns `None` if the caller
    /// may not read the target.
    #[must_use]
    pub fn of_target_content(target: &Target) -> Option<Self> {
        let seen = !target.is_confined() && target.becomes().was_there();
        let format = if seen { format_of_content(target.path())? } else { return None };
        Some(Self::of_content(target.path(), format))
    }

    /// Returns the warning for the content of the target, or else for the name of the destination.
    #[must_use]
    pub fn of_target(target: &Target) -> Option<Self> {
        let by_name = || Self::of_name(target.path(), &shown(target.path())).filter(|_| target.is_file());
        Self::of_target_content(target).or_else(by_name)
    }
}
