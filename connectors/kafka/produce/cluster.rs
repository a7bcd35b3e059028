//! Where brokers are, who leads and who coordinates, and connections for questions that are asked one at a time.
//!
//! Who leads is asked of librdkafka, which knows how to reach a cluster; coordinators are asked for here.
//!
//! Invariant: a question is asked again only after an answer that says that nothing was done, or that the same is still being
//! done; a connection that broke ends it, because then nobody knows.

use super::super::client::{ASK, Client, kind_of, tidy};
use super::super::protocol::connection::{Address, Connection, Timeouts};
use super::super::protocol::wire::{Damaged, Read};
use super::super::protocol::{code_of, damaged};
use super::Trouble;
use super::request::{self, Role, Speaker};
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Kind;

/// Between two tries to find or reach a leader.
const RETRY: Duration = Duration::from_millis(250);
/// First and longest pause before a question is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// A topic that was just made is not known everywhere at once.
const PROPAGATION: Duration = Duration::from_secs(10);

pub(super) struct Cluster {
    client: Arc<Client>,
    env: Env,
    pub(super) speaker: Speaker,
    timeouts: Timeouts,
    /// Where the marker goes: a group, and a topic that there is.
    pub(super) group: String,
    pub(super) topic: String,
    brokers: BTreeMap<i32, Address>,
    /// Of the partitions of each topic asked for; `None` where there is none just now.
    leaders: BTreeMap<String, Vec<Option<i32>>>,
    coordinators: BTreeMap<Role, Address>,
    connections: BTreeMap<Address, Connection>,
}

impl Cluster {
    /// Of the cluster that `client` knows; the marker is kept for `group` on `topic`.
    pub(super) fn new(client: Arc<Client>, env: Env, speaker: Speaker, timeouts: Timeouts, (group, topic): (String, String)) -> Self {
        let (brokers, leaders, coordinators, connections) = Default::default();
        Cluster { client, env, speaker, timeouts, group, topic, brokers, leaders, coordinators, connections }
    }

    pub(super) fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    /// Forgets all that was found out.
    pub(super) fn reset(&mut self) {
        self.brokers.clear();
        self.leaders.clear();
        self.coordinators.clear();
        self.connections.clear();
    }

    /// Lets go of connections that brokers have closed meanwhile. Only while nothing is asked.
    pub(super) fn tidy(&mut self) {
        self.connections.retain(|_, connection| connection.is_open());
    }

    pub(super) fn rest(&self) {
        pause(RETRY);
    }

    /// How long an answer may take.
    pub(super) fn patience(&self, deadline: Duration) -> Duration {
        self.timeouts.answer.min(deadline.saturating_sub(self.now()))
    }

    // Leaders.

    /// Who leads a partition; waits until somebody does.
    ///
    /// # Errors
    /// There is no such partition, no right to ask, or still no leader at the deadline.
    pub(super) fn leader(&mut self, topic: &str, partition: i32, deadline: Duration) -> Result<i32, Trouble> {
        let begun = self.now();
        loop {
            if let Some(id) = self.known_leader(topic, partition) {
                return Ok(id);
            }
            let code = match self.find_leaders(topic, deadline) {
                Ok(()) if self.known_leader(topic, partition).is_some() => continue,
                Ok(()) if self.is_partition(topic, partition) => Code::LeaderNotAvailable,
                Ok(()) => Code::UnknownPartition,
                Err(code) => code,
            };
            let waited = self.now() - begun;
            let passes = match code {
                Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => waited < PROPAGATION,
                code => kind_of(code) == Kind::Transient,
            };
            if !passes || self.now() >= deadline {
                return Err(Trouble::Refused(code, format!("{topic}/{partition}")));
            }
            self.rest();
        }
    }

    fn known_leader(&self, topic: &str, partition: i32) -> Option<i32> {
        *self.leaders.get(topic)?.get(usize::try_from(partition).ok()?)?
    }

    fn is_partition(&self, topic: &str, partition: i32) -> bool {
        usize::try_from(partition).is_ok_and(|p| self.leaders.get(topic).is_some_and(|all| p < all.len()))
    }

    /// This broker cannot be reached: others may lead by now.
    pub(super) fn lose(&mut self, broker: i32) {
        self.leaders.values_mut().flatten().filter(|leader| **leader == Some(broker)).for_each(|leader| *leader = None);
    }

    /// What a broker means by an error about a partition: one that does not know it may only be late.
    pub(super) fn meant(&mut self, code: Code, topic: &str, partition: i32, deadline: Duration) -> Trouble {
        if code == Code::UnknownTopicOrPartition {
            self.leaders.remove(topic);
            if let Err(trouble) = self.leader(topic, partition, deadline) {
                return trouble;
            }
            return Trouble::Refused(Code::NotLeaderForPartition, format!("{topic}/{partition}"));
        }
        Trouble::Refused(code, format!("{topic}/{partition}"))
    }

