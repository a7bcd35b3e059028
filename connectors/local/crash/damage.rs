//! Damage to files at rest: found, named, never skipped.

use super::*;
use crate::conformance::reader_context;
use crate::topics::End;
use waterwheel_engine::operators::{Poll, SplitState};

/// Reads everything of a topic, or the error that stopped it.
fn read(env: &Env) -> Result<usize> {
    let source = topics(env).source(SourceOptions::new("out").end(End::Latest))?;
    let mut reader = source.reader(reader_context(env))?;
    let splits: Vec<SplitState> = source.splits(true)?.into_iter().map(SplitState::fresh).collect();
    reader.assign(&splits)?;
    let (mut rows, mut ended) = (0, 0);
    for _ in 0..10_000 {
        match reader.poll()? {
            Poll::Batch { batch, .. } => rows += batch.len(),
            Poll::Ended { .. } => ended += 1,
            Poll::Empty | Poll::Waiting(_) => {}
        }
        if ended == splits.len() {
            return Ok(rows);
        }
    }
    panic!("the reader neither ends nor fails")
}

fn written() -> Disk {
    let disk = Disk::default();
    let env = disk.env(1);
    let topics = topics(&env);
    topics.create("out", &TopicConfig::partitions(1)).unwrap();
    for n in 0..12 {
        topics.produce(&batch("out", &[(0, &format!("value {n}"))])).unwrap();
    }
    disk
}

fn overwrite(disk: &Disk, path: &Path, bytes: &[u8]) {
    disk.create(path).unwrap().write_all(bytes).unwrap();
}

use waterwheel_engine::env::Files;

#[test]
fn any_flipped_bit_in_any_file_stops_the_reader() {
    let disk = written();
    assert_eq!(read(&disk.env(2)).unwrap(), 12);
    let mut flips = 0;
    for path in disk.paths() {
        let whole = disk.read(&path).unwrap();
        for at in 0..whole.len() {
            let bad = disk.after(Loss::Process);
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            overwrite(&bad, &path, &bytes);
            match read(&bad.env(2)) {
                Err(e) => assert!(e.report().contains(&path.display().to_string()), "{} at {at}: {}", path.display(), e.report()),
                // A line break at the end of a line, and its absence, mean the same.
                Ok(rows) => assert!(rows == 12 && at + 1 == whole.len(), "{} at {at} went unnoticed", path.display()),
            }
            flips += 1;
        }
    }
    assert!(flips > 1000);
}

#[test]
fn a_missing_or_cut_file_stops_the_reader() {
    let disk = written();
    let newest = disk.paths().into_iter().filter(|p| p.to_string_lossy().contains("/e-")).max().unwrap();
    for path in disk.paths().into_iter().filter(|p| *p != newest) {
        let gone = disk.after(Loss::Process);
        gone.remove(&path).unwrap();
        assert!(read(&gone.env(2)).is_err(), "{} is gone and nobody noticed", path.display());
        let cut = disk.after(Loss::Process);
        let whole = disk.read(&path).unwrap();
        overwrite(&cut, &path, &whole[..whole.len() / 2]);
        assert!(read(&cut.env(2)).is_err(), "{} is cut and nobody noticed", path.display());
    }
}
