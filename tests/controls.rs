//! The controls: with one rule left out, the tests of crashes and zombies must fail. A test that passes without the rule
//! that it is there for proves nothing.
//!
//! What a control prints as a panic is the violation that it looks for.

use crate::kill_moments;
use crate::support::fraud::{Chance, Fraud, Size, kill_and_verify};
use crate::support::kafka::Broker;
use crate::zombie::{Sleep, a_zombie_ends_and_harms_nobody};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use waterwheel::engine::env::{Bug, Moment};

/// Runs a test that must fail; what it said.
fn fails(what: &str, test: impl FnOnce()) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(test)) else { panic!("goes unnoticed: {what}") };
    said(&*panic)
}

/// The text of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_default()
}

/// A fence left out: what the zombie had under way comes out a second time. Whether its successor has published the same by
/// the time it wakes up is a matter of moments, so this may take several jobs.
fn shows_without_the_fence(fraud: Fraud) -> bool {
    let fraud = fraud.with_bug(Bug::SkipFence);
    let outcome = catch_unwind(AssertUnwindSafe(|| a_zombie_ends_and_harms_nobody(&fraud, Sleep::At(Moment::Delivered))));
    outcome.is_err_and(|panic| said(&*panic).contains("keys differ"))
}

/// The marker ignored: what was committed and not noted before a crash comes out a second time.
fn without_the_marker(fraud: Fraud) -> String {
    let fraud = fraud.with_bug(Bug::IgnoreMarker);
    fails("no marker", || kill_moments::killed_at(&fraud, [(Moment::CheckpointLogged, 2), (Moment::Committed, 2)].into_iter()))
}

#[test]
fn the_fence_on_the_embedded_log() {
    let found = (0..5).any(|_| shows_without_the_fence(Fraud::on_embedded_log(Size::Brief)));
    assert!(found, "a fence left out goes unnoticed in 5 jobs");
}

#[test]
fn the_fence_on_its_own_broker() {
    let found = (0..3).any(|_| {
        let broker = Broker::start();
        shows_without_the_fence(Fraud::on_kafka(Size::Brief, &broker.bootstrap(), ""))
    });
    assert!(found, "a fence left out goes unnoticed in 3 jobs");
}

#[test]
fn the_marker_on_the_embedded_log() {
    // The embedded log knows by itself what it holds, and refuses.
    let said = without_the_marker(Fraud::on_embedded_log(Size::Brief));
    assert!(said.contains("asked to publish epoch"), "it fails for another reason: {said}");
}

#[test]
fn the_marker_on_its_own_broker() {
    let broker = Broker::start();
    let said = without_the_marker(Fraud::on_kafka(Size::Brief, &broker.bootstrap(), ""));
    assert!(said.contains("keys differ"), "it fails for another reason: {said}");
}

/// Barriers let through at their first arrival: state and positions of a checkpoint are of different moments.
#[test]
fn the_alignment() {
    let mut chance = Chance::new(3);
    let found = (0..5).any(|_| {
        let fraud = Fraud::on_embedded_log(Size::Brief).with_bug(Bug::SkipAlignment);
        catch_unwind(AssertUnwindSafe(|| kill_and_verify(&fraud, 3, &mut chance))).is_err()
    });
    assert!(found, "barriers that are not aligned go unnoticed in 5 jobs");
}
