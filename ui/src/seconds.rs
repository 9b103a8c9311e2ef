//! Parses durations on the command line.

use std::ops::RangeInclusive;

/// Valid values of an option, in seconds: 3 seconds to 24 hours.
const RANGE: RangeInclusive<u64> = 3..=86_400;
/// Unit suffixes and their values in seconds.
const UNITS: [(&str, u64); 4] = [("", 1), ("s", 1), ("m", 60), ("h", 3600)];

/// Parses a duration and returns it in seconds: `90`, `90s`, `1.5m`, `2h`.
///
/// # Errors
/// Returns a message of one line if `text` is not a duration of whole seconds from 3 seconds to 24 hours.
pub fn parse_seconds(text: &str) -> Result<u32, String> {
    let ends = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(ends);
    let expected = || "expected seconds, such as 90 or 90s, or minutes, such as 2m".to_owned();
    let factor =
        UNITS.into_iter().find(|(letter, _)| *letter == unit).map(|(_, factor)| factor).ok_or_else(expected)?;
    let thousandths = crate::size::scaled(number, factor.saturating_mul(1000)).ok_or_else(expected)?;
    let seconds = u64::try_from(thousandths / 1000).unwrap_or(u64::MAX);
    match u32::try_from(seconds) {
        Ok(short) if RANGE.contains(&seconds) && thousandths % 1000 == 0 => Ok(short),
        Ok(_) if thousandths % 1000 != 0 => Err("expected whole seconds".to_owned()),
        _ => Err(format!("expected {} seconds to 24 hours", RANGE.start())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_accept_seconds_minutes_and_hours() {
        for (text, seconds) in [
            ("3", 3),
            ("90", 90),
            ("90s", 90),
            ("2m", 120),
            ("1.5m", 90),
            ("0.1m", 6),
            ("24h", 86_400),
            ("1.25h", 4500),
        ] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in
            ["", "s", "2", "0", "-5", "1.5", "0.01m", "2M", "2 m", "25h", "86401", "1d", "m2", "1.m", ".5m", "1..5m"]
        {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
        assert!(parse_seconds("99999999999999999999999999999999999999h").is_err());
    }
}
