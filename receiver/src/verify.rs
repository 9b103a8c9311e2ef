//! `recv-hole --verify`: compares DEST with the manifest on standard input.

use std::io::{self, Write};
use std::path::Path;

use xfer_hole_image::{BackingChain, DiskOptions, Format};
use xfer_hole_os::{DiskError, DiskErrorKind, shown, sys};
use xfer_hole_transfer::{ManifestInput, Verdict, verify};
use xfer_hole_transport::shell_word;
use xfer_hole_ui::Failure;

use crate::ReceiveContext;
use crate::error::ReceiveError;

impl ReceiveContext<'_> {
    /// Compares DEST, read as a raw disk, with the manifest. With `--list` the ranges that differ are printed.
    ///
    /// # Errors
    /// Returns an error if DEST or the manifest can't be read, or if DEST is in use.
    pub(crate) fn verify(self, dest: &Path) -> Result<Verdict, ReceiveError> {
        if dest.as_os_str() == "-" {
            return Err(ReceiveError::Usage(
                "--verify compares a file or device, and standard input has its manifest".into(),
            ));
        }
        if sys::was_closed(io::stdout()) {
            return Err(ReceiveError::OutputClosed);
        }
        let direct = self.cli.target.direct;
        let opened =
            BackingChain::open(dest, &DiskOptions { format: Some(Format::Raw), direct, ..DiskOptions::default() });
        let mut disk = opened.map_err(|error| in_use(error, dest))?;
        let mut manifest = ManifestInput::open(Path::new("-"))?;
        let tail = disk.limit_device(manifest.manifest().size);
        if tail > 0 {
            self.messages.warn(format_args!("{}: the last {tail} bytes of the device aren't compared", shown(dest)));
        }
        let mut out = io::BufWriter::new(io::stdout());
        let compared = verify(&disk, &mut manifest, self.counters, |at, len| match self.cli.list {
            true => writeln!(out, "{at} {len}").map_err(unwritable),
            false => Ok(()),
        });
        // Ranges that were found before a failure are valid.
        out.flush().map_err(unwritable)?;
        let verdict = compared?;
        disk.warnings().iter().chain(&disk.noticed()).for_each(|warning| self.messages.warn(warning));
        Ok(verdict)
    }

    /// Prints whether and where DEST differs.
    ///
    /// # Errors
    /// Returns an error if standard output can't be written.
    pub(crate) fn print_verdict(self, dest: &Path, verdict: &Verdict) -> Result<(), ReceiveError> {
        if self.cli.list || self.cli.quiet {
            return Ok(());
        }
        let mut out = io::stdout();
        out.write_all(verdict.text(&shown(dest)).as_bytes()).and_then(|()| out.flush()).map_err(unwritable)
    }
}

/// Adds to the error of a DEST in use a hint with the command that compares it anyway.
fn in_use(error: DiskError, dest: &Path) -> ReceiveError {
    let error = error.without_override();
    let Some(first) =
        error.hint_text().filter(|_| matches!(error.kind(), DiskErrorKind::Busy | DiskErrorKind::Refused))
    else {
        return error.into();
    };
    let dest = shell_word(dest.as_os_str());
    let hint = format!("{first}, or compare it all the same by xfer-hole verify --force-share --format raw {dest} -");
    error.hint(hint).into()
}

/// Returns the error of a failed write to standard output. A closed pipe, as after `head`, prints nothing.
fn unwritable(source: io::Error) -> ReceiveError {
    match source.kind() {
        io::ErrorKind::BrokenPipe => ReceiveError::Reported(Failure::Permanent),
        _ => xfer_hole_os::DiskError::io("standard output", "cannot write", source).into(),
    }
}
