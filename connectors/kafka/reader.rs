//! The reading half: one fetcher or consumer per task, one queue per partition, drained round robin into arenas of bytes.
//!
//! A split is first checked in the background ([`super::check`]), then assigned. Trouble with the broker is waited out here:
//! librdkafka reconnects by itself, a probe notices when it has.
//!
//! Invariants: offsets of a split only grow: what comes below the next one expected is dropped. All rows of a batch are of
//! one split. Positions are never asked of librdkafka (its own are off by one after an end-of-partition event).

use super::client::{self, Client, coded, text};
use super::config::KafkaConfig;
use super::fetch::{Feed, Fetched, Fetcher, PartitionQueue, Record};
use super::{check, client::kind_of};
use crate::topics::SourceOptions;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;
use waterwheel_engine::error::{Error, Kind, Result};
use waterwheel_engine::operators::{Poll, ReaderContext, SourceReader, SplitId, SplitState};
use waterwheel_engine::record::{Batch, RawBatch, RawRecord};

/// A batch is cut at about this many bytes: it should still be in the cache when it is decoded.
const BATCH_BYTES: usize = 1 << 19;
/// Records per call into a feed.
const CHUNK: usize = 512;
/// Prefetched bytes and records of a task, over all its partitions.
const PREFETCH_KB: usize = 65_536;
const PREFETCH_RECORDS: usize = 100_000;
/// Error events are looked at when nothing came, and after this many batches.
const EVENTS_EVERY: u32 = 64;
/// Between two tries to reach a broker that is away.
const PAUSE: Duration = Duration::from_secs(1);

/// What a check hands back: the splits it was given, and where each begins.
type Checked = (Vec<SplitState>, Result<Vec<i64>>);

pub(super) struct KafkaReader {
    context: ReaderContext,
    config: KafkaConfig,
    options: SourceOptions,
    /// Before `consumer`: queues are freed first.
    splits: Vec<Reading>,
    /// Reads, wherever it can; the consumer does else.
    fetcher: Option<Fetcher>,
    /// Whether splits that begin now are read by the fetcher.
    own: bool,
    consumer: Option<Arc<Client>>,
    cursor: usize,
    since_events: u32,
    /// Splits that are held back, also those that are not read yet.
    held: BTreeSet<SplitId>,
    /// Splits whose position is yet to be checked, and the check under way.
    unchecked: Vec<SplitState>,
    checking: Option<Receiver<Checked>>,
    check_after: Duration,
    trouble: Option<String>,
    probing: Arc<AtomicBool>,
    probe_after: Duration,
}

/// One split being read.
struct Reading {
    state: SplitState,
    /// Offset of the next record.
    next: i64,
    /// What the task was told; less than `next` after a jump over a gap.
    told: i64,
    ended: bool,
    feed: Feed,
    failure: Option<(Code, String)>,
    /// Records and bytes to make room for.
    room: (usize, usize),
}

impl KafkaReader {
    pub(super) fn new(context: ReaderContext, config: KafkaConfig, options: SourceOptions) -> Self {
        KafkaReader {
            own: Fetcher::fits(&config),
            fetcher: None,
            context,
            config,
            options,
            splits: Vec::new(),
            consumer: None,
            cursor: 0,
            since_events: 0,
            held: BTreeSet::new(),
            unchecked: Vec::new(),
            checking: None,
            check_after: Duration::ZERO,
            trouble: None,
            probing: Arc::default(),
            probe_after: Duration::ZERO,
        }
    }

