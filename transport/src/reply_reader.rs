//! What the receiver says back to a sender (SPEC.md, "The conversation"), heard by a thread while the stream flows.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use xfer_hole_os::{reason, shown, sys};
use xfer_hole_proto::{
    ANSWER_LINE_MAX, ManifestEntry, ManifestHeader, ManifestReader, ManifestRequest, NOISE_MAX, Record, Reply,
};
use xfer_hole_ui::Messages;

use crate::{ConversationEnd, RecordSpool};

/// How the lines begin that a receiver is known by: login noise may stand in front of them on the same line.
const BEGINS: [&[u8]; 2] = [b"XFER-HOLE-READY ", b"XFER-HOLE-TEXT "];
/// Why a link can't carry a disk whose lines come with a carriage return.
pub const TERMINAL: &str = "a terminal is in between, which changes bytes: leave -t out of --rsh, or use ssh -T";
/// How long a receiver that has gone away may take to end.
const LINGER: Duration = Duration::from_secs(5);
/// Warnings of the receiver that are relayed: more is a flood.
const NOTES: usize = 100;
/// Records of a manifest that may wait: some hundred megabytes, for the most part in a file.
const RECORDS: u64 = if cfg!(test) { 64 } else { 4 << 20 };
/// Records more that are taken in where nobody comes for those that wait: what stands in the link ahead of a reason to give up.
const MORE: u64 = RECORDS / 8;
/// After so long nobody seems to come: whoever sends may be waiting for a receiver that takes nothing any more.
const STUCK: Duration = Duration::from_secs(2);
/// How long is waited at a time where nothing limits it.
const LONG: Duration = Duration::from_secs(3600);
/// How often silence is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// What a receiver answers to WANT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingOffer {
    /// It has the fingerprint that is wanted.
    Same,
    /// It has this, and its records follow.
    Manifest(ManifestHeader),
}

/// What is known of a manifest that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestProgress {
    /// The next of its records.
    Record(Record),
    /// Nothing yet.
    Nothing,
    /// All records have been told.
    End,
}

/// The receiver's answers so far.
#[derive(Clone)]
pub struct ReplyReader(Arc<ReplyShared>);

struct ReplyShared {
    state: Mutex<ReplyState>,
    changed: Condvar,
    /// Whose warnings these are.
    host: Option<String>,
    messages: Messages,
    /// To be done when it ends otherwise than well: whoever writes has to be stopped.
    stop: Box<dyn Fn(&ConversationEnd) + Send + Sync>,
}

struct ReplyState {
    /// A shell waits for the text of a receiver.
    text: bool,
    ready: Option<Vec<String>>,
    /// A receiver, and no login, has said something.
    begun: bool,
    ending: Option<ConversationEnd>,
    heard: Instant,
    notes: usize,
    /// The last line of what was passed over before READY.
    noise: Option<String>,
    /// What was asked for by WANT.
    want: Option<ManifestRequest>,
    offer: Option<ExistingOffer>,
    /// The manifest that comes, once its first line is there.
    manifest: Option<ManifestReader>,
    records: RecordSpool,
    /// The records are more than may wait: nothing is heard until some are taken.
    full: bool,
    /// Nobody has come for any of them since they were full.
    stuck: bool,
    /// The records are not wanted any more.
    drains: bool,
    /// The stream is being written, and may have to wait for the receiver.
    writes: bool,
    /// When the stream or the queue of records got on last: it counts while the queue is full and nothing is heard.
    moved: Instant,
}

impl ReplyState {
    /// Records that may wait now.
    fn most(&self) -> u64 {
        if self.stuck { RECORDS + MORE } else { RECORDS }
    }

    /// True if the manifest has come to its end.
    fn has_told_all(&self) -> bool {
        self.manifest.as_ref().is_some_and(ManifestReader::has_ended)
    }

    /// How it ended, asked once it has.
    fn ended(&self) -> ConversationEnd {
        self.ending.clone().unwrap_or(ConversationEnd::Closed(None))
    }
}

