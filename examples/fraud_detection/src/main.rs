//! The flagship job: frauds in a stream of card payments, found in event time, reported exactly once.
//!
//! [`fraud`] is the whole job. [`rules`] says what a fraud is, [`limits`] from when on, [`model`] what is read and written; [`scenario`] makes up a
//! day with frauds in it, [`truth`] compares what was found with what was planted, [`demo`] shows it.
//!
//! Invariant: output depends on the records alone, never on when, how often or on how many threads the job ran.

#![allow(unreachable_pub, reason = "a program exports nothing; pub says what its other files use")]

mod cards;
mod commands;
mod demo;
mod generate;
mod limits;
mod model;
mod rules;
mod scenario;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tested;
mod truth;
#[cfg(all(test, feature = "sql"))]
mod twin;

use cards::{CardRules, Episodes, FOUND, Found};
use limits::Setting;
use model::{AccountActivity, Customer, Payment, Spending};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use truth::{ACTIVITY, ALERTS, CUSTOMERS, LATE, PAYMENTS, RULES};
use waterwheel::Result;
use waterwheel::prelude::*;

/// Name of the job: state and markers are filed under it.
const NAME: &str = "fraud";

/// The times a payment can have; a broken clock must not carry the watermark away.
fn plausible() -> RangeInclusive<DateTime<Utc>> {
    let year = |y: i64| DateTime::from_timestamp((y - 1970) * 31_557_600, 0).unwrap_or_default();
    year(2000)..=year(2100)
}

fn fraud(job: &Job) -> Result<()> {
    let payments = job
        .topic(PAYMENTS)
        .json::<Payment>()
        .on_error(DeadLetter) // to payments.dead-letter, with its place and the error
        .event_time(|p| p.at, OutOfOrder::by(secs(5)))
        .times_within(plausible())
        .max_ahead(mins(10)) // no partition runs away from the others
        .dedup_by(|p| p.id.clone(), hours(1))
        .id("dedup");
    let customers = job.topic(CUSTOMERS).json::<Customer>().table(|c| c.account.clone());

    // Thresholds change while the job runs: every task of the card rules has them all.
    let settings =
        job.topic(RULES).json::<Setting>().on_error(DeadLetter).table(|s| Str::from(s.rule.to_string())).broadcast(cards::SETTINGS);

    // From here on a card's payments come in event-time order, whatever order they were read in.
    let by_card = payments
        .join_table(&customers, |p| p.account.clone(), Spending::of)
        .id("customers")
        .key_by(|s| s.payment.card.clone())
        .sort_by_time(|s| s.payment.id.clone())
        .late_to(|late| late.map(|s| s.payment).to_topic(LATE).key(|p| p.card.to_string()).id("late-payments"))
        .id("in-order");

    let velocity = by_card
        .window(Sliding::of(mins(5)).every(cards::STEP))
        .aggregate_with(cards::too_much())
        .id("velocity")
        .filter_map(|w| Some((Some(cards::instant(w.end)), w.value.alert(&w.key)?)));
    let checked = by_card.with_broadcast(&settings).process(CardRules::default).id("card-rules");

    velocity
        .union(&checked.side_output::<Found>(FOUND))
        .key_by(|(_, alert)| alert.card.clone())
        .process(Episodes::default)
        .id("episodes")
        .to_topic(ALERTS)
        .key(|alert| alert.card.to_string())
        .id("alerts");

    checked
        .key_by(|spent| spent.account.clone())
        .window(Tumbling::of(mins(1)))
        .aggregate_windows(cards::Total::default, cards::Total::add)
        .id("account-activity")
        .map(|w| AccountActivity { account: w.key, minute: cards::instant(w.start), payments: w.value.payments, amount: w.value.amount })
        .to_topic(ACTIVITY)
        .key(|activity| activity.key())
        .compacted()
        .id("account-activity-topic");
    Ok(())
}

fn main() -> ExitCode {
    commands::program(NAME, fraud).main()
}
