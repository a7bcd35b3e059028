//! The source of the embedded log: which partitions there are, and where a new job begins in them.
//!
//! Invariant: starts and ends are resolved to offsets here, once; the engine pins them before the first read.

use super::book::{Book, TopicState};
use super::entry::Entry;
use super::reader::{LocalReader, read_extent};
use super::view::{Cursor, Step, View};
use super::{Place, groups};
use crate::topics::{End, SourceOptions, Start, TopicNames, no_such_topic};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{ReaderContext, Source, SourceReader, Split, SplitId};
use waterwheel_engine::record::RawBatch;

/// Reads topics of the embedded log.
pub(super) struct LocalSource {
    place: Place,
    options: SourceOptions,
}

impl LocalSource {
    pub(super) fn new(place: Place, options: SourceOptions) -> Self {
        LocalSource { place, options }
    }

    fn start(&self, state: &TopicState, split: &SplitId, end: i64) -> Result<i64> {
        let offset = match &self.options.start {
            Start::Earliest => 0,
            Start::Latest => end,
            Start::Timestamp(time) => self.first_at(split, &state.id, *time)?.unwrap_or(end),
            Start::GroupOffsets(group) => groups::committed(&self.place, group, split, &state.id)?.ok_or_else(|| {
                Error::fatal(format!("group {group} has committed no offset for {split}")).help("begin at earliest, latest or a timestamp")
            })?,
            Start::Offsets(offsets) => offsets.get(&(split.name.to_string(), split.partition)).copied().unwrap_or(0),
        };
        if (0..=end).contains(&offset) {
            return Ok(offset);
        }
        Err(Error::fatal(format!("offset {offset} to start at is not in {split}, which holds 0..{end}")).at(self.place.url()))
    }

    fn end(&self, split: &SplitId, end: i64) -> Option<i64> {
        match &self.options.end {
            End::Never => None,
            End::Latest => Some(end),
            End::Offsets(offsets) => Some(offsets.get(&(split.name.to_string(), split.partition)).copied().unwrap_or(end)),
        }
    }

    /// The first record that is not before `time`: the first extent with such a record, then the record in it.
    fn first_at(&self, split: &SplitId, id: &str, time: i64) -> Result<Option<i64>> {
        let mut cursor = Cursor::at(self.place.history(), 0);
        loop {
            match cursor.step()? {
                Step::End => return Ok(None),
                Step::Unsettled => {
                    self.place.history().settle()?;
                    cursor.settled();
                }
                Step::Entry(_, Entry::Append { extents, .. }) => {
                    for extent in extents.into_iter().filter(|e| e.id == id && e.partition == split.partition && e.max_timestamp >= time) {
                        let mut rest = extent;
                        while rest.records > 0 {
                            let mut batch = RawBatch::default();
                            read_extent(&self.place, &split.name, &mut rest, 0..i64::MAX, &mut batch)?;
                            if let Some(record) = batch.records().find(|r| r.timestamp >= time) {
                                return Ok(Some(record.offset));
                            }
                        }
                    }
                }
                Step::Entry(..) => {}
            }
        }
    }

    fn missing(&self, book: &Book) -> Option<String> {
        match &self.options.topics {
            TopicNames::Named(names) => names.iter().find(|n| !book.topics.contains_key(*n)).cloned(),
            TopicNames::Pattern(_) => None,
        }
    }
}

impl Source for LocalSource {
    fn describe(&self) -> String {
        format!("{} in {}", self.options.topics, self.place.url())
    }

    fn is_bounded(&self) -> bool {
        self.options.is_bounded()
    }

    fn splits(&self, first: bool) -> Result<Vec<Split>> {
        let view = View::open(self.place.history()).map_err(|e| e.at(self.place.url()))?;
        if let Some(topic) = self.missing(view.book()) {
            return Err(no_such_topic(&topic, &self.place.url()));
        }
        let mut splits = Vec::new();
        for (name, state) in view.book().topics.iter().filter(|(name, _)| self.options.topics.contains(name)) {
            let name: std::sync::Arc<str> = name.as_str().into();
            for (partition, &end) in state.ends.iter().enumerate() {
                let id = SplitId { name: name.clone(), partition: partition as i32 };
                let start = if first { self.start(state, &id, end)? } else { 0 };
                let bootstrap_end = self.options.table.then_some(end);
                splits.push(Split { end: self.end(&id, end), id, start, bootstrap_end, topic_id: Some(state.id.clone()) });
            }
        }
        Ok(splits)
    }

    fn discovery_ms(&self) -> Option<u64> {
        // The partitions of a topic never change here; only a pattern can find more.
        let may_grow = matches!(self.options.topics, TopicNames::Pattern(_)) && !self.is_bounded();
        self.options.discovery_ms.filter(|_| may_grow)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(LocalReader::new(self.place.clone(), self.options.clone(), context)))
    }
}
