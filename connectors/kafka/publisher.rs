//! The publishing half of a lane: an epoch's staged records and the lane's marker in one short transaction.
//!
//! Order: `fence` makes a client and shuts out every older one; `marker` tells what was published last; `publish` sends the
//! records, sees them delivered, adds the marker, commits. librdkafka speaks the first transaction protocol, in which a late
//! request of one transaction may act on the next of the same client: so after anything out of the ordinary (an error, an
//! abort, an error event, a slow publish) the client is dropped, and a new one takes a new epoch from the broker.
//!
//! Invariants: `Ok` from `publish` means committed. Records and marker count only together: delivered = staged, none failed,
//! else abort. A client made anew between two epochs publishes only after the marker was seen to be our own last one:
//! otherwise somebody else owns the lane.

use super::book::{OVERHEAD, TopicBook};
use super::client::{coded, kind_of, text, tidy};
use super::marker::MarkerStore;
use super::scan;
use super::send::{self, Producer};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaError};
use rdkafka::producer::{Producer as _, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use waterwheel_engine::env::{Bug, Moment, planted, reached};
use waterwheel_engine::error::{Error, Kind, Result};
use waterwheel_engine::operators::{LaneMarker, LanePublisher, PublisherContext, ScanOutcome, SegmentReader, SegmentRef};
use waterwheel_engine::record::RawRecord;

/// Default of `transaction.timeout.ms`.
const TRANSACTION: Duration = Duration::from_secs(60);
/// The broker's default of `transaction.max.timeout.ms`.
const LONGEST: Duration = Duration::from_secs(900);
/// librdkafka's default of `socket.timeout.ms`.
const SOCKET_MS: u64 = 60_000;
/// All tries of a fence: a broker's restart fits in.
const FENCE: Duration = Duration::from_secs(120);

/// One lane's publisher.
pub(super) struct KafkaLane {
    book: Arc<TopicBook>,
    context: PublisherContext,
    store: Arc<MarkerStore>,
    client: Option<Arc<Producer>>,
    /// What this publisher committed last; lets it renew its client without asking its caller.
    last: Option<LaneMarker>,
    timeout: Duration,
    /// Names the thread for calls that may never return; a stuck one is left behind.
    watch: u32,
}

impl KafkaLane {
    pub(super) fn new(book: Arc<TopicBook>, context: PublisherContext, topic: String) -> Result<Self> {
        let store = Arc::new(MarkerStore::new(&book.config, context.lane_name(), topic)?);
        let timeout = book.config.millis("transaction.timeout.ms", TRANSACTION.as_millis() as u64);
        Ok(KafkaLane { book, context, store, client: None, last: None, timeout, watch: 0 })
    }

    fn now(&self) -> Duration {
        self.context.env.clock.monotonic()
    }

    fn place(&self) -> String {
        format!("lane {} at {}", self.store.group, self.book.config.place())
    }

    /// A new client, registered: every older one is shut out, its transaction settled.
    fn connect(&mut self) -> Result<()> {
        self.client = None;
        let deadline = self.now() + FENCE;
        let mut client = self.make()?;
        loop {
            let e = match client.init_transactions(Duration::from_secs(30)) {
                Ok(()) => {
                    self.client = Some(Arc::new(client));
                    return Ok(());
                }
                Err(e) => e,
            };
            let (code, retriable) = taken_apart(&e);
            if code == Code::InvalidTransactionTimeout && self.timeout > TRANSACTION {
                // Longer than this broker allows; it was raised here, or by the user.
                self.timeout = (self.timeout / 2).max(TRANSACTION);
                client = self.make()?;
                continue;
            }
            if !retriable || self.now() >= deadline {
                let doing = "opening the lane";
                return Err(if kind_of(code) == Kind::Fatal { coded(code, doing, &self.place()) } else { self.again(doing, code) });
            }
        }
    }

    fn make(&self) -> Result<Producer> {
        // Batches must fit the smallest limit of the topics known, as single records do.
        let limit = self.book.smallest_limit().saturating_sub(OVERHEAD).clamp(1, 1_000_000);
        let mut settings = self.book.config.producer(&[("linger.ms", "2")]);
        let unfenced = planted(Bug::SkipFence).then(|| format!("{} {}", self.store.group, self.context.env.fresh_id()));
        settings.set("transactional.id", unfenced.unwrap_or_else(|| self.store.group.clone()));
        settings.set("transaction.timeout.ms", self.timeout.as_millis().to_string());
        if self.book.config.get("batch.size").and_then(|set| set.parse::<u64>().ok()).is_none_or(|set| set > limit) {
            settings.set("batch.size", limit.to_string());
        }
        send::producer(&self.book.config, &settings)
    }

    /// The outcome is unknown, or nothing happened: fence, read the marker, try again.
    fn again(&self, doing: &str, code: Code) -> Error {
        let why = match code {
            Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced | Code::Fatal => {
                "another publisher took the lane over, or the transaction ran into its timeout".to_string()
            }
            code => text(code),
        };
        Error::transient(format!("{doing}: {why}")).at(self.place())
    }

    /// A client for the next epoch. A new one must find our own last marker, else the lane is not ours any more.
    fn ready(&mut self) -> Result<Arc<Producer>> {
        if let Some(client) = &self.client {
            // What happened since the last epoch counts too.
            send::serve(client);
            if client.client().context().events.ever() {
                self.client = None;
            }
        }
        if self.client.is_none() {
            let Some(last) = self.last.clone() else {
                return Err(Error::transient("the lane is not fenced").at(self.place()));
            };
            self.connect()?;
            let found = self.store.read(&self.context.env)?;
            if found.as_ref() != Some(&last) {
                self.client = None;
                self.last = None;
                return Err(Error::transient("another publisher has published in this lane").at(self.place()));
            }
        }
        self.client.clone().ok_or_else(|| Error::restart("the lane has no client"))
    }

    fn transact(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        let client = self.ready()?;
        let begun = self.now();
        let deadline = begun + self.timeout;
        let counts = client.client().context().clone();
        counts.reset();
        client.begin_transaction().map_err(|e| self.again("beginning a transaction", taken_apart(&e).0))?;
        let outcome = self.records(&client, segments, deadline);
        if let Err(e) = outcome {
            // Only to free readers of those partitions early: the client is dropped either way.
            abandon(&client);
            return Err(e);
        }
        if !segments.is_empty() {
            reached(Moment::Delivered);
        }
        self.mark(&client, marker, deadline)?;
        if !segments.is_empty() {
            reached(Moment::Marked);
        }
        self.commit(&client, deadline)?;
        self.last = Some(marker.clone());
        let slow = self.now() - begun > self.book.config.millis("socket.timeout.ms", SOCKET_MS) / 2;
        if slow || counts.events.ever() {
            tracing::debug!("{}: a fresh client for the next epoch", self.place());
            self.client = None;
        }
        Ok(())
    }

    /// Sends all records and waits until the broker has them.
    fn records(&mut self, client: &Producer, segments: &[SegmentRef], deadline: Duration) -> Result<()> {
        let mut sent = 0;
        for segment in segments {
            let mut reader = SegmentReader::open(&self.context.env, &self.context.staging, segment)?;
            while let Some(batch) = reader.next_batch()? {
                for record in batch.records() {
                    self.one(client, &record, deadline)?;
                    sent += 1;
                }
                send::serve(client);
                self.unfailed(client)?;
            }
        }
        let staged: u64 = segments.iter().map(|s| s.records).sum();
        if sent != staged {
            return Err(Error::fatal(format!("staged segments hold {sent} records, the checkpoint says {staged}")).at(self.place()));
        }
        // Not rdkafka's flush: it sleeps 100 ms at a time.
        while !send::settled(client) {
            send::wait(client);
            self.unfailed(client)?;
            self.in_time(deadline)?;
        }
        self.unfailed(client)?;
        let delivered = client.client().context().delivered();
        if delivered != staged {
            return Err(Error::transient(format!("{delivered} of {staged} records were delivered")).at(self.place()));
        }
        Ok(())
    }

    fn one(&mut self, client: &Producer, record: &RawRecord<'_>, deadline: Duration) -> Result<()> {
        loop {
            match send::send(client, record, record.partition) {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    send::wait(client);
                    self.unfailed(client)?;
                    self.in_time(deadline)?;
                }
                Err(e) => {
                    let code = e.rdkafka_error_code().unwrap_or(Code::Unknown);
                    return Err(self.refused(code, &format!("{}/{}", record.topic, record.partition)));
                }
            }
        }
    }

    /// No delivery has failed so far.
    fn unfailed(&self, client: &Producer) -> Result<()> {
        match client.client().context().failed() {
            Some((code, partition)) => Err(self.refused(code, &partition)),
            None => Ok(()),
        }
    }

    /// A record was not taken. If it never will be, a person must act, and the segment stays.
    fn refused(&self, code: Code, partition: &str) -> Error {
        let doing = format!("publishing to {partition}");
        if kind_of(code) == Kind::Fatal {
            return coded(code, &doing, &self.place())
                .help("the output of this epoch is kept: mend the topic or the rights and start the job again");
        }
        self.again(&doing, code)
    }

    fn in_time(&mut self, deadline: Duration) -> Result<()> {
        if self.now() < deadline {
            return Ok(());
        }
        // The broker aborts it now. If the epoch is just large, the next try gets more time, up to what the broker allows.
        let had = self.timeout;
        self.timeout = (had * 2).min(LONGEST);
        Err(Error::transient(format!("the epoch's output could not be published within {} s", had.as_secs()))
            .at(self.place())
            .help("checkpoint more often, or raise transaction.timeout.ms and the broker's transaction.max.timeout.ms"))
    }

    /// Adds the marker to the transaction. The call ignores its own time limit while the group's coordinator is away
    /// (librdkafka 5456), so it runs on a thread of its own, which is left behind if it must be.
    fn mark(&mut self, client: &Arc<Producer>, marker: &LaneMarker, deadline: Duration) -> Result<()> {
        tidy(&self.store.consumer);
        loop {
            let left = deadline.saturating_sub(self.now());
            let offsets = self.store.offsets(marker)?;
            let (client, store) = (client.clone(), self.store.clone());
            let (done, result) = channel();
            let job = move || {
                let outcome = match store.consumer.group_metadata() {
                    Some(group) => client.send_offsets_to_transaction(&offsets, &group, left),
                    None => Err(KafkaError::Canceled),
                };
                let _ = done.send(outcome);
            };
            self.context.env.background.run(&format!("kafka marker {} {}", self.store.group, self.watch), Box::new(job));
            let e = match result.recv_timeout(left + Duration::from_secs(1)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) => e,
                Err(RecvTimeoutError::Timeout) => {
                    self.watch += 1;
                    return Err(self.again("writing the marker", Code::OperationTimedOut));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Error::restart("writing the marker broke off").at(self.place())),
            };
            let (code, retriable) = taken_apart(&e);
            if !retriable || self.now() >= deadline {
                return Err(self.refused(code, &format!("the marker of group {}", self.store.group)));
            }
        }
    }

    fn commit(&self, client: &Producer, deadline: Duration) -> Result<()> {
        loop {
            let left = deadline.saturating_sub(self.now()).max(Duration::from_secs(1));
            let Err(e) = client.commit_transaction(left) else { return Ok(()) };
            let (code, retriable) = taken_apart(&e);
            if !retriable || self.now() >= deadline {
                // Perhaps committed, perhaps not: the marker tells.
                return Err(self.again("committing", code));
            }
        }
    }
}

