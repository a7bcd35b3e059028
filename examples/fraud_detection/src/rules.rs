//! The rules, as plain functions and values: no engine in here.
//!
//! A rule sees the payments of one card in event-time order (ties by id), each once. What it suspects becomes an alert when
//! the customer is known, because how much is usual depends on the customer.
//!
//! Invariant: the same payments in the same order give the same suspicions, and a fraud is reported once, when it first shows.

use crate::model::{Alert, Customer, Evidence, Payment, Rule, Tier, money};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A payment up to this may be a trial of a stolen card.
pub const TINY: i64 = 200;
/// A payment from this on is large, after a tiny one.
pub const LARGE: i64 = 50_000;
/// How long a tiny payment is remembered.
pub const TRIAL: TimeDelta = TimeDelta::minutes(1);
/// Nobody is in two countries within this.
pub const TRAVEL: TimeDelta = TimeDelta::minutes(10);
/// How many devices of a card are remembered: the newest ones.
const DEVICES: usize = 16;

/// A fraud, unless the customer is known to do such things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// What seems broken.
    pub rule: Rule,
    /// Card.
    pub card: String,
    /// Account.
    pub account: String,
    /// The payments that prove it, in event-time order; never empty.
    pub payments: Vec<Evidence>,
    /// Of a window: where it ends. Successive windows show the same fraud again.
    pub window_end: Option<DateTime<Utc>>,
}

impl Suspicion {
    fn new(rule: Rule, payment: &Payment, payments: Vec<Evidence>) -> Self {
        Suspicion { rule, card: payment.card.clone(), account: payment.account.clone(), payments, window_end: None }
    }

    fn amount(&self) -> i64 {
        self.payments.iter().map(|p| p.amount).sum()
    }

    /// The alert, if this is not usual for the customer. A customer that is not known counts as [`Tier::Basic`].
    pub fn judge(self, customer: Option<&Customer>) -> Option<Alert> {
        let tier = customer.map_or(Tier::Basic, |c| c.tier);
        let limit = customer.map_or(tier.limit(), |c| c.limit);
        let (count, amount) = (self.payments.len(), self.amount());
        let (first, last) = (self.payments.first()?, self.payments.last()?);
        let reason = match self.rule {
            Rule::Velocity if count > tier.payments() => {
                format!("{count} payments, {} in 5 min (tier {tier} allows {})", money(amount), tier.payments())
            }
            Rule::Velocity if amount > tier.money() => {
                format!("{count} payments, {} in 5 min (tier {tier} allows {})", money(amount), money(tier.money()))
            }
            Rule::Velocity => return None,
            Rule::SmallThenLarge => {
                format!("{} then {} within {} s", money(first.amount), money(last.amount), (last.at - first.at).num_seconds())
            }
            Rule::TwoCountries => {
                let minutes = (last.at - first.at).num_minutes().max(1);
                format!("{} then {} within {minutes} min", first.country, last.country)
            }
            Rule::NewDevice if last.amount > limit => {
                format!("{} from the new device {} (limit {})", money(last.amount), last.device, money(limit))
            }
            Rule::NewDevice => return None,
        };
        Some(Alert { rule: self.rule, at: last.at, reason, card: self.card, account: self.account, payments: self.payments })
    }
}

/// What a card did within a window: the accumulator of the sliding window.
///
/// A payment is in thirty windows that overlap: it is kept once and shared by all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    amount: i64,
    payments: Vec<Arc<Seen>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    account: String,
    evidence: Evidence,
}

impl Activity {
    /// One more payment.
    pub fn add(&mut self, payment: &Payment) {
        self.amount += payment.amount;
        self.payments.push(Arc::new(Seen { account: payment.account.clone(), evidence: payment.into() }));
    }

    /// Takes in what a later part of the window saw.
    pub fn merge(&mut self, later: &Activity) {
        self.amount += later.amount;
        self.payments.extend_from_slice(&later.payments);
    }

    /// Whether this may be too much for anybody at all. Most windows end here, before they cost a look at the customer.
    pub fn is_unusual(&self) -> bool {
        self.payments.len() > Tier::Basic.payments() || self.amount > Tier::Basic.money()
    }

    /// As a suspicion, of the window that ends at `end` (exclusive); none of a window without payments.
    pub fn suspicion(mut self, card: &str, end: DateTime<Utc>) -> Option<Suspicion> {
        self.payments.sort_by(|a, b| (a.evidence.at, &a.evidence.id).cmp(&(b.evidence.at, &b.evidence.id)));
        let account = self.payments.first()?.account.clone();
        let payments = self.payments.iter().map(|seen| seen.evidence.clone()).collect();
        Some(Suspicion { rule: Rule::Velocity, card: card.to_string(), account, payments, window_end: Some(end) })
    }
}

