//! A checkpoint folder that cannot be used: read only, a file in its place, or full in the middle of the job. The first two are
//! refused; a full disk is waited out, visibly, and nothing is lost or doubled.
//!
//! The folder is a small file system in memory, which takes the right to mount one. Without it these tests say by name that
//! they were not run.

use crate::support::fraud::{Fraud, Running, Size};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory; dropped, it is gone.
struct Memory(PathBuf);

impl Memory {
    /// Nothing where this user may not mount.
    fn mount(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("NOT RUN: this user may not mount a file system in memory");
        None
    }

    fn change(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).output().expect("mount starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

fn refused(job: Running, says: &[&str]) {
    let (status, _, said) = job.wait();
    assert_eq!(status.code(), Some(3), "{said}");
    for word in says.iter().chain(&["error: ", "help: "]) {
        assert!(said.contains(word), "{word:?} is not said in: {said}");
    }
}

#[test]
fn that_cannot_be_written_is_refused() {
    let fraud = Fraud::on_embedded_log(Size::Brief);
    std::fs::write(fraud.checkpoints(), "a file").expect("written");
    refused(fraud.start(1, &[]), &["checkpoints", "--checkpoints <folder>"]);
    std::fs::remove_file(fraud.checkpoints()).expect("removed");
    let Some(folder) = Memory::mount(&fraud.checkpoints(), "size=1g") else { return };
    folder.change("ro");
    refused(fraud.start(1, &[]), &["checkpoints", "--checkpoints <folder>"]);
    folder.change("rw");
    fraud.finish(1);
    fraud.assert_exact();
}

#[test]
fn that_is_full_for_a_while_is_waited_out() {
    let fraud = Fraud::on_embedded_log(Size::Brief);
    let Some(folder) = Memory::mount(&fraud.checkpoints(), "size=6m") else { return };
    let mut job = fraud.start(1, &[]);
    let full = job.wait_for("the disk to be full", |s| {
        s["failed_checkpoints"].as_u64() > Some(0) || s["phase"] == "restarting" || s["waiting"].as_object().is_some_and(|w| !w.is_empty())
    });
    assert!(full, "the job ended: {}", job.status());
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(job.runs(), "the job does not wait: {}", job.status());
    folder.change("size=1g");
    let (status, last, said) = job.wait();
    assert!(status.success() && last["phase"] == "finished", "{said}");
    fraud.assert_exact();
}
