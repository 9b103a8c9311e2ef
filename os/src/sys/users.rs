//! Detects programs and devices that use a file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

// LOOP_GET_STATUS64 is 0x4c05: <linux/loop.h>.
nix::ioctl_read_bad!(loop_get_status64, 0x4c05, [u64; 29]);

/// The file behind a loop device: its device and inode number, and its own device number if it is a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopBacking {
    pub file: (u64, u64),
    pub own: u64,
}

/// ioctl(2) LOOP_GET_STATUS64: fails with ENXIO if the loop device has no backing file.
pub fn loop_backing(device: &File) -> io::Result<LoopBacking> {
    let mut status = [0; 29];
    // SAFETY: the kernel writes one struct loop_info64, which is 232 bytes long, its first three members u64.
    unsafe { loop_get_status64(device.as_raw_fd(), &raw mut status) }?;
    Ok(LoopBacking { file: (status[0], status[1]), own: status[2] })
}

/// faccessat(2) with AT_EACCESS: succeeds if this file or device can be opened for writing.
pub fn can_write(path: &Path) -> io::Result<()> {
    Ok(faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS)?)
}

/// F_SETSIG of <asm-generic/fcntl.h>.
const F_SETSIG: libc::c_int = 10;

/// fcntl(2) F_SETLEASE: true if a program has this regular file open for writing. Takes a lease and releases it at
/// once. `file` must be open for reading only. False if leases aren't available: to users other than the owner and
/// root, and on file systems without leases.
pub fn is_open_for_writing(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // A program that opens the file meanwhile waits, and this process gets a signal. SIGURG is ignored by default.
    // SAFETY: the arguments and the result are numbers.
    if unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) } == -1 {
        return false;
    }
    // SAFETY: the arguments and the result are numbers.
    let leased = Errno::result(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) });
    if leased.is_ok() {
        // SAFETY: the arguments and the result are numbers.
        let _given_back = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    }
    leased == Err(Errno::EAGAIN)
}
