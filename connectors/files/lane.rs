//! Publishing into files: what an epoch adds becomes durable in hidden files, one replaced file says that it counts, then files
//! that are finished get their names and ripe folders their mark.
//!
//! The file `.lanes/<lane>-<generation>` is the lane's marker, owner and memory ([`Stored`]). A fence takes the next generation
//! by exclusive link and goes on from what the last one holds: it gives names that are still missing (renaming again changes
//! nothing), and copies files that go on to hidden names of its own, because their former writer may still be at work.
//!
//! Invariant: an epoch is published by the replacement of the lane's file alone. What was visible stays as it is.

use super::parts::{COLUMNS, Names, Part, PartFiles, Parts, Settled, Stored, cut_short, file_error, folder_path};
use super::sink::{FilesSink, Ripe, Rolling};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{LaneMarker, LanePublisher, ProgressNote, PublisherContext, ScanOutcome, SegmentReader, SegmentRef};
use waterwheel_engine::record::{Epoch, RawRecord};
use waterwheel_engine::time::EventTime;

/// Of the lane's file.
const VERSION: u32 = 2;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

pub(super) struct FilesLane {
    sink: FilesSink,
    context: PublisherContext,
    /// 0 = not fenced.
    generation: u64,
    /// What the file of this generation holds.
    stored: Stored,
}

fn of_another_format(segment: &SegmentRef) -> Error {
    Error::fatal("rows that are not published yet were staged in another format")
        .at(format!("epoch {}, lane {}", segment.epoch, segment.lane))
        .help("run the job with the format that it had, until it stops gracefully; then with the new one")
}

/// What an epoch's notes say.
#[derive(Default)]
struct Progress(BTreeMap<u32, ProgressNote>);

impl Progress {
    /// How far all tasks have come; nothing if one has not said so.
    fn watermark(&self) -> Option<EventTime> {
        let tasks = self.0.values().next()?.tasks;
        let all = self.0.len() == tasks as usize && self.0.values().all(|note| note.tasks == tasks);
        self.0.values().map(|note| note.watermark).min().filter(|_| all)
    }
}

impl FilesLane {
    pub(super) fn new(sink: FilesSink, context: PublisherContext) -> Self {
        FilesLane { sink, context, generation: 0, stored: Stored::default() }
    }

    /// The lane's name as a file name: readable, and unlike every other lane's.
    fn lane_file(&self, generation: u64) -> PathBuf {
        let name = self.context.lane_name();
        let readable: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        self.sink.folder.join(".lanes").join(format!("{readable}-{:08x}-{generation:08}.json", crc32fast::hash(name.as_bytes())))
    }

    fn newest_generation(&self) -> Result<u64> {
        let stem = self.lane_file(0).file_name().map(|n| n.to_string_lossy().replace("00000000.json", "")).unwrap_or_default();
        let dir = self.sink.folder.join(".lanes");
        let names = self.context.env.files.list(&dir).map_err(|e| file_error(&dir, e))?;
        Ok(names.iter().filter_map(|n| n.strip_prefix(&stem)?.strip_suffix(".json")?.parse().ok()).max().unwrap_or(0))
    }

    fn read(&self, generation: u64) -> Result<Stored> {
        if generation == 0 {
            return Ok(Stored { version: VERSION, ..Stored::default() });
        }
        let path = self.lane_file(generation);
        let text = self.context.env.files.read(&path).map_err(|e| file_error(&path, e))?;
        let damaged =
            |why: &dyn std::fmt::Display| Error::fatal(format!("the lane's file is damaged: {why}")).at(path.display().to_string());
        let stored: Stored = serde_json::from_slice(&text).map_err(|e| damaged(&e))?;
        if stored.version == VERSION { Ok(stored) } else { Err(damaged(&format!("version {} is not known", stored.version))) }
    }

    fn bytes(&self, stored: &Stored) -> Result<Vec<u8>> {
        serde_json::to_vec(stored).map_err(|e| Error::fatal("the lane's file cannot be written").because(e))
    }

    fn store(&mut self, stored: Stored) -> Result<()> {
        let path = self.lane_file(self.generation);
        self.context.env.files.replace(&path, &self.bytes(&stored)?).map_err(|e| file_error(&path, e))?;
        self.stored = stored;
        Ok(())
    }

