//! Finds the grains of a work unit that are zeros, by content, across the ends of extents.

use xfer_hole_os::is_zero;

/// Takes the bytes of a work unit in order and returns the lengths of its data and zero segments. A grain is zeros only
/// if all of its bytes are, whichever extents they come from.
pub struct ZeroDetector {
    /// Grain in bytes, a power of two.
    grain: u64,
    /// Interval in bytes, a power of two: data never crosses a multiple of it.
    interval: u64,
    /// Disk offset reached, in bytes.
    at: u64,
    /// Disk offset up to which segments are complete; at most a grain before `at`.
    classified: u64,
    /// True if all bytes between `classified` and `at` are zeros.
    all_zeros: bool,
    /// Segments: their length in bytes, and whether they are data.
    segments: Vec<(u64, bool)>,
}

impl ZeroDetector {
    /// Creates a detector for a unit that begins at disk offset `start`, a multiple of the grain.
    pub fn new(start: u64, grain: u64, interval: u64) -> Self {
        Self { grain, interval, at: start, classified: start, all_zeros: true, segments: Vec::new() }
    }

    /// Adds bytes that are searched for zeros.
    pub fn bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = usize::try_from(self.grain - self.within()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.all_zeros = self.all_zeros && is_zero(now);
            self.pass(now.len() as u64);
            bytes = later;
        }
    }

    /// Adds `len` bytes that are data whatever their content. The part of a grain that was added before by `bytes` or
    /// `zeros` is classified by itself.
    pub fn data(&mut self, len: u64) {
        self.close();
        self.push(len, true);
        self.at += len;
        self.classified = self.at;
    }

    /// Adds `len` zero bytes.
    pub fn zeros(&mut self, len: u64) {
        let first = len.min((self.grain - self.within()) % self.grain);
        self.pass(first);
        let last = (self.at + (len - first)) % self.grain;
        let whole = (len - first).saturating_sub(last);
        self.push(whole, false);
        self.at += whole;
        self.classified += whole;
        self.pass(len - first - whole);
    }

    /// Returns the segments of the unit. The last grain may be shorter, at the end of the disk.
    pub fn finish(mut self) -> Vec<(u64, bool)> {
        self.close();
        self.segments
    }

    /// Returns the number of bytes in the current grain.
    fn within(&self) -> u64 {
        self.at & (self.grain - 1)
    }

    /// Advances by `len` bytes that don't cross the end of the grain.
    fn pass(&mut self, len: u64) {
        self.at += len;
        if self.within() == 0 {
            self.close();
        }
    }

    fn close(&mut self) {
        self.push(self.at - self.classified, !self.all_zeros);
        self.classified = self.at;
        self.all_zeros = true;
    }

    fn push(&mut self, len: u64, data: bool) {
        let breaks = data && self.classified.is_multiple_of(self.interval);
        push(&mut self.segments, len, data, breaks);
    }
}

/// Turns holes shorter than `min_hole` bytes into data if both of their ends are in the unit. The coalescer decides
/// about holes at the unit's ends.
pub(crate) fn fill_short_holes(segments: Vec<(u64, bool)>, min_hole: u64) -> Vec<(u64, bool)> {
    let last = segments.len().saturating_sub(1);
    let mut filled = Vec::with_capacity(segments.len());
    for (index, (len, data)) in segments.into_iter().enumerate() {
        let short = len < min_hole && (1..last).contains(&index);
        push(&mut filled, len, data || short, false);
    }
    filled
}

fn push(segments: &mut Vec<(u64, bool)>, len: u64, data: bool, breaks: bool) {
    match segments.last_mut() {
        _ if len == 0 => {}
        Some((before, kind)) if *kind == data && !breaks => *before += len,
        _ => segments.push((len, data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grain_is_zeros_only_if_all_its_bytes_are() {
        let classified = |feed: &dyn Fn(&mut ZeroDetector)| {
            let mut detector = ZeroDetector::new(1024, 512, 2048);
            feed(&mut detector);
            detector.finish()
        };
        assert_eq!(classified(&|_| {}), []);
        let parts = classified(&|detector| {
            detector.bytes(&[0; 100]);
            detector.zeros(400);
            detector.bytes(&[0; 12]);
            detector.zeros(511);
            detector.bytes(&[1]);
            detector.zeros(1300);
            detector.bytes(&[0, 1]);
        });
        assert_eq!(parts, [(512, false), (512, true), (1024, false), (278, true)]);
        let broken = classified(&|detector| detector.bytes(&[1; 3000]));
        assert_eq!(broken, [(1024, true), (1976, true)]);
        let unsearched = classified(&|detector| {
            detector.zeros(1024);
            detector.data(700);
        });
        assert_eq!(unsearched, [(1024, false), (700, true)]);
    }

    #[test]
    fn short_holes_are_filled_except_at_the_ends() {
        let segments = vec![(3, false), (5, true), (3, false), (5, true), (4, false), (1, true), (1, false)];
        assert_eq!(fill_short_holes(segments, 4), [(3, false), (13, true), (4, false), (1, true), (1, false)]);
    }
}
