//! The fraud job is killed with SIGKILL in each gap between two calls of an epoch's life, one after the other, and must
//! commit what a run without faults commits. Random kills hardly ever meet these gaps.

use crate::support::fraud::{Fraud, Size};
use crate::support::kafka::{Broker, client};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use waterwheel::engine::env::Moment;

/// At which times of reaching it the job dies there: at recovery and while running.
const MOMENTS: [(Moment, u32); 8] = [
    (Moment::CheckpointLogged, 1),
    (Moment::Fenced, 3),
    (Moment::ManifestStored, 1),
    (Moment::Delivered, 1),
    (Moment::Marked, 1),
    (Moment::Committed, 1),
    (Moment::CheckpointLogged, 1),
    (Moment::Committed, 2),
];

fn dies_at(fraud: &Fraud, parallelism: u32, moment: Moment, times: u32) {
    let (status, last, said) = fraud.start_until(parallelism, moment, times, Signal::KILL).wait();
    assert_eq!(status.signal(), Some(9), "{moment:?} is not reached: {status}, {last}, {said}");
}

/// Kills the job there, one after the other, and lets it finish.
///
/// # Panics
/// If the output is not that of a run without faults.
pub(crate) fn killed_at(fraud: &Fraud, moments: impl Iterator<Item = (Moment, u32)>) {
    for (round, (moment, times)) in moments.enumerate() {
        let parallelism = if round == 0 { 1 } else { 3 - round as u32 % 2 };
        dies_at(fraud, parallelism, moment, times);
    }
    let last = fraud.finish(3);
    assert!(last["resumed_from"].is_u64(), "nothing was ever resumed: {last}");
    fraud.assert_exact();
}

#[test]
fn on_the_embedded_log() {
    // Records and marker are one commit there: nothing lies between.
    let moments = MOMENTS.into_iter().filter(|(moment, _)| *moment != Moment::Marked);
    killed_at(&Fraud::on_embedded_log(Size::Brief), moments);
}

#[test]
fn on_its_own_broker() {
    let broker = Broker::start();
    killed_at(&Fraud::on_kafka(Size::Brief, &broker.bootstrap(), ""), MOMENTS.into_iter());
}

/// Markers expire a week after their last commit, and groups can be deleted. What is out is then found by reading the topic.
/// (Not of `account_activity`: of a compacted topic records may be gone, and then a person is asked.)
#[test]
fn on_its_own_broker_that_forgets_the_markers() {
    let broker = Broker::start();
    let fraud = Fraud::on_kafka(Size::Brief, &broker.bootstrap(), "");
    for (parallelism, moment) in [(1, Moment::Committed), (2, Moment::CheckpointLogged)] {
        dies_at(&fraud, parallelism, moment, 1);
        let forgotten: usize =
            ["fraud/alerts/", "fraud/late-payments/"].iter().map(|lane| client::delete_groups(&broker.bootstrap(), lane)).sum();
        assert!(forgotten > 0, "there are no markers to lose");
    }
    fraud.finish(2);
    fraud.assert_exact();
}
