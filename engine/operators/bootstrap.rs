//! Reading a table in before the stream that joins it.
//!
//! Invariant: once a table has been read in, that stays so over restores; before, nothing is taken from the stream.

use super::{Port, TABLE_INPUT};
use crate::error::{Error, Result};
use crate::time::EventTime;

/// Whether the table on [`TABLE_INPUT`] has been read in.
#[derive(Debug, Default)]
pub(super) struct Bootstrap(bool);

impl Bootstrap {
    /// For [`Operator::on_input_watermark`](super::Operator::on_input_watermark): a table's first watermark says that it has.
    pub(super) fn on_input_watermark(&mut self, input: usize, time: EventTime) {
        self.0 |= input == TABLE_INPUT && time > EventTime::MIN;
    }

    /// For [`Operator::only_input`](super::Operator::only_input).
    pub(super) fn only_input(&self) -> Option<Port> {
        (!self.0).then_some(TABLE_INPUT)
    }

    /// For [`Operator::save`](super::Operator::save).
    pub(super) fn save(&self) -> Vec<u8> {
        vec![u8::from(self.0)]
    }

    /// From what all former instances saved.
    ///
    /// # Errors
    /// A blob that is none of these.
    pub(super) fn restore(blobs: &[Vec<u8>]) -> Result<Bootstrap> {
        if blobs.iter().any(|blob| !matches!(blob[..], [0 | 1])) {
            return Err(Error::fatal("the saved progress of a table join is damaged"));
        }
        Ok(Bootstrap(!blobs.is_empty() && blobs.iter().all(|blob| blob[..] == [1])))
    }
}
