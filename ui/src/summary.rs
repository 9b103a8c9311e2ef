//! The summary of a transfer, in one line.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use xfer_hole_pipeline::ProgressCounters;
use xfer_hole_target::TargetOutcome;

use crate::progress_snapshot::{rate_of, time_text};
use crate::size::size_text;

/// The target that a transfer wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenTarget {
    /// Its name for display, including the host.
    pub place: String,
    /// What happened to it; `None` if the receiver doesn't report it.
    pub becomes: Option<TargetOutcome>,
    /// True if the transfer resumed an earlier one.
    pub resumed: bool,
}

/// The figures of a finished transfer, formatted as one line.
///
/// Example: `web.img: new raw image; disk 8 GiB, data 1 GiB, wire 1.00 GiB in 3.2 s, 320 MiB/s`. The rate is the data divided by the
/// whole time, which includes preparing and syncing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    made: Option<WrittenTarget>,
    disk: u64,
    kept: u64,
    data: u64,
    /// `None` if nothing was sent over a link.
    wire: Option<u64>,
    time: Duration,
}

impl Summary {
    /// Makes the summary of `counters` after `time`. `made` is the target, if there is one.
    #[must_use]
    pub fn of(counters: &ProgressCounters, time: Duration, made: Option<WrittenTarget>) -> Self {
        let wire = (counters.wire() > 0).then_some(counters.wire());
        Self { made, disk: counters.size(), kept: counters.kept(), data: counters.data(), wire, time }
    }

    /// Returns true if the destination already had the whole disk.
    fn is_unchanged(&self) -> bool {
        let existed = |made: &WrittenTarget| !made.resumed && made.becomes.is_none_or(TargetOutcome::was_there);
        self.kept == self.disk && self.disk > 0 && self.made.as_ref().is_some_and(existed)
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let unchanged = self.is_unchanged();
        if let Some(WrittenTarget { place, becomes, .. }) = &self.made {
            let what = if unchanged { "unchanged" } else { becomes.map_or("raw image", TargetOutcome::done) };
            write!(f, "{place}: {what}; ")?;
        }
        write!(f, "disk {}", size_text(self.disk))?;
        if self.kept > 0 && !unchanged && self.made.is_some() {
            write!(f, ", {} of it there already", size_text(self.kept))?;
        }
        write!(f, ", data {}", size_text(self.data))?;
        if let Some(wire) = self.wire {
            write!(f, ", wire {}", size_text(wire))?;
        }
        write!(f, " in {}, {}/s", time_text(self.time), size_text(rate_of(self.data, self.time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_shows_sizes_time_and_rate() {
        let counters = ProgressCounters::default();
        counters.set_size(8 << 30);
        counters.add_data(1 << 30);
        let time = Duration::from_millis(3200);
        assert_eq!(Summary::of(&counters, time, None).to_string(), "disk 8 GiB, data 1 GiB in 3.2 s, 320 MiB/s");
        counters.add_wire((1 << 30) + 4711);
        let moved = "data 1 GiB, wire 1.00 GiB in 3.2 s, 320 MiB/s";
        assert_eq!(Summary::of(&counters, time, None).to_string(), format!("disk 8 GiB, {moved}"));
        let made = |becomes, resumed| Some(WrittenTarget { place: "web.img".into(), becomes, resumed });
        let said = |becomes, resumed| Summary::of(&counters, time, made(becomes, resumed)).to_string();
        assert_eq!(said(Some(TargetOutcome::New), false), format!("web.img: new raw image; disk 8 GiB, {moved}"));
        assert_eq!(said(None, false), format!("web.img: raw image; disk 8 GiB, {moved}"));
        counters.add_kept(3 << 30);
        let resumed = format!("web.img: new raw image; disk 8 GiB, 3 GiB of it there already, {moved}");
        assert_eq!(said(Some(TargetOutcome::New), true), resumed);
        counters.add_kept(5 << 30);
        assert!(said(Some(TargetOutcome::Replaced), false).starts_with("web.img: unchanged; disk 8 GiB, data 1 GiB"));
        // A resumed transfer found the whole disk in DEST.part; the replaced file may have had other content.
        assert!(said(Some(TargetOutcome::Replaced), true).starts_with("web.img: raw image, replaced the old file; "));
        assert!(said(Some(TargetOutcome::New), false).starts_with("web.img: new raw image; "));
    }
}
