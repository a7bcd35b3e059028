//! What all commits up to some number add up to: topics with their ends, lanes with owner and marker.
//!
//! Invariant: `apply` accepts only a commit that follows from the state; so offsets are dense and a lane's marker is its
//! newest owner's. The state never depends on anything but the commits.

use super::entry::Entry;
use crate::topics::TopicConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use waterwheel_engine::operators::LaneMarker;

/// The state after some commits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Book {
    pub(super) topics: BTreeMap<String, TopicState>,
    pub(super) lanes: BTreeMap<String, LaneState>,
}

/// A topic that exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TopicState {
    pub(super) id: String,
    pub(super) config: TopicConfig,
    /// End offset of each partition.
    pub(super) ends: Vec<i64>,
}

/// A publish lane that was ever fenced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LaneState {
    pub(super) generation: u64,
    pub(super) marker: Option<LaneMarker>,
}

impl Book {
    /// The end of a partition, if the topic of that identity has it.
    pub(super) fn end(&self, topic: &str, id: &str, partition: i32) -> Option<i64> {
        let state = self.topics.get(topic).filter(|t| t.id == id)?;
        state.ends.get(usize::try_from(partition).ok()?).copied()
    }

    /// Takes the next commit. On an error the state is half changed: apply to a copy where that matters.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Create { topic, id, config } => {
                let state = TopicState { id: id.clone(), config: config.clone(), ends: vec![0; config.partitions as usize] };
                if self.topics.insert(topic.clone(), state).is_some() {
                    return Err(format!("topic {topic} is made twice"));
                }
            }
            Entry::Delete { topic, id } => {
                if self.topics.remove(topic).is_none_or(|t| t.id != *id) {
                    return Err(format!("topic {topic} is removed and was not there"));
                }
            }
            Entry::Fence { lane, generation, .. } => {
                let state = self.lanes.entry(lane.clone()).or_default();
                if *generation != state.generation + 1 {
                    return Err(format!("lane {lane} goes from generation {} to {generation}", state.generation));
                }
                state.generation = *generation;
            }
            Entry::Append { lane, extents } => {
                for extent in extents {
                    let state = self.topics.get_mut(&extent.topic).filter(|t| t.id == extent.id);
                    let end = state.and_then(|t| t.ends.get_mut(usize::try_from(extent.partition).ok()?));
                    match end {
                        Some(end) if *end == extent.base => *end = extent.end(),
                        _ => return Err(format!("records for {}/{} do not follow on", extent.topic, extent.partition)),
                    }
                }
                if let Some(commit) = lane {
                    let state = self.lanes.get_mut(&commit.lane).filter(|l| l.generation == commit.generation);
                    let state = state.ok_or_else(|| format!("lane {} published without owning it", commit.lane))?;
                    state.marker = Some(commit.marker.clone());
                }
            }
        }
        Ok(())
    }
}
