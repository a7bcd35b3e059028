//! A topic that is compacted under the job: who reads it again does not get what was read before.
//!
//! Invariant: what was published is never computed again, so it does not matter what a second reading gives; and of a table each
//! reading gives the newest rows.

use super::fault::Scenario;
use super::input::TABLE;
use super::world::{Options, World};

const WORKLOADS: [&str; 3] = ["table", "broadcast-join", "broadcast-map"];

/// Compacted while the table is read in and later, the process killed each time.
fn run(workload: &'static str, seed: u64) -> Result<(), String> {
    let options = Options { workload: Some(workload), scenario: Scenario::Process, rows: 400, ..Options::new(seed) };
    let mut world = World::new(&options);
    for _ in 0..4 {
        world.advance_by_chance(200)?;
        world.broker.compact(TABLE);
        world.advance_by_chance(50)?;
        world.job.kill();
    }
    world.ends_right()
}

#[test]
fn a_table_read_again_is_the_same_table() {
    for (workload, seed) in WORKLOADS.iter().flat_map(|workload| (1..=20).map(move |seed| (*workload, seed))) {
        let done = run(workload, seed);
        assert_eq!(done, Ok(()), "workload {workload}, seed {seed}");
    }
}
