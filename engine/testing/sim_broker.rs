//! A model of a broker: partitions, transactions with epochs and fencing, and every way an answer can go missing.
//!
//! It follows what was seen on Kafka 4.2 with a client of the first transaction protocol: records of an open transaction lie
//! in the log and hide what comes after from readers of what is committed; registering a transactional id anew shuts out
//! older producers and settles their transaction; a commit that was asked for may have happened although nobody was told,
//! and one that comes late acts on whatever transaction of that producer is open by then; a transaction that takes too long
//! is aborted and its producer shut out; the marker of a lane expires.
//!
//! Invariant: records and marker of a transaction become visible together or not at all; a fenced producer changes nothing.

use super::SimMachine;
use super::sim_env::lock;
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::operators::LaneMarker;
use crate::record::RawRecord;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a transaction may stay open.
pub(super) const TRANSACTION: Duration = Duration::from_secs(60);

/// What can go wrong with one request of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerFault {
    /// The request is refused for now (no leader, a timeout before it arrived) and changes nothing.
    Refused,
    /// It takes effect, and the answer is lost.
    LostAnswer,
    /// A commit is held up on its way and arrives later, when nobody waits for it any more.
    LateCommit,
    /// It takes longer than a transaction may.
    Slow,
}

impl BrokerFault {
    /// All of them.
    pub const ALL: [BrokerFault; 4] = [BrokerFault::Refused, BrokerFault::LostAnswer, BrokerFault::LateCommit, BrokerFault::Slow];

    fn name(self) -> &'static str {
        match self {
            BrokerFault::Refused => "request refused",
            BrokerFault::LostAnswer => "lost answer of the broker",
            BrokerFault::LateCommit => "late commit",
            BrokerFault::Slow => "slow request",
        }
    }
}

/// A record in a partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimRecord {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers as [`RawRecord::header_bytes`] gives them.
    pub headers: Vec<u8>,
}

impl SimRecord {
    /// Whether it holds what `record` does, wherever it lies.
    pub(super) fn is(&self, record: &RawRecord<'_>) -> bool {
        let same = self.key.as_deref() == record.key && self.value.as_deref() == record.value;
        same && self.timestamp == record.timestamp && self.headers == record.header_bytes()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open(u64),
    Committed,
    Aborted,
}

#[derive(Default)]
struct Partition {
    /// First offset that retention has left.
    start: i64,
    end: i64,
    records: Vec<(SimRecord, Fate)>,
}

struct Transaction {
    number: u64,
    since: Duration,
    marker: Option<LaneMarker>,
}

/// A transactional id.
#[derive(Default)]
struct Producer {
    epoch: u32,
    open: Option<Transaction>,
    marker: Option<LaneMarker>,
}

/// A commit on its way.
struct Late {
    producer: String,
    epoch: u32,
    due: Duration,
}

#[derive(Default)]
struct Cluster {
    topics: BTreeMap<String, Vec<Partition>>,
    producers: BTreeMap<String, Producer>,
    late: Vec<Late>,
    transactions: u64,
    requests: u64,
    armed: Vec<(u64, BrokerFault)>,
    away_until: Duration,
}

/// The broker. Cheap to clone; outlives every process that talks to it.
#[derive(Clone, Default)]
pub struct SimBroker(Arc<Mutex<Cluster>>);

impl SimBroker {
    /// A broker without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a topic, if it is not there.
    pub fn create(&self, topic: &str, partitions: u32) {
        let make = || (0..partitions).map(|_| Partition::default()).collect();
        lock(&self.0).topics.entry(topic.to_string()).or_insert_with(make);
    }

    /// Partitions of a topic; 0 when it is not there.
    pub fn partitions(&self, topic: &str) -> u32 {
        lock(&self.0).topics.get(topic).map_or(0, |t| t.len() as u32)
    }

    /// A record of somebody else, committed (or, with `aborted`, given up), after `gap` offsets that hold nothing.
    pub fn append(&self, topic: &str, partition: usize, gap: i64, record: SimRecord, aborted: bool) {
        let mut cluster = lock(&self.0);
        let Some(partition) = cluster.topics.get_mut(topic).and_then(|t| t.get_mut(partition)) else { return };
        let offset = partition.end + gap;
        partition.end = offset + 1;
        let fate = if aborted { Fate::Aborted } else { Fate::Committed };
        partition.records.push((SimRecord { offset, ..record }, fate));
    }

    /// First and next offset of a partition.
    pub fn bounds(&self, topic: &str, partition: usize) -> (i64, i64) {
        lock(&self.0).partition(topic, partition).map_or((0, 0), |p| (p.start, p.end))
    }

    /// Up to `max` committed records from `offset` on, and the offset after what was looked at. What an open transaction hides
    /// is not looked at.
    pub fn read(&self, topic: &str, partition: usize, offset: i64, max: usize) -> (Vec<SimRecord>, i64) {
        let cluster = lock(&self.0);
        let Some(partition) = cluster.partition(topic, partition) else { return (Vec::new(), offset) };
        let first = partition.records.partition_point(|(r, _)| r.offset < offset);
        let (mut records, mut next) = (Vec::new(), offset);
        for (record, fate) in &partition.records[first..] {
            if records.len() == max || matches!(fate, Fate::Open(_)) {
                return (records, next);
            }
            next = record.offset + 1;
            if *fate == Fate::Committed {
                records.push(record.clone());
            }
        }
        (records, partition.end.max(offset))
    }

