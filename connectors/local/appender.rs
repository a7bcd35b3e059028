//! A writing session: its own data files, and transactions of records over any number of partitions.
//!
//! Invariant: only this session writes its files. Bytes count only once a commit names them; before that they were synced.
//! After any error a file is left alone and the next bytes go to a new one, since nobody knows what the old one holds.

use super::Place;
use super::book::Book;
use super::entry::{Entry, Extent, LaneCommit};
use super::frame::Frames;
use super::view::View;
use crate::staging::{Partitioner, Placement, TopicFacts};
use crate::topics::no_such_topic;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use waterwheel_engine::env::{Env, FileWriter};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::{RawBatch, RawRecord};

/// A new file is begun when one has so many bytes.
const FILE_BYTES: u64 = 256 << 20;
/// Records held in memory before they go to a file.
const BUFFER_BYTES: usize = 32 << 20;

/// The folder of a topic.
pub(super) fn topic_dir(root: &Path, topic: &str, id: &str) -> PathBuf {
    root.join("topics").join(format!("{topic}-{id}"))
}

/// The data files of one session.
pub(super) struct Appender {
    env: Env,
    root: PathBuf,
    session: String,
    made: u64,
    /// By topic identity.
    open: BTreeMap<String, DataFile>,
}

struct DataFile {
    writer: Box<dyn FileWriter>,
    name: String,
    at: u64,
    synced: u64,
}

impl Appender {
    fn new(place: &Place) -> Self {
        let session = place.env.fresh_id();
        Appender { env: place.env.clone(), root: place.root.clone(), session, made: 0, open: BTreeMap::new() }
    }

    /// Appends bytes to the session's file of a topic; gives the file's name and where they begin.
    fn append(&mut self, topic: &str, id: &str, bytes: &[u8]) -> Result<(String, u64)> {
        let file = match self.open.remove(id).filter(|f| f.at < FILE_BYTES) {
            Some(file) => file,
            None => self.create(topic, id)?,
        };
        let DataFile { mut writer, name, at, synced } = file;
        writer.write_all(bytes).map_err(|e| Error::from(e).at(format!("{topic}: {name}")))?;
        self.open.insert(id.into(), DataFile { writer, name: name.clone(), at: at + bytes.len() as u64, synced });
        Ok((name, at))
    }

    fn create(&mut self, topic: &str, id: &str) -> Result<DataFile> {
        let dir = topic_dir(&self.root, topic, id);
        let name = format!("{}-{}.log", self.session, self.made);
        self.made += 1;
        let files = &self.env.files;
        let made = files.create_dir_all(&dir).and_then(|()| {
            let writer = files.create(&dir.join(&name))?;
            // The names on the way: file, topic folder, `topics`.
            files.sync_dir(&dir)?;
            files.sync_dir(&self.root.join("topics"))?;
            files.sync_dir(&self.root)?;
            Ok(writer)
        });
        let writer = made.map_err(|e| Error::from(e).at(dir.join(&name).display().to_string()))?;
        Ok(DataFile { writer, name, at: 0, synced: 0 })
    }

    /// Makes everything appended durable.
    fn sync(&mut self) -> Result<()> {
        for (id, mut file) in std::mem::take(&mut self.open) {
            if file.synced < file.at {
                file.writer.sync().map_err(|e| Error::from(e).at(file.name.clone()))?;
                file.synced = file.at;
            }
            self.open.insert(id, file);
        }
        Ok(())
    }

    /// Removes the files of a topic that no commit names any more.
    pub(super) fn remove_topic(&mut self, topic: &str, id: &str) -> Result<()> {
        self.open.remove(id);
        match self.env.files.remove_dir_all(&topic_dir(&self.root, topic, id)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).at(format!("files of topic {topic}"))),
            _ => Ok(()),
        }
    }
}

/// A view and the files of one writer.
pub(super) struct Session {
    place: Place,
    pub(super) view: View,
    pub(super) appender: Appender,
}

impl Session {
    pub(super) fn open(place: &Place) -> Result<Self> {
        let view = View::open(place.history()).map_err(|e| e.at(place.url()))?;
        Ok(Session { place: place.clone(), view, appender: Appender::new(place) })
    }

    /// Appends records in one commit; where the partition is -1 it is chosen.
    pub(super) fn produce(&mut self, records: &RawBatch) -> Result<()> {
        let mut placement = Placement::new(Box::new(BookFacts { book: self.view.book().clone(), place: self.place.url() }));
        let mut transaction = Transaction::default();
        for mut record in records.records() {
            record.partition = placement.place(&record)?;
            self.add(&mut transaction, record)?;
        }
        let extents = self.finish(transaction)?;
        if extents.is_empty() {
            return Ok(());
        }
        self.view.commit(|book| Ok(Entry::Append { lane: None, extents: rebased(&extents, book)? }))
    }