    /// Moves a check on: begins one, or takes its result.
    fn check(&mut self) -> Result<()> {
        let now = self.context.open.env.clock.monotonic();
        if let Some(result) = &self.checking {
            let (splits, outcome) = match result.try_recv() {
                Ok(checked) => checked,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Error::restart("checking positions broke off")),
            };
            self.checking = None;
            match outcome {
                Ok(starts) => {
                    self.trouble = None;
                    self.begin(splits, &starts)?;
                }
                Err(e) if e.kind() == Kind::Transient => {
                    self.trouble = Some(e.to_string());
                    self.check_after = now + PAUSE;
                    self.unchecked.extend(splits);
                }
                Err(e) => return Err(e),
            }
        }
        if !self.unchecked.is_empty() && self.checking.is_none() && now >= self.check_after {
            let splits = std::mem::take(&mut self.unchecked);
            let (done, result) = channel();
            let (config, policy, waker) = (self.config.clone(), self.options.on_lost_offsets, self.context.waker.clone());
            let open = &self.context.open;
            let job = move || {
                let outcome = check::positions(&config, policy, &splits);
                let _ = done.send((splits, outcome));
                waker();
            };
            open.env.background.run(&format!("kafka check {}/{}", open.operator, open.index), Box::new(job));
            self.checking = Some(result);
        }
        Ok(())
    }

    /// Assigns splits, each from its offset.
    fn begin(&mut self, splits: Vec<SplitState>, starts: &[i64]) -> Result<()> {
        let consumer = match &self.consumer {
            Some(consumer) => consumer.clone(),
            None => self.connect(splits.len())?,
        };
        let mut list = TopicPartitionList::with_capacity(splits.len());
        for (state, &start) in splits.into_iter().zip(starts) {
            let id = &state.split.id;
            let feed = if self.own {
                Feed::Own(self.fetcher(&consumer).assign(&state, start))
            } else {
                let queue = PartitionQueue::open(&consumer, &id.name, id.partition, self.context.waker.clone());
                list.add_partition_offset(&id.name, id.partition, Offset::Offset(start)).map_err(|e| Error::fatal(format!("{id}: {e}")))?;
                Feed::Native(queue.ok_or_else(|| Error::fatal(format!("{id} cannot be read: no such partition")))?)
            };
            self.splits.push(Reading {
                next: start,
                told: start.min(state.position),
                ended: false,
                feed,
                failure: None,
                room: (0, 0),
                state,
            });
        }
        if list.count() == 0 {
            return Ok(());
        }
        consumer.incremental_assign(&list).map_err(|e| Error::restart(format!("assigning partitions: {e}")))
    }

    fn fetcher(&mut self, consumer: &Arc<Client>) -> &Fetcher {
        self.fetcher.get_or_insert_with(|| {
            let open = &self.context.open;
            let name = format!("kafka fetch {}/{}", open.operator, open.index);
            Fetcher::new(&self.config, consumer.clone(), &open.env, name, self.context.waker.clone())
        })
    }

    /// The consumer, its prefetch shared out over the partitions.
    fn connect(&mut self, partitions: usize) -> Result<Arc<Client>> {
        let kilobytes = (PREFETCH_KB / partitions.max(1)).max(1024).to_string();
        let records = (PREFETCH_RECORDS / partitions.max(1)).max(1000).to_string();
        let defaults = [("queued.max.messages.kbytes", kilobytes.as_str()), ("queued.min.messages", records.as_str())];
        let group = self.options.group.as_deref().unwrap_or("waterwheel");
        let consumer = Arc::new(client::create(&self.config, &self.config.consumer(group, &defaults))?);
        self.consumer = Some(consumer.clone());
        Ok(consumer)
    }

    /// Takes what is there for one split; `None` when there is nothing.
    fn drain(&mut self, at: usize) -> Result<Option<Poll>> {
        if let Some((code, why)) = self.splits[at].failure.take() {
            self.failed(at, code, &why)?;
            return Ok(None);
        }
        let batch_rows = self.context.batch_rows;
        let Reading { state, next, told, feed, failure, ended, room, .. } = &mut self.splits[at];
        let (id, end) = (&state.split.id, state.split.end);
        let mut batch = RawBatch::default();
        let mut answered = false;
        while batch.len() < batch_rows && batch.data_len() < BATCH_BYTES && failure.is_none() {
            let want = CHUNK.min(batch_rows - batch.len());
            let took = feed.take(want, |fetched| match fetched {
                // What follows a failure is read again, after it is settled.
                _ if failure.is_some() => {}
                Fetched::Record(Record { offset, timestamp, key, value, headers, logged, lender }) => {
                    answered = true;
                    if offset >= *next && end.is_none_or(|end| offset < end) {
                        if batch.is_empty() {
                            // Room for what the last one held: growing copies everything.
                            batch = RawBatch::with_capacity(room.0, room.1);
                        }
                        batch.from_log(logged);
                        let record = RawRecord::new(&id.name, id.partition, offset, timestamp, key, value, headers);
                        match lender {
                            Some(lender) => batch.push_lent(record, lender),
                            None => batch.push(record),
                        }
                        *next = offset + 1;
                    } else if offset >= *next {
                        *next = end.unwrap_or(offset);
                    }
                }
                Fetched::End(offset) => {
                    answered = true;
                    *next = (*next).max(offset);
                }
                Fetched::Failed(code, why) => *failure = Some((code, why)),
            });
            if took < want {
                break;
            }
        }
        *next = end.map_or(*next, |end| (*next).min(end));
        if !batch.is_empty() {
            let (records, bytes) = batch.room();
            *room = (records + records / 8, bytes + bytes / 8);
        }
        let (split, next) = (id.clone(), *next);
        // Without rows the position may still have moved: over control records, or aborted ones.
        let poll = if next > *told {
            *told = next;
            Some(Poll::Batch { split, batch: Box::new(batch), next })
        } else {
            *ended = end.is_some_and(|end| next >= end);
            ended.then_some(Poll::Ended { split })
        };
        if answered && let Some(consumer) = &self.consumer {
            consumer.context().calm();
        }
        Ok(poll)
    }

    /// What to do when reading a partition failed.
    fn failed(&mut self, at: usize, code: Code, why: &str) -> Result<()> {
        let id = self.splits[at].state.split.id.clone();
        let doing = format!("reading {id}");
        match code {
            Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::LogTruncation
            | Code::NoOffset
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicId => {
                // The check knows why, and what the user wants done.
                self.take_back(at)
            }
            Code::UnsupportedVersion if self.own => {
                tracing::info!("{doing}: librdkafka reads here ({why})");
                self.own = false;
                self.take_back(at)
            }
            code if kind_of(code) == Kind::Transient => {
                if let Some(consumer) = &self.consumer {
                    consumer.context().note(&format!("{doing}: {}", text(code)));
                }
                Ok(())
            }
            Code::BadMessage | Code::BadCompression => {
                Err(Error::restart(format!("{doing}: a damaged record batch at offset {} or later: {why}", self.splits[at].next))
                    .at(self.config.place())
                    .help("if it comes again, the damage is on the broker's disk: look at its log"))
            }
            code => Err(coded(code, &doing, &self.config.place())),
        }
    }

    /// Takes a split back from its feed and has its position checked again.
    fn take_back(&mut self, at: usize) -> Result<()> {
        let reading = self.splits.swap_remove(at);
        let id = &reading.state.split.id;
        if let (Feed::Native(_), Some(consumer)) = (&reading.feed, &self.consumer) {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition(&id.name, id.partition);
            consumer.incremental_unassign(&list).map_err(|e| Error::restart(format!("giving {id} back: {e}")))?;
        }
        self.check_after = self.context.open.env.clock.monotonic() + PAUSE / 4;
        self.unchecked.push(SplitState { position: reading.next, ..reading.state });
        Ok(())
    }

    /// Lets librdkafka's events reach [`client::Events`].
    fn events(&mut self) {
        self.since_events = 0;
        let Some(consumer) = &self.consumer else { return };
        // One call, one event; a handful is plenty, they are rare.
        for _ in 0..8 {
            match consumer.poll(Duration::ZERO) {
                None => break,
                Some(Ok(_)) => tracing::error!("a record came by the wrong queue"),
                Some(Err(e)) => tracing::debug!("{e}"),
            }
        }
    }

    /// Asks the broker, in the background, whether the trouble is over.
    fn probe(&mut self) {
        let (Some(consumer), Some(reading)) = (&self.consumer, self.splits.first()) else { return };
        let env = &self.context.open.env;
        let now = env.clock.monotonic();
        if now < self.probe_after || self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.probe_after = now + PAUSE;
        let (consumer, topic) = (consumer.clone(), reading.state.split.id.name.clone());
        let (probing, waker) = (self.probing.clone(), self.context.waker.clone());
        let job = move || {
            if consumer.fetch_metadata(Some(&topic), client::ASK).is_ok() {
                consumer.context().calm();
                waker();
            }
            probing.store(false, Ordering::Release);
        };
        env.background.run(&format!("kafka check {}/{}", self.context.open.operator, self.context.open.index), Box::new(job));
    }
}

