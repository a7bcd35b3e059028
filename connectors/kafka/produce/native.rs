//! librdkafka's producer, for what the own one cannot do.
//!
//! Invariant: a record counts as delivered only by its own report.

use super::super::client::tidy;
use super::super::marker::MarkerStore;
use super::super::send::{self, Producer};
use super::{Transactions, Trouble};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaError};
use rdkafka::producer::{Producer as _, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Error;
use waterwheel_engine::operators::LaneMarker;
use waterwheel_engine::record::{RawBatch, RawRecord};

/// A transactional producer of librdkafka's.
pub(in super::super) struct Native {
    client: Arc<Producer>,
    store: Arc<MarkerStore>,
    env: Env,
}

impl Native {
    pub(in super::super) fn new(client: Producer, store: Arc<MarkerStore>, env: Env) -> Self {
        Native { client: Arc::new(client), store, env }
    }

    fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    fn in_time(&self, deadline: Duration) -> Result<(), Trouble> {
        let late = || Trouble::Refused(Code::OperationTimedOut, "the broker".into());
        if self.now() < deadline { Ok(()) } else { Err(late()) }
    }

    fn one(&self, record: &RawRecord<'_>, deadline: Duration) -> Result<(), Trouble> {
        loop {
            match send::send(&self.client, record, record.partition) {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    send::wait(&self.client);
                    self.unfailed()?;
                    self.in_time(deadline)?;
                }
                Err(e) => {
                    let code = e.rdkafka_error_code().unwrap_or(Code::Unknown);
                    return Err(Trouble::Refused(code, format!("{}/{}", record.topic, record.partition)));
                }
            }
        }
    }

    /// No delivery has failed so far.
    fn unfailed(&self) -> Result<(), Trouble> {
        match self.client.client().context().failed() {
            Some((code, partition)) => Err(Trouble::Refused(code, partition)),
            None => Ok(()),
        }
    }
}

impl Transactions for Native {
    fn fence(&mut self, limit: Duration) -> Result<(), (Code, bool)> {
        self.client.init_transactions(limit).map_err(|e| taken_apart(&e))
    }

    fn is_troubled(&mut self) -> bool {
        send::serve(&self.client);
        self.client.client().context().events.ever()
    }

    fn begin(&mut self) -> Result<(), Code> {
        self.client.client().context().reset();
        self.client.begin_transaction().map_err(|e| taken_apart(&e).0)
    }

    fn send(&mut self, batch: &RawBatch, deadline: Duration) -> Result<(), Trouble> {
        batch.records().try_for_each(|record| self.one(&record, deadline))?;
        send::serve(&self.client);
        self.unfailed()
    }

    fn delivered(&mut self, deadline: Duration) -> Result<u64, Trouble> {
        // Not rdkafka's flush: it sleeps 100 ms at a time.
        while !send::settled(&self.client) {
            send::wait(&self.client);
            self.unfailed()?;
            self.in_time(deadline)?;
        }
        self.unfailed()?;
        Ok(self.client.client().context().delivered())
    }

    /// The call ignores its own time limit while the group's coordinator is away (librdkafka 5456), so it runs on a thread of
    /// its own, which is left behind if it must be.
    fn mark(&mut self, marker: &LaneMarker, deadline: Duration) -> Result<(), Trouble> {
        tidy(&self.store.consumer);
        let refused = |code| Trouble::Refused(code, format!("the marker of group {}", self.store.group));
        loop {
            let left = deadline.saturating_sub(self.now());
            let offsets = self.store.offsets(marker)?;
            let (client, store) = (self.client.clone(), self.store.clone());
            let (done, result) = channel();
            let job = move || {
                let outcome = match store.consumer.group_metadata() {
                    Some(group) => client.send_offsets_to_transaction(&offsets, &group, left),
                    None => Err(KafkaError::Canceled),
                };
                let _ = done.send(outcome);
            };
            let thread = format!("kafka marker {} {}", self.store.group, self.store.stuck.load(Ordering::Relaxed));
            self.env.background.run(&thread, Box::new(job));
            let e = match result.recv_timeout(left + Duration::from_secs(1)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) => e,
                Err(RecvTimeoutError::Timeout) => {
                    self.store.stuck.fetch_add(1, Ordering::Relaxed);
                    return Err(refused(Code::OperationTimedOut));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Error::restart("writing the marker broke off").into()),
            };
            let (code, retriable) = taken_apart(&e);
            if !retriable || self.now() >= deadline {
                return Err(refused(code));
            }
        }
    }

    fn commit(&mut self, deadline: Duration) -> Result<(), Code> {
        loop {
            let left = deadline.saturating_sub(self.now()).max(Duration::from_secs(1));
            let Err(e) = self.client.commit_transaction(left) else { return Ok(()) };
            let (code, retriable) = taken_apart(&e);
            if !retriable || self.now() >= deadline {
                return Err(code);
            }
        }
    }

    fn abandon(&mut self) {
        self.client.purge(PurgeConfig::default().queue().inflight());
        for _ in 0..100 {
            if send::settled(&self.client) {
                break;
            }
            send::wait(&self.client);
        }
        if let Err(e) = self.client.abort_transaction(Duration::from_secs(5)) {
            tracing::debug!("a transaction was left to the next fence or its timeout: {e}");
        }
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
