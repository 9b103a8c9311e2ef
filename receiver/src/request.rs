//! Parses push requests, which senders send by ssh. The format is fixed and checked strictly.
//!
//! ```text
//! exec sh -c 'TEXT' recv-hole 1 LEN 'OPTION' ... -- 'DEST' 'NAME'
//! ```
//!
//! Words are separated by one space. TEXT is the script that a shell would run; it is ignored here. LEN is the length in bytes of the
//! recv-hole.sh text that the sender would send on request. The quoted words after LEN are encoded: `A-Za-z0-9/._,+:@%=-` are unchanged,
//! every other byte is `\0OOO`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use xfer_hole_proto::{CONVERSATION, Fingerprint};
use xfer_hole_target::{ExpectedDisk, TargetOptions};
use xfer_hole_transport::{NOT_CODED, REQUEST_MAX, decoded, unquoted};
use xfer_hole_ui::TargetArgs;

use crate::LOCK;
use crate::error::ReceiveError;

/// Maximum announced length of the recv-hole.sh text in bytes.
const TEXT_MAX: u64 = 256 << 10;
/// Maximum length of a path in bytes.
const PATH_MAX: usize = 4095;
/// Maximum timeout that a request may set, in seconds.
const WAIT_MAX: u64 = 24 * 60 * 60;

/// The receiver that the sender wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WantedReceiver {
    /// recv-hole if it is installed, else recv-hole.sh.
    #[default]
    Auto,
    /// recv-hole.
    Binary,
    /// recv-hole.sh.
    Sh,
}

/// A parsed push request. The flags are those of [`TargetArgs`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceivedRequest {
    pub(crate) receiver: WantedReceiver,
    pub(crate) in_place: bool,
    pub(crate) target_is_zero: bool,
    pub(crate) discard: bool,
    pub(crate) no_sync: bool,
    pub(crate) direct: bool,
    pub(crate) remember: bool,
    pub(crate) read_back: bool,
    pub(crate) check_base: bool,
    pub(crate) no_clobber: bool,
    pub(crate) force: bool,
    pub(crate) mkpath: bool,
    pub(crate) dry_run: bool,
    /// Only the owner may read a new file.
    pub(crate) private: bool,
    /// Permissions of the file, 0 to 0o7777.
    pub(crate) chmod: Option<u32>,
    /// Owner of the file as it was given; the names are those of this machine.
    pub(crate) chown: Option<String>,
    /// The time without data after which the sender takes the link for dead.
    pub(crate) max_wait: Option<Duration>,
    /// The name of the image itself.
    pub(crate) source: Option<OsString>,
    /// True if DEST was a directory, so that the file has the name in the request.
    pub(crate) is_named: bool,
    /// The disk that would be sent, for a dry run.
    pub(crate) expected: ExpectedDisk,
    /// The name of the file or directory; never empty.
    pub(crate) dest: OsString,
    /// The name of the file if DEST is a directory: one path component.
    pub(crate) name: OsString,
}

impl ReceivedRequest {
    /// Parses a request as a command of an ssh client.
    ///
    /// # Errors
    /// Returns an error if the command is not exactly a push request.
    pub(crate) fn parse(request: &[u8]) -> Result<Self, ReceiveError> {
        Self::read(request).map_err(ReceiveError::Request)
    }

    /// Parses the words of a request after `recv-hole`, from which a shell has removed the quotes.
    ///
    /// # Errors
    /// Returns an error if the words are not exactly those of a push request.
    pub(crate) fn of_words(words: &[u8]) -> Result<Self, ReceiveError> {
        Self::of(words, |word| Some(word)).map_err(ReceiveError::Request)
    }

    /// Returns the options of the target. If DEST is a directory, the file in it has the name in the request.
    ///
    /// # Errors
    /// Returns an error if the owner is not valid.
    pub(crate) fn target_options(&self) -> Result<TargetOptions, ReceiveError> {
        let args = TargetArgs {
            in_place: self.in_place,
            target_is_zero: self.target_is_zero,
            discard: self.discard,
            no_sync: self.no_sync,
            direct: self.direct,
            remember: self.remember,
            read_back: self.read_back,
            check_base: self.check_base,
            no_clobber: self.no_clobber,
            force: self.force,
            mkpath: self.mkpath,
            chmod: self.chmod,
            chown: self.chown.clone(),
            dry_run: self.dry_run,
            ..TargetArgs::default()
        };
        let options = args.options(Some(self.name.clone()), Some(LOCK)).map_err(ReceiveError::Usage)?;
        Ok(TargetOptions { source: self.source.clone(), is_named: self.is_named, ..options })
    }

