//! Where a new job begins is decided once: what is written between its first start and its first checkpoint is read, whatever dies
//! meanwhile. On the simulated machine.

use waterwheel::prelude::*;
use waterwheel::testing::TestJob;

#[test]
fn the_latest_records_are_those_of_the_first_start() {
    for seed in 1..=20 {
        let mut test = TestJob::with_seed("latest", seed, 2, |job: &Job| {
            job.topic("in").start(Start::Latest).string().to_topic("out").id("out");
            Ok(())
        });
        test.topic("in", 3);
        let texts = |name: &str| (0..9).map(|n| (Some(vec![n]), Some(format!("{name} {n}").into_bytes()))).collect::<Vec<_>>();
        test.send_records("in", texts("before"));
        // Some steps after the start: positions are in the log, a checkpoint hardly ever is.
        test.run(40 + seed as usize);
        test.send_records("in", texts("between"));
        test.crash();
        test.send_records("in", texts("later"));
        test.run(seed as usize);
        test.crash();
        test.settle();
        let mut found: Vec<String> =
            test.records("out").into_iter().map(|(_, value)| serde_json::from_slice(&value.expect("a value")).expect("a text")).collect();
        found.sort();
        let expected: Vec<String> = ["between", "later"].iter().flat_map(|name| (0..9).map(move |n| format!("{name} {n}"))).collect();
        assert_eq!(found, expected, "seed {seed}");
    }
}
