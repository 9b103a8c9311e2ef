//! Why the bench can't go on, in words.

use std::fmt::{self, Display, Formatter};

/// What failed, and why: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

/// What this crate's functions come back with.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says this.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Says what failed, in front of why.
pub trait Told<T> {
    /// The value, or an error of the form `what: why`.
    ///
    /// # Errors
    /// If this is one.
    fn told(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Told<T> for std::result::Result<T, E> {
    fn told(self, what: impl Display) -> Result<T> {
        self.map_err(|why| Error(format!("{what}: {why}")))
    }
}
