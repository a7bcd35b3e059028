//! A made-up day of a bank: everyday payments that break no rule, and among them, planted, what the job must find.
//!
//! Everything follows from the seed. Each fraud has a card of its own; everyday payments of a card are so far apart and so
//! small that no rule can take offence; late records lie hours behind all that was written before them.
//!
//! Invariant: the same scenario gives the same records in the same order, and the truth about them.

use crate::model::{Customer, Payment, Rule, Tier};
use crate::truth::{Planted, fingerprint};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::VecDeque;
use waterwheel::prelude::Str;
use waterwheel::{Error, Result};

/// Records come at most this much out of order.
const JITTER_MS: u64 = 3_000;
/// How far late records are behind.
const LATE: TimeDelta = TimeDelta::hours(6);
/// The shortest day with room for every kind of fraud, in event-time seconds.
const SHORTEST: u64 = 600;
const COUNTRIES: [&str; 8] = ["DE", "FR", "NL", "ES", "IT", "AT", "BE", "PL"];
const SHOPS: [(&str, &str); 6] =
    [("Bakery", "food"), ("Kiosk", "news"), ("Metro", "transport"), ("Grocer", "food"), ("Cinema", "leisure"), ("Pharmacy", "health")];

/// How much of what.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides everything that is left open.
    pub seed: u64,
    /// Event time of the first payment.
    pub start: DateTime<Utc>,
    /// Everyday payments.
    pub payments: u64,
    /// Cards that make them.
    pub cards: u64,
    /// Everyday payments per second of event time.
    pub per_second: u64,
    /// Frauds, in the order of [`Rule::ALL`].
    pub frauds: [u64; 4],
    /// Payments that come twice.
    pub duplicates: u64,
    /// Payments that come hours late.
    pub late: u64,
    /// Records that are no payment.
    pub broken: u64,
    /// One of the broken records has 10 MB.
    pub giant: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            seed: 42,
            start: DateTime::from_timestamp(1_772_442_000, 0).unwrap_or_default(),
            payments: 400_000,
            cards: 20_000,
            per_second: 60,
            frauds: [180, 120, 90, 60],
            duplicates: 1_000,
            late: 400,
            broken: 250,
            giant: true,
        }
    }
}

/// One record of the topic `payments`, to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Key: the card; none on some.
    pub key: Option<String>,
    /// Value.
    pub value: Vec<u8>,
    /// When it was sent, in milliseconds.
    pub timestamp: i64,
}

/// Small, fast, and the same everywhere.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `from` up to, not including, `to`.
    fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }
}

/// What comes beside the everyday payments, at which place among them.
struct Extra {
    place: u64,
    key: Option<String>,
    what: What,
}

enum What {
    Payment(Payment),
    Broken(Vec<u8>),
}

impl Scenario {
    /// So many times as many of everything planted, among so many times as many payments.
    #[must_use]
    pub fn scaled(mut self, by: f64) -> Self {
        let scale = |n: &mut u64| *n = ((*n as f64) * by).round() as u64;
        for n in self.frauds.iter_mut().chain([&mut self.payments, &mut self.duplicates, &mut self.late, &mut self.broken]) {
            scale(n);
        }
        self
    }

    /// The truth and the records, made while they are asked for.
    ///
    /// # Errors
    /// A day too short, or cards that would pay too often not to be taken for frauds.
    pub fn play(&self) -> Result<(Vec<Planted>, impl Iterator<Item = Record> + '_)> {
        self.check()?;
        let mut planner = Planner { scenario: self, rng: SplitMix64(self.seed), extras: Vec::new(), truth: Vec::new(), cards: self.cards };
        planner.plan();
        let Planner { mut extras, mut truth, .. } = planner;
        extras.sort_by_key(|e| e.place);
        let planted = extras.iter().filter_map(|e| match &e.what {
            What::Payment(p) => Some(p),
            What::Broken(_) => None,
        });
        let dropped = |t: &Planted| matches!(t, Planted::Late { .. } | Planted::Duplicate { .. });
        let (mut payments, mut amount) = (self.payments + planted.clone().count() as u64, planted.map(|p| p.amount).sum::<i64>());
        payments -= truth.iter().filter(|t| dropped(t)).count() as u64;
        amount -= truth.iter().map(Planted::dropped_amount).sum::<i64>();
        amount += (0..self.payments).map(|i| self.everyday_amount(i)).sum::<i64>();
        truth.push(Planted::Total { payments, amount });
        Ok((truth, self.records(extras.into())))
    }

