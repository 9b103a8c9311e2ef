//! The program that holds the link: ssh, as our child.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xfer_hole_os::{reason, shown, sys};
use xfer_hole_ui::{Failure, LentTerminal, Messages};

/// How long a child that has no more to do may take to end.
const LINGER: Duration = Duration::from_secs(5);
/// How long a child that was told to end may take, before it is killed.
const TERMINATION: Duration = Duration::from_secs(2);
/// How long what it says last may take to arrive once it has ended. Not until end of file: a master connection keeps it open.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long a signal of the terminal may take to be heard by us, once it has ended the child.
const OURS: Duration = Duration::from_millis(200);
/// How long a line of the child is held back: the last before it ends is the reason, and needn't be said twice.
const HOLD: Duration = Duration::from_secs(1);
/// Bytes of a line that are relayed.
const LINE: usize = 1024;
/// Lines that are relayed: more is a flood.
const LINES: usize = 1000;

/// The status with which OpenSSH ends when it failed itself, whatever the reason.
const SSH_FAILED: i32 = 255;
/// What ssh says of a network or a server that doesn't answer now and may answer later. Its status is the same for all
/// reasons, so there is nothing but its words to go by.
const PASSING: [&str; 12] = [
    "Connection refused",
    "Connection reset by",
    "Host is down",
    "Network is down",
    "Network is unreachable",
    "No route to host",
    "Temporary failure in name resolution",
    "closed by remote host",
    "kex_exchange_identification: ",
    "not responding",
    "timed out",
    LOST,
];
/// What it says of a login that will be refused again: it counts more than what else is said, as of the jump host behind which
/// that happened.
const LASTING: [&str; 3] = ["Host key verification failed", "Permission denied", "Too many authentication failures"];
/// What is said of a connection that broke.
const LOST: &str = "the connection was lost";

/// The other side, as far as the program that holds the link to it tells.
pub struct RemoteProcess {
    host: String,
    program: String,
    shared: Arc<ProcessShared>,
    /// Until the other side has answered the child may ask for a password, or whether a host is the right one.
    asks: Mutex<Option<LentTerminal>>,
}

struct ProcessShared {
    /// `None` when the child has been waited for: its number may be another's then. Never held while something is said: whoever handles
    /// a signal wants it.
    pid: Mutex<Option<Pid>>,
    state: Mutex<ProcessState>,
    changed: Condvar,
    messages: Messages,
    host: String,
}

struct ProcessState {
    ended: bool,
    status: Option<ExitStatus>,
    /// A line that is held back.
    held: Option<String>,
    /// Lines that were relayed.
    relayed: usize,
    /// What its lines so far say of trying again.
    failure: Option<Failure>,
    /// It says no more.
    deaf: bool,
}

/// What to do where the account runs nothing of ours.
pub const REFUSED_HINT: &str = "the account needs a login shell that isn't restricted, such as /bin/sh (chsh -s /bin/sh USER, or usermod -s); \
                                a key that may do nothing else is described in xfer-hole-restrict(7)";

