//! Savepoints of a running job, starting from one with other tasks in another folder, and the graceful stop.

use std::path::Path;
use std::process::Output;

use crate::support::fraud::{Fraud, Size, text};
use rustix::process::Signal;
use serde_json::Value;

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("read") {
        let entry = entry.expect("read");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("copied")),
        }
    }
}

fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_stopped_job_goes_on_exactly_there() {
    let fraud = Fraud::on_embedded_log(Size::Brief);
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
    let again = Fraud::on_embedded_log(Size::Brief);
    assert_eq!(again.finish(2)["records_in"].as_u64(), Some(read), "no record is read twice over graceful stops");
}

#[test]
fn a_savepoint_starts_the_job_with_other_tasks_in_another_folder() {
    let fraud = Fraud::on_embedded_log(Size::Brief);
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

    // The folder is all there is to it: a copy does as well, also when the original is deleted.
    let copy = fraud.folder.path().join("copy");
    copy_folder(&savepoint, &copy);
    let deleted = succeeds(fraud.verb("savepoint").args(["delete", path]).output().expect("starts"));
    assert!(deleted.contains("savepoint of job fraud"), "{deleted}");
    let gone = fraud.verb("savepoint").args(["inspect", path]).output().expect("starts");
    assert!(text(&gone).contains("there is no savepoint"), "{}", text(&gone));
    let path = copy.to_str().expect("UTF-8");
    let read = |more: &[&str]| {
        let checkpoints = fraud.checkpoints();
        let mut command = fraud.verb("savepoint");
        command.arg("--checkpoints").arg(checkpoints).arg("read").args(more);
        let lines = succeeds(command.output().expect("starts"));
        lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON")).collect::<Vec<_>>()
    };
    let entries = read(&[path, "--operator", "card-rules"]);
    assert!(!entries.is_empty(), "the rules remember something");
    for entry in &entries {
        assert_eq!(entry["operator"], "card-rules", "{entry}");
        assert!(entry["key"].as_str().is_some_and(|key| key.parse::<u64>().is_ok()), "{entry}");
        assert!(entry["table"].as_str().is_some(), "{entry}");
    }
    assert!(read(&[]).len() > entries.len(), "without a path it is the newest checkpoint, and all of it");
    as_parquet(&fraud, path, &entries);
    let usage = fraud.verb("savepoint").arg("--checkpoints").arg(fraud.checkpoints()).args(["usage", "--json"]).output();
    let usage: Value = serde_json::from_str(&succeeds(usage.expect("starts"))).expect("JSON");
    let folders = ["log", "chk", "state", "staging"].iter().map(|f| usage["folders"][f].as_u64().expect("bytes")).sum::<u64>();
    assert_eq!(usage["bytes"].as_u64(), Some(folders), "{usage}");
    assert!(usage["folders"]["state"].as_u64() > Some(0) && usage["unnamed_state"].as_u64().is_some(), "{usage}");

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

/// The entries of an operator once more, as a Parquet file that is a table.
fn as_parquet(fraud: &Fraud, savepoint: &str, entries: &[Value]) {
    let folder = fraud.folder.path();
    let mut command = fraud.verb("savepoint");
    command.arg("--checkpoints").arg(fraud.checkpoints()).args(["read", savepoint, "--operator", "card-rules", "--parquet"]);
    let said = succeeds(command.arg(folder.join("state.parquet")).output().expect("starts"));
    assert!(said.starts_with(&format!("{} entries in ", entries.len())), "{said}");
    let query = "CREATE TABLE state (operator STRING NOT NULL, `table` STRING NOT NULL, `key` STRING NOT NULL, `value` STRING NOT NULL, name STRING, `time` TIMESTAMP_LTZ(3))
        WITH ('connector' = 'filesystem', 'path' = 'state.parquet', 'format' = 'parquet'); SELECT operator, `table`, `key`, `value`, name FROM state";
    let mut command = std::process::Command::new(crate::support::cargo::program("waterwheel"));
    let rows = succeeds(
        command
            .current_dir(folder)
            .args(["sql", "--topics", "local:none", "--until-end", "--output", "json", query])
            .output()
            .expect("starts"),
    );
    let read = rows.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all
    };
    let read = read.map(|row| {
        format!(
            "{} {} {} {} {}",
            row["operator"],
            row["table"],
            row["key"].as_str().unwrap_or_default(),
            row["value"].as_str().unwrap_or_default(),
            row["name"]
        )
    });
    let known = entries
        .iter()
        .map(|entry| format!("{} {} {} {} {}", entry["operator"], entry["table"], entry["key"], entry["value"], entry["name"]));
    assert_eq!(sorted(read.collect()), sorted(known.collect()));
}
