//! The own producer: one batch a partition is filled, those of a leader leave in one request, up to five of which are on their way.
//!
//! Invariants: a batch is sent once, under the next sequence number of its partition, and only after its partition is part of
//! the transaction; what was not answered, or refused, ends the client. What waits is bounded, what is on its way lies with the
//! operating system.

use super::super::client::kind_of;
use super::super::config::KafkaConfig;
use super::super::marker::MarkerStore;
use super::super::protocol::codec::Codec;
use super::super::protocol::connection::{Connection, Timeouts};
use super::super::protocol::wire::Damaged;
use super::super::protocol::{code_of, damaged};
use super::batch::{Batch, Identity, Limits};
use super::cluster::Cluster;
use super::request::{self, Piece, Role, Speaker};
use super::{Transactions, Trouble};
use crate::kafka::config::PRODUCER;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Kind;
use waterwheel_engine::operators::LaneMarker;
use waterwheel_engine::record::{RawBatch, RawRecord};

/// Bytes that wait in batches, over all partitions; then all of them leave.
const WAITING: usize = 4 << 20;
/// Requests on their way to a leader: as many as a broker remembers the sequence numbers of.
const ON_THEIR_WAY: usize = 5;
/// How long giving up may take.
const ABANDON: Duration = Duration::from_secs(5);

/// The properties that this producer heeds; with any other one for writing, librdkafka writes.
const HEEDED: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "client.id",
    "compression.codec",
    "compression.type",
    "request.timeout.ms",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.timeout.ms",
    "transaction.timeout.ms",
    // Of librdkafka's own queues and connections; without a meaning here.
    "linger.ms",
    "metadata.max.age.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "topic.metadata.refresh.interval.ms",
];

/// A transactional producer over connections of its own.
pub(in super::super) struct Own {
    cluster: Cluster,
    store: Arc<MarkerStore>,
    limits: Limits,
    codec: Codec,
    ack_ms: i32,
    transaction_ms: i32,
    topics: Vec<Topic>,
    /// Where the last record went; the next one mostly goes there too.
    last: usize,
    /// Leaders that were written to.
    links: BTreeMap<i32, Link>,
    waiting: usize,
    /// Buffers of batches that have left, for the rest of the transaction.
    spare: Vec<Vec<u8>>,
    delivered: u64,
    /// The coordinator knows of the transaction, or may.
    is_begun: bool,
}

struct Topic {
    name: Arc<str>,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    batch: Option<Batch>,
    /// Of the next batch.
    sequence: i32,
    /// Part of the transaction.
    is_added: bool,
}

/// A topic and a partition, by their numbers.
type Place = (usize, usize);

/// A leader, and what it has not answered yet.
struct Link {
    connection: Connection,
    unanswered: VecDeque<Vec<Sent>>,
}

/// A batch on its way.
struct Sent {
    place: Place,
    records: u64,
}

impl Own {
    /// Whether the own producer can do what the properties say.
    pub(in super::super) fn fits(config: &KafkaConfig, id: &str) -> bool {
        config.get(PRODUCER) != Some("librdkafka")
            && config.get("security.protocol").is_none_or(|p| p.eq_ignore_ascii_case("plaintext"))
            && config.for_writing().all(|name| HEEDED.contains(&name))
            && Codec::named(codec(config)).is_some()
            && id.len() <= i16::MAX as usize
    }

    /// Not connected yet. `limit`: bytes that a batch may have; `timeout`: how long a transaction may be open.
    pub(in super::super) fn new(
        config: &KafkaConfig,
        store: Arc<MarkerStore>,
        env: Env,
        id: String,
        limit: u64,
        timeout: Duration,
    ) -> Self {
        let number = |name: &str| config.get(name).and_then(|v| v.parse::<u64>().ok());
        let narrow = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
        let client_id = config.get("client.id").unwrap_or("waterwheel").to_string();
        let timeouts = Timeouts {
            connect: config.millis("socket.connection.setup.timeout.ms", 10_000),
            answer: config.millis("socket.timeout.ms", 60_000),
        };
        let speaker = Speaker { client_id, id, who: Identity { producer: -1, epoch: -1 } };
        let limits = Limits {
            bytes: usize::try_from(number("batch.size").map_or(limit, |set| set.min(limit))).unwrap_or(usize::MAX),
            records: narrow(number("batch.num.messages").unwrap_or(u64::MAX)),
        };
        let marker = (store.group.clone(), store.topic.clone());
        Own {
            cluster: Cluster::new(store.consumer.clone(), env, speaker, timeouts, marker),
            store,
            limits,
            codec: Codec::named(codec(config)).unwrap_or(Codec::Plain),
            ack_ms: narrow(number("request.timeout.ms").unwrap_or(30_000)),
            transaction_ms: narrow(timeout.as_millis() as u64),
            topics: Vec::new(),
            last: 0,
            links: BTreeMap::new(),
            waiting: 0,
            spare: Vec::new(),
            delivered: 0,
            is_begun: false,
        }
    }

