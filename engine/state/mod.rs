//! Keyed state: key -> slot, the four table kinds, what is in memory and what is on disk.
//!
//! An operator holds a [`KeyIndex`] (key bytes to dense `u32` slots) and tables over those slots. The hot tier in memory is
//! the truth for what it holds; a [`StateStore`] behind it is where epochs are drained to and where cold entries live: on disk
//! a journal until something is evicted and RocksDB from then on, in tests an ordered map.
//!
//! Life of an epoch, per task, all on the task's own thread but the last two steps:
//! 1. Rows write entries; a table remembers which slots changed since the last freeze.
//! 2. At a barrier the task calls [`Table::freeze`] on every table: O(1), the change list becomes the frozen list.
//! 3. Between later steps the task calls [`Table::drain`] with a small budget: frozen entries are encoded into a
//!    [`WriteBatch`]. Whoever writes a frozen, undrained entry encodes the old value first.
//! 4. When every table is drained, a background job writes the batches to the store as runs and takes
//!    [`StateStore::checkpoint`]; its files are the task's snapshot.
//!
//! Invariant: between freeze(N) and the store checkpoint of N nothing newer than N reaches the store. So a table that evicts
//! into the store is let be while an epoch is being drained; one that evicts beside it ([`Table::evicts_apart`]) is not.
//!
//! Keys in a store: key group (u16 BE) | table id (u32 BE) | key. A table id is the frozen hash of `operator id / table
//! name`, so a table is found again whatever the order of operators; rescale copies key-group ranges.

mod append;
mod arena;
mod batch;
mod broadcast;
mod buffer;
mod chunks;
mod described;
mod evolve;
mod ids;
mod index;
mod inspect;
mod journal;
mod keyspace;
mod map;
mod memory;
mod names;
mod ordered;
mod parts;
mod pile;
mod point;
mod queue;
mod rocks;
mod run;
mod schema;
mod seen;
mod shape;
mod slice;
mod sorted;
#[cfg(test)]
mod tests;
mod tiered;
mod value;

pub use append::{AppendTable, RowId, Side, Waiting};
pub use batch::{Write, WriteBatch};
pub use broadcast::BroadcastTable;
pub use chunks::Scratch;
pub use described::show as show_value;
pub use evolve::{check_schema, evolve, forget_table};
pub use index::KeyIndex;
pub use inspect::{ShownEntry, read_table};
pub use keyspace::{state_key, table_id};
pub use map::MapTable;
pub use memory::{MemoryStore, MemoryStores};
pub use ordered::{Due, OrderedTable};
pub use pile::PileTable;
pub use point::PointTable;
pub use rocks::{RocksSettings, RocksStores};
pub use seen::SeenTable;
pub use shape::Schema;
pub use slice::{Parts, SliceCursor, SliceTable, SliceView};
pub use tiered::TieredStores;
pub use value::{StateValue, check_codec, decode, encode_into, schema_of};

use crate::error::{Error, Result};
use crate::record::{Epoch, KeyGroup};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A file of a snapshot, named relative to the folder it was written in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StateFile {
    /// File name.
    pub name: String,
    /// Bytes.
    pub len: u64,
    /// CRC-32 of the content (crc32fast).
    pub crc: u32,
    /// Never changes once written (an SST): uploaded once, shared between checkpoints.
    pub immutable: bool,
}

/// Sees the place of a key among those asked for, and its value.
pub type VisitFound<'a> = &'a mut dyn FnMut(usize, &[u8]) -> Result<()>;

/// Sees key and value of an entry.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// Ordered bytes to bytes behind a task's tables. One per task; shared with the background job that drains it.
///
/// Contract: `write` is atomic; reads see every finished write. `checkpoint` writes the present content into `dir` (a new
/// folder on the same file system) as files that later writes never change. Durability comes from the checkpoint alone: the
/// live content is thrown away on restart.
pub trait StateStore: Send + Sync {
    /// One value.
    ///
    /// # Errors
    /// Of the disk, or a checksum that does not hold.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.multi_get(&[key], &mut |_, value| {
            found = Some(value.to_vec());
            Ok(())
        })?;
        Ok(found)
    }
    /// Many values in one call: visits each key that is there, by its place in `keys`, in any order.
    ///
    /// # Errors
    /// As `get`, and those of the visitor.
    fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Result<()>;
    /// Visits `from..to` in key order.
    ///
    /// # Errors
    /// As `get`, and those of the visitor.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()>;
    /// Applies a batch.
    ///
    /// # Errors
    /// Of the disk.
    fn write(&self, batch: &WriteBatch) -> Result<()>;
    /// Applies a large batch that nobody waits for; the outcome is that of `write`, the way may be cheaper.
    ///
    /// # Errors
    /// Of the disk.
    fn write_run(&self, batch: &WriteBatch) -> Result<()> {
        self.write(batch)
    }
    /// Writes the content into `dir`, checksummed.
    ///
    /// # Errors
    /// Of the disk.
    fn checkpoint(&self, dir: &Path) -> Result<Vec<StateFile>>;
    /// Whether the tables hold all of it: they load it when they open, and then it need not be findable until one evicts.
    fn is_resident(&self) -> bool {
        false
    }
    /// Housekeeping in the background, a bounded piece after each checkpoint.
    ///
    /// # Errors
    /// Of the disk.
    fn tidy(&self) -> Result<()> {
        Ok(())
    }
    /// Where tables of rows may put bytes that they have no room for; without, they keep them in memory.
    fn scratch(&self) -> Option<Scratch> {
        None
    }
    /// Values of `table` whose first 8 bytes are below `before` are over: they may be dropped whenever that is cheap. Until
    /// then they may be read; a table with a time to live checks each value that it reads.
    fn expire(&self, _table: u32, _before: [u8; 8]) {}
}

