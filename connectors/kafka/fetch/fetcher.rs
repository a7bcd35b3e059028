//! The own fetcher: the partitions of one reader, a thread for each broker that leads some of them.
//!
//! A thread asks its broker for all its partitions that have room, in one request; the next leaves as soon as the headers of
//! the answer's batches are read, while the task decodes. A partition without a leader is looked up, in the background.
//!
//! Invariants: a partition is asked by one thread at a time, from the offset after its last whole batch, and an answer counts
//! only if the partition still is what it was when asked; a partition that failed is not asked again; a closed fetcher's
//! threads end, at the latest, when the broker answers.

use super::super::client::{ASK, Client, kind_of, text};
use super::pool::Pool;
use super::records::{Records, walk};
use super::request::{self, Answer, Ask, Limits};
use super::{Fetched, Wake};
use crate::kafka::config::{FETCHER, KafkaConfig};
use crate::kafka::protocol::connection::{Connection, Timeouts};
use crate::kafka::protocol::damaged;
use bytes::Bytes;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Kind;
use waterwheel_engine::operators::SplitState;

/// Bytes asked of a partition at once: they are decoded while they are in the cache.
const PARTITION_BYTES: u64 = 512 << 10;
/// Bytes of an answer, over all partitions; a larger batch comes whole all the same.
const ANSWER_BYTES: u64 = 8 << 20;
/// Bytes that wait for the task, over all partitions.
const QUEUED_BYTES: usize = 64 << 20;
/// A partition with this many waiting is not asked.
const ENOUGH: usize = 1 << 20;
/// While some partitions are not asked the broker may not hold an answer back for longer: they may have room any moment.
const SHORT_WAIT_MS: i32 = 10;
/// Between two tries to find or reach a broker.
const RETRY: Duration = Duration::from_millis(250);

/// The properties that this fetcher heeds; with any other one for reading, librdkafka reads.
const HEEDED: &[&str] = &[
    "client.id",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "max.partition.fetch.bytes",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.timeout.ms",
    // Of librdkafka's own queues and connections; without a meaning here.
    "fetch.queue.backoff.ms",
    "metadata.max.age.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "topic.metadata.refresh.interval.ms",
];

/// Reads partitions over connections of its own.
pub(in super::super) struct Fetcher(Arc<Shared>);

struct Shared {
    client: Arc<Client>,
    env: Env,
    /// What the names of its threads begin with.
    name: String,
    limits: Limits,
    timeouts: Timeouts,
    wake: Wake,
    pool: Arc<Pool>,
    state: Mutex<State>,
    /// Something in `state` or the room of a queue changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// A thread is looking for leaders.
    looking: bool,
    partitions: Vec<Partition>,
    /// Those with a thread of their own, by id.
    brokers: BTreeMap<i32, Broker>,
}

struct Broker {
    address: (String, u16),
    socket: Option<TcpStream>,
}

struct Partition {
    ask: Ask,
    /// Nothing at or after it is wanted.
    end: Option<i64>,
    leader: Option<i32>,
    /// Waits for its reader to take it back.
    failed: bool,
    /// The end that was told last.
    told: i64,
    queue: Arc<Queue>,
}

impl Partition {
    fn is_wanted(&self) -> bool {
        !self.failed && self.end.is_none_or(|end| self.ask.offset < end)
    }

    fn fail(&mut self, code: Code, why: String) {
        self.failed = true;
        self.queue.push(Chunk::Failed(code, why), 0);
    }
}

/// What waits for the task.
#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<(Chunk, usize)>,
    bytes: usize,
}

enum Chunk {
    /// Records, and the offset after them.
    Records(Box<Records>, i64),
    End(i64),
    Failed(Code, String),
}

impl Queue {
    fn push(&self, chunk: Chunk, bytes: usize) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += bytes;
        waiting.chunks.push_back((chunk, bytes));
    }

    fn bytes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

/// One partition as its reader has it.
pub(in super::super) struct Assigned {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    current: Option<(Box<Records>, i64)>,
}

