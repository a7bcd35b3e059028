//! The publishing half of a lane: an epoch's staged records and the lane's marker in one short transaction.
//!
//! Order: `fence` makes a client and shuts out every older one; `marker` tells what was published last; `publish` sends the
//! records, sees them delivered, adds the marker, commits. Both clients (`produce`) speak the first transaction protocol, in
//! which a late request of one transaction may act on the next of the same client: so after anything out of the ordinary (an
//! error, an abort, an error event, a slow publish) the client is dropped, and a new one takes a new epoch from the broker.
//!
//! Invariants: `Ok` from `publish` means committed. Records and marker count only together: delivered = staged, none failed,
//! else abort. A client made anew between two epochs publishes only after the marker was seen to be our own last one:
//! otherwise somebody else owns the lane.

use super::book::{OVERHEAD, TopicBook};
use super::client::{coded, kind_of, text};
use super::marker::MarkerStore;
use super::produce::{Native, Own, Transactions, Trouble};
use super::scan;
use super::send;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::env::{Bug, Moment, planted, reached};
use waterwheel_engine::error::{Error, Kind, Result};
use waterwheel_engine::operators::{LaneMarker, LanePublisher, PublisherContext, ScanOutcome, SegmentReader, SegmentRef};
use waterwheel_engine::record::Batch;

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
    client: Option<Box<dyn Transactions>>,
    /// What this publisher committed last; lets it renew its client without asking its caller.
    last: Option<LaneMarker>,
    timeout: Duration,
    /// The own producer publishes, not librdkafka's; until a broker turns out to be too old for it.
    is_own: bool,
}