/// Reports a run of windows that show one fraud once: the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    last_end: Option<DateTime<Utc>>,
}

impl Episode {
    /// Whether the window that ends at `end` begins an episode; windows come in order and are `step` apart.
    pub fn begins(&mut self, end: DateTime<Utc>, step: TimeDelta) -> bool {
        let goes_on = self.last_end.is_some_and(|last| end <= last + step);
        self.last_end = Some(end);
        !goes_on
    }
}

/// What is remembered of a card for the rules that look at single payments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardHistory {
    tiny: Option<Evidence>,
    last: Option<Evidence>,
    devices: Vec<String>,
}

impl CardHistory {
    /// The next payment of the card: what it makes suspicious.
    pub fn see(&mut self, payment: &Payment) -> Vec<Suspicion> {
        let found = [self.small_then_large(payment), self.two_countries(payment), self.new_device(payment)];
        found.into_iter().flatten().collect()
    }

    /// Whether a tiny payment is remembered, and until when.
    pub fn trial_until(&self) -> Option<DateTime<Utc>> {
        self.tiny.as_ref().map(|tiny| tiny.at + TRIAL)
    }

    /// Forgets a tiny payment that was too long ago at `now`.
    pub fn forget_trial(&mut self, now: DateTime<Utc>) {
        if self.trial_until().is_some_and(|until| until <= now) {
            self.tiny = None;
        }
    }

    fn small_then_large(&mut self, payment: &Payment) -> Option<Suspicion> {
        if payment.amount <= TINY {
            self.tiny = Some(payment.into());
            return None;
        }
        if payment.amount < LARGE {
            return None;
        }
        // Rows may come before the timer that forgets: the rule looks at the times itself.
        let tiny = self.tiny.take().filter(|tiny| payment.at - tiny.at <= TRIAL)?;
        Some(Suspicion::new(Rule::SmallThenLarge, payment, vec![tiny, payment.into()]))
    }

    fn two_countries(&mut self, payment: &Payment) -> Option<Suspicion> {
        let last = self.last.replace(payment.into())?;
        let travelled = last.country != payment.country && payment.at - last.at <= TRAVEL;
        travelled.then(|| Suspicion::new(Rule::TwoCountries, payment, vec![last, payment.into()]))
    }

