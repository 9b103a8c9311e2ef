//! Parses sizes as coreutils does, and formats them for people.

/// Unit letters: powers of 1024, or of 1000 when followed by B. Units above E exceed 64 bits.
const UNITS: &str = "KMGTPEZYRQ";
/// Units that are accepted in lower case. A lower-case b is refused: it is 512 bytes in coreutils and one byte elsewhere.
const SMALL: &str = "kmgt";

/// Parses a decimal number such as `64` or `1.5` and returns it times `factor`, rounded down.
///
/// Returns `None` if the text is not such a number or the result is too large.
pub(crate) fn scaled(number: &str, factor: u64) -> Option<u128> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !digits(whole) || !digits(fraction) || fraction.len() > 15 {
        return None;
    }
    let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let number = whole.parse::<u64>().ok().map(u128::from)? * parts + fraction.parse::<u128>().ok()?;
    Some(number.checked_mul(u128::from(factor))? / parts)
}

/// Parses a size and returns it in bytes: `4096`, `64K` or `64KiB` (1024), `64KB` (1000), `1.5M`.
///
/// The units are `K`, `M`, `G`, `T`, `P` and `E`.
///
/// # Errors
/// Returns a message of one line if `text` is not a size or does not fit into 64 bits.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(digits);
    let expected = || "expected a number of bytes, such as 4096, 64K or 1.5M".to_owned();
    let fraction = number.contains('.');
    if scaled(number, 0).is_none() && (number.is_empty() || fraction) {
        return Err(expected());
    }
    if fraction && (unit.is_empty() || unit == "B") {
        return Err("a fraction needs a unit, such as 1.5M".to_owned());
    }
    let unknown = || {
        format!("unknown unit \"{}\": K, KiB, M, MiB ... are powers of 1024, KB, MB ... of 1000", unit.escape_default())
    };
    let mut letters = unit.chars();
    let factor = match (letters.next(), letters.as_str()) {
        (None, _) | (Some('B'), "") => Some(1),
        (Some(letter), rest) => {
            let place = UNITS.find(letter).or_else(|| SMALL.find(letter)).ok_or_else(unknown)?;
            let base: u64 = match rest {
                "" | "iB" => 1024,
                "B" => 1000,
                _ => return Err(unknown()),
            };
            base.checked_pow(u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1))
        }
    };
    let bytes = factor.and_then(|factor| u64::try_from(scaled(number, factor)?).ok());
    bytes.ok_or_else(|| "too large".to_owned())
}

/// Formats a size in bytes for people: binary units, three figures, no decimals if it is exact.
#[must_use]
pub(crate) fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut place, mut unit) = (0, 1_u64);
    // A value that would round up to 1024 of a unit uses the next unit.
    while place + 1 < UNITS.len() && u128::from(bytes) * 2 >= (u128::from(unit) << 11) - u128::from(unit) {
        place += 1;
        unit <<= 10;
    }
    if bytes.is_multiple_of(unit) {
        return format!("{} {}", bytes / unit, UNITS[place]);
    }
    let whole = bytes / unit;
    let decimals = match whole {
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    // Rounded to hundredths, tenths or ones. A value that rounds up to one more figure loses a decimal.
    let power = 10_u128.pow(decimals);
    let scaled = (u128::from(bytes) * power + u128::from(unit) / 2) / u128::from(unit);
    match (scaled / power, decimals) {
        (10, 2) => format!("10.0 {}", UNITS[place]),
        (100, 1) => format!("100 {}", UNITS[place]),
        (whole, 0) => format!("{whole} {}", UNITS[place]),
        (whole, 1) => format!("{whole}.{} {}", scaled % power, UNITS[place]),
        (whole, _) => format!("{whole}.{:02} {}", scaled % power, UNITS[place]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_figures_and_exact_ones_no_decimals() {
        for (bytes, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1025, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 << 10, "10 KiB"),
            ((10 << 10) - 1, "10.0 KiB"),
            ((100 << 10) - 1, "100 KiB"),
            (12_345, "12.1 KiB"),
            (123_456, "121 KiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (1 << 20, "1 MiB"),
            (8 << 30, "8 GiB"),
            ((1 << 30) + 4711, "1.00 GiB"),
            (6_000_000_000_000, "5.46 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size_text(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn sizes_are_parsed_as_coreutils_does() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1B", 1),
            ("1K", 1024),
            ("1k", 1024),
            ("1KB", 1000),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("64M", 64 << 20),
            ("3MB", 3_000_000),
            ("2GiB", 2 << 30),
            ("16T", 16 << 40),
            ("7E", 7 << 60),
            ("2m", 2 << 20),
            ("2g", 2 << 30),
            ("3tB", 3_000_000_000_000),
            ("1PiB", 1 << 50),
            ("1.5M", 3 << 19),
            ("0.5k", 512),
            ("1.25GiB", 5 << 28),
            ("1.5kB", 1500),
            ("1.0001K", 1024),
            ("15.9E", 18_331_451_923_248_866_918),
            ("1EB", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn invalid_sizes_are_refused() {
        for text in [
            "",
            "K",
            "-1",
            "+1",
            "1.5",
            "1.5B",
            "1.G",
            ".5G",
            ".",
            "1.5.5G",
            "1,5G",
            "1.5X",
            "16.0E",
            "0.1234567890123456K",
            "1 K",
            "1X",
            "1Ki",
            "1kib",
            "1b",
            "1p",
            "1e",
            "0x10",
            "1KiBB",
            "1BB",
            "16E",
            "1Z",
            "1QiB",
            "99999999999999999999",
            "\u{660}",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
