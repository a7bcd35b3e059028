//! Torture: real processes and a real broker, with everything that can be done to them, in mixes that a seed decides.
//!
//! `script/torture [minutes]` runs it. Each round is a job on a broker of its own.
//! Faults for which this user has no rights are counted as not run, by name.
//!
//! Invariant: a round that fails is repeated by the seed that its violation names, as far as processes can be.

mod fault;
mod ground;
mod round;
mod table;
mod topics;

use crate::support::fraud::{Chance, number};
use crate::support::kafka::Broker;
use ground::Ground;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use table::Tally;

/// For how many seconds it strikes unless told otherwise, as in every test run; a round that has begun is taken to its end.
const SECONDS: u64 = 55;

/// `WATERWHEEL_TORTURE` says for how many seconds, `WATERWHEEL_SEED` with which seed the first round begins.
#[test]
fn own_broker_output_is_exact_whatever_happens() {
    let (seconds, seed) = (number("WATERWHEEL_TORTURE", SECONDS), number("WATERWHEEL_SEED", 1));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut tally = Tally::new(seed);
    tally.not_run.insert("wall clock jump", "it would move the clock of the whole machine; the simulator does it".into());
    while tally.rounds == 0 || Instant::now() < until {
        let of_round = seed + tally.rounds;
        let round = catch_unwind(AssertUnwindSafe(|| round(of_round, &mut tally, until)));
        tally.rounds += 1;
        if let Err(panic) = round {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            tally.violations.push(format!("WATERWHEEL_SEED={of_round}: {}", text.unwrap_or_default()));
        }
        println!("{tally}");
    }
    assert!(tally.violations.is_empty(), "{} violations, see above", tally.violations.len());
}

fn round(seed: u64, tally: &mut Tally, until: Instant) {
    let mut chance = Chance::of(seed);
    let ground = Ground::new();
    let mut broker = Broker::start_at(&ground.host());
    round::play(&ground, &mut broker, &mut chance, tally, until);
    // The slice leaves these out: `topic_faults` does the same one by one.
    if Instant::now() < until {
        topics::play(&ground, &broker, &mut chance, tally);
    }
}
