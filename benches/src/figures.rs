//! The figures that are committed: instructions of each case, on each kind of processor.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt;

/// So many percent more or fewer instructions than committed are let pass. A slip of 20 % is then seen wherever in the band it
/// begins: 0.92 * 1.2 > 1.08.
pub const BAND: u64 = 8;

/// What the file begins with.
const HEAD: &str = "\
# Instructions of the guard's cases, in the release profile: processor, case, instructions.
# Renewed by: cargo guard update
";

/// Instructions by processor and case. As text: a line each, and comments that begin with `#`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures(BTreeMap<(String, String), u64>);

impl Figures {
    /// Reads the text. The error is a line that isn't understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut figures = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let parted = line.split_once(' ').and_then(|(arch, rest)| Some((arch, rest.split_once(' ')?)));
            let Some((arch, (case, Ok(instructions)))) =
                parted.map(|(arch, (case, number))| (arch, (case, number.parse())))
            else {
                return Err(format!("`{line}` is not a processor, a case and a number"));
            };
            figures.0.insert((arch.into(), case.into()), instructions);
        }
        Ok(figures)
    }

    /// Takes down a case on this processor.
    pub fn set(&mut self, case: &str, instructions: u64) {
        self.0.insert((ARCH.into(), case.into()), instructions);
    }

    /// Holds what was counted on this processor against what is expected.
    #[must_use]
    pub fn judge<'a>(&self, case: &'a str, instructions: u64) -> Judgement<'a> {
        let expected = self.0.get(&(ARCH.into(), case.into())).copied();
        Judgement { case, instructions, expected }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        self.0.iter().try_for_each(|((arch, case), instructions)| writeln!(f, "{arch} {case} {instructions}"))
    }
}

/// What was counted of a case, and what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement<'a> {
    case: &'a str,
    instructions: u64,
    /// None if there is no figure for this processor.
    expected: Option<u64>,
}

impl Judgement<'_> {
    /// True if it lies in the band.
    #[must_use]
    pub fn is_green(&self) -> bool {
        let Some(expected) = self.expected else { return false };
        let (counted, expected) = (u128::from(self.instructions) * 100, u128::from(expected));
        (expected * u128::from(100 - BAND)..=expected * u128::from(100 + BAND)).contains(&counted)
    }
}

impl fmt::Display for Judgement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} instructions, ", self.case, Grouped(self.instructions))?;
        let Some(expected) = self.expected else { return write!(f, "no figure for {ARCH}") };
        let word = if self.instructions < expected { "fewer" } else { "more" };
        let tenths = u128::from(self.instructions.abs_diff(expected)) * 1000 / u128::from(expected.max(1));
        write!(f, "{} expected: {}.{} % {word}", Grouped(expected), tenths / 10, tenths % 10)
    }
}

/// A number with commas.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(instructions: u64) -> Figures {
        let mut figures = Figures::default();
        figures.set("codec", instructions);
        figures
    }

    #[test]
    fn a_slip_of_twenty_percent_is_seen_wherever_in_the_band_it_begins() {
        let figures = figures(1_000_000);
        let mut begins = 0;
        for before in 800_000..=1_200_000 {
            if figures.judge("codec", before).is_green() {
                begins += 1;
                assert!(!figures.judge("codec", before * 6 / 5).is_green(), "{before}");
            }
        }
        assert_eq!(begins, 160_001);
    }

    #[test]
    fn what_differs_is_said_in_percent_and_what_has_no_figure_is_not_green() {
        let figures = figures(11_000_000);
        let said = |instructions| figures.judge("codec", instructions).to_string();
        assert_eq!(said(12_345_678), "codec: 12,345,678 instructions, 11,000,000 expected: 12.2 % more");
        assert_eq!(said(999), "codec: 999 instructions, 11,000,000 expected: 99.9 % fewer");
        let unknown = figures.judge("coalescer", 100);
        assert_eq!(unknown.to_string(), format!("coalescer: 100 instructions, no figure for {ARCH}"));
        assert!(!unknown.is_green());
    }

    #[test]
    fn renewing_the_figures_of_one_processor_leaves_those_of_others() {
        let mut figures = Figures::parse("# of old\npdp11 codec 7\n").unwrap();
        figures.set("codec", 5);
        assert_eq!(figures.to_string(), format!("{HEAD}pdp11 codec 7\n{ARCH} codec 5\n"));
        assert_eq!(Figures::parse(&figures.to_string()), Ok(figures));
        for line in ["codec 7", "pdp11 codec 7 8", "pdp11 codec x", "", "pdp11 codec -1"] {
            assert!(Figures::parse(&format!("{line}\n")).is_err(), "{line}");
        }
    }
}
