//! What the job reads, keeps and writes.
//!
//! Invariant: amounts are minor units (cents) above zero; every time is event time. So nothing that is written depends on
//! when the job ran.

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use waterwheel::prelude::Str;

/// Largest amount that is a payment and no mistake: a hundred million.
pub const LARGEST_AMOUNT: i64 = 10_000_000_000;

/// One card payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Unique; the same id again is the same payment again.
    pub id: Str,
    /// Card number.
    pub card: Str,
    /// Account that the card belongs to.
    pub account: Str,
    /// Minor units, 1 to [`LARGEST_AMOUNT`].
    #[serde(deserialize_with = "amount")]
    pub amount: i64,
    /// ISO 4217.
    pub currency: Str,
    /// Who was paid.
    pub merchant: Str,
    /// What for.
    pub category: Str,
    /// Country of the shop, ISO 3166.
    pub country: Str,
    /// Terminal, phone or browser that the card was used with.
    pub device: Str,
    /// When.
    #[serde(with = "waterwheel::compact_time")]
    pub at: DateTime<Utc>,
}

fn amount<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    let amount = i64::deserialize(d)?;
    if (1..=LARGEST_AMOUNT).contains(&amount) {
        return Ok(amount);
    }
    Err(serde::de::Error::custom(format_args!("amount {amount} is not in 1..={LARGEST_AMOUNT}")))
}

/// One account and what is usual for it; the latest record of an account counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// Account.
    pub account: Str,
    /// Where the customer lives.
    pub home: Str,
    /// Largest payment from a device never seen before, in minor units.
    pub limit: i64,
    /// Risk tier.
    pub tier: Tier,
}

/// A payment, and what is usual for the customer who makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// The payment.
    pub payment: Payment,
    /// Risk tier.
    pub tier: Tier,
    /// Largest payment from a device never seen before, in minor units.
    pub limit: i64,
}

impl Spending {
    /// A customer that is not known counts as [`Tier::Basic`].
    pub fn of(payment: Payment, customer: Option<&Customer>) -> Self {
        let tier = customer.map_or(Tier::Basic, |c| c.tier);
        Spending { payment, tier, limit: customer.map_or(tier.limit(), |c| c.limit) }
    }
}

/// How much is usual within five minutes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// A new customer, or one that is not known.
    #[default]
    Basic,
    /// An old customer.
    Plus,
    /// A company.
    Business,
}

impl Tier {
    /// Payments allowed within five minutes.
    pub fn payments(self) -> usize {
        match self {
            Tier::Basic => 6,
            Tier::Plus => 12,
            Tier::Business => 60,
        }
    }

    /// Money allowed within five minutes, in minor units.
    pub fn money(self) -> i64 {
        match self {
            Tier::Basic => 200_000,
            Tier::Plus => 1_000_000,
            Tier::Business => 50_000_000,
        }
    }

    /// The largest payment from a new device, in minor units, of a customer of this tier unless agreed otherwise.
    pub fn limit(self) -> i64 {
        match self {
            Tier::Basic => 100_000,
            Tier::Plus => 250_000,
            Tier::Business => 5_000_000,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Basic => "basic",
            Tier::Plus => "plus",
            Tier::Business => "business",
        })
    }
}

/// What was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Too many payments, or too much money, in five minutes.
    Velocity,
    /// A tiny payment, to try the card, and a large one within a minute.
    SmallThenLarge,
    /// Two countries within ten minutes.
    TwoCountries,
    /// More than the customer's limit from a device never seen with this card.
    NewDevice,
}

impl Rule {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Rule; 4] = [Rule::Velocity, Rule::SmallThenLarge, Rule::TwoCountries, Rule::NewDevice];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rule::Velocity => "velocity",
            Rule::SmallThenLarge => "small-then-large",
            Rule::TwoCountries => "two-countries",
            Rule::NewDevice => "new-device",
        })
    }
}

/// One payment, as far as it proves something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The payment.
    pub id: Str,
    /// Minor units.
    pub amount: i64,
    /// Where.
    pub country: Str,
    /// With what.
    pub device: Str,
    /// When.
    #[serde(with = "waterwheel::compact_time")]
    pub at: DateTime<Utc>,
}

impl From<&Payment> for Evidence {
    fn from(p: &Payment) -> Self {
        Evidence { id: p.id.clone(), amount: p.amount, country: p.country.clone(), device: p.device.clone(), at: p.at }
    }
}

/// A fraud, found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What was broken.
    pub rule: Rule,
    /// Card.
    pub card: Str,
    /// Account.
    pub account: Str,
    /// Event time of the last payment that proves it.
    #[serde(with = "waterwheel::compact_time")]
    pub at: DateTime<Utc>,
    /// For a person.
    pub reason: String,
    /// The payments that prove it, in event-time order.
    pub payments: Vec<Evidence>,
}

/// What an account paid within one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountActivity {
    /// Account.
    pub account: Str,
    /// Begin of the minute.
    pub minute: DateTime<Utc>,
    /// Number of payments.
    pub payments: u64,
    /// Minor units.
    pub amount: i64,
}

impl AccountActivity {
    /// Account and minute: the newest record of this key counts.
    pub fn key(&self) -> String {
        // In place of chrono's `format`, which reads its pattern anew each time.
        let at = &self.minute;
        let (year, month, day, hour, minute) = (at.year(), at.month(), at.day(), at.hour(), at.minute());
        format!("{}@{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}Z", self.account)
    }
}

/// `2 310.00 EUR`: minor units for a person.
pub fn money(minor: i64) -> String {
    let (whole, cents) = (minor / 100, minor % 100);
    format!("{}.{:02} EUR", thousands(whole.unsigned_abs()), cents.abs())
}

/// `1 234 567`: a number for a person.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"p1","card":"4","account":"a","amount":1250,"currency":"EUR","merchant":"m","category":"food",
        "country":"DE","device":"d","at":"2026-03-02T09:00:00.250Z"}"#;

    #[test]
    fn a_payment_comes_back_as_it_was_written() {
        let payment: Payment = serde_json::from_str(GOOD).unwrap();
        assert_eq!(payment.at.timestamp_millis(), 1_772_442_000_250);
        let text = serde_json::to_string(&payment).unwrap();
        assert_eq!(serde_json::from_str::<Payment>(&text).unwrap(), payment);
    }

    #[test]
    fn what_is_no_payment_is_refused_with_the_reason() {
        for (good, bad, reason) in [
            ("1250", "-1", "amount -1"),
            ("1250", "0", "amount 0"),
            ("1250", "1e30", "1e+30"),
            ("1250", "\"12\"", "invalid type"),
            ("\"card\":\"4\",", "", "missing field `card`"),
            ("2026-03-02T09", "2026-13-02T09", "input is out of range"),
        ] {
            let error = serde_json::from_str::<Payment>(&GOOD.replace(good, bad)).unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn a_total_is_named_by_account_and_minute() {
        let minute = DateTime::from_timestamp(1_772_442_060, 0).unwrap();
        let activity = AccountActivity { account: "A1".into(), minute, payments: 1, amount: 1 };
        assert_eq!(activity.key(), format!("A1@{}", minute.format("%Y-%m-%dT%H:%MZ")));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(money(231_000), "2 310.00 EUR");
        assert_eq!(money(5), "0.05 EUR");
        assert_eq!((thousands(0), thousands(999), thousands(1_234_567)), ("0".into(), "999".into(), "1 234 567".into()));
    }
}
