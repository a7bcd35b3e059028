//! The embedded log: topics in a folder, shared by any number of processes, exactly once without a server.
//!
//! # Layout
//! ```text
//! data/log/e-<seq>                  one commit each: dense numbers, put-if-absent, never changed
//! data/log/c-<k>                    commits k*1024 .. (k+1)*1024 folded into one file, with the state before them
//! data/topics/<name>-<id>/<session>-<n>.log   frames of records, written by one session only
//! data/groups/<group>/...           offsets for lag tools
//! ```
//! Nothing is locked and no file has two writers. A writing **session** (one producer, or one attempt of a publish lane)
//! appends frames to files of its own. Such bytes mean nothing until a **commit** names them: topic, partition, first offset,
//! file, range. The commits are the only truth: which topics exist, which ranges make up a partition and in which order, which
//! session owns a lane, and the lane's marker.
//!
//! # Protocol
//! To commit: read all commits up to the end `n`; decide on that state; make the data files durable; write the commit under a
//! temporary name, make it durable; give it the name `e-n` by an exclusive link; make the folder durable. If the name is taken,
//! read on and decide again. Before linking `e-n` a session makes the folder durable if `e-(n-1)` was another's, so a commit is
//! durable before the next one exists. Readers use a commit when it is durable: a later one exists, or they synced the folder.
//! * `fence` commits "lane L belongs to generation g+1". `publish` commits records and marker together, and only on a state
//!   where the lane is still at its own generation.
//!
//! # Why it holds
//! * *Atomic*: a transaction over any number of partitions and topics is one link. Killed before it: the bytes are never named.
//!   Killed after it: all of it is there, with its marker. There is no third state, hence no recovery and no rollback.
//! * *Dense offsets, one order*: commits are totally ordered by their numbers; first offsets are computed from the state of all
//!   earlier ones and checked again by every reader.
//! * *Zombies*: a stopped process that wakes up has decided on a state that ends at `n`. If its lane was fenced meanwhile,
//!   `e-n` exists, the link fails, it reads the fence and stops. It holds no lock, so nobody had to wait for it.
//! * *Folding* takes names away again, and a sleeper could then link a name that was used before: a void commit. So `c-k` is
//!   durable before any `e-` of it is removed, and whoever has read or linked an `e-` looks for its `c-` afterwards: if that
//!   is there, it rules. Folding is a pure function of the commits: two folders write the same bytes.
//! * *Power loss*: everything named by a commit was durable before its link, and no reader acts on a commit that could vanish.
//! * *Damage*: commits and frames carry checksums; a bad one, or a hole in the numbers, stops the reader with file and place.
//!
//! Invariant: what a reader has shown stays, at the same offset, whatever process or machine fails afterwards.

mod appender;
mod book;
#[cfg(test)]
mod crash;
mod direct;
mod entry;
mod frame;
mod groups;
mod history;
mod publisher;
mod reader;
mod sink;
mod source;
mod view;

use crate::topics::{PartitionInfo, SinkOptions, SourceOptions, TopicConfig, TopicInfo, Topics, check_topic_name, no_such_topic};
use appender::Session;
use book::TopicState;
use entry::Entry;
use history::History;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Sink, Source};
use waterwheel_engine::record::RawBatch;

/// Largest record where the topic says nothing: Kafka's usual limit, so that a job runs the same on either.
const DEFAULT_MAX_RECORD_BYTES: u64 = 1_048_576;

/// Where a log lives; cheap to clone.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) env: Env,
    pub(crate) root: PathBuf,
}

impl Place {
    fn url(&self) -> String {
        format!("local:{}", self.root.display())
    }

    fn history(&self) -> History {
        History::new(self.env.clone(), &self.root)
    }
}

/// The embedded log in one folder.
///
/// ```
/// use waterwheel_connectors::local::LocalTopics;
/// use waterwheel_connectors::topics::{TopicConfig, Topics};
/// use waterwheel_engine::env::Env;
/// let dir = tempfile::tempdir().unwrap();
/// let topics = LocalTopics::new(Env::real(), dir.path().join("data"));
/// topics.create("payments", &TopicConfig::partitions(4)).unwrap();
/// assert_eq!(topics.list().unwrap(), ["payments"]);
/// ```
pub struct LocalTopics {
    place: Place,
    /// For `produce` and the like; made on first use, thrown away after any error.
    session: Mutex<Option<Session>>,
}

