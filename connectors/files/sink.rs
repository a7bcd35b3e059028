//! Lines out, or rows in columns: the output of an epoch appears in files when its checkpoint is complete, each file whole or not
//! at all.
//!
//! A file belongs to one lane and is written under a hidden name ([`parts`](super::parts)), by default one an epoch, else as
//! long as [`Rolling`] says. Rows may be told apart by folder: then a record's key is the path of its folder, as
//! [`folders`](waterwheel_engine::record::folders) makes them. A folder that gets no more rows is marked as complete
//! ([`Commit`]); the time that decides this is the timestamp of its records.
//!
//! Invariant: a file without a leading dot is complete and will never change; each line of one of lines is one record.

use super::lane::FilesLane;
#[cfg(feature = "parquet")]
use super::parquet::{Codec, Columns};
use crate::staging::{Partitioner, StagingWriter, TopicFacts};
use std::path::{Path, PathBuf};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Guarantee, LanePublisher, ProgressNote, PublisherContext, SegmentRef, Sink, SinkWriter, WriterContext};
use waterwheel_engine::record::{Batch, BatchBox, Epoch, RawBatch, RawRecord, downcast, folders};

/// Largest line.
const LINE_BYTES: u64 = 64 << 20;

/// Writes each record's value as a line; takes [`RawBatch`]es. Exactly once.
///
/// ```
/// use waterwheel_connectors::files::FilesSink;
/// use waterwheel_engine::{env::Env, operators::Sink};
/// let dir = tempfile::tempdir().unwrap();
/// FilesSink::new(Env::real(), dir.path().join("out")).check().unwrap();
/// ```
#[derive(Clone)]
pub struct FilesSink {
    pub(super) env: Env,
    pub(super) folder: PathBuf,
    lanes: u32,
    pub(super) ending: &'static str,
    pub(super) in_folders: bool,
    several_lines: bool,
    pub(super) rolling: Option<Rolling>,
    pub(super) commit: Option<Commit>,
    #[cfg(feature = "parquet")]
    pub(super) columns: Option<InColumns>,
}

/// How Parquet files are written.
#[cfg(feature = "parquet")]
#[derive(Debug, Clone, Copy)]
pub(super) struct InColumns {
    pub(super) codec: Codec,
    /// A file is finished when it has so many bytes.
    pub(super) file_bytes: Option<u64>,
}

/// When a file that is written to is finished, besides at the end of the input. It is looked at with each checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolling {
    /// So many bytes are not exceeded, but by a single line.
    pub bytes: u64,
    /// Milliseconds since it was begun.
    pub age_ms: u64,
    /// Milliseconds since it was last written to.
    pub idle_ms: u64,
}

/// How folders are marked as complete: by an empty file, when they are ripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// By which time.
    pub ripe: Ripe,
    /// And so many milliseconds more.
    pub delay_ms: u64,
    /// Name of the file.
    pub file: String,
}

/// When a folder is ripe. At the end of the input all are; one that gets rows later is marked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ripe {
    /// When the clock says that its first row came so long ago.
    Clock,
    /// When the watermark has passed the timestamp of its records.
    EventTime,
}

impl FilesSink {
    /// Into a folder, made when missing; one lane, a file an epoch.
    pub fn new(env: Env, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref().to_path_buf();
        FilesSink {
            env,
            folder,
            lanes: 1,
            ending: "jsonl",
            in_folders: false,
            several_lines: false,
            rolling: None,
            commit: None,
            #[cfg(feature = "parquet")]
            columns: None,
        }
    }

    /// Files whose names end otherwise than in `jsonl`.
    #[must_use]
    pub fn ending(mut self, ending: &'static str) -> Self {
        self.ending = ending;
        self
    }

    /// So many files an epoch, 1 or more.
    #[must_use]
    pub fn lanes(mut self, lanes: u32) -> Self {
        self.lanes = lanes.max(1);
        self
    }

    /// A record's key is the folder below this one that it goes to.
    #[must_use]
    pub fn in_folders(mut self) -> Self {
        self.in_folders = true;
        self
    }

    /// A record's value may be several lines, a line break between each two of them: who makes them sees to the line breaks.
    #[must_use]
    pub fn several_lines(mut self) -> Self {
        self.several_lines = true;
        self
    }

    /// Goes on with a file over several epochs. Needs the notes of
    /// [`note_progress`](waterwheel_engine::operators::note_progress) before it: at the end of the input they say so.
    #[must_use]
    pub fn rolling(mut self, rolling: Rolling) -> Self {
        self.rolling = Some(rolling);
        self
    }

