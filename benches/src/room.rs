//! Memory for what a run writes, touched just before it.
//!
//! A virtual machine may have given its free memory back to its host, and gets it back page by page, at up to some seconds a GiB: whoever happens to
//! write to it first pays for that.

use std::fs;
use std::hint::black_box;

/// What a run takes beside its result, in bytes.
const BESIDE: u64 = 256 << 20;

/// Has the machine have room for a result of so many bytes, as far as half of what is available allows. Not all that is free again
/// afterwards is given to the run, so it is more than twice that.
pub fn make(bytes: u64) {
    let most = fs::read_to_string("/proc/meminfo").map_or(0, |told| available(&told) / 2);
    let bytes = usize::try_from((bytes / 4 * 11 + BESIDE).min(most)).unwrap_or(0);
    // Pages of zeros would not be touched.
    drop(black_box(vec![1_u8; bytes]));
}

/// What can be had without swapping, in bytes, as proc(5) tells it.
fn available(told: &str) -> u64 {
    let kib = told.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read_in_octets() {
        assert_eq!(
            available("MemTotal:       24683520 kB\nMemAvailable:   23000000 kB\nBuffers: 1 kB\n"),
            23_000_000 << 10
        );
        assert_eq!(available("nothing of the kind"), 0);
    }

    #[test]
    fn this_machine_says_what_is_available() {
        assert!(available(&fs::read_to_string("/proc/meminfo").unwrap()) > 0);
    }
}
