//! Sizes as coreutils take them.

/// Reads a size in octets: `4096`, `64K` and `64KiB` (1024), `64KB` (1000), and so on through `M`, `G`, `T`, `P`, `E`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "expected a number of octets, such as 4096, 64K or 1MiB".to_owned())?;
    let mut letters = unit.chars();
    let power = match letters.next().map(|c| c.to_ascii_uppercase()) {
        None | Some('B') if unit.len() < 2 => 0,
        Some(letter) => match "KMGTPE".find(letter) {
            Some(place) => u32::try_from(place).unwrap_or_default() + 1,
            None => return Err(format!("unknown unit \"{}\"", unit.escape_default())),
        },
        None => 0,
    };
    let base: u64 = match letters.as_str() {
        "" | "iB" => 1024,
        "B" => 1000,
        _ => return Err(format!("unknown unit \"{}\"", unit.escape_default())),
    };
    let factor = base.checked_pow(power);
    factor.and_then(|factor| number.checked_mul(factor)).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_coreutils_make_of_them() {
        for (text, octets) in [
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
        ] {
            assert_eq!(parse_size(text), Ok(octets), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "K", "-1", "+1", "1.5G", "1 K", "1X", "1Ki", "1KiBB", "1BB", "16E", "99999999999999999999", "\u{660}"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
