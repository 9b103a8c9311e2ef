//! What is known of a conversation with a receiver while its replies are read.

use std::time::Instant;

use xfer_hole_proto::{ManifestReader, ManifestRequest};

use crate::existing_offer::ExistingOffer;
use crate::{ConversationEnd, RecordSpool};

/// Maximum number of queued manifest records: some hundred megabytes, most of them in a temporary file.
pub(crate) const RECORDS: u64 = if cfg!(test) { 64 } else { 4 << 20 };
/// Number of further records that are queued when none is taken, so that a FAIL line behind them can be read.
pub(crate) const MORE: u64 = RECORDS / 8;

/// The state of a conversation, as far as it was read.
pub(crate) struct ReplyState {
    /// True if a shell waits for the text of recv-hole.sh.
    pub(crate) text: bool,
    /// The words of READY, once it has arrived.
    pub(crate) ready: Option<Vec<String>>,
    /// True once the receiver, and not a login, has sent something.
    pub(crate) begun: bool,
    pub(crate) ending: Option<ConversationEnd>,
    /// When bytes arrived last.
    pub(crate) last_read: Instant,
    /// Number of warnings so far.
    pub(crate) notes: usize,
    /// The last line that was skipped before READY.
    pub(crate) noise: Option<String>,
    /// The request of WANT, if it was sent.
    pub(crate) want: Option<ManifestRequest>,
    pub(crate) offer: Option<ExistingOffer>,
    /// The manifest that is being received, once its first line has arrived.
    pub(crate) manifest: Option<ManifestReader>,
    pub(crate) records: RecordSpool,
    /// True while the queue of records is full: no reply is read until some are taken.
    pub(crate) full: bool,
    /// True if no record was taken for some time since the queue was full.
    pub(crate) stuck: bool,
    /// True if the records are not needed any more and are discarded.
    pub(crate) discards: bool,
    /// True while the sending thread is in a write, which may block.
    pub(crate) writes: bool,
    /// When a write began or ended or a record was taken last. It is checked while the queue is full and no reply is read.
    pub(crate) moved: Instant,
}

impl ReplyState {
    /// Returns the maximum number of queued records at this moment.
    pub(crate) fn queue_limit(&self) -> u64 {
        if self.stuck { RECORDS + MORE } else { RECORDS }
    }

    /// Returns true if the manifest is complete.
    pub(crate) fn manifest_has_ended(&self) -> bool {
        self.manifest.as_ref().is_some_and(ManifestReader::has_ended)
    }

    /// Returns how the conversation ended. Call it only after the end.
    pub(crate) fn ended(&self) -> ConversationEnd {
        self.ending.clone().unwrap_or(ConversationEnd::Closed(None))
    }
}
