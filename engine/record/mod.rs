//! What flows between operators.
//!
//! Everything moves in batches; there is no per-row dispatch, allocation or channel send. The stateful cores see only
//! lengths, times and keys of a batch, never inside a row: what looks inside is a leaf kernel.
//!
//! Invariant: rows of one batch are in arrival order, and `times`, `keys` and `origins`, where present, have one entry a row.

mod batch;
mod change;
mod columns;
mod element;
mod file_rows;
pub mod folders;
mod ids;
mod key;
mod keys;
mod origin;
mod raw;
mod rows;

pub use batch::{Batch, BatchBox, downcast};
pub use change::{Change, RowKind};
pub use columns::{ChangeBatch, record_batch};
pub use element::{Barrier, BarrierKind, Element, Epoch};
pub use file_rows::FileRows;
pub use ids::{OperatorId, TaskId};
pub use key::{KEY_CODEC_VERSION, Key, KeyGroup, decode_bytes, encode_bytes, key_group, key_groups_of, task_of};
pub use keys::Keys;
pub use origin::{Origin, Origins, Rejected};
pub use raw::{Logged, RawBatch, RawRecord, RecordMeta, Timestamps};
pub use rows::{Data, Rows};
/// A text that is cheap to clone, whatever its length: up to 23 bytes lie in the value itself, longer ones are shared. For the
/// fields of rows, in place of `String`: as a key it has the bytes that a `String` has.
pub use smol_str::SmolStr as Str;
