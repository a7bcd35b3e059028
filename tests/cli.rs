//! The command `waterwheel` as a person or a script uses it, on both kinds of log: what it prints where, and its exit codes.

use crate::support::cargo::program;
use crate::support::kafka;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// Topics somewhere, and the command told so.
struct Shell {
    folder: tempfile::TempDir,
    url: String,
}

impl Shell {
    fn new(url: impl FnOnce(&std::path::Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = url(folder.path());
        Self { folder, url }
    }

    /// Runs `waterwheel topic ...`: exit code, standard output, standard error.
    fn topic(&self, line: &[&str], input: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(program("waterwheel"));
        command.current_dir(self.folder.path()).env("WATERWHEEL_TOPICS", &self.url).arg("topic").args(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Standard output of what must succeed.
    fn ok(&self, line: &[&str], input: &str) -> String {
        let (code, out, err) = self.topic(line, input);
        assert_eq!(code, Some(0), "{line:?}: {err}");
        out
    }

    /// Exit code 1, and the reason on standard error alone.
    fn fails(&self, line: &[&str], words: &[&str]) {
        let (code, out, err) = self.topic(line, "x\n");
        assert_eq!((code, out.as_str()), (Some(1), ""), "{line:?}: {err}");
        for word in words {
            assert!(err.contains(word), "{line:?}: {word:?} is not said in: {err}");
        }
    }
}

fn a_session(shell: &Shell) {
    let topic = format!("cli-{}", std::process::id());
    let topic = topic.as_str();
    assert!(shell.ok(&["create", topic, "--partitions", "2"], "").contains("2 partitions"));
    shell.fails(&["create", topic], &["error: ", "exists already"]);
    shell.fails(&["create", "no/name"], &["error: ", "help: "]);
    let listed: Vec<String> = serde_json::from_str(&shell.ok(&["list", "--json"], "")).expect("JSON");
    assert!(listed.iter().any(|name| name == topic));
    assert!(shell.ok(&["list"], "").lines().any(|name| name == topic));

    let (code, out, err) = shell.topic(&["produce", topic, "--key-separator", ":", "--null", "-"], "a:1\na:2\nb:-\nc:\n:x:y\n");
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("5 records written"), "{err}");
    shell.ok(&["produce", topic, "--partition", "1"], "no key\n");
    let mut read: Vec<Value> =
        shell.ok(&["consume", topic, "--json"], "").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    read.sort_by_key(|r| (r["key"].as_str().map(str::to_owned), r["offset"].as_i64()));
    let found: Vec<Value> = read.iter().map(|r| json!([r["key"], r["value"]])).collect();
    let expected = [json!([null, "no key"]), json!(["", "x:y"]), json!(["a", 1]), json!(["a", 2]), json!(["b", null]), json!(["c", ""])];
    assert_eq!(found, expected);
    assert_eq!(read[0]["partition"], 1);
    let lines = shell.ok(&["consume", topic, "--key-separator", "\\t"], "");
    assert!(lines.lines().any(|line| line == "a\t2") && lines.lines().any(|line| line == "b\tnull"), "{lines}");
    assert_eq!(shell.ok(&["consume", topic, "-n", "2"], "").lines().count(), 2);

    let told: Value = serde_json::from_str(&shell.ok(&["describe", topic, "--json"], "")).expect("JSON");
    let ends: i64 = told["partitions"].as_array().expect("partitions").iter().map(|p| p["end"].as_i64().expect("a number")).sum();
    assert_eq!((told["name"].as_str(), ends), (Some(topic), 6));
    let table = shell.ok(&["describe", topic], "");
    assert!(table.contains("2 partitions") && !table.contains('\x1b'), "{table}");

    shell.ok(&["delete", topic], "");
    let create = format!("waterwheel topic create {topic}");
    for verb in [&["delete", topic][..], &["describe", topic], &["consume", topic], &["produce", topic]] {
        shell.fails(verb, &["error: ", "does not exist", &create]);
    }
    let (code, _, err) = shell.topic(&["consume"], "");
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn on_the_embedded_log() {
    a_session(&Shell::new(|folder| format!("local:{}", folder.join("data").display())));
}

#[test]
fn on_kafka() {
    a_session(&Shell::new(|_| format!("kafka://{}", kafka::shared())));
}

#[test]
fn a_place_that_cannot_be_is_said_so_without_its_secrets() {
    for (url, code, words) in [
        ("kafka://127.0.0.1:1", 1, &["the broker does not answer", "kafka://127.0.0.1:1", "help: "][..]),
        ("kafka://127.0.0.1:1?sasl.pasword=hunter2", 1, &["did you mean \"sasl.password\""]),
        ("kafka://127.0.0.1:1?auto.offset.reset=latest", 1, &["auto.offset.reset", "on_lost_offsets"]),
        ("kafak://127.0.0.1:1?sasl.password=hunter2", 2, &["is not a topics URL"]),
    ] {
        let shell = Shell::new(|_| url.to_owned());
        let (got, out, err) = shell.topic(&["list"], "");
        assert_eq!((got, out.as_str()), (Some(code), ""), "{url}: {err}");
        words.iter().for_each(|word| assert!(err.contains(word), "{url}: {word:?} is not said in: {err}"));
        assert!(!err.contains("hunter2"), "{err}");
    }
}
