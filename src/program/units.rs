//! Durations and sizes as people type them: `5s`, `10m`, `1h30m`, `64MB`.
//!
//! Invariant: what is displayed parses to the same value; a number without a unit is refused, because nobody knows which.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::observe::human_duration;

/// A span of time, typed as `250ms`, `5s`, `10m`, `1h30m` or `7d`.
///
/// ```
/// use std::time::Duration;
/// use waterwheel::program::Span;
/// assert_eq!("1m30s".parse::<Span>().unwrap().0, Duration::from_secs(90));
/// assert!("5".parse::<Span>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, typed as `500kB`, `64MB` or `2GB` (powers of 1000), or `64MiB` (powers of 1024).
///
/// ```
/// use waterwheel::program::Size;
/// assert_eq!("64MB".parse::<Size>().unwrap().0, 64_000_000);
/// assert_eq!("1.5GiB".parse::<Size>().unwrap().0, 1_610_612_736);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SPANS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3)];
const SIZES: [(&str, f64); 8] =
    [("b", 1.0), ("kb", 1e3), ("mb", 1e6), ("gb", 1e9), ("tb", 1e12), ("kib", 1_024.0), ("mib", 1_048_576.0), ("gib", 1_073_741_824.0)];

/// The sum of `<number><unit>` parts, in the smallest unit.
fn sum(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(letters);
        let (_, size) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        total += number.parse::<f64>().ok()? * size;
        rest = next.trim_start();
    }
    (total.is_finite() && total < 9e15).then_some(total)
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match sum(text, &SPANS) {
            Some(ms) => Ok(Span(Duration::from_micros((ms * 1e3).round() as u64))),
            None => Err(Error::fatal(format!("{text:?} is no duration")).help("write it as 250ms, 5s, 10m, 1h30m or 7d")),
        }
    }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match sum(text, &SIZES) {
            Some(bytes) => Ok(Size(bytes.round() as u64)),
            None => Err(Error::fatal(format!("{text:?} is no size")).help("write it as 500kB, 64MB, 2GB or 512MiB")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human_duration(self.0))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        for (text, ms) in
            [("250ms", 250), ("5s", 5_000), ("10m", 600_000), ("1h30m", 5_400_000), ("1.5 s", 1_500), ("7D", 604_800_000), ("0s", 0)]
        {
            assert_eq!(text.parse::<Span>().unwrap().0, Duration::from_millis(ms), "{text}");
        }
        for (text, bytes) in [("12B", 12), ("500kB", 500_000), ("64 mb", 64_000_000), ("2GB", 2_000_000_000), ("512MiB", 536_870_912)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for text in ["", "5", "s", "5x", "-5s", "5s3", "1e9s", "99999999999999999d", "1..2s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert!("64".parse::<Size>().is_err());
    }

    #[test]
    fn shown_and_read_again_is_the_same() {
        for ms in [0, 1, 999, 61_000, 90_061_001] {
            let span = Span(Duration::from_millis(ms));
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        assert_eq!(Size(1_234_567).to_string().parse::<Size>().unwrap(), Size(1_234_567));
    }
}
