//! Whether records of an unknown outcome are in the committed output: read it and look.
//!
//! Needed when the marker is gone (it expires a week after its last commit) and the job log is older. It reads from the ends
//! noted at staging up to the log end as of now, which the caller asks for after the fence: nothing of ours can come later.
//!
//! Invariant: an epoch is one transaction, so its records are all there or none is. Whatever cannot be told apart is
//! `Unknown`: a gap in the log, a compacted topic with some of them missing.

use super::book::TopicBook;
use super::client::{self, ASK, Client, lift};
use super::send::timestamp;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Kind, Result};
use waterwheel_engine::operators::{ScanOutcome, SegmentReader, SegmentRef};
use waterwheel_engine::record::RawBatch;

/// Without any progress for so long the broker counts as away.
const PATIENCE: Duration = Duration::from_secs(60);

type Place = (String, i32);

/// What is looked for in one partition.
struct Wanted {
    records: VecDeque<Vec<u8>>,
    from: i64,
    end: i64,
    found: bool,
}

/// Looks for all records of the segments.
///
/// # Errors
/// Transient while the broker is away or a foreign transaction hides the range; fatal for damaged segments.
pub(super) fn scan(book: &TopicBook, env: &Env, staging: &Path, segments: &[SegmentRef]) -> Result<ScanOutcome> {
    let mut wanted = load(book, env, staging, segments)?;
    if wanted.is_empty() {
        // Nothing to find; to publish nothing again changes nothing.
        return Ok(ScanOutcome::Absent);
    }
    for segment in segments {
        for (topic, partition, end) in &segment.noted_ends {
            if let Some(w) = wanted.get_mut(&(topic.clone(), *partition)) {
                w.from = w.from.min(*end);
            }
        }
    }
    let config = &book.config;
    let whole = client::create(config, config.client(super::config::Role::Any, &[]).set("isolation.level", "read_uncommitted"))?;
    for ((topic, partition), w) in &mut wanted {
        let (low, high) = ends(&whole, topic, *partition, &config.place())?;
        if w.from == i64::MAX || low > w.from {
            return Ok(ScanOutcome::Unknown);
        }
        w.end = high;
    }
    let consumer = client::create(config, &config.consumer("waterwheel", &[]))?;
    for ((topic, partition), w) in &wanted {
        await_stable(&consumer, env, topic, *partition, w.end, &config.place())?;
    }
    read(&consumer, book, env, &mut wanted)?;
    conclude(book, &wanted)
}

fn conclude(book: &TopicBook, wanted: &BTreeMap<Place, Wanted>) -> Result<ScanOutcome> {
    if wanted.values().all(|w| w.records.is_empty()) {
        return Ok(ScanOutcome::Present);
    }
    for (topic, _) in wanted.keys() {
        // There the broker drops records by itself, and a missing one proves nothing.
        if book.page(topic)?.compacted {
            return Ok(ScanOutcome::Unknown);
        }
    }
    // Some but not all: equal records of another epoch or writer, since a transaction is there as a whole or not at all.
    Ok(ScanOutcome::Absent)
}

/// The segments' records by partition, in order.
fn load(book: &TopicBook, env: &Env, staging: &Path, segments: &[SegmentRef]) -> Result<BTreeMap<Place, Wanted>> {
    let mut wanted: BTreeMap<Place, Wanted> = BTreeMap::new();
    for segment in segments {
        let mut reader = SegmentReader::open(env, staging, segment)?;
        while let Some(batch) = reader.next_batch()? {
            for record in batch.records() {
                let place = (record.topic.to_string(), record.partition);
                let timed = !book.page(record.topic)?.log_append_time;
                let bytes = form(timed.then(|| timestamp(record.timestamp)), record.key, record.value, record.header_bytes());
                let w = wanted.entry(place);
                let w = w.or_insert_with(|| Wanted { records: VecDeque::new(), from: i64::MAX, end: 0, found: false });
                w.records.push_back(bytes);
            }
        }
    }
    Ok(wanted)
}

