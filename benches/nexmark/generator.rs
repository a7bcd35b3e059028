//! Events of the Nexmark benchmark as JSON: an auction house's persons, auctions and bids in one envelope.
//!
//! The shape is the suite's: of 50 events 1 is a new person, 3 are new auctions, 46 are bids; half of the bids go to a hot
//! auction, three quarters come from a hot bidder; event time advances 10,000 events a second; a record has some 335 bytes.
//! Event `n` of a seed is always the same, whoever makes it and in whatever order.
//!
//! Invariant: a record is one JSON object with `event_type` and three members, two of which are null.

use chrono::{DateTime, Datelike};
use std::io::Write as _;

/// Events a second of event time.
const EVENTS_PER_SECOND: u64 = 10_000;
/// 2024-01-01 00:00:00 UTC.
const FIRST_MS: u64 = 1_704_067_200_000;
/// Events of which one makes a person and the next three an auction each.
const ROUND: u64 = 50;
const AUCTIONS: u64 = 3;
const FIRST_ID: u64 = 1000;
/// Bids go to the newest auctions, and a few to ones that are not there yet.
const IN_FLIGHT: u64 = 100;
const ACTIVE_PEOPLE: u64 = 1000;
const LEAD: u64 = 10;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
const CHANNELS: u64 = 10_000;

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// Makes events of one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Events {
    pub(crate) seed: u64,
}

impl Events {
    /// Appends the record of event `n`.
    pub(crate) fn write(&self, n: u64, out: &mut Vec<u8>) {
        let random = &mut Random::of(self.seed, n);
        match n % ROUND {
            0 => person(n, random, out),
            1..=AUCTIONS => auction(n, random, out),
            _ => bid(n, random, out),
        }
    }
}

fn person(n: u64, random: &mut Random, out: &mut Vec<u8>) {
    put(out, format_args!("{{\"event_type\":0,\"person\":{{\"id\":{},\"name\":\"", FIRST_ID + last_person(n)));
    put(out, format_args!("{} {}\",\"emailAddress\":\"", random.of_list(&FIRST_NAMES), random.of_list(&LAST_NAMES)));
    letters(random, 7, out);
    out.push(b'@');
    letters(random, 5, out);
    put(out, format_args!(".com\",\"creditCard\":\""));
    for group in 0..4 {
        put(out, format_args!("{}{:04}", if group > 0 { " " } else { "" }, random.below(10_000)));
    }
    put(out, format_args!("\",\"city\":\"{}\",\"state\":\"{}\"", random.of_list(&CITIES), random.of_list(&STATES)));
    stamp("dateTime", time_ms(n), out);
    extra(random, 120, out);
    put(out, format_args!("}},\"auction\":null,\"bid\":null}}"));
}

fn auction(n: u64, random: &mut Random, out: &mut Vec<u8>) {
    let hot = random.below(4) > 0;
    let seller = if hot { last_person(n) / 100 * 100 } else { active_person(n, random) };
    let (initial, more) = (price(random), price(random));
    put(out, format_args!("{{\"event_type\":1,\"person\":null,\"auction\":{{\"id\":{},\"itemName\":\"", FIRST_ID + last_auction(n)));
    letters(random, 20, out);
    put(out, format_args!("\",\"description\":\""));
    letters(random, 100, out);
    put(out, format_args!("\",\"initialBid\":{initial},\"reserve\":{}", initial + more));
    let at = time_ms(n);
    // As long as it takes for the auctions in flight to be followed by as many, twice that at most.
    let horizon = time_ms(n + IN_FLIGHT * ROUND / AUCTIONS) - at;
    stamp("dateTime", at, out);
    stamp("expires", at + 1 + random.below((2 * horizon).max(1)), out);
    put(out, format_args!(",\"seller\":{},\"category\":{}", FIRST_ID + seller, FIRST_CATEGORY + random.below(CATEGORIES)));
    extra(random, 400, out);
    put(out, format_args!("}},\"bid\":null}}"));
}

