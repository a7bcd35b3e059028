//! The verbs of `savepoint`: create, list, inspect, read, delete, usage. A job's program has them, and so has `waterwheel`.
//!
//! Invariant: these only read what a job has stored, and write nowhere but into the savepoint's folder. A running job makes
//! its savepoints itself, between two epochs.

use super::requests;
use super::settings::JobSettings;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "parquet")]
use waterwheel_connectors::files::parquet::StateFile;
use waterwheel_engine::checkpoint::{
    CheckpointStorage, JOB_FOLDERS, JobHistory, JobLock, JobLog, Manifest, Places, Start, load_manifest, read_state, savepoint,
};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::observe::{human_bytes, human_duration};
use waterwheel_engine::state::{RocksSettings, ShownEntry, TieredStores};

/// What can be done with savepoints.
#[derive(Debug, Subcommand)]
pub enum SavepointVerb {
    /// Make one: by the running job, else from the newest checkpoint
    Create {
        /// An empty or new folder
        path: PathBuf,
    },
    /// List the checkpoints that are kept, and the savepoints they were made for
    List,
    /// Say what a savepoint holds
    Inspect {
        /// Its folder
        path: PathBuf,
    },
    /// Print keyed state, an entry a line as JSON, or write it into a Parquet file
    Read(ReadArgs),
    /// Delete a savepoint
    Delete {
        /// Its folder
        path: PathBuf,
    },
    /// Say what the job's folder takes on disk
    Usage,
}

/// What is read.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// A savepoint's folder [default: the job's newest checkpoint]
    path: Option<PathBuf>,
    /// Only this operator's state
    #[arg(long, value_name = "ID")]
    operator: Option<String>,
    /// Only this table
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Into a Parquet file instead, an entry a row
    #[arg(long, value_name = "FILE")]
    parquet: Option<PathBuf>,
}

impl ReadArgs {
    /// Whether a savepoint's folder is named; else the job's newest checkpoint is meant.
    pub fn names_a_savepoint(&self) -> bool {
        self.path.is_some()
    }
}

/// Does what a verb says, for the job `name` in the folder of checkpoints that the settings name.
///
/// # Errors
/// Of the verb.
pub fn savepoint_verb(env: &Env, name: &str, settings: &JobSettings, verb: &SavepointVerb, json: bool) -> Result<()> {
    match verb {
        SavepointVerb::Create { path } => {
            let epoch = create_savepoint(env, name, settings, path)?;
            println!("savepoint of {name}, epoch {epoch}, in {}", path.display());
            println!("  go on from it:  run --from {}", path.display());
            Ok(())
        }
        SavepointVerb::List => list(env, name, settings, json),
        SavepointVerb::Inspect { path } => inspect(env, settings, path, json),
        SavepointVerb::Read(args) => read(env, name, settings, args),
        SavepointVerb::Delete { path } => delete(env, name, settings, path),
        SavepointVerb::Usage => usage(env, name, settings, json),
    }
}

fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(Places::is_url)
}

/// The store of a savepoint that is there.
fn existing(env: &Env, settings: &JobSettings, path: &Path) -> Result<Arc<dyn CheckpointStorage>> {
    settings.run.places.existing(env, &path.to_string_lossy())
}

/// A job's folder, opened for reading.
pub(crate) struct Stored {
    folder: PathBuf,
    pub(crate) storage: Arc<dyn CheckpointStorage>,
    pub(crate) history: JobHistory,
}

pub(crate) fn stored(env: &Env, name: &str, settings: &JobSettings) -> Result<Stored> {
    let folder = settings.run.checkpoints.join(name);
    let nothing = || {
        Error::fatal(format!("job {name} has no state here"))
            .at(format!("folder {}", settings.state_place(name)))
            .help("name the folder of its checkpoints: --checkpoints <folder>")
    };
    if settings.run.remote.is_none() && !env.files.exists(&folder.join("log"))? {
        return Err(nothing());
    }
    let storage = settings.storage(env, name)?;
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
    let path = match is_url(path) {
        true => path.to_path_buf(),
        false => std::path::absolute(path).map_err(|e| Error::fatal(format!("{} is no folder", path.display())).because(e))?,
    };
    let stored_now = stored(env, name, settings)?;
    let lock = || JobLock::acquire(env, &folder, name, std::process::id(), false);
    let Ok(_lock) = lock() else {
        drop(stored_now);
        return requests::savepoint(env, &folder, &path.to_string_lossy(), || lock().is_err());
    };
    let Stored { folder, storage, history } = stored(env, name, settings)?;
    let checkpoint = history.newest().ok_or_else(|| {
        Error::fatal(format!("job {name} has no complete checkpoint yet")).help("let it run until its first checkpoint is complete")
    })?;
    let manifest = load_manifest(&*storage, checkpoint)?;
    if !is_published(&manifest, &history) {
        return Err(Error::fatal("the newest checkpoint has output that is not published yet")
            .at(format!("job {name}, checkpoint {}", manifest.epoch))
            .help("run the job until it stops gracefully, or make the savepoint while it runs"));
    }
    let to = settings.run.places.open(env, &path.to_string_lossy(), &savepoint::FOLDERS)?;
    let scratch = folder.join("tmp").join(format!("savepoint-{}", env.fresh_id()));
    savepoint::create(env, &*storage, &manifest, &*to, &scratch)?;
    Ok(manifest.epoch)
}

