//! Permanent and temporary failures, which the exit status tells apart.

use std::process::ExitCode;

/// Whether the same command can succeed later. It determines the exit status of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failure {
    /// The command would fail again: exit status 2, as for wrong usage.
    #[default]
    Permanent,
    /// The command may succeed later, as after a cut link: exit status 75, which sysexits.h calls `EX_TEMPFAIL`.
    Temporary,
}

impl Failure {
    /// Returns [`Failure::Temporary`] if `is_temporary`, else [`Failure::Permanent`].
    #[must_use]
    pub fn temporary_if(is_temporary: bool) -> Self {
        if is_temporary { Self::Temporary } else { Self::Permanent }
    }

    /// Returns the exit status, 2 or 75.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Permanent => 2,
            Self::Temporary => 75,
        }
    }

    /// Returns the exit status as the type that `main` returns.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(self.status())
    }
}
