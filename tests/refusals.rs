//! What the job refuses to start on, each with its exit code and a reason: a second process, a topic that is missing,
//! settings that cannot be. Nothing is published by any of them.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::fraud::{Fraud, Size, text};

/// Runs a program that must refuse: with this exit code, saying all of these words.
fn refuses(mut command: Command, code: i32, words: &[&str]) {
    let output = command.output().expect("starts");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not said in: {said}");
    }
}

#[test]
fn a_second_process() {
    let fraud = Fraud::on_embedded_log(Size::Brief);
    let mut job = fraud.start(1, &[]);
    assert!(job.wait_for("the job to run", |s| s["phase"] == "running"), "it ended");
    // Asleep, so that it is still there when the second one gives up.
    job.signal(Signal::STOP);
    refuses(fraud.run_in(&fraud.checkpoints(), 1), 3, &["fraud is running already", &format!("pid {}", job.pid()), "--take-over"]);
    job.signal(Signal::CONT);
    let (status, _, said) = job.wait();
    assert!(status.success(), "the first one was disturbed: {said}");
}

#[test]
fn settings_and_topics_that_cannot_be() {
    let fraud = Fraud::on_embedded_log(Size::Brief);
    let with = |more: &[&str]| {
        let mut command = fraud.verb("run");
        command.args(more);
        command
    };
    refuses(with(&["--parallelism", "0"]), 2, &["parallelism", "at least 1"]);
    refuses(with(&["--checkpoint-interval", "5"]), 2, &["checkpoint-interval", "no duration"]);
    refuses(with(&["--settings", "nowhere.toml"]), 2, &["settings file cannot be read", "nowhere.toml"]);
    fs::write(fraud.folder.path().join("mistyped.toml"), "checkpiont-interval = \"5s\"\n").expect("written");
    refuses(with(&["--settings", "mistyped.toml"]), 2, &["checkpiont-interval", "line 1"]);
    let mut elsewhere = Command::new(fraud.verb("run").get_program());
    elsewhere.current_dir(fraud.folder.path()).args(["run", "--topics", "local:nothing-here", "--until-end"]);
    refuses(elsewhere, 3, &["topic payments does not exist", "waterwheel topic create payments"]);
    assert!(fraud.committed().is_empty(), "something was published");
}
