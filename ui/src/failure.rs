//! Failures that trying again can mend, and those that stay: the exit status tells them apart.

use std::process::ExitCode;

/// Whether the same command can succeed later. It decides the exit status of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failure {
    /// It would fail again: exit status 2, as for wrong usage.
    #[default]
    Permanent,
    /// It may succeed later, as after a cut link: exit status 75, which sysexits.h calls `EX_TEMPFAIL`.
    Temporary,
}

impl Failure {
    /// Temporary if this is so.
    #[must_use]
    pub fn temporary_if(so: bool) -> Self {
        if so { Self::Temporary } else { Self::Permanent }
    }

    /// The exit status.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Permanent => 2,
            Self::Temporary => 75,
        }
    }

    /// The exit status, as `main` returns it.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(self.status())
    }
}
