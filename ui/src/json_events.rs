//! Messages and progress for programs: one JSON object per line, as documented in xfer-hole-progress(7).

use serde::Serialize;

use crate::progress_snapshot::{ProgressSnapshot, rate_of};

/// The version of the JSON format.
const VERSION: u32 = 1;

/// The result of a command, as the last event reports it.
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
    /// Seconds, rounded to milliseconds.
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
    /// Whole seconds until the transfer is estimated to end.
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

/// Returns the object as one line with its newline.
fn line(object: &impl Serialize) -> String {
    // Serializing strings and numbers can't fail.
    serde_json::to_string(object).unwrap_or_default() + "\n"
}

/// Returns the line of a text message: `event` is warning, hint, note, error or result.
pub(crate) fn message(program: &str, event: &str, text: &str) -> String {
    line(&MessageEvent { head: head(program, event), text })
}

/// Returns the line that reports progress.
pub(crate) fn progress(program: &str, status: &ProgressSnapshot) -> String {
    line(&ProgressEvent {
        head: head(program, "progress"),
        phase: status.phase.word(),
        totals: EventTotals::of(status, status.rate),
        left: status.left.map(|left| left.as_secs()),
    })
}

/// Returns the last line, which reports the result. Its rate is the average over the whole transfer.
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
