//! Folders that a job follows while somebody else adds files and takes them away.
//!
//! Invariant checked: what was read may go, between two runs and within one, and leaves no trace in checkpoints; what was not is missed.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::sql::Place;
use crate::support::fraud::Running;
use crate::support::kafka::client::wait_until;

const OUT: &str = "CREATE TABLE result (id BIGINT, name STRING) WITH ('connector' = 'topics', 'topic' = 'result', 'format' = 'json');";

/// A script that is a job, in a place of its own.
struct Job {
    place: Place,
}

impl Job {
    fn new(script: &str) -> Job {
        let place = Place::new();
        fs::write(place.folder.path().join("job.sql"), script).expect("is written");
        fs::create_dir_all(place.folder.path().join("in")).expect("is made");
        Job { place }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.folder.path().join("in").join(name)
    }

    fn start(&self) -> Running {
        Running::start(self.place.sql(&["-f", "job.sql", "run", "--json", "--status-interval", "20ms", "--checkpoint-interval", "50ms"]))
    }

    fn rows(&self) -> usize {
        let is_there = self.place.topics().list().expect("lists").iter().any(|topic| topic == "result");
        if is_there { self.place.committed("result").len() } else { 0 }
    }

    /// Whether the newest checkpoint that is there names this file.
    fn remembers(&self, name: &str) -> bool {
        let folder = self.place.folder.path().join("checkpoints/job/chk");
        let newest = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).max();
        // It may have gone meanwhile, for a newer one.
        newest.and_then(|path| fs::read(path).ok()).is_none_or(|bytes| String::from_utf8_lossy(&bytes).contains(name))
    }
}

fn stop(job: Running) {
    job.signal(Signal::INT);
    let (ended, _, errors) = job.wait();
    assert!(ended.success(), "{errors}");
}

#[test]
fn may_go_once_they_were_read() {
    let input = "CREATE TABLE input (id BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json', 'source.monitor-interval' = '20 ms');";
    let job = Job::new(&format!("{input} {OUT} INSERT INTO result SELECT id, name FROM input;"));
    let lines = |name: &str, from: usize| {
        let text: String = (from..from + 3).map(|id| format!("{{\"id\":{id},\"name\":\"{name}\"}}\n")).collect();
        // Whole under its name, as whoever moves files into a folder does.
        fs::write(job.file(".new"), text).and_then(|()| fs::rename(job.file(".new"), job.file(name))).expect("is written");
    };
    lines("first.json", 0);
    lines("second.json", 3);
    let running = job.start();
    wait_until("the first rows", || job.rows() == 6);
    stop(running);
    assert!(job.remembers("first.json") && job.remembers("second.json"));

    // While nothing runs, and while it does.
    fs::remove_file(job.file("first.json")).expect("is removed");
    lines("third.json", 6);
    let mut running = job.start();
    wait_until("the third file", || job.rows() == 9);
    fs::remove_file(job.file("second.json")).expect("is removed");
    wait_until("no file that is gone to be remembered", || !job.remembers("first.json") && !job.remembers("second.json"));
    assert!(running.runs() && job.remembers("third.json"));
    // The name is free again.
    lines("second.json", 9);
    wait_until("the name again", || job.rows() == 12);
    stop(running);

    // A line is being written.
    fs::write(job.file("half.json"), "{\"id\":12,\"name\":\"half\"}\n{\"id\":13").expect("is written");
    let running = job.start();
    wait_until("the whole line", || job.rows() == 13);
    stop(running);
    fs::remove_file(job.file("half.json")).expect("is removed");
    let (ended, _, errors) = job.start().wait();
    assert!(!ended.success() && errors.contains("half.json is gone, and has not been read to its end"), "{errors}");
    assert!(errors.contains("put it back"), "{errors}");
    fs::write(job.file("half.json"), "{\"id\":12,\"name\":\"half\"}\n{\"id\":13,\"name\":\"half\"}\n").expect("is written");
    let running = job.start();
    wait_until("the other half", || job.rows() == 14);
    stop(running);
}
