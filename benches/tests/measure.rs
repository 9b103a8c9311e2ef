//! What a run took is told right. In a process of its own: whatever is left behind counts as its own.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]

use xfer_hole_bench::line::{Line, Tap};
use xfer_hole_bench::measure::Measure;

#[test]
fn a_grandchilds_processor_time_and_memory_count_and_sleep_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let measure = Measure { said: folder.path().join("said"), servers: Vec::new() };
    let busy = Line::one(["sh", "-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; :"]);
    let took = measure.time(&busy, Tap::Closed).unwrap();
    let idle = measure.time(&Line::one(["sleep", "0.3"]), Tap::Closed).unwrap();
    assert!(idle.time >= 0.3 && idle.cpu < took.cpu, "{took:?} {idle:?}");

    let large = Line::one(["sh", "-c", "sh -c 'x=$(head -c 67108864 /dev/zero | tr \"\\\\0\" a); sleep 0.2'; :"]);
    let memory = measure.memory(&large, Tap::Closed, || Ok(())).unwrap();
    assert!(memory.near > 64 << 20 && memory.near < 512 << 20, "{memory:?}");
    assert_eq!(memory.far, 0);
    assert!(measure.memory(&Line::one(["sleep", "0.2"]), Tap::Closed, || Ok(())).unwrap().near < 16 << 20);
}
