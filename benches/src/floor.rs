//! The floor: the same bytes, moved by the cheapest system calls, and nothing else. Nothing can be faster that moves them at all.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::fcntl::{FallocateFlags, FcntlArg, SpliceFFlags, copy_file_range, fallocate, fcntl, splice};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, Told};
use crate::ranges::Range;

/// What a pipe holds at most where one isn't root.
const PIPE: i32 = 1 << 20;
/// What is read at once where bytes have to be in memory.
const PIECE: u64 = 1 << 20;
/// What one call is asked for at most: what the kernel moves at most, in whole pages.
const ONCE: u64 = 0x7fff_f000;

/// Splices the ranges of a file into a pipe.
///
/// # Errors
/// If the file is shorter, or the pipe is closed or no pipe.
pub fn send(from: &Path, ranges: &[Range], pipe: BorrowedFd<'_>) -> Result<()> {
    let file = File::open(from).told(from.display())?;
    let _smaller_is_slower = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
    each(ranges, |at, len| {
        let mut at = offset(at)?;
        Ok(splice(&file, Some(&mut at), pipe, None, len, SpliceFFlags::empty())?)
    })
    .told("send")
}

/// Splices what comes by a pipe into the ranges of a new file of this size; from a socket, as sshd gives one, it is read and
/// written. `reserve` has each range allocated before it is
/// written, which is faster on ext4 and slower on tmpfs.
///
/// # Errors
/// If the file can't be written, or the pipe ends too early.
pub fn receive(pipe: BorrowedFd<'_>, ranges: &[Range], size: u64, reserve: bool, to: &Path) -> Result<()> {
    let file = sized(to, size)?;
    let spliced = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE)).is_ok();
    let mut piece = vec![0; if spliced { 0 } else { usize::try_from(PIECE).told("receive")? }];
    for range in ranges {
        if reserve {
            let (start, len) = (offset(range.start).told("receive")?, offset(range.len).told("receive")?);
            fallocate(&file, FallocateFlags::empty(), start, len).told(to.display())?;
        }
        each(&[*range], |at, len| {
            if spliced {
                let mut at = offset(at)?;
                return Ok(splice(pipe, None, &file, Some(&mut at), len, SpliceFFlags::empty())?);
            }
            let len = nix::unistd::read(pipe, &mut piece[..len.min(1 << 20)])?;
            file.write_all_at(&piece[..len], at)?;
            Ok(len)
        })
        .told("receive")?;
    }
    Ok(())
}

/// Copies the ranges to a new file of this size, in the kernel.
///
/// # Errors
/// If a file can't be read or written.
pub fn copy(from: &Path, ranges: &[Range], size: u64, to: &Path) -> Result<()> {
    let (source, target) = (File::open(from).told(from.display())?, sized(to, size)?);
    each(ranges, |at, len| {
        let (mut here, mut there) = (offset(at)?, offset(at)?);
        Ok(copy_file_range(&source, Some(&mut here), &target, Some(&mut there), len)?)
    })
    .told("copy")
}

/// Copies the ranges to a new file of this size, by reading and writing.
///
/// # Errors
/// If a file can't be read or written.
pub fn rewrite(from: &Path, ranges: &[Range], size: u64, to: &Path) -> Result<()> {
    let (source, target) = (File::open(from).told(from.display())?, sized(to, size)?);
    let mut piece = vec![0; usize::try_from(PIECE).told("rewrite")?];
    each(ranges, |at, len| {
        let len = source.read_at(&mut piece[..len.min(1 << 20)], at)?;
        target.write_all_at(&piece[..len], at)?;
        Ok(len)
    })
    .told("rewrite")
}