    fn check_owner(&self) -> Result<()> {
        match self.newest_generation()? {
            newest if newest == self.generation && newest > 0 => Ok(()),
            newest => Err(Error::fatal(format!("lane {} was taken over by a newer run of this job", self.context.lane_name()))
                .at(format!("generation {}, now {newest}", self.generation))),
        }
    }

    /// Takes the next generation, with the content of the newest one; which that was.
    fn take_next(&mut self) -> Result<(u64, Stored)> {
        let files = &self.context.env.files;
        let dir = self.sink.folder.join(".lanes");
        loop {
            let newest = self.newest_generation()?;
            let stored = self.read(newest)?;
            let (temporary, path) = (dir.join(format!("{}.new", self.context.env.fresh_id())), self.lane_file(newest + 1));
            let bytes = self.bytes(&stored)?;
            let taken = files.create(&temporary).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync()?;
                files.link_exclusive(&temporary, &path)
            });
            let _ = files.remove(&temporary);
            match taken {
                Ok(()) => {
                    files.sync_dir(&dir).map_err(|e| file_error(&path, e))?;
                    self.generation = newest + 1;
                    return Ok((newest, stored));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(file_error(&path, e)),
            }
        }
    }

    /// Gives finished files their names, then marks folders. Done again it changes nothing.
    fn name_finished(&self) -> Result<()> {
        let files = &self.context.env.files;
        let mut changed = BTreeSet::new();
        for part in &self.stored.finished {
            let folder = folder_path(&self.sink.folder, &part.folder);
            match files.rename(&folder.join(&part.hidden), &folder.join(&part.name)) {
                Ok(()) => drop(changed.insert(folder)),
                // It has its name, or had it before somebody took it away.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(file_error(&folder.join(&part.name), e)),
            }
        }
        for folder in &changed {
            files.sync_dir(folder).map_err(|e| file_error(folder, e))?;
        }
        let Some(commit) = &self.sink.commit else { return Ok(()) };
        for folder in &self.stored.ripe {
            let folder = folder_path(&self.sink.folder, folder);
            let path = folder.join(&commit.file);
            let marked = files.create(&path).and_then(|mut file| file.sync()).and_then(|()| files.sync_dir(&folder));
            match marked {
                // Somebody has taken the folder away with what was in it.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                marked => marked.map_err(|e| file_error(&path, e))?,
            }
        }
        Ok(())
    }

    /// Copies files that go on from another generation's names to its own.
    fn take_over(&mut self) -> Result<()> {
        if self.stored.open.is_empty() {
            return Ok(());
        }
        let mut stored = self.stored.clone();
        for part in &mut stored.open {
            let hidden = format!(".{}.{}", part.name, self.generation);
            let folder = folder_path(&self.sink.folder, &part.folder);
            self.copy(&folder.join(&part.hidden), &folder.join(&hidden), part.bytes)?;
            self.context.env.files.sync_dir(&folder).map_err(|e| file_error(&folder, e))?;
            part.hidden = hidden;
        }
        let old = std::mem::take(&mut self.stored.open);
        self.store(stored)?;
        for part in &old {
            // Left behind it is hidden, and nobody's.
            let _ = self.context.env.files.remove(&folder_path(&self.sink.folder, &part.folder).join(&part.hidden));
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path, bytes: u64) -> Result<()> {
        let files = &self.context.env.files;
        let mut file = files.create(to).map_err(|e| file_error(to, e))?;
        let mut at = 0;
        while at < bytes {
            let want = (bytes - at).min(COPY_BYTES as u64) as usize;
            let piece = match files.read_at(from, at, want) {
                Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
                piece => piece.map_err(|e| file_error(from, e))?,
            };
            if piece.is_empty() {
                return Err(cut_short(from, bytes));
            }
            file.write_all(&piece).map_err(|e| file_error(to, e))?;
            at += piece.len() as u64;
        }
        file.sync().map_err(|e| file_error(to, e))
    }

    /// What the rows that come now become.
    fn parts<'a>(&'a self, names: Names, now_ms: i64) -> Box<dyn PartFiles + 'a> {
        let (files, open) = (self.context.env.files.clone(), &self.stored.open);
        #[cfg(feature = "parquet")]
        if let Some(columns) = self.sink.columns {
            return Box::new(super::parquet::ColumnParts::new(files, &self.sink.folder, names, now_ms, columns, open));
        }
        let limit = self.sink.rolling.as_ref().map(|rolling| rolling.bytes);
        Box::new(Parts::new(files, &self.sink.folder, names, now_ms, limit, open))
    }

    /// Writes what the segments hold to hidden files; folders with rows and the time that they are judged by, and the last notes.
    fn write(&self, parts: &mut dyn PartFiles, segments: &[SegmentRef], now_ms: i64) -> Result<(BTreeMap<String, i64>, Progress)> {
        let mut epochs: BTreeMap<Epoch, Vec<&SegmentRef>> = BTreeMap::new();
        segments.iter().for_each(|s| epochs.entry(s.epoch).or_default().push(s));
        let mut touched: BTreeMap<String, i64> = BTreeMap::new();
        let mut progress = Progress::default();
        for (epoch, segments) in epochs {
            parts.begin_epoch(epoch)?;
            progress = Progress::default();
            for segment in segments {
                let mut reader = SegmentReader::open(&self.context.env, &self.context.staging, segment)?;
                while let Some(batch) = reader.next_batch()? {
                    for record in batch.records() {
                        if let Some(note) = ProgressNote::of(&record) {
                            progress.0.insert(note.task, note);
                            continue;
                        }
                        if (**record.topic == *COLUMNS) != parts.are_columns() {
                            return Err(of_another_format(segment));
                        }
                        let folder = self.folder_of(&record)?;
                        parts.write(folder, record.value.unwrap_or_default())?;
                        if self.sink.commit.is_some() && !touched.contains_key(folder) {
                            let time = if self.ripe_by() == Some(Ripe::EventTime) { record.timestamp } else { now_ms };
                            touched.insert(folder.to_string(), time);
                        }
                    }
                }
            }
        }
        Ok((touched, progress))
    }

    fn folder_of<'a>(&self, record: &RawRecord<'a>) -> Result<&'a str> {
        if !self.sink.in_folders {
            return Ok("");
        }
        let path = record.key.and_then(|key| std::str::from_utf8(key).ok());
        path.ok_or_else(|| Error::fatal("a staged record has no folder"))
    }

    fn ripe_by(&self) -> Option<Ripe> {
        self.sink.commit.as_ref().map(|commit| commit.ripe)
    }

    fn is_ripe(&self, time: i64, progress: Option<EventTime>, now_ms: i64) -> bool {
        let Some(commit) = &self.sink.commit else { return false };
        let due = time.saturating_add_unsigned(commit.delay_ms);
        match (commit.ripe, progress) {
            (_, Some(EventTime::MAX)) => true,
            (Ripe::Clock, _) => now_ms >= due,
            (Ripe::EventTime, progress) => progress.is_some_and(|watermark| watermark.0 > due),
        }
    }

    fn goes_on(&self, part: &Part, ended: bool, now_ms: i64) -> bool {
        let Some(Rolling { bytes, age_ms, idle_ms }) = self.sink.rolling else { return false };
        let less = |since: i64, than: u64| now_ms.saturating_sub(since) < i64::try_from(than).unwrap_or(i64::MAX);
        !ended && part.bytes < bytes && less(part.begun_ms, age_ms) && less(part.written_ms, idle_ms)
    }
}

