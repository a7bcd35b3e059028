//! Joins over columns: the kernel of the engine's joins.
//!
//! Invariant: a result is the columns of the left row, then those of the right one unless the join gives left rows alone; a
//! row without a partner has NULLs in the place of the other.

use super::condition::Condition;
use super::packed::Packed;
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::joins::{EncodedRows, LEFT, PairKernel, Paired, Pairing, RIGHT};
use waterwheel_engine::record::{Batch, BatchBox, ChangeBatch, RowKind, record_batch};
use waterwheel_engine::time::EventTime;

/// A side of a join, by number.
type Side = usize;

/// What is joined, and what of it is a result.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    pub(crate) sides: [Packed; 2],
    pub(crate) condition: Condition,
    /// Of the results: the left columns, and the right ones unless `only_left`.
    pub(crate) schema: SchemaRef,
    pub(crate) only_left: bool,
    /// Results are taken back.
    pub(crate) updating: bool,
    /// Join, keys and condition, in words: state is of this join and no other.
    pub(crate) described: String,
}

/// The kernel of one task.
pub(crate) struct PairKernelOf {
    pairs: Arc<Pairs>,
    kind: RowKind,
    /// The rows of the results that wait, one after the other.
    bytes: Vec<u8>,
    results: Vec<[Option<(usize, usize)>; 2]>,
    kinds: Vec<RowKind>,
    times: Vec<EventTime>,
}

impl PairKernelOf {
    pub(crate) fn new(pairs: Arc<Pairs>) -> Self {
        PairKernelOf { pairs, kind: RowKind::Insert, bytes: Vec::new(), results: Vec::new(), kinds: Vec::new(), times: Vec::new() }
    }

    fn push(&mut self, left: Option<&[u8]>, right: Option<&[u8]>, time: EventTime) {
        let mut kept = |row: Option<&[u8]>| {
            let row = row?;
            self.bytes.extend_from_slice(row);
            Some((self.bytes.len() - row.len(), self.bytes.len()))
        };
        let spans = [kept(left), kept(right.filter(|_| !self.pairs.only_left))];
        self.results.push(spans);
        self.kinds.push(self.kind);
        self.times.push(time);
    }

    fn columns(&self) -> Result<RecordBatch> {
        let sides = if self.pairs.only_left { &[LEFT][..] } else { &[LEFT, RIGHT] };
        let mut columns = Vec::with_capacity(self.pairs.schema.fields().len());
        for &side in sides {
            let packed = &self.pairs.sides[side];
            for column in 0..packed.len() {
                let rows = self.results.iter().map(|spans| spans[side].map(|(from, to)| &self.bytes[from..to]));
                columns.push(packed.column(column, rows)?);
            }
        }
        self.batch_of(columns, self.results.len())
    }

    fn batch_of(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        record_batch(self.pairs.schema.clone(), columns, rows)
            .map_err(|e| Error::fatal("plan bug: a join's columns are of another type").because(e))
    }
}

impl PairKernel for PairKernelOf {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn schema(&self) -> String {
        let [left, right] = &self.pairs.sides;
        format!("{} | {} | {}", left.describe(), right.describe(), self.pairs.described)
    }

    fn encode(&self, side: Side, batch: &dyn Batch, row: usize, out: &mut Vec<u8>) {
        self.pairs.sides[side].pack(&changes(batch).columns, row, out);
    }

    fn encode_all(&self, side: Side, batch: &dyn Batch, out: &mut EncodedRows) -> Vec<(usize, String)> {
        self.pairs.sides[side].pack_all(&changes(batch).columns, out);
        Vec::new()
    }

    fn meet(&mut self, side: Side, pairing: &Pairing<'_>, failed: &mut Vec<(usize, String)>) -> Result<Option<BatchBox>> {
        let own = changes(pairing.batch);
        let kept = self.pairs.condition.select(&self.pairs.sides, side, &own.columns, pairing, failed)?;
        let (rows, partners) = match &kept {
            None => (pairing.rows, pairing.partners),
            Some((rows, partners)) => (&rows[..], &partners[..]),
        };
        if rows.is_empty() {
            return Ok(None);
        }
        let places = UInt32Array::from(rows.to_vec());
        let cannot = |e| Error::restart("results of a join cannot be put into columns").because(e);
        let mut columns = Vec::with_capacity(self.pairs.schema.fields().len());
        for of in if self.pairs.only_left { LEFT..LEFT + 1 } else { LEFT..RIGHT + 1 } {
            let packed = &self.pairs.sides[of];
            for column in 0..packed.len() {
                columns.push(match of == side {
                    true => take(own.columns.column(column), &places, None).map_err(cannot)?,
                    false => packed.column(column, partners.iter().map(|row| Some(*row)))?,
                });
            }
        }
        let columns = self.batch_of(columns, rows.len())?;
        Ok(Some(ChangeBatch::inserts(columns, rows.iter().map(|&row| own.times[row as usize]).collect()).boxed()))
    }

    fn is_addition(&self, _side: Side, batch: &dyn Batch, row: usize) -> bool {
        changes(batch).kind(row).is_addition()
    }

    fn set_kind(&mut self, kind: RowKind) {
        self.kind = kind;
    }

    fn pair(&mut self, left: &[u8], right: &[u8], result: Option<EventTime>) -> Result<Paired> {
        match self.pairs.condition.holds(&self.pairs.sides, left, right)? {
            Ok(true) => {}
            Ok(false) => return Ok(Paired::No),
            Err(error) => return Ok(Paired::Failed(error)),
        }
        if let Some(time) = result {
            self.push(Some(left), Some(right), time);
        }
        Ok(Paired::Yes)
    }

    fn join(&mut self, left: &[u8], right: &[u8], time: EventTime) -> Result<Paired> {
        self.push(Some(left), Some(right), time);
        Ok(Paired::Yes)
    }

    fn alone(&mut self, side: Side, row: &[u8], time: EventTime) -> Result<Option<String>> {
        let (left, right) = if side == LEFT { (Some(row), None) } else { (None, Some(row)) };
        self.push(left, right, time);
        Ok(None)
    }

    fn results(&self) -> usize {
        self.results.len()
    }

    fn take(&mut self) -> Result<BatchBox> {
        let columns = self.columns()?;
        self.bytes.clear();
        self.results.clear();
        let kinds = std::mem::take(&mut self.kinds);
        let mut batch = ChangeBatch::inserts(columns, std::mem::take(&mut self.times));
        batch.kinds = self.pairs.updating.then_some(kinds);
        Ok(batch.boxed())
    }
}

fn changes(batch: &dyn Batch) -> &ChangeBatch {
    match batch.as_any().downcast_ref::<ChangeBatch>() {
        Some(batch) => batch,
        None => panic!("plan bug: a join over columns got a batch of {}", batch.type_name()),
    }
}