impl RemoteProcess {
    /// Starts the child: with it come its standard input and its standard output. What it says on standard error is relayed with the
    /// host's name. The error is one line.
    pub fn start(mut command: Command, host: String, messages: Messages) -> Result<(Self, File, File), String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source: io::Error| format!("cannot start {}: {}", shown(program.as_ref()), reason(&source));
        let (to_child, to) = io::pipe().map_err(failed)?;
        let (from, from_child) = io::pipe().map_err(failed)?;
        let (errors, errors_of_child) = io::pipe().map_err(failed)?;
        let asks = Mutex::new(Some(LentTerminal::begin()));
        let child = command.stdin(to_child).stdout(from_child).stderr(Stdio::from(errors_of_child)).spawn();
        // Its own ends are the child's alone: else they would never be closed.
        drop(command);
        let child = child.map_err(failed)?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let state =
            Mutex::new(ProcessState { ended: false, status: None, held: None, relayed: 0, failure: None, deaf: false });
        let (pid, changed) = (Mutex::new(Some(pid)), Condvar::new());
        let shared = Arc::new(ProcessShared { pid, state, changed, messages, host: host.clone() });
        let (waiter, ear) = (Arc::clone(&shared), Arc::clone(&shared));
        let errors: File = OwnedFd::from(errors).into();
        thread::Builder::new().spawn(move || ear.relay(&errors)).map_err(failed)?;
        thread::Builder::new().spawn(move || waiter.wait(child)).map_err(failed)?;
        Ok((Self { host, program, shared, asks }, OwnedFd::from(to).into(), OwnedFd::from(from).into()))
    }

    /// What ends the child, from any thread, without waiting for that.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            shared.terminate();
            let killer = Arc::clone(&shared);
            // Without a thread for it, whoever drops this kills it.
            let _later = thread::Builder::new().spawn(move || killer.end());
        }
    }

    /// The other side has answered: the child asks nothing any more.
    pub fn answered(&self) {
        drop(self.asks.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// All has been said: waits until the child has ended, and ends it if that takes too long.
    pub fn close(&self) {
        if self.shared.status(LINGER).is_none() {
            self.shared.end();
        }
        self.shared.release();
    }

    /// Why the link was lost, as far as can be told: what the child said last, or how it ended. Once the program at the other end
    /// has spoken (`begun`), it is the link that failed, whatever the child says. Ends it.
    #[must_use]
    pub fn why(&self, noise: Option<&str>, begun: bool) -> LinkLoss {
        let status = self.shared.status(LINGER);
        self.shared.end();
        // A signal that ended the child was for us too, and is the reason then.
        thread::sleep(OURS);
        let last = self.shared.last_words();
        let Self { host, program, .. } = self;
        let program = shown(program.as_ref());
        let code = status.and_then(|status| status.code());
        // Of a connection that broke ssh says nothing where its LogLevel is ERROR; of a login that is refused it does.
        let said = self.shared.state().failure;
        let passing = said == Some(Failure::Temporary) || (said.is_none() && last.is_none());
        let failure = Failure::temporary_if(match code {
            Some(SSH_FAILED) => begun || passing,
            // The program at the other side ended by itself, and its status tells; one that was killed is the link's loss.
            Some(code) if code > 0 => code == i32::from(Failure::Temporary.status()) || (begun && code > 128),
            _ => begun,
        });
        let what = match (last.as_deref().or(noise), code) {
            (Some(line), _) => format!("{host}: {line}"),
            (_, Some(0)) => format!("{host}: the connection ended before the image was whole there"),
            (_, Some(code)) => format!("{host}: the connection ended: {program} exited with status {code}"),
            (_, None) => format!("{host}: the connection ended: {program} was killed"),
        };
        LinkLoss { what, failure }
    }

    /// What [`RemoteProcess::why`] has given, where nothing of ours was started at the other side because the login shell or the key of the account
    /// allows something else: what was to start it ended by itself, and not the link.
    #[must_use]
    pub fn refusal(&self, why: &str) -> Option<String> {
        self.code().filter(|&code| code != SSH_FAILED)?;
        let why = why.strip_prefix(&*format!("{}: ", self.host)).unwrap_or(why);
        // Some say it with the whole command.
        let why = why.split_once("exec sh -c ").map_or(why.to_owned(), |(before, _)| format!("{before}exec sh -c ..."));
        Some(format!("{}: the account's shell or key there doesn't run the command: {why}", self.host))
    }

    /// How the child ended, if it has.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.shared.state().status.and_then(|status| status.code())
    }
}

/// Why a link was lost, and whether it may be there again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLoss {
    /// One line that names the host.
    pub what: String,
    /// Whether trying again can mend it.
    pub failure: Failure,
}

/// What is known of trying again when ssh has said this, too.
fn later(line: &str, before: Option<Failure>) -> Option<Failure> {
    let says = |words: &[&str]| words.iter().any(|words| line.contains(words));
    match before {
        _ if says(&LASTING) => Some(Failure::Permanent),
        None if says(&PASSING) => Some(Failure::Temporary),
        before => before,
    }
}