impl LanePublisher for FilesLane {
    fn fence(&mut self) -> Result<()> {
        let (before, taken) = self.take_next()?;
        self.stored = taken;
        // The former owner may have published once more between the look at its file and the fence; after the fence it cannot.
        let newest = self.read(before)?;
        if newest != self.stored {
            self.store(newest)?;
        }
        self.name_finished()?;
        self.take_over()
    }

    fn marker(&mut self) -> Result<Option<LaneMarker>> {
        self.check_owner()?;
        Ok(self.stored.marker.clone())
    }

    /// Publishing again repeats nothing, so what is not known to be there may be published.
    fn scan(&mut self, _: &[SegmentRef]) -> Result<ScanOutcome> {
        Ok(ScanOutcome::Absent)
    }

    fn publish(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        self.check_owner()?;
        let now_ms = self.context.env.clock.wall_ms();
        let lineage: String = marker.lineage.chars().filter(char::is_ascii_alphanumeric).collect();
        let stem = format!("part-{lineage}-{}", self.context.lane);
        let names = Names { stem, ending: self.sink.ending, generation: self.generation, epoch: marker.epoch, begun: 0 };
        let mut parts = self.parts(names, now_ms);
        let (touched, progress) = self.write(&mut *parts, segments, now_ms)?;
        let Settled { open, mut finished } = parts.settle()?;
        let progress = progress.watermark();
        // A folder is judged by its first row since it was marked.
        let mut waiting = touched;
        waiting.extend(self.stored.waiting.clone());
        let ripe: Vec<String> =
            waiting.iter().filter(|(_, time)| self.is_ripe(**time, progress, now_ms)).map(|(folder, _)| folder.clone()).collect();
        waiting.retain(|folder, _| !ripe.contains(folder));
        let ended = progress == Some(EventTime::MAX);
        let (open, more): (Vec<Part>, Vec<Part>) =
            open.into_iter().partition(|part| self.goes_on(part, ended, now_ms) && !ripe.contains(&part.folder));
        finished.extend(more);
        self.store(Stored { version: VERSION, marker: Some(marker.clone()), open, finished, waiting, ripe })?;
        self.check_owner()?;
        self.name_finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{batch, lane, marker, stage, writer_context};
    use crate::files::Commit;
    use waterwheel_engine::env::Env;
    use waterwheel_engine::operators::{Sink, SinkWriter};
    use waterwheel_engine::record::RawBatch;

    /// Visible files below a folder, with what they hold.
    fn content(folder: &Path) -> Vec<(String, String)> {
        let files = Env::real().files;
        let mut all = Vec::new();
        for name in files.list(folder).unwrap().into_iter().filter(|n| !n.starts_with('.')) {
            match files.list(&folder.join(&name)) {
                Ok(_) => all.extend(content(&folder.join(&name)).into_iter().map(|(n, text)| (format!("{name}/{n}"), text))),
                Err(_) => all.push((name.clone(), String::from_utf8(files.read(&folder.join(&name)).unwrap()).unwrap())),
            }
        }
        all
    }

    fn named(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    /// Rows of folders with their times, and how far event time has come.
    fn epoch(writer: &mut dyn SinkWriter, epoch: Epoch, rows: &[(&str, i64, &str)], watermark: i64) -> Vec<SegmentRef> {
        let topic = "x".into();
        let mut batch = RawBatch::default();
        for (folder, time, value) in rows {
            batch.push_parts(&topic, -1, -1, *time, Some(folder.as_bytes()), Some(value.as_bytes()), &[]);
        }
        let mut note = RawBatch::default();
        ProgressNote { task: 0, tasks: 1, watermark: EventTime(watermark) }.push(&topic, &mut note);
        if !rows.is_empty() {
            writer.write(Box::new(batch)).unwrap();
        }
        stage(writer, epoch, &note)
    }

    const LONG: Rolling = Rolling { bytes: 1 << 30, age_ms: 1 << 40, idle_ms: 1 << 40 };

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
        assert_eq!(content(&folder), named(&[("part-line-0-0000000001-0.jsonl", "1\n2\n"), ("part-line-0-0000000002-0.jsonl", "3\n")]));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let sink = FilesSink::new(env.clone(), dir.path());
        let mut writer = sink.writer(writer_context(&env, dir.path(), "a")).unwrap();
        assert!(writer.write(Box::new(batch("x", &[(-1, "a\nb")]))).is_err());
        let mut writer = sink.in_folders().writer(writer_context(&env, dir.path(), "b")).unwrap();
        assert!(writer.write(Box::new(batch("x", &[(-1, "no folder")]))).is_err());
        let mut up = RawBatch::default();
        up.push_parts(&"x".into(), -1, -1, 0, Some(b"a=1/.."), Some(b"x"), &[]);
        assert!(writer.write(Box::new(up)).is_err());
    }

    #[test]
    fn files_go_on_over_epochs_and_owners_until_they_are_full_or_the_input_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (env, folder, staging) = (Env::real(), dir.path().join("out"), dir.path().join("staging"));
        let sink = FilesSink::new(env.clone(), &folder).in_folders().rolling(Rolling { bytes: 8, ..LONG });
        sink.check().unwrap();
        let mut writer = sink.writer(writer_context(&env, &staging, "a")).unwrap();
        let one = epoch(&mut *writer, 1, &[("k=1", 0, "a1"), ("k=2", 0, "b1"), ("k=1", 0, "a2")], 0);
        let two = epoch(&mut *writer, 2, &[("k=1", 0, "a3"), ("k=2", 0, "b2")], 0);
        let three = epoch(&mut *writer, 3, &[], i64::MAX);
        let mut first = lane(&sink, &env, &staging, 0);
        first.publish(&marker(1), &one).unwrap();
        assert_eq!(content(&folder), named(&[]), "nothing is finished");
        // The first owner goes on for a while, and writes where nobody looks any more.
        let mut second = lane(&sink, &env, &staging, 0);
        assert!(first.publish(&marker(2), &two).is_err());
        assert_eq!(second.marker().unwrap(), Some(marker(1)));
        second.publish(&marker(2), &two).unwrap();
        assert_eq!(content(&folder), named(&[("k=1/part-line-0-0000000001-0.jsonl", "a1\na2\n")]), "three lines are too many");
        second.publish(&marker(3), &three).unwrap();
        let all = [
            ("k=1/part-line-0-0000000001-0.jsonl", "a1\na2\n"),
            ("k=1/part-line-0-0000000002-0.jsonl", "a3\n"),
            ("k=2/part-line-0-0000000001-1.jsonl", "b1\nb2\n"),
        ];
        assert_eq!(content(&folder), named(&all));
        drop(lane(&sink, &env, &staging, 0));
        assert_eq!(content(&folder), named(&all));
    }

