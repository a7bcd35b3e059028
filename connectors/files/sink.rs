//! Lines out, of JSON if not said otherwise: an epoch of a lane becomes one file, which appears whole or not at all.
//!
//! `part-<lineage>-<lane>-<epoch>.jsonl` is written under a hidden name, synced, renamed. Publishing an epoch again writes the
//! same bytes under the same name: it repeats nothing, whoever does it. So the marker may lag behind the files, never lead.
//! Lanes keep their owner and marker in `.lanes/<lane>-<generation>`; a fence takes the next generation by exclusive link.
//!
//! Invariant: a file without a leading dot is complete and will never change; each line is one record.

use crate::staging::{Partitioner, StagingWriter, TopicFacts};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{
    Guarantee, LaneMarker, LanePublisher, PublisherContext, ScanOutcome, SegmentReader, SegmentRef, Sink, SinkWriter, WriterContext,
};
use waterwheel_engine::record::{BatchBox, Epoch, RawBatch};

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
    env: Env,
    folder: PathBuf,
    lanes: u32,
    ending: &'static str,
}

impl FilesSink {
    /// Into a folder, made when missing; one lane.
    pub fn new(env: Env, folder: impl AsRef<Path>) -> Self {
        FilesSink { env, folder: folder.as_ref().to_path_buf(), lanes: 1, ending: "jsonl" }
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
}

impl Sink for FilesSink {
    fn describe(&self) -> String {
        format!("{} files in {}", self.ending, self.folder.display())
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
        Ok(Box::new(Lines { inner: StagingWriter::new(context, self.lanes, Box::new(OnePartitionALane(self.lanes)))? }))
    }

    fn lane(&self, context: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Ok(Box::new(FilesLane { folder: self.folder.clone(), ending: self.ending, context, generation: 0 }))
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

/// Stages records that can be lines.
struct Lines {
    inner: StagingWriter,
}

impl SinkWriter for Lines {
    fn ready(&mut self) -> Result<bool> {
        self.inner.ready()
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let refuse =
            |why: &str| Err(Error::fatal(format!("a record cannot be a line of a file: {why}")).help("write it to a topic instead"));
        if let Some(batch) = batch.as_any().downcast_ref::<RawBatch>() {
            for record in batch.records() {
                match record.value {
                    None => return refuse("it has no value (a removal)"),
                    Some(value) if value.contains(&b'\n') => return refuse("it holds a line break"),
                    Some(_) => {}
                }
            }
        }
        self.inner.write(batch)
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        self.inner.prepare(epoch)
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        self.inner.prepared()
    }
}

struct FilesLane {
    folder: PathBuf,
    ending: &'static str,
    context: PublisherContext,
    /// 0 = not fenced.
    generation: u64,
}

impl FilesLane {
    fn file_error(path: &Path, e: std::io::Error) -> Error {
        Error::from(e).at(path.display().to_string())
    }

    /// The lane's name as a file name: readable, and unlike every other lane's.
    fn lane_file(&self, generation: u64) -> PathBuf {
        let name = self.context.lane_name();
        let readable: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        self.folder.join(".lanes").join(format!("{readable}-{:08x}-{generation:08}.json", crc32fast::hash(name.as_bytes())))
    }

    fn newest_generation(&self) -> Result<u64> {
        let stem = self.lane_file(0).file_name().map(|n| n.to_string_lossy().replace("00000000.json", "")).unwrap_or_default();
        let dir = self.folder.join(".lanes");
        let names = self.context.env.files.list(&dir).map_err(|e| Self::file_error(&dir, e))?;
        Ok(names.iter().filter_map(|n| n.strip_prefix(&stem)?.strip_suffix(".json")?.parse().ok()).max().unwrap_or(0))
    }

    fn stored_marker(&self, generation: u64) -> Result<Option<LaneMarker>> {
        if generation == 0 {
            return Ok(None);
        }
        let path = self.lane_file(generation);
        let text = self.context.env.files.read(&path).map_err(|e| Self::file_error(&path, e))?;
        let damaged =
            |why: &dyn std::fmt::Display| Error::fatal(format!("the lane's file is damaged: {why}")).at(path.display().to_string());
        let stored: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(&e))?;
        serde_json::from_value(stored["marker"].clone()).map_err(|e| damaged(&e))
    }

    fn check_owner(&self) -> Result<()> {
        match self.newest_generation()? {
            newest if newest == self.generation && newest > 0 => Ok(()),
            newest => Err(Error::fatal(format!("lane {} was taken over by a newer run of this job", self.context.lane_name()))
                .at(format!("generation {}, now {newest}", self.generation))),
        }
    }

    fn part(&self, lineage: &str, epoch: Epoch) -> PathBuf {
        let lineage: String = lineage.chars().filter(char::is_ascii_alphanumeric).collect();
        self.folder.join(format!("part-{lineage}-{}-{epoch:010}.{}", self.context.lane, self.ending))
    }

    fn write_part(&self, path: &Path, segments: &[&SegmentRef]) -> Result<()> {
        let files = &self.context.env.files;
        let temporary = self.folder.join(format!(".{}.tmp", self.context.env.fresh_id()));
        let mut file = files.create(&temporary).map_err(|e| Self::file_error(&temporary, e))?;
        for segment in segments {
            let mut reader = SegmentReader::open(&self.context.env, &self.context.staging, segment)?;
            while let Some(batch) = reader.next_batch()? {
                let mut text = Vec::with_capacity(batch.data_len() + 64);
                for record in batch.records() {
                    text.extend_from_slice(record.value.unwrap_or_default());
                    text.push(b'\n');
                }
                file.write_all(&text).map_err(|e| Self::file_error(&temporary, e))?;
            }
        }
        let done = file.sync().and_then(|()| files.rename(&temporary, path));
        done.map_err(|e| Self::file_error(path, e))
    }
}

impl LanePublisher for FilesLane {
    fn fence(&mut self) -> Result<()> {
        let files = &self.context.env.files;
        loop {
            let newest = self.newest_generation()?;
            let bytes = json!({ "version": 1, "marker": self.stored_marker(newest)? }).to_string();
            let (temporary, path) =
                (self.folder.join(".lanes").join(format!("{}.new", self.context.env.fresh_id())), self.lane_file(newest + 1));
            let taken = files.create(&temporary).and_then(|mut file| {
                file.write_all(bytes.as_bytes())?;
                file.sync()?;
                files.link_exclusive(&temporary, &path)
            });
            let _ = files.remove(&temporary);
            match taken {
                Ok(()) => {
                    files.sync_dir(&self.folder.join(".lanes")).map_err(|e| Self::file_error(&path, e))?;
                    self.generation = newest + 1;
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Self::file_error(&path, e)),
            }
        }
    }

