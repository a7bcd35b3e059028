//! The writing half that exactly-once topic sinks share: records go into one staged segment per publish lane.
//!
//! On the task's thread a record gets its partition, is checked against what the topic would refuse, and is buffered into its
//! lane's segment. At the barrier the segments are sealed in the background: files made durable, then their folder, then the
//! references handed over.
//!
//! Invariant: what a segment holds can be published: partition fixed, size allowed, topic known. An epoch without records
//! makes no segment. Two attempts never write the same file.

use crate::partitioning::{StickyRoundRobin, lane_of, partition_of_key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{SegmentRef, SegmentWriter, SinkWriter, WriterContext};
use waterwheel_engine::record::{BatchBox, Epoch, RawBatch, RawRecord, downcast};

/// What a writer must know of a topic before it takes a record for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFacts {
    /// Number of partitions, 1 or more.
    pub partitions: u32,
    /// Largest record in bytes: key, value and headers, overhead already taken off.
    pub max_record_bytes: u64,
}

/// Knows the topics a sink writes to. Called on the task's thread: answers come from memory, except perhaps the first for a
/// topic.
pub trait Partitioner: Send {
    /// The facts of a topic; asked once per topic and epoch, so that an epoch sees one partition count.
    ///
    /// # Errors
    /// Fatal when there is no such topic.
    fn topic(&mut self, topic: &str) -> Result<TopicFacts>;
    /// The end offset of a partition: where a scan for the records staged from now on may begin. An older one does too.
    ///
    /// # Errors
    /// When it is not known.
    fn end_offset(&mut self, topic: &str, partition: i32) -> Result<i64>;
}

/// Chooses partitions and checks records, for one epoch; shared by staging and at-least-once writers.
pub struct Placement {
    partitioner: Box<dyn Partitioner>,
    topics: Vec<(Arc<str>, TopicFacts, StickyRoundRobin)>,
}

impl Placement {
    /// Asks this partitioner.
    pub fn new(partitioner: Box<dyn Partitioner>) -> Self {
        Placement { partitioner, topics: Vec::new() }
    }

    /// The partition of a record: its own, else by key, else in turn.
    ///
    /// # Errors
    /// Fatal for what the topic would refuse: no such topic or partition, too large.
    pub fn place(&mut self, record: &RawRecord<'_>) -> Result<i32> {
        let (topic, facts, dealer) = self.topic(record.topic)?;
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + record.header_bytes().len();
        if bytes as u64 > facts.max_record_bytes {
            return Err(Error::fatal(format!("a record of {bytes} bytes is larger than topic {topic} takes ({})", facts.max_record_bytes))
                .at(format!("record with timestamp {} for {topic}", record.timestamp))
                .help(format!("raise max.message.bytes of {topic}, or write smaller records")));
        }
        match (record.partition, record.key) {
            (-1, Some(key)) => Ok(partition_of_key(key, facts.partitions)),
            (-1, None) => Ok(dealer.next(record.timestamp, facts.partitions)),
            (p, _) if p >= 0 && (p as u32) < facts.partitions => Ok(p),
            (p, _) => Err(Error::fatal(format!("a record asks for partition {p} of {topic}, which has {}", facts.partitions))
                .at(format!("record with timestamp {} for {topic}", record.timestamp))
                .help("leave the partition to the sink, or choose one that exists")),
        }
    }

    /// Forgets the turns and the facts: the next epoch asks again.
    pub fn end_epoch(&mut self) {
        self.topics.clear();
    }

    fn topic(&mut self, topic: &Arc<str>) -> Result<&mut (Arc<str>, TopicFacts, StickyRoundRobin)> {
        let known = self.topics.iter().position(|(t, ..)| Arc::ptr_eq(t, topic) || t == topic);
        let at = match known {
            Some(at) => at,
            None => {
                let facts = self.partitioner.topic(topic)?;
                self.topics.push((topic.clone(), facts, StickyRoundRobin::default()));
                self.topics.len() - 1
            }
        };
        Ok(&mut self.topics[at])
    }
}

