//! System calls. This module and its submodules contain all raw system calls and all unsafe code. Each function makes
//! one call, which its documentation names. Offsets and lengths are in bytes. A function that returns [`io::Result`]
//! fails with the error of its system call.
#![allow(unsafe_code, reason = "all unsafe code is in this module: ioctl, statx and locks have no safe wrapper")]

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
        // Some file systems return offsets before `at`. A loop that continued from there would never end.
        Ok(offset) if offset < signed(at)? => Err(io::Error::other("the answer lies before what was asked for")),
        Ok(offset) => Ok(Some(offset.unsigned_abs())),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(numbered(error)),
    }
}

/// Converts the error with its number, even if nix has no name for it, such as the kernel's internal ENOTSUPP. Must be
/// called directly after the system call.
fn numbered(error: Errno) -> io::Error {
    if error == Errno::UnknownErrno { io::Error::last_os_error() } else { error.into() }
}

/// lseek(2) SEEK_DATA: the offset of the next data at or after `at`; `None` if there is none.
pub fn seek_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    seek(file, at, Whence::SeekData)
}

/// lseek(2) SEEK_HOLE: the offset of the next hole at or after `at`, where the end of the file counts as a hole; `None`
/// if `at` is beyond the end.
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
    /// Length in bytes.
    pub length: u64,
    /// Reserved; zeros.
    pub reserved64: [u64; 2],
    /// `FIEMAP_EXTENT_*`.
    pub flags: u32,
    /// Reserved; zeros.
    pub reserved: [u32; 3],
}

/// FIEMAP_EXTENT_LAST: the last extent of the file.
pub const FIEMAP_EXTENT_LAST: u32 = 0x1;
/// FIEMAP_EXTENT_UNWRITTEN: allocated, reads as zeros.
pub const FIEMAP_EXTENT_UNWRITTEN: u32 = 0x800;
/// FIEMAP_FLAG_SYNC: flush dirty data first, so that delayed allocations become extents.
const FIEMAP_FLAG_SYNC: u32 = 0x1;
/// The maximum number of extents per call: 28 KiB.
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

/// ioctl(2) FS_IOC_FIEMAP with FIEMAP_FLAG_SYNC: the extents from `start` on, 512 at most.
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

/// ioctl(2) BLKGETSIZE64: the size of a block device in bytes.
pub fn device_size(file: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: the kernel writes one u64.
    unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// ioctl(2) BLKSSZGET: the logical block size of a block device in bytes.
pub fn device_block(file: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::blksszget(file.as_raw_fd(), &raw mut size) }?;
    Ok(u64::try_from(size).unwrap_or(512))
}

/// ioctl(2) BLKZEROOUT: makes a range of a block device read as zeros. `at` and `len` must be multiples of the logical
/// block size.
pub fn device_zero(file: &File, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: the kernel reads two u64.
    unsafe { ioctl::blkzeroout(file.as_raw_fd(), &[at, len]) }?;
    Ok(())
}

/// ioctl(2) BLKDISCARD: lets a block device release the space of a range. The range has undefined content afterwards.
pub fn device_discard(file: &File, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: the kernel reads two u64.
    unsafe { ioctl::blkdiscard(file.as_raw_fd(), &[at, len]) }?;
    Ok(())
}

/// fallocate(2) FALLOC_FL_PUNCH_HOLE: makes the range a hole, which reads as zeros. On a block device, the range must
/// be whole blocks, and the call fails if the device would have to write zeros.
pub fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, mode, signed(at)?, signed(len)?)?)
}

/// fallocate(2) FALLOC_FL_ZERO_RANGE: makes the range read as zeros.
pub fn zero_range(file: &File, at: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, mode, signed(at)?, signed(len)?)?)
}

/// fallocate(2): allocates the blocks of the range, contiguously if possible. They read as zeros until they are
/// written.
pub fn make_room(file: &File, at: u64, len: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, signed(at)?, signed(len)?)?)
}

/// ioctl(2) FICLONE: makes the file a clone of another, with its data and holes.
pub fn share_all(file: &File, of: &File) -> io::Result<()> {
    // SAFETY: the kernel takes the number of a descriptor, which is open as long as `of` is.
    unsafe { ioctl::ficlone(file.as_raw_fd(), of.as_raw_fd() as _) }?;
    Ok(())
}

/// copy_file_range(2): copies or shares up to `len` bytes from offset `from` of `source` to offset `at` of `file`.
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

