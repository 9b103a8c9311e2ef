//! One error for disks: kind, place, reason.
//!
//! ```text
//! Error ─ kind     what sort of trouble
//!       ─ path     which file or device
//!       ─ what     what was being done, or what is wrong
//!       ─ hint     what to do about it, where that is known
//!       ─ source   the system's reason
//! ```

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use xfer_hole_proto::Fingerprint;

/// The result of work on a disk.
pub type Result<T, E = DiskError> = std::result::Result<T, E>;

/// What sort of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// The system refused an operation.
    Io,
    /// We refuse, because something would be lost or left open.
    Refused,
    /// Another transfer holds it, which may end.
    Busy,
    /// The directory of a new file is missing, and was not to be made.
    NoDirectory,
    /// The disk changed while it was read.
    Changed,
    /// The file, filesystem or format can't do that.
    Unsupported,
}

/// An error with its place.
#[derive(Debug)]
pub struct DiskError {
    kind: DiskErrorKind,
    path: PathBuf,
    what: String,
    hint: Option<String>,
    source: Option<io::Error>,
    leaves_nothing: bool,
    /// Boxed: few errors have one, and it is long.
    found: Option<Box<Fingerprint>>,
}

impl DiskError {
    /// An error without a system's reason.
    pub fn new(kind: DiskErrorKind, path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self {
            kind,
            path: path.into(),
            what: what.into(),
            hint: None,
            source: None,
            leaves_nothing: false,
            found: None,
        }
    }

    /// The system refused `what`.
    pub fn io(path: impl Into<PathBuf>, what: impl Into<String>, source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(DiskErrorKind::Io, path, what) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same from a program without the options that override a refusal: its hint doesn't name them.
    #[must_use]
    pub fn without_override(self) -> Self {
        let hint = self.hint.map(|hint| match hint.rsplit_once(", or ") {
            Some((first, rest)) if rest.contains("--force") => first.to_owned(),
            _ => hint,
        });
        Self { hint, ..self }
    }

    /// What is wrong, without the path.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Adds what was found there instead of another disk.
    #[must_use]
    pub fn found(self, found: Fingerprint) -> Self {
        Self { found: Some(Box::new(found)), ..self }
    }

    /// The disk that was found there, where it is another than had to be.
    #[must_use]
    pub fn other_disk(&self) -> Option<Fingerprint> {
        self.found.as_deref().copied()
    }

    /// The temporary file is no more: the new disk got its name before the trouble, or another program removed it.
    #[must_use]
    pub fn leaving_nothing(self) -> Self {
        Self { leaves_nothing: true, ..self }
    }

    /// True if there is no temporary file any more that could be told of.
    #[must_use]
    pub fn leaves_nothing(&self) -> bool {
        self.leaves_nothing
    }

    /// What sort of trouble it is.
    #[must_use]
    pub fn kind(&self) -> DiskErrorKind {
        self.kind
    }

    /// The system's reason, if it was the system.
    #[must_use]
    pub fn system(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown(&self.path), self.what)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {}", reason(source)))
    }
}

// `source()` stays empty: Display has said it.
impl std::error::Error for DiskError {}

/// A path, or another's text, that is safe to print: control characters escaped.
#[must_use]
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// The system's reason in its own words, lower case, without the number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    let words = nix::errno::Errno::from_raw(code).desc();
    let mut text = String::new();
    // "Input/output error" becomes "input/output error", as in every message of ours; names such as "RFS" stay.
    let mut chars = words.chars();
    let first = chars.next().unwrap_or('?');
    let second_is_lower = words.chars().nth(1).is_some_and(char::is_lowercase);
    let _infallible = match second_is_lower {
        true => write!(text, "{}{}", first.to_lowercase(), chars.as_str()),
        false => write!(text, "{words}"),
    };
    text
}
