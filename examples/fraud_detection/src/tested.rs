//! The rules inside the whole job: payments made by hand go in, alerts come out, whatever happens on the way.
//!
//! Invariant: each test says in its payments what is wrong with them, and nothing else is reported.

use crate::limits::Setting;
use crate::model::{Alert, Customer, Payment, Rule, Tier};
use crate::truth::{ACTIVITY, ALERTS, BAD_RULES, CUSTOMERS, LATE, PAYMENTS, RULES};
use chrono::{DateTime, Utc};
use waterwheel::prelude::*;
use waterwheel::testing::TestJob;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_442_000 + second, 0).unwrap()
}

fn payment(card: &str, second: i64, amount: i64) -> Payment {
    let [id, card, account, currency, merchant, category, country, device] =
        [&format!("{card}-{second}"), card, &format!("account of {card}"), "EUR", "m", "food", "DE", "phone"].map(Str::from);
    Payment { id, card, account, amount, currency, merchant, category, country, device, at: at(second) }
}

/// The job before its first payment; customers of the highest tier, so that only what a test is about is too much.
fn job(seed: u64, cards: &[&str]) -> TestJob {
    let test = TestJob::with_seed(crate::NAME, seed, 2, crate::fraud);
    let customer =
        |card| Customer { account: format!("account of {card}").into(), home: "DE".into(), limit: 200_000, tier: Tier::Business };
    test.send(CUSTOMERS, cards.iter().map(customer));
    test.topic(PAYMENTS, 1);
    test.topic(RULES, 1);
    test
}

fn found(test: &TestJob) -> Vec<(Rule, String)> {
    test.read::<Alert>(ALERTS).into_iter().map(|alert| (alert.rule, alert.card.to_string())).collect()
}

#[test]
fn a_tiny_payment_then_a_large_one_is_found_across_a_crash() {
    for seed in 1..=3 {
        let mut test = job(seed, &["tried", "honest"]);
        test.send(PAYMENTS, [payment("tried", 0, 100), payment("honest", 1, 100)]);
        test.settle();
        assert!(found(&test).is_empty());
        test.crash();
        test.send(PAYMENTS, [payment("tried", 50, 90_000), payment("honest", 62, 90_000)]);
        test.run(50 * seed as usize);
        test.crash();
        test.finish();
        assert_eq!(found(&test), [(Rule::SmallThenLarge, "tried".to_string())], "seed {seed}");
    }
}

#[test]
fn payments_out_of_order_are_judged_in_order_and_duplicates_count_once() {
    let mut test = job(1, &["card"]);
    let abroad = Payment { country: "BR".into(), ..payment("card", 3, 900) };
    // The large payment came before the tiny one; only its record came later.
    test.send(PAYMENTS, [payment("card", 2, 100), payment("card", 1, 90_000), abroad.clone(), abroad]);
    test.finish();
    assert_eq!(found(&test), [(Rule::TwoCountries, "card".to_string())]);
    let minutes: Vec<serde_json::Value> = test.read(ACTIVITY);
    assert_eq!(minutes.len(), 1);
    assert_eq!((&minutes[0]["payments"], &minutes[0]["amount"]), (&3.into(), &91_000.into()));
}

#[test]
fn what_is_late_or_broken_is_put_aside_and_changes_nothing() {
    let mut test = job(2, &["card"]);
    test.send(PAYMENTS, [payment("card", 600, 5_000)]);
    test.settle();
    test.send(PAYMENTS, [payment("card", 500, 5_000)]);
    test.send_text(PAYMENTS, ["{\"id\": 7}", ""]);
    test.finish();
    assert!(found(&test).is_empty());
    assert_eq!(test.read::<Payment>(LATE), [payment("card", 500, 5_000)]);
    assert_eq!(test.records(&format!("{PAYMENTS}.dead-letter")).len(), 2);
}

#[test]
fn a_card_is_remembered_as_its_rules_need_it() {
    let mut test = job(3, &["card"]);
    test.send(PAYMENTS, [payment("card", 0, 100), payment("card", 20, 700)]);
    test.settle();
    // Nothing is past the watermark yet but the first of them.
    let rules = test.state("card-rules");
    assert!(rules.iter().any(|entry| entry.name.as_deref() == Some("trial")), "the timer that forgets the tiny payment: {rules:?}");
    test.send(PAYMENTS, [payment("card", 100, 700)]);
    test.settle();
    assert!(test.state("card-rules").iter().all(|entry| entry.name.is_none()), "it has fired");
}

/// Sets a rule, as the verb `rule` does.
fn set(test: &TestJob, setting: &Setting) {
    let value = serde_json::to_vec(setting).unwrap();
    test.send_records(RULES, [(Some(setting.rule.to_string().into_bytes()), Some(value))]);
}

#[test]
fn rules_change_while_the_job_runs_and_are_kept_across_a_crash() {
    for seed in 1..=3 {
        let mut test = job(seed, &["card"]);
        // By default ten cents more than small, and too long apart.
        test.send(PAYMENTS, [payment("card", 0, 210), payment("card", 120, 60_000), payment("card", 200, 700)]);
        test.settle();
        assert!(found(&test).is_empty());
        set(&test, &Setting { small: Some(300), within_s: Some(600), ..Setting::of(Rule::SmallThenLarge) });
        test.settle();
        test.crash();
        test.send(PAYMENTS, [payment("card", 300, 210), payment("card", 600, 60_000), payment("card", 700, 700)]);
        test.settle();
        assert_eq!(found(&test), [(Rule::SmallThenLarge, "card".to_string())], "seed {seed}");
        // Off, for all that follows; and back to what it was.
        set(&test, &Setting { off: true, ..Setting::of(Rule::SmallThenLarge) });
        test.settle();
        test.send(PAYMENTS, [payment("card", 800, 10), payment("card", 801, 60_000), payment("card", 900, 700)]);
        test.settle();
        test.send_records(RULES, [(Some(b"small-then-large".to_vec()), None)]);
        test.settle();
        test.send(PAYMENTS, [payment("card", 1_000, 10), payment("card", 1_001, 60_000)]);
        test.finish();
        assert_eq!(found(&test).len(), 2, "seed {seed}");
    }
}

#[test]
fn what_is_no_setting_is_put_aside_and_changes_nothing() {
    let mut test = job(4, &["card"]);
    test.send_records(RULES, [(Some(b"velocity".to_vec()), Some(br#"{"rule":"velocity","off":true}"#.to_vec()))]);
    test.send(PAYMENTS, [payment("card", 0, 100), payment("card", 50, 90_000)]);
    test.finish();
    assert_eq!(found(&test), [(Rule::SmallThenLarge, "card".to_string())]);
    assert_eq!(test.records(BAD_RULES).len(), 1);
}