impl ReplyReader {
    /// Begins to listen. `stop` is called when the conversation fails, from another thread. Warnings of the receiver are
    /// relayed with the host's name.
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
            heard: Instant::now(),
            notes: 0,
            noise: None,
            want: None,
            offer: None,
            manifest: None,
            records: RecordSpool::default(),
            full: false,
            stuck: false,
            drains: false,
            writes: false,
            moved: Instant::now(),
        };
        let shared =
            ReplyShared { state: Mutex::new(state), changed: Condvar::new(), host, messages, stop: Box::new(stop) };
        let answers = Self(Arc::new(shared));
        let ear = answers.clone();
        thread::Builder::new().spawn(move || ear.hear(&from))?;
        Ok(answers)
    }

    /// Takes `patience` without an answer for a dead link, once the receiver has said something, or `at_once`. Bytes that leave tell
    /// nothing: pipes and sockets take some millions of them that never arrive. Only while no answer can be heard, since records of the
    /// manifest wait to be taken, does a link count as dead when a write has been held up for so long.
    pub fn watch(&self, patience: Duration, at_once: bool) -> io::Result<()> {
        let eye = self.clone();
        eye.state().begun |= at_once;
        thread::Builder::new().spawn(move || eye.look(patience))?;
        Ok(())
    }

    /// Waits until it is known whether a receiver is there, or only a shell that wants the text of one.
    pub fn wants_text(&self) -> Result<bool, ConversationEnd> {
        let known = |state: &ReplyState| state.text || state.ready.is_some();
        let state = self.wait(None, known);
        if known(&state) { Ok(state.text) } else { Err(state.ended()) }
    }

    /// Waits for READY: its words.
    pub fn ready(&self) -> Result<Vec<String>, ConversationEnd> {
        let state = self.wait(None, |state| state.ready.is_some());
        state.ready.clone().ok_or_else(|| state.ended())
    }

    /// Takes note that WANT is about to be said.
    pub fn ask(&self, want: ManifestRequest) {
        self.state().want = Some(want);
    }

    /// True if WANT was said.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.state().want.is_some()
    }

    /// Waits for the answer to WANT, `most` at most: none if it hasn't come yet.
    pub fn offer(&self, most: Duration) -> Result<Option<ExistingOffer>, ConversationEnd> {
        let mut state = self.wait(Some(most), |state| state.offer.is_some());
        match (state.offer.take(), &state.ending) {
            (Some(offer), _) => Ok(Some(offer)),
            (None, Some(ending)) => Err(ending.clone()),
            (None, None) => Ok(None),
        }
    }

    /// Waits for the next record of the manifest, `most` at most.
    pub fn told(&self, most: Duration) -> Result<ManifestProgress, ConversationEnd> {
        let mut state = self.wait(Some(most), |state| !state.records.is_empty() || state.has_told_all());
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
            _ if state.has_told_all() => Ok(ManifestProgress::End),
            Some(ending) => Err(ending.clone()),
            None => Ok(ManifestProgress::Nothing),
        }
    }

    /// Waits until the manifest has been told to its end, `most` at most: true if it was.
    pub fn told_all(&self, most: Duration) -> Result<bool, ConversationEnd> {
        let state = self.wait(Some(most), ReplyState::has_told_all);
        match &state.ending {
            _ if state.has_told_all() => Ok(true),
            _ if state.full => Err(ConversationEnd::failed("it has more records than can be kept here")),
            Some(ending) => Err(ending.clone()),
            None => Ok(false),
        }
    }

    /// Waits, `most` at most if that is said, until it is so, or until it has ended.
    fn wait(&self, most: Option<Duration>, so: impl Fn(&ReplyState) -> bool) -> MutexGuard<'_, ReplyState> {
        let over = most.map(|most| Instant::now() + most);
        let mut state = self.state();
        while !so(&state) && state.ending.is_none() {
            let left = over.map_or(LONG, |over| over.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// True if no more is to be sent.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state().ending.is_some()
    }

    /// Takes note that a piece of the stream is about to be written, or (`false`) was written.
    pub fn note_write(&self, begins: bool) {
        let mut state = self.state();
        state.writes = begins;
        state.moved = Instant::now();
    }

    /// Waits until it ends; `None` if that takes longer than `most`. Nobody wants to know any more what the receiver has.
    #[must_use]
    pub fn ending(&self, most: Option<Duration>) -> Option<ConversationEnd> {
        self.state().drains = true;
        self.0.changed.notify_all();
        self.wait(most, |_| false).ending.clone()
    }

    fn state(&self) -> MutexGuard<'_, ReplyState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first ending stands.
    fn end(&self, ending: ConversationEnd) {
        let mut state = self.state();
        if state.ending.is_some() {
            return;
        }
        // Who has gone away may still say why, to others than us.
        let stops =
            matches!(ending, ConversationEnd::Failed(_) | ConversationEnd::Wrong(_) | ConversationEnd::Silent(_));
        state.ending = Some(ending.clone());
        drop(state);
        self.0.changed.notify_all();
        if stops {
            (self.0.stop)(&ending);
        }
    }

    fn hear(&self, from: &File) {
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
                state.heard = Instant::now();
                state.ready.is_some()
            };
            noise += if ready { 0 } else { bytes };
            for &byte in &buffer[..bytes] {
                if byte != b'\n' {
                    // Longer lines are no answers; noise may have them.
                    if line.len() < ANSWER_LINE_MAX {
                        line.push(byte);
                    }
                    continue;
                }
                if self.take(&line) {
                    return;
                }
                line.clear();
            }
            if noise > NOISE_MAX && self.state().ready.is_none() {
                return self.end(ConversationEnd::failed("it says much, and nothing of a receiver"));
            }
        }
        if !line.is_empty() {
            self.take(&line);
        }
        let noise = self.state().noise.take();
        let ending = ConversationEnd::Closed(noise);
        self.end(ending.clone());
        thread::sleep(LINGER);
        (self.0.stop)(&ending);
    }

    /// Takes a line of the answer to WANT; none if it is none.
    fn take_offer(&self, line: &[u8]) -> Option<Result<(), String>> {
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
            && !state.drains
        {
            if let Err(error) = state.records.push(record) {
                return Some(Err(format!("cannot write a temporary file: {}", reason(&error))));
            }
            // Who has told more than we can keep has to wait. But what comes behind it may be why it gives up.
            while state.records.len() >= state.most() && state.ending.is_none() && !state.drains {
                if !std::mem::replace(&mut state.full, true) {
                    state.moved = Instant::now();
                }
                let before = state.records.len();
                let woken = self.0.changed.wait_timeout(state, STUCK).unwrap_or_else(PoisonError::into_inner);
                state = woken.0;
                state.stuck |= woken.1.timed_out() && state.records.len() == before;
            }
            if std::mem::take(&mut state.full) {
                state.heard = Instant::now();
            }
        }
        drop(state);
        self.0.changed.notify_all();
        Some(Ok(()))
    }

    /// Takes a line; true if it is the last that matters.
    fn take(&self, line: &[u8]) -> bool {
        if let Some(taken) = self.take_offer(line) {
            return match taken {
                Ok(()) => false,
                Err(what) => {
                    self.end(ConversationEnd::failed(what));
                    true
                }
            };
        }
        let ready = self.state().ready.is_some();
        let answer = match (Reply::parse(line), ready) {
            (Ok(answer @ (Reply::Text | Reply::Ready(_) | Reply::Fail(_) | Reply::Wait)), false) => answer,
            (_, false) => {
                let begin = (0..line.len()).find(|&at| BEGINS.iter().any(|words| line[at..].starts_with(words)));
                if begin.is_some() && line.ends_with(b"\r") {
                    self.end(ConversationEnd::failed(TERMINAL));
                    return true;
                }
                match begin.map(|begin| Reply::parse(&line[begin..])) {
                    Some(Ok(answer)) => answer,
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
            (Ok(answer), true) => answer,
            (Err(flaw), true) => {
                self.end(ConversationEnd::failed(flaw.to_string()));
                return true;
            }
        };
        self.state().begun = true;
        match answer {
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

    fn look(&self, patience: Duration) {
        loop {
            thread::sleep(LOOK);
            let state = self.state();
            if state.ending.is_some() {
                return;
            }
            // While the queue is full nothing is heard of the link, alive or dead; whoever is to take from the queue may be writing.
            let silence = if state.full { state.moved } else { state.heard }.elapsed();
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