impl KafkaLane {
    pub(super) fn new(book: Arc<TopicBook>, context: PublisherContext, topic: String) -> Result<Self> {
        let store = Arc::new(MarkerStore::new(&book.config, context.lane_name(), topic)?);
        let timeout = book.config.millis("transaction.timeout.ms", TRANSACTION.as_millis() as u64);
        let is_own = Own::fits(&book.config, &store.group);
        Ok(KafkaLane { book, context, store, client: None, last: None, timeout, is_own })
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
            let (code, retriable) = match client.fence(Duration::from_secs(30)) {
                Ok(()) => {
                    self.client = Some(client);
                    return Ok(());
                }
                Err(e) => e,
            };
            if code == Code::InvalidTransactionTimeout && self.timeout > TRANSACTION {
                // Longer than this broker allows; it was raised here, or by the user.
                self.timeout = (self.timeout / 2).max(TRANSACTION);
                client = self.make()?;
                continue;
            }
            if self.gives_way(code) {
                client = self.make()?;
                continue;
            }
            if !retriable || self.now() >= deadline {
                let doing = "opening the lane";
                return Err(if kind_of(code) == Kind::Fatal { coded(code, doing, &self.place()) } else { self.again(doing, code) });
            }
        }
    }

    fn make(&self) -> Result<Box<dyn Transactions>> {
        // Batches must fit the smallest limit of the topics known, as single records do.
        let limit = self.book.smallest_limit().saturating_sub(OVERHEAD).clamp(1, 1_000_000);
        let unfenced = planted(Bug::SkipFence).then(|| format!("{} {}", self.store.group, self.context.env.fresh_id()));
        let id = unfenced.unwrap_or_else(|| self.store.group.clone());
        let (config, store, env) = (&self.book.config, self.store.clone(), self.context.env.clone());
        if self.is_own {
            return Ok(Box::new(Own::new(config, store, env, id, limit, self.timeout)));
        }
        let mut settings = config.producer(&[("linger.ms", "2")]);
        settings.set("transactional.id", id);
        settings.set("transaction.timeout.ms", self.timeout.as_millis().to_string());
        if config.get("batch.size").and_then(|set| set.parse::<u64>().ok()).is_none_or(|set| set > limit) {
            settings.set("batch.size", limit.to_string());
        }
        Ok(Box::new(Native::new(send::producer(config, &settings)?, store, env)))
    }

    /// Whether the own producer leaves this broker to librdkafka, from now on.
    fn gives_way(&mut self, code: Code) -> bool {
        let is_too_old = self.is_own && code == Code::UnsupportedVersion;
        if is_too_old {
            tracing::debug!("{}: a broker is too old for the own producer, librdkafka publishes", self.place());
            self.is_own = false;
        }
        is_too_old
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
    fn ready(&mut self) -> Result<Box<dyn Transactions>> {
        // What happened since the last epoch counts too.
        if let Some(mut client) = self.client.take()
            && !client.is_troubled()
        {
            return Ok(client);
        }
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
        self.client.take().ok_or_else(|| Error::restart("the lane has no client"))
    }

    /// The client is out of its place meanwhile: after an error it is gone.
    fn transact(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        let mut client = self.ready()?;
        let begun = self.now();
        let deadline = begun + self.timeout;
        client.begin().map_err(|code| self.again("beginning a transaction", code))?;
        if let Err(e) = self.records(client.as_mut(), segments, deadline) {
            // Only to free readers of those partitions early.
            client.abandon();
            return Err(e);
        }
        if !segments.is_empty() {
            reached(Moment::Delivered);
        }
        client.mark(marker, deadline).map_err(|trouble| self.troubled(trouble))?;
        if !segments.is_empty() {
            reached(Moment::Marked);
        }
        // Perhaps committed, perhaps not: the marker tells.
        client.commit(deadline).map_err(|code| self.again("committing", code))?;
        self.last = Some(marker.clone());
        let slow = self.now() - begun > self.book.config.millis("socket.timeout.ms", SOCKET_MS) / 2;
        if slow || client.is_troubled() {
            tracing::debug!("{}: a fresh client for the next epoch", self.place());
        } else {
            self.client = Some(client);
        }
        Ok(())
    }

    /// Sends all records and waits until the broker has them.
    fn records(&mut self, client: &mut dyn Transactions, segments: &[SegmentRef], deadline: Duration) -> Result<()> {
        let mut sent = 0;
        for segment in segments {
            let mut reader = SegmentReader::open(&self.context.env, &self.context.staging, segment)?;
            while let Some(batch) = reader.next_batch()? {
                client.send(&batch, deadline).map_err(|trouble| self.late_or(trouble, deadline))?;
                sent += batch.len() as u64;
            }
        }
        let staged: u64 = segments.iter().map(|s| s.records).sum();
        if sent != staged {
            return Err(Error::fatal(format!("staged segments hold {sent} records, the checkpoint says {staged}")).at(self.place()));
        }
        let delivered = client.delivered(deadline).map_err(|trouble| self.late_or(trouble, deadline))?;
        if delivered != staged {
            return Err(Error::transient(format!("{delivered} of {staged} records were delivered")).at(self.place()));
        }
        Ok(())
    }

    fn troubled(&mut self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Refused(code, what) => self.refused(code, &what),
            Trouble::Failed(e) => e.at(self.place()),
        }
    }

    /// A record was not taken. If it never will be, a person must act, and the segment stays.
    fn refused(&mut self, code: Code, partition: &str) -> Error {
        let doing = format!("publishing to {partition}");
        if !self.gives_way(code) && kind_of(code) == Kind::Fatal {
            return coded(code, &doing, &self.place())
                .help("the output of this epoch is kept: mend the topic or the rights and start the job again");
        }
        self.again(&doing, code)
    }

    /// Behind the deadline it is too late, whatever was said.
    fn late_or(&mut self, trouble: Trouble, deadline: Duration) -> Error {
        let is_late = matches!(trouble, Trouble::Refused(code, _) if kind_of(code) != Kind::Fatal) && self.now() >= deadline;
        if !is_late {
            return self.troubled(trouble);
        }
        // The broker aborts it now. If the epoch is just large, the next try gets more time, up to what the broker allows.
        let had = self.timeout;
        self.timeout = (had * 2).min(LONGEST);
        Error::transient(format!("the epoch's output could not be published within {} s", had.as_secs()))
            .at(self.place())
            .help("checkpoint more often, or raise transaction.timeout.ms and the broker's transaction.max.timeout.ms")
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