    /// Adds a record, its partition chosen.
    pub(super) fn add(&mut self, transaction: &mut Transaction, record: RawRecord<'_>) -> Result<()> {
        transaction.push(&record);
        if transaction.buffered < BUFFER_BYTES { Ok(()) } else { self.write_out(transaction) }
    }

    /// The transaction's extents, durable, first offsets still open.
    pub(super) fn finish(&mut self, mut transaction: Transaction) -> Result<Vec<Extent>> {
        self.write_out(&mut transaction)?;
        self.appender.sync()?;
        Ok(transaction.extents)
    }

    /// Commits a lane's extents with its marker, if the lane is still ours.
    pub(super) fn commit_lane(&mut self, commit: &LaneCommit, extents: &[Extent]) -> Result<()> {
        self.view.commit(|book| {
            super::publisher::check_owner(book, &commit.lane, commit.generation)?;
            Ok(Entry::Append { lane: Some(commit.clone()), extents: rebased(extents, book)? })
        })
    }

    fn write_out(&mut self, transaction: &mut Transaction) -> Result<()> {
        transaction.buffered = 0;
        for (topic, frames) in
            std::mem::take(&mut transaction.frames).into_iter().flat_map(|(t, ps)| ps.into_iter().map(move |p| (t.clone(), p)))
        {
            let (partition, frames) = frames;
            let state = self.view.book().topics.get(&topic).ok_or_else(|| no_such_topic(&topic, &self.place.url()))?;
            let id = state.id.clone();
            let (bytes, records, max_timestamp) = frames.finish();
            let (file, at) = self.appender.append(&topic, &id, &bytes)?;
            let len = bytes.len() as u64;
            transaction.extents.push(Extent { topic, id, partition, base: -1, records, file, at, len, max_timestamp });
        }
        Ok(())
    }
}

/// Records on their way, by topic and partition.
#[derive(Default)]
pub(super) struct Transaction {
    frames: BTreeMap<String, BTreeMap<i32, Frames>>,
    buffered: usize,
    extents: Vec<Extent>,
}

impl Transaction {
    fn push(&mut self, record: &RawRecord<'_>) {
        if !self.frames.contains_key(&**record.topic) {
            self.frames.insert(record.topic.to_string(), BTreeMap::new());
        }
        let Some(partitions) = self.frames.get_mut(&**record.topic) else { unreachable!("inserted above") };
        let frames = partitions.entry(record.partition).or_default();
        let before = frames.len();
        frames.push(record.partition, record);
        self.buffered += frames.len() - before;
    }
}

/// The extents with their first offsets on top of a state.
fn rebased(extents: &[Extent], book: &Book) -> Result<Vec<Extent>> {
    let mut ends: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    let mut placed = Vec::with_capacity(extents.len());
    for extent in extents {
        let key = (extent.topic.as_str(), extent.partition);
        let base = match ends.get(&key) {
            Some(&end) => end,
            None => book.end(&extent.topic, &extent.id, extent.partition).ok_or_else(|| {
                Error::fatal(format!("topic {} was deleted while it was written to", extent.topic)).help("create the topic again")
            })?,
        };
        let extent = Extent { base, ..extent.clone() };
        ends.insert(key, extent.end());
        placed.push(extent);
    }
    Ok(placed)
}

/// Facts from a state that is at hand.
struct BookFacts {
    book: Book,
    place: String,
}

impl Partitioner for BookFacts {
    fn topic(&mut self, topic: &str) -> Result<TopicFacts> {
        facts(&self.book, topic, &self.place)
    }
    fn end_offset(&mut self, topic: &str, partition: i32) -> Result<i64> {
        end_offset(&self.book, topic, partition, &self.place)
    }
}

/// What a writer must know of a topic.
pub(super) fn facts(book: &Book, topic: &str, place: &str) -> Result<TopicFacts> {
    let state = book.topics.get(topic).ok_or_else(|| no_such_topic(topic, place))?;
    Ok(TopicFacts { partitions: state.config.partitions, max_record_bytes: super::max_record_bytes(state) })
}

/// The end of a partition.
pub(super) fn end_offset(book: &Book, topic: &str, partition: i32, place: &str) -> Result<i64> {
    let state = book.topics.get(topic).ok_or_else(|| no_such_topic(topic, place))?;
    Ok(usize::try_from(partition).ok().and_then(|p| state.ends.get(p)).copied().unwrap_or(0))
}
