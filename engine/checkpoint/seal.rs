//! Sealed text: one JSON value and a checksum line, the form of manifests and log entries.
//!
//! Invariant: nothing is parsed before the checksum holds, and nothing of a newer version is parsed beyond its version.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// JSON, line break, `crc32 xxxxxxxx`, line break.
pub(super) fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(|e| Error::fatal("metadata cannot be written as JSON").because(e))?;
    bytes.push(b'\n');
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(format!("crc32 {crc:08x}\n").as_bytes());
    Ok(bytes)
}

/// The value back. `what` names the file for messages; `version` is the newest that this program reads.
pub(super) fn unseal<T: DeserializeOwned>(what: &str, version: u16, bytes: &[u8]) -> Result<T> {
    let damaged =
        |why: &str| Error::fatal(format!("{what} is damaged: {why}")).help("restore an older checkpoint or a savepoint: run --from <path>");
    let body = bytes.len().checked_sub("crc32 xxxxxxxx\n".len()).ok_or_else(|| damaged("it is too short"))?;
    let (body, last) = bytes.split_at(body);
    if last != format!("crc32 {:08x}\n", crc32fast::hash(body)).as_bytes() {
        return Err(damaged("its checksum does not hold"));
    }
    #[derive(Deserialize)]
    struct Version {
        version: u16,
    }
    let found: Version = serde_json::from_slice(body).map_err(|_| damaged("it has no version"))?;
    if found.version > version {
        return Err(Error::fatal(format!("{what} has version {}, this program reads up to {version}", found.version))
            .help("run the newer program that wrote it"));
    }
    serde_json::from_slice(body).map_err(|e| damaged(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Value {
        version: u16,
        text: String,
    }

    #[test]
    fn any_flipped_bit_or_cut_is_found() {
        let value = Value { version: 1, text: "a".into() };
        let sealed = seal(&value).unwrap();
        assert_eq!(unseal::<Value>("x", 1, &sealed).unwrap(), value);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 4;
            assert!(unseal::<Value>("x", 1, &bad).is_err(), "flip at {at}");
            assert!(unseal::<Value>("x", 1, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let sealed = seal(&serde_json::json!({ "version": 9, "other": 1 })).unwrap();
        let e = unseal::<Value>("manifest m", 1, &sealed).unwrap_err();
        assert_eq!(e.to_string(), "manifest m has version 9, this program reads up to 1");
    }
}
