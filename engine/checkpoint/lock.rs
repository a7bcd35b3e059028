//! One process per job on a local store.
//!
//! Invariant: the lock dies with its holder. It is a courtesy that gives a clear message early; what keeps two coordinators
//! from harm is the job log and the fence of the lanes.

use crate::env::Env;
use crate::error::{Error, Result};
use std::path::Path;

/// Held as long as this lives.
pub struct JobLock(#[expect(dead_code, reason = "held for its drop")] Option<Box<dyn Send + Sync>>);

impl JobLock {
    /// Takes the lock of the job in `folder` (made if needed) for process `pid`. With `take_over` a lock held by somebody else
    /// is passed by: the newest attempt wins, and the older one stops before it publishes anything more.
    ///
    /// # Errors
    /// Fatal when another process has it, naming that process.
    pub fn acquire(env: &Env, folder: &Path, job: &str, pid: u32, take_over: bool) -> Result<JobLock> {
        let path = folder.join("lock");
        env.files.create_dir_all(folder).map_err(|e| unusable(&path, e))?;
        match env.files.lock(&path, &format!("pid {pid}\n")).map_err(|e| unusable(&path, e))? {
            Some(guard) => Ok(JobLock(Some(guard))),
            None if take_over => {
                tracing::warn!(job, holder = holder(env, &path), "taking the job over; the older process stops at its next checkpoint");
                Ok(JobLock(None))
            }
            None => Err(Error::fatal(format!("job {job} is running already: {}", holder(env, &path)))
                .at(format!("lock {}", path.display()))
                .help("stop that process, or let this one win: run --take-over")),
        }
    }
}

fn holder(env: &Env, path: &Path) -> String {
    let note = env.files.read(path).unwrap_or_default();
    let note = String::from_utf8_lossy(&note).trim().to_string();
    if note.is_empty() { "another process".into() } else { note }
}

fn unusable(path: &Path, e: std::io::Error) -> Error {
    Error::from(e).at(format!("lock {}", path.display())).help("name a folder that can be written: --checkpoints <folder>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_pid_of_the_first_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let first = JobLock::acquire(&env, dir.path(), "fraud", 41, false).unwrap();
        let refused = JobLock::acquire(&env, dir.path(), "fraud", 42, false).err().unwrap();
        assert_eq!(refused.to_string(), "job fraud is running already: pid 41");
        assert!(refused.report().contains("--take-over"));
        assert!(JobLock::acquire(&env, dir.path(), "fraud", 42, true).is_ok());
        drop(first);
        assert!(JobLock::acquire(&env, dir.path(), "fraud", 42, false).is_ok());
    }
}
