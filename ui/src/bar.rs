//! Formats the progress bar line for a terminal of a given width.

use crate::progress_snapshot::{ProgressSnapshot, seconds_text};
use crate::size::size_text;

/// Minimum and maximum columns of the bar between its brackets.
const BAR: (usize, usize) = (6, 40);

/// Returns the progress line: plain ASCII, shorter than `columns`, with as much detail as fits.
pub(crate) fn line(name: &str, status: &ProgressSnapshot, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    let phase = status.phase.word();
    let Some(percent) = status.percent.filter(|_| status.moves()) else {
        return unmeasured(name, status, room);
    };
    let disk = format!("{} of {}", size_text(status.disk), size_text(status.size.unwrap_or_default()));
    let data = format!("{} data", status.data_text());
    let rate = format!("{}/s", size_text(status.rate));
    let left = status.left.map_or_else(
        || format!("{} so far", seconds_text(status.elapsed)),
        |left| format!("{} left", seconds_text(left)),
    );
    let head = format!("{phase} {percent:>3}%");
    let tail = format!("{disk}, {data}, {rate}, {left}");
    for head in [format!("{name}: {head}"), head] {
        if let Some(bar) = room.checked_sub(head.len() + tail.len() + 4).filter(|bar| *bar >= BAR.0) {
            return format!("{head} [{}] {tail}", bar_of(bar.min(BAR.1), percent));
        }
    }
    let forms = [
        format!("{phase} {percent}% {tail}"),
        format!("{phase} {percent}% {data}, {rate}, {left}"),
        format!("{phase} {percent}% {disk}, {rate}, {left}"),
        format!("{phase} {percent}% {rate}, {left}"),
        format!("{phase} {percent}% {left}"),
        format!("{phase} {percent}%"),
        format!("{percent}%"),
    ];
    forms.into_iter().find(|form| form.len() <= room).unwrap_or_default()
}

/// Returns the line for a phase without a percentage, or for a disk of unknown size: a spinner and the elapsed time.
fn unmeasured(name: &str, status: &ProgressSnapshot, room: usize) -> String {
    let phase = status.phase.word();
    let spinner = ["|", "/", "-", "\\"][usize::try_from(status.elapsed.as_millis() / 200 % 4).unwrap_or_default()];
    let time = seconds_text(status.elapsed);
    let moved =
        format!("{} data, {} of disk, {}/s", size_text(status.data), size_text(status.disk), size_text(status.rate));
    let whole = if status.moves() {
        format!("{name}: {phase} {spinner} {moved}, {time}")
    } else {
        format!("{name}: {phase} {spinner} {time}")
    };
    let forms = [whole, format!("{phase} {spinner} {time}"), format!("{phase} {spinner}"), spinner.to_owned()];
    forms.into_iter().find(|form| form.len() <= room).unwrap_or_default()
}

/// Returns the bar itself, `width` columns wide.
fn bar_of(width: usize, percent: u64) -> String {
    let full = width * usize::try_from(percent).unwrap_or_default() / 100;
    let tip = if full < width { ">" } else { "" };
    format!("{:<width$}", "=".repeat(full) + tip)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use xfer_hole_pipeline::Phase;

    use super::*;

    fn half_way() -> ProgressSnapshot {
        ProgressSnapshot {
            phase: Phase::Sending,
            size: Some(8 << 30),
            disk: (4 << 30) + 5000,
            data: 300 << 20,
            percent: Some(50),
            wire: 310 << 20,
            elapsed: Duration::from_secs(4),
            rate: 335 << 20,
            left: Some(Duration::from_millis(12_300)),
            ..ProgressSnapshot::default()
        }
    }

    #[test]
    fn a_wide_line_shows_every_figure() {
        assert_eq!(
            line("xfer-hole", &half_way(), 100),
            "xfer-hole: sending  50% [=========>         ] 4.00 GiB of 8 GiB, 300 MiB data, 335 MiB/s, 12 s left"
        );
        assert_eq!(
            line("xfer-hole", &half_way(), 80),
            "sending  50% [=====>    ] 4.00 GiB of 8 GiB, 300 MiB data, 335 MiB/s, 12 s left"
        );
    }

    #[test]
    fn every_line_fits_its_width_and_names_the_phase() {
        let mut states = vec![half_way(), ProgressSnapshot::default()];
        let all = [
            Phase::Preparing,
            Phase::Connecting,
            Phase::Sending,
            Phase::Receiving,
            Phase::Copying,
            Phase::Zeroing,
            Phase::Syncing,
            Phase::Hashing,
            Phase::ReadingBack,
        ];
        for phase in all {
            let huge = u64::MAX - 1;
            let left = Some(Duration::from_secs(1 << 40));
            states.push(ProgressSnapshot { phase, disk: 12_345, ..ProgressSnapshot::default() });
            states.push(ProgressSnapshot {
                phase,
                size: Some(huge),
                disk: huge,
                data: huge,
                rate: huge,
                left,
                ..half_way()
            });
        }
        for status in states {
            for columns in 0..200 {
                let line = line("xfer-hole", &status, columns);
                assert!(line.is_ascii() && (line.is_empty() || line.len() < columns), "{columns}: {line}");
                assert!(columns < 16 || line.contains(status.phase.word()), "{columns}: {line}");
                assert!(columns < 6 || !line.is_empty(), "{columns}");
            }
        }
    }

    #[test]
    fn a_phase_without_a_percentage_shows_spinner_and_time() {
        let mut status =
            ProgressSnapshot { phase: Phase::Syncing, size: Some(4096), disk: 4096, ..ProgressSnapshot::default() };
        let lines: Vec<_> = (0..3)
            .map(|n| {
                status.elapsed = Duration::from_millis(900 + n * 200);
                line("recv-hole", &status, 80)
            })
            .collect();
        assert_eq!(lines, ["recv-hole: syncing | 0 s", "recv-hole: syncing / 1 s", "recv-hole: syncing - 1 s"]);
    }
}