    #[test]
    fn several_lines_of_a_record_are_lines_like_others() {
        let dir = tempfile::tempdir().unwrap();
        let (env, folder, staging) = (Env::real(), dir.path().join("out"), dir.path().join("staging"));
        let plain = FilesSink::new(env.clone(), &folder).rolling(Rolling { bytes: 8, ..LONG });
        let sink = plain.clone().several_lines();
        sink.check().unwrap();
        let write = |sink: &FilesSink, value| {
            let mut writer = sink.writer(writer_context(&env, &staging, "a")).unwrap();
            let mut batch = RawBatch::default();
            batch.push_parts(&"x".into(), -1, -1, 0, None, Some(value), &[]);
            writer.write(Box::new(batch)).map(|()| epoch(&mut *writer, 1, &[], i64::MAX))
        };
        assert!(write(&plain, b"a1\na2").is_err());
        let segments = write(&sink, b"a1\na2\na3\na4 is long\na5").unwrap();
        lane(&sink, &env, &staging, 0).publish(&marker(1), &segments).unwrap();
        let files = ["a1\na2\n", "a3\n", "a4 is long\n", "a5\n"];
        let files = files.iter().enumerate().map(|(i, text)| (format!("part-line-0-0000000001-{i}.jsonl"), text.to_string()));
        assert_eq!(content(&folder), files.collect::<Vec<_>>());
    }

