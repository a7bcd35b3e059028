//! How a job is run: flags, environment, file, what the job says itself, defaults, in this order.
//!
//! A setting comes from the first of these places that names it: the flag `--checkpoint-interval 5s`, the variable
//! `WATERWHEEL_CHECKPOINT_INTERVAL=5s`, the line `checkpoint-interval = "5s"` in the settings file (`--settings FILE`, or
//! `waterwheel.toml` in the present folder if it is there), the job itself ([`Program::defaults`](super::Program::defaults): of a SQL script its `SET`), the
//! default. What changes the fate of a job's state (`--from`,
//! `--fresh`, `--take-over`, ...) is a flag only: it is meant for one run, not for every restart to come.
//!
//! Invariant: a name that is not known is an error, wherever it stands; nothing is guessed.

use super::units::{Size, Span};
use clap::Args;
use serde::{Deserialize, Deserializer};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_connectors::topics::{OnLostOffsets, TopicsUrl};
use waterwheel_engine::checkpoint::{CheckpointStorage, LocalStorage, Places};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::runtime;

/// The file that is read when no other is named.
const FILE: &str = "waterwheel.toml";

/// What can stand in the file, in the environment and in flags.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(next_help_heading = "Settings (flag, else environment, else settings file, else default)")]
pub struct Options {
    /// Where topics are: local:FOLDER or kafka://HOST:PORT [default: local:./data]
    #[arg(long, global = true, env = "WATERWHEEL_TOPICS", hide_env_values = true, value_name = "URL")]
    #[serde(deserialize_with = "text")]
    pub topics: Option<TopicsUrl>,
    /// Folder of checkpoints, or s3://BUCKET/FOLDER; the job's own is below it [default: ./checkpoints]
    #[arg(long, global = true, env = "WATERWHEEL_CHECKPOINTS", value_name = "FOLDER")]
    pub checkpoints: Option<PathBuf>,
    /// Folder of working files, where checkpoints are elsewhere; any empty one will do [default: ./work]
    #[arg(long, global = true, env = "WATERWHEEL_WORK", value_name = "FOLDER")]
    pub work: Option<PathBuf>,
    /// Tasks per operator and worker threads [default: 1]
    #[arg(long, global = true, env = "WATERWHEEL_PARALLELISM", value_name = "N")]
    pub parallelism: Option<u32>,
    /// From one checkpoint to the next [default: 1s]
    #[arg(long, global = true, env = "WATERWHEEL_CHECKPOINT_INTERVAL", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub checkpoint_interval: Option<Span>,
    /// A checkpoint that takes longer has failed [default: 10m]
    #[arg(long, global = true, env = "WATERWHEEL_CHECKPOINT_TIMEOUT", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub checkpoint_timeout: Option<Span>,
    /// At least this long between two checkpoints [default: 0s]
    #[arg(long, global = true, env = "WATERWHEEL_CHECKPOINT_PAUSE", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub checkpoint_pause: Option<Span>,
    /// Checkpoints that are kept [default: 3]
    #[arg(long, global = true, env = "WATERWHEEL_CHECKPOINTS_RETAINED", value_name = "N")]
    pub checkpoints_retained: Option<usize>,
    /// Checkpoints that may fail in a row [default: 3]
    #[arg(long, global = true, env = "WATERWHEEL_CHECKPOINT_FAILURES", value_name = "N")]
    pub checkpoint_failures: Option<u32>,
    /// Memory for state, all tasks together; the rest is on disk [default: 256 MiB a task]
    #[arg(long, global = true, env = "WATERWHEEL_MEMORY", value_name = "SIZE")]
    #[serde(deserialize_with = "text")]
    pub memory: Option<Size>,
    /// Rows per batch at the sources; fewer give lower latency, more a little speed [default: 4096]
    #[arg(long, global = true, env = "WATERWHEEL_BATCH_ROWS", value_name = "N")]
    pub batch_rows: Option<usize>,
    /// Restarts after a failure within ten minutes before the job gives up [default: 10]
    #[arg(long, global = true, env = "WATERWHEEL_MAX_RESTARTS", value_name = "N")]
    pub max_restarts: Option<usize>,
    /// How long a broker or disk may be away before the job gives up [default: for ever]
    #[arg(long, global = true, env = "WATERWHEEL_OUTSIDE_DEADLINE", value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub outside_deadline: Option<Span>,
    /// When records to be read are gone (retention): fail, earliest or latest [default: fail]
    #[arg(long, global = true, env = "WATERWHEEL_ON_LOST_OFFSETS", value_name = "WHAT", value_parser = lost_offsets)]
    #[serde(deserialize_with = "lost_offsets_text")]
    pub on_lost_offsets: Option<OnLostOffsets>,
    /// Serves Prometheus metrics at http://ADDR/metrics, e.g. 127.0.0.1:9464 [default: off]
    #[arg(long, global = true, env = "WATERWHEEL_METRICS", value_name = "ADDR")]
    pub metrics: Option<std::net::SocketAddr>,
    /// The settings file [default: waterwheel.toml, if it is there]
    #[arg(long = "settings", global = true, env = "WATERWHEEL_SETTINGS", value_name = "FILE")]
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(d: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn lost_offsets(text: &str) -> Result<OnLostOffsets, String> {
    match text {
        "fail" => Ok(OnLostOffsets::Fail),
        "earliest" => Ok(OnLostOffsets::Earliest),
        "latest" => Ok(OnLostOffsets::Latest),
        _ => Err("it is fail, earliest or latest".into()),
    }
}

fn lost_offsets_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<OnLostOffsets>, D::Error> {
    lost_offsets(&String::deserialize(d)?).map(Some).map_err(serde::de::Error::custom)
}

impl Options {
    /// Fills in what the settings file says. Flags and environment are in `self` already.
    ///
    /// # Errors
    /// A file that was named and is not there, or says what nobody understands.
    pub fn with_file(self, env: &Env) -> Result<Options> {
        let (path, named) = match &self.file {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(FILE), false),
        };
        let bytes = match env.files.read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => return Ok(self),
            Err(e) => return Err(Error::fatal("the settings file cannot be read").because(e).at(path.display().to_string())),
        };
        Ok(self.or(parse(&path, &bytes)?))
    }