    /// The customers, in order of their accounts.
    pub fn customers(&self) -> impl Iterator<Item = Customer> + '_ {
        let everyday = self.cards.div_ceil(2);
        let frauds: u64 = self.frauds.iter().sum();
        let of =
            move |account: u64, tier: Tier| Customer { account: account_name(account), home: home(account), limit: tier.limit(), tier };
        let lowest = self.lowest_tier().unwrap_or(Tier::Business);
        let mixed = move |account: u64| if account.is_multiple_of(7) { lowest.max(Tier::Plus) } else { lowest };
        let planted = move |n: u64| if self.is_plus(n) { Tier::Plus } else { Tier::Basic };
        (0..everyday).map(move |a| of(2 * a, mixed(a))).chain((0..frauds).map(move |n| of(self.cards + n, planted(n))))
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: String, help: String| Err(Error::fatal(why).help(help));
        if self.per_second == 0 || self.cards == 0 || self.payments / self.per_second < SHORTEST {
            return refuse(
                format!("{} payments at {} a second last less than {SHORTEST} s of event time", self.payments, self.per_second),
                "make more payments, or fewer a second:  --payments, --per-second".into(),
            );
        }
        if self.lowest_tier().is_none() {
            return refuse(
                format!("{} cards for {} payments a second: every customer would look like a fraud", self.cards, self.per_second),
                "use more cards:  --cards".into(),
            );
        }
        Ok(())
    }

    /// The lowest tier that allows what an everyday card pays within five minutes.
    fn lowest_tier(&self) -> Option<Tier> {
        let most = (300_000 + JITTER_MS) * self.per_second / (self.cards * 1_000) + 2;
        let fits = |t: &Tier| t.payments() as u64 >= most && t.money() >= most as i64 * MOST_EVERYDAY;
        [Tier::Basic, Tier::Plus, Tier::Business].into_iter().find(fits)
    }

    /// Two everyday cards share an account.
    fn account_of(&self, card: u64) -> u64 {
        if card < self.cards { card / 2 * 2 } else { card }
    }

    fn payment(&self, id: String, card: u64, amount: i64, at: DateTime<Utc>, country: &str, device: &str) -> Payment {
        let (merchant, category) = SHOPS[(card as usize + amount as usize) % SHOPS.len()];
        Payment {
            id: id.into(),
            card: card_name(card),
            account: account_name(self.account_of(card)),
            amount,
            currency: "EUR".into(),
            merchant: merchant.into(),
            category: category.into(),
            country: country.into(),
            device: format!("{device}-{card}").into(),
            at,
        }
    }

    fn is_plus(&self, fraud: u64) -> bool {
        fraud < self.frauds[0] && fraud % 5 == 4
    }

    fn time_of(&self, place: u64) -> DateTime<Utc> {
        self.start + TimeDelta::milliseconds((place * 1_000 / self.per_second) as i64)
    }

    fn place_of(&self, at: DateTime<Utc>) -> u64 {
        (at - self.start).num_milliseconds().max(0) as u64 * self.per_second / 1_000
    }

    fn rng_of(&self, i: u64) -> SplitMix64 {
        SplitMix64(self.seed ^ i.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    fn everyday_amount(&self, i: u64) -> i64 {
        self.rng_of(i).within(300, MOST_EVERYDAY as u64) as i64
    }

    /// Every card in its turn, in an order that looks like none.
    fn everyday(&self, i: u64) -> Payment {
        let mut stride = 7_919 % self.cards.max(2);
        while gcd(stride, self.cards) != 1 {
            stride += 1;
        }
        let card = i % self.cards * stride % self.cards;
        let mut rng = self.rng_of(i);
        let amount = rng.within(300, MOST_EVERYDAY as u64) as i64;
        let at = self.time_of(i) + TimeDelta::milliseconds(rng.within(0, JITTER_MS) as i64);
        let device = if rng.next().is_multiple_of(9) { "browser" } else { "phone" };
        self.payment(format!("p{i:09}"), card, amount, at, &home(self.account_of(card)), device)
    }

    fn records(&self, mut extras: VecDeque<Extra>) -> impl Iterator<Item = Record> + '_ {
        let mut place = 0;
        std::iter::from_fn(move || {
            if extras.front().is_some_and(|e| e.place <= place || place == self.payments) {
                let extra = extras.pop_front()?;
                let value = match &extra.what {
                    What::Payment(payment) => json(payment),
                    What::Broken(bytes) => bytes.clone(),
                };
                return Some(Record { key: extra.key, value, timestamp: self.time_of(place).timestamp_millis() });
            }
            if place == self.payments {
                return None;
            }
            let payment = self.everyday(place);
            let timestamp = self.time_of(place).timestamp_millis();
            place += 1;
            // Some senders leave the key out; the rules must not depend on it.
            let key = (place % 997 != 0).then(|| payment.card.to_string());
            Some(Record { key, value: json(&payment), timestamp })
        })
    }
}

