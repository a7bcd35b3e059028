//! Dates with a time of day, as machines write them.
//!
//! Invariant: what is read here means what chrono reads in it; what is not read is chrono's to judge.

use chrono::{NaiveDate, NaiveDateTime};

/// Reads `2026-03-02T09:00:00` or `2026-03-02 09:00:00`, with up to nine digits of a fraction; any other form is `None`.
///
/// ```
/// use waterwheel_engine::time::plain_date_time;
/// assert_eq!(plain_date_time(b"2026-03-02 09:00:00.25").map(|at| at.and_utc().timestamp_millis()), Some(1_772_442_000_250));
/// assert_eq!(plain_date_time(b"2026-02-30 09:00:00"), None);
/// ```
pub fn plain_date_time(text: &[u8]) -> Option<NaiveDateTime> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b' ', h1, h2, b':', i1, i2, b':', s1, s2, fraction @ ..] = text else {
        return None;
    };
    let (year, month) = (100 * two(*y1, *y2)? + two(*y3, *y4)?, two(*m1, *m2)?);
    let date = NaiveDate::from_ymd_opt(year as i32, month, two(*d1, *d2)?)?;
    date.and_hms_nano_opt(two(*h1, *h2)?, two(*i1, *i2)?, two(*s1, *s2)?, nanos(fraction)?)
}

fn two(tens: u8, ones: u8) -> Option<u32> {
    Some(10 * digit(tens)? + digit(ones)?)
}

fn digit(byte: u8) -> Option<u32> {
    byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
}

fn nanos(fraction: &[u8]) -> Option<u32> {
    match fraction {
        [] => Some(0),
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            let number = digits.iter().try_fold(0, |n, &byte| Some(10 * n + digit(byte)?))?;
            Some(number * 10u32.pow(9 - digits.len() as u32))
        }
        _ => None,
    }
}