    pub(super) fn or(self, other: Options) -> Options {
        Options {
            topics: self.topics.or(other.topics),
            checkpoints: self.checkpoints.or(other.checkpoints),
            work: self.work.or(other.work),
            parallelism: self.parallelism.or(other.parallelism),
            checkpoint_interval: self.checkpoint_interval.or(other.checkpoint_interval),
            checkpoint_timeout: self.checkpoint_timeout.or(other.checkpoint_timeout),
            checkpoint_pause: self.checkpoint_pause.or(other.checkpoint_pause),
            checkpoints_retained: self.checkpoints_retained.or(other.checkpoints_retained),
            checkpoint_failures: self.checkpoint_failures.or(other.checkpoint_failures),
            memory: self.memory.or(other.memory),
            batch_rows: self.batch_rows.or(other.batch_rows),
            max_restarts: self.max_restarts.or(other.max_restarts),
            outside_deadline: self.outside_deadline.or(other.outside_deadline),
            on_lost_offsets: self.on_lost_offsets.or(other.on_lost_offsets),
            metrics: self.metrics.or(other.metrics),
            file: self.file.or(other.file),
        }
    }

    /// As settings, with defaults for what nobody named.
    ///
    /// # Errors
    /// Values that cannot be.
    pub fn settings(&self) -> Result<JobSettings> {
        let mut settings = JobSettings::default();
        let Options { topics, checkpoints, parallelism, memory, on_lost_offsets, .. } = self.clone();
        settings.topics = topics.unwrap_or(settings.topics);
        settings.parallelism = parallelism.unwrap_or(settings.parallelism);
        settings.memory = memory.map(|size| size.0);
        settings.on_lost_offsets = on_lost_offsets.unwrap_or_default();
        let run = &mut settings.run;
        match checkpoints.as_ref().and_then(|place| place.to_str()).filter(|place| Places::is_url(place)) {
            Some(url) => {
                run.remote = Some(url.trim_end_matches('/').to_string());
                run.checkpoints = self.work.clone().unwrap_or_else(|| "./work".into());
            }
            None => run.checkpoints = checkpoints.unwrap_or(std::mem::take(&mut run.checkpoints)),
        }
        run.workers = settings.parallelism as usize;
        run.batch_rows = self.batch_rows.unwrap_or(run.batch_rows);
        run.max_restarts = self.max_restarts.unwrap_or(run.max_restarts);
        run.transient_deadline = self.outside_deadline.map(|span| span.0);
        let span = |given: Option<Span>, default: Duration| given.map_or(default, |s| s.0);
        let c = &mut run.checkpoint;
        c.interval = span(self.checkpoint_interval, c.interval);
        c.timeout = span(self.checkpoint_timeout, c.timeout);
        c.min_pause = span(self.checkpoint_pause, c.min_pause);
        c.retained = self.checkpoints_retained.unwrap_or(c.retained);
        c.tolerated_failures = self.checkpoint_failures.unwrap_or(c.tolerated_failures);
        let wrong = |name: &str, why: &str| Err(Error::fatal(format!("{name} {why}")).help("see run --help"));
        match () {
            () if settings.parallelism == 0 => wrong("parallelism", "is at least 1"),
            () if settings.run.batch_rows == 0 => wrong("batch-rows", "is at least 1"),
            () if settings.run.checkpoint.retained == 0 => wrong("checkpoints-retained", "is at least 1"),
            () if settings.run.checkpoint.interval.is_zero() => wrong("checkpoint-interval", "is longer than nothing"),
            () => Ok(settings),
        }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Options> {
    let wrong = |why: String| Error::fatal(format!("the settings file is not understood: {why}")).at(path.display().to_string());
    let text = std::str::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    // The parser's picture of the line would show values, which may be secrets; its message names the key and the cause.
    toml::from_str(text).map_err(|e: toml::de::Error| {
        let line = e.span().map_or(String::new(), |span| format!(" (line {})", text[..span.start.min(text.len())].lines().count().max(1)));
        wrong(format!("{}{line}", e.message())).help("names and values are those of the flags: see run --help")
    })
}

/// How a job is run, complete.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Where topics are.
    pub topics: TopicsUrl,
    /// Tasks per operator; worker threads.
    pub parallelism: u32,
    /// End by itself when everything is worked off that the topics hold at the start.
    pub until_end: bool,
    /// For sources that say nothing else.
    pub on_lost_offsets: OnLostOffsets,
    /// Bytes of state in memory, all tasks together; `None` = the runtime's default per task.
    pub memory: Option<u64>,
    /// What the runtime is told.
    pub run: runtime::Settings,
}

impl Default for JobSettings {
    /// Topics in `./data`, checkpoints in `./checkpoints`, one task.
    fn default() -> Self {
        JobSettings {
            topics: TopicsUrl::Local("./data".into()),
            parallelism: 1,
            until_end: false,
            on_lost_offsets: OnLostOffsets::Fail,
            memory: None,
            run: runtime::Settings { checkpoints: "./checkpoints".into(), places: places(), ..runtime::Settings::default() },
        }
    }
}

/// Where this program can keep state.
fn places() -> Places {
    #[cfg(feature = "s3")]
    return Places::with(std::sync::Arc::new(waterwheel_connectors::s3::S3Stores));
    #[cfg(not(feature = "s3"))]
    Places::default()
}

impl JobSettings {
    /// Topics and checkpoints there, all else by default.
    pub fn at(topics: TopicsUrl, checkpoints: impl Into<PathBuf>) -> Self {
        let mut settings = JobSettings { topics, ..JobSettings::default() };
        settings.run.checkpoints = checkpoints.into();
        settings
    }

