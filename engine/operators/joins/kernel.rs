//! What looks inside the rows of a join: codec, predicate, result.
//!
//! Invariant: equal calls, equal results; a kernel keeps nothing but the results that wait to be emitted. A kernel for
//! columns encodes rows of its columns and appends decoded ones to builders; cores need nothing else.

use super::matches::in_order;
use crate::error::Result;
use crate::operators::guarded::guarded_call;
use crate::record::{Batch, BatchBox, Change, Data, RowKind, Rows};
use crate::state::{Side, StateValue, check_codec, decode, encode_into, schema_of};
use crate::time::EventTime;
use std::marker::PhantomData;

/// What became of two rows of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paired {
    /// They do not belong together.
    No,
    /// They do; a result was made if one was asked for.
    Yes,
    /// The user's function failed. They count as belonging together: neither leaves as a row without a partner because of it.
    Failed(String),
}

/// Encoded rows of a batch, one behind the other.
#[derive(Debug, Default)]
pub struct EncodedRows {
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
}

impl EncodedRows {
    /// The bytes of a row.
    ///
    /// # Panics
    /// There is no such row.
    #[inline]
    pub fn row(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }
}

/// Pairs of rows of one key: a row of a batch and a row of the other side each.
#[derive(Clone, Copy)]
pub struct Pairing<'a> {
    /// The batch.
    pub batch: &'a dyn Batch,
    /// Its rows, encoded.
    pub own: &'a EncodedRows,
    /// By pair: the row of the batch; ascending.
    pub rows: &'a [u32],
    /// By pair: the encoded row of the other side.
    pub partners: &'a [&'a [u8]],
}

/// See the module's header. One per task.
pub trait PairKernel: Send + 'static {
    /// Refuses rows that cannot be kept in state.
    ///
    /// # Errors
    /// They cannot be read back.
    fn check(&self) -> Result<()>;
    /// Codec and schema of the rows of both sides, as text.
    fn schema(&self) -> String;
    /// Kind of the keys ([`Key::kind`](crate::record::Key::kind)), so that tools can show them.
    fn key(&self) -> Option<String> {
        None
    }
    /// Appends the encoding of one row. A panic costs the row.
    fn encode(&self, side: Side, batch: &dyn Batch, row: usize, out: &mut Vec<u8>);
    /// Encodes all rows of a batch, replacing the content of `out`; those that cost themselves, in order, with the reason.
    fn encode_all(&self, side: Side, batch: &dyn Batch, out: &mut EncodedRows) -> Vec<(usize, String)> {
        let mut failed = Vec::new();
        out.bytes.clear();
        out.ends.clear();
        for row in 0..batch.len() {
            let start = out.bytes.len();
            if let Err(error) = guarded_call(|| self.encode(side, batch, row, &mut out.bytes)) {
                out.bytes.truncate(start);
                failed.push((row, error));
            }
            out.ends.push(out.bytes.len());
        }
        failed
    }
    /// Whether a row is given, else taken back. Plain rows are given.
    fn is_addition(&self, _side: Side, _batch: &dyn Batch, _row: usize) -> bool {
        true
    }
    /// What the results made from here on say. Kernels of joins that never take back need not care.
    fn set_kind(&mut self, _kind: RowKind) {}
    /// Looks at two encoded rows; with a time, makes their result.
    ///
    /// # Errors
    /// Rows that do not decode: damaged state.
    fn pair(&mut self, left: &[u8], right: &[u8], result: Option<EventTime>) -> Result<Paired>;
    /// Makes the result of two rows that belong together, as [`pair`](Self::pair) has said.
    ///
    /// # Errors
    /// As there.
    fn join(&mut self, left: &[u8], right: &[u8], time: EventTime) -> Result<Paired> {
        self.pair(left, right, Some(time))
    }
    /// The results of those pairs that belong together, each at the time of the batch's row. Pairs whose function failed are
    /// pushed to `failed`, by the batch's row.
    ///
    /// # Errors
    /// As [`pair`](Self::pair).
    fn meet(&mut self, side: Side, pairing: &Pairing<'_>, failed: &mut Vec<(usize, String)>) -> Result<Option<BatchBox>> {
        let times = pairing.batch.times();
        for (&row, &partner) in pairing.rows.iter().zip(pairing.partners) {
            let (left, right) = in_order(side, pairing.own.row(row as usize), partner);
            if let Paired::Failed(error) = self.pair(left, right, Some(times[row as usize]))? {
                failed.push((row as usize, error));
            }
        }
        if self.results() == 0 { Ok(None) } else { self.take().map(Some) }
    }
    /// Makes the result of a row by itself; the error of a user function that failed.
    ///
    /// # Errors
    /// A row that does not decode: damaged state.
    fn alone(&mut self, side: Side, row: &[u8], time: EventTime) -> Result<Option<String>>;
    /// Results that wait.
    fn results(&self) -> usize;
    /// Takes them.
    ///
    /// # Errors
    /// They cannot be put into a batch.
    fn take(&mut self) -> Result<BatchBox>;
}