/// No everyday payment is larger.
const MOST_EVERYDAY: i64 = 12_000;

struct Planner<'a> {
    scenario: &'a Scenario,
    rng: SplitMix64,
    extras: Vec<Extra>,
    truth: Vec<Planted>,
    /// Cards used so far.
    cards: u64,
}

impl Planner<'_> {
    fn plan(&mut self) {
        for (rule, n) in Rule::ALL.into_iter().zip(self.scenario.frauds) {
            for k in 0..n {
                self.fraud(rule, k, n);
            }
        }
        let frauds: Vec<Payment> =
            self.extras.iter().filter_map(|e| if let What::Payment(p) = &e.what { Some(p.clone()) } else { None }).collect();
        for k in 0..self.scenario.duplicates {
            self.duplicate(k, &frauds);
        }
        for k in 0..self.scenario.late {
            self.late(k);
        }
        for k in 0..self.scenario.broken {
            self.broken(k);
        }
    }

    /// The `k`-th of `n` things spread evenly over `from..to` of the places, with some chance.
    fn spread(&mut self, k: u64, n: u64, from: u64, to: u64) -> u64 {
        let step = ((to - from) / n.max(1)).max(1);
        (from + k * (to - from) / n.max(1) + self.rng.within(0, step)).min(to)
    }

    fn fraud(&mut self, rule: Rule, k: u64, n: u64) {
        let s = self.scenario;
        // Ninety seconds in, so that a payment before the fraud fits; done long before the end.
        let place = self.spread(k, n, 90 * s.per_second, s.payments.saturating_sub(400 * s.per_second));
        let (at, card) = (s.time_of(place), self.cards);
        let fraud = card - s.cards;
        self.cards += 1;
        let country = home(s.account_of(card));
        let mut made: Vec<Payment> = Vec::new();
        let mut pay = |seconds: u64, amount: u64, country: &str, device: &str| {
            let id = format!("f{fraud:06}-{}", made.len());
            made.push(s.payment(id, card, amount as i64, at + TimeDelta::seconds(seconds as i64), country, device));
        };
        let rng = &mut self.rng;
        match rule {
            Rule::Velocity if k.is_multiple_of(3) && !s.is_plus(fraud) => {
                (0..5).for_each(|i| pay(i * 40 + rng.within(0, 20), rng.within(42_000, 49_900), &country, "phone"));
            }
            Rule::Velocity => {
                let count = if s.is_plus(fraud) { rng.within(13, 16) } else { rng.within(7, 11) };
                (0..count).for_each(|i| pay(i * 14 + rng.within(0, 10), rng.within(500, 4_000), &country, "phone"));
            }
            Rule::SmallThenLarge => {
                pay(0, rng.within(50, 201), &country, "phone");
                pay(rng.within(5, 60), rng.within(50_000, 190_000), &country, "phone");
            }
            Rule::TwoCountries => {
                pay(0, rng.within(300, 9_000), &country, "phone");
                let abroad = ["BR", "US", "VN", "ZA"][rng.within(0, 4) as usize];
                pay(rng.within(30, 600), rng.within(300, 9_000), abroad, "phone");
            }
            Rule::NewDevice => {
                pay(0, rng.within(300, 9_000), &country, "phone");
                pay(60 + rng.within(0, 60), rng.within(150_000, 190_000), &country, "unknown");
            }
        }
        let payments = made.iter().map(|p| p.id.to_string()).collect();
        self.truth.push(Planted::Fraud { rule, card: card_name(card).into(), payments });
        for payment in made {
            self.extras.push(Extra { place: s.place_of(payment.at), key: Some(payment.card.to_string()), what: What::Payment(payment) });
        }
    }

    /// The same payment again, some seconds later; now and then one that belongs to a fraud.
    fn duplicate(&mut self, k: u64, frauds: &[Payment]) {
        let s = self.scenario;
        let nth_fraud = (k / 10) as usize;
        let payment = match frauds.get(nth_fraud) {
            Some(fraud) if k % 10 == 3 => fraud.clone(),
            _ => s.everyday(self.spread(k, s.duplicates, 0, s.payments - 1)),
        };
        let place = s.place_of(payment.at) + self.rng.within(1, 20 * s.per_second);
        self.truth.push(Planted::Duplicate { id: payment.id.to_string(), amount: payment.amount });
        self.extras.push(Extra { place, key: Some(payment.card.to_string()), what: What::Payment(payment) });
    }

    fn late(&mut self, k: u64) {
        let s = self.scenario;
        let place = self.spread(k, s.late, s.payments / 5, s.payments);
        let amount = self.rng.within(300, MOST_EVERYDAY as u64) as i64;
        let late = s.payment(format!("late{k:06}"), self.cards, amount, s.time_of(place) - LATE, "DE", "phone");
        self.cards += 1;
        self.truth.push(Planted::Late { id: late.id.to_string(), amount });
        self.extras.push(Extra { place, key: Some(late.card.to_string()), what: What::Payment(late) });
    }

    fn broken(&mut self, k: u64) {
        let s = self.scenario;
        let place = self.spread(k, s.broken, 0, s.payments);
        let good = s.payment(format!("b{k:06}"), self.cards, 1_000, s.time_of(place), "DE", "phone");
        let value = if k == s.broken / 2 && s.giant { vec![b'x'; 10_000_000] } else { broken_value(k, &good) };
        let key = (!k.is_multiple_of(4)).then(|| good.card.to_string());
        self.truth.push(Planted::Broken { fingerprint: fingerprint(key.as_deref().map(str::as_bytes), Some(&value)) });
        self.extras.push(Extra { place, key, what: What::Broken(value) });
    }
}