impl Assigned {
    /// As [`Feed::take`](super::Feed::take).
    pub(super) fn take(&mut self, limit: usize, mut each: impl FnMut(Fetched<'_>)) -> usize {
        let mut taken = 0;
        loop {
            if let Some((records, after)) = &mut self.current {
                let got = records.take(limit - taken, |r| {
                    each(Fetched::Record(r));
                });
                match got {
                    Ok(n) if taken + n == limit => return limit,
                    Ok(n) => {
                        taken += n;
                        each(Fetched::End(*after));
                    }
                    Err(damage) => each(Fetched::Failed(Code::BadMessage, damage.to_string())),
                }
                self.current = None;
            }
            match self.next() {
                None => return taken,
                Some(Chunk::Records(records, after)) => self.current = Some((records, after)),
                Some(Chunk::End(offset)) => each(Fetched::End(offset)),
                Some(Chunk::Failed(code, why)) => each(Fetched::Failed(code, why)),
            }
        }
    }

    fn next(&self) -> Option<Chunk> {
        let mut waiting = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, bytes) = waiting.chunks.pop_front()?;
        waiting.bytes -= bytes;
        drop(waiting);
        if bytes > 0 {
            // Under the lock, so that a thread which just saw no room is already waiting.
            let _state = self.shared.lock();
            self.shared.changed.notify_all();
        }
        Some(chunk)
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.shared.lock().partitions.retain(|p| !Arc::ptr_eq(&p.queue, &self.queue));
    }
}

impl Fetcher {
    /// Whether the own fetcher can do what the properties say.
    pub(in super::super) fn fits(config: &KafkaConfig) -> bool {
        config.get(FETCHER) != Some("librdkafka")
            && config.get("security.protocol").is_none_or(|p| p.eq_ignore_ascii_case("plaintext"))
            && config.for_reading().all(|name| HEEDED.contains(&name))
    }

    /// A fetcher without partitions. `name` is its own among those that live.
    pub(in super::super) fn new(config: &KafkaConfig, client: Arc<Client>, env: &Env, name: String, wake: Wake) -> Self {
        let number = |name: &str, default: u64| config.get(name).and_then(|v| v.parse().ok()).unwrap_or(default);
        let narrow = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
        let limits = Limits {
            client_id: config.get("client.id").unwrap_or("waterwheel").to_string(),
            wait_ms: narrow(number("fetch.wait.max.ms", 500)),
            min_bytes: narrow(number("fetch.min.bytes", 1)),
            max_bytes: narrow(number("fetch.max.bytes", ANSWER_BYTES)),
            partition_bytes: narrow(number("max.partition.fetch.bytes", number("fetch.message.max.bytes", PARTITION_BYTES))),
        };
        let timeouts = Timeouts {
            connect: config.millis("socket.connection.setup.timeout.ms", 10_000),
            answer: config.millis("socket.timeout.ms", 60_000) + Duration::from_millis(limits.wait_ms as u64),
        };
        let (state, changed, pool) = (Mutex::default(), Condvar::new(), Arc::default());
        Fetcher(Arc::new(Shared { client, env: env.clone(), name, limits, timeouts, wake, pool, state, changed }))
    }

    /// Begins to read a split at an offset.
    pub(in super::super) fn assign(&self, split: &SplitState, offset: i64) -> Assigned {
        let queue = Arc::new(Queue::default());
        let id = &split.split.id;
        let topic_id = split.split.topic_id.as_deref().and_then(request::uuid);
        let ask = Ask { topic: id.name.clone(), topic_id, partition: id.partition, offset, last_epoch: -1 };
        let mut state = self.0.lock();
        state.partitions.push(Partition { ask, end: split.split.end, leader: None, failed: false, told: -1, queue: queue.clone() });
        self.0.look(&mut state);
        Assigned { shared: self.0.clone(), queue, current: None }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        for socket in state.brokers.values().filter_map(|b| b.socket.as_ref()) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.0.changed.notify_all();
    }
}

/// A request about to be made: what is asked, and for whom.
struct Round {
    asks: Vec<Ask>,
    queues: Vec<Arc<Queue>>,
    address: (String, u16),
    wait_ms: i32,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes or the time is over.
    fn pause<'a>(&'a self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits this long unless the fetcher is closed.
    fn rest(&self, time: Duration) {
        let until = self.env.clock.monotonic() + time;
        let mut state = self.lock();
        while !state.closed
            && let Some(left) = until.checked_sub(self.env.clock.monotonic()).filter(|left| !left.is_zero())
        {
            state = self.pause(state, left);
        }
    }

    // Leaders.

    /// Has leaders looked for, unless that is under way.
    fn look(self: &Arc<Self>, state: &mut State) {
        if !state.looking {
            state.looking = true;
            let shared = self.clone();
            self.env.background.run(&format!("{} leaders", self.name), Box::new(move || shared.find_leaders()));
        }
    }

    /// Until every partition has a leader.
    fn find_leaders(self: Arc<Self>) {
        loop {
            let mut state = self.lock();
            let mut topics: Vec<Arc<str>> =
                state.partitions.iter().filter(|p| p.leader.is_none() && !p.failed).map(|p| p.ask.topic.clone()).collect();
            topics.sort();
            topics.dedup();
            if state.closed || topics.is_empty() {
                state.looking = false;
                return;
            }
            drop(state);
            let found = topics.iter().filter(|topic| self.find_leaders_of(topic)).count();
            if found < topics.len() {
                self.rest(RETRY);
            }
        }
    }

