//! Extended attributes of an open file.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// fgetxattr(2) of a value of at most 256 bytes; `None` if the file has no attribute by this name, or one that is longer.
pub(crate) fn short_xattr(file: &File, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 256];
    // SAFETY: the name ends in NUL, and the kernel writes at most the length of the buffer.
    let len = unsafe {
        libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast::<libc::c_void>(), value.len())
    };
    match Errno::result(len) {
        Ok(len) => {
            value.truncate(len.unsigned_abs());
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::ERANGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// fsetxattr(2): gives the file this attribute, or another value of it.
pub(crate) fn set_xattr(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name ends in NUL, and the kernel reads as many bytes as the value has.
    let result = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast::<libc::c_void>(), value.len(), 0)
    };
    Errno::result(result)?;
    Ok(())
}

/// fremovexattr(2): fails with ENODATA if the file has no attribute by this name.
pub(crate) fn remove_xattr(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: the name ends in NUL.
    Errno::result(unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) })?;
    Ok(())
}