    fn new_device(&mut self, payment: &Payment) -> Option<Suspicion> {
        if self.devices.contains(&payment.device) {
            return None;
        }
        let first = self.devices.is_empty();
        if self.devices.len() == DEVICES {
            self.devices.remove(0);
        }
        self.devices.push(payment.device.clone());
        // The first device of a card is nothing to compare with; and no limit is below the basic one.
        let unusual = !first && payment.amount > Tier::Basic.limit();
        unusual.then(|| Suspicion::new(Rule::NewDevice, payment, vec![payment.into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_772_442_000 + seconds, 0).unwrap()
    }

    fn payment(seconds: i64, amount: i64) -> Payment {
        let [id, card, account, currency, merchant, category, country, device] =
            [&format!("p{seconds}"), "card", "account", "EUR", "m", "food", "DE", "phone"].map(String::from);
        Payment { id, card, account, amount, currency, merchant, category, country, device, at: at(seconds) }
    }

    fn rules_of(payments: &[Payment]) -> Vec<Rule> {
        let mut history = CardHistory::default();
        payments.iter().flat_map(|p| history.see(p)).map(|s| s.rule).collect()
    }

    fn customer(tier: Tier, limit: i64) -> Customer {
        Customer { account: "account".into(), home: "DE".into(), limit, tier }
    }

    fn window(payments: &[Payment]) -> Suspicion {
        let mut activity = Activity::default();
        payments.iter().for_each(|p| activity.add(p));
        activity.suspicion("card", at(300)).unwrap()
    }

    #[test]
    fn velocity_depends_on_the_tier() {
        let payments: Vec<Payment> = (0..9).map(|i| payment(i * 20, 3_000)).collect();
        let alert = window(&payments).judge(Some(&customer(Tier::Basic, 0))).unwrap();
        assert_eq!(alert.reason, "9 payments, 270.00 EUR in 5 min (tier basic allows 6)");
        assert_eq!((alert.at, alert.payments.len()), (at(160), 9));
        assert_eq!(window(&payments).judge(Some(&customer(Tier::Plus, 0))), None);
        assert!(window(&payments).judge(None).is_some(), "who is not known is basic");
        assert_eq!(window(&payments[..6]).judge(None), None, "six are allowed");
    }

    #[test]
    fn velocity_counts_money_too() {
        let payments: Vec<Payment> = (0..5).map(|i| payment(i * 20, 45_000)).collect();
        let alert = window(&payments).judge(None).unwrap();
        assert_eq!(alert.reason, "5 payments, 2 250.00 EUR in 5 min (tier basic allows 2 000.00 EUR)");
        assert_eq!(window(&payments[..4]).judge(None), None);
    }

    #[test]
    fn merged_parts_equal_the_whole_and_nothing_unusual_is_missed() {
        let payments: Vec<Payment> = (0..7).map(|i| payment(i, 100 + i)).collect();
        let (mut first, mut second, mut whole) = (Activity::default(), Activity::default(), Activity::default());
        payments[..3].iter().for_each(|p| first.add(p));
        payments[3..].iter().for_each(|p| second.add(p));
        payments.iter().for_each(|p| whole.add(p));
        let mut merged = Activity::default();
        merged.merge(&first);
        merged.merge(&second);
        assert_eq!(merged, whole);
        assert!(whole.is_unusual() && !first.is_unusual());
    }

    #[test]
    fn an_episode_is_reported_once_and_the_next_one_again() {
        let mut episode = Episode::default();
        let step = TimeDelta::seconds(10);
        let ends = [10, 20, 30, 50, 60, 400];
        let begun: Vec<i64> = ends.into_iter().filter(|&e| episode.begins(at(e), step)).collect();
        assert_eq!(begun, [10, 50, 400]);
    }

    #[test]
    fn small_then_large_within_a_minute_once() {
        assert_eq!(rules_of(&[payment(0, TINY), payment(60, LARGE), payment(61, LARGE)]), [Rule::SmallThenLarge]);
        assert!(rules_of(&[payment(0, TINY), payment(61, LARGE)]).is_empty(), "too late");
        assert!(rules_of(&[payment(0, TINY + 1), payment(1, LARGE)]).is_empty(), "not tiny");
        assert!(rules_of(&[payment(0, TINY), payment(1, LARGE - 1)]).is_empty(), "not large");
        assert!(rules_of(&[payment(0, LARGE), payment(1, TINY)]).is_empty(), "the wrong way round");
    }

    #[test]
    fn a_trial_is_forgotten_in_time_and_not_before() {
        let mut history = CardHistory::default();
        history.see(&payment(0, TINY));
        history.see(&payment(30, TINY));
        history.forget_trial(at(60));
        assert_eq!(history.trial_until(), Some(at(90)), "the timer of the first does not take the second");
        history.forget_trial(at(90));
        assert_eq!(history.trial_until(), None);
    }

    #[test]
    fn two_countries_within_ten_minutes() {
        let abroad = |seconds| Payment { country: "BR".into(), ..payment(seconds, 900) };
        assert_eq!(rules_of(&[payment(0, 900), abroad(600)]), [Rule::TwoCountries]);
        assert!(rules_of(&[payment(0, 900), abroad(601)]).is_empty());
        assert!(rules_of(&[payment(0, 900), payment(10, 900)]).is_empty());
        let mut history = CardHistory::default();
        history.see(&payment(0, 900));
        let alert = history.see(&abroad(240)).remove(0).judge(None).unwrap();
        assert_eq!(alert.reason, "DE then BR within 4 min");
    }

    #[test]
    fn a_new_device_is_held_against_the_limit_of_the_customer() {
        let phone = payment(0, 900);
        let laptop = Payment { device: "laptop".into(), ..payment(4_000, 180_000) };
        let mut history = CardHistory::default();
        assert!(history.see(&Payment { amount: 180_000, ..phone }).is_empty(), "the first device of all");
        let suspicion = history.see(&laptop).remove(0);
        let alert = suspicion.clone().judge(Some(&customer(Tier::Basic, 150_000))).unwrap();
        assert_eq!(alert.reason, "1 800.00 EUR from the new device laptop (limit 1 500.00 EUR)");
        assert_eq!(suspicion.judge(Some(&customer(Tier::Plus, 180_000))), None);
        assert!(history.see(&laptop).is_empty(), "known by now");
    }

    #[test]
    fn devices_remembered_are_bounded() {
        let mut history = CardHistory::default();
        for i in 0..100 {
            history.see(&Payment { device: format!("d{i}"), ..payment(i * 1_000, 900) });
        }
        assert_eq!(history.devices.len(), DEVICES);
    }
}