impl LocalTopics {
    /// The log in `root`, which need not exist yet. Touches nothing.
    pub fn new(env: Env, root: PathBuf) -> Self {
        LocalTopics { place: Place { env, root }, session: Mutex::new(None) }
    }

    fn with_session<T>(&self, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let mut held = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut session = match held.take() {
            Some(session) => session,
            None => Session::open(&self.place)?,
        };
        session.view.catch_up()?;
        let result = work(&mut session);
        if result.is_ok() {
            *held = Some(session);
        }
        result.map_err(|e| e.at(self.place.url()))
    }

    fn refuse_bad_config(&self, topic: &str, config: &TopicConfig) -> Result<()> {
        check_topic_name(topic)?;
        if !(1..=10_000).contains(&config.partitions) {
            return Err(Error::fatal(format!("topic {topic} cannot have {} partitions", config.partitions)).help("choose 1 to 10000"));
        }
        match config.settings.keys().next() {
            Some(name) => Err(Error::fatal(format!("the embedded log knows no topic setting {name}"))
                .help("leave it out; the embedded log keeps all records")),
            None => Ok(()),
        }
    }
}

impl Topics for LocalTopics {
    fn place(&self) -> String {
        self.place.url()
    }

    fn create(&self, topic: &str, config: &TopicConfig) -> Result<()> {
        self.refuse_bad_config(topic, config)?;
        let id = self.place.env.fresh_id();
        self.with_session(|session| {
            session.view.commit(|book| match book.topics.contains_key(topic) {
                true => Err(Error::fatal(format!("topic {topic} exists already"))),
                false => Ok(Entry::Create { topic: topic.into(), id: id.clone(), config: config.clone() }),
            })
        })
    }

    fn list(&self) -> Result<Vec<String>> {
        self.with_session(|session| Ok(session.view.book().topics.keys().cloned().collect()))
    }

    fn describe(&self, topic: &str) -> Result<TopicInfo> {
        self.with_session(|session| {
            let state = session.view.book().topics.get(topic).ok_or_else(|| no_such_topic(topic, &self.place.url()))?;
            Ok(TopicInfo {
                name: topic.into(),
                id: state.id.clone(),
                partitions: state.ends.iter().map(|&end| PartitionInfo { start: 0, end }).collect(),
                compacted: state.config.compacted,
                max_record_bytes: max_record_bytes(state),
            })
        })
    }

    fn delete(&self, topic: &str) -> Result<()> {
        self.with_session(|session| {
            let mut gone = String::new();
            session.view.commit(|book| {
                let state = book.topics.get(topic).ok_or_else(|| no_such_topic(topic, &self.place.url()))?;
                gone.clone_from(&state.id);
                Ok(Entry::Delete { topic: topic.into(), id: state.id.clone() })
            })?;
            session.appender.remove_topic(topic, &gone)
        })
    }

    fn produce(&self, records: &RawBatch) -> Result<()> {
        self.with_session(|session| session.produce(records))
    }

    fn source(&self, options: SourceOptions) -> Result<Arc<dyn Source>> {
        options.check()?;
        Ok(Arc::new(source::LocalSource::new(self.place.clone(), options)))
    }

    fn sink(&self, options: SinkOptions) -> Result<Arc<dyn Sink>> {
        options.check()?;
        Ok(Arc::new(sink::LocalSink::new(self.place.clone(), options)))
    }
}

fn max_record_bytes(state: &TopicState) -> u64 {
    state.config.max_record_bytes.unwrap_or(DEFAULT_MAX_RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[test]
    fn the_embedded_log_does_what_every_place_must() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let topics = LocalTopics::new(env.clone(), dir.path().join("data"));
        conformance::check(&topics, &env, &dir.path().join("staging"));
    }
}
