//! A receiver for a key of which little is trusted: it may write disks beneath one directory, and nothing else.
//!
//! The request comes by the environment, as sshd gives it where a forced command runs. DEST's directory is looked up so that it
//! can't be left, and entered; what follows knows DEST by its bare name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskErrorKind, sys};
use xfer_hole_target::TargetOptions;
use xfer_hole_transport::{components, original_command, relative};

use crate::error::ReceiveError;
use crate::request::{ReceivedRequest, WantedReceiver};

/// What a key may do.
#[derive(Clone, Debug)]
pub(crate) struct KeyRestriction {
    /// Everything is written beneath it.
    pub(crate) dir: PathBuf,
    /// What is there may be kept and told of.
    pub(crate) allow_read: bool,
    /// Nothing that is there is replaced or changed.
    pub(crate) no_clobber: bool,
}

impl KeyRestriction {
    /// Takes the request, and enters DEST's directory: the request's `dest` is `./NAME` afterwards. Nothing is written but the
    /// directories that `mkpath` asks for.
    pub(crate) fn accept(&self) -> Result<ReceivedRequest, ReceiveError> {
        let command = original_command().ok_or(ReceiveError::NoRequest)?;
        let mut request = ReceivedRequest::parse(command.as_bytes())?;
        self.judge(&request)?;
        request.no_clobber |= self.no_clobber;
        (request.dest, request.is_named) = self.enter(&request)?;
        Ok(request)
    }

    /// How a target is written that was asked for so.
    pub(crate) fn target_options(request: &ReceivedRequest) -> Result<TargetOptions, ReceiveError> {
        // The directories are there by now, unless nothing is to be written anyway.
        let mkpath = request.mkpath && request.dry_run;
        Ok(TargetOptions { mkpath, name: None, confined: true, ..request.target_options()? })
    }

    /// Refuses what this key may not ask for.
    fn judge(&self, request: &ReceivedRequest) -> Result<(), ReceiveError> {
        let forbidden = |what| Err(ReceiveError::Forbidden(what));
        if request.receiver == WantedReceiver::Sh {
            return forbidden("--receiver sh: no script runs here, only recv-hole itself");
        }
        if request.chown.is_some() {
            return forbidden("--chown: files belong to the account that receives them");
        }
        if request.target_is_zero {
            return forbidden("--target-is-zero: no devices are written here");
        }
        if request.discard {
            return forbidden("--discard: no devices are written here");
        }
        if request.force {
            return forbidden("--force: what is in use here is not replaced");
        }
        if request.chmod.is_some_and(|mode| mode & !0o777 != 0) {
            return forbidden("--chmod with more than read, write and execute");
        }
        if self.no_clobber && request.in_place {
            return forbidden("--in-place: nothing that is here may be changed");
        }
        if !self.allow_read && request.in_place {
            return forbidden("--in-place: nothing that is here may be kept");
        }
        if !self.allow_read && !self.no_clobber && request.no_clobber {
            return forbidden("--no-clobber: what is here isn't told");
        }
        Ok(())
    }

    /// Enters the directory that DEST lies in, and gives the name that is left; true if DEST is a directory. With `dry_run`,
    /// missing directories are left in it.
    fn enter(&self, request: &ReceivedRequest) -> Result<(OsString, bool), ReceiveError> {
        let failed = |source| xfer_hole_os::DiskError::io("the directory given by --restrict", "cannot open", source);
        let mut at = File::open(&self.dir).map_err(failed)?;
        let dest = relative(&self.dir, request.dest.as_bytes()).map_err(ReceiveError::Forbidden)?;
        let mut parts = components(dest).map_err(ReceiveError::Forbidden)?;
        let slash = dest.ends_with(b"/") || dest.ends_with(b"/.");
        let last = if slash { None } else { parts.pop() };
        for (n, part) in parts.iter().enumerate() {
            match step(&at, part, request)? {
                Some(dir) => at = dir,
                None => {
                    sys::enter(&at).map_err(no_way)?;
                    let name = last.unwrap_or(&request.name);
                    let left = parts[n..].iter().copied().chain([name]);
                    let dest = [OsStr::new(".")].into_iter().chain(left).collect::<PathBuf>();
                    return Ok((dest.into_os_string(), false));
                }
            }
        }
        let (name, is_named) = match last {
            None => (request.name.as_os_str(), true),
            // A directory takes the file under the name that the sender gave.
            Some(last) => match sys::open_dir_beneath(&at, Path::new(last)) {
                Ok(dir) => {
                    at = dir;
                    (request.name.as_os_str(), true)
                }
                Err(error) => match error.raw_os_error() {
                    // No directory: a link, too, is a name that a target has a look at.
                    Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => (last, false),
                    _ => return Err(no_way(error)),
                },
            },
        };
        sys::enter(&at).map_err(no_way)?;
        Ok((Path::new(".").join(name).into_os_string(), is_named))
    }
}

/// The directory of this name in another one, made if that was asked for; `None` if it would be made.
fn step(at: &File, name: &OsStr, request: &ReceivedRequest) -> Result<Option<File>, ReceiveError> {
    let name = Path::new(name);
    match sys::open_dir_beneath(at, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && request.mkpath => {
            if request.dry_run {
                return Ok(None);
            }
            match sys::make_dir_at(at, name) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(no_way(error)),
                _ => {}
            }
            if !request.no_sync {
                at.sync_all().map_err(no_way)?;
            }
            sys::open_dir_beneath(at, name).map(Some).map_err(no_way)
        }
        opened => opened.map(Some).map_err(no_way),
    }
}

/// Why DEST's directory can't be entered.
fn no_way(error: io::Error) -> ReceiveError {
    const DIR: &str = "the target's directory";
    let refused = |kind, what| xfer_hole_os::DiskError::new(kind, DIR, what).into();
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            refused(DiskErrorKind::Unsupported, "cannot be kept within bounds: this system has no openat2")
        }
        // One answer for all: what is there instead isn't told.
        Some(libc::ELOOP | libc::EXDEV | libc::ENOTDIR | libc::ENOENT | libc::EACCES) => {
            refused(DiskErrorKind::Refused, "is not there, or is no directory within bounds")
        }
        _ => xfer_hole_os::DiskError::io(DIR, "cannot be entered", error).into(),
    }
}
