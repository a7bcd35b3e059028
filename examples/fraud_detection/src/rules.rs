//! The rules, as plain functions and values: no engine in here.
//!
//! A rule sees the payments of one card in event-time order (ties by id), each once, and with each what is usual for its
//! customer.
//!
//! Invariant: the same payments in the same order give the same alerts, and a fraud is reported once, when it first shows.

use crate::limits::Limits;
use crate::model::{Alert, Evidence, Payment, Rule, Spending, Tier, money};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use waterwheel::prelude::Str;

/// How many devices of a card are remembered: the newest ones.
const DEVICES: usize = 16;

/// An alert about the last of these payments; there is at least one.
fn alert(rule: Rule, reason: String, last: &Payment, payments: Vec<Evidence>) -> Alert {
    Alert { rule, card: last.card.clone(), account: last.account.clone(), at: last.at, reason, payments }
}

/// What a card did within a window, and what is usual for its customer: the accumulator of the sliding window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    tier: Tier,
    count: usize,
    amount: i64,
    account: Str,
    payments: Vec<Evidence>,
}

impl Activity {
    /// One more payment.
    pub fn add(&mut self, Spending { payment, tier, .. }: &Spending) {
        self.tier = *tier;
        self.count += 1;
        self.amount += payment.amount;
        if self.payments.is_empty() {
            self.account = payment.account.clone();
            self.payments.reserve_exact(1); // rarely more in one slice
        }
        self.payments.push(payment.into());
    }

    /// Takes in what a later part of the window saw.
    pub fn merge(&mut self, later: &Activity) {
        self.tier = later.tier;
        self.count += later.count;
        self.amount += later.amount;
        if self.payments.is_empty() {
            self.account = later.account.clone();
        }
        self.payments.extend_from_slice(&later.payments);
    }

    /// The same without the payments: enough to see whether it is too much.
    pub fn outline(&self) -> Activity {
        Activity { tier: self.tier, count: self.count, amount: self.amount, ..Activity::default() }
    }

    /// Whether this is more than usual. Nearly all windows end here, before they cost a copy.
    pub fn is_too_much(&self) -> bool {
        self.count > self.tier.payments() || self.amount > self.tier.money()
    }

    /// The alert about it; none without payments.
    pub fn alert(self, card: &str) -> Option<Alert> {
        let Activity { tier, count, amount, account, mut payments } = self;
        payments.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        let allowed = if count > tier.payments() { tier.payments().to_string() } else { money(tier.money()) };
        let reason = format!("{count} payments, {} in 5 min (tier {tier} allows {allowed})", money(amount));
        Some(Alert { rule: Rule::Velocity, card: card.into(), account, at: payments.last()?.at, reason, payments })
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
    devices: Vec<Str>,
}

impl CardHistory {
    /// The next payment of the card: what is wrong with it.
    pub fn see(&mut self, spending: &Spending, limits: &Limits) -> Vec<Alert> {
        let payment = &spending.payment;
        let found = [self.small_then_large(payment, limits), self.two_countries(payment, limits), self.new_device(spending, limits)];
        found.into_iter().flatten().collect()
    }

    /// Whether a tiny payment is remembered, and until when.
    pub fn trial_until(&self, limits: &Limits) -> Option<DateTime<Utc>> {
        self.tiny.as_ref().map(|tiny| tiny.at + limits.trial)
    }

    /// Forgets a tiny payment that was too long ago at `now`.
    pub fn forget_trial(&mut self, now: DateTime<Utc>, limits: &Limits) {
        if self.trial_until(limits).is_some_and(|until| until <= now) {
            self.tiny = None;
        }
    }

    fn small_then_large(&mut self, payment: &Payment, limits: &Limits) -> Option<Alert> {
        if payment.amount <= limits.small {
            self.tiny = Some(payment.into());
            return None;
        }
        if payment.amount < limits.large {
            return None;
        }
        // Rows may come before the timer that forgets: the rule looks at the times itself.
        let tiny = self.tiny.take().filter(|tiny| payment.at - tiny.at <= limits.trial)?;
        let seconds = (payment.at - tiny.at).num_seconds();
        let reason = format!("{} then {} within {seconds} s", money(tiny.amount), money(payment.amount));
        Some(alert(Rule::SmallThenLarge, reason, payment, vec![tiny, payment.into()]))
    }

