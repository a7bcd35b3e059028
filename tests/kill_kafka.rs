//! The fraud job from Kafka to Kafka is killed with SIGKILL at random moments, with 3, 2 and 1 tasks an operator in turn.
//!
//! What it commits must be, per key, what a run without faults commits on the embedded log. As for `kill_embedded`,
//! `WATERWHEEL_CYCLES` and `WATERWHEEL_SEED` say how often and when.

use crate::support::fraud::{Chance, Fraud, KILLS, Size, kill_and_verify, rounds};
use crate::support::kafka::Broker;

#[test]
fn own_broker_output_is_that_of_a_run_without_faults() {
    let mut chance = Chance::new(2);
    for _ in 0..rounds() {
        let broker = Broker::start();
        kill_and_verify(&Fraud::on_kafka(Size::Long, &broker.bootstrap(), ""), KILLS, &mut chance);
    }
}
