//! Programs that are run together, each with its standard output in the next one's standard input.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use crate::error::{Error, Result, Told};

/// A pipe of programs, or one.
#[derive(Clone, Debug, Default)]
pub struct Line {
    steps: Vec<Vec<OsString>>,
}

/// What becomes of the bytes that a program writes to the next one, or to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tap {
    /// They go through a pipe as they do without us; the last one's go nowhere.
    Closed,
    /// The first program's go through our hands, and are counted.
    First,
    /// The last one's go into a pipe that we empty.
    Last,
}

/// A line at work.
#[derive(Debug)]
pub struct Running {
    children: Vec<(String, Child)>,
    tapped: Option<JoinHandle<io::Result<u64>>>,
}

/// How much is taken out of a tapped pipe at once.
const PIECE: usize = 1 << 20;

impl Line {
    /// One program, and its arguments.
    pub fn one<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> Self {
        Self::default().then(words)
    }

    /// With one more program behind it.
    #[must_use]
    pub fn then<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.steps.push(words.into_iter().map(Into::into).collect());
        self
    }

    /// With more arguments for its first program, in front of the others.
    #[must_use]
    pub fn with(&self, words: &[&str]) -> Self {
        let mut line = self.clone();
        if let Some(first) = line.steps.first_mut() {
            first.splice(1..1, words.iter().map(OsString::from));
        }
        line
    }

    /// With another word wherever `word` stands.
    #[must_use]
    pub fn replacing(&self, word: &str, by: &str) -> Self {
        let mut line = self.clone();
        line.steps.iter_mut().flatten().filter(|had| *had == word).for_each(|had| *had = by.into());
        line
    }

    /// Its programs, in order.
    pub fn programs(&self) -> impl Iterator<Item = String> {
        self.steps.iter().filter_map(|words| Some(words.first()?.display().to_string()))
    }

    /// Starts all of its programs; what they say goes to the file `said`.
    ///
    /// # Errors
    /// If one can't be started.
    pub fn start(&self, tap: Tap, said: &Path) -> Result<Running> {
        let said = File::create(said).told(said.display())?;
        let mut running = Running { children: Vec::new(), tapped: None };
        let mut input = Stdio::null();
        for (at, words) in self.steps.iter().enumerate() {
            let last = at + 1 == self.steps.len();
            let (program, arguments) = words.split_first().ok_or_else(|| Error::new("a line without a program"))?;
            let name = Path::new(program).file_name().unwrap_or(program).display().to_string();
            let mut command = Command::new(program);
            command.args(arguments).env("LC_ALL", "C").stdin(input).stderr(said.try_clone().told(&name)?);
            input = Stdio::null();
            let tapped = match tap {
                Tap::Closed => false,
                Tap::First => at == 0,
                Tap::Last => last,
            };
            if last && !tapped {
                command.stdout(Stdio::null());
            } else {
                let (reader, writer) = io::pipe().told(&name)?;
                command.stdout(writer);
                if !tapped {
                    input = reader.into();
                } else if last {
                    running.tapped = Some(thread::spawn(move || count(reader, io::sink())));
                } else {
                    let (next, through) = io::pipe().told(&name)?;
                    input = next.into();
                    running.tapped = Some(thread::spawn(move || count(reader, through)));
                }
            }
            let child = command.spawn().told(&name)?;
            running.children.push((name, child));
        }
        Ok(running)
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, words) in self.steps.iter().enumerate() {
            let words: Vec<_> = words.iter().map(|word| word.display().to_string()).collect();
            write!(f, "{}{}", if at == 0 { "" } else { " | " }, words.join(" "))?;
        }
        Ok(())
    }
}

impl Running {
    /// Whether one of its programs hasn't ended yet.
    ///
    /// # Errors
    /// If one can't be waited for.
    pub fn lives(&mut self) -> Result<bool> {
        let mut lives = false;
        for (name, child) in &mut self.children {
            lives |= child.try_wait().told(name)?.is_none();
        }
        Ok(lives)
    }

    /// Waits for all of its programs, and comes back with how many bytes were tapped. `said` is the file that they spoke to.
    ///
    /// # Errors
    /// If one of them failed.
    pub fn end(mut self, said: &Path) -> Result<Option<u64>> {
        let mut failed: Option<(String, ExitStatus)> = None;
        for (name, child) in &mut self.children {
            let status = child.wait().told(&*name)?;
            if !status.success() {
                failed.get_or_insert((name.clone(), status));
            }
        }
        if let Some((name, status)) = failed {
            let text = fs::read(said).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let last: Vec<_> = text.lines().rev().take(3).collect();
            return Err(Error::new(format!("{name}: {status}: {}", last.join("; "))));
        }
        let tapped = self.tapped.take().map(|thread| thread.join().map_err(|_| Error::new("a tap broke"))?.told("tap"));
        tapped.transpose()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let (_gone, _reaped) = (child.kill(), child.wait());
        }
    }
}

/// Passes all bytes on, and counts them.
fn count(mut from: impl Read, mut to: impl Write) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(bytes),
            len => {
                to.write_all(&piece[..len])?;
                bytes += len as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tapped(line: &Line, tap: Tap) -> Result<Option<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        line.start(tap, &said).unwrap().end(&said)
    }

    #[test]
    fn octets_are_counted_between_two_programs_and_behind_the_last() {
        let line = Line::one(["printf", "12345"]).then(["wc", "-c"]);
        assert_eq!(line.to_string(), "printf 12345 | wc -c");
        assert_eq!(tapped(&line, Tap::First).unwrap(), Some(5));
        assert_eq!(tapped(&line, Tap::Last).unwrap(), Some(2));
        assert_eq!(tapped(&line, Tap::Closed).unwrap(), None);
    }

    #[test]
    fn any_program_that_fails_fails_the_line_and_says_why() {
        let line = Line::one(["sh", "-c", "echo no such luck >&2; exit 3"]).then(["cat"]);
        let why = tapped(&line, Tap::Closed).unwrap_err().to_string();
        assert!(why.contains("exit status: 3") && why.contains("no such luck"), "{why}");
    }
}
