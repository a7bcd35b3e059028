//! The job with its checkpoints in an object store: killed, and gone on with on another machine, as far as files go.
//!
//! Invariant: nothing of the first process is there but topics and store; what is committed is exactly what was planted, and no
//! secret is in what the processes say.
#![allow(clippy::disallowed_methods, reason = "a test of processes")]

#[path = "../../../connectors/s3/server.rs"]
mod server;

use serde_json::Value;
use server::Server;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const SECRET: &str = "canary-of-a-secret";

struct Bank<'a> {
    folder: &'a Path,
    endpoint: String,
}

impl Bank<'_> {
    /// A command of the job, with nothing of the environment but what the store needs.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fraud_detection"));
        command.args(args).arg("--topics").arg(format!("local:{}", self.folder.join("topics").display())).env_clear();
        command.current_dir(self.folder).env("AWS_ENDPOINT_URL", &self.endpoint).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "AKIDTEST").env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, work: &str) -> Child {
        let run = [
            "run",
            "--until-end",
            "--json",
            "--checkpoints",
            "s3://bucket/jobs",
            "--checkpoint-interval",
            "100ms",
            "--batch-rows",
            "64",
            "--status-interval",
            "20ms",
        ];
        self.command(&run).args(["--work", work, "--parallelism", "2"]).spawn().expect("the job starts")
    }

    fn ends(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the command runs")
    }
}

fn said(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(SECRET) && !text.contains("AKIDTEST"), "a secret is said: {text}");
    text
}

#[test]
fn a_killed_job_goes_on_from_the_object_store_on_another_machine() {
    let Some(mut server) = Server::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let bank = Bank { folder: folder.path(), endpoint: server.endpoint() };
    let generated =
        bank.ends(&["generate", "--payments", "300000", "--cards", "20000", "--per-second", "40", "--no-giant", "--scale", "0.5"]);
    assert!(generated.status.success(), "{}", said(&generated));
    // Killed again and again, each time as soon as it has a checkpoint of its own, and gone on with in other folders.
    let mut resumed = 0;
    for kill in 0..4 {
        let mut job = bank.run(&format!("machine-{kill}"));
        let lines = BufReader::new(job.stdout.take().expect("its output")).lines().map_while(Result::ok);
        let (mut text, mut status) = (String::new(), Value::Null);
        for line in lines {
            status = serde_json::from_str(&line).unwrap_or_default();
            text.push_str(&line);
            if status["phase"] == "running" && status["checkpoint"].as_u64() > status["resumed_from"].as_u64() {
                break;
            }
        }
        job.kill().expect("killed");
        said(&job.wait_with_output().expect("its end"));
        assert!(!text.contains(SECRET) && !text.contains("AKIDTEST"), "a secret is said: {text}");
        resumed += u32::from(status["resumed_from"].is_u64());
        std::fs::remove_dir_all(folder.path().join(format!("machine-{kill}"))).expect("its folder");
    }
    assert!(resumed >= 3, "{resumed} processes went on from a checkpoint");
    let last = bank.run("machine-3").wait_with_output().expect("it ends");
    assert!(last.status.success(), "{}", said(&last));
    let verdict = bank.ends(&["verify"]);
    assert!(verdict.status.success(), "{}", said(&verdict));
    savepoints(&bank);
    // The store is away: the job does not start with nothing, it says so.
    server.kill();
    let refused = bank.ends(&["savepoint", "list", "--checkpoints", "s3://bucket/jobs", "--work", "machine-3"]);
    assert!(!refused.status.success() && said(&refused).contains("s3://bucket/jobs/fraud"), "{}", said(&refused));
}

/// Into the store, listed, looked into, read from there.
fn savepoints(bank: &Bank<'_>) {
    let at = ["--checkpoints", "s3://bucket/jobs", "--work", "machine-3"];
    let done = |verb: &[&str]| {
        let output = bank.ends(&[&["savepoint"], verb, &at[..]].concat());
        assert!(output.status.success(), "{verb:?}: {}", said(&output));
        said(&output)
    };
    assert!(done(&["list"]).contains("s3://bucket/jobs/fraud"));
    done(&["create", "s3://bucket/saved/one"]);
    assert!(done(&["inspect", "s3://bucket/saved/one"]).contains("card-rules"));
    assert!(done(&["read", "s3://bucket/saved/one", "--operator", "card-rules"]).contains("card-rules"));
    done(&["delete", "s3://bucket/saved/one"]);
    let gone = bank.ends(&[&["savepoint", "inspect", "s3://bucket/saved/one"], &at[..]].concat());
    assert!(!gone.status.success() && said(&gone).contains("there is no savepoint"));
}