/// Ten ways not to be a payment.
fn broken_value(k: u64, good: &Payment) -> Vec<u8> {
    let text = String::from_utf8_lossy(&json(good)).into_owned();
    match k % 10 {
        0 => text.as_bytes()[..text.len() / 2].to_vec(),
        1 => text.replace("1000", "\"ten euros\"").into_bytes(),
        2 => text.replace("\"card\":", "\"crad\":").into_bytes(),
        3 => text.replace("1000", "-1000").into_bytes(),
        4 => Vec::new(),
        5 => [&text.as_bytes()[..9], &[0xFF, 0xFE, k as u8], &text.as_bytes()[9..]].concat(),
        6 => format!("[{k}]").into_bytes(),
        7 => text.replace("T", "t o'clock ").into_bytes(),
        8 => text.replace("1000", "1e400").into_bytes(),
        // A time that would carry the watermark away with it.
        _ => json(&Payment { at: good.at + TimeDelta::days(365_000), ..good.clone() }),
    }
}

fn json(payment: &Payment) -> Vec<u8> {
    serde_json::to_vec(payment).unwrap_or_default()
}

/// Sixteen digits, different for every card: the factor has no divisor in common with 10^15.
fn card_name(card: u64) -> Str {
    format!("4{:015}", (u128::from(card) * 736_481_779_157 + 271_828_182_845_904) % 1_000_000_000_000_000).into()
}

fn account_name(account: u64) -> Str {
    format!("A{account:08}").into()
}