fn bid(n: u64, random: &mut Random, out: &mut Vec<u8>) {
    let auction = if random.below(2) > 0 { last_auction(n) / 100 * 100 } else { auction_in_flight(n, random) };
    let bidder = if random.below(4) > 0 { last_person(n) / 100 * 100 + 1 } else { active_person(n, random) };
    put(out, format_args!("{{\"event_type\":2,\"person\":null,\"auction\":null,\"bid\":{{\"auction\":{},", FIRST_ID + auction));
    put(out, format_args!("\"bidder\":{},\"price\":{},", FIRST_ID + bidder, price(random)));
    let hot = random.below(2) > 0;
    let channel = if hot { random.below(HOT_CHANNELS.len() as u64) } else { random.below(CHANNELS) };
    match hot {
        true => put(out, format_args!("\"channel\":\"{}\",", HOT_CHANNELS[channel as usize])),
        false => put(out, format_args!("\"channel\":\"channel-{channel}\",")),
    }
    put(out, format_args!("\"url\":\"https://www.nexmark.com/"));
    // A channel has one address.
    let address = &mut Random::of(channel + 1, u64::from(hot));
    for _ in 0..3 {
        letters(address, 5, out);
        out.push(b'/');
    }
    put(out, format_args!("item.htm?query=1"));
    if !hot && address.below(10) > 0 {
        put(out, format_args!("&channel_id={}", address.below(1 << 31)));
    }
    out.push(b'"');
    stamp("dateTime", time_ms(n), out);
    extra(random, 60, out);
    put(out, format_args!("}}}}"));
}

/// Writing to a vector cannot fail.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn time_ms(n: u64) -> u64 {
    FIRST_MS + n * 1000 / EVENTS_PER_SECOND
}

/// Newest person of the events up to `n`.
fn last_person(n: u64) -> u64 {
    n / ROUND
}

/// Newest auction of the events up to `n`.
fn last_auction(n: u64) -> u64 {
    let made = n % ROUND;
    (n / ROUND * AUCTIONS + made.min(AUCTIONS)).saturating_sub(1)
}

fn active_person(n: u64, random: &mut Random) -> u64 {
    let people = last_person(n) + 1;
    let active = people.min(ACTIVE_PEOPLE);
    people - active + random.below(active + LEAD)
}

fn auction_in_flight(n: u64, random: &mut Random) -> u64 {
    let newest = last_auction(n);
    let oldest = newest.saturating_sub(IN_FLIGHT);
    oldest + random.below(newest - oldest + 1 + LEAD)
}

/// From 1 to 1,000,000 in whole hundredths, small ones as often as large ones.
fn price(random: &mut Random) -> u64 {
    let exponent = random.below(1 << 53) as f64 / (1u64 << 53) as f64 * 6.0;
    (10f64.powf(exponent) * 100.0).round() as u64
}

/// Lower-case words of some letters in all, at least three.
fn letters(random: &mut Random, most: u64, out: &mut Vec<u8>) {
    let length = if most <= 7 { most.min(3 + random.below(5)) } else { 3 + random.below(most - 3) };
    for i in 0..length {
        // A blank now and then, not at an end.
        let blank = most > 7 && i > 0 && i + 1 < length && random.below(13) == 0;
        out.push(if blank { b' ' } else { b'a' + random.below(26) as u8 });
    }
}

/// Padding, a fifth more or less than so many characters: runs of lower case and of `I` to `b`, which has a backslash in it.
fn extra(random: &mut Random, around: u64, out: &mut Vec<u8>) {
    put(out, format_args!(",\"extra\":\""));
    let length = around - around / 5 + random.below(2 * around / 5);
    let (mut bits, mut upper) = (0, false);
    for i in 0..length {
        if i % 6 == 0 {
            bits = random.next();
            upper = bits >> 60 & 1 == 1;
        }
        let (first, span) = if upper { (b'I', 26) } else { (b'a', 26) };
        let letter = first + (bits & 0xff) as u8 % span;
        bits >>= 8;
        if letter == b'\\' {
            out.push(b'\\');
        }
        out.push(letter);
    }
    out.push(b'"');
}

/// `2024-01-01 00:00:00.1`: no zeros at the end, no point on a full second.
fn stamp(name: &str, ms: u64, out: &mut Vec<u8>) {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let date = DateTime::from_timestamp(days as i64 * 86_400, 0).unwrap_or_default();
    let (year, month, day) = (date.year(), date.month(), date.day());
    let (hour, minute, second, milli) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
    put(out, format_args!(",\"{name}\":\"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"));
    match milli {
        0 => {}
        m if m % 100 == 0 => put(out, format_args!(".{}", m / 100)),
        m if m % 10 == 0 => put(out, format_args!(".{:02}", m / 10)),
        m => put(out, format_args!(".{m:03}")),
    }
    out.push(b'"');
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn of(seed: u64, n: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    fn of_list<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}