/// Writes an epoch's records into segments, one per lane.
pub struct StagingWriter {
    context: WriterContext,
    placement: Placement,
    lanes: Vec<Option<Staged>>,
    made: u64,
    sealing: Option<Receiver<Result<Vec<SegmentRef>>>>,
}

struct Staged {
    writer: SegmentWriter,
    noted_ends: BTreeMap<(Arc<str>, i32), i64>,
}

impl StagingWriter {
    /// A writer for `lanes` lanes (1 or more).
    ///
    /// # Errors
    /// When the staging folder cannot be made.
    pub fn new(context: WriterContext, lanes: u32, partitioner: Box<dyn Partitioner>) -> Result<Self> {
        let files = &context.open.env.files;
        files.create_dir_all(&context.staging).map_err(|e| Error::from(e).at(format!("staging folder {}", context.staging.display())))?;
        let lanes = (0..lanes).map(|_| None).collect();
        Ok(StagingWriter { context, placement: Placement::new(partitioner), lanes, made: 0, sealing: None })
    }

    fn stage(&mut self, mut record: RawRecord<'_>) -> Result<()> {
        let partition = self.placement.place(&record)?;
        record.partition = partition;
        let lane = lane_of(record.topic, partition, self.lanes.len() as u32) as usize;
        if self.lanes[lane].is_none() {
            let writer = SegmentWriter::create(&self.context.open.env, &self.context.staging, self.segment_name(lane))?;
            self.made += 1;
            self.lanes[lane] = Some(Staged { writer, noted_ends: BTreeMap::new() });
        }
        let Some(staged) = &mut self.lanes[lane] else { unreachable!("made above") };
        staged.writer.write(record)?;
        // A lookup a record, in a map of a few partitions; the Arc is cloned on the first record only.
        if !staged.noted_ends.iter().any(|((t, p), _)| *p == partition && (Arc::ptr_eq(t, record.topic) || t == record.topic)) {
            let end = self.placement.partitioner.end_offset(record.topic, partition)?;
            staged.noted_ends.insert((record.topic.clone(), partition), end);
        }
        Ok(())
    }

    /// Unique: the attempt is, and within it operator, task and count are.
    fn segment_name(&self, lane: usize) -> String {
        let open = &self.context.open;
        let operator: String = open.operator.as_str().chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
        format!("{operator}-{}-{}-{lane}-{}.segment", self.context.attempt, open.index, self.made)
    }
}