/// fstatfs(2): true if the file is on ext4, or on ext2 or ext3, which have the same number.
pub fn is_ext4(file: &File) -> bool {
    nix::sys::statfs::fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::EXT4_SUPER_MAGIC)
}

/// fstatfs(2): true if SEEK_DATA and SEEK_HOLE of the file system see dirty data in the page cache, as on ext4, XFS,
/// btrfs and tmpfs.
pub fn seeks_in_cache(file: &File) -> bool {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
    let exact = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC];
    fstatfs(file).is_ok_and(|stat| exact.contains(&stat.filesystem_type()))
}

/// fstatfs(2): true if `st_blocks` counts every written block of a file, those with zeros included: the file system
/// neither compresses nor deduplicates.
pub fn counts_blocks(file: &File) -> bool {
    use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};
    let counts = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC];
    fstatfs(file).is_ok_and(|stat| counts.contains(&stat.filesystem_type()))
}

/// IOV_MAX: the maximum number of buffers per call.
const ROW: usize = 1024;

/// pwritev(2), repeated until all buffers are written, one after the other from offset `at` on.
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

/// posix_fadvise(2) POSIX_FADV_SEQUENTIAL: increases the read-ahead. A failure is ignored.
pub fn advise_sequential(file: &File) {
    let _advice = nix::fcntl::posix_fadvise(file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
}

/// posix_fadvise(2) POSIX_FADV_RANDOM: disables the read-ahead. A failure is ignored.
pub fn advise_random(file: &File) {
    let _advice = nix::fcntl::posix_fadvise(file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM);
}

/// posix_fadvise(2) POSIX_FADV_DONTNEED: drops whole pages of the range from the page cache, except dirty ones. A
/// failure is ignored.
pub fn drop_cached(file: &File, at: u64, len: u64) {
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else { return };
    let _advice = nix::fcntl::posix_fadvise(file, at, len, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// sync_file_range(2): starts to write the dirty pages of the range; with `wait`, waits until they are written. An
/// error that it reports is not reported again by the next sync of the file.
pub fn write_back(file: &File, at: u64, len: u64, wait: bool) -> io::Result<()> {
    let (at, len) = (signed(at)?, signed(len)?);
    let around = if wait { libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER } else { 0 };
    // SAFETY: the arguments and the result are numbers.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE | around) };
    match Errno::result(result) {
        // Only an early start of writing is lost where the call isn't supported.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::ESPIPE) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// cachestat(2): the number of pages of the range in the page cache; `None` if the kernel doesn't support the call.
pub fn cached_pages(file: &File, at: u64, len: u64) -> Option<u64> {
    // Since Linux 6.5.
    const CACHESTAT: libc::c_long = 451;
    let range: [u64; 2] = [at, len];
    let mut counts = [0_u64; 5];
    let flags: libc::c_uint = 0;
    // SAFETY: the kernel reads two u64 and writes five.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), flags) };
    (result == 0).then_some(counts[0])
}

/// fstatvfs(3): the number of bytes that this user can still write to the file system.
pub fn free_space(file: &File) -> io::Result<u64> {
    let stat = nix::sys::statvfs::fstatvfs(file)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// sysconf(3) _SC_PAGESIZE: the size of a page in bytes.
pub fn page() -> u64 {
    // SAFETY: the argument and the result are numbers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(page).ok().filter(|page| page.is_power_of_two()).unwrap_or(4096)
}

/// open(2) of /proc/self/fd with O_DIRECT: opens the same file once more, with a file description of its own. Fails if
/// the file system doesn't support O_DIRECT, or /proc isn't mounted.
pub fn open_direct(file: &File, write: bool) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(write).custom_flags(libc::O_DIRECT).open(name)
}

/// fcntl(2) F_SETFL: clears O_NONBLOCK on a file description that this process opened itself.
pub fn set_blocking(file: &File) -> io::Result<()> {
    let flags = nix::fcntl::OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(())
}

fn record_lock(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

/// fcntl(2) F_OFD_GETLK: true if another file description has a record lock in these bytes that denies a write lock.
pub fn is_record_locked(file: &File, start: i64, len: i64) -> io::Result<bool> {
    let mut lock = record_lock(libc::F_WRLCK, start, len);
    // SAFETY: the kernel reads and writes one struct flock.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    Errno::result(result)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// fcntl(2) F_OFD_SETLK: takes a shared record lock on these bytes, which is held as long as the file is open.
pub fn share_record(file: &File, start: i64, len: i64) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&record_lock(libc::F_RDLCK, start, len)))?;
    Ok(())
}

/// faccessat(2) with AT_EACCESS: succeeds if files can be created and renamed in this directory.
pub fn can_write_dir(path: &Path) -> io::Result<()> {
    let how = AccessFlags::W_OK | AccessFlags::X_OK;
    Ok(faccessat(nix::fcntl::AT_FDCWD, path, how, AtFlags::AT_EACCESS)?)
}

/// renameat2(2) RENAME_EXCHANGE: exchanges two names atomically.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let here = nix::fcntl::AT_FDCWD;
    Ok(nix::fcntl::renameat2(here, one, here, other, nix::fcntl::RenameFlags::RENAME_EXCHANGE)?)
}

/// renameat2(2) RENAME_NOREPLACE: fails with EEXIST if the new name exists.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let here = nix::fcntl::AT_FDCWD;
    Ok(nix::fcntl::renameat2(here, from, here, to, nix::fcntl::RenameFlags::RENAME_NOREPLACE)?)
}

/// openat2(2) RESOLVE_BENEATH: opens a directory beneath another one, by a path without symbolic links. Fails with
/// ENOSYS on kernels without the call.
pub fn open_dir_beneath(dir: &File, path: &Path) -> io::Result<File> {
    open_beneath(dir, path, nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY, false)
}

/// openat2(2) RESOLVE_BENEATH with O_PATH: finds a file beneath a directory without opening it. With `follows`,
/// symbolic links that stay beneath the directory are followed; without it, a link is an error.
pub fn look_beneath(dir: &File, path: &Path, follows: bool) -> io::Result<File> {
    open_beneath(dir, path, nix::fcntl::OFlag::O_PATH, follows)
}

fn open_beneath(dir: &File, path: &Path, flags: nix::fcntl::OFlag, follows: bool) -> io::Result<File> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let links = if follows { ResolveFlag::empty() } else { ResolveFlag::RESOLVE_NO_SYMLINKS };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | links);
    // EAGAIN: a directory was renamed at the same time, so the kernel can't tell whether the path leads out.
    for _ in 0..100 {
        match openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => return Ok(opened?.into()),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// mkdirat(2) with mode 777, reduced by the umask.
pub fn make_dir_at(dir: &File, name: &Path) -> io::Result<()> {
    Ok(nix::sys::stat::mkdirat(dir, name, nix::sys::stat::Mode::from_bits_truncate(0o777))?)
}

/// fchdir(2): makes this directory the working directory.
pub fn enter(dir: &File) -> io::Result<()> {
    Ok(nix::unistd::fchdir(dir)?)
}

/// geteuid(2): the effective user ID.
pub fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// signal(2): ignores SIGXFSZ, so that a write beyond the file size limit fails with EFBIG and doesn't end the process.
pub fn ignore_file_size_signal() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal runs no code of this process.
    let _before = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// sigaction(2): true if the signal is ignored, as for processes that nohup or a shell's background job starts. Changes
/// nothing.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data, for which all zeros is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: nothing is set, and the kernel's answer goes into one struct sigaction.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// ioctl(2) TIOCGWINSZ: the number of columns of a terminal; `None` if it is no terminal, or its size is unknown.
pub fn terminal_columns(fd: impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one struct winsize.
    unsafe { ioctl::tiocgwinsz(fd.as_fd().as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// umask(2): the umask. The call sets it and sets it back, so no other thread may create files meanwhile.
pub fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    mask.bits()
}

/// umask(2): makes files that are created later accessible to their owner only.
pub fn keep_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// The standard streams that were closed when the process started, a bit each.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Runs before the runtime, which opens /dev/null for closed standard streams. After that, they can't be distinguished
/// from streams that the user opened on /dev/null.
extern "C" fn look_at_streams() {
    for fd in 0..3 {
        // SAFETY: reads the flags of a descriptor, which need not be open.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

// SAFETY: the function takes no arguments, calls nothing but fcntl(2), and doesn't need the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STREAMS: extern "C" fn() = look_at_streams;

/// fcntl(2) F_GETFD: true if the process was started with this standard stream closed.
pub fn was_closed(stream: impl AsFd) -> bool {
    let fd = stream.as_fd().as_raw_fd();
    (0..3).contains(&fd) && CLOSED.load(Ordering::Relaxed) & 1 << fd != 0
}
