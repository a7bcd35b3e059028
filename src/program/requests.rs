//! How `savepoint create` and `explain --analyze` ask a job that runs in another process: files in the job's folder.
//!
//! `<checkpoints>/<job>/requests/<id>.ask` says what is asked for. The running job looks for such files a few times a second,
//! does it, and answers with `<id>.done`; whoever asked removes that. A request without an answer is answered by the next
//! process that runs the job; one whose asker is gone does no harm.
//!
//! Invariant: every file appears whole (written aside, then renamed), and each side removes only what it has dealt with.

use super::analyze;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::observe::Metrics;
use waterwheel_engine::runtime::JobControl;

const ASK: &str = ".ask";
const DONE: &str = ".done";

fn folder(job_folder: &Path) -> PathBuf {
    job_folder.join("requests")
}

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ask {
    /// A savepoint in this folder.
    Savepoint(String),
    /// What the metrics say.
    Numbers,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// The savepoint's epoch.
    Epoch(u64),
    Numbers(Numbers),
    Failed(String),
}

/// By operator and metric.
type Numbers = BTreeMap<String, BTreeMap<String, u64>>;

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::fatal("a request cannot be written").because(e))
}

/// The running job's side.
pub(super) struct Inbox {
    env: Env,
    folder: PathBuf,
    control: JobControl,
    metrics: Metrics,
    /// Requests for savepoints under way, by id: the savepoint's folder.
    open: BTreeMap<String, String>,
}

impl Inbox {
    pub(super) fn new(env: &Env, job_folder: &Path, control: JobControl, metrics: Metrics) -> Self {
        Inbox { env: env.clone(), folder: folder(job_folder), control, metrics, open: BTreeMap::new() }
    }

    /// Takes up new requests and answers finished ones. Trouble with a file is trouble of whoever asked.
    pub(super) fn look(&mut self) {
        for name in self.env.files.list(&self.folder).unwrap_or_default() {
            let Some(id) = name.strip_suffix(ASK).filter(|id| !self.open.contains_key(*id)) else { continue };
            let ask = self.env.files.read(&self.folder.join(&name)).ok().and_then(|bytes| serde_json::from_slice::<Ask>(&bytes).ok());
            match ask {
                Some(Ask::Savepoint(path)) => {
                    tracing::info!(path, "a savepoint was asked for");
                    self.control.savepoint(path.as_str());
                    self.open.insert(id.to_string(), path);
                }
                Some(Ask::Numbers) => self.answer(id, &Answer::Numbers(analyze::numbers(&self.metrics))),
                None => {}
            }
        }
        let done: Vec<(String, Answer)> = self
            .open
            .iter()
            .filter_map(|(id, path)| {
                let outcome = self.control.savepoint_outcome(path)?;
                Some((id.clone(), outcome.map_or_else(Answer::Failed, Answer::Epoch)))
            })
            .collect();
        for (id, answer) in done {
            self.open.remove(&id);
            self.answer(&id, &answer);
        }
    }

    fn answer(&self, id: &str, answer: &Answer) {
        let written = json(answer).and_then(|bytes| Ok(self.env.files.replace(&self.folder.join(format!("{id}{DONE}")), &bytes)?));
        if let Err(e) = written.and_then(|()| Ok(self.env.files.remove(&self.folder.join(format!("{id}{ASK}")))?)) {
            tracing::warn!(error = %e, "a request cannot be answered");
        }
    }
}

/// Asks for a savepoint and waits for it; its epoch.
///
/// # Errors
/// What the job answers, and a job that does not answer: `still_there` is asked once in a while whether it runs at all.
pub(super) fn savepoint(env: &Env, job_folder: &Path, path: &str, still_there: impl Fn() -> bool) -> Result<u64> {
    match ask(env, job_folder, &Ask::Savepoint(path.to_string()), still_there).map_err(|e| e.at(format!("savepoint {path}")))? {
        Answer::Epoch(epoch) => Ok(epoch),
        Answer::Failed(why) => Err(Error::fatal(why).at(format!("savepoint {path}"))),
        Answer::Numbers(_) => Err(Error::fatal("the job answers another question")),
    }
}

/// Asks for what the metrics of the running job say.
///
/// # Errors
/// As [`savepoint`].
pub(super) fn numbers(env: &Env, job_folder: &Path, still_there: impl Fn() -> bool) -> Result<Numbers> {
    match ask(env, job_folder, &Ask::Numbers, still_there)? {
        Answer::Numbers(numbers) => Ok(numbers),
        Answer::Failed(why) => Err(Error::fatal(why)),
        Answer::Epoch(_) => Err(Error::fatal("the job answers another question")),
    }
}

/// The asking side: waits for the answer.
fn ask(env: &Env, job_folder: &Path, ask: &Ask, still_there: impl Fn() -> bool) -> Result<Answer> {
    let folder = folder(job_folder);
    let place = |e: std::io::Error| Error::from(e).at(format!("folder {}", folder.display()));
    env.files.create_dir_all(&folder).map_err(place)?;
    let id = env.fresh_id();
    let (request, answer) = (folder.join(format!("{id}{ASK}")), folder.join(format!("{id}{DONE}")));
    env.files.replace(&request, &json(ask)?).map_err(place)?;
    let mut waited = Duration::ZERO;
    let nap = Duration::from_millis(50);
    loop {
        if let Ok(bytes) = env.files.read(&answer) {
            env.files.remove(&answer).map_err(place)?;
            return serde_json::from_slice(&bytes).map_err(|e| Error::fatal("the job's answer is not understood").because(e));
        }
        super::sleep(nap);
        waited += nap;
        if waited.as_millis().is_multiple_of(1_000) && !still_there() {
            // Best effort: the next run would answer what nobody waits for.
            let _ = env.files.remove(&request);
            return Err(Error::fatal("the job ended before it answered")
                .help("try again: from a job that does not run, a savepoint is a copy of the newest checkpoint"));
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
        let e = savepoint(&env, dir.path(), "there", || false).unwrap_err();
        assert!(e.report().contains("try again"), "{}", e.report());
        assert!(env.files.list(&folder(dir.path())).unwrap().is_empty());
    }

    #[test]
    fn a_request_is_taken_up_once_and_kept_until_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let requests = folder(dir.path());
        env.files.create_dir_all(&requests).unwrap();
        env.files.replace(&requests.join("x.ask"), &json(&Ask::Savepoint("there".into())).unwrap()).unwrap();
        let mut inbox = Inbox::new(&env, dir.path(), JobControl::default(), Metrics::default());
        inbox.look();
        inbox.look();
        assert_eq!(inbox.open.len(), 1);
        assert_eq!(env.files.list(&requests).unwrap(), ["x.ask"]);
    }

    #[test]
    fn numbers_are_answered_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let metrics = Metrics::default();
        metrics.counter("rows_out", "count", 0).add(3);
        metrics.counter("rows_out", "count", 1).add(4);
        let mut inbox = Inbox::new(&env, dir.path(), JobControl::default(), metrics);
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| numbers(&env, dir.path(), || true).unwrap());
            while !asking.is_finished() {
                inbox.look();
            }
            asking.join().unwrap()
        });
        assert_eq!(asked["count"]["rows_out"], 7);
        assert!(env.files.list(&folder(dir.path())).unwrap().is_empty());
    }
}
