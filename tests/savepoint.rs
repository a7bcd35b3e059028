//! Savepoints of a running job, starting from one with other tasks in another folder, and the graceful stop.

use std::process::Output;

use crate::support::fraud::{Fraud, text};
use rustix::process::Signal;

fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_stopped_job_goes_on_exactly_there() {
    let fraud = Fraud::on_embedded_log();
    let mut read = 0;
    for (parallelism, signal) in [(1, Signal::INT), (3, Signal::TERM)] {
        let mut job = fraud.start(parallelism, &[]);
        job.wait_for_checkpoints(1);
        job.signal(signal);
        let (status, last, said) = job.wait();
        assert!(status.success(), "the job ended with {status}: {said}");
        assert_eq!(last["checkpoint"], last["published"], "a graceful stop publishes everything: {last}");
        read += last["records_in"].as_u64().expect("a number");
    }
    read += fraud.finish(2)["records_in"].as_u64().expect("a number");
    fraud.assert_exact();
    let again = Fraud::on_embedded_log();
    assert_eq!(again.finish(2)["records_in"].as_u64(), Some(read), "no record is read twice over graceful stops");
}

#[test]
fn a_savepoint_starts_the_job_with_other_tasks_in_another_folder() {
    let fraud = Fraud::on_embedded_log();
    let savepoint = fraud.folder.path().join("savepoint");
    let path = savepoint.to_str().expect("UTF-8");
    let mut job = fraud.start(1, &[]);
    job.wait_for_checkpoints(1);
    let made = fraud.verb("savepoint").arg("--checkpoints").arg(fraud.checkpoints()).args(["create", path]).output();
    let said = succeeds(made.expect("starts"));
    assert!(said.contains("savepoint of fraud, epoch "), "{said}");
    assert!(job.runs(), "the job went on");
    job.signal(Signal::INT);
    let (status, _, said) = job.wait();
    assert!(status.success(), "the job ended with {status}: {said}");
    let inspected = succeeds(fraud.verb("savepoint").args(["inspect", path]).output().expect("starts"));
    assert!(inspected.contains("savepoint of job fraud") && inspected.contains("dedup"), "{inspected}");

    // What was published after it would come twice: that is not done unasked.
    let elsewhere = |more: &[&str]| {
        let mut command = fraud.run_in(&fraud.folder.path().join("elsewhere"), 3);
        command.args(["--from", path]).args(more);
        command
    };
    let refused = elsewhere(&[]).output().expect("starts");
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains("--accept-duplicates"), "{}", text(&refused));
    fraud.finish(2);
    fraud.assert_exact();
    // From the savepoint again: every key's output is what it was, and its end once more.
    let before = fraud.committed();
    succeeds(elsewhere(&["--accept-duplicates"]).output().expect("starts"));
    let mut more = 0;
    for (key, rows) in fraud.committed() {
        let known = &before[&key];
        let again = rows.len() - known.len();
        if key.1.is_some() {
            assert_eq!(rows[..known.len()], known[..], "{key:?}");
            assert_eq!(rows[known.len()..], known[known.len() - again..], "{key:?}");
        }
        more += again;
    }
    assert!(more > 0, "nothing was worked off again");
}