    /// Opens the checkpoint store of a job; in a folder, it must be there.
    ///
    /// # Errors
    /// Of the place.
    pub(crate) fn storage(&self, env: &Env, job: &str) -> Result<Arc<dyn CheckpointStorage>> {
        match &self.run.remote {
            Some(url) => self.run.places.existing(env, &format!("{url}/{job}")),
            None => Ok(Arc::new(LocalStorage::open(env, &self.run.checkpoints.join(job), &[])?)),
        }
    }

    /// Where the state of a job is, for messages.
    pub(crate) fn state_place(&self, job: &str) -> String {
        match &self.run.remote {
            Some(url) => format!("{url}/{job}"),
            None => self.run.checkpoints.join(job).display().to_string(),
        }
    }

    /// So many tasks per operator, on as many threads.
    #[must_use]
    pub fn parallelism(mut self, tasks: u32) -> Self {
        self.parallelism = tasks;
        self.run.workers = tasks as usize;
        self
    }

    /// Ends by itself.
    #[must_use]
    pub fn until_end(mut self) -> Self {
        self.until_end = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Options> {
        parse(Path::new("waterwheel.toml"), text.as_bytes())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let said = file("topics = \"kafka://a\"\nparallelism = 4\ncheckpoint-interval = \"5s\"\non-lost-offsets = \"latest\"").unwrap();
        let flags = Options { parallelism: Some(2), ..Options::default() };
        let settings = flags.or(said).settings().unwrap();
        assert_eq!((settings.parallelism, settings.run.workers), (2, 2));
        assert_eq!(settings.topics.to_string(), "kafka://a:9092");
        assert_eq!(settings.run.checkpoint.interval, Duration::from_secs(5));
        assert_eq!(settings.on_lost_offsets, OnLostOffsets::Latest);
        assert_eq!(settings.run.checkpoint.retained, 3);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name_and_line() {
        let report = |text: &str| file(text).unwrap_err().report();
        assert!(report("parallelism = 1\ncheckpiont-interval = \"5s\"").contains("checkpiont-interval"));
        assert!(report("parallelism = 1\ncheckpoint-interval = \"5\"").contains("(line 2)"));
        assert!(!report("topics = \"kafka//a?sasl.password=hunter2\"").contains("hunter2"));
        assert!(report("fresh = true").contains("fresh"));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for text in ["parallelism = 0", "batch-rows = 0", "checkpoints-retained = 0", "checkpoint-interval = \"0s\""] {
            assert!(file(text).unwrap().settings().is_err(), "{text}");
        }
    }
}
