//! A password is given in every place that takes one, and shown in none: not in what a command prints, logs at its most talkative, keeps, or
//! complains of.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cargo::program;
use crate::support::fraud::text;

const SECRET: &str = "hunter2-canary";
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

fn table(more: &str) -> String {
    format!(
        "CREATE TABLE t (n BIGINT, at TIMESTAMP(3), WATERMARK FOR at AS at) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json',
         'properties.bootstrap.servers' = '{NOWHERE}', 'properties.sasl.username' = 'me', {more});"
    )
}

/// What `waterwheel sql` says, with a password in the URL of its topics too.
fn said(folder: &Path, args: &[&str]) -> String {
    said_of(folder, &format!("kafka://{NOWHERE}?sasl.username=me&sasl.password={SECRET}"), args)
}

fn said_of(folder: &Path, topics: &str, args: &[&str]) -> String {
    let mut command = Command::new(program("waterwheel"));
    command.current_dir(folder).env("WATERWHEEL_LOG", "trace").args(["sql", "--topics", topics]).args(args);
    text(&command.output().expect("starts"))
}

/// Files in a folder and below that have the secret in them.
fn with_secret(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(with_secret(&path));
        } else if String::from_utf8_lossy(&std::fs::read(&path).expect("is read")).contains(SECRET) {
            found.push(path);
        }
    }
    found
}

/// Nothing of the secret, and the words that show that it was the right thing that was said.
fn shows_none(said: &str, words: &[&str]) {
    assert!(!said.contains(SECRET), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not said in: {said}"));
}

#[test]
fn statements_and_their_mistakes_show_none() {
    let folder = tempfile::tempdir().expect("a folder");
    // What topics there are is asked first, so they are where somebody answers.
    let run = |sql: &str| said_of(folder.path(), "local:./data", &["-e", sql]);
    let password = format!("'properties.sasl.password' = '{SECRET}'");
    let jaas = format!(
        "'properties.sasl.jaas.config' = 'org.apache.kafka.common.security.plain.PlainLoginModule required username=\"me\" password=\"{SECRET}\";'"
    );
    let key = format!("'properties.ssl.keystore.key' = '{SECRET}', 'properties.ssl.key.password' = '{SECRET}'");
    for secret in [&password, &jaas, &key] {
        let shown = run(&format!("{} SHOW CREATE TABLE t; DESCRIBE t; SELECT wrong FROM t", table(secret)));
        shows_none(&shown, &["***", "wrong"]);
        // What is wrong stands in the line with the secret.
        shows_none(&run(&table(&format!("{secret}, 'formt' = 'json'"))), &["formt"]);
        shows_none(&run(&table(&format!("{secret} 'x' = 'y'"))), &["error"]);
        shows_none(&run(&format!("{} EXPLAIN SELECT COUNT(*) FROM t", table(secret))), &[]);
    }
    let mistyped = format!("'properties.sasl.pasword' = '{SECRET}'");
    shows_none(&run(&format!("{} SHOW CREATE TABLE t; EXPLAIN SELECT n FROM t", table(&mistyped))), &["sasl.pas"]);
}

/// A job of a script: what it logs, says and leaves in its folders. Its topics are away, so it gives up; that their URL was
/// understood whole shows in what it says of a property that there is not.
#[test]
fn jobs_show_and_keep_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = format!("'properties.sasl.password' = '{SECRET}'");
    let script = format!(
        "SET 'pipeline.name' = 'canary'; {} CREATE TABLE o (n BIGINT) WITH ('connector' = 'topics', 'topic' = 'o', 'format' = 'json');
         INSERT INTO o SELECT n FROM t",
        table(&secret)
    );
    std::fs::write(folder.path().join("script.sql"), script).expect("is written");
    for line in [&["explain"][..], &["check", "--outside-deadline", "1s"], &["run", "--until-end", "--outside-deadline", "1s"]] {
        shows_none(&said(folder.path(), &[&["-f", "script.sql"][..], line].concat()), &[]);
    }
    assert_eq!(with_secret(folder.path()), [folder.path().join("script.sql")]);
    let url = format!("kafka://{NOWHERE}?sasl.password={SECRET}&client.idd=x");
    let mut command = Command::new(program("waterwheel"));
    command.current_dir(folder.path()).args(["sql", "--topics", &url, "-f", "script.sql", "explain"]);
    shows_none(&text(&command.output().expect("starts")), &["client.idd", "client.id"]);
}

/// A declaration with one is refused, and takes no effect; one that says where in the environment it is, is kept as it was written.
#[test]
fn a_catalog_keeps_none() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let run = |variables: &[(&str, &str)], sql: &str| {
        let mut command = Command::new(program("waterwheel"));
        command.current_dir(folder.path()).env_remove("CANARY").envs(variables.iter().copied());
        command.args(["sql", "--topics", "local:./data", "--catalog", "kept", "--until-end", "-e", sql]);
        text(&command.output().expect("starts"))
    };
    let literal = format!("'properties.sasl.password' = '{SECRET}'");
    let refused = run(&[], &table(&literal));
    shows_none(&refused, &["'properties.sasl.password' is a secret", "${env:NAME}", "CREATE TEMPORARY TABLE"]);
    let jaas = format!("'properties.sasl.jaas.config' = 'x.PlainLoginModule required username=\"me\" password=\"{SECRET}\";'");
    shows_none(&run(&[], &table(&jaas)), &["'properties.sasl.jaas.config' is a secret"]);
    shows_none(&run(&[], "SELECT n FROM t"), &["\"t\" not found"]);
    let temporary = table(&literal).replace("CREATE TABLE", "CREATE TEMPORARY TABLE");
    shows_none(&run(&[], &format!("{temporary} SHOW CREATE TABLE t")), &["***"]);

    let reference = "'properties.sasl.password' = '${env:CANARY}'";
    run(&[], &table(reference));
    // What is shown can be run again, and says nothing.
    shows_none(&run(&[("CANARY", SECRET)], "SHOW CREATE TABLE t"), &["'${env:CANARY}'"]);
    shows_none(&run(&[("CANARY", SECRET)], "EXPLAIN SELECT n FROM t"), &[NOWHERE]);
    shows_none(&run(&[], "EXPLAIN SELECT n FROM t"), &["table t: 'properties.sasl.password'", "CANARY", "not set"]);
    // A hint in a view would be kept, too: a view takes none.
    let hinted = format!("CREATE VIEW v AS SELECT n FROM t /*+ OPTIONS({literal}) */");
    shows_none(&run(&[("CANARY", SECRET)], &hinted), &["a hint has no meaning in this statement"]);
    let file = folder.path().join("kept").join("catalog.sql");
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&file).expect("is read").contains("${env:CANARY}"));
    assert_eq!(with_secret(folder.path()), Vec::<PathBuf>::new());
}
