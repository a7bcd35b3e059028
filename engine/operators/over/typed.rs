//! The kernel of Rust types: `Rows<T>` in, `Rows<O>` out.
//!
//! Invariant: peers are in the order of their ties, encoded with the row, then of arrival; so a function of the user's runs
//! once a row for its tie, and never again when rows are ordered.

use super::kernel::{Called, OverKernel, Place};
use crate::error::{Error, Result};
use crate::operators::guarded::guarded_call;
use crate::record::{Batch, BatchBox, Data, Key, Rows};
use crate::state::{StateValue, check_codec, decode, encode_into, schema_of};
use crate::time::EventTime;
use std::cmp::Ordering;
use std::sync::Arc;

/// What an OVER window computes of rows of one type: the aggregate of a frame, and a row's result. All functions are pure; one
/// that panics costs the row or the result it was called for.
pub trait OverFunctions: Send + Sync + 'static {
    /// What comes in.
    type Row: Data + StateValue;
    /// What is computed of a frame.
    type Acc: StateValue + Clone;
    /// What comes out.
    type Out: Data;

    /// Says what is computed where the types do not: a distance, a limit.
    fn describe(&self) -> String {
        String::new()
    }
    /// The accumulator of no rows.
    fn create(&self) -> Self::Acc;
    /// Takes a later row in.
    fn fold(&self, acc: &mut Self::Acc, row: &Self::Row, time: EventTime);
    /// Takes the rows of a later accumulator in.
    fn merge(&self, acc: &mut Self::Acc, later: &Self::Acc);
    /// The result of a row; none if it is still to come.
    fn result(&self, row: &Self::Row, acc: &Self::Acc, place: Place) -> Option<Self::Out>;
    /// Whether rows may wait for later ones, and [`finish`](Self::finish) is to be called. Only over all rows so far.
    const FINISHES: bool = false;
    /// The input has ended: the results that rows of a key still wait for.
    fn finish(&self, _acc: &Self::Acc) -> Vec<Self::Out> {
        Vec::new()
    }
}

/// Appends the tie of a row: peers with smaller bytes come first.
pub type Tie<T> = Arc<dyn Fn(&T, &mut Vec<u8>) + Send + Sync>;

/// A tie made of a key.
pub fn tie<T, O: Key>(tie: impl Fn(&T) -> O + Send + Sync + 'static) -> Tie<T> {
    Arc::new(move |row, out| tie(row).encode(out))
}

/// See the module's header.
pub struct TypedOver<F: OverFunctions> {
    functions: Arc<F>,
    tie: Option<Tie<F::Row>>,
    out: Rows<F::Out>,
}

impl<F: OverFunctions> TypedOver<F> {
    /// Of these functions; without `tie`, peers are in the order of arrival.
    pub fn new(functions: Arc<F>, tie: Option<Tie<F::Row>>) -> Self {
        TypedOver { functions, tie, out: Rows::default() }
    }

    /// The tie of an encoded row, and the row: as a pair of the two is encoded.
    fn split<'a>(&self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
        if self.tie.is_none() {
            return Ok((&[], bytes));
        }
        postcard::take_from_bytes::<&[u8]>(bytes).map_err(|e| Error::fatal(format!("a row of an over window does not decode: {e}")))
    }

    fn decode(&self, bytes: &[u8]) -> Result<F::Row> {
        decode(self.split(bytes)?.1)
    }
}

impl<F: OverFunctions> OverKernel for TypedOver<F> {
    type Acc = F::Acc;

    fn check(&self) -> Result<()> {
        check_codec::<F::Row>()?;
        check_codec::<F::Acc>()
    }

    fn schema(&self) -> String {
        if self.tie.is_some() { schema_of::<(Vec<u8>, F::Row)>() } else { schema_of::<F::Row>() }
    }

    fn describe(&self) -> String {
        self.functions.describe()
    }

    fn encode(&self, batch: &dyn Batch, row: usize, out: &mut Vec<u8>) {
        let Some(rows) = batch.as_any().downcast_ref::<Rows<F::Row>>() else {
            panic!("plan bug: expected a batch of {}, got {}", std::any::type_name::<Rows<F::Row>>(), batch.type_name())
        };
        if let Some(tie) = &self.tie {
            let mut bytes = Vec::new();
            tie(&rows.rows[row], &mut bytes);
            encode_into(&bytes, out);
        }
        encode_into(&rows.rows[row], out);
    }

    fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        match (self.split(a), self.split(b)) {
            (Ok((a, _)), Ok((b, _))) => a.cmp(b),
            // Damage shows when the row is folded.
            _ => Ordering::Equal,
        }
    }

    fn create(&self) -> F::Acc {
        self.functions.create()
    }

    fn fold(&self, acc: &mut F::Acc, row: &[u8], time: EventTime) -> Result<Called> {
        let row = self.decode(row)?;
        Ok(guarded_call(|| self.functions.fold(acc, &row, time)))
    }

    fn merge(&self, acc: &mut F::Acc, later: &F::Acc) -> Called {
        guarded_call(|| self.functions.merge(acc, later))
    }

    fn emit(&mut self, row: &[u8], acc: &F::Acc, place: Place, time: EventTime) -> Result<Called> {
        let row = self.decode(row)?;
        Ok(guarded_call(|| self.functions.result(&row, acc, place)).map(|result| {
            if let Some(result) = result {
                self.out.push(result, time, None);
            }
        }))
    }

    fn finishes(&self) -> bool {
        F::FINISHES
    }

    fn finish(&mut self, acc: &F::Acc, time: EventTime) -> Result<Called> {
        let results = guarded_call(|| self.functions.finish(acc));
        Ok(results.map(|results| results.into_iter().for_each(|result| self.out.push(result, time, None))))
    }

    fn results(&self) -> usize {
        self.out.rows.len()
    }

    fn take(&mut self) -> Result<BatchBox> {
        Ok(std::mem::take(&mut self.out).boxed())
    }
}
