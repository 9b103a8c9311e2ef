//! Reads the replies of a receiver (SPEC.md, "The conversation") on a thread of its own while the stream is sent.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use xfer_hole_os::{reason, shown, sys};
use xfer_hole_proto::{
    ANSWER_LINE_MAX, ManifestEntry, ManifestHeader, ManifestReader, ManifestRequest, NOISE_MAX, Reply,
};
use xfer_hole_ui::Messages;

use crate::existing_offer::{ExistingOffer, ManifestProgress};
use crate::reply_state::{RECORDS, ReplyState};
use crate::{ConversationEnd, RecordSpool};

/// Beginnings of the lines that identify a receiver. Login noise may precede them on the same line.
const BEGINS: [&[u8]; 2] = [b"XFER-HOLE-READY ", b"XFER-HOLE-TEXT "];
/// The error message for reply lines that end with a carriage return: a terminal alters the bytes of the link.
pub const TERMINAL: &str = "a terminal is in between, which changes bytes: leave -t out of --rsh, or use ssh -T";
/// Time that the child may take to exit after the receiver closed its output.
const LINGER: Duration = Duration::from_secs(5);
/// Maximum number of warnings of the receiver that are printed.
const NOTES: usize = 100;
/// Time after which a full queue counts as stuck: the sending thread may itself be waiting for the receiver.
const STUCK: Duration = Duration::from_secs(2);
/// Length of one wait that has no limit.
const LONG: Duration = Duration::from_secs(3600);
/// Interval at which silence is checked.
const LOOK: Duration = Duration::from_millis(500);

/// The replies of the receiver so far. Clones share their state.
#[derive(Clone)]
pub struct ReplyReader(Arc<ReplyShared>);

struct ReplyShared {
    state: Mutex<ReplyState>,
    changed: Condvar,
    /// The host that is named in front of the warnings of the receiver.
    host: Option<String>,
    messages: Messages,
    /// Called when the conversation fails, to stop the thread that writes the stream.
    stop: Box<dyn Fn(&ConversationEnd) + Send + Sync>,
}

impl ReplyReader {
    /// Starts a thread that reads replies from `from`.
    ///
    /// `stop` is called on another thread when the conversation fails. Warnings of the receiver are printed with the name of `host`.
    ///
    /// # Errors
    /// Returns an error if the thread can't be started.
    pub fn listen(
        from: File,
        host: Option<String>,
        messages: Messages,
        stop: impl Fn(&ConversationEnd) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let state = ReplyState {
            text: false,
            ready: None,
            begun: false,
            ending: None,
            last_read: Instant::now(),
            notes: 0,
            noise: None,
            want: None,
            offer: None,
            manifest: None,
            records: RecordSpool::default(),
            full: false,
            stuck: false,
            discards: false,
            writes: false,
            moved: Instant::now(),
        };
        let shared =
            ReplyShared { state: Mutex::new(state), changed: Condvar::new(), host, messages, stop: Box::new(stop) };
        let replies = Self(Arc::new(shared));
        let reader = replies.clone();
        thread::Builder::new().spawn(move || reader.read_lines(&from))?;
        Ok(replies)
    }

    /// Starts a thread that ends the conversation if no reply arrives for `patience`.
    ///
    /// The time counts from the first reply, or from now if `at_once` is set. Bytes that were written prove nothing, because pipes and
    /// sockets buffer megabytes. While the queue of records is full, and therefore no reply is read, the link counts as dead if a write
    /// is blocked for `patience`.
    ///
    /// # Errors
    /// Returns an error if the thread can't be started.
    pub fn watch(&self, patience: Duration, at_once: bool) -> io::Result<()> {
        let watcher = self.clone();
        watcher.state().begun |= at_once;
        thread::Builder::new().spawn(move || watcher.watch_silence(patience))?;
        Ok(())
    }

