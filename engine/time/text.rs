//! Dates with a time of day, as machines write them.
//!
//! Invariant: what is read here means what chrono reads in it; what is not read is chrono's to judge.

/// Reads `2026-03-02T09:00:00` or `2026-03-02 09:00:00`, with up to nine digits of a fraction, as the seconds from 1970 to then
/// on a clock in UTC and the nanoseconds beyond them; any other form is `None`.
///
/// ```
/// use waterwheel_engine::time::plain_date_time;
/// assert_eq!(plain_date_time(b"2026-03-02 09:00:00.25"), Some((1_772_442_000, 250_000_000)));
/// assert_eq!(plain_date_time(b"2026-02-30 09:00:00"), None);
/// ```
#[inline]
pub fn plain_date_time(text: &[u8]) -> Option<(i64, u32)> {
    let (minutes, rest) = text.split_first_chunk()?;
    let [b':', s1, s2, fraction @ ..] = rest else { return None };
    let [year, month, day, hour, minute] = to_the_minute(minutes)?;
    let second = 10 * digit(*s1)? + digit(*s2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i64::from(3600 * hour + 60 * minute + second);
    Some((days_since_1970(year, month, day) * 86_400 + seconds, nanos(fraction)?))
}

/// The numbers in a text like `2026-03-02 09:00`: all letters are looked at together.
#[inline]
fn to_the_minute(text: &[u8; 16]) -> Option<[u32; 5]> {
    const FORM: u128 = u128::from_le_bytes(*b"0000-00-00 00:00");
    const DIGITS: u128 = {
        let (mut lanes, mut i) = ([0; 16], 0);
        while i < 16 {
            lanes[i] = if FORM.to_le_bytes()[i] == b'0' { 0xff } else { 0 };
            i += 1;
        }
        u128::from_le_bytes(lanes)
    };
    const EACH: u128 = u128::from_le_bytes([1; 16]);
    let mut letters = *text;
    if letters[10] == b'T' {
        letters[10] = b' ';
    }
    // Digits are 0 to 9 now and all else is 0; with 0x76 added nothing but digits stays below 0x80.
    let numbers = u128::from_le_bytes(letters) ^ FORM;
    let odd = (numbers & !DIGITS) | ((numbers | numbers.wrapping_add(0x76 * EACH)) & (0x80 * EACH));
    if odd != 0 {
        return None;
    }
    let pairs = (10 * numbers + (numbers >> 8)).to_le_bytes();
    let [century, year, month, day, hour, minute] = [0, 2, 5, 8, 11, 14].map(|at| u32::from(pairs[at]));
    Some([100 * century + year, month, day, hour, minute])
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970-01-01 to a date of the Gregorian calendar, which is taken to have always been in use.
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    // By years that begin in March: what a leap year adds comes at their end.
    let (year, month) = if month > 2 { (year + 400, month - 3) } else { (year + 399, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + of_year;
    // 1970-01-01 is 719,468 days after 0000-03-01; the 400 years that were added have 146,097.
    i64::from(days) - (719_468 + 146_097)
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

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
    use proptest::prelude::*;

    #[test]
    fn every_day_of_four_hundred_years_is_that_of_the_calendar() {
        let first = NaiveDate::from_ymd_opt(1799, 12, 30).expect("a date");
        for date in first.iter_days().take(147_000) {
            let wanted = date.and_time(NaiveTime::MIN).and_utc().timestamp();
            assert_eq!(plain_date_time(format!("{date}T00:00:00").as_bytes()), Some((wanted, 0)), "{date}");
        }
    }

    proptest! {
        #[test]
        fn straight_times_are_those_of_chrono(year in 0..10_000i32, month in 0..14u32, day in 0..33u32, clock in 0..90_000u32, fraction in "(\\.[0-9]{0,10})?", t: bool) {
            let text = format!("{year:04}-{month:02}-{day:02}{}{:02}:{:02}:{:02}{fraction}", if t { 'T' } else { ' ' }, clock / 3600, clock / 60 % 60, clock % 61);
            let calendar = NaiveDateTime::parse_from_str(&text.replace('T', " "), "%Y-%m-%d %H:%M:%S%.f").ok();
            if let Some(straight) = plain_date_time(text.as_bytes()) {
                let at = calendar.expect("a date of the calendar").and_utc();
                prop_assert_eq!(straight, (at.timestamp(), at.timestamp_subsec_nanos()), "{}", text);
            } else {
                let odd = clock % 61 == 60 || fraction.len() > 10 || fraction == ".";
                prop_assert!(calendar.is_none() || odd, "{} is not read", text);
            }
        }

        #[test]
        fn any_other_letter_makes_it_odd(at in 0..19usize, letter: u8) {
            let mut text = *b"2026-03-02 09:00:00";
            let was = std::mem::replace(&mut text[at], letter);
            let may = letter == was || was.is_ascii_digit() && letter.is_ascii_digit() || at == 10 && letter == b'T';
            prop_assert!(may || plain_date_time(&text).is_none(), "{:?}", text);
        }
    }
}
