//! Which programs and devices use a file besides us.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

// LOOP_GET_STATUS64 is 0x4c05: <linux/loop.h>.
nix::ioctl_read_bad!(loop_get_status64, 0x4c05, [u64; 29]);

/// What lies under a loop device: its file's device and inode, and the number of its own if it is a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopBacking {
    pub file: (u64, u64),
    pub own: u64,
}

/// ioctl(2) LOOP_GET_STATUS64: fails with ENXIO where nothing is attached.
pub fn loop_backing(device: &File) -> io::Result<LoopBacking> {
    let mut status = [0; 29];
    // SAFETY: the kernel writes one struct loop_info64, which is 232 bytes long, its first three members u64.
    unsafe { loop_get_status64(device.as_raw_fd(), &raw mut status) }?;
    Ok(LoopBacking { file: (status[0], status[1]), own: status[2] })
}

/// faccessat(2) with AT_EACCESS: whether this file or device may be written.
pub fn can_write(path: &Path) -> io::Result<()> {
    Ok(faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS)?)
}

/// <asm-generic/fcntl.h>
const F_SETSIG: libc::c_int = 10;

/// fcntl(2) F_SETLEASE, taken and given back at once: true if a program has this regular file open for writing. `file` is open for reading
/// only. False where the system doesn't tell: to others than the file's owner and root, on file systems without leases.
pub fn is_open_for_writing(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // A program that opens it meanwhile waits, and we get a signal, which is to be one that is ignored.
    // SAFETY: numbers go in, and a number comes out.
    if unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) } == -1 {
        return false;
    }
    // SAFETY: numbers go in, and a number comes out.
    let leased = Errno::result(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) });
    if leased.is_ok() {
        // SAFETY: numbers go in, and a number comes out.
        let _given_back = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    }
    leased == Err(Errno::EAGAIN)
}