/// A record in a form that is equal if and only if all its parts are.
fn form(timestamp: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) -> Vec<u8> {
    let mut out = timestamp.unwrap_or(i64::MIN).to_le_bytes().to_vec();
    for part in [key, value] {
        out.extend_from_slice(&part.map_or(u32::MAX, |p| p.len() as u32).to_le_bytes());
        out.extend_from_slice(part.unwrap_or_default());
    }
    out.extend_from_slice(headers);
    out
}

fn ends(client: &Client, topic: &str, partition: i32, place: &str) -> Result<(i64, i64)> {
    client.fetch_watermarks(topic, partition, ASK).map_err(|e| lift(&e, &format!("asking for the end of {topic}/{partition}"), place))
}

/// Waits until every transaction that began before `end` is settled.
fn await_stable(consumer: &Client, env: &Env, topic: &str, partition: i32, end: i64, place: &str) -> Result<()> {
    let deadline = env.clock.monotonic() + PATIENCE * 2;
    while ends(consumer, topic, partition, place)?.1 < end {
        if env.clock.monotonic() >= deadline {
            return Err(
                Error::transient(format!("an open transaction of some writer hides the end of {topic}/{partition}")).at(place.to_string())
            );
        }
        let _ = consumer.poll(Duration::from_millis(200));
    }
    Ok(())
}

fn read(consumer: &Client, book: &TopicBook, env: &Env, wanted: &mut BTreeMap<Place, Wanted>) -> Result<()> {
    let place = book.config.place();
    // Topic by topic: an end-of-partition error names the partition only.
    let mut topics: Vec<String> = wanted.keys().map(|(topic, _)| topic.clone()).collect();
    topics.dedup();
    for topic in topics {
        let timed = !book.page(&topic)?.log_append_time;
        let mut list = TopicPartitionList::new();
        for ((_, partition), w) in wanted.iter().filter(|((t, _), _)| *t == topic) {
            let added = list.add_partition_offset(&topic, *partition, Offset::Offset(w.from));
            added.map_err(|e| Error::restart(format!("{topic}/{partition}: {e}")))?;
        }
        consumer.assign(&list).map_err(|e| lift(&e, "assigning partitions to scan", &place))?;
        let mut deadline = env.clock.monotonic() + PATIENCE;
        while wanted.iter().any(|((t, _), w)| *t == topic && !w.found && w.from < w.end) {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    deadline = env.clock.monotonic() + PATIENCE;
                    if let Some(w) = wanted.get_mut(&(topic.clone(), message.partition())) {
                        take(w, &message, timed);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    // The stable end is at or beyond `end` already.
                    if let Some(w) = wanted.get_mut(&(topic.clone(), partition)) {
                        w.from = w.end;
                    }
                }
                Some(Err(e)) if lift(&e, "", "").kind() != Kind::Transient => {
                    return Err(lift(&e, &format!("scanning {topic}"), &place));
                }
                Some(Err(_)) | None if env.clock.monotonic() >= deadline => {
                    return Err(Error::transient(format!("scanning {topic}: the broker does not answer")).at(place));
                }
                Some(Err(_)) | None => {}
            }
        }
    }
    Ok(())
}

/// Compares one record with the next one looked for.
fn take(w: &mut Wanted, message: &impl Message, timed: bool) {
    if message.offset() >= w.end {
        w.from = w.end;
        return;
    }
    w.from = message.offset() + 1;
    let mut headers = Vec::new();
    for header in message.headers().into_iter().flat_map(|h| (0..h.count()).map(move |i| h.get(i))) {
        RawBatch::encode_header(&mut headers, header.key, header.value);
    }
    let timestamp = timed.then(|| message.timestamp().to_millis().unwrap_or(-1));
    if w.records.front().is_some_and(|next| *next == form(timestamp, message.key(), message.payload(), &headers)) {
        w.records.pop_front();
    }
    w.found = w.records.is_empty();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_equal_only_when_all_parts_are() {
        let parts = [
            form(Some(1), None, None, &[]),
            form(Some(1), Some(b""), None, &[]),
            form(Some(1), None, Some(b""), &[]),
            form(Some(2), None, None, &[]),
            form(Some(1), Some(b"a"), Some(b"b"), &[]),
            form(Some(1), Some(b"ab"), Some(b""), &[]),
        ];
        for (i, a) in parts.iter().enumerate() {
            assert!(parts[..i].iter().all(|b| a != b), "{i}");
        }
    }
}
