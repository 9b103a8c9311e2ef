//! System calls: the only room with raw ones, and the only one with unsafe code. Each function is one call of the kernel,
//! named by what it does; offsets and lengths are in bytes. Files, devices and the process are here, pipes and other streams in
//! `stream`.
#![allow(unsafe_code, reason = "the one room for it: ioctl, statx and locks have no safe wrapper")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, FcntlArg, copy_file_range, fallocate, fcntl};
use nix::sys::uio::pwritev;
use nix::unistd::{AccessFlags, Whence, faccessat, lseek};

mod pipe;
mod statx;
mod times;
mod users;
mod xattr;

pub use users::{can_write, is_open_for_writing, loop_backing};

use pipe::SPLICE_MAX;
pub use pipe::{
    Spliced, drain_pipe, enlarge_pipe, is_deserted, pipe_size, read_some, splice_from_pipe, splice_out, splice_to_pipe,
    takes_writes, wait_readable, wait_writable, write_all,
};
pub use statx::{DirectRules, direct_rules, fixed, known_len};
pub use times::{boot, coarse_now, is_told_of_stores};
pub use xattr::{is_nocow, list_xattrs, remove_xattr, set_nocow, set_xattr, short_xattr, xattr, xattr_of};

fn signed(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::Error::from(Errno::EFBIG))
}

fn seek(file: &File, at: u64, whence: Whence) -> io::Result<Option<u64>> {
    match lseek(file, signed(at)?, whence) {
        // Some file systems answer what the call can't mean: a loop that goes on from there never ends.
        Ok(offset) if offset < signed(at)? => Err(io::Error::other("the answer lies before what was asked for")),
        Ok(offset) => Ok(Some(offset.unsigned_abs())),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(numbered(error)),
    }
}

/// The error with its number, also where nix has no name for that, such as the kernel's own ENOTSUPP. Called right behind the system call.
fn numbered(error: Errno) -> io::Error {
    if error == Errno::UnknownErrno { io::Error::last_os_error() } else { error.into() }
}

/// lseek(2) SEEK_DATA: where the next data at or behind `at` begins; `None` if there is none.
pub fn seek_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    seek(file, at, Whence::SeekData)
}

/// lseek(2) SEEK_HOLE: where the next hole at or behind `at` begins (the end counts as one); `None` if `at` is behind the end.
pub fn seek_hole(file: &File, at: u64) -> io::Result<Option<u64>> {
    seek(file, at, Whence::SeekHole)
}

/// The kernel's `struct fiemap_extent` (linux/fiemap.h): one extent of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FiemapReply {
    /// Offset in the file, in bytes.
    pub logical: u64,
    /// Offset on the device, in bytes.
    pub physical: u64,
    /// In bytes.
    pub length: u64,
    /// Zeros.
    pub reserved64: [u64; 2],
    /// `FIEMAP_EXTENT_*`.
    pub flags: u32,
    /// Zeros.
    pub reserved: [u32; 3],
}

/// FIEMAP_EXTENT_LAST: no extent behind this one.
pub const FIEMAP_EXTENT_LAST: u32 = 0x1;
/// FIEMAP_EXTENT_UNWRITTEN: allocated, reads as zeros.
pub const FIEMAP_EXTENT_UNWRITTEN: u32 = 0x800;
/// FIEMAP_FLAG_SYNC: write dirty pages back first, so that delayed allocation is seen.
const FIEMAP_FLAG_SYNC: u32 = 0x1;
/// Extents a call: 28 KiB of them.
const FIEMAP_COUNT: usize = 512;

#[repr(C)]
struct FiemapHeader {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [FiemapReply; FIEMAP_COUNT],
}

// FS_IOC_FIEMAP is _IOWR('f', 11, struct fiemap), whose size leaves out the array.
const FS_IOC_FIEMAP: libc::c_ulong = nix::request_code_readwrite!(b'f', 11, mem::size_of::<[u64; 4]>());

