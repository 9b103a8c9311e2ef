//! The error type of disk operations.
//!
//! ```text
//! DiskError ─ kind     the kind of the error
//!           ─ path     the file or device
//!           ─ what     the failed operation, or the problem
//!           ─ hint     what the user can do about it, if known
//!           ─ source   the system's error, if a system call failed
//! ```

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use xfer_hole_proto::Fingerprint;

/// The result of a disk operation.
pub type Result<T, E = DiskError> = std::result::Result<T, E>;

/// The kind of a disk error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// A system call failed.
    Io,
    /// The program refuses, because data would be lost or disclosed.
    Refused,
    /// Another transfer uses the file. A later attempt may succeed.
    Busy,
    /// The directory of a new file is missing, and the options don't allow creating it.
    NoDirectory,
    /// The disk changed while it was read.
    Changed,
    /// The file, file system or format doesn't support the operation.
    Unsupported,
}

/// A disk error with its path.
#[derive(Debug)]
pub struct DiskError {
    kind: DiskErrorKind,
    path: PathBuf,
    what: String,
    hint: Option<String>,
    source: Option<io::Error>,
    leaves_nothing: bool,
    /// Boxed because few errors have a fingerprint, which would make all of them large.
    found: Option<Box<Fingerprint>>,
}

impl DiskError {
    /// Creates an error without a system error.
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

    /// Creates an error of a failed system call. `what` is the operation.
    pub fn io(path: impl Into<PathBuf>, what: impl Into<String>, source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(DiskErrorKind::Io, path, what) }
    }

    /// Adds a hint for the user.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Removes the options that override a refusal from the hint. For programs that don't have these options.
    #[must_use]
    pub fn without_override(self) -> Self {
        let hint = self.hint.map(|hint| match hint.rsplit_once(", or ") {
            Some((first, rest)) if rest.contains("--force") => first.to_owned(),
            _ => hint,
        });
        Self { hint, ..self }
    }

    /// The problem, without the path.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The hint for the user, if there is one.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Adds the fingerprint of the disk that was found where another disk was required.
    #[must_use]
    pub fn found(self, found: Fingerprint) -> Self {
        Self { found: Some(Box::new(found)), ..self }
    }

    /// The fingerprint of the disk that was found, if another disk was required.
    #[must_use]
    pub fn other_disk(&self) -> Option<Fingerprint> {
        self.found.as_deref().copied()
    }

    /// Marks that no temporary file is left: the new disk already has its final name, or another program removed the
    /// file.
    #[must_use]
    pub fn leaving_nothing(self) -> Self {
        Self { leaves_nothing: true, ..self }
    }

    /// True if no temporary file is left that a message could name.
    #[must_use]
    pub fn leaves_nothing(&self) -> bool {
        self.leaves_nothing
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> DiskErrorKind {
        self.kind
    }

    /// The system's error, if a system call failed.
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

// `source()` stays empty, because Display prints the system's error.
impl std::error::Error for DiskError {}

/// A path or foreign text in a form that is safe to print: control characters are escaped.
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

/// The text of a system error in lower case, without the error number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    let words = nix::errno::Errno::from_raw(code).desc();
    let mut text = String::new();
    // "Input/output error" becomes "input/output error", as in all messages of this project; names such as "RFS" stay.
    let mut chars = words.chars();
    let first = chars.next().unwrap_or('?');
    let second_is_lower = words.chars().nth(1).is_some_and(char::is_lowercase);
    let _infallible = match second_is_lower {
        true => write!(text, "{}{}", first.to_lowercase(), chars.as_str()),
        false => write!(text, "{words}"),
    };
    text
}