    fn register(&mut self, deadline: Duration) -> Result<(), Code> {
        let timeout = self.transaction_ms;
        let put = |speaker: &Speaker, out: &mut Vec<u8>, correlation| speaker.put_init(out, correlation, timeout);
        match self.cluster.ask(Role::Transaction, deadline, put, request::initialised)? {
            (Code::NoError, who) => {
                self.cluster.speaker.who = who;
                Ok(())
            }
            (code, _) => Err(code),
        }
    }

    /// Asks the coordinator of transactions for something that is done or not.
    fn request(&mut self, deadline: Duration, put: impl Fn(&Speaker, &mut Vec<u8>, i32)) -> Result<(), Code> {
        match self.cluster.ask(Role::Transaction, deadline, put, request::done)? {
            (Code::NoError, ()) => Ok(()),
            (code, ()) => Err(code),
        }
    }

    fn end(&mut self, commits: bool, deadline: Duration) -> Result<(), Code> {
        self.request(deadline, |speaker, out, correlation| speaker.put_end(out, correlation, commits))
    }

    /// Where a record goes. A partition is known from its first record on.
    fn place(&mut self, record: &RawRecord<'_>, deadline: Duration) -> Result<Place, Trouble> {
        let is_it = |topic: &Topic| Arc::ptr_eq(&topic.name, record.topic) || topic.name == *record.topic;
        if !self.topics.get(self.last).is_some_and(is_it) {
            self.last = self.topics.iter().position(is_it).unwrap_or(self.topics.len());
            if self.last == self.topics.len() {
                self.topics.push(Topic { name: record.topic.clone(), partitions: Vec::new() });
            }
        }
        let partitions = &mut self.topics[self.last].partitions;
        let at = usize::try_from(record.partition).unwrap_or(usize::MAX);
        if at >= partitions.len() {
            // Also tells whether there is such a partition.
            self.cluster.leader(record.topic, record.partition, deadline)?;
            partitions.resize_with(at + 1, Partition::default);
        }
        Ok((self.last, at))
    }

    /// Appends a record to its partition's batch, which leaves first if it is full.
    fn push(&mut self, record: &RawRecord<'_>, deadline: Duration) -> Result<(), Trouble> {
        let place = self.place(record, deadline)?;
        if !self.fill(place, record) {
            self.flush(vec![place], deadline)?;
            self.fill(place, record);
        }
        if self.waiting >= WAITING { self.flush(self.filled(), deadline) } else { Ok(()) }
    }

    fn fill(&mut self, (topic, partition): Place, record: &RawRecord<'_>) -> bool {
        let spare = &mut self.spare;
        let batch = self.topics[topic].partitions[partition].batch.get_or_insert_with(|| Batch::new(spare.pop().unwrap_or_default()));
        let before = batch.len();
        let fits = batch.push(record, self.limits);
        self.waiting += batch.len() - before;
        fits
    }

    /// Partitions with a batch, by topic.
    fn filled(&self) -> Vec<Place> {
        let of = |(t, topic): (usize, &Topic)| -> Vec<Place> {
            let filled = topic.partitions.iter().enumerate().filter(|(_, p)| p.batch.is_some());
            filled.map(|(p, _)| (t, p)).collect()
        };
        self.topics.iter().enumerate().flat_map(of).collect()
    }

    /// Sends the batches of these partitions.
    fn flush(&mut self, mut places: Vec<Place>, deadline: Duration) -> Result<(), Trouble> {
        self.add_partitions(deadline)?;
        while !places.is_empty() {
            // Those of a topic stand together, also after a second look for leaders.
            places.sort_unstable();
            let mut by_leader: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
            for (topic, partition) in places.drain(..) {
                let leader = self.cluster.leader(&self.topics[topic].name, partition as i32, deadline)?;
                by_leader.entry(leader).or_default().push((topic, partition));
            }
            for (leader, of_leader) in by_leader {
                match self.reach(leader, deadline) {
                    Ok(()) => self.produce(leader, &of_leader, deadline)?,
                    // Nothing of these has left: if others lead by now, they get it.
                    Err(code) if code != Code::UnsupportedVersion && self.cluster.now() < deadline => {
                        self.cluster.lose(leader);
                        places.extend(of_leader);
                    }
                    Err(code) => return Err(Trouble::Refused(code, format!("broker {leader}"))),
                }
            }
            if !places.is_empty() {
                self.cluster.rest();
            }
        }
        Ok(())
    }

