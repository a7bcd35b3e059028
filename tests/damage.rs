//! Damaged, lost and foreign metadata: each is refused with what, where and what to do, and of the log and the manifests before
//! anything is published; the damage mended, the job goes on and its output is exact.
//!
//! The job is killed when a checkpoint is complete and nothing of it is published, so that there is something that a start
//! on damaged ground could publish.

use crate::support::fraud::{Committed, Fraud, Size};
use crate::support::kafka::Broker;
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use waterwheel::engine::env::Moment;

/// A file of the job's folder, and what is done to it.
struct Damage {
    what: &'static str,
    path: PathBuf,
    /// `None`: the file is removed.
    content: Option<Vec<u8>>,
    /// What the refusal must say.
    says: &'static [&'static str],
}

/// The job's files in a folder of its own, sorted.
fn files(fraud: &Fraud, folder: &str) -> Vec<PathBuf> {
    let folder = fraud.checkpoints().join("fraud").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).expect("the job's folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The largest file that a manifest names.
fn largest(files: Vec<PathBuf>, manifest: &str) -> PathBuf {
    let named = files.into_iter().filter(|path| manifest.contains(path.file_name().and_then(|name| name.to_str()).expect("UTF-8")));
    named.max_by_key(|path| fs::metadata(path).expect("there").len()).expect("a file")
}

/// A sealed text with other content, its checksum right.
fn resealed(path: &Path, change: impl Fn(&str) -> String) -> Option<Vec<u8>> {
    let text = fs::read_to_string(path).expect("sealed text");
    let (body, _) = text.trim_end().rsplit_once('\n').expect("a body and a checksum");
    let body = change(body) + "\n";
    Some(format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes())).into_bytes())
}

fn cut(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).expect("a file");
    Some(bytes[..bytes.len() / 2].to_vec())
}

fn flipped(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    Some(bytes)
}

/// All kinds of damage to the newest checkpoint of a job that does not run.
fn damages(fraud: &Fraud) -> Vec<Damage> {
    let log = files(fraud, "log");
    let (newest, before) = (log[log.len() - 1].clone(), log[log.len() - 2].clone());
    let manifest = files(fraud, "chk").pop().expect("a manifest");
    let named = fs::read_to_string(&manifest).expect("sealed text");
    let (state, segment) = (largest(files(fraud, "state"), &named), largest(files(fraud, "staging"), &named));
    let damage = |what, path: &PathBuf, content, says| Damage { what, path: path.clone(), content, says };
    vec![
        damage("a log entry cut off", &newest, cut(&newest), &["log entry", "damaged"]),
        damage("a bit of a log entry", &newest, flipped(&newest), &["log entry", "damaged"]),
        damage("a lost log entry", &before, None, &["log entry", "is missing"]),
        damage("a newer version", &newest, resealed(&newest, |b| b.replace("\"version\":1", "\"version\":99")), &["version 99", "newer"]),
        damage("a manifest cut off", &manifest, cut(&manifest), &["manifest", "bytes, the job log says"]),
        damage("a bit of a manifest", &manifest, flipped(&manifest), &["manifest", "checksum"]),
        damage("a lost manifest", &manifest, None, &["manifest", "is missing"]),
        damage("a segment cut off", &segment, cut(&segment), &["segment", "bytes"]),
        damage("a bit of a segment", &segment, flipped(&segment), &["segment", "checksum"]),
        damage("a lost segment", &segment, None, &["segment"]),
        damage("a state file cut off", &state, cut(&state), &["state/", "bytes, the checkpoint says"]),
        damage("a bit of a state file", &state, flipped(&state), &["state/", "checksum"]),
        damage("a lost state file", &state, None, &["state/", "is missing"]),
    ]
}

fn refused(fraud: &Fraud, what: &str, says: &[&str], before: Option<&Committed>) {
    let (status, _, said) = fraud.start(2, &[]).wait();
    assert_eq!(status.code(), Some(3), "{what}: {said}");
    for word in says.iter().chain(&["error: ", "help: "]) {
        assert!(said.contains(word), "{what}: {word:?} is not said in: {said}");
    }
    if let Some(before) = before {
        assert!(fraud.committed() == *before, "{what}: something was published");
    }
}

fn is_refused_and_mended(fraud: &Fraud) {
    let (status, _, said) = fraud.start_until(1, Moment::CheckpointLogged, 3, Signal::KILL).wait();
    assert_eq!(status.signal(), Some(9), "{said}");
    // A commit that was asked for just before the kill may show a moment later.
    std::thread::sleep(Duration::from_secs(1));
    let before = fraud.committed();
    let kinds = damages(fraud).len();
    for kind in 0..kinds {
        // Looked up anew: every start adds to the log.
        let Damage { what, path, content, says } = damages(fraud).swap_remove(kind);
        let good = fs::read(&path).expect("a file");
        // A new file, never the old one changed: it may have a second name.
        fs::remove_file(&path).expect("removed");
        content.iter().for_each(|bytes| fs::write(&path, bytes).expect("written"));
        // Segments and state are read after the lanes before theirs, or all lanes, have published what is complete.
        let nothing_is_published = path.parent().is_some_and(|folder| folder.ends_with("log") || folder.ends_with("chk"));
        refused(fraud, what, says, nothing_is_published.then_some(&before));
        fs::write(&path, good).expect("written");
    }
    another_jobs_folder(fraud);
    fraud.finish(2);
    fraud.assert_exact();
}

/// The log of a job of another name, in this job's folder.
fn another_jobs_folder(fraud: &Fraud) {
    let before = fraud.committed();
    let good: Vec<(PathBuf, Vec<u8>)> = files(fraud, "log").into_iter().map(|path| (path.clone(), fs::read(path).expect("read"))).collect();
    for (path, _) in &good {
        let other = resealed(path, |body| body.replace("\"job\":\"fraud\"", "\"job\":\"theft\""));
        fs::write(path, other.expect("sealed")).expect("written");
    }
    refused(fraud, "another job's folder", &["of job theft"], Some(&before));
    for (path, bytes) in &good {
        fs::write(path, bytes).expect("written");
    }
}

#[test]
fn on_the_embedded_log() {
    is_refused_and_mended(&Fraud::on_embedded_log(Size::Brief));
}

#[test]
fn on_its_own_broker() {
    let broker = Broker::start();
    is_refused_and_mended(&Fraud::on_kafka(Size::Brief, &broker.bootstrap(), ""));
}

/// Names that only one side knows: an empty folder while the topics hold markers, and the other way round.
#[test]
fn a_name_that_only_the_topics_know() {
    let fraud = Fraud::on_embedded_log(Size::Brief);
    let mut job = fraud.start(1, &[]);
    job.wait_for_checkpoints(2);
    job.kill9();
    let before = fraud.committed();
    let folder = fraud.checkpoints().join("fraud");
    let aside = fraud.folder.path().join("aside");
    fs::rename(&folder, &aside).expect("moved");
    refused(&fraud, "a lost folder", &["is not new", "--fresh", "--checkpoints"], Some(&before));
    fs::remove_dir_all(&folder).expect("removed");
    fs::rename(&aside, &folder).expect("moved back");
    fraud.finish(1);
    fraud.assert_exact();
}
