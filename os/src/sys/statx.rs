//! File attributes that statx(2) returns and fstat(2) doesn't.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// The alignment that O_DIRECT requires for a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectRules {
    /// Alignment of addresses in memory.
    pub memory: u64,
    /// Alignment of offsets and lengths.
    pub offset: u64,
}

/// Attributes of a name that prevent renaming another file to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedName {
    pub mount_point: bool,
    pub immutable: bool,
    pub append_only: bool,
}

/// statx(2) by its number. The standard library links to the C library's function weakly, so a static binary may lack
/// it.
fn statx(dir: i32, name: &CStr, flags: i32, mask: u32) -> io::Result<libc::statx> {
    // SAFETY: statx is plain data, for which all zeros is a value.
    let mut stat: libc::statx = unsafe { mem::zeroed() };
    // SAFETY: the name ends in NUL, and the kernel writes one struct statx.
    let result = unsafe { libc::syscall(libc::SYS_statx, dir, name.as_ptr(), flags, mask, &raw mut stat) };
    Errno::result(result)?;
    Ok(stat)
}

/// statx(2) of an open file.
fn statx_of(file: &File, flags: i32, mask: u32) -> io::Result<libc::statx> {
    statx(file.as_raw_fd(), c"", flags | libc::AT_EMPTY_PATH, mask)
}

/// statx(2) STATX_DIOALIGN: the alignment rules of O_DIRECT. `None` if the file system doesn't state them, as many
/// don't; zeros if it doesn't support O_DIRECT.
pub fn direct_rules(file: &File) -> Option<DirectRules> {
    let stat = statx_of(file, 0, libc::STATX_DIOALIGN).ok()?;
    let rules =
        || DirectRules { memory: u64::from(stat.stx_dio_mem_align), offset: u64::from(stat.stx_dio_offset_align) };
    (stat.stx_mask & libc::STATX_DIOALIGN != 0).then(rules)
}

/// statx(2) AT_STATX_DONT_SYNC: the file size in bytes that this machine has cached. No file system asks a server or
/// flushes data for it.
pub fn known_len(file: &File) -> io::Result<u64> {
    Ok(statx_of(file, libc::AT_STATX_DONT_SYNC, libc::STATX_SIZE)?.stx_size)
}

/// statx(2): whether the name is a mount point, immutable or append-only. All false if the kernel doesn't tell.
pub fn fixed(path: &Path) -> FixedName {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return FixedName::default() };
    let Ok(stat) = statx(libc::AT_FDCWD, &name, libc::AT_SYMLINK_NOFOLLOW, 0) else { return FixedName::default() };
    let has = |bit: i32| stat.stx_attributes & u64::from(bit.unsigned_abs()) != 0;
    FixedName {
        mount_point: has(libc::STATX_ATTR_MOUNT_ROOT),
        immutable: has(libc::STATX_ATTR_IMMUTABLE),
        append_only: has(libc::STATX_ATTR_APPEND),
    }
}