/// What the metrics of the job that runs now say of its operators.
///
/// # Errors
/// It does not run.
pub(super) fn running_numbers(env: &Env, name: &str, settings: &JobSettings) -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
    let folder = settings.run.checkpoints.join(name);
    drop(stored(env, name, settings)?);
    let is_running = || JobLock::acquire(env, &folder, name, std::process::id(), false).is_err();
    if !is_running() {
        return Err(Error::fatal(format!("job {name} does not run now"))
            .at(format!("folder {}", settings.state_place(name)))
            .help("run it, and ask again from another terminal; what it will do says explain without --analyze"));
    }
    requests::numbers(env, &folder, is_running)
}

/// Whether the log knows all output of a checkpoint to be out.
pub(crate) fn is_published(manifest: &Manifest, history: &JobHistory) -> bool {
    manifest.segments().all(|s| {
        let known = history.published.iter().find(|p| p.lane == s.lane() && p.lineage == manifest.lineage);
        known.is_some_and(|p| p.epoch >= s.segment.epoch)
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
fn list(env: &Env, name: &str, settings: &JobSettings, json: bool) -> Result<()> {
    let Stored { storage, history, .. } = stored(env, name, settings)?;
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
    println!("{name} in {}: {} retained", settings.state_place(name), all.len());
    let now = env.clock.wall_ms();
    for c in &all {
        let age = human_duration(std::time::Duration::from_secs((now - c.wall_ms).max(0) as u64 / 1_000));
        let made_for = c.savepoint.as_ref().map_or(String::new(), |path| format!("  savepoint {path}"));
        println!("  #{:<8} {:10} {:>8}  {age} ago{made_for}", c.epoch, c.kind, human_bytes(c.bytes));
    }
    Ok(())
}

/// Prints what a savepoint holds.
fn inspect(env: &Env, settings: &JobSettings, path: &Path, json: bool) -> Result<()> {
    let (manifest, _) = savepoint::open(&*existing(env, settings, path)?)?;
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

/// One line of `savepoint read`.
#[derive(Serialize)]
struct Line<'a> {
    operator: &'a str,
    table: &'a str,
    #[serde(flatten)]
    entry: ShownEntry,
}

/// Prints keyed state, by operator and table of each task.
fn read(env: &Env, name: &str, settings: &JobSettings, args: &ReadArgs) -> Result<()> {
    let (manifest, storage): (Manifest, Arc<dyn CheckpointStorage>) = match &args.path {
        Some(path) => {
            let storage = existing(env, settings, path)?;
            (savepoint::open(&*storage)?.0, storage)
        }
        None => {
            let stored = stored(env, name, settings)?;
            let newest = stored.history.newest().ok_or_else(|| Error::fatal(format!("job {name} has no complete checkpoint yet")))?;
            (load_manifest(&*stored.storage, newest)?, stored.storage)
        }
    };
    let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    let known = manifest.plan.operators.iter().flat_map(|o| o.tables.iter().map(move |t| (o.id.as_str(), t.name.as_str())));
    let known: Vec<_> = known.collect();
    if !known.iter().any(|(operator, table)| is(&args.operator, operator) && is(&args.table, table)) {
        let known: Vec<_> = known.iter().map(|(operator, table)| format!("{operator}/{table}")).collect();
        return Err(Error::fatal("there is no such keyed state").help(format!("there are, as operator/table: {}", known.join(", "))));
    }
    let mut out = Out::open(env, args)?;
    // Small caches: everything is read once.
    let rocks = RocksSettings { cache_bytes: 16 << 20, write_buffer_bytes: 8 << 20, threads: 1 };
    let scratch = std::env::temp_dir().join(format!("waterwheel-read-{}", env.fresh_id()));
    let wanted =
        |operator: &waterwheel_engine::record::OperatorId, table: &str| is(&args.operator, operator.as_str()) && is(&args.table, table);
    read_state(env, &*storage, &manifest, &TieredStores::on_disk(env, rocks), &scratch, &wanted, &mut |operator, table, entry| {
        out.push(operator.as_str(), table, entry)
    })?;
    out.finish()
}

/// Where entries of state go.
enum Out {
    Lines(std::io::BufWriter<std::io::StdoutLock<'static>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<StateFile>, PathBuf),
}

impl Out {
    #[cfg_attr(not(feature = "parquet"), expect(unused_variables, reason = "only a file is made by the environment"))]
    fn open(env: &Env, args: &ReadArgs) -> Result<Out> {
        match &args.parquet {
            None => Ok(Out::Lines(std::io::BufWriter::new(std::io::stdout().lock()))),
            #[cfg(feature = "parquet")]
            Some(path) => Ok(Out::Parquet(Box::new(StateFile::create(env, path)?), path.clone())),
            #[cfg(not(feature = "parquet"))]
            Some(_) => Err(Error::fatal("this program writes no Parquet files").help(
                "build it with the feature `parquet` of `waterwheel`, or use the command:  waterwheel savepoint read --parquet <file>",
            )),
        }
    }

    fn push(&mut self, operator: &str, table: &str, entry: ShownEntry) -> Result<()> {
        match self {
            Out::Lines(out) => {
                serde_json::to_writer(&mut *out, &Line { operator, table, entry })
                    .map_err(|e| Error::fatal("an entry cannot be written").because(e))?;
                Ok(out.write_all(b"\n")?)
            }
            #[cfg(feature = "parquet")]
            Out::Parquet(file, _) => file.push(operator, table, &entry),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Out::Lines(mut out) => Ok(out.flush()?),
            #[cfg(feature = "parquet")]
            Out::Parquet(file, path) => {
                println!("{} entries in {}", file.finish()?, path.display());
                Ok(())
            }
        }
    }
}

/// Deletes a savepoint, unless the job has nothing else to go on from.
fn delete(env: &Env, name: &str, settings: &JobSettings, path: &Path) -> Result<()> {
    let storage = existing(env, settings, path)?;
    let (_, crc) = savepoint::open(&*storage)?;
    // Without a job's name there is none to ask.
    if !name.is_empty()
        && let Ok(stored) = stored(env, name, settings)
        && stored.history.newest().is_none()
        && matches!(&stored.history.start, Start::Savepoint { crc: started, .. } if *started == crc)
    {
        return Err(Error::fatal(format!("job {name} starts from this savepoint and has no checkpoint of its own yet"))
            .help("let it run until its first checkpoint is complete"));
    }
    let manifest = savepoint::delete(&*storage)?;
    let bytes: u64 = manifest.files().map(|f| f.state.len).sum();
    println!("deleted: savepoint of job {}, epoch {}, {}", manifest.job, manifest.epoch, human_bytes(bytes));
    Ok(())
}

/// What a job's folder takes on disk.
#[derive(Debug, Default, Serialize)]
struct Usage {
    /// Bytes by folder.
    folders: BTreeMap<&'static str, u64>,
    /// Of the state files: those that several retained checkpoints name.
    shared_state: u64,
    /// Of the state files: those that no retained checkpoint names; the next start of the job removes them.
    unnamed_state: u64,
    /// Everything.
    bytes: u64,
}

fn usage(env: &Env, name: &str, settings: &JobSettings, json: bool) -> Result<()> {
    let Stored { storage, history, .. } = stored(env, name, settings)?;
    let mut named: BTreeMap<String, u64> = BTreeMap::new();
    for checkpoint in &history.retained {
        for file in load_manifest(&*storage, checkpoint)?.files() {
            *named.entry(file.path.clone()).or_default() += 1;
        }
    }
    let mut usage = Usage::default();
    for part in JOB_FOLDERS {
        let mut sum = 0;
        for file in storage.list(part)? {
            let bytes = storage.size(&file)?.unwrap_or(0);
            sum += bytes;
            match named.get(&file) {
                Some(2..) => usage.shared_state += bytes,
                None if part == waterwheel_engine::checkpoint::layout::STATE => usage.unnamed_state += bytes,
                _ => {}
            }
        }
        usage.folders.insert(part, sum);
        usage.bytes += sum;
    }
    if json {
        return print_json(&usage);
    }
    println!("{name} in {}: {}", settings.state_place(name), human_bytes(usage.bytes));
    for (part, bytes) in &usage.folders {
        println!("  {part:10} {:>8}", human_bytes(*bytes));
    }
    println!(
        "  of the state {} are shared by checkpoints, {} are named by none",
        human_bytes(usage.shared_state),
        human_bytes(usage.unnamed_state)
    );
    Ok(())
}

pub(super) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::fatal("cannot be written as JSON").because(e))?;
    println!("{text}");
    Ok(())
}