    /// Parses a request as a command of an ssh client.
    fn read(request: &[u8]) -> Result<Self, &'static str> {
        if request.len() > REQUEST_MAX {
            return Err("it is too long");
        }
        let rest = request.strip_prefix(b"exec sh -c '").ok_or("it is no transfer")?;
        let end = rest.iter().position(|&byte| byte == b'\'').ok_or("it is no transfer")?;
        let rest = rest[end..].strip_prefix(b"' recv-hole ").ok_or("it is no transfer")?;
        Self::of(rest, unquoted)
    }

    /// Parses the words after `recv-hole`. `bare` removes the quotes of a word, or returns `None` if they are missing.
    fn of(words: &[u8], bare: impl Fn(&[u8]) -> Option<&[u8]>) -> Result<Self, &'static str> {
        let decoded = |word| bare(word).ok_or(NOT_CODED).and_then(decoded);
        let mut words = words.split(|&byte| byte == b' ');
        if words.next() != Some(CONVERSATION.to_string().as_bytes()) {
            return Err("its version is not 1");
        }
        let len = words.next().and_then(number).filter(|&len| len <= TEXT_MAX);
        len.ok_or("the length of its script is wrong")?;
        let (mut request, mut seen) = (Self::default(), Vec::new());
        loop {
            match words.next() {
                Some(b"--") => break,
                Some(word) => request.option(&decoded(word)?, &mut seen)?,
                None => return Err("it has no target"),
            }
        }
        request.dest = OsString::from_vec(decoded(words.next().ok_or("it has no target")?)?);
        let name = decoded(words.next().ok_or("it has no name")?)?;
        if words.next().is_some() {
            return Err("something follows its last word");
        }
        if request.dest.len() > PATH_MAX {
            return Err("its target is too long");
        }
        if name.contains(&b'/') || [&b"."[..], b".."].contains(&&name[..]) {
            return Err("its name is no name of a file");
        }
        request.name = OsString::from_vec(name);
        Ok(request)
    }

    /// Parses an option. Each may be given once.
    fn option(&mut self, word: &[u8], seen: &mut Vec<Vec<u8>>) -> Result<(), &'static str> {
        let equals = word.iter().position(|&byte| byte == b'=');
        let (key, value) = equals.map_or((word, None), |at| (&word[..at], Some(&word[at + 1..])));
        if seen.iter().any(|before| before == key) {
            return Err("an option of it stands twice");
        }
        seen.push(key.to_vec());
        const WRONG: &str = "the value of an option of it is wrong";
        match (key, value) {
            (b"receiver", Some(b"auto")) => self.receiver = WantedReceiver::Auto,
            (b"receiver", Some(b"binary")) => self.receiver = WantedReceiver::Binary,
            (b"receiver", Some(b"sh")) => self.receiver = WantedReceiver::Sh,
            (b"in-place", None) => self.in_place = true,
            (b"target-is-zero", None) => self.target_is_zero = true,
            (b"discard", None) => self.discard = true,
            (b"no-sync", None) => self.no_sync = true,
            (b"direct", None) => self.direct = true,
            (b"remember", None) => self.remember = true,
            (b"read-back", None) => self.read_back = true,
            (b"check-base", None) => self.check_base = true,
            (b"no-clobber", None) => self.no_clobber = true,
            (b"force", None) => self.force = true,
            (b"mkpath", None) => self.mkpath = true,
            (b"source", Some(name)) if !name.is_empty() && !name.contains(&b'/') => {
                self.source = Some(OsString::from_vec(name.to_vec()));
            }
            (b"dry-run", None) => self.dry_run = true,
            (b"size", Some(bytes)) => self.expected.size = Some(number(bytes).ok_or(WRONG)?),
            (b"data", Some(bytes)) => self.expected.data = Some(number(bytes).ok_or(WRONG)?),
            (b"delta", None) => self.expected.delta = true,
            (b"base", Some(bytes)) => {
                let digest = self.expected.base.and_then(|(_, digest)| digest);
                self.expected.base = Some((number(bytes).ok_or(WRONG)?, digest));
            }
            (b"base-digest", Some(text)) => {
                let fingerprint = str::from_utf8(text).ok().and_then(Fingerprint::parse).ok_or(WRONG)?;
                let (size, _) = self.expected.base.ok_or(WRONG)?;
                self.expected.base = Some((size, Some(fingerprint)));
            }
            (b"private", None) => self.private = true,
            (b"chmod", Some(mode)) => {
                let mode = str::from_utf8(mode).ok().and_then(|mode| xfer_hole_target::parse_mode(mode).ok());
                self.chmod = Some(mode.ok_or(WRONG)?);
            }
            (b"chown", Some(owner)) if !owner.is_empty() => {
                self.chown = Some(str::from_utf8(owner).map_err(|_| WRONG)?.to_owned());
            }
            (b"max-wait", Some(seconds)) => {
                let seconds = number(seconds).filter(|seconds| (1..=WAIT_MAX).contains(seconds));
                self.max_wait = Some(Duration::from_secs(seconds.ok_or(WRONG)?));
            }
            _ => return Err("an option of it is unknown"),
        }
        Ok(())
    }
}

/// Parses a decimal number without leading zeros.
fn number(word: &[u8]) -> Option<u64> {
    let digits = word.iter().all(u8::is_ascii_digit) && !word.is_empty() && (word.len() == 1 || word[0] != b'0');
    if digits { str::from_utf8(word).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
