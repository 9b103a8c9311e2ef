//! What becomes of a DEST, told before and after; and what its user should know of its format.

use std::fs::File;
use std::path::Path;

use crate::target::resolve_target::{Target, WriteMethod};
use crate::{Format, ImageFile, shown, sys};

/// What becomes of a DEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetOutcome {
    /// A file that wasn't there.
    New,
    /// A new file in place of one that is there.
    Replaced,
    /// The file that is there, updated in place.
    Updated,
    /// The device, in place.
    Device,
    /// Bytes that are gone once they are written.
    Stream,
}

impl TargetOutcome {
    const ALL: [Self; 5] = [Self::New, Self::Replaced, Self::Updated, Self::Device, Self::Stream];

    /// The word of READY for it (SPEC.md, "Noise, and READY").
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Replaced => "replaces",
            Self::Updated => "in-place",
            Self::Device => "device",
            Self::Stream => "stream",
        }
    }

    /// What a receiver says by this word of READY, if it is such a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|becomes| becomes.word() == word)
    }

    /// What it will be: a part of a sentence.
    #[must_use]
    pub fn plan(self) -> &'static str {
        match self {
            Self::New => "a new raw image",
            Self::Replaced => "a raw image that replaces the file there",
            Self::Updated => "a raw image, updated in place",
            Self::Device => "the device, in place",
            Self::Stream => "a stream of bytes",
        }
    }

    /// What it is now: a part of a sentence.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::New => "new raw image",
            Self::Replaced => "raw image, replaced the old file",
            Self::Updated => "raw image, updated in place",
            Self::Device => "device, overwritten",
            Self::Stream => "stream of bytes",
        }
    }

    /// True if what is there may be the disk already.
    #[must_use]
    pub fn was_there(self) -> bool {
        matches!(self, Self::Replaced | Self::Updated | Self::Device)
    }
}

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

impl Target {
    /// The new file is for its owner only, unless a mode was given: the image is private.
    #[must_use]
    pub fn private(mut self) -> Self {
        sys::keep_private();
        self.fresh_mode &= !0o077;
        self
    }

    /// What becomes of it.
    #[must_use]
    pub fn becomes(&self) -> TargetOutcome {
        match self.way {
            WriteMethod::Stdout | WriteMethod::Stream => TargetOutcome::Stream,
            WriteMethod::Device => TargetOutcome::Device,
            WriteMethod::InPlace => TargetOutcome::Updated,
            WriteMethod::Part if self.path().symlink_metadata().is_ok() => TargetOutcome::Replaced,
            WriteMethod::Part => TargetOutcome::New,
        }
    }

    /// What would be written: a half sentence.
    #[must_use]
    pub fn plan(&self) -> String {
        format!("{}, {}", shown(self.path()), self.becomes().plan())
    }

    /// What the user should know of the format of what is there, and is to be overwritten or replaced. Not told to one who may only
    /// write here.
    #[must_use]
    pub fn content_warning(&self) -> Option<FormatWarning> {
        let seen = !self.is_confined() && self.becomes().was_there();
        let format = if seen { format_of_content(self.path())? } else { return None };
        Some(FormatWarning::of_content(self.path(), format))
    }

    /// What the user should know of the format of what is there, or else of the format that the name of DEST promises.
    #[must_use]
    pub fn format_warning(&self) -> Option<FormatWarning> {
        let by_name = || FormatWarning::of_name(self.path(), &shown(self.path())).filter(|_| self.is_file());
        self.content_warning().or_else(by_name)
    }
}
