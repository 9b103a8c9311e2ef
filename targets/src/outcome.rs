//! What a transfer does to its destination, for messages before and after it.

use xfer_hole_os::{shown, sys};

use crate::resolve_target::{Target, WriteMethod};

/// What a transfer does to its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetOutcome {
    /// It creates a new file.
    New,
    /// It replaces an existing file by a new one.
    Replaced,
    /// It updates an existing file in place.
    Updated,
    /// It overwrites a device.
    Device,
    /// It writes to a pipe or terminal: the bytes can't be read back.
    Stream,
}

impl TargetOutcome {
    const ALL: [Self; 5] = [Self::New, Self::Replaced, Self::Updated, Self::Device, Self::Stream];

    /// Returns the word for it in READY (SPEC.md, "Noise, and READY").
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

    /// Parses the word of READY.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|becomes| becomes.word() == word)
    }

    /// Returns a part of a sentence for messages before the transfer.
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

    /// Returns a part of a sentence for messages after the transfer.
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

    /// Returns true if the destination exists and may hold the disk already.
    #[must_use]
    pub fn was_there(self) -> bool {
        matches!(self, Self::Replaced | Self::Updated | Self::Device)
    }
}

impl Target {
    /// Makes a new file accessible to its owner only, unless the user requested a mode: the image is private.
    #[must_use]
    pub fn private(mut self) -> Self {
        sys::keep_private();
        self.fresh_mode &= !0o077;
        self
    }

    /// Returns what a transfer does to this target.
    #[must_use]
    pub fn becomes(&self) -> TargetOutcome {
        match self.method {
            WriteMethod::Stdout | WriteMethod::Stream => TargetOutcome::Stream,
            WriteMethod::Device => TargetOutcome::Device,
            WriteMethod::InPlace => TargetOutcome::Updated,
            WriteMethod::Part if self.path().symlink_metadata().is_ok() => TargetOutcome::Replaced,
            WriteMethod::Part => TargetOutcome::New,
        }
    }

    /// Returns half a sentence that says what would be written.
    #[must_use]
    pub fn plan(&self) -> String {
        format!("{}, {}", shown(self.path()), self.becomes().plan())
    }
}
