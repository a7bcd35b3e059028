//! A broker that lets nobody do anything unasked: each right that a job lacks is named, and its password never is.

use crate::support::fraud::text;
use crate::support::kafka::Broker;
use crate::support::small_job::SmallJob;
use std::fs;
use std::path::Path;

const PASSWORD: &str = "hunter2-and-more";

/// Runs a verb; its exit code and all that it said, at its most talkative.
fn said(job: &SmallJob, line: &[&str]) -> (Option<i32>, String) {
    let more = if line[0] == "run" { &["--until-end", "--checkpoint-interval", "50ms"][..] } else { &[] };
    let line = [line, &["--topics", &job.url], more].concat();
    let output = job.command(&line).env("WATERWHEEL_LOG", "debug").output().expect("starts");
    let said = text(&output);
    assert!(!said.contains(PASSWORD), "the password is said by {}: {said}", line[0]);
    (output.status.code(), said)
}

fn refuses(job: &SmallJob, words: &[&str]) {
    let (code, said) = said(job, &["run"]);
    assert_eq!(code, Some(3), "{words:?}: {said}");
    for word in words.iter().chain(&["error: ", "help: "]) {
        assert!(said.contains(word), "{word:?} is not said in: {said}");
    }
}

fn url(broker: &Broker, password: &str) -> String {
    let user = format!("sasl.mechanism=PLAIN&sasl.username=job&sasl.password={password}");
    format!("kafka://{}?security.protocol=sasl_plaintext&{user}", broker.secured())
}

/// Everything below a folder.
fn each_file(folder: &Path, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { each_file(&path, see) } else { see(&path) }
    }
}

#[test]
fn own_broker_names_each_right_that_is_missing() {
    let broker = Broker::start_secured(PASSWORD);
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Topics are made, filled and read by the door where nobody asks.
    let mut job = SmallJob::at(folder, format!("kafka://{}", broker.bootstrap()), "fail");
    job.create_input(1);
    job.item(0, "a", 7);

    job.url = url(&broker, &format!("{PASSWORD}-mistyped"));
    refuses(&job, &["does not accept this user and password", "check sasl.username and sasl.password"]);

    job.url = url(&broker, PASSWORD);
    refuses(&job, &[&job.output, "no permission for the topic", "READ, WRITE and DESCRIBE"]);
    let (code, checked) = said(&job, &["check"]);
    assert!(code == Some(3) && checked.contains("FAIL"), "{checked}");
    job.create_output();
    broker.grant(&["--operation", "Read", "--operation", "Write", "--operation", "Describe", "--topic", &job.output]);
    refuses(&job, &["no permission for the transactional id", "WRITE on transactional ids that begin with the job's name"]);
    let prefixed = ["--resource-pattern-type", "prefixed"];
    broker.grant(&[&prefixed[..], &["--operation", "Write", "--operation", "Describe", "--transactional-id", &job.name]].concat());
    refuses(&job, &["no permission for the group", "READ on the group"]);
    broker.grant(&[&prefixed[..], &["--operation", "Read", "--group", &job.name]].concat());
    refuses(&job, &[&job.input, "no permission for the topic", "READ and DESCRIBE"]);
    broker.grant(&["--operation", "Read", "--operation", "Describe", "--topic", &job.input, "--group", "waterwheel"]);
    let (code, told) = said(&job, &["run"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(job.total(), Some(7));

    for line in [&["explain"][..], &["explain", "--json"], &["check"], &["savepoint", "list"], &["run", "--json"]] {
        let (code, told) = said(&job, line);
        assert_eq!(code, Some(0), "{told}");
    }
    each_file(job.folder.path(), &mut |path| {
        let bytes = fs::read(path).expect("a file");
        assert!(!bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()), "the password is in {}", path.display());
    });
}
