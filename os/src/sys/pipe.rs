//! System calls on pipes and other streams: wait, read, write, splice.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};

use crate::sys::{ioctl, signed};

/// fcntl(2) F_SETPIPE_SZ: sets the capacity of a pipe in bytes. A failure is ignored, since it only makes transfers
/// slower.
pub fn enlarge_pipe(fd: BorrowedFd<'_>, bytes: i32) {
    let _size = fcntl(fd, FcntlArg::F_SETPIPE_SZ(bytes));
}

/// fcntl(2) F_GETPIPE_SZ: the capacity of a pipe in bytes.
pub fn pipe_size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(fcntl(fd, FcntlArg::F_GETPIPE_SZ)?).unwrap_or_default())
}

/// Waits until the reader of a pipe has read all its content. Fails with EPIPE if the pipe has no reader any more.
pub fn drain_pipe(pipe: BorrowedFd<'_>) -> io::Result<()> {
    // The kernel has no event for an empty pipe, so it is polled. A reader that closes the pipe is noticed at once.
    for pause in (6..14).chain(std::iter::repeat(14)).map(|shift| Duration::from_micros(1 << shift)) {
        let mut bytes = 0;
        // SAFETY: the kernel writes one int.
        unsafe { ioctl::fionread(pipe.as_raw_fd(), &raw mut bytes) }?;
        if bytes == 0 {
            break;
        }
        let mut watched = [PollFd::new(pipe, PollFlags::empty())];
        match ppoll(&mut watched, Some(pause.into()), None) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Err(Errno::EPIPE.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// poll(2) without waiting: true if some bytes can be written now. It is true for a closed or broken stream too, where
/// the write fails at once.
pub fn takes_writes(fd: impl AsFd) -> bool {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) != Ok(0)
}

/// poll(2): waits until the descriptor is ready.
fn wait_for(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, what)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// poll(2): waits up to `most`. True if there is something to read, or end of file.
pub fn wait_readable(fd: BorrowedFd<'_>, most: Duration) -> io::Result<bool> {
    wait_most(fd, PollFlags::POLLIN, most)
}

/// poll(2): waits up to `most`. True if something can be written; a pipe then accepts 4096 bytes without blocking.
pub fn wait_writable(fd: BorrowedFd<'_>, most: Duration) -> io::Result<bool> {
    wait_most(fd, PollFlags::POLLOUT, most)
}

fn wait_most(fd: BorrowedFd<'_>, ready: PollFlags, most: Duration) -> io::Result<bool> {
    let over = Instant::now() + most;
    loop {
        let left = over.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, ready)], left) {
            Ok(0) if Instant::now() < over => {}
            Err(Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Repeats a read or write until it moves some bytes, fails or reaches the end. An inherited stream may be
/// non-blocking, because another process set the flag; then this function waits and leaves the flag as it is.
fn persist(
    fd: BorrowedFd<'_>,
    ready: PollFlags,
    mut move_some: impl FnMut() -> nix::Result<usize>,
) -> io::Result<usize> {
    loop {
        match move_some() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_for(fd, ready)?,
            moved => return Ok(moved?),
        }
    }
}

/// read(2): reads at least one byte, unless the stream has ended.
pub fn read_some(fd: impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    let fd = fd.as_fd();
    persist(fd, PollFlags::POLLIN, || nix::unistd::read(fd, buf))
}

/// write(2), repeated until all bytes are written.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd();
    while !bytes.is_empty() {
        let moved = persist(fd, PollFlags::POLLOUT, || nix::unistd::write(fd, bytes))?;
        if moved == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[moved..];
    }
    Ok(())
}

/// The maximum number of bytes that one splice(2) moves.
pub(super) const SPLICE_MAX: u64 = 1 << 30;

/// The result of a splice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spliced {
    /// The number of bytes that were moved; 0 at the end of the input.
    Moved(u64),
    /// These two descriptors can't be spliced. The caller must read and write instead.
    Refused,
}

fn spliced(moved: io::Result<usize>) -> io::Result<Spliced> {
    match moved {
        Ok(bytes) => Ok(Spliced::Moved(bytes as u64)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Spliced::Refused),
        Err(error) => Err(error),
    }
}

/// splice(2): moves up to `len` bytes from file offset `at` into a pipe, without copying them.
pub fn splice_to_pipe(file: &File, at: u64, pipe: BorrowedFd<'_>, len: u64) -> io::Result<Spliced> {
    let mut offset = signed(at)?;
    let len = usize::try_from(len.min(SPLICE_MAX)).unwrap_or(usize::MAX);
    spliced(persist(pipe, PollFlags::POLLOUT, || {
        splice(file, Some(&mut offset), pipe, None, len, SpliceFFlags::empty())
    }))
}

/// splice(2): moves up to `len` bytes from a pipe, which must not be empty, to another descriptor, without copying
/// them.
pub fn splice_out(pipe: BorrowedFd<'_>, out: BorrowedFd<'_>, len: u64) -> io::Result<u64> {
    let len = usize::try_from(len.min(SPLICE_MAX)).unwrap_or(usize::MAX);
    let moved = persist(out, PollFlags::POLLOUT, || splice(pipe, None, out, None, len, SpliceFFlags::empty()))?;
    if moved == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(moved as u64) }
}

/// splice(2): moves up to `len` bytes from a pipe to file offset `at`.
pub fn splice_from_pipe(pipe: BorrowedFd<'_>, file: &File, at: u64, len: u64) -> io::Result<Spliced> {
    let mut offset = signed(at)?;
    let len = usize::try_from(len.min(SPLICE_MAX)).unwrap_or(usize::MAX);
    spliced(persist(pipe, PollFlags::POLLIN, || {
        splice(pipe, None, file, Some(&mut offset), len, SpliceFFlags::empty())
    }))
}

/// poll(2): true if the other end of this pipe or socket is closed.
pub fn is_deserted(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO).unwrap_or(0);
    polled > 0 && fds[0].revents().is_some_and(|seen| seen.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
}