    fn marker(&mut self) -> Result<Option<LaneMarker>> {
        self.check_owner()?;
        self.stored_marker(self.generation)
    }

    /// Publishing again repeats nothing, so what is not known to be there may be published.
    fn scan(&mut self, _: &[SegmentRef]) -> Result<ScanOutcome> {
        Ok(ScanOutcome::Absent)
    }

    fn publish(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        self.check_owner()?;
        let mut epochs: BTreeMap<Epoch, Vec<&SegmentRef>> = BTreeMap::new();
        segments.iter().for_each(|s| epochs.entry(s.epoch).or_default().push(s));
        let files = &self.context.env.files;
        for (epoch, segments) in epochs {
            self.write_part(&self.part(&marker.lineage, epoch), &segments)?;
        }
        files.sync_dir(&self.folder).map_err(|e| Self::file_error(&self.folder, e))?;
        let path = self.lane_file(self.generation);
        let bytes = json!({ "version": 1, "marker": marker }).to_string();
        files.replace(&path, bytes.as_bytes()).map_err(|e| Self::file_error(&path, e))?;
        self.check_owner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{batch, lane, marker, stage, writer_context};

    fn content(folder: &Path) -> Vec<(String, String)> {
        let files = Env::real().files;
        let names = files.list(folder).unwrap().into_iter().filter(|n| !n.starts_with('.'));
        names.map(|n| (n.clone(), String::from_utf8(files.read(&folder.join(n)).unwrap()).unwrap())).collect()
    }

    #[test]
    fn epochs_become_files_and_publishing_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (env, folder, staging) = (Env::real(), dir.path().join("out"), dir.path().join("staging"));
        let sink = FilesSink::new(env.clone(), &folder);
        sink.check().unwrap();
        let mut writer = sink.writer(writer_context(&env, &staging, "a")).unwrap();
        let one = stage(&mut *writer, 1, &batch("x", &[(-1, "1"), (-1, "2")]));
        let two = stage(&mut *writer, 2, &batch("x", &[(-1, "3")]));
        let mut old = lane(&sink, &env, &staging, 0);
        assert_eq!(old.marker().unwrap(), None);
        old.publish(&marker(1), &one).unwrap();
        let both: Vec<SegmentRef> = one.iter().chain(&two).cloned().collect();
        let mut new = lane(&sink, &env, &staging, 0);
        assert_eq!(new.marker().unwrap(), Some(marker(1)));
        new.publish(&marker(2), &both).unwrap();
        assert!(old.publish(&marker(3), &[]).is_err(), "fenced");
        assert_eq!(new.marker().unwrap(), Some(marker(2)));
        let expected = [("part-line-0-0000000001.jsonl", "1\n2\n"), ("part-line-0-0000000002.jsonl", "3\n")];
        assert_eq!(content(&folder), expected.map(|(n, t)| (n.to_string(), t.to_string())));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let sink = FilesSink::new(env.clone(), dir.path());
        let mut writer = sink.writer(writer_context(&env, dir.path(), "a")).unwrap();
        assert!(writer.write(Box::new(batch("x", &[(-1, "a\nb")]))).is_err());
    }
}
