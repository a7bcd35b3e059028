//! Whether a stored position still means what it meant: same topic, records still there.
//!
//! Invariant: no record of a partition enters the job before its position has passed this; librdkafka itself would read on
//! silently in a topic made again.

use super::client;
use super::config::KafkaConfig;
use super::offsets::bounds;
use super::source::{described, same};
use crate::topics::{OnLostOffsets, topic_replaced};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::SplitState;

/// Where to begin in each split: its position, or what the policy says when that is gone. Blocks.
///
/// # Errors
/// Fatal when the topic is gone or was made again, or the position is gone and the policy is to fail; transient while the
/// broker is away.
pub(super) fn positions(config: &KafkaConfig, policy: OnLostOffsets, splits: &[SplitState]) -> Result<Vec<i64>> {
    let client = client::asker(config)?;
    let place = config.place();
    let mut topics: Vec<String> = splits.iter().map(|s| s.split.id.name.to_string()).collect();
    topics.sort();
    topics.dedup();
    let described = described(&client, &topics, &place, |topic| topic_replaced(topic, 0))?;
    let mut starts = Vec::with_capacity(splits.len());
    for state in splits {
        let id = &state.split.id;
        same(&state.split, described.get(&*id.name))?;
        let (low, high) = bounds(&client, id, &place)?;
        starts.push(if (low..=high).contains(&state.position) { state.position } else { lost(policy, state, low, high)? });
    }
    Ok(starts)
}

fn lost(policy: OnLostOffsets, state: &SplitState, low: i64, high: i64) -> Result<i64> {
    let (id, position) = (&state.split.id, state.position);
    let what = if position < low {
        format!("offsets {position}..{low} of {id} are gone (retention); the job needs {position}")
    } else {
        format!("{id} ends at offset {high}; the job needs {position}: the topic lost records")
    };
    match policy {
        OnLostOffsets::Fail => Err(Error::fatal(what)
            .help("start at the oldest record and accept the gap:  run --on-lost-offsets earliest")
            .help("or restore an older state:                        run --from <savepoint>")),
        OnLostOffsets::Earliest => {
            tracing::warn!("{what}; going on at {low}, as --on-lost-offsets earliest says");
            Ok(low)
        }
        OnLostOffsets::Latest => {
            tracing::warn!("{what}; going on at {high}, as --on-lost-offsets latest says");
            Ok(high)
        }
    }
}