fn home(account: u64) -> Str {
    COUNTRIES[(account / 2) as usize % COUNTRIES.len()].into()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::model::{Alert, Spending};
    use crate::rules::{Activity, CardHistory, Episode};
    use crate::truth::Verdict;
    use std::collections::{BTreeMap, HashSet};

    fn small() -> Scenario {
        let planted = Scenario { frauds: [18, 12, 9, 60], duplicates: 100, late: 40, broken: 25, ..Scenario::default() };
        Scenario { payments: 60_000, cards: 8_000, per_second: 40, ..planted }
    }

    /// What the job is to do, done the slow and simple way over everything at once.
    fn naive(scenario: &Scenario, records: &[Record]) -> (Vec<Alert>, usize, usize) {
        let customers: BTreeMap<Str, Customer> = scenario.customers().map(|c| (c.account.clone(), c)).collect();
        let plausible = scenario.start + TimeDelta::days(36_500);
        let read = records.iter().filter_map(|r| serde_json::from_slice::<Payment>(&r.value).ok()).filter(|p| p.at < plausible);
        let mut seen = HashSet::new();
        let all: Vec<Payment> = read.collect();
        let bad = records.len() - all.len();
        let fresh: Vec<Payment> = all.into_iter().filter(|p| seen.insert(p.id.clone())).collect();
        let mut cards: BTreeMap<Str, Vec<Payment>> = BTreeMap::new();
        let (late, good): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|p| p.at < scenario.start);
        good.into_iter().for_each(|p| cards.entry(p.card.clone()).or_default().push(p));
        let mut alerts = Vec::new();
        for (card, mut payments) in cards {
            payments.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
            let customer = customers.get(&payments[0].account);
            let payments: Vec<Spending> = payments.into_iter().map(|p| Spending::of(p, customer)).collect();
            let time = |s: &Spending| s.payment.at.timestamp_millis();
            let mut history = CardHistory::default();
            alerts.extend(payments.iter().flat_map(|s| history.see(s, &Limits::default())));
            let (mut episode, step) = (Episode::default(), 10_000);
            let (first, last) = (time(&payments[0]), time(&payments[payments.len() - 1]));
            for end in (first / step + 1..=last / step + 30).map(|n| n * step) {
                let mut window = Activity::default();
                payments.iter().filter(|s| (end - 300_000..end).contains(&time(s))).for_each(|s| window.add(s));
                let end = DateTime::from_timestamp_millis(end).unwrap();
                if let Some(alert) = window.is_too_much().then(|| window.alert(&card)).flatten()
                    && episode.begins(end, TimeDelta::seconds(10))
                {
                    alerts.push(alert);
                }
            }
        }
        (alerts, late.len(), bad)
    }

    #[test]
    fn the_rules_find_what_is_planted_and_nothing_else() {
        for seed in [1, 42] {
            let scenario = Scenario { seed, ..small() };
            let (truth, records) = scenario.play().unwrap();
            let (alerts, late, bad) = naive(&scenario, &records.collect::<Vec<_>>());
            let verdict = Verdict::of_alerts(&truth, &alerts);
            assert!(verdict.rules.iter().all(|r| r.found == r.planted && r.false_alerts == 0), "{verdict:?}");
            assert_eq!(verdict.rules.iter().map(|r| r.planted).collect::<Vec<_>>(), [18, 12, 9, 60]);
            assert_eq!((late, bad), (40, 25));
        }
    }

    #[test]
    fn the_seed_decides_everything() {
        let play = |seed| Scenario { seed, ..small() }.play().unwrap().1.collect::<Vec<_>>();
        assert!(play(1) == play(1));
        assert!(play(1) != play(2));
    }

    #[test]
    fn records_are_hardly_out_of_order_and_late_ones_very_much() {
        let scenario = small();
        let (_, records) = scenario.play().unwrap();
        let mut newest = scenario.start;
        let mut late = 0;
        let mut seen = HashSet::new();
        for p in records.filter_map(|r| serde_json::from_slice::<Payment>(&r.value).ok()) {
            if p.at > scenario.start + TimeDelta::days(1) || !seen.insert(p.id.clone()) {
                continue;
            }
            late += usize::from(newest - p.at > TimeDelta::hours(1));
            assert!(newest - p.at < TimeDelta::seconds(5) || newest - p.at > TimeDelta::hours(1), "{p:?}");
            newest = newest.max(p.at);
        }
        assert_eq!(late, 40);
    }

    #[test]
    fn a_scenario_that_cannot_be_exact_is_refused() {
        assert!(Scenario { payments: 1_000, ..small() }.play().is_err());
        assert!(Scenario { cards: 20, ..small() }.play().is_err());
        let dense = Scenario { cards: 100_000, per_second: 10_000, payments: 6_000_000, ..small() };
        assert!(dense.play().is_ok());
    }
}
