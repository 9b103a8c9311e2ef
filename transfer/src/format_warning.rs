//! What a user should know of the format of a DEST: a raw image is written, whatever its name or what is there says.

use std::fs::File;
use std::path::Path;

use xfer_hole_image::{Format, ImageFile};
use xfer_hole_os::shown;
use xfer_hole_target::Target;

/// Something that the user should know of the format of a DEST, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatWarning {
    /// One line.
    pub what: String,
    /// The next command.
    pub hint: String,
}

impl FormatWarning {
    /// What there is to be said of a raw image by this name, `shown` so to the user.
    #[must_use]
    pub fn of_name(name: &Path, place: &str) -> Option<Self> {
        let format = format_of_name(name)?;
        let stem = Path::new(name.file_stem()?).with_extension("img");
        let (raw, file) = (shown(&stem), shown(name.file_name()?.as_ref()));
        Some(Self {
            what: format!("{place}: becomes a raw image, though its name says {format}"),
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

/// The format that a name promises, other than raw.
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

/// The format of what is there, if it is another than raw, and no disk begins so by itself.
fn format_of_content(path: &Path) -> Option<Format> {
    let host = ImageFile::of(File::open(path).ok()?, path, None).ok()?;
    let found = Format::probe(&host).ok()?;
    NAMED.contains(&found).then_some(found)
}

/// Formats that are warned of by their content: an encrypted disk, for one, begins as its image does.
const NAMED: [Format; 7] =
    [Format::Qcow2, Format::Qcow, Format::Qed, Format::Vmdk, Format::Vdi, Format::Vhdx, Format::Vpc];

impl FormatWarning {
    /// What the user should know of the format of what is at the target, and is to be overwritten or replaced. Not told to one who may
    /// only write there.
    #[must_use]
    pub fn of_target_content(target: &Target) -> Option<Self> {
        let seen = !target.is_confined() && target.becomes().was_there();
        let format = if seen { format_of_content(target.path())? } else { return None };
        Some(Self::of_content(target.path(), format))
    }

    /// What the user should know of the format of what is at the target, or else of the format that the name of DEST promises.
    #[must_use]
    pub fn of_target(target: &Target) -> Option<Self> {
        let by_name = || Self::of_name(target.path(), &shown(target.path())).filter(|_| target.is_file());
        Self::of_target_content(target).or_else(by_name)
    }
}
