//! The verbs `savepoint create`, `savepoint list` and `savepoint inspect`.
//!
//! Invariant: these only read what a job has stored, and write nowhere but into the savepoint's folder. A running job makes
//! its savepoints itself, between two epochs.

use super::requests;
use super::settings::JobSettings;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use waterwheel_engine::checkpoint::{CheckpointStorage, JobHistory, JobLock, JobLog, LocalStorage, Manifest, load_manifest, savepoint};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::observe::{human_bytes, human_duration};

/// A job's folder, opened for reading.
struct Stored {
    folder: PathBuf,
    storage: Arc<dyn CheckpointStorage>,
    history: JobHistory,
}

fn stored(env: &Env, name: &str, settings: &JobSettings) -> Result<Stored> {
    let folder = settings.run.checkpoints.join(name);
    let nothing = || {
        Error::fatal(format!("job {name} has no state here"))
            .at(format!("folder {}", folder.display()))
            .help("name the folder of its checkpoints: --checkpoints <folder>")
    };
    if !env.files.exists(&folder.join("log")) {
        return Err(nothing());
    }
    let storage: Arc<dyn CheckpointStorage> = Arc::new(LocalStorage::open(env, &folder, &[])?);
    // Read only: nothing is ever appended under this name.
    let history = JobLog::open(env, storage.clone(), "reader")?.history().cloned().ok_or_else(nothing)?;
    Ok(Stored { folder, storage, history })
}

/// The newest complete checkpoint of a job, if it has one.
///
/// # Errors
/// A job without state, or with damaged state.
pub fn newest_checkpoint(env: &Env, name: &str, settings: &JobSettings) -> Result<Option<Manifest>> {
    let stored = stored(env, name, settings)?;
    stored.history.newest().map(|checkpoint| load_manifest(&*stored.storage, checkpoint)).transpose()
}

/// Makes a savepoint of a running job, or of the newest checkpoint of one that does not run; its epoch.
///
/// # Errors
/// No state, a folder that holds another savepoint, and what the running job answers.
pub fn create_savepoint(env: &Env, name: &str, settings: &JobSettings, path: &Path) -> Result<u64> {
    let folder = settings.run.checkpoints.join(name);
    // The running job may have another present folder.
    let path = std::path::absolute(path).map_err(|e| Error::fatal(format!("{} is no folder", path.display())).because(e))?;
    let stored_now = stored(env, name, settings)?;
    let lock = || JobLock::acquire(env, &folder, name, std::process::id(), false);
    let Ok(_lock) = lock() else {
        drop(stored_now);
        return requests::ask(env, &folder, &path.to_string_lossy(), || lock().is_err());
    };
    let Stored { folder, storage, history } = stored(env, name, settings)?;
    let checkpoint = history.newest().ok_or_else(|| {
        Error::fatal(format!("job {name} has no complete checkpoint yet")).help("let it run until its first checkpoint is complete")
    })?;
    let manifest = load_manifest(&*storage, checkpoint)?;
    if manifest.segments().next().is_some() && unpublished(&manifest, &history) {
        return Err(Error::fatal("the newest checkpoint has output that is not published yet")
            .at(format!("job {name}, checkpoint {}", manifest.epoch))
            .help("run the job until it stops gracefully, or make the savepoint while it runs"));
    }
    let to = LocalStorage::open(env, &path, &savepoint::FOLDERS)?;
    let scratch = folder.join("tmp").join(format!("savepoint-{}", env.fresh_id()));
    savepoint::create(env, &*storage, &manifest, &to, &scratch)?;
    Ok(manifest.epoch)
}

/// Whether a lane has segments that the log does not know to be out.
fn unpublished(manifest: &Manifest, history: &JobHistory) -> bool {
    manifest.segments().any(|s| {
        let known = history.published.iter().find(|p| p.lane == s.lane() && p.lineage == manifest.lineage);
        known.is_none_or(|p| p.epoch < s.segment.epoch)
    })
}

/// One retained checkpoint, as `savepoint list` shows it.
#[derive(Debug, Serialize)]
struct Listed {
    epoch: u64,
    kind: String,
    lineage: String,
    bytes: u64,
    wall_ms: i64,
    savepoint: Option<String>,
}

/// Prints the checkpoints that are retained, newest first, and the savepoints they were made for.
pub(super) fn list(env: &Env, name: &str, settings: &JobSettings, json: bool) -> Result<()> {
    let Stored { storage, history, folder } = stored(env, name, settings)?;
    let mut all = Vec::new();
    for checkpoint in history.retained.iter().rev() {
        let manifest = load_manifest(&*storage, checkpoint)?;
        all.push(Listed {
            epoch: checkpoint.epoch,
            kind: format!("{:?}", checkpoint.kind).to_lowercase(),
            lineage: checkpoint.lineage.clone(),
            bytes: manifest.files().map(|f| f.state.len).sum(),
            wall_ms: manifest.wall_ms,
            savepoint: checkpoint.savepoint.clone(),
        });
    }
    if json {
        return print_json(&all);
    }
    println!("{name} in {}: {} retained", folder.display(), all.len());
    let now = env.clock.wall_ms();
    for c in &all {
        let age = human_duration(std::time::Duration::from_secs((now - c.wall_ms).max(0) as u64 / 1_000));
        let made_for = c.savepoint.as_ref().map_or(String::new(), |path| format!("  savepoint {path}"));
        println!("  #{:<8} {:10} {:>8}  {age} ago{made_for}", c.epoch, c.kind, human_bytes(c.bytes));
    }
    Ok(())
}

/// Prints what a savepoint holds.
pub(super) fn inspect(env: &Env, path: &Path, json: bool) -> Result<()> {
    if !env.files.exists(path) {
        return Err(Error::fatal(format!("there is no folder {}", path.display())));
    }
    let (manifest, _) = savepoint::open(&LocalStorage::open(env, path, &[])?)?;
    if json {
        return print_json(&manifest);
    }
    let bytes: u64 = manifest.files().map(|f| f.state.len).sum();
    println!(
        "savepoint of job {}, epoch {}, {}, {} key groups",
        manifest.job,
        manifest.epoch,
        human_bytes(bytes),
        manifest.max_parallelism
    );
    for operator in &manifest.plan.operators {
        let tables: Vec<&str> = operator.tables.iter().map(|t| t.name.as_str()).collect();
        let tables = if tables.is_empty() { String::new() } else { format!("  state {}", tables.join(", ")) };
        println!("  {:32} {} tasks{tables}", operator.id.to_string(), operator.parallelism);
    }
    for split in manifest.tasks.iter().flat_map(|t| &t.operators).flat_map(|o| &o.splits) {
        println!("  {:32} next {}", split.split.id.to_string(), split.position);
    }
    Ok(())
}

pub(super) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::fatal("cannot be written as JSON").because(e))?;
    println!("{text}");
    Ok(())
}
