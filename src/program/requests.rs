//! How `savepoint create` asks a job that runs in another process: files in the job's folder.
//!
//! `<checkpoints>/<job>/requests/<id>.ask` holds the folder for the savepoint. The running job looks for such files a few
//! times a second, makes the savepoint, and answers with `<id>.done`; whoever asked removes both. A request without an
//! answer is answered by the next process that runs the job; one whose asker is gone does no harm.
//!
//! Invariant: every file appears whole (written aside, then renamed), and each side removes only what it has dealt with.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::runtime::JobControl;

const ASK: &str = ".ask";
const DONE: &str = ".done";

fn folder(job_folder: &Path) -> PathBuf {
    job_folder.join("requests")
}

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    savepoint: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    epoch: Option<u64>,
    error: Option<String>,
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::fatal("a request cannot be written").because(e))
}

/// The running job's side.
pub(super) struct Inbox {
    env: Env,
    folder: PathBuf,
    control: JobControl,
    /// Requests under way, by id: the savepoint's folder.
    open: BTreeMap<String, String>,
}

impl Inbox {
    pub(super) fn new(env: &Env, job_folder: &Path, control: JobControl) -> Self {
        Inbox { env: env.clone(), folder: folder(job_folder), control, open: BTreeMap::new() }
    }

    /// Takes up new requests and answers finished ones. Trouble with a file is trouble of whoever asked.
    pub(super) fn look(&mut self) {
        for name in self.env.files.list(&self.folder).unwrap_or_default() {
            let Some(id) = name.strip_suffix(ASK).filter(|id| !self.open.contains_key(*id)) else { continue };
            let ask = self.env.files.read(&self.folder.join(&name)).ok().and_then(|bytes| serde_json::from_slice::<Ask>(&bytes).ok());
            let Some(Ask { savepoint }) = ask else { continue };
            tracing::info!(path = savepoint, "a savepoint was asked for");
            self.control.savepoint(savepoint.as_str());
            self.open.insert(id.to_string(), savepoint);
        }
        let done: Vec<(String, Answer)> = self
            .open
            .iter()
            .filter_map(|(id, path)| {
                let (epoch, error) = match self.control.savepoint_outcome(path)? {
                    Ok(epoch) => (Some(epoch), None),
                    Err(why) => (None, Some(why)),
                };
                Some((id.clone(), Answer { epoch, error }))
            })
            .collect();
        for (id, answer) in done {
            self.open.remove(&id);
            let written = json(&answer).and_then(|bytes| Ok(self.env.files.replace(&self.folder.join(format!("{id}{DONE}")), &bytes)?));
            if let Err(e) = written.and_then(|()| Ok(self.env.files.remove(&self.folder.join(format!("{id}{ASK}")))?)) {
                tracing::warn!(error = %e, "a savepoint request cannot be answered");
            }
        }
    }
}

/// The asking side: waits for the answer; the savepoint's epoch.
///
/// # Errors
/// What the job answers, and a job that does not answer: `still_there` is asked once in a while whether it runs at all.
pub(super) fn ask(env: &Env, job_folder: &Path, savepoint: &str, still_there: impl Fn() -> bool) -> Result<u64> {
    let folder = folder(job_folder);
    let place = |e: std::io::Error| Error::from(e).at(format!("folder {}", folder.display()));
    env.files.create_dir_all(&folder).map_err(place)?;
    let id = env.fresh_id();
    let (request, answer) = (folder.join(format!("{id}{ASK}")), folder.join(format!("{id}{DONE}")));
    env.files.replace(&request, &json(&Ask { savepoint: savepoint.to_string() })?).map_err(place)?;
    let mut waited = Duration::ZERO;
    let nap = Duration::from_millis(50);
    loop {
        if let Ok(bytes) = env.files.read(&answer) {
            env.files.remove(&answer).map_err(place)?;
            let answer: Answer =
                serde_json::from_slice(&bytes).map_err(|e| Error::fatal("the job's answer is not understood").because(e))?;
            return match (answer.epoch, answer.error) {
                (Some(epoch), None) => Ok(epoch),
                (_, why) => Err(Error::fatal(why.unwrap_or_else(|| "the job gave no reason".into())).at(format!("savepoint {savepoint}"))),
            };
        }
        super::sleep(nap);
        waited += nap;
        if waited.as_millis().is_multiple_of(1_000) && !still_there() {
            // Best effort: the next run would make a savepoint that nobody waits for.
            let _ = env.files.remove(&request);
            return Err(Error::fatal("the job ended before it made the savepoint")
                .at(format!("savepoint {savepoint}"))
                .help("try again: from a job that does not run, the newest checkpoint is copied"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job that is not there: the asker sees it and takes the request back.
    #[test]
    fn nobody_waits_for_a_job_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let e = ask(&env, dir.path(), "there", || false).unwrap_err();
        assert!(e.report().contains("try again"), "{}", e.report());
        assert!(env.files.list(&folder(dir.path())).unwrap().is_empty());
    }

    #[test]
    fn a_request_is_taken_up_once_and_kept_until_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let requests = folder(dir.path());
        env.files.create_dir_all(&requests).unwrap();
        env.files.replace(&requests.join("x.ask"), &json(&Ask { savepoint: "there".into() }).unwrap()).unwrap();
        let mut inbox = Inbox::new(&env, dir.path(), JobControl::default());
        inbox.look();
        inbox.look();
        assert_eq!(inbox.open.len(), 1);
        assert_eq!(env.files.list(&requests).unwrap(), ["x.ask"]);
    }
}
