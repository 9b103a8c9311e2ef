//! The child process that holds the link: ssh or the program of `--rsh`.

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

/// Time that a child may take to exit after the conversation.
const LINGER: Duration = Duration::from_secs(5);
/// Time between SIGTERM and SIGKILL.
const TERMINATION: Duration = Duration::from_secs(2);
/// Time to wait for the last lines of standard error after the child has exited. A control master may keep the pipe open, so that end of
/// file can't be awaited.
const LAST_LINES: Duration = Duration::from_millis(300);
/// Time for this process to receive a signal from the terminal that ended the child.
const OWN_SIGNAL: Duration = Duration::from_millis(200);
/// Time for which a line of the child is held back. The last line before it exits becomes the error message and is not relayed.
const HOLD: Duration = Duration::from_secs(1);
/// Maximum bytes of a relayed line.
const LINE: usize = 1024;
/// Maximum number of relayed lines.
const LINES: usize = 1000;

/// The exit status of OpenSSH for any failure of its own.
const SSH_FAILED: i32 = 255;
/// Texts in error messages of ssh that mean a temporary failure of the network or the server. The exit status of ssh is the same for all
/// failures, so that only its messages tell.
const TEMPORARY_ERRORS: [&str; 12] = [
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
/// Texts in error messages of ssh that mean a refused login. They take precedence over [`TEMPORARY_ERRORS`], which may come from a jump
/// host.
const PERMANENT_ERRORS: [&str; 3] =
    ["Host key verification failed", "Permission denied", "Too many authentication failures"];
/// The message for a connection that broke.
const LOST: &str = "the connection was lost";

/// The child process that connects to the other side. Dropping it ends the child.
pub struct RemoteProcess {
    host: String,
    program: String,
    shared: Arc<ProcessShared>,
    /// Present until the other side has answered: ssh may ask for a password or about a host key.
    lent_terminal: Mutex<Option<LentTerminal>>,
}

struct ProcessShared {
    /// `None` once the child has been waited for, because its number may then belong to another process. The lock is never held while a
    /// message is printed, because a signal handler takes it.
    pid: Mutex<Option<Pid>>,
    state: Mutex<ProcessState>,
    changed: Condvar,
    messages: Messages,
    host: String,
}

struct ProcessState {
    /// True once the child has exited.
    ended: bool,
    status: Option<ExitStatus>,
    /// The line that is held back.
    held: Option<String>,
    /// Number of lines that were relayed.
    relayed: usize,
    /// Whether its messages so far mean a permanent or a temporary failure.
    failure: Option<Failure>,
    /// True once its standard error has reached end of file.
    stderr_closed: bool,
}

/// The hint for an account whose login shell or key doesn't run the command.
pub const REFUSED_HINT: &str = "the account needs a login shell that isn't restricted, such as /bin/sh (chsh -s /bin/sh USER, or usermod -s); \
                                a key that may do nothing else is described in xfer-hole-restrict(7)";

impl RemoteProcess {
    /// Starts the child and returns it with its standard input and its standard output.
    ///
    /// Lines on its standard error are printed with the name of the host.
    ///
    /// # Errors
    /// Returns a message of one line if the child, a pipe or a thread can't be created.
    pub fn start(mut command: Command, host: String, messages: Messages) -> Result<(Self, File, File), String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source: io::Error| format!("cannot start {}: {}", shown(program.as_ref()), reason(&source));
        let (to_child, to) = io::pipe().map_err(failed)?;
        let (from, from_child) = io::pipe().map_err(failed)?;
        let (errors, errors_of_child) = io::pipe().map_err(failed)?;
        let lent_terminal = Mutex::new(Some(LentTerminal::begin()));
        let child = command.stdin(to_child).stdout(from_child).stderr(Stdio::from(errors_of_child)).spawn();
        // Closes this process's copies of the child's pipe ends; otherwise end of file would never be seen.
        drop(command);
        let child = child.map_err(failed)?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let state = Mutex::new(ProcessState {
            ended: false,
            status: None,
            held: None,
            relayed: 0,
            failure: None,
            stderr_closed: false,
        });
        let (pid, changed) = (Mutex::new(Some(pid)), Condvar::new());
        let shared = Arc::new(ProcessShared { pid, state, changed, messages, host: host.clone() });
        let (waiter, relay) = (Arc::clone(&shared), Arc::clone(&shared));
        let errors: File = OwnedFd::from(errors).into();
        thread::Builder::new().spawn(move || relay.relay(&errors)).map_err(failed)?;
        thread::Builder::new().spawn(move || waiter.wait(child)).map_err(failed)?;
        Ok((Self { host, program, shared, lent_terminal }, OwnedFd::from(to).into(), OwnedFd::from(from).into()))
    }

    /// Returns a function that ends the child from any thread and does not wait for its exit.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            shared.terminate();
            let killer = Arc::clone(&shared);
            // If no thread can be started, dropping the RemoteProcess kills the child.
            let _later = thread::Builder::new().spawn(move || killer.end());
        }
    }

    /// Records that the other side has answered, so that the child asks no more questions on the terminal.
    pub fn answered(&self) {
        drop(self.lent_terminal.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Waits for the child to exit after the conversation, and ends it after 5 seconds.
    pub fn close(&self) {
        if self.shared.status(LINGER).is_none() {
            self.shared.end();
        }
        self.shared.release();
    }

    /// Ends the child and returns why the link was lost: its last message, or how it exited.
    ///
    /// `noise` is the last line of the other side that was not a reply. `begun` is true if the remote program has replied; then a failure
    /// of ssh is a failure of the link.
    #[must_use]
    pub fn why(&self, noise: Option<&str>, begun: bool) -> LinkLoss {
        let status = self.shared.status(LINGER);
        self.shared.end();
        // A signal from the terminal that ended the child was sent to this process, too, and is then the reason.
        thread::sleep(OWN_SIGNAL);
        let last = self.shared.last_line();
        let Self { host, program, .. } = self;
        let program = shown(program.as_ref());
        let code = status.and_then(|status| status.code());
        // With LogLevel=ERROR ssh prints nothing about a broken connection, but it does about a refused login.
        let said = self.shared.state().failure;
        let temporary = said == Some(Failure::Temporary) || (said.is_none() && last.is_none());
        let failure = Failure::temporary_if(match code {
            Some(SSH_FAILED) => begun || temporary,
            // The remote program exited, and its status tells. If it was killed, the link counts as lost.
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

    /// Returns a message if the remote account did not run the command, because its login shell or key allows other commands only.
    ///
    /// `why` is the text of the [`LinkLoss`] that [`RemoteProcess::why`] returned. The result is `None` if the link itself failed.
    #[must_use]
    pub fn refusal(&self, why: &str) -> Option<String> {
        self.code().filter(|&code| code != SSH_FAILED)?;
        let why = why.strip_prefix(&*format!("{}: ", self.host)).unwrap_or(why);
        // Some shells print the whole command.
        let why = why.split_once("exec sh -c ").map_or(why.to_owned(), |(before, _)| format!("{before}exec sh -c ..."));
        Some(format!("{}: the account's shell or key there doesn't run the command: {why}", self.host))
    }

    /// Returns the exit status of the child; `None` if it runs or was killed.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.shared.state().status.and_then(|status| status.code())
    }
}

/// Why a link was lost, and whether a retry can succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLoss {
    /// The reason: one line that names the host.
    pub what: String,
    /// Whether a retry can succeed.
    pub failure: Failure,
}

/// Returns the kind of failure after another line of ssh; `before` is the kind after the lines before.
fn classify(line: &str, before: Option<Failure>) -> Option<Failure> {
    let contains = |words: &[&str]| words.iter().any(|words| line.contains(words));
    match before {
        _ if contains(&PERMANENT_ERRORS) => Some(Failure::Permanent),
        None if contains(&TEMPORARY_ERRORS) => Some(Failure::Temporary),
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

    /// Ends the child with SIGTERM, and with SIGKILL after 2 seconds.
    fn end(&self) {
        self.terminate();
        let ended = self.until(TERMINATION, |state| state.ended).ended;
        if !ended {
            self.signal(&[Signal::SIGKILL]);
        }
    }

    /// Sends SIGTERM to the child, and SIGCONT in case it is stopped.
    fn terminate(&self) {
        self.signal(&[Signal::SIGTERM, Signal::SIGCONT]);
    }

    fn signal(&self, signals: &[Signal]) {
        // Under the lock, so that the child is not reaped and its number reused meanwhile.
        if let Some(pid) = *self.pid() {
            for &signal in signals {
                let _gone = kill(pid, signal);
            }
        }
    }

    fn pid(&self) -> MutexGuard<'_, Option<Pid>> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the child to exit, and records its status.
    fn wait(&self, mut child: Child) {
        // WNOWAIT leaves the child unreaped, so that its number stays reserved until the lock is taken.
        let _exited = nix::sys::wait::waitid(
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

    /// Waits up to `most` for the child to exit, and returns its status.
    fn status(&self, most: Duration) -> Option<ExitStatus> {
        let state = self.until(most, |state| state.ended);
        state.status
    }

    /// Waits until `condition` holds, up to `most`.
    fn until(&self, most: Duration, condition: impl Fn(&ProcessState) -> bool) -> MutexGuard<'_, ProcessState> {
        let over = Instant::now() + most;
        let mut state = self.state();
        loop {
            let left = over.saturating_duration_since(Instant::now());
            if condition(&state) || left.is_zero() {
                return state;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the line that is held back, after waiting for the end of standard error.
    fn last_line(&self) -> Option<String> {
        self.until(LAST_LINES, |state| state.stderr_closed).held.take()
    }

    /// Prints the line that was held back.
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

    /// Prints the lines of the child, each when the next arrives or after a second.
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
        self.state().stderr_closed = true;
        self.changed.notify_all();
    }

    /// Prints the line that was held back, and holds this one back instead.
    fn hold(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        let text = match text.trim() {
            // The details of a broken pipe do not help the user.
            text if text.starts_with("client_loop: send disconnect: ") => LOST,
            text => text,
        };
        if !text.is_empty() {
            self.release();
            let mut state = self.state();
            state.held = Some(shown(text.as_ref()));
            state.failure = classify(text, state.failure);
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the kind of failure that these lines of ssh mean.
    fn kind_of(lines: &[&str]) -> Option<Failure> {
        lines.iter().fold(None, |before, line| classify(line, before))
    }

    #[test]
    fn a_refused_login_outweighs_a_lost_connection() {
        let closed = "kex_exchange_identification: Connection closed by remote host";
        assert_eq!(
            kind_of(&["ssh: connect to host jump port 22: Connection refused", closed]),
            Some(Failure::Temporary)
        );
        assert_eq!(kind_of(&["me@jump: Permission denied (publickey).", closed]), Some(Failure::Permanent));
        assert_eq!(kind_of(&[closed, "Host key verification failed."]), Some(Failure::Permanent));
        assert_eq!(kind_of(&["Could not resolve hostname nowhere: Name or service not known"]), None);
    }
}