impl Drop for RemoteProcess {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl ProcessShared {
    fn state(&self) -> MutexGuard<'_, ProcessState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the child: a signal that it can't ignore follows if it takes too long.
    fn end(&self) {
        self.terminate();
        let ended = self.until(TERMINATION, |state| state.ended).ended;
        if !ended {
            self.signal(&[Signal::SIGKILL]);
        }
    }

    /// Tells the child to end. One that was stopped is to hear it.
    fn terminate(&self) {
        self.signal(&[Signal::SIGTERM, Signal::SIGCONT]);
    }

    fn signal(&self, signals: &[Signal]) {
        // Under the lock, so that it isn't waited for meanwhile and its number given to another.
        if let Some(pid) = *self.pid() {
            for &signal in signals {
                let _gone = kill(pid, signal);
            }
        }
    }

    fn pid(&self) -> MutexGuard<'_, Option<Pid>> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, mut child: Child) {
        // Seen, but not taken away yet: its number is still its own.
        let _seen = nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(Pid::from_raw(child.id().cast_signed())),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        );
        let mut pid = self.pid();
        *pid = None;
        let status = child.wait().ok();
        drop(pid);
        let mut state = self.state();
        (state.ended, state.status) = (true, status);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the child's end, so long at most.
    fn status(&self, most: Duration) -> Option<ExitStatus> {
        let state = self.until(most, |state| state.ended);
        state.status
    }

    fn until(&self, most: Duration, so: impl Fn(&ProcessState) -> bool) -> MutexGuard<'_, ProcessState> {
        let over = Instant::now() + most;
        let mut state = self.state();
        loop {
            let left = over.saturating_duration_since(Instant::now());
            if so(&state) || left.is_zero() {
                return state;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn last_words(&self) -> Option<String> {
        self.until(LAST_WORDS, |state| state.deaf).held.take()
    }

    /// Says the line that was held back.
    fn release(&self) {
        let mut state = self.state();
        let line = state.held.take();
        state.relayed += usize::from(line.is_some());
        let enough = state.relayed > LINES;
        drop(state);
        if let Some(line) = line.filter(|_| !enough) {
            self.messages.relay(&self.host, &line);
        }
    }

    /// Relays lines, each when the next has come or a moment later.
    fn relay(&self, errors: &File) {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if !sys::wait_readable(errors.as_fd(), HOLD).unwrap_or(true) {
                self.release();
                continue;
            }
            let bytes = sys::read_some(errors, &mut buffer).unwrap_or(0);
            for &byte in &buffer[..bytes] {
                match byte {
                    b'\n' => self.hold(&mut line),
                    _ if line.len() < LINE => line.push(byte),
                    _ => {}
                }
            }
            if bytes == 0 {
                break;
            }
        }
        self.hold(&mut line);
        self.state().deaf = true;
        self.changed.notify_all();
    }

    fn hold(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        let text = match text.trim() {
            // Which pipe broke is of interest to ssh alone.
            text if text.starts_with("client_loop: send disconnect: ") => LOST,
            text => text,
        };
        if !text.is_empty() {
            self.release();
            let mut state = self.state();
            state.held = Some(shown(text.as_ref()));
            state.failure = later(text, state.failure);
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ssh says at the end of an attempt tells whether another may succeed.
    fn said(lines: &[&str]) -> Option<Failure> {
        lines.iter().fold(None, |before, line| later(line, before))
    }

    #[test]
    fn a_refused_login_outweighs_what_the_connection_says() {
        let closed = "kex_exchange_identification: Connection closed by remote host";
        assert_eq!(said(&["ssh: connect to host jump port 22: Connection refused", closed]), Some(Failure::Temporary));
        assert_eq!(said(&["me@jump: Permission denied (publickey).", closed]), Some(Failure::Permanent));
        assert_eq!(said(&[closed, "Host key verification failed."]), Some(Failure::Permanent));
        assert_eq!(said(&["Could not resolve hostname nowhere: Name or service not known"]), None);
    }
}