impl SourceReader for KafkaReader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        self.unchecked.extend(splits.iter().cloned());
        self.check()
    }

    fn poll(&mut self) -> Result<Poll> {
        if self.checking.is_some() || !self.unchecked.is_empty() {
            self.check()?;
        }
        self.since_events += 1;
        if self.since_events >= EVENTS_EVERY {
            self.events();
        }
        for _ in 0..self.splits.len() {
            self.cursor = (self.cursor + 1) % self.splits.len().max(1);
            match self.splits.get(self.cursor) {
                Some(reading) if !reading.ended && !self.held.contains(&reading.state.split.id) => {}
                _ => continue,
            }
            if let Some(poll) = self.drain(self.cursor)? {
                return Ok(poll);
            }
        }
        self.events();
        let away = self.trouble.clone().or_else(|| self.consumer.as_ref().and_then(|c| c.context().trouble()));
        match away {
            Some(why) => {
                self.probe();
                Ok(Poll::Waiting(format!("{}: {why}", self.config.place())))
            }
            None => Ok(Poll::Empty),
        }
    }

    fn hold_back(&mut self, split: &SplitId, hold: bool) {
        match hold {
            true => drop(self.held.insert(split.clone())),
            false => drop(self.held.remove(split)),
        }
    }

    fn committed(&mut self, positions: &[(SplitId, i64)]) {
        let (Some(_), Some(consumer)) = (&self.options.group, &self.consumer) else { return };
        let mut list = TopicPartitionList::new();
        for (id, position) in positions.iter().filter(|(id, _)| self.splits.iter().any(|r| r.state.split.id == *id)) {
            if let Err(e) = list.add_partition_offset(&id.name, id.partition, Offset::Offset(*position)) {
                tracing::debug!("{id}: {e}");
            }
        }
        if list.count() > 0
            && let Err(e) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!("group offsets were not committed: {e}");
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // Closing a consumer may wait for its threads: not on the task's.
        let (fetcher, splits, consumer) = (self.fetcher.take(), std::mem::take(&mut self.splits), self.consumer.take());
        // At once: a broker holds answers back for long.
        drop(fetcher);
        let close = move || {
            drop(splits);
            drop(consumer);
        };
        self.context.open.env.background.run("kafka close", Box::new(close));
    }
}