    /// Makes all partitions that have records part of the transaction.
    fn add_partitions(&mut self, deadline: Duration) -> Result<(), Trouble> {
        let mut fresh = self.filled();
        fresh.retain(|(t, p)| !self.topics[*t].partitions[*p].is_added);
        if fresh.is_empty() {
            return Ok(());
        }
        self.is_begun = true;
        let names: Vec<(&str, i32)> = fresh.iter().map(|(t, p)| (&*self.topics[*t].name, *p as i32)).collect();
        let put = |speaker: &Speaker, out: &mut Vec<u8>, correlation| speaker.put_add_partitions(out, correlation, &names);
        let place = || names.first().map_or_else(String::new, |(topic, partition)| format!("{topic}/{partition}"));
        match self.cluster.ask(Role::Transaction, deadline, put, request::done_each) {
            Err(code) => return Err(Trouble::Refused(code, place())),
            Ok((Code::NoError, _)) => {}
            Ok((code, Some((topic, partition)))) => return Err(self.cluster.meant(code, &topic, partition, deadline)),
            Ok((code, None)) => return Err(Trouble::Refused(code, place())),
        }
        fresh.iter().for_each(|(t, p)| self.topics[*t].partitions[*p].is_added = true);
        Ok(())
    }

    fn reach(&mut self, leader: i32, deadline: Duration) -> Result<(), Code> {
        if !self.links.contains_key(&leader) {
            let connection = self.cluster.connect(leader, deadline).map_err(|e| code_of(&e))?;
            self.links.insert(leader, Link { connection, unanswered: VecDeque::new() });
        }
        Ok(())
    }

    /// Sends the batches of partitions that this broker leads, in one request.
    fn produce(&mut self, leader: i32, places: &[Place], deadline: Duration) -> Result<(), Trouble> {
        while self.links.get(&leader).is_some_and(|link| link.unanswered.len() >= ON_THEIR_WAY) {
            self.receive(leader, deadline)?;
        }
        let broken = |e: io::Error| Trouble::Refused(code_of(&e), format!("broker {leader}"));
        let mut batches = Vec::with_capacity(places.len());
        for &(t, p) in places {
            let partition = &mut self.topics[t].partitions[p];
            let Some(mut batch) = partition.batch.take() else { continue };
            self.waiting -= batch.len() - Batch::EMPTY;
            batch.seal(self.codec, self.cluster.speaker.who, partition.sequence).map_err(broken)?;
            partition.sequence = after(partition.sequence, batch.records());
            batches.push(((t, p), batch));
        }
        let Some(link) = self.links.get_mut(&leader) else { return Ok(()) };
        let topics = &self.topics;
        let pieces = batches.iter().map(|((t, p), batch)| Piece { topic: &topics[*t].name, partition: *p as i32, batch: batch.bytes() });
        let pieces: Vec<Piece<'_>> = pieces.collect();
        link.connection.allow(self.cluster.patience(deadline)).map_err(broken)?;
        let speaker = &self.cluster.speaker;
        link.connection.send_lent(|out, correlation| speaker.put_produce(out, correlation, self.ack_ms, &pieces)).map_err(broken)?;
        link.unanswered.push_back(batches.iter().map(|(place, b)| Sent { place: *place, records: b.records() as u64 }).collect());
        for (_, batch) in batches {
            let buffer = batch.into_buffer();
            if self.spare.iter().map(Vec::capacity).sum::<usize>() + buffer.capacity() <= WAITING {
                self.spare.push(buffer);
            }
        }
        Ok(())
    }

    /// Waits for one answer of a leader, and counts what it has.
    fn receive(&mut self, leader: i32, deadline: Duration) -> Result<(), Trouble> {
        let Some(link) = self.links.get_mut(&leader) else { return Ok(()) };
        let broken = |e: io::Error| Trouble::Refused(code_of(&e), format!("broker {leader}"));
        let patience = self.cluster.patience(deadline);
        let answer = link.connection.allow(patience).and_then(|()| link.connection.answer(Vec::new())).map_err(broken)?;
        // Not before: until then it may still come in.
        let sent = link.unanswered.pop_front().unwrap_or_default();
        let outcomes = request::produced(&answer).map_err(|Damaged(why)| broken(damaged(why)))?;
        for Sent { place: (t, p), records } in sent {
            let (topic, partition) = (&self.topics[t].name, p as i32);
            let found = outcomes.iter().find(|o| o.partition == partition && *o.topic == **topic);
            let found = found.ok_or_else(|| broken(damaged("an answer without one of the partitions")))?;
            if found.code != Code::NoError {
                if let Some(why) = &found.why {
                    tracing::debug!("{topic}/{partition} does not take a batch: {why}");
                }
                let topic = topic.clone();
                return Err(self.cluster.meant(found.code, &topic, partition, deadline));
            }
            self.delivered += records;
        }
        Ok(())
    }