    /// Waits until a receiver or a shell has replied. Returns true if it is a shell that needs the text of recv-hole.sh.
    ///
    /// # Errors
    /// Returns how the conversation ended, if it ended before.
    pub fn wants_text(&self) -> Result<bool, ConversationEnd> {
        let known = |state: &ReplyState| state.text || state.ready.is_some();
        let state = self.wait(None, known);
        if known(&state) { Ok(state.text) } else { Err(state.ended()) }
    }

    /// Waits for READY and returns its words.
    ///
    /// # Errors
    /// Returns how the conversation ended, if it ended before.
    pub fn ready(&self) -> Result<Vec<String>, ConversationEnd> {
        let state = self.wait(None, |state| state.ready.is_some());
        state.ready.clone().ok_or_else(|| state.ended())
    }

    /// Records that WANT is about to be sent.
    pub fn ask(&self, want: ManifestRequest) {
        self.state().want = Some(want);
    }

    /// Returns true if WANT was sent.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.state().want.is_some()
    }

    /// Waits up to `most` for the reply to WANT. Returns `None` if it has not arrived.
    ///
    /// # Errors
    /// Returns how the conversation ended, if it ended before.
    pub fn offer(&self, most: Duration) -> Result<Option<ExistingOffer>, ConversationEnd> {
        let mut state = self.wait(Some(most), |state| state.offer.is_some());
        match (state.offer.take(), &state.ending) {
            (Some(offer), _) => Ok(Some(offer)),
            (None, Some(ending)) => Err(ending.clone()),
            (None, None) => Ok(None),
        }
    }

    /// Waits up to `most` for the next record of the manifest.
    ///
    /// # Errors
    /// Returns how the conversation ended, if it ended before, or that the temporary file of the queue can't be read.
    pub fn told(&self, most: Duration) -> Result<ManifestProgress, ConversationEnd> {
        let mut state = self.wait(Some(most), |state| !state.records.is_empty() || state.manifest_has_ended());
        let unreadable =
            |error: io::Error| ConversationEnd::failed(format!("cannot read a temporary file: {}", reason(&error)));
        if let Some(record) = state.records.pop().map_err(unreadable)? {
            let room = state.full && state.records.len() < RECORDS / 2;
            state.stuck = false;
            state.moved = Instant::now();
            drop(state);
            if room {
                self.0.changed.notify_all();
            }
            return Ok(ManifestProgress::Record(record));
        }
        match &state.ending {
            _ if state.manifest_has_ended() => Ok(ManifestProgress::End),
            Some(ending) => Err(ending.clone()),
            None => Ok(ManifestProgress::Nothing),
        }
    }

    /// Waits up to `most` until the manifest is complete. Returns true if it is.
    ///
    /// # Errors
    /// Returns how the conversation ended, if it ended before, or that the queue of records is full.
    pub fn told_all(&self, most: Duration) -> Result<bool, ConversationEnd> {
        let state = self.wait(Some(most), ReplyState::manifest_has_ended);
        match &state.ending {
            _ if state.manifest_has_ended() => Ok(true),
            _ if state.full => Err(ConversationEnd::failed("it has more records than can be kept here")),
            Some(ending) => Err(ending.clone()),
            None => Ok(false),
        }
    }

    /// Waits until `condition` holds, the conversation has ended, or `most` has passed.
    fn wait(&self, most: Option<Duration>, condition: impl Fn(&ReplyState) -> bool) -> MutexGuard<'_, ReplyState> {
        let over = most.map(|most| Instant::now() + most);
        let mut state = self.state();
        while !condition(&state) && state.ending.is_none() {
            let left = over.map_or(LONG, |over| over.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// Returns true if the conversation has ended, so that nothing more must be sent.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state().ending.is_some()
    }

    /// Records that a write to the stream begins (`true`) or has ended (`false`).
    pub fn note_write(&self, begins: bool) {
        let mut state = self.state();
        state.writes = begins;
        state.moved = Instant::now();
    }

    /// Waits for the end of the conversation. Returns `None` if that takes longer than `most`.
    ///
    /// Records of the manifest that arrive meanwhile are discarded.
    #[must_use]
    pub fn ending(&self, most: Option<Duration>) -> Option<ConversationEnd> {
        self.state().discards = true;
        self.0.changed.notify_all();
        self.wait(most, |_| false).ending.clone()
    }

    fn state(&self) -> MutexGuard<'_, ReplyState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records how the conversation ended, unless it has ended already.
    fn end(&self, ending: ConversationEnd) {
        let mut state = self.state();
        if state.ending.is_some() {
            return;
        }
        // After Closed the child may still print the reason, so that it is not stopped yet.
        let stops =
            matches!(ending, ConversationEnd::Failed(_) | ConversationEnd::Wrong(_) | ConversationEnd::Silent(_));
        state.ending = Some(ending.clone());
        drop(state);
        self.0.changed.notify_all();
        if stops {
            (self.0.stop)(&ending);
        }
    }

    /// Reads and processes lines until the conversation ends.
    fn read_lines(&self, from: &File) {
        let mut line = Vec::new();
        let mut noise = 0;
        let mut buffer = [0; 4096];
        loop {
            let bytes = match sys::read_some(from, &mut buffer) {
                Ok(0) => break,
                Ok(bytes) => bytes,
                Err(error) => {
                    return self.end(ConversationEnd::failed(format!("cannot hear the receiver: {}", reason(&error))));
                }
            };
            let ready = {
                let mut state = self.state();
                state.last_read = Instant::now();
                state.ready.is_some()
            };
            noise += if ready { 0 } else { bytes };
            for &byte in &buffer[..bytes] {
                if byte != b'\n' {
                    // No reply is longer. Login noise may be, and is cut.
                    if line.len() < ANSWER_LINE_MAX {
                        line.push(byte);
                    }
                    continue;
                }
                if self.process_line(&line) {
                    return;
                }
                line.clear();
            }
            if noise > NOISE_MAX && self.state().ready.is_none() {
                return self.end(ConversationEnd::failed("it says much, and nothing of a receiver"));
            }
        }
        if !line.is_empty() {
            self.process_line(&line);
        }
        let noise = self.state().noise.take();
        let ending = ConversationEnd::Closed(noise);
        self.end(ending.clone());
        thread::sleep(LINGER);
        (self.0.stop)(&ending);
    }

    /// Processes a line of the reply to WANT. Returns `None` if the line is not part of it.
    fn process_offer(&self, line: &[u8]) -> Option<Result<(), String>> {
        let mut state = self.state();
        let want = state.want?;
        let Some(manifest) = &mut state.manifest else {
            let offer = match line {
                _ if state.offer == Some(ExistingOffer::Same) => return None,
                b"SAME" if want.digest.is_some() => ExistingOffer::Same,
                _ if line.starts_with(ManifestHeader::WORD) => match ManifestHeader::parse(line) {
                    Ok(manifest) if manifest.size > want.size => {
                        return Some(Err("it has more than was asked for".into()));
                    }
                    Ok(manifest) => {
                        state.manifest = Some(ManifestReader::new(manifest));
                        ExistingOffer::Manifest(manifest)
                    }
                    Err(flaw) => return Some(Err(flaw.to_string())),
                },
                _ => return None,
            };
            state.offer = Some(offer);
            drop(state);
            self.0.changed.notify_all();
            return Some(Ok(()));
        };
        let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        if manifest.has_ended() || ![&b"DATA"[..], b"HOLE", b"END"].contains(&word) {
            return None;
        }
        let entry = match manifest.line(line) {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error.to_string())),
        };
        if let ManifestEntry::Record(record) = entry
            && !state.discards
        {
            if let Err(error) = state.records.push(record) {
                return Some(Err(format!("cannot write a temporary file: {}", reason(&error))));
            }
            // A full queue makes the receiver wait. Some more records are accepted if it is stuck, because FAIL may follow them.
            while state.records.len() >= state.queue_limit() && state.ending.is_none() && !state.discards {
                if !std::mem::replace(&mut state.full, true) {
                    state.moved = Instant::now();
                }
                let before = state.records.len();
                let (guard, timeout) =
                    self.0.changed.wait_timeout(state, STUCK).unwrap_or_else(PoisonError::into_inner);
                state = guard;
                state.stuck |= timeout.timed_out() && state.records.len() == before;
            }
            if std::mem::take(&mut state.full) {
                state.last_read = Instant::now();
            }
        }
        drop(state);
        self.0.changed.notify_all();
        Some(Ok(()))
    }

    /// Processes a line. Returns true if it ends the conversation.
    fn process_line(&self, line: &[u8]) -> bool {
        if let Some(taken) = self.process_offer(line) {
            return match taken {
                Ok(()) => false,
                Err(what) => {
                    self.end(ConversationEnd::failed(what));
                    true
                }
            };
        }
        let ready = self.state().ready.is_some();
        let reply = match (Reply::parse(line), ready) {
            (Ok(reply @ (Reply::Text | Reply::Ready(_) | Reply::Fail(_) | Reply::Wait)), false) => reply,
            (_, false) => {
                let begin = (0..line.len()).find(|&at| BEGINS.iter().any(|words| line[at..].starts_with(words)));
                if begin.is_some() && line.ends_with(b"\r") {
                    self.end(ConversationEnd::failed(TERMINAL));
                    return true;
                }
                match begin.map(|begin| Reply::parse(&line[begin..])) {
                    Some(Ok(reply)) => reply,
                    Some(Err(flaw)) => {
                        self.end(ConversationEnd::failed(flaw.to_string()));
                        return true;
                    }
                    None => {
                        if !line.is_empty() {
                            self.state().noise = Some(shown(String::from_utf8_lossy(line).trim().as_ref()));
                        }
                        return false;
                    }
                }
            }
            (Ok(reply), true) => reply,
            (Err(flaw), true) => {
                self.end(ConversationEnd::failed(flaw.to_string()));
                return true;
            }
        };
        self.state().begun = true;
        match reply {
            Reply::Text => {
                let again = std::mem::replace(&mut self.state().text, true);
                if ready || again {
                    self.end(ConversationEnd::failed("it wants the text of a receiver when it can't"));
                    return true;
                }
                self.0.changed.notify_all();
            }
            Reply::Ready(_) if ready => {
                self.end(ConversationEnd::failed("it is ready for the second time"));
                return true;
            }
            Reply::Ready(words) => {
                self.state().ready = Some(words);
                self.0.changed.notify_all();
            }
            Reply::Wait => {}
            Reply::Note(note) => {
                let mut state = self.state();
                state.notes += 1;
                let enough = state.notes > NOTES;
                drop(state);
                match &self.0.host {
                    _ if enough => {
                        self.end(ConversationEnd::failed(format!("it has more than {NOTES} warnings")));
                        return true;
                    }
                    Some(host) => self.0.messages.warn(format_args!("{host}: {note}")),
                    None => self.0.messages.warn(note),
                }
            }
            Reply::Same => {
                self.end(ConversationEnd::failed("it answers what nobody has asked"));
                return true;
            }
            Reply::Done(digest) => {
                self.end(ConversationEnd::Done(digest));
                return true;
            }
            Reply::Fail(why) => {
                self.end(ConversationEnd::Failed(why));
                return true;
            }
        }
        false
    }

    /// Ends the conversation after `patience` of silence.
    fn watch_silence(&self, patience: Duration) {
        loop {
            thread::sleep(LOOK);
            let state = self.state();
            if state.ending.is_some() {
                return;
            }
            // While the queue is full no reply is read. The thread that takes records may be blocked in a write.
            let silence = if state.full { state.moved } else { state.last_read }.elapsed();
            let dead = state.begun && (!state.full || state.writes) && silence >= patience;
            drop(state);
            if dead {
                return self.end(ConversationEnd::Silent(patience));
            }
        }
    }
}

#[cfg(test)]
mod tests;