    /// All that is committed in a topic, by partition.
    pub fn committed(&self, topic: &str) -> Vec<Vec<SimRecord>> {
        (0..self.partitions(topic)).map(|p| self.read(topic, p as usize, i64::MIN, usize::MAX).0).collect()
    }

    /// Retention deletes what lies below an offset.
    pub fn trim(&self, topic: &str, partition: usize, below: i64) {
        if let Some(partition) = lock(&self.0).topics.get_mut(topic).and_then(|t| t.get_mut(partition)) {
            partition.start = partition.start.max(below.min(partition.end));
        }
    }

    /// Compaction: of the committed records of a key the newest stays, where it lies; what was given up goes. What a reader gets
    /// who comes back is not what it got before.
    pub fn compact(&self, topic: &str) {
        for partition in lock(&self.0).topics.get_mut(topic).into_iter().flatten() {
            let newest: BTreeMap<Vec<u8>, i64> =
                partition.records.iter().filter(|r| r.1 == Fate::Committed).filter_map(|r| Some((r.0.key.clone()?, r.0.offset))).collect();
            partition.records.retain(|(record, fate)| match (fate, &record.key) {
                (Fate::Open(_), _) | (Fate::Committed, None) => true,
                (Fate::Committed, Some(key)) => newest.get(key) == Some(&record.offset),
                (Fate::Aborted, _) => false,
            });
        }
    }

    /// The broker answers nobody until then.
    pub fn away_until(&self, until: Duration) {
        lock(&self.0).away_until = until;
    }

    /// The `requests`-th request of a publisher from now, or a later one that can, meets this fault.
    pub fn arm(&self, requests: u64, fault: BrokerFault) {
        let mut cluster = lock(&self.0);
        let at = cluster.requests + requests;
        cluster.armed.push((at, fault));
    }

    /// No fault is to come any more; a commit that is on its way still arrives.
    pub fn disarm(&self) {
        let mut cluster = lock(&self.0);
        cluster.armed.clear();
        cluster.away_until = Duration::ZERO;
    }

    /// Every marker is forgotten, as a week after its last commit.
    pub fn expire_markers(&self) {
        lock(&self.0).producers.values_mut().for_each(|p| p.marker = None);
    }

    /// Whether it answers.
    pub(super) fn is_away(&self, now: Duration) -> bool {
        lock(&self.0).away_until > now
    }

    // ---- requests of a publisher

    /// Registers a transactional id: shuts out older producers, settles their transaction. Gives the new epoch.
    pub(super) fn register(&self, machine: &SimMachine, id: &str) -> Result<u32> {
        self.request(machine, false, |cluster, _| {
            if let Some(older) = cluster.producers.get(id).filter(|_| planted(Bug::SkipFence)) {
                return Ok(older.epoch);
            }
            cluster.end(id, false);
            let producer = cluster.producers.entry(id.to_string()).or_default();
            producer.epoch += 1;
            Ok(producer.epoch)
        })
    }

    /// The marker; a transaction that holds another one is waited for.
    pub(super) fn marker(&self, machine: &SimMachine, id: &str) -> Result<Option<LaneMarker>> {
        self.request(machine, false, |cluster, _| {
            let Some(producer) = cluster.producers.get(id) else { return Ok(None) };
            match &producer.open {
                Some(open) if open.marker.is_some() => Err(Error::transient("a transaction with a marker is open")),
                _ => Ok(producer.marker.clone()),
            }
        })
    }