    /// Waits for all answers; what they say is lost on who gives up.
    fn drain(&mut self, deadline: Duration) -> io::Result<()> {
        for link in self.links.values_mut() {
            while link.unanswered.pop_front().is_some() {
                link.connection.allow(self.cluster.patience(deadline))?;
                link.connection.answer(Vec::new())?;
            }
        }
        Ok(())
    }
}

impl Transactions for Own {
    fn fence(&mut self, limit: Duration) -> Result<(), (Code, bool)> {
        let deadline = self.cluster.now() + limit;
        self.register(deadline).map_err(|code| {
            self.cluster.reset();
            let is_retriable = kind_of(code) == Kind::Transient;
            if is_retriable {
                self.cluster.rest();
            }
            (code, is_retriable)
        })
    }

    fn is_troubled(&mut self) -> bool {
        // Trouble is an error here, and an error ends the client.
        false
    }

    fn begin(&mut self) -> Result<(), Code> {
        self.delivered = 0;
        self.is_begun = false;
        self.topics.iter_mut().flat_map(|t| &mut t.partitions).for_each(|p| p.is_added = false);
        // Brokers close connections that were not used for minutes; nothing is on its way now.
        self.cluster.tidy();
        self.links.retain(|_, link| link.connection.is_open());
        Ok(())
    }

    fn send(&mut self, batch: &RawBatch, deadline: Duration) -> Result<(), Trouble> {
        batch.records().try_for_each(|record| self.push(&record, deadline))
    }

    fn delivered(&mut self, deadline: Duration) -> Result<u64, Trouble> {
        self.flush(self.filled(), deadline)?;
        for leader in self.links.keys().copied().collect::<Vec<_>>() {
            while self.links.get(&leader).is_some_and(|link| !link.unanswered.is_empty()) {
                self.receive(leader, deadline)?;
            }
        }
        self.spare = Vec::new();
        Ok(self.delivered)
    }

    fn mark(&mut self, marker: &LaneMarker, deadline: Duration) -> Result<(), Trouble> {
        let (offset, metadata) = self.store.offset(marker)?;
        let (group, topic) = (self.cluster.group.clone(), self.cluster.topic.clone());
        let refused = |code| Trouble::Refused(code, format!("the marker of group {group}"));
        self.is_begun = true;
        self.request(deadline, |speaker, out, correlation| speaker.put_add_offsets(out, correlation, &group)).map_err(refused)?;
        let put = |speaker: &Speaker, out: &mut Vec<u8>, correlation| {
            speaker.put_offset(out, correlation, &group, &topic, (offset, metadata.as_str()));
        };
        match self.cluster.ask(Role::Group, deadline, put, request::done_each).map_err(refused)? {
            (Code::NoError, _) => Ok(()),
            (code, _) => match self.cluster.meant(code, &topic, 0, deadline) {
                Trouble::Refused(code, _) => Err(refused(code)),
                failed => Err(failed),
            },
        }
    }

    fn commit(&mut self, deadline: Duration) -> Result<(), Code> {
        if !self.is_begun {
            return Err(Code::State);
        }
        // Even a moment too late the broker tells what became of it.
        self.end(true, deadline.max(self.cluster.now() + Duration::from_secs(1)))
    }

    fn abandon(&mut self) {
        let deadline = self.cluster.now() + ABANDON;
        // A batch that came in behind the end of its transaction would hold readers up.
        let drained = self.drain(deadline).map_err(|e| code_of(&e));
        let is_begun = mem::take(&mut self.is_begun);
        if let Err(code) = drained.and_then(|()| if is_begun { self.end(false, deadline) } else { Ok(()) }) {
            tracing::debug!("a transaction was left to the next fence or its timeout: {code}");
        }
    }
}

/// The sequence number behind so many records; after the highest comes 0.
fn after(sequence: i32, records: i32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX)) as i32
}

/// How batches are to be packed; of the two names librdkafka takes the one that is told last, and ours are told in order.
fn codec(config: &KafkaConfig) -> &str {
    config.get("compression.type").or(config.get("compression.codec")).unwrap_or("none")
}