impl LanePublisher for KafkaLane {
    fn fence(&mut self) -> Result<()> {
        self.last = None;
        self.connect()
    }

    fn marker(&mut self) -> Result<Option<LaneMarker>> {
        self.store.read(&self.context.env).map_err(|e| e.at(self.place()))
    }

    fn scan(&mut self, segments: &[SegmentRef]) -> Result<ScanOutcome> {
        scan::scan(&self.book, &self.context.env, &self.context.staging, segments).map_err(|e| e.at(self.place()))
    }

    fn publish(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        let published = self.transact(marker, segments);
        if published.is_err() {
            self.client = None;
            self.last = None;
        }
        published
    }
}

/// Gives an open transaction up, as far as that is quickly possible.
fn abandon(client: &Producer) {
    client.purge(PurgeConfig::default().queue().inflight());
    for _ in 0..100 {
        if send::settled(client) {
            break;
        }
        send::wait(client);
    }
    if let Err(e) = client.abort_transaction(Duration::from_secs(5)) {
        tracing::debug!("a transaction was left to the next fence or its timeout: {e}");
    }
}

/// Code, and whether the same call may simply be made again.
fn taken_apart(e: &KafkaError) -> (Code, bool) {
    match e {
        KafkaError::Transaction(native) => (native.code(), retriable(native)),
        e => (e.rdkafka_error_code().unwrap_or(Code::Unknown), false),
    }
}

fn retriable(e: &RDKafkaError) -> bool {
    e.is_retriable() && !e.is_fatal() && !e.txn_requires_abort()
}