impl SinkWriter for StagingWriter {
    fn ready(&mut self) -> Result<bool> {
        Ok(self.sealing.is_none())
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let batch = downcast::<RawBatch>(batch);
        batch.records().try_for_each(|record| self.stage(record))
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        self.placement.end_epoch();
        let staged: Vec<(usize, Staged)> =
            self.lanes.iter_mut().enumerate().filter_map(|(lane, staged)| Some((lane, staged.take()?))).collect();
        let (done, sealing) = channel();
        self.sealing = Some(sealing);
        if staged.is_empty() {
            let _ = done.send(Ok(Vec::new()));
            return Ok(());
        }
        let WriterContext { open, staging, waker, .. } = self.context.clone();
        let name = format!("stage {}/{}", open.operator, open.index);
        let files = open.env.files.clone();
        let job = move || {
            let seal = |(lane, s): (usize, Staged)| {
                let ends = s.noted_ends.into_iter().map(|((topic, partition), end)| (topic.to_string(), partition, end)).collect();
                s.writer.seal(lane as u32, epoch, open.index, 0, ends)
            };
            let sealed = staged.into_iter().map(seal).collect::<Result<Vec<_>>>();
            let durable = sealed.and_then(|segments| {
                files.sync_dir(&staging).map_err(|e| Error::from(e).at(format!("staging folder {}", staging.display())))?;
                Ok(segments)
            });
            let _ = done.send(durable);
            waker();
        };
        self.context.open.env.background.run(&name, Box::new(job));
        Ok(())
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        let Some(sealing) = &self.sealing else { return Ok(Some(Vec::new())) };
        match sealing.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::restart("sealing staged segments broke off")),
            Ok(sealed) => {
                self.sealing = None;
                sealed.map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{eventually, writer_context};
    use waterwheel_engine::env::Env;
    use waterwheel_engine::operators::SegmentReader;

    struct Fixed;
    impl Partitioner for Fixed {
        fn topic(&mut self, topic: &str) -> Result<TopicFacts> {
            if topic == "out" { Ok(TopicFacts { partitions: 4, max_record_bytes: 100 }) } else { Err(Error::fatal("no such topic")) }
        }
        fn end_offset(&mut self, _: &str, partition: i32) -> Result<i64> {
            Ok(i64::from(partition) * 10)
        }
    }

    fn batch(topic: &str, rows: &[(i32, Option<&str>, &str)]) -> BatchBox {
        let topic: Arc<str> = topic.into();
        let mut batch = RawBatch::default();
        for (i, (partition, key, value)) in rows.iter().enumerate() {
            batch.push_parts(&topic, *partition, -1, i as i64, key.map(str::as_bytes), Some(value.as_bytes()), &[]);
        }
        Box::new(batch)
    }

    fn seal(writer: &mut StagingWriter, epoch: Epoch) -> Vec<SegmentRef> {
        writer.prepare(epoch).unwrap();
        eventually(|| writer.prepared().unwrap())
    }

    #[test]
    fn an_epoch_becomes_one_segment_a_lane_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let mut writer = StagingWriter::new(writer_context(&env, dir.path(), "a1"), 2, Box::new(Fixed)).unwrap();
        let rows: Vec<(i32, Option<String>, String)> =
            (0..200).map(|i| (-1, (i % 3 > 0).then(|| format!("k{i}")), format!("v{i}"))).collect();
        let rows: Vec<_> = rows.iter().map(|(p, k, v)| (*p, k.as_deref(), v.as_str())).collect();
        writer.write(batch("out", &rows)).unwrap();
        writer.write(batch("out", &[(3, None, "chosen")])).unwrap();
        let segments = seal(&mut writer, 7);
        assert_eq!(segments.iter().map(|s| (s.lane, s.epoch)).collect::<Vec<_>>(), [(0, 7), (1, 7)]);
        let mut values = Vec::new();
        for segment in &segments {
            let mut reader = SegmentReader::open(&env, dir.path(), segment).unwrap();
            while let Some(batch) = reader.next_batch().unwrap() {
                for record in batch.records() {
                    assert_eq!(lane_of("out", record.partition, 2), segment.lane);
                    assert!(segment.noted_ends.contains(&("out".into(), record.partition, i64::from(record.partition) * 10)));
                    if let Some(key) = record.key {
                        assert_eq!(record.partition, partition_of_key(key, 4));
                    }
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
        }
        values.sort();
        let mut expected: Vec<String> = (0..200).map(|i| format!("v{i}")).chain(["chosen".into()]).collect();
        expected.sort();
        assert_eq!(values, expected);
        assert!(seal(&mut writer, 8).is_empty(), "an empty epoch makes no segment");
        assert!(writer.ready().unwrap());
    }

    #[test]
    fn what_could_never_be_published_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let mut writer = StagingWriter::new(writer_context(&env, dir.path(), "a1"), 1, Box::new(Fixed)).unwrap();
        let large = "x".repeat(101);
        for bad in [batch("out", &[(-1, None, &large)]), batch("out", &[(4, None, "v")]), batch("gone", &[(-1, None, "v")])] {
            assert!(writer.write(bad).is_err());
        }
    }

    #[test]
    fn two_attempts_write_different_files() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let mut names = Vec::new();
        for attempt in ["a1", "a2"] {
            let mut writer = StagingWriter::new(writer_context(&env, dir.path(), attempt), 1, Box::new(Fixed)).unwrap();
            writer.write(batch("out", &[(0, None, "v")])).unwrap();
            names.extend(seal(&mut writer, 1).into_iter().map(|s| s.name));
        }
        assert_ne!(names[0], names[1]);
    }
}
