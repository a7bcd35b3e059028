//! Offsets of consumer groups: told after checkpoints, for people who watch lag and for jobs that start where another stands.
//!
//! Invariant: never the truth of a job, its checkpoint is. Each partition has a file of its own, replaced whole.

use super::Place;
use super::entry;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::SplitId;

#[derive(Serialize, Deserialize)]
struct Committed {
    topic_id: String,
    offset: i64,
}

fn path(place: &Place, group: &str, split: &SplitId) -> PathBuf {
    place.root.join("groups").join(group).join(format!("{}-{}.json", split.name, split.partition))
}

/// Notes the next offset of a partition.
pub(super) fn commit(place: &Place, group: &str, split: &SplitId, topic_id: &str, offset: i64) -> Result<()> {
    let path = path(place, group, split);
    let line = entry::encode(&Committed { topic_id: topic_id.into(), offset }).map_err(Error::fatal)?;
    let files = &place.env.files;
    let written = files.create_dir_all(path.parent().unwrap_or(&place.root)).and_then(|()| files.replace(&path, &line));
    written.map_err(|e| Error::from(e).at(path.display().to_string()))
}

/// The offset noted for this very topic, if any.
pub(super) fn committed(place: &Place, group: &str, split: &SplitId, topic_id: &str) -> Result<Option<i64>> {
    let path = path(place, group, split);
    let line = match place.env.files.read(&path) {
        Ok(line) => line,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::from(e).at(path.display().to_string())),
    };
    let noted: Committed = entry::decode(&line).map_err(|why| super::history::damaged(&path, 0, &why))?;
    Ok((noted.topic_id == topic_id).then_some(noted.offset))
}