/// ioctl(2) FS_IOC_FIEMAP with FIEMAP_FLAG_SYNC: the extents from `start` on, up to some hundreds.
pub fn fiemap(file: &File, start: u64, len: u64, extents: &mut Vec<FiemapReply>) -> io::Result<()> {
    let mut map = Box::new(FiemapHeader {
        start,
        length: len,
        flags: FIEMAP_FLAG_SYNC,
        mapped_extents: 0,
        extent_count: FIEMAP_COUNT as u32,
        reserved: 0,
        extents: [FiemapReply::default(); FIEMAP_COUNT],
    });
    // SAFETY: the kernel writes at most extent_count extents into the array behind the header.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut *map) };
    Errno::result(result).map_err(numbered)?;
    extents.clear();
    extents.extend_from_slice(&map.extents[..(map.mapped_extents as usize).min(FIEMAP_COUNT)]);
    Ok(())
}

mod ioctl {
    // BLKGETSIZE64 is _IOR(0x12, 114, size_t), BLKZEROOUT _IO(0x12, 127), BLKSSZGET _IO(0x12, 104): <linux/fs.h>.
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(0x12, 127), [u64; 2]);
    // BLKDISCARD is _IO(0x12, 119).
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_read_bad!(fionread, libc::FIONREAD, libc::c_int);
    // FICLONE is _IOW(0x94, 9, int): <linux/fs.h>.
    nix::ioctl_write_int!(ficlone, 0x94, 9);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);
    nix::ioctl_read_bad!(tiocgwinsz, libc::TIOCGWINSZ, libc::winsize);
}

/// ioctl(2) BLKGETSIZE64: a block device's size.
pub fn device_size(file: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: the kernel writes one u64.
    unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// ioctl(2) BLKSSZGET: a block device's logical block size.
pub fn device_block(file: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::blksszget(file.as_raw_fd(), &raw mut size) }?;
    Ok(u64::try_from(size).unwrap_or(512))
}

/// ioctl(2) BLKZEROOUT: the range of a block device reads as zeros afterwards. Both must be multiples of its block size.
pub fn device_zero(file: &File, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: the kernel reads two u64.
    unsafe { ioctl::blkzeroout(file.as_raw_fd(), &[at, len]) }?;
    Ok(())
}

/// ioctl(2) BLKDISCARD: the device may give back the range's space. It reads as anything afterwards.
pub fn device_discard(file: &File, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: the kernel reads two u64.
    unsafe { ioctl::blkdiscard(file.as_raw_fd(), &[at, len]) }?;
    Ok(())
}

/// fallocate(2) FALLOC_FL_PUNCH_HOLE: the range reads as zeros and takes no space. Of a block device, it must be whole blocks, and fails
/// where the device would have to write zeros.
pub fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, mode, signed(at)?, signed(len)?)?)
}

/// fallocate(2) FALLOC_FL_ZERO_RANGE: the range reads as zeros.
pub fn zero_range(file: &File, at: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, mode, signed(at)?, signed(len)?)?)
}

/// fallocate(2): the range gets its blocks now, in one piece, and reads as zeros until it is written.
pub fn make_room(file: &File, at: u64, len: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, signed(at)?, signed(len)?)?)
}

/// ioctl(2) FICLONE: the file shares all bytes and holes of another from now on.
pub fn share_all(file: &File, of: &File) -> io::Result<()> {
    // SAFETY: the kernel takes the number of a descriptor, which is open as long as `of` is.
    unsafe { ioctl::ficlone(file.as_raw_fd(), of.as_raw_fd() as _) }?;
    Ok(())
}

/// copy_file_range(2) of up to `len` bytes at `from` of a file to `at` of another: the kernel copies them, or has them shared.
pub fn copy_range(source: &File, from: u64, file: &File, at: u64, len: u64) -> io::Result<Spliced> {
    let (mut from, mut at) = (signed(from)?, signed(at)?);
    let len = usize::try_from(len.min(SPLICE_MAX)).unwrap_or(usize::MAX);
    match copy_file_range(source, Some(&mut from), file, Some(&mut at), len) {
        Ok(bytes) => Ok(Spliced::Moved(bytes as u64)),
        Err(Errno::EINVAL | Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM | Errno::ETXTBSY) => {
            Ok(Spliced::Refused)
        }
        Err(error) => Err(error.into()),
    }
}

/// fstatfs(2): whether the file lies on ext4 (or its elders, which have the same number).
pub fn is_ext4(file: &File) -> bool {
    nix::sys::statfs::fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::EXT4_SUPER_MAGIC)
}

