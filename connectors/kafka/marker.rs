//! The marker: what a lane published last, kept as the committed offset of a group that nobody joins.
//!
//! The group is named like the lane's transactional id and never shared; the offset is the epoch, the metadata is lineage and
//! parent. It is committed in the same transaction as the records, so it is there if and only if they are.
//!
//! Invariant: a marker is read with "require stable": one whose transaction is not settled is waited for, never absent.

use super::client::{self, Client, coded, lift};
use super::config::KafkaConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use waterwheel_engine::env::{Bug, Env, planted};
use waterwheel_engine::error::{Error, Kind, Result};
use waterwheel_engine::operators::LaneMarker;
use waterwheel_engine::record::Epoch;

/// Kafka's default limit for an offset's metadata.
const METADATA_LIMIT: usize = 4096;
/// One try.
const TRY: Duration = Duration::from_secs(10);
/// All tries: a broker's restart fits in.
const PATIENCE: Duration = Duration::from_secs(120);

/// The metadata of the offset; the epoch is the offset itself.
#[derive(Serialize, Deserialize)]
struct Metadata {
    /// Version of this format.
    v: u16,
    lineage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<(String, Epoch)>,
}

/// Where a lane's marker is kept.
pub(super) struct MarkerStore {
    /// The group's name.
    pub(super) group: String,
    /// An existing topic of the lane; its partition 0 carries the offset.
    pub(super) topic: String,
    place: String,
    /// Read committed, which makes librdkafka ask for stable offsets.
    pub(super) consumer: Arc<Client>,
    /// Calls of librdkafka's that write a marker and did not come back; each has left its thread behind.
    pub(super) stuck: AtomicU32,
}

impl MarkerStore {
    pub(super) fn new(config: &KafkaConfig, group: String, topic: String) -> Result<Self> {
        let mut settings = config.consumer(&group, &[]);
        if planted(Bug::SkipFence) {
            // Waiting for open transactions is half of the fence.
            settings.set("isolation.level", "read_uncommitted");
        }
        let consumer = Arc::new(client::create(config, &settings)?);
        Ok(MarkerStore { group, topic, place: config.place(), consumer, stuck: AtomicU32::new(0) })
    }

    /// The offset to be committed for a marker, and its metadata.
    ///
    /// # Errors
    /// Fatal when the metadata is longer than Kafka takes.
    pub(super) fn offset(&self, marker: &LaneMarker) -> Result<(i64, String)> {
        let epoch = i64::try_from(marker.epoch).map_err(|_| Error::fatal("an epoch beyond i64"))?;
        Ok((epoch, encode(marker)?))
    }

    /// As [`offset`](Self::offset), for librdkafka.
    ///
    /// # Errors
    /// As [`offset`](Self::offset).
    pub(super) fn offsets(&self, marker: &LaneMarker) -> Result<TopicPartitionList> {
        let (epoch, metadata) = self.offset(marker)?;
        let impossible = |e: KafkaError| Error::restart(format!("marker of lane {}: {e}", self.group));
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, 0, Offset::Offset(epoch)).map_err(impossible)?;
        if let Some(mut element) = list.find_partition(&self.topic, 0) {
            element.set_metadata(metadata);
        }
        Ok(list)
    }

    /// The committed marker; `None` when there is none. Blocks.
    ///
    /// # Errors
    /// Transient when it is still not stable, or the broker away, after two minutes; fatal without rights, or when the
    /// metadata is not ours.
    pub(super) fn read(&self, env: &Env) -> Result<Option<LaneMarker>> {
        let deadline = env.clock.monotonic() + PATIENCE;
        loop {
            let e = match self.ask() {
                Ok(found) => return found.map(|(epoch, metadata)| self.decode(epoch, &metadata)).transpose(),
                Err(e) => e,
            };
            if e.kind() != Kind::Transient || env.clock.monotonic() >= deadline {
                return Err(e.at(format!("marker of lane {}", self.group)));
            }
            // Who may not use the group gets no answer, but is told so on the side.
            let told = self.consumer.poll(Duration::from_millis(100)).and_then(|told| told.err()?.rdkafka_error_code());
            if let Some(code @ Code::GroupAuthorizationFailed) = told {
                return Err(coded(code, "reading the marker", &self.place).at(format!("marker of lane {}", self.group)));
            }
        }
    }

    fn ask(&self) -> Result<Option<(i64, String)>> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, 0);
        let found = match self.consumer.committed_offsets(list, TRY) {
            Ok(found) => found,
            // Some brokers say so instead of giving no offset.
            Err(e) if e.rdkafka_error_code() == Some(Code::GroupIdNotFound) => return Ok(None),
            Err(e) => return Err(lift(&e, "reading the marker", &self.place)),
        };
        let element = found.find_partition(&self.topic, 0).ok_or_else(|| Error::restart("the broker left the marker out"))?;
        if let Err(e) = element.error() {
            return match e.rdkafka_error_code().unwrap_or(Code::Unknown) {
                Code::GroupIdNotFound => Ok(None),
                code => Err(coded(code, "reading the marker", &self.place)),
            };
        }
        match element.offset() {
            Offset::Offset(epoch) => Ok(Some((epoch, element.metadata().to_string()))),
            _ => Ok(None),
        }
    }

    fn decode(&self, epoch: i64, metadata: &str) -> Result<LaneMarker> {
        let foreign = |why: String| {
            Error::fatal(format!("the offset committed for group {} on {}/0 is no marker: {why}", self.group, self.topic))
                .at(self.place.clone())
                .help("another program uses a group of this name: rename the job, or delete the group")
        };
        let epoch = Epoch::try_from(epoch).map_err(|_| foreign(format!("offset {epoch}")))?;
        let metadata: Metadata = serde_json::from_str(metadata).map_err(|e| foreign(e.to_string()))?;
        if metadata.v != 1 {
            return Err(foreign(format!("its version is {}, this program knows 1", metadata.v)));
        }
        Ok(LaneMarker { lineage: metadata.lineage, epoch, parent: metadata.parent })
    }
}

fn encode(marker: &LaneMarker) -> Result<String> {
    let metadata = Metadata { v: 1, lineage: marker.lineage.clone(), parent: marker.parent.clone() };
    let text = serde_json::to_string(&metadata).map_err(|e| Error::restart(format!("marker: {e}")))?;
    if text.len() > METADATA_LIMIT {
        return Err(Error::fatal(format!("the marker takes {} bytes, Kafka keeps {METADATA_LIMIT}", text.len())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_come_back_and_foreign_offsets_are_refused() {
        let store = MarkerStore::new(&KafkaConfig::new(["127.0.0.1:1"]), "job/sink/0".into(), "out".into()).unwrap();
        for parent in [None, Some(("l0".to_string(), 41))] {
            let marker = LaneMarker { lineage: "l1".into(), epoch: 7, parent };
            assert_eq!(store.decode(7, &encode(&marker).unwrap()).unwrap(), marker);
        }
        for (epoch, metadata) in [(7, ""), (7, "{}"), (-5, r#"{"v":1,"lineage":"l"}"#), (7, r#"{"v":2,"lineage":"l"}"#)] {
            assert_eq!(store.decode(epoch, metadata).unwrap_err().kind(), Kind::Fatal, "{metadata}");
        }
        let long = LaneMarker { lineage: "x".repeat(5000), epoch: 1, parent: None };
        assert_eq!(encode(&long).unwrap_err().kind(), Kind::Fatal);
    }
}
