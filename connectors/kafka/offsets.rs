//! Where a new job begins and ends in each partition: words turned into numbers, once.
//!
//! Ends are last stable offsets: what an open transaction holds comes later, and `latest` begins before it.
//!
//! Invariant: every split that leaves here carries numbers only, so that a restart before the first checkpoint begins at the
//! same place (the engine pins them before the first read).

use super::client::{ASK, Client, coded, lift, unanswered};
use crate::topics::{End, SourceOptions, Start};
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Split, SplitId};

/// Splits for partitions seen for the first time, each with its topic's identity. Without `first` they begin at their
/// beginning, whatever the options say: their first records are new too.
pub(super) fn resolve(
    client: &Client,
    options: &SourceOptions,
    first: bool,
    fresh: Vec<(SplitId, Option<String>)>,
    place: &str,
) -> Result<Vec<Split>> {
    let starts = match &options.start {
        Start::Timestamp(ms) if first => Some(by_time(client, &fresh, *ms, place)?),
        Start::GroupOffsets(group) if first => Some(by_group(client, &fresh, group, place)?),
        _ => None,
    };
    let mut splits = Vec::with_capacity(fresh.len());
    for (at, (id, topic_id)) in fresh.into_iter().enumerate() {
        let (low, high) = bounds(client, &id, place)?;
        let chosen = starts.as_ref().map(|s| s[at]);
        let start = match (&options.start, chosen) {
            (_, Some(chosen)) => chosen.unwrap_or(high),
            (Start::Latest, _) if first => high,
            (Start::Offsets(given), _) if first => given.get(&(id.name.to_string(), id.partition)).copied().unwrap_or(low),
            _ => low,
        };
        let end = match &options.end {
            End::Never => None,
            End::Latest => Some(high),
            End::Offsets(given) => Some(given.get(&(id.name.to_string(), id.partition)).copied().unwrap_or(high)),
        };
        splits.push(Split { start, end, bootstrap_end: options.table.then_some(high), topic_id, id });
    }
    Ok(splits)
}

/// Oldest offset and last stable offset of a partition. A topic that was just made may not know its leader yet: that is asked
/// again for a few seconds.
pub(super) fn bounds(client: &Client, id: &SplitId, place: &str) -> Result<(i64, i64)> {
    let mut tries = 0;
    loop {
        let e = match client.fetch_watermarks(&id.name, id.partition, ASK) {
            Ok(bounds) => return Ok(bounds),
            Err(e) => e,
        };
        let settling = matches!(e.rdkafka_error_code(), Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable));
        tries += 1;
        if !settling || tries == 50 {
            return Err(unanswered(client, &e, &format!("asking for the offsets of {id}"), place));
        }
        let _ = client.poll(Duration::from_millis(100));
    }
}

/// First offset at or after a time; `None` = the end.
fn by_time(client: &Client, fresh: &[(SplitId, Option<String>)], ms: i64, place: &str) -> Result<Vec<Option<i64>>> {
    let asked = list(fresh, Some(ms))?;
    let found = client.offsets_for_times(asked, ASK).map_err(|e| lift(&e, "asking for offsets by time", place))?;
    fresh
        .iter()
        .map(|(id, _)| match element(&found, id, place)? {
            Offset::Offset(n) => Ok(Some(n)),
            _ => Ok(None),
        })
        .collect()
}

/// Where a group has committed.
fn by_group(client: &Client, fresh: &[(SplitId, Option<String>)], group: &str, place: &str) -> Result<Vec<Option<i64>>> {
    let found = client.committed_offsets(list(fresh, None)?, ASK);
    let found = found.map_err(|e| lift(&e, &format!("asking for the offsets of group {group}"), place))?;
    fresh
        .iter()
        .map(|(id, _)| match element(&found, id, place)? {
            Offset::Offset(n) => Ok(Some(n)),
            _ => Err(Error::fatal(format!("group {group} has committed no offset for {id}"))
                .at(place.to_string())
                .help("begin at earliest, or give offsets")),
        })
        .collect()
}

fn list(fresh: &[(SplitId, Option<String>)], offset: Option<i64>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(fresh.len());
    for (id, _) in fresh {
        let offset = offset.map_or(Offset::Invalid, Offset::Offset);
        list.add_partition_offset(&id.name, id.partition, offset).map_err(|e| Error::fatal(format!("{id}: {e}")))?;
    }
    Ok(list)
}

fn element(list: &TopicPartitionList, id: &SplitId, place: &str) -> Result<Offset> {
    let Some(found) = list.find_partition(&id.name, id.partition) else { return Ok(Offset::Invalid) };
    match found.error() {
        Ok(()) => Ok(found.offset()),
        Err(e) => Err(coded(e.rdkafka_error_code().unwrap_or(Code::Unknown), &format!("asking for the offset of {id}"), place)),
    }
}