/// Makes and opens stores: RocksDB, or the ordered map.
pub trait StateStores: Send + Sync {
    /// A new, empty store in `dir` (made; anything left there by a dead process is removed first).
    ///
    /// # Errors
    /// Of the disk.
    fn create(&self, dir: &Path) -> Result<Arc<dyn StateStore>>;
    /// A store that starts as the snapshots in `snapshots` (folders whose files were verified), cut to `groups`. One snapshot
    /// whose groups equal `groups` is opened in place of a copy (linked); else the ranges are copied.
    ///
    /// # Errors
    /// Of the disk, or content that is not a snapshot.
    fn restore(&self, dir: &Path, snapshots: &[RestoredSnapshot], groups: Range<KeyGroup>) -> Result<Arc<dyn StateStore>>;
}

/// One old task's snapshot on local disk.
#[derive(Debug, Clone)]
pub struct RestoredSnapshot {
    /// Folder with the files.
    pub dir: std::path::PathBuf,
    /// Key groups it holds.
    pub groups: Range<KeyGroup>,
}

/// What the task needs of every table, whatever its kind. See the module's life of an epoch.
pub trait Table: Send {
    /// Name within the operator, for the table id, `explain` and messages.
    fn name(&self) -> &str;
    /// Codec version and schema of key and value, as text; a restore that may not change it so is refused before state is touched
    /// ([`check_schema`]).
    fn schema(&self) -> String;
    /// A value as it is in the store under a former schema, in the present form. Kinds that cannot read values refuse.
    ///
    /// # Errors
    /// A value that does not fit.
    fn rewrite(&self, _stored: &Schema, _value: &[u8]) -> Result<Vec<u8>> {
        Err(Error::fatal(format!("values of table {} cannot be rewritten", self.name())).help("bring the old type back"))
    }
    /// Connects to the store at start. With `restored`, content of the owned key groups is in the store: kinds that live in
    /// memory whole load it now, Point and Slice only from a resident store; else they read on demand, Ordered as time comes to it.
    ///
    /// # Errors
    /// Of the store, or a value that does not decode.
    fn open(&mut self, context: &TableContext, restored: bool) -> Result<()>;
    /// The epoch ends: O(1). Comes after the epoch before was drained to the end and [`drained`](Table::drained), or was given
    /// up: then its changes go with this one, and whatever `drain` has put out so far is still written first.
    fn freeze(&mut self, epoch: Epoch);
    /// Encodes up to `entries` frozen entries; `true` when none is left.
    ///
    /// # Errors
    /// Of the disk: a frozen entry that is not in memory cannot be read.
    fn drain(&mut self, out: &mut WriteBatch, entries: usize) -> Result<bool>;
    /// The drained epoch is in the store: entries unchanged since are clean and may be evicted.
    fn drained(&mut self, epoch: Epoch);
    /// Bytes held in memory.
    fn bytes(&self) -> usize;
    /// Keys held in memory; what is kept by time (timers) has none of its own.
    fn keys(&self) -> usize;
    /// Those of [`bytes`](Table::bytes) that `evict` cannot free, because they must be in memory.
    fn pinned_bytes(&self) -> usize {
        0
    }
    /// Whether `evict` leaves the store alone, so that it may be called while an epoch is being drained.
    fn evicts_apart(&self) -> bool {
        false
    }
    /// Frees about `target` bytes by dropping clean entries and writing dirty ones to the store, or all to files of the task's
    /// own. Kinds that must stay in memory free nothing. Called while no epoch is being drained, or if it
    /// [leaves the store alone](Table::evicts_apart).
    ///
    /// # Errors
    /// Of the store, or the disk.
    fn evict(&mut self, target: usize) -> Result<()>;
}

/// What a table gets at start.
#[derive(Clone)]
pub struct TableContext {
    /// The operator's stable id, for the table id.
    pub operator: String,
    /// The task's store.
    pub store: Arc<dyn StateStore>,
    /// Key groups the task owns.
    pub groups: Range<KeyGroup>,
    /// Number of key groups.
    pub max_parallelism: u16,
}