/// The SHA-256 of each 1 MiB of the ranges: what one core needs for it. Comes back with the digests' own, so that nothing of it can be
/// left out.
///
/// # Errors
/// If the file can't be read.
pub fn sha256(from: &Path, ranges: &[Range]) -> Result<String> {
    let file = File::open(from).told(from.display())?;
    let mut piece = vec![0; usize::try_from(PIECE).told("sha256")?];
    let mut all = Sha256::new();
    each(ranges, |at, len| {
        let len = file.read_at(&mut piece[..len.min(1 << 20)], at)?;
        all.update(Sha256::digest(&piece[..len]));
        Ok(len)
    })
    .told("sha256")?;
    Ok(all.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

/// Runs a remote shell, hands on what goes through it both ways, and writes to `counts` how many bytes that were, there and back, when
/// it has ended. Comes back with its exit code.
///
/// # Errors
/// If it can't be started, or what it says can't be handed on.
pub fn tap(counts: &Path, shell: &[&str]) -> Result<u8> {
    let (program, words) = shell.split_first().ok_or_else(|| Error::new("tap: of what?"))?;
    let mut command = Command::new(program);
    let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().told(program)?;
    let (Some(mut into), Some(mut out)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Error::new("tap: no pipes"));
    };
    let sent = Arc::new(AtomicU64::new(0));
    let sending = Arc::clone(&sent);
    // It may wait for bytes of ours when the other side has hung up: it ends with us.
    thread::spawn(move || hand_on(&mut io::stdin().lock(), &mut into, &sending));
    let back = AtomicU64::new(0);
    hand_on(&mut out, &mut io::stdout(), &back).told("tap")?;
    let status = child.wait().told(program)?;
    let text = format!(
        "{} {}
",
        sent.load(Ordering::Relaxed),
        back.load(Ordering::Relaxed)
    );
    fs::write(counts, text).told(counts.display())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn hand_on(from: &mut impl Read, to: &mut impl Write, count: &AtomicU64) -> io::Result<()> {
    let mut piece = vec![0; 256 << 10];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                to.write_all(&piece[..len])?;
                to.flush()?;
                count.fetch_add(len as u64, Ordering::Relaxed);
            }
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}

/// The bytes that [`tap`] has counted, there and back.
///
/// # Errors
/// If it hasn't.
pub fn counts(path: &Path) -> Result<[u64; 2]> {
    let said = fs::read_to_string(path).told(path.display())?;
    let mut numbers = said.split_whitespace().map(str::parse);
    match [numbers.next(), numbers.next()] {
        [Some(Ok(there)), Some(Ok(back))] => Ok([there, back]),
        _ => Err(Error::new(format!("{}: {said:?} are no counts", path.display()))),
    }
}

/// Has `moved` move the ranges, as much at a time as it does.
fn each(ranges: &[Range], mut moved: impl FnMut(u64, usize) -> io::Result<usize>) -> io::Result<()> {
    for range in ranges {
        let mut done = 0;
        while done < range.len {
            let len = usize::try_from((range.len - done).min(ONCE)).map_err(io::Error::other)?;
            match moved(range.start + done, len) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => done += len as u64,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
    }
    Ok(())
}

fn offset(at: u64) -> io::Result<i64> {
    i64::try_from(at).map_err(io::Error::other)
}

fn sized(path: &Path, size: u64) -> Result<File> {
    let file = File::create_new(path).told(path.display())?;
    file.set_len(size).told(path.display())?;
    Ok(file)
}

/// `floor`'s command line, without its own name: what is to be moved how. Comes back with the exit code.
///
/// # Errors
/// If it isn't understood, or what it asks for fails.
pub fn run(words: &[String]) -> Result<u8> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ranges = |path: &str| crate::ranges::read(path.as_ref());
    let bytes = |size: &str| size.parse::<u64>().told(size);
    let moved = match words[..] {
        ["tap", counts, ref shell @ ..] => return tap(counts.as_ref(), shell),
        ["send", from, list] => send(from.as_ref(), &ranges(list)?, io::stdout().as_fd()),
        ["receive", to, list, size] => receive(io::stdin().as_fd(), &ranges(list)?, bytes(size)?, false, to.as_ref()),
        ["reserve", to, list, size] => receive(io::stdin().as_fd(), &ranges(list)?, bytes(size)?, true, to.as_ref()),
        ["copy", from, to, list, size] => copy(from.as_ref(), &ranges(list)?, bytes(size)?, to.as_ref()),
        ["rewrite", from, to, list, size] => rewrite(from.as_ref(), &ranges(list)?, bytes(size)?, to.as_ref()),
        ["sha256", from, list] => {
            println!("{}", sha256(from.as_ref(), &ranges(list)?)?);
            Ok(())
        }
        _ => Err(Error::new(
            "usage: floor send FROM RANGES | floor <receive|reserve> TO RANGES SIZE\n       \
             floor <copy|rewrite> FROM TO RANGES SIZE | floor sha256 FROM RANGES | floor tap COUNTS PROGRAM [WORD...]",
        )),
    };
    moved.map(|()| 0)
}
