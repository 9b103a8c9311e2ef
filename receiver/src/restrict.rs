//! `--restrict`: a receiver for an ssh key that may only write disks below one directory.
//!
//! The request is in the environment, where sshd puts it for a forced command. The directory of DEST is opened without leaving the
//! allowed directory and becomes the working directory. All later code uses the bare name of DEST.

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

/// The permissions of a restricted key.
#[derive(Clone, Debug)]
pub(crate) struct KeyRestriction {
    /// The directory below which files may be written.
    pub(crate) dir: PathBuf,
    /// Existing data may be kept, and its digests may be sent.
    pub(crate) allow_read: bool,
    /// Existing files must not be replaced or changed.
    pub(crate) no_clobber: bool,
}

impl KeyRestriction {
    /// Reads the request, checks it, and changes to the directory of DEST.
    ///
    /// The `dest` of the returned request is `./NAME`. Only the directories that `mkpath` requests are created.
    ///
    /// # Errors
    /// Returns an error if there is no valid request, if the key does not allow it, or if the directory can't be entered.
    pub(crate) fn accept(&self) -> Result<ReceivedRequest, ReceiveError> {
        let command = original_command().ok_or(ReceiveError::NoRequest)?;
        let mut request = ReceivedRequest::parse(command.as_bytes())?;
        self.check(&request)?;
        request.no_clobber |= self.no_clobber;
        (request.dest, request.is_named) = self.enter(&request)?;
        Ok(request)
    }

    /// Returns the options of the target for a request that [`accept`](Self::accept) returned.
    pub(crate) fn target_options(request: &ReceivedRequest) -> Result<TargetOptions, ReceiveError> {
        // `accept` has created the directories, except in a dry run.
        let mkpath = request.mkpath && request.dry_run;
        Ok(TargetOptions { mkpath, name: None, confined: true, ..request.target_options()? })
    }

    /// Refuses a request that the key does not allow.
    fn check(&self, request: &ReceivedRequest) -> Result<(), ReceiveError> {
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

    /// Changes to the directory of DEST. Returns the remaining name, and true if DEST is a directory.
    ///
    /// In a dry run directories that do not exist remain in the name.
    fn enter(&self, request: &ReceivedRequest) -> Result<(OsString, bool), ReceiveError> {
        let failed = |source| xfer_hole_os::DiskError::io("the directory given by --restrict", "cannot open", source);
        let mut at = File::open(&self.dir).map_err(failed)?;
        let dest = relative(&self.dir, request.dest.as_bytes()).map_err(ReceiveError::Forbidden)?;
        let mut parts = components(dest).map_err(ReceiveError::Forbidden)?;
        let slash = dest.ends_with(b"/") || dest.ends_with(b"/.");
        let last = if slash { None } else { parts.pop() };
        for (n, part) in parts.iter().enumerate() {
            match open_or_create_dir(&at, part, request)? {
                Some(dir) => at = dir,
                None => {
                    sys::enter(&at).map_err(cannot_enter)?;
                    let name = last.unwrap_or(&request.name);
                    let left = parts[n..].iter().copied().chain([name]);
                    let dest = [OsStr::new(".")].into_iter().chain(left).collect::<PathBuf>();
                    return Ok((dest.into_os_string(), false));
                }
            }
        }
        let (name, is_named) = match last {
            None => (request.name.as_os_str(), true),
            // In a directory the file gets the name that the sender gave.
            Some(last) => match sys::open_dir_beneath(&at, Path::new(last)) {
                Ok(dir) => {
                    at = dir;
                    (request.name.as_os_str(), true)
                }
                Err(error) => match error.raw_os_error() {
                    // Not a directory. The code for targets checks the name, which may be a symbolic link.
                    Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => (last, false),
                    _ => return Err(cannot_enter(error)),
                },
            },
        };
        sys::enter(&at).map_err(cannot_enter)?;
        Ok((Path::new(".").join(name).into_os_string(), is_named))
    }
}

/// Opens the directory `name` in `at`, and creates it with `mkpath`. Returns `None` if a dry run would create it.
fn open_or_create_dir(at: &File, name: &OsStr, request: &ReceivedRequest) -> Result<Option<File>, ReceiveError> {
    let name = Path::new(name);
    match sys::open_dir_beneath(at, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && request.mkpath => {
            if request.dry_run {
                return Ok(None);
            }
            match sys::make_dir_at(at, name) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot_enter(error)),
                _ => {}
            }
            if !request.no_sync {
                at.sync_all().map_err(cannot_enter)?;
            }
            sys::open_dir_beneath(at, name).map(Some).map_err(cannot_enter)
        }
        opened => opened.map(Some).map_err(cannot_enter),
    }
}

/// Returns the error for a directory of DEST that can't be entered.
fn cannot_enter(error: io::Error) -> ReceiveError {
    const DIR: &str = "the target's directory";
    let refused = |kind, what| xfer_hole_os::DiskError::new(kind, DIR, what).into();
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            refused(DiskErrorKind::Unsupported, "cannot be kept within bounds: this system has no openat2")
        }
        // The same error for all causes, so that it does not reveal what exists.
        Some(libc::ELOOP | libc::EXDEV | libc::ENOTDIR | libc::ENOENT | libc::EACCES) => {
            refused(DiskErrorKind::Refused, "is not there, or is no directory within bounds")
        }
        _ => xfer_hole_os::DiskError::io(DIR, "cannot be entered", error).into(),
    }
}