    /// Whether all partitions of the topic have a leader now.
    fn find_leaders_of(self: &Arc<Self>, topic: &str) -> bool {
        let metadata = match self.client.fetch_metadata(Some(topic), ASK) {
            Ok(metadata) => metadata,
            Err(e) => {
                self.client.context().note(&format!("asking who leads {topic}: {e}"));
                return false;
            }
        };
        let Some(found) = metadata.topics().first() else { return false };
        let mut state = self.lock();
        let State { partitions, brokers, .. } = &mut *state;
        let mut fresh = Vec::new();
        for p in partitions.iter_mut().filter(|p| *p.ask.topic == *topic && p.leader.is_none() && !p.failed) {
            let leader = found.partitions().iter().find(|f| f.id() == p.ask.partition && f.leader() >= 0).map(|f| f.leader());
            let address = leader.and_then(|id| metadata.brokers().iter().find(|b| b.id() == id));
            let (Some(id), Some(broker)) = (leader, address) else { continue };
            p.leader = Some(id);
            let address = (broker.host().to_string(), broker.port() as u16);
            match brokers.get_mut(&id) {
                Some(known) => known.address = address,
                None => {
                    brokers.insert(id, Broker { address, socket: None });
                    fresh.push(id);
                }
            }
        }
        let all = partitions.iter().filter(|p| *p.ask.topic == *topic).all(|p| p.leader.is_some() || p.failed);
        drop(state);
        self.changed.notify_all();
        for id in fresh {
            let shared = self.clone();
            self.env.background.run(&format!("{} {id}", self.name), Box::new(move || shared.serve(id)));
        }
        all
    }

    // One broker.

    /// Asks one broker, until it leads nothing that is wanted.
    fn serve(self: Arc<Self>, id: i32) {
        let mut connection = None;
        while let Some(round) = self.next_round(id) {
            let Err(e) = self.ask(id, &mut connection, &round) else { continue };
            // A connection that worked is simply made anew; the user hears of it when that fails too.
            if connection.take().is_none() {
                let (host, port) = &round.address;
                self.client.context().note(&format!("connecting to {host}:{port}: {e}"));
                (self.wake)();
                self.rest(RETRY);
            } else {
                tracing::debug!("the connection to broker {id} broke: {e}");
            }
            self.lose(id);
        }
    }

    /// What to ask next; waits until there is something. `None` when the thread's work is done.
    fn next_round(&self, id: i32) -> Option<Round> {
        let mut state = self.lock();
        loop {
            if state.closed || !state.partitions.iter().any(|p| p.leader == Some(id) && !p.failed) {
                state.brokers.remove(&id);
                return None;
            }
            let enough = ENOUGH.min(QUEUED_BYTES / state.partitions.len().max(1));
            let wanted = state.partitions.iter_mut().filter(|p| p.leader == Some(id) && p.is_wanted());
            let (mut asks, mut queues, mut full) = (Vec::new(), Vec::new(), false);
            for p in wanted {
                if p.queue.bytes() < enough {
                    asks.push(p.ask.clone());
                    queues.push(p.queue.clone());
                } else {
                    full = true;
                }
            }
            if !asks.is_empty() {
                // Who is asked first is answered first, up to the limit of the answer: everybody in turn.
                if let Some(at) = state.partitions.iter().position(|p| Arc::ptr_eq(&p.queue, &queues[0])) {
                    state.partitions.rotate_left(at + 1);
                }
                let address = state.brokers.get(&id).map(|b| b.address.clone()).unwrap_or_default();
                let wait_ms = if full { SHORT_WAIT_MS.min(self.limits.wait_ms) } else { self.limits.wait_ms };
                return Some(Round { asks, queues, address, wait_ms });
            }
            state = self.pause(state, Duration::from_secs(1));
        }
    }