    /// Adds records to the producer's transaction, which begins if none is open.
    pub(super) fn produce(&self, machine: &SimMachine, id: &str, epoch: u32, records: &[RawRecord<'_>]) -> Result<()> {
        self.request(machine, false, |cluster, now| {
            let number = cluster.transaction(id, epoch, now)?.number;
            for record in records {
                let partition = cluster.topics.get_mut(&**record.topic).and_then(|t| t.get_mut(record.partition as usize));
                let Some(partition) = partition else {
                    return Err(Error::fatal(format!("{}/{} is not there", record.topic, record.partition)));
                };
                let stored = SimRecord {
                    offset: partition.end,
                    timestamp: record.timestamp,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record.header_bytes().to_vec(),
                };
                partition.end += 1;
                partition.records.push((stored, Fate::Open(number)));
            }
            Ok(())
        })
    }

    /// Adds the marker to the producer's transaction.
    pub(super) fn mark(&self, machine: &SimMachine, id: &str, epoch: u32, marker: &LaneMarker) -> Result<()> {
        self.request(machine, false, |cluster, now| {
            cluster.transaction(id, epoch, now)?.marker = Some(marker.clone());
            Ok(())
        })
    }

    /// Commits the producer's transaction.
    pub(super) fn commit(&self, machine: &SimMachine, id: &str, epoch: u32) -> Result<()> {
        let late = self.request(machine, true, |cluster, now| {
            cluster.check(id, epoch)?;
            if let Some(at) = cluster.armed.iter().position(|(_, f)| *f == BrokerFault::LateCommit).filter(|at| cluster.is_due(*at)) {
                cluster.armed.swap_remove(at);
                let due = now + Duration::from_millis(machine.choose(200) as u64);
                cluster.late.push(Late { producer: id.to_string(), epoch, due });
                return Ok(true);
            }
            cluster.end(id, true);
            Ok(false)
        })?;
        if late {
            machine.note(BrokerFault::LateCommit.name());
            return Err(Error::transient("the broker does not answer the commit"));
        }
        Ok(())
    }

    fn request<R>(&self, machine: &SimMachine, commits: bool, act: impl FnOnce(&mut Cluster, Duration) -> Result<R>) -> Result<R> {
        machine.call().map_err(|e| Error::restart(e.to_string()))?;
        let fault = self.next_fault(machine, commits);
        if fault == Some(BrokerFault::Slow) {
            machine.advance(TRANSACTION + Duration::from_secs(1));
        }
        let mut cluster = lock(&self.0);
        let now = machine.now();
        cluster.pass_time(now);
        if cluster.away_until > now {
            machine.note("broker away");
            return Err(Error::transient("the broker is away"));
        }
        if fault == Some(BrokerFault::Refused) {
            return Err(Error::transient("the broker refuses for now"));
        }
        let answer = act(&mut cluster, now);
        if fault == Some(BrokerFault::LostAnswer) && answer.is_ok() {
            return Err(Error::transient("the answer of the broker is lost"));
        }
        answer
    }

    fn next_fault(&self, machine: &SimMachine, commits: bool) -> Option<BrokerFault> {
        let mut cluster = lock(&self.0);
        cluster.requests += 1;
        // Lost answers matter most at a commit, so most of them wait for one.
        let fits = |fault| match fault {
            BrokerFault::LateCommit => false,
            BrokerFault::LostAnswer => commits || cluster.requests.is_multiple_of(3),
            BrokerFault::Refused | BrokerFault::Slow => true,
        };
        let at = cluster.armed.iter().enumerate().position(|(at, (_, fault))| cluster.is_due(at) && fits(*fault))?;
        let fault = cluster.armed.swap_remove(at).1;
        drop(cluster);
        machine.note(fault.name());
        Some(fault)
    }
}

impl Cluster {
    fn partition(&self, topic: &str, partition: usize) -> Option<&Partition> {
        self.topics.get(topic)?.get(partition)
    }

    fn is_due(&self, at: usize) -> bool {
        self.armed[at].0 <= self.requests
    }

    /// The producer is the newest of its id.
    fn check(&self, id: &str, epoch: u32) -> Result<()> {
        match self.producers.get(id) {
            Some(producer) if producer.epoch == epoch => Ok(()),
            _ => Err(Error::transient("another publisher took the lane over, or the transaction ran into its timeout")),
        }
    }

    fn transaction(&mut self, id: &str, epoch: u32, now: Duration) -> Result<&mut Transaction> {
        self.check(id, epoch)?;
        let number = self.transactions + 1;
        let producer = self.producers.entry(id.to_string()).or_default();
        if producer.open.is_none() {
            self.transactions = number;
        }
        Ok(producer.open.get_or_insert(Transaction { number, since: now, marker: None }))
    }

    /// Ends the open transaction of an id, if there is one.
    fn end(&mut self, id: &str, commit: bool) {
        let Some(producer) = self.producers.get_mut(id) else { return };
        let Some(Transaction { number, marker, .. }) = producer.open.take() else { return };
        if commit && marker.is_some() {
            producer.marker = marker;
        }
        let fate = if commit { Fate::Committed } else { Fate::Aborted };
        for partition in self.topics.values_mut().flatten() {
            let mut touched = false;
            for (_, f) in partition.records.iter_mut().rev().filter(|(_, f)| *f == Fate::Open(number)) {
                (*f, touched) = (fate, true);
            }
            // The end of a transaction takes an offset.
            partition.end += i64::from(touched);
        }
    }

    /// What happens by itself: late commits arrive, transactions run into their timeout.
    fn pass_time(&mut self, now: Duration) {
        let (due, waiting) = std::mem::take(&mut self.late).into_iter().partition(|late| late.due <= now);
        self.late = waiting;
        let due: Vec<Late> = due;
        for late in due {
            if self.check(&late.producer, late.epoch).is_ok() {
                self.end(&late.producer, true);
            }
        }
        let over = |p: &Producer| p.open.as_ref().is_some_and(|open| now.saturating_sub(open.since) >= TRANSACTION);
        let ids: Vec<String> = self.producers.iter().filter(|(_, p)| over(p)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.end(&id, false);
            if let Some(producer) = self.producers.get_mut(&id) {
                producer.epoch += 1;
            }
        }
    }
}
