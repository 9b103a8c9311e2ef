//! System calls on extended attributes and file flags.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// fgetxattr(2): a value of at most 256 bytes; `None` if the file has no such attribute, or its value is longer.
pub fn short_xattr(file: &File, name: &CStr) -> io::Result<Option<Vec<u8>>> {
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

/// fsetxattr(2): sets this attribute of the file.
pub fn set_xattr(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name ends in NUL, and the kernel reads as many bytes as the value has.
    let result = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast::<libc::c_void>(), value.len(), 0)
    };
    Errno::result(result)?;
    Ok(())
}

/// fremovexattr(2): fails with ENODATA if the file has no such attribute.
pub fn remove_xattr(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: the name ends in NUL.
    Errno::result(unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) })?;
    Ok(())
}

/// Calls `call` first for the length of a value, then with a buffer of that length. Repeats both if the value has grown
/// meanwhile.
fn grown(mut call: impl FnMut(*mut libc::c_void, usize) -> isize) -> io::Result<Vec<u8>> {
    for _ in 0..10 {
        let len = Errno::result(call(std::ptr::null_mut(), 0))?.unsigned_abs();
        let mut value = vec![0_u8; len];
        if len == 0 {
            return Ok(value);
        }
        match Errno::result(call(value.as_mut_ptr().cast(), len)) {
            Ok(len) => {
                value.truncate(len.unsigned_abs());
                return Ok(value);
            }
            Err(Errno::ERANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::ERANGE.into())
}

fn if_any(value: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match value {
        Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(None),
        value => value.map(Some),
    }
}

/// fgetxattr(2): the value of an attribute; `None` if the file has no such attribute.
pub fn xattr(file: &File, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: the name ends in NUL, and the kernel writes at most the length that it is given.
    if_any(grown(|value, len| unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value, len) }))
}

/// lgetxattr(2): the value of an attribute; `None` if the file has no such attribute. A symbolic link is not followed.
pub fn xattr_of(path: &Path, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both names end in NUL, and the kernel writes at most the length that it is given.
    if_any(grown(|value, len| unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value, len) }))
}

/// llistxattr(2): the names of a file's attributes. A symbolic link is not followed.
pub fn list_xattrs(path: &Path) -> io::Result<Vec<CString>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the name ends in NUL, and the kernel writes at most the length that it is given.
    let names = grown(|names, len| unsafe { libc::llistxattr(path.as_ptr(), names.cast(), len) })?;
    Ok(names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

// <linux/fs.h> declares the argument as long, but the kernel uses an int.
nix::ioctl_read_bad!(get_flags, nix::request_code_read!(b'f', 1, size_of::<libc::c_long>()), libc::c_int);
nix::ioctl_write_ptr_bad!(set_flags, nix::request_code_write!(b'f', 2, size_of::<libc::c_long>()), libc::c_int);
const FS_NOCOW_FL: libc::c_int = 0x0080_0000;

fn flags(file: &File) -> io::Result<libc::c_int> {
    let mut flags = 0;
    // SAFETY: the kernel writes one int.
    unsafe { get_flags(file.as_raw_fd(), &raw mut flags) }?;
    Ok(flags)
}

/// ioctl(2) FS_IOC_GETFLAGS: true if copy on write is disabled for the file, as by `chattr +C`.
pub fn is_nocow(file: &File) -> io::Result<bool> {
    Ok(flags(file)? & FS_NOCOW_FL != 0)
}

/// ioctl(2) FS_IOC_SETFLAGS: disables copy on write for an empty file.
pub fn set_nocow(file: &File) -> io::Result<()> {
    let flags = flags(file)? | FS_NOCOW_FL;
    // SAFETY: the kernel reads one int.
    unsafe { set_flags(file.as_raw_fd(), &raw const flags) }?;
    Ok(())
}