/// The kernel of Rust types: `Rows<L>` and `Rows<R>` in, `Rows<O>` out, or `Rows<Change<O>>`.
pub struct TypedPairs<L, R, O, P, F, Q = O> {
    predicate: P,
    result: F,
    kind: RowKind,
    key: Option<String>,
    /// What is emitted of a result.
    wrap: fn(RowKind, O) -> Q,
    out: Rows<Q>,
    types: PhantomData<fn(L, R)>,
}

impl<L, R, O: Data, P, F> TypedPairs<L, R, O, P, F>
where
    F: Fn(Option<&L>, Option<&R>) -> Option<O>,
{
    /// Rows of one key belong together if `predicate` says so; `result` is given both, or one that stays alone.
    pub fn new(predicate: P, result: F) -> Self {
        TypedPairs {
            predicate,
            result,
            kind: RowKind::Insert,
            key: None,
            wrap: |_, result| result,
            out: Rows::default(),
            types: PhantomData,
        }
    }
}

impl<L, R, O: Data, P, F> TypedPairs<L, R, O, P, F, Change<O>>
where
    F: Fn(Option<&L>, Option<&R>) -> Option<O>,
{
    /// As [`new`](TypedPairs::new); results say what kind of change they are.
    pub fn changes(predicate: P, result: F) -> Self {
        let wrap = |kind: RowKind, row: O| Change { kind, row };
        TypedPairs { predicate, result, kind: RowKind::Insert, key: None, wrap, out: Rows::default(), types: PhantomData }
    }
}

impl<L, R, O, P, F, Q: Data> TypedPairs<L, R, O, P, F, Q> {
    /// Notes the kind of the keys.
    #[must_use]
    pub fn with_key(mut self, kind: Option<String>) -> Self {
        self.key = kind;
        self
    }

    fn push(&mut self, result: Option<O>, time: EventTime) {
        if let Some(result) = result {
            self.out.push((self.wrap)(self.kind, result), time, None);
        }
    }
}

fn encode_row<T: Data + StateValue>(batch: &dyn Batch, row: usize, out: &mut Vec<u8>) {
    let Some(rows) = batch.as_any().downcast_ref::<Rows<T>>() else {
        panic!("plan bug: expected a batch of {}, got {}", std::any::type_name::<Rows<T>>(), batch.type_name())
    };
    encode_into(&rows.rows[row], out);
}

impl<L, R, O, P, F, Q> PairKernel for TypedPairs<L, R, O, P, F, Q>
where
    Q: Data,
    L: Data + StateValue,
    R: Data + StateValue,
    O: Data,
    P: Fn(&L, &R) -> bool + Send + 'static,
    F: Fn(Option<&L>, Option<&R>) -> Option<O> + Send + 'static,
{
    fn check(&self) -> Result<()> {
        check_codec::<L>()?;
        check_codec::<R>()
    }

    fn schema(&self) -> String {
        format!("{} | {}", schema_of::<L>(), schema_of::<R>())
    }

    fn encode(&self, side: Side, batch: &dyn Batch, row: usize, out: &mut Vec<u8>) {
        match side {
            super::LEFT => encode_row::<L>(batch, row, out),
            _ => encode_row::<R>(batch, row, out),
        }
    }

    fn key(&self) -> Option<String> {
        self.key.clone()
    }

    fn set_kind(&mut self, kind: RowKind) {
        self.kind = kind;
    }

    fn pair(&mut self, left: &[u8], right: &[u8], result: Option<EventTime>) -> Result<Paired> {
        let (left, right): (L, R) = (decode(left)?, decode(right)?);
        let done = guarded_call(|| (self.predicate)(&left, &right).then(|| result.and_then(|_| (self.result)(Some(&left), Some(&right)))));
        Ok(match done {
            Ok(None) => Paired::No,
            Ok(Some(row)) => {
                self.push(row, result.unwrap_or_default());
                Paired::Yes
            }
            Err(error) => Paired::Failed(error),
        })
    }

    fn alone(&mut self, side: Side, row: &[u8], time: EventTime) -> Result<Option<String>> {
        let done = match side {
            super::LEFT => {
                let left: L = decode(row)?;
                guarded_call(|| (self.result)(Some(&left), None))
            }
            _ => {
                let right: R = decode(row)?;
                guarded_call(|| (self.result)(None, Some(&right)))
            }
        };
        match done {
            Ok(result) => {
                self.push(result, time);
                Ok(None)
            }
            Err(error) => Ok(Some(error)),
        }
    }

    fn results(&self) -> usize {
        self.out.rows.len()
    }

    fn take(&mut self) -> Result<BatchBox> {
        Ok(std::mem::take(&mut self.out).boxed())
    }
}
