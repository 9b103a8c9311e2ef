//! What becomes of a DEST, told before and after.

use xfer_hole_os::{shown, sys};

use crate::resolve_target::{Target, WriteMethod};

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
}
