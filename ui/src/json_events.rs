//! What programs are told: one JSON object a line. The shape is documented in xfer-hole-progress(7).

use serde::Serialize;

use crate::progress_snapshot::{ProgressSnapshot, rate_of};

/// The shape's version.
const VERSION: u32 = 1;

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Done,
    Failed,
    Interrupted,
}

#[derive(Serialize)]
struct EventHead<'a> {
    version: u32,
    program: &'a str,
    event: &'a str,
}

#[derive(Serialize)]
struct MessageEvent<'a> {
    #[serde(flatten)]
    head: EventHead<'a>,
    text: &'a str,
}

#[derive(Serialize)]
struct EventTotals {
    disk_size: Option<u64>,
    disk_done: u64,
    data: u64,
    data_size: Option<u64>,
    kept: u64,
    percent: Option<u64>,
    wire: u64,
    /// In seconds, to the millisecond.
    elapsed: f64,
    rate: u64,
}

impl EventTotals {
    fn of(status: &ProgressSnapshot, rate: u64) -> Self {
        Self {
            disk_size: status.size,
            disk_done: status.disk,
            data: status.data,
            data_size: status.data_size,
            kept: status.kept,
            percent: status.percent,
            wire: status.wire,
            elapsed: (status.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            rate,
        }
    }
}

#[derive(Serialize)]
struct ProgressEvent<'a> {
    #[serde(flatten)]
    head: EventHead<'a>,
    phase: &'a str,
    #[serde(flatten)]
    totals: EventTotals,
    /// In whole seconds.
    left: Option<u64>,
}

#[derive(Serialize)]
struct EndEvent<'a> {
    #[serde(flatten)]
    head: EventHead<'a>,
    outcome: Outcome,
    exit: u8,
    error: Option<&'a str>,
    digest: Option<&'a str>,
    #[serde(flatten)]
    totals: EventTotals,
}

fn head<'a>(program: &'a str, event: &'a str) -> EventHead<'a> {
    EventHead { version: VERSION, program, event }
}

fn line(object: &impl Serialize) -> String {
    // Strings and numbers can't fail to be written.
    serde_json::to_string(object).unwrap_or_default() + "\n"
}

/// Something that is said in words: a warning, a hint, a note, an error, a result.
pub(crate) fn said(program: &str, event: &str, text: &str) -> String {
    line(&MessageEvent { head: head(program, event), text })
}

/// How far it is.
pub(crate) fn progress(program: &str, status: &ProgressSnapshot) -> String {
    line(&ProgressEvent {
        head: head(program, "progress"),
        phase: status.phase.word(),
        totals: EventTotals::of(status, status.rate),
        left: status.left.map(|left| left.as_secs()),
    })
}

/// How it ended: the last line. The rate is that of the whole.
pub(crate) fn end(
    program: &str,
    status: &ProgressSnapshot,
    outcome: Outcome,
    exit: u8,
    error: Option<&str>,
    digest: Option<&str>,
) -> String {
    let totals = EventTotals::of(status, rate_of(status.data, status.elapsed));
    line(&EndEvent { head: head(program, "end"), outcome, exit, error, digest, totals })
}
