//! What happens to topics: partitions are added under a job that is killed, and its input is made again.
//!
//! Invariant: every row of every partition is in the total once; of a topic that only has the same name nothing is.

use super::ground::Ground;
use super::table::Tally;
use crate::support::fraud::Chance;
use crate::support::kafka::Broker;
use crate::support::small_job::SmallJob;
use crate::topic_faults::{made_again, total_becomes};
use std::time::Duration;

/// Plays one small job until its input is another topic.
pub(super) fn play(ground: &Ground, broker: &Broker, chance: &mut Chance, tally: &mut Tally) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job = SmallJob::at(folder, format!("kafka://{}", broker.bootstrap()), "fail");
    job.create_input(1);
    let start = || crate::support::fraud::Running::start(ground.enter(&job.run(&[])));
    let (mut partitions, mut total) = (1, 0);
    let mut running = start();
    for _ in 0..2 + chance.below(3) {
        if chance.below(2) == 0 {
            running.kill9();
            tally.struck("job killed (-9)");
            running = start();
        }
        partitions += 1 + chance.below(2) as u32;
        crate::kafka_source::topics(&broker.bootstrap()).add_partitions(&job.input, partitions).expect("grown");
        tally.struck("partitions added");
        for partition in 0..partitions {
            let n = 1 + chance.below(1_000) as i64;
            job.item(partition as i32, "a", n);
            total += n;
            tally.records.0 += 1;
        }
        std::thread::sleep(Duration::from_millis(chance.below(500)));
        total_becomes(&job, &mut running, total);
        tally.records.1 += 1;
    }
    let stopped = chance.below(2) == 0;
    if stopped {
        running.kill9();
        made_again(&job);
        running = start();
    } else {
        made_again(&job);
    }
    tally.struck("topic made again");
    let (status, _, said) = running.wait();
    assert!(!status.success(), "the job went on with a topic that was made again: {said}");
    for word in ["made again", &job.input, "error: ", "help: "] {
        assert!(said.contains(word), "{word:?} is not said in: {said}");
    }
    assert_eq!(job.total(), Some(total), "something of the new topic was published");
}