/// fstatfs(2): whether SEEK_DATA and SEEK_HOLE there know of data that is in the page cache and not written yet, as those of ext4, XFS, btrfs
/// and tmpfs do.
pub fn seeks_in_cache(file: &File) -> bool {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
    let exact = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC];
    fstatfs(file).is_ok_and(|stat| exact.contains(&stat.filesystem_type()))
}

/// fstatfs(2): whether st_blocks there counts every block that was written to a file, zeros too: nothing is compressed or deduplicated.
pub fn counts_blocks(file: &File) -> bool {
    use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
    let counts = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC];
    fstatfs(file).is_ok_and(|stat| counts.contains(&stat.filesystem_type()))
}

/// IOV_MAX: pieces of a row that the kernel takes at once.
const ROW: usize = 1024;

/// pwritev(2), again and again until all of a row is written, one piece behind the other from `at` on.
pub fn write_row_at(file: &File, mut at: u64, mut row: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !row.is_empty() {
        match pwritev(file, &row[..row.len().min(ROW)], signed(at)?) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                IoSlice::advance_slices(&mut row, bytes);
                at += bytes as u64;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// posix_fadvise(2) POSIX_FADV_SEQUENTIAL: read ahead far. Only advice: what becomes of it doesn't matter.
pub fn advise_sequential(file: &File) {
    let _advice = nix::fcntl::posix_fadvise(file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
}

/// posix_fadvise(2) POSIX_FADV_RANDOM: read what is asked for, and nothing ahead of it.
pub fn advise_random(file: &File) {
    let _advice = nix::fcntl::posix_fadvise(file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM);
}

/// posix_fadvise(2) POSIX_FADV_DONTNEED: whole pages of the range leave the page cache, unless they have yet to be written. Only
/// advice: what becomes of it doesn't matter.
pub fn drop_cached(file: &File, at: u64, len: u64) {
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else { return };
    let _advice = nix::fcntl::posix_fadvise(file, at, len, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// sync_file_range(2): starts to write what the page cache has of the range; with `wait`, it is written when this is back. An error that is
/// told here isn't told again by the next sync of the file.
pub fn write_back(file: &File, at: u64, len: u64, wait: bool) -> io::Result<()> {
    let (at, len) = (signed(at)?, signed(len)?);
    let around = if wait { libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER } else { 0 };
    // SAFETY: numbers go in, and a number comes out.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE | around) };
    match Errno::result(result) {
        // Only haste, where it isn't to be had.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::ESPIPE) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// cachestat(2): how many pages of the range the page cache has; `None` where the kernel doesn't tell.
pub fn cached_pages(file: &File, at: u64, len: u64) -> Option<u64> {
    // From Linux 6.5 on.
    const CACHESTAT: libc::c_long = 451;
    let range: [u64; 2] = [at, len];
    let mut counts = [0_u64; 5];
    let flags: libc::c_uint = 0;
    // SAFETY: the kernel reads two u64 and writes five.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), flags) };
    (result == 0).then_some(counts[0])
}

/// fstatvfs(3): bytes that this user may still write to the file system.
pub fn free_space(file: &File) -> io::Result<u64> {
    let stat = nix::sys::statvfs::fstatvfs(file)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// sysconf(3) _SC_PAGESIZE: bytes of a page.
pub fn page() -> u64 {
    // SAFETY: a number goes in, and a number comes out.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(page).ok().filter(|page| page.is_power_of_two()).unwrap_or(4096)
}

/// open(2) of the same file once more, by /proc and by no other name, with O_DIRECT: a description of its own. Fails where the file
/// system has no O_DIRECT, and where there is no /proc.
pub fn open_direct(file: &File, write: bool) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(write).custom_flags(libc::O_DIRECT).open(name)
}

/// Clears O_NONBLOCK on a file description that we opened ourselves.
pub fn set_blocking(file: &File) -> io::Result<()> {
    let flags = nix::fcntl::OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(())
}

fn record_lock(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

/// fcntl(2) F_OFD_GETLK: true if somebody else holds a lock in these bytes that forbids us to write.
pub fn is_record_locked(file: &File, start: i64, len: i64) -> io::Result<bool> {
    let mut lock = record_lock(libc::F_WRLCK, start, len);
    // SAFETY: the kernel reads and writes one struct flock.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    Errno::result(result)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// fcntl(2) F_OFD_SETLK: takes a shared lock of these bytes, for as long as the file is open.
pub fn share_record(file: &File, start: i64, len: i64) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&record_lock(libc::F_RDLCK, start, len)))?;
    Ok(())
}

/// faccessat(2) with AT_EACCESS: whether names can be made and renamed in this directory.
pub fn can_write_dir(path: &Path) -> io::Result<()> {
    let how = AccessFlags::W_OK | AccessFlags::X_OK;
    Ok(faccessat(nix::fcntl::AT_FDCWD, path, how, AtFlags::AT_EACCESS)?)
}

/// renameat2(2) RENAME_EXCHANGE: two names change files, at once.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let here = nix::fcntl::AT_FDCWD;
    Ok(nix::fcntl::renameat2(here, one, here, other, nix::fcntl::RenameFlags::RENAME_EXCHANGE)?)
}

/// renameat2(2) RENAME_NOREPLACE: fails with EEXIST if there is a file by the new name.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let here = nix::fcntl::AT_FDCWD;
    Ok(nix::fcntl::renameat2(here, from, here, to, nix::fcntl::RenameFlags::RENAME_NOREPLACE)?)
}

/// openat2(2) of a directory beneath another one, by a path without links. Fails with ENOSYS where the kernel has no such call.
pub fn open_dir_beneath(dir: &File, path: &Path) -> io::Result<File> {
    open_beneath(dir, path, nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY, false)
}

/// openat2(2) with O_PATH beneath a directory: what is there, not opened. Links are followed if they stay beneath it, or not at all.
pub fn look_beneath(dir: &File, path: &Path, follows: bool) -> io::Result<File> {
    open_beneath(dir, path, nix::fcntl::OFlag::O_PATH, follows)
}

fn open_beneath(dir: &File, path: &Path, flags: nix::fcntl::OFlag, follows: bool) -> io::Result<File> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let links = if follows { ResolveFlag::empty() } else { ResolveFlag::RESOLVE_NO_SYMLINKS };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | links);
    // EAGAIN: something was renamed at the same time, and the kernel can't tell whether that leads out.
    for _ in 0..100 {
        match openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => return Ok(opened?.into()),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// mkdirat(2), with what the umask leaves.
pub fn make_dir_at(dir: &File, name: &Path) -> io::Result<()> {
    Ok(nix::sys::stat::mkdirat(dir, name, nix::sys::stat::Mode::from_bits_truncate(0o777))?)
}

/// fchdir(2): names are looked up in this directory from here on.
pub fn enter(dir: &File) -> io::Result<()> {
    Ok(nix::unistd::fchdir(dir)?)
}

/// geteuid(2).
pub fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// signal(2): a file that gets larger than its limit is an error to be told (EFBIG), and not a silent death.
pub fn ignore_file_size_signal() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal runs no code of ours.
    let _before = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// sigaction(2), asked only: whether this signal is ignored, as nohup and shells' background jobs have it when they start us.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data, for which all zeros is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: nothing is set, and the kernel's answer goes into one struct sigaction.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// ioctl(2) TIOCGWINSZ: how many columns a terminal has; `None` if it is none, or doesn't tell.
pub fn terminal_columns(fd: impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one struct winsize.
    unsafe { ioctl::tiocgwinsz(fd.as_fd().as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// umask(2), read by setting it and setting it back: only before other threads make files.
pub fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    mask.bits()
}

/// umask(2): what is made from now on is for nobody but its owner.
pub fn keep_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// The standard streams that were closed when the process began, a bit each.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Called before the runtime, which opens /dev/null in the place of closed streams: from then on they can't be told from those that
/// somebody opened there.
extern "C" fn look_at_streams() {
    for fd in 0..3 {
        // SAFETY: asks for the flags of a descriptor, which need not be open.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

// SAFETY: the function takes no arguments, calls nothing but fcntl(2), and doesn't need the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STREAMS: extern "C" fn() = look_at_streams;

/// fcntl(2) F_GETFD, asked when the process began: whether it was started with this standard stream closed.
pub fn was_closed(stream: impl AsFd) -> bool {
    let fd = stream.as_fd().as_raw_fd();
    (0..3).contains(&fd) && CLOSED.load(Ordering::Relaxed) & 1 << fd != 0
}
