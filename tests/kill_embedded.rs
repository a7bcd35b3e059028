//! The fraud job on the embedded log is killed with SIGKILL at random moments, with 3, 2 and 1 tasks an operator in turn.
//!
//! `WATERWHEEL_CYCLES=1000 script/test kill_` kills more often; `WATERWHEEL_SEED` moves the moments.

use crate::support::fraud::{Chance, Fraud, KILLS, Size, kill_and_verify, rounds};

#[test]
fn output_is_that_of_a_run_without_faults() {
    let mut chance = Chance::new(1);
    for _ in 0..rounds() {
        kill_and_verify(&Fraud::on_embedded_log(Size::Long), KILLS, &mut chance);
    }
}
