//! What every checkpoint store must do, as a script against a map.
//!
//! Invariant: a store that conforms cannot be told from any other by what it answers.

use crate::checkpoint::CheckpointStorage;
use crate::env::Env;
use crate::state::StateFile;
use std::collections::BTreeMap;
use std::path::Path;

/// One call, on a name of eight: 0 to 3 are small values, 4 to 7 files.
#[derive(Debug, Clone)]
pub enum StorageStep {
    /// Stores three of the second byte.
    PutIfAbsent(u8, u8),
    /// Stores a file, immutable or not: 0 to 3.
    PutFile(u8, bool),
    /// Brings a file, with its checksum and with a wrong one.
    GetFile(u8),
    /// Removes a name.
    Delete(u8),
    /// Lists folders.
    List,
}

impl StorageStep {
    /// One of all steps, from three numbers at random.
    pub fn of((kind, n, with): (u8, u8, u8)) -> StorageStep {
        match kind % 5 {
            0 => StorageStep::PutIfAbsent(n % 4, with),
            1 => StorageStep::PutFile(n % 4, with % 2 == 1),
            2 => StorageStep::GetFile(n % 8),
            3 => StorageStep::Delete(n % 8),
            _ => StorageStep::List,
        }
    }
}

/// As a snapshot describes a file with these bytes.
pub(crate) fn described(bytes: &[u8], immutable: bool) -> StateFile {
    StateFile { name: "f".into(), len: bytes.len() as u64, crc: crc32fast::hash(bytes), immutable }
}

/// Writes a file, durable.
pub(crate) fn write(env: &Env, path: &Path, bytes: &[u8]) {
    let mut file = env.files.create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync().unwrap();
}

/// Runs a script on an empty store; `scratch` is a local folder, files have `file_bytes`.
///
/// # Panics
/// When the store does not conform.
pub fn storage_conforms(env: &Env, storage: &dyn CheckpointStorage, scratch: &Path, script: &[StorageStep], file_bytes: usize) {
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let name = |n: u8| if n < 4 { format!("log/{n}") } else { format!("state/{n}") };
    let (from, to) = (scratch.join("from"), scratch.join("to"));
    for step in script {
        match step {
            StorageStep::PutIfAbsent(n, v) => {
                let free = !model.contains_key(&name(*n));
                assert_eq!(storage.put_if_absent(&name(*n), &[*v; 3]).unwrap(), free);
                model.entry(name(*n)).or_insert_with(|| vec![*v; 3]);
            }
            StorageStep::PutFile(n, immutable) => {
                // One content per name, as the contract says.
                let (name, bytes) = (name(n + 4), vec![*n; file_bytes]);
                let _ = env.files.remove(&from);
                write(env, &from, &bytes);
                storage.put_file(&name, &from, &described(&bytes, *immutable)).unwrap();
                model.insert(name, bytes);
            }
            StorageStep::GetFile(n) => match model.get(&name(*n)) {
                Some(bytes) => {
                    for immutable in [false, true] {
                        let _ = env.files.remove(&to);
                        storage.get_file(&name(*n), &to, &described(bytes, immutable)).unwrap();
                        assert_eq!(&env.files.read(&to).unwrap(), bytes);
                        let wrong = StateFile { crc: 1, ..described(bytes, immutable) };
                        assert!(storage.get_file(&name(*n), &to, &wrong).is_err());
                    }
                }
                None => {
                    let e = storage.get_file(&name(*n), &to, &described(b"", false)).unwrap_err();
                    assert!(e.to_string().contains("is missing"), "{e}");
                }
            },
            StorageStep::Delete(n) => {
                storage.delete(&name(*n)).unwrap();
                model.remove(&name(*n));
            }
            StorageStep::List => {
                for folder in ["log", "state", "nowhere"] {
                    let expected: Vec<_> = model.keys().filter(|k| k.starts_with(folder)).cloned().collect();
                    assert_eq!(storage.list(folder).unwrap(), expected);
                }
            }
        }
        for n in 0..8 {
            assert_eq!(storage.get(&name(n)).unwrap(), model.get(&name(n)).cloned());
            assert_eq!(storage.size(&name(n)).unwrap(), model.get(&name(n)).map(|b| b.len() as u64));
        }
    }
}