    /// One question and its answer.
    fn ask(self: &Arc<Self>, id: i32, slot: &mut Option<Connection>, round: &Round) -> io::Result<()> {
        let connection = match slot {
            Some(connection) => connection,
            None => {
                let opened = |socket| {
                    let State { closed, brokers, .. } = &mut *self.lock();
                    match brokers.get_mut(&id) {
                        Some(broker) if !*closed => broker.socket = Some(socket),
                        _ => drop(socket.shutdown(Shutdown::Both)),
                    }
                };
                slot.insert(Connection::open(&round.address, &self.limits.client_id, self.timeouts, opened)?)
            }
        };
        let Some(version) = request::version(&round.asks, request::highest(connection.versions())) else {
            self.fail_all(round, Code::UnsupportedVersion);
            return Ok(());
        };
        connection.send(|out, correlation| request::put_fetch(out, correlation, version, &self.limits, round.wait_ms, &round.asks))?;
        let bytes = connection.answer(self.pool.take())?;
        let parsed = request::fetched(&bytes, version).map_err(|e| damaged(&e.to_string()))?;
        let (throttle_ms, answers) = parsed;
        match answers {
            Ok(answers) => {
                self.client.context().calm();
                if self.deliver(round, answers, &self.pool.share(bytes)) {
                    // The new leader may not know of it yet.
                    self.rest(RETRY);
                }
            }
            Err(code) if kind_of(code) == Kind::Transient => return Err(io::Error::other(text(code))),
            Err(code) => self.fail_all(round, code),
        }
        if throttle_ms > 0 {
            self.rest(Duration::from_millis(throttle_ms as u64));
        }
        Ok(())
    }

    fn fail_all(&self, round: &Round, code: Code) {
        let mut state = self.lock();
        for p in state.partitions.iter_mut().filter(|p| round.queues.iter().any(|q| Arc::ptr_eq(q, &p.queue))) {
            p.fail(code, text(code));
        }
        drop(state);
        (self.wake)();
    }

    /// Puts what came where it belongs; whether some partitions have to look for their leader anew.
    fn deliver(self: &Arc<Self>, round: &Round, answers: Vec<Answer>, bytes: &Bytes) -> bool {
        let mut state = self.lock();
        let (mut woken, mut lost) = (false, false);
        for answer in answers {
            let Some(at) = round.asks.iter().position(|a| a.is_answered_by(&answer)) else { continue };
            let Some(p) = state.partitions.iter_mut().find(|p| Arc::ptr_eq(&p.queue, &round.queues[at])) else { continue };
            let (heard, moved) = receive(p, answer, bytes);
            woken |= heard;
            lost |= moved;
        }
        if lost {
            self.look(&mut state);
        }
        drop(state);
        if woken {
            (self.wake)();
        }
        lost
    }

    /// The broker cannot be reached: its partitions may have other leaders by now.
    fn lose(self: &Arc<Self>, id: i32) {
        let mut state = self.lock();
        state.partitions.iter_mut().filter(|p| p.leader == Some(id)).for_each(|p| p.leader = None);
        if let Some(broker) = state.brokers.get_mut(&id) {
            broker.socket = None;
        }
        self.look(&mut state);
    }
}

/// Takes one partition's answer: whether its reader has something to hear, and whether its leader is another.
fn receive(p: &mut Partition, answer: Answer, bytes: &Bytes) -> (bool, bool) {
    match answer.code {
        Code::NoError if answer.truncated => p.fail(Code::LogTruncation, "the broker's log no longer has what was read".into()),
        Code::NoError => return (arrived(p, answer, bytes), false),
        code if kind_of(code) == Kind::Transient || code == Code::Unknown => {
            p.leader = None;
            return (false, true);
        }
        code => p.fail(code, text(code)),
    }
    (true, false)
}

/// Records came, or word that there are none; whether that is news.
fn arrived(p: &mut Partition, answer: Answer, bytes: &Bytes) -> bool {
    let Ok(walked) = walk(&bytes[answer.records.clone()]) else {
        p.fail(Code::UnsupportedVersion, "record batches of a format before 2".into());
        return true;
    };
    let from = p.ask.offset;
    match walked.after {
        Some((after, epoch)) => {
            let range = answer.records.start..answer.records.start + walked.whole;
            p.ask.offset = after.max(from);
            p.ask.last_epoch = epoch;
            p.told = p.ask.offset;
            let records = Records::new(bytes.clone(), range, from, answer.aborted);
            p.queue.push(Chunk::Records(Box::new(records), p.ask.offset), walked.whole);
            true
        }
        None if !answer.records.is_empty() => {
            p.fail(Code::BadMessage, "a record batch is cut off".into());
            true
        }
        // Only at the end of what may be read does nothing mean that there is nothing.
        None if from >= answer.stable_end && p.told != from => {
            p.told = from;
            p.queue.push(Chunk::End(from), 0);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_where_a_connection_is_plain_and_all_that_is_set_is_heeded() {
        let fits = |name: &str, value: &str| Fetcher::fits(&KafkaConfig::new(["a:9092"]).property(name, value).unwrap());
        assert!(fits("security.protocol", "PLAINTEXT") && fits("fetch.min.bytes", "9") && fits("linger.ms", "9") && fits(FETCHER, "own"));
        assert!(!fits("security.protocol", "sasl_plaintext") && !fits("client.rack", "x") && !fits(FETCHER, "librdkafka"));
    }
}