    fn two_countries(&mut self, payment: &Payment, limits: &Limits) -> Option<Alert> {
        let last = self.last.replace(payment.into())?;
        if last.country == payment.country || limits.travel.is_none_or(|travel| payment.at - last.at > travel) {
            return None;
        }
        let minutes = (payment.at - last.at).num_minutes().max(1);
        let reason = format!("{} then {} within {minutes} min", last.country, payment.country);
        Some(alert(Rule::TwoCountries, reason, payment, vec![last, payment.into()]))
    }

    fn new_device(&mut self, Spending { payment, limit, .. }: &Spending, limits: &Limits) -> Option<Alert> {
        if self.devices.contains(&payment.device) {
            return None;
        }
        let first = self.devices.is_empty();
        if self.devices.len() == DEVICES {
            self.devices.remove(0);
        }
        self.devices.push(payment.device.clone());
        // The first device of a card is nothing to compare with.
        if first || payment.amount <= *limit || !limits.devices {
            return None;
        }
        let reason = format!("{} from the new device {} (limit {})", money(payment.amount), payment.device, money(*limit));
        Some(alert(Rule::NewDevice, reason, payment, vec![payment.into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Customer;

    /// The defaults.
    const TINY: i64 = 200;
    const LARGE: i64 = 50_000;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_772_442_000 + seconds, 0).unwrap()
    }

    fn payment(seconds: i64, amount: i64) -> Payment {
        let [id, card, account, currency, merchant, category, country, device] =
            [&format!("p{seconds}"), "card", "account", "EUR", "m", "food", "DE", "phone"].map(Str::from);
        Payment { id, card, account, amount, currency, merchant, category, country, device, at: at(seconds) }
    }

    fn alerts_of(payments: &[Payment]) -> Vec<Alert> {
        let mut history = CardHistory::default();
        payments.iter().flat_map(|p| history.see(&Spending::of(p.clone(), None), &Limits::default())).collect()
    }

    fn rules_of(payments: &[Payment]) -> Vec<Rule> {
        alerts_of(payments).iter().map(|a| a.rule).collect()
    }

    fn customer(tier: Tier, limit: i64) -> Customer {
        Customer { account: "account".into(), home: "DE".into(), limit, tier }
    }

    fn activity(payments: &[Payment], customer: Option<&Customer>) -> Activity {
        let mut activity = Activity::default();
        payments.iter().for_each(|p| activity.add(&Spending::of(p.clone(), customer)));
        activity
    }

    fn window(payments: &[Payment], customer: Option<&Customer>) -> Option<Alert> {
        Some(activity(payments, customer)).filter(Activity::is_too_much)?.alert("card")
    }

    #[test]
    fn velocity_depends_on_the_tier() {
        let payments: Vec<Payment> = (0..9).map(|i| payment(i * 20, 3_000)).collect();
        let alert = window(&payments, Some(&customer(Tier::Basic, 0))).unwrap();
        assert_eq!(alert.reason, "9 payments, 270.00 EUR in 5 min (tier basic allows 6)");
        assert_eq!((alert.at, alert.payments.len(), &alert.account[..]), (at(160), 9, "account"));
        assert_eq!(window(&payments, Some(&customer(Tier::Plus, 0))), None);
        assert!(window(&payments, None).is_some(), "who is not known is basic");
        assert_eq!(window(&payments[..6], None), None, "six are allowed");
    }

    #[test]
    fn velocity_counts_money_too() {
        let payments: Vec<Payment> = (0..5).map(|i| payment(i * 20, 45_000)).collect();
        let alert = window(&payments, None).unwrap();
        assert_eq!(alert.reason, "5 payments, 2 250.00 EUR in 5 min (tier basic allows 2 000.00 EUR)");
        assert_eq!(window(&payments[..4], None), None);
    }

    #[test]
    fn merged_parts_equal_the_whole_and_so_do_their_outlines() {
        let payments: Vec<Payment> = (0..7).map(|i| payment(i, 100 + i)).collect();
        let (first, second, whole) = (activity(&payments[..3], None), activity(&payments[3..], None), activity(&payments, None));
        let merged = |parts: [Activity; 2]| {
            let mut merged = Activity::default();
            parts.iter().for_each(|part| merged.merge(part));
            merged
        };
        assert_eq!(merged([first.outline(), second.outline()]), whole.outline());
        assert!(whole.outline().is_too_much() && !first.outline().is_too_much());
        assert_eq!(merged([first, second]), whole);
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
        history.see(&Spending::of(payment(0, TINY), None), &Limits::default());
        history.see(&Spending::of(payment(30, TINY), None), &Limits::default());
        history.forget_trial(at(60), &Limits::default());
        assert_eq!(history.trial_until(&Limits::default()), Some(at(90)), "the timer of the first does not take the second");
        history.forget_trial(at(90), &Limits::default());
        assert_eq!(history.trial_until(&Limits::default()), None);
    }

    #[test]
    fn limits_are_those_of_the_moment() {
        let mut history = CardHistory::default();
        let strict = Limits { small: 1_000, trial: TimeDelta::minutes(5), ..Limits::default() };
        history.see(&Spending::of(payment(0, 900), None), &strict);
        assert_eq!(history.see(&Spending::of(payment(200, LARGE), None), &strict).len(), 1);
        history.see(&Spending::of(payment(300, 900), None), &strict);
        assert!(history.see(&Spending::of(payment(500, LARGE), None), &Limits::default()).is_empty(), "shorter by now");
        let off = Limits { small: 0, travel: None, devices: false, ..Limits::default() };
        let abroad = Payment { country: "BR".into(), device: "laptop".into(), ..payment(501, 9_000_000) };
        history.see(&Spending::of(payment(500, 1), None), &off);
        assert!(history.see(&Spending::of(abroad, None), &off).is_empty());
    }

    #[test]
    fn two_countries_within_ten_minutes() {
        let abroad = |seconds| Payment { country: "BR".into(), ..payment(seconds, 900) };
        assert_eq!(rules_of(&[payment(0, 900), abroad(600)]), [Rule::TwoCountries]);
        assert!(rules_of(&[payment(0, 900), abroad(601)]).is_empty());
        assert!(rules_of(&[payment(0, 900), payment(10, 900)]).is_empty());
        assert_eq!(alerts_of(&[payment(0, 900), abroad(240)])[0].reason, "DE then BR within 4 min");
    }

    #[test]
    fn a_new_device_is_held_against_the_limit_of_the_customer() {
        let phone = payment(0, 180_000);
        let laptop = Payment { device: "laptop".into(), ..payment(4_000, 180_000) };
        let seen = |customer: &Customer| {
            let mut history = CardHistory::default();
            let first = history.see(&Spending::of(phone.clone(), Some(customer)), &Limits::default());
            assert!(first.is_empty(), "the first device of all");
            let alerts = history.see(&Spending::of(laptop.clone(), Some(customer)), &Limits::default());
            assert!(history.see(&Spending::of(laptop.clone(), Some(customer)), &Limits::default()).is_empty(), "known by now");
            alerts
        };
        let alerts = seen(&customer(Tier::Basic, 150_000));
        assert_eq!(alerts[0].reason, "1 800.00 EUR from the new device laptop (limit 1 500.00 EUR)");
        assert!(seen(&customer(Tier::Plus, 180_000)).is_empty());
    }

    #[test]
    fn devices_remembered_are_bounded() {
        let mut history = CardHistory::default();
        for i in 0..100 {
            history.see(&Spending::of(Payment { device: format!("d{i}").into(), ..payment(i * 1_000, 900) }, None), &Limits::default());
        }
        assert_eq!(history.devices.len(), DEVICES);
    }
}
