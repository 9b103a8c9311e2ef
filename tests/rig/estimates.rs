//! Checks the estimates of a transfer's remaining time.

use serde_json::Value;

use crate::Outcome;

/// Fails unless the JSON progress of a transfer of `data` bytes estimated its end within a fifth of the total time,
/// once a tenth of the data was moved. Percentages must match the data moved, never fall, and never exceed 100.
#[track_caller]
pub fn foretold(outcome: &Outcome, data: u64) {
    let messages = &outcome.err;
    let events: Vec<Value> = messages.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let took = events.last().and_then(|end| end["elapsed"].as_f64()).expect(messages);
    let (mut last, mut checked) = (0, 0);
    for event in events.iter().filter(|event| event["event"] == "progress") {
        let percent = event["percent"].as_u64().unwrap_or_default();
        assert!((last..=100).contains(&percent), "{percent} after {last}: {messages}");
        last = percent;
        let moved = event["data"].as_u64().expect(messages);
        let Some(left) = event["left"].as_u64().filter(|_| moved >= data / 10) else { continue };
        // The data size is an estimate if extents are not counted in advance.
        let data_size = event["data_size"].as_u64().expect(messages);
        assert!(data_size.abs_diff(data) <= data / 50, "{data_size} of {data}: {messages}");
        let share = 100 * moved / data;
        assert!(percent.abs_diff(share) <= 2, "{percent} % where {share} % of the data has moved: {messages}");
        let foretold = event["elapsed"].as_f64().expect(messages) + left as f64;
        // Remaining time is reported in whole seconds.
        assert!((foretold - took).abs() <= took / 5.0 + 1.0, "{foretold} s foretold of {took}: {messages}");
        checked += 1;
    }
    assert!(checked >= 3, "only {checked} times: {messages}");
}