    fn find_leaders(&mut self, topic: &str, deadline: Duration) -> Result<(), Code> {
        tidy(&self.client);
        let patience = ASK.min(deadline.saturating_sub(self.now())).max(Duration::from_millis(1));
        let metadata = self.client.fetch_metadata(Some(topic), patience);
        let metadata = metadata.map_err(|e| e.rdkafka_error_code().unwrap_or(Code::Unknown))?;
        let address = |broker: &rdkafka::metadata::MetadataBroker| (broker.host().to_string(), broker.port() as u16);
        self.brokers = metadata.brokers().iter().map(|broker| (broker.id(), address(broker))).collect();
        let found = metadata.topics().first().ok_or(Code::UnknownTopicOrPartition)?;
        if let Some(code) = found.error() {
            return Err(Code::from(code));
        }
        let ids = found.partitions().iter().filter_map(|p| usize::try_from(p.id()).ok());
        let mut leaders = vec![None; ids.max().map_or(0, |last| last + 1)];
        for p in found.partitions().iter().filter(|p| p.leader() >= 0) {
            if let Some(leader) = usize::try_from(p.id()).ok().and_then(|at| leaders.get_mut(at)) {
                *leader = Some(p.leader());
            }
        }
        self.leaders.insert(topic.to_string(), leaders);
        Ok(())
    }

    /// A connection to a broker, for requests that do not wait for each other.
    ///
    /// # Errors
    /// It cannot be reached in time, or is too old.
    pub(super) fn connect(&self, broker: i32, deadline: Duration) -> io::Result<Connection> {
        let address = self.brokers.get(&broker).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such broker"))?;
        self.open(address, deadline)
    }

    fn open(&self, address: &Address, deadline: Duration) -> io::Result<Connection> {
        let answer = self.patience(deadline);
        let timeouts = Timeouts { connect: self.timeouts.connect.min(answer).max(Duration::from_millis(1)), answer };
        let connection = Connection::open(address, &self.speaker.client_id, timeouts, drop)?;
        if !request::is_spoken(connection.versions()) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the broker is too old for the own producer"));
        }
        Ok(connection)
    }

    // Coordinators.

    /// Asks a coordinator, again while it says to; what it says in the end.
    ///
    /// # Errors
    /// The connection broke, or the deadline has passed: perhaps it was done, perhaps not.
    pub(super) fn ask<T>(
        &mut self,
        role: Role,
        deadline: Duration,
        put: impl Fn(&Speaker, &mut Vec<u8>, i32),
        read: impl Fn(&[u8]) -> Read<(Code, T)>,
    ) -> Result<(Code, T), Code> {
        let mut next = PAUSES.0;
        loop {
            let code = match self.coordinator(role, deadline) {
                Ok(address) => {
                    let (code, told) = self.put_to(&address, deadline, &put, &read).map_err(|e| code_of(&e))?;
                    match code {
                        Code::NotCoordinator | Code::CoordinatorNotAvailable => drop(self.coordinators.remove(&role)),
                        Code::CoordinatorLoadInProgress | Code::ConcurrentTransactions => {}
                        code => return Ok((code, told)),
                    }
                    code
                }
                Err(code @ (Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)) => code,
                Err(code) => return Err(code),
            };
            if self.now() + next >= deadline {
                tracing::debug!("a coordinator still says {code}");
                return Err(Code::OperationTimedOut);
            }
            pause(next);
            next = (next * 2).min(PAUSES.1);
        }
    }

    /// Where the coordinator is.
    fn coordinator(&mut self, role: Role, deadline: Duration) -> Result<Address, Code> {
        if let Some(known) = self.coordinators.get(&role) {
            return Ok(known.clone());
        }
        if self.brokers.is_empty() {
            let topic = self.topic.clone();
            let found = self.find_leaders(&topic, deadline);
            if self.brokers.is_empty() {
                return Err(found.err().unwrap_or(Code::AllBrokersDown));
            }
        }
        let mut last = Code::AllBrokersDown;
        let name = match role {
            Role::Group => self.group.clone(),
            Role::Transaction => self.speaker.id.clone(),
        };
        let put = |speaker: &Speaker, out: &mut Vec<u8>, correlation| speaker.put_find_coordinator(out, correlation, role, &name);
        for address in self.brokers.values().cloned().collect::<Vec<_>>() {
            match self.put_to(&address, deadline, &put, &request::found_coordinator) {
                Ok((Code::NoError, found)) => {
                    self.coordinators.insert(role, found.clone());
                    return Ok(found);
                }
                Ok((code, _)) => return Err(code),
                Err(e) => last = code_of(&e),
            }
        }
        // Whoever may be asked next, it is not one of these.
        self.brokers.clear();
        Err(last)
    }

    fn put_to<T>(
        &mut self,
        address: &Address,
        deadline: Duration,
        put: &impl Fn(&Speaker, &mut Vec<u8>, i32),
        read: &impl Fn(&[u8]) -> Read<T>,
    ) -> io::Result<T> {
        // Taken out, so that one which breaks is gone.
        let mut connection = match self.connections.remove(address) {
            Some(connection) => connection,
            None => self.open(address, deadline)?,
        };
        connection.allow(self.patience(deadline))?;
        connection.send(|out, correlation| put(&self.speaker, out, correlation))?;
        let told = read(&connection.answer(Vec::new())?).map_err(|Damaged(why)| damaged(why))?;
        self.connections.insert(address.clone(), connection);
        Ok(told)
    }
}

/// A moment for the brokers.
fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