    /// Parquet files instead of lines: takes [`FileRows`](waterwheel_engine::record::FileRows), whose path is the folder that they
    /// go to. Each checkpoint finishes its files, and a file is finished earlier when it has so many bytes, give or take a batch.
    #[cfg(feature = "parquet")]
    #[must_use]
    pub fn parquet(mut self, codec: Codec, file_bytes: Option<u64>) -> Self {
        self.columns = Some(InColumns { codec, file_bytes });
        self.ending("parquet")
    }

    /// Marks folders as complete. Needs notes as [`rolling`](Self::rolling) does.
    #[must_use]
    pub fn commit(mut self, commit: Commit) -> Self {
        self.commit = Some(commit);
        self
    }
}

impl Sink for FilesSink {
    fn describe(&self) -> String {
        let below = if self.in_folders { "folders of " } else { "" };
        format!("{} files in {below}{}", self.ending, self.folder.display())
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn lanes(&self) -> u32 {
        self.lanes
    }

    fn check(&self) -> Result<()> {
        let lanes = self.folder.join(".lanes");
        let files = &self.env.files;
        let made = files.create_dir_all(&lanes).and_then(|()| files.sync_dir(&self.folder));
        made.map_err(|e| Error::from(e).at(format!("output folder {}", self.folder.display())))
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>> {
        let inner = StagingWriter::new(context, self.lanes, Box::new(OnePartitionALane(self.lanes)))?;
        #[cfg(feature = "parquet")]
        if self.columns.is_some() {
            return Ok(Box::new(Columns { inner, lanes: self.lanes, in_folders: self.in_folders }));
        }
        Ok(Box::new(Lines { inner, lanes: self.lanes, in_folders: self.in_folders, several_lines: self.several_lines }))
    }

    fn lane(&self, context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Ok(Box::new(FilesLane::new(self.clone(), context)))
    }
}

/// Every topic name stands for the folder; it has a partition per lane.
struct OnePartitionALane(u32);

impl Partitioner for OnePartitionALane {
    fn topic(&mut self, _: &str) -> Result<TopicFacts> {
        Ok(TopicFacts { partitions: self.0, max_record_bytes: LINE_BYTES })
    }
    fn end_offset(&mut self, _: &str, _: i32) -> Result<i64> {
        Ok(0)
    }
}

/// Stages records that can be lines. Records of a folder have one lane, by their key; notes go to every lane.
struct Lines {
    inner: StagingWriter,
    lanes: u32,
    in_folders: bool,
    several_lines: bool,
}

impl Lines {
    fn check(&self, record: &RawRecord<'_>) -> Result<()> {
        let refuse = |why: &str| Err(refused(why));
        match record.value {
            None => return refuse("it has no value (a removal)"),
            Some(value) if !self.several_lines && value.contains(&b'\n') => return refuse("it holds a line break"),
            Some(_) => {}
        }
        if self.in_folders { check_folder(record.key) } else { Ok(()) }
    }
}

fn refused(why: &str) -> Error {
    Error::fatal(format!("a record cannot be a line of a file: {why}")).help("write it to a topic instead")
}

/// Refuses a key that is no folder below the sink's.
pub(super) fn check_folder(key: Option<&[u8]>) -> Result<()> {
    let folder = key.and_then(|key| std::str::from_utf8(key).ok());
    if folder.is_some_and(folders::is_path) { Ok(()) } else { Err(refused("its key is no path of folders")) }
}

/// The note that a batch is, if it is one, for each lane.
pub(super) fn note_for_lanes(batch: &RawBatch, lanes: u32) -> Option<RawBatch> {
    if batch.len() != 1 || ProgressNote::of(&batch.record(0)).is_none() {
        return None;
    }
    let mut for_lanes = RawBatch::default();
    for lane in 0..lanes {
        let mut record = batch.record(0);
        record.partition = lane as i32;
        for_lanes.push(record);
    }
    Some(for_lanes)
}

impl SinkWriter for Lines {
    fn ready(&mut self) -> Result<bool> {
        self.inner.ready()
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let batch = downcast::<RawBatch>(batch);
        if let Some(note) = note_for_lanes(&batch, self.lanes) {
            return self.inner.write(Box::new(note));
        }
        batch.records().try_for_each(|record| self.check(&record))?;
        self.inner.write(Box::new(batch))
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        self.inner.prepare(epoch)
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        self.inner.prepared()
    }
}