    #[test]
    fn a_publish_that_broke_off_is_finished_by_the_next_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (env, folder, staging) = (Env::real(), dir.path().join("out"), dir.path().join("staging"));
        let commit = Commit { ripe: Ripe::EventTime, delay_ms: 0, file: "_SUCCESS".into() };
        let sink = FilesSink::new(env.clone(), &folder).in_folders().commit(commit);
        sink.check().unwrap();
        let mut writer = sink.writer(writer_context(&env, &staging, "a")).unwrap();
        let one = epoch(&mut *writer, 1, &[("k=1", 10, "a")], 11);
        let mut owner = lane(&sink, &env, &staging, 0);
        owner.publish(&marker(1), &one).unwrap();
        // As if it had died after the replacement of the lane's file: neither name nor mark are there.
        let inside = folder.join("k=1");
        env.files.rename(&inside.join("part-line-0-0000000001-0.jsonl"), &inside.join(".part-line-0-0000000001-0.jsonl.1")).unwrap();
        env.files.remove(&inside.join("_SUCCESS")).unwrap();
        let mut next = lane(&sink, &env, &staging, 0);
        assert_eq!(next.marker().unwrap(), Some(marker(1)));
        assert_eq!(content(&folder), named(&[("k=1/_SUCCESS", ""), ("k=1/part-line-0-0000000001-0.jsonl", "a\n")]));
    }

    #[test]
    fn folders_are_marked_when_event_time_has_passed_them_and_again_after_late_rows() {
        let dir = tempfile::tempdir().unwrap();
        let (env, folder, staging) = (Env::real(), dir.path().join("out"), dir.path().join("staging"));
        let commit = Commit { ripe: Ripe::EventTime, delay_ms: 5, file: "_DONE".into() };
        let sink = FilesSink::new(env.clone(), &folder).in_folders().rolling(LONG).commit(commit);
        sink.check().unwrap();
        let mut writer = sink.writer(writer_context(&env, &staging, "a")).unwrap();
        let mut owner = lane(&sink, &env, &staging, 0);
        let mut publish = |n, rows: &[(&str, i64, &str)], watermark| {
            let segments = epoch(&mut *writer, n, rows, watermark);
            owner.publish(&marker(n), &segments).unwrap();
            content(&folder)
        };
        assert_eq!(publish(1, &[("k=1", 10, "a"), ("k=2", 20, "b")], 15), named(&[]), "not before, and not at the time itself");
        let marked = [("k=1/_DONE", ""), ("k=1/part-line-0-0000000001-0.jsonl", "a\n")];
        assert_eq!(publish(2, &[], 16), named(&marked));
        env.files.remove(&folder.join("k=1/_DONE")).unwrap();
        assert_eq!(publish(3, &[], 17), named(&marked[1..]), "once");
        let late = publish(4, &[("k=1", 10, "c")], 18);
        assert_eq!(late, named(&[marked[0], marked[1], ("k=1/part-line-0-0000000004-0.jsonl", "c\n")]));
        let all = publish(5, &[], i64::MAX);
        assert_eq!(all.len(), 5);
        assert!(all.contains(&("k=2/part-line-0-0000000001-1.jsonl".into(), "b\n".into())), "{all:?}");
        assert!(all.contains(&("k=2/_DONE".into(), String::new())));
    }

    #[test]
    fn a_task_that_has_not_come_so_far_holds_folders_back() {
        let note = |task, tasks, watermark| (task, ProgressNote { task, tasks, watermark: EventTime(watermark) });
        assert_eq!(Progress([note(0, 2, 7), note(1, 2, 5)].into()).watermark(), Some(EventTime(5)));
        assert_eq!(Progress([note(0, 2, 7)].into()).watermark(), None);
        assert_eq!(Progress([note(0, 3, 7), note(1, 2, 5)].into()).watermark(), None);
        assert_eq!(Progress::default().watermark(), None);
    }

    #[test]
    fn many_folders_share_few_open_files() {
        let dir = tempfile::tempdir().unwrap();
        let (env, folder, staging) = (Env::real(), dir.path().join("out"), dir.path().join("staging"));
        let sink = FilesSink::new(env.clone(), &folder).in_folders();
        sink.check().unwrap();
        let mut writer = sink.writer(writer_context(&env, &staging, "a")).unwrap();
        let long = "x".repeat(60 << 10);
        let names: Vec<String> = (0..150).map(|i| format!("k={i:03}")).collect();
        let rows: Vec<(&str, i64, &str)> = (0..5).flat_map(|_| names.iter().map(|name| (name.as_str(), 0, long.as_str()))).collect();
        let segments = epoch(&mut *writer, 1, &rows, 0);
        lane(&sink, &env, &staging, 0).publish(&marker(1), &segments).unwrap();
        let all = content(&folder);
        assert_eq!(all.len(), 150);
        assert!(all.iter().all(|(_, text)| text.len() == 5 * (long.len() + 1)));
    }
}
