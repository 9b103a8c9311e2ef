//! Which grains of a block are zeros: judged by content, across the ends of extents.

use xfer_hole_os::is_zero;

/// Looks at a block's bytes in order, and tells its runs. A grain is zeros only if all of its bytes are, wherever they come from.
pub struct ZeroDetector {
    /// Bytes, a power of two.
    grain: u64,
    /// Bytes, a power of two: data doesn't go on over a multiple of it.
    interval: u64,
    /// Disk offset reached.
    at: u64,
    /// Up to here all is in the runs; at most a grain before `at`.
    judged: u64,
    /// What was seen since then is zeros.
    blank: bool,
    /// Lengths in bytes, and whether it is data.
    runs: Vec<(u64, bool)>,
}

impl ZeroDetector {
    /// A judge of a block that begins at this disk offset, which is a multiple of the grain.
    pub fn new(start: u64, grain: u64, interval: u64) -> Self {
        Self { grain, interval, at: start, judged: start, blank: true, runs: Vec::new() }
    }

    /// The next bytes, which may be zeros.
    pub fn bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = usize::try_from(self.grain - self.within()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.blank = self.blank && is_zero(now);
            self.pass(now.len() as u64);
            bytes = later;
        }
    }

    /// The next bytes are data, whatever they are. Of one grain, only the part that `bytes` and `zeros` saw can be else.
    pub fn data(&mut self, len: u64) {
        self.close();
        self.push(len, true);
        self.at += len;
        self.judged = self.at;
    }

    /// The next bytes are zeros.
    pub fn zeros(&mut self, len: u64) {
        let first = len.min((self.grain - self.within()) % self.grain);
        self.pass(first);
        let last = (self.at + (len - first)) % self.grain;
        let whole = (len - first).saturating_sub(last);
        self.push(whole, false);
        self.at += whole;
        self.judged += whole;
        self.pass(len - first - whole);
    }

    /// The runs of the block. The last grain may be cut short by the disk's end.
    pub fn finish(mut self) -> Vec<(u64, bool)> {
        self.close();
        self.runs
    }

    /// Bytes of the grain begun.
    fn within(&self) -> u64 {
        self.at & (self.grain - 1)
    }

    /// Bytes that don't go beyond a grain have been seen.
    fn pass(&mut self, len: u64) {
        self.at += len;
        if self.within() == 0 {
            self.close();
        }
    }

    fn close(&mut self) {
        self.push(self.at - self.judged, !self.blank);
        self.judged = self.at;
        self.blank = true;
    }

    fn push(&mut self, len: u64, data: bool) {
        let breaks = data && self.judged.is_multiple_of(self.interval);
        push(&mut self.runs, len, data, breaks);
    }
}

/// Makes data of holes shorter than `min_hole`, where both ends are seen: those at the block's ends are for the coalescer.
pub(crate) fn fill_short_holes(runs: Vec<(u64, bool)>, min_hole: u64) -> Vec<(u64, bool)> {
    let last = runs.len().saturating_sub(1);
    let mut filled = Vec::with_capacity(runs.len());
    for (index, (len, data)) in runs.into_iter().enumerate() {
        let short = len < min_hole && (1..last).contains(&index);
        push(&mut filled, len, data || short, false);
    }
    filled
}

fn push(runs: &mut Vec<(u64, bool)>, len: u64, data: bool, breaks: bool) {
    match runs.last_mut() {
        _ if len == 0 => {}
        Some((before, kind)) if *kind == data && !breaks => *before += len,
        _ => runs.push((len, data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grain_is_zeros_only_if_all_of_its_parts_are() {
        let judged = |feed: &dyn Fn(&mut ZeroDetector)| {
            let mut detector = ZeroDetector::new(1024, 512, 2048);
            feed(&mut detector);
            detector.finish()
        };
        assert_eq!(judged(&|_| {}), []);
        let parts = judged(&|detector| {
            detector.bytes(&[0; 100]);
            detector.zeros(400);
            detector.bytes(&[0; 12]);
            detector.zeros(511);
            detector.bytes(&[1]);
            detector.zeros(1300);
            detector.bytes(&[0, 1]);
        });
        assert_eq!(parts, [(512, false), (512, true), (1024, false), (278, true)]);
        let broken = judged(&|detector| detector.bytes(&[1; 3000]));
        assert_eq!(broken, [(1024, true), (1976, true)]);
        let unlooked = judged(&|detector| {
            detector.zeros(1024);
            detector.data(700);
        });
        assert_eq!(unlooked, [(1024, false), (700, true)]);
    }

    #[test]
    fn short_holes_are_filled_but_those_at_the_ends() {
        let runs = vec![(3, false), (5, true), (3, false), (5, true), (4, false), (1, true), (1, false)];
        assert_eq!(fill_short_holes(runs, 4), [(3, false), (13, true), (4, false), (1, true), (1, false)]);
    }
}
