//! Commits as bytes: one line each, `1 <crc32> <json>`, readable by people and checked before use.
//!
//! Invariant: a line that does not check is an error that says so; the version comes first, so that a newer writer's line is
//! refused rather than misread.

use crate::topics::TopicConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use waterwheel_engine::operators::LaneMarker;

const VERSION: &str = "1";

/// One commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// A topic is made.
    Create { topic: String, id: String, config: TopicConfig },
    /// A topic is removed with its records.
    Delete { topic: String, id: String },
    /// A lane has a new owner; every older one is shut out. The owner's identity makes each commit unlike every other.
    Fence { lane: String, generation: u64, owner: String },
    /// Records become visible, with the lane's marker if a lane published them.
    Append {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lane: Option<LaneCommit>,
        extents: Vec<Extent>,
    },
}

/// The lane's part of an append.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LaneCommit {
    pub(super) lane: String,
    pub(super) generation: u64,
    pub(super) marker: LaneMarker,
    /// Name and checksum of the segments published: a scan finds them by it.
    pub(super) segments: Vec<(String, u32)>,
}

/// A run of records of one partition: whole frames, one after the other in one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Extent {
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) partition: i32,
    /// Offset of the first record.
    pub(super) base: i64,
    pub(super) records: u64,
    pub(super) file: String,
    /// Byte range in the file.
    pub(super) at: u64,
    pub(super) len: u64,
    /// Largest record timestamp.
    pub(super) max_timestamp: i64,
}

impl Extent {
    /// Offset after the last record.
    pub(super) fn end(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.records).unwrap_or(i64::MAX))
    }
}

/// One line with version and checksum.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let json = serde_json::to_string(value).map_err(|e| e.to_string())?;
    Ok(format!("{VERSION} {:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
}

/// A line back, the line break optional.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is no text")?.trim_end_matches('\n');
    let mut parts = text.splitn(3, ' ');
    let (version, crc, json) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    if version != VERSION && !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("it was written by a newer version (format {version}, this program knows {VERSION})"));
    }
    if version != VERSION || u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(json.as_bytes())) {
        return Err("its checksum does not hold".into());
    }
    serde_json::from_str(json).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_and_any_flipped_bit_is_found() {
        let entry = Entry::Fence { lane: "job/sink/0".into(), generation: 3, owner: "x".into() };
        let line = encode(&entry).unwrap();
        assert_eq!(decode::<Entry>(&line).unwrap(), entry);
        for at in 0..line.len() - 1 {
            let mut bad = line.clone();
            bad[at] ^= 1;
            assert_ne!(decode::<Entry>(&bad).ok(), Some(entry.clone()), "flip at {at}");
        }
        let mut newer = line;
        newer[0] = b'2';
        assert!(decode::<Entry>(&newer).unwrap_err().contains("newer version"));
    }
}
