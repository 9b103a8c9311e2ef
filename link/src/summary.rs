//! What a transfer came to, in one line.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use xfer_hole_image::Tally;

use crate::size::size_text;
use crate::status::{rate_of, time_text};

/// `disk 8 GiB, data 1 GiB, wire 1.00 GiB in 3.2 s, 320 MiB/s`: sizes by binary units, up to three figures, without decimals where
/// they are exact. The rate is the data over the whole time, preparing and syncing included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    disk: u64,
    data: u64,
    /// None where nothing went over a wire.
    wire: Option<u64>,
    time: Duration,
}

impl Summary {
    /// What this tally has come to in so much time.
    #[must_use]
    pub fn of(tally: &Tally, time: Duration) -> Self {
        let wire = tally.wire();
        Self { disk: tally.size(), data: tally.data(), wire: (wire > 0).then_some(wire), time }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "disk {}, data {}", size_text(self.disk), size_text(self.data))?;
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
    fn a_summary_has_sizes_time_and_the_rate_of_the_data() {
        let tally = Tally::default();
        tally.set_size(8 << 30);
        tally.add_data(1 << 30);
        let time = Duration::from_millis(3200);
        assert_eq!(Summary::of(&tally, time).to_string(), "disk 8 GiB, data 1 GiB in 3.2 s, 320 MiB/s");
        tally.add_wire((1 << 30) + 4711);
        assert_eq!(Summary::of(&tally, time).to_string(), "disk 8 GiB, data 1 GiB, wire 1.00 GiB in 3.2 s, 320 MiB/s");
    }
}
