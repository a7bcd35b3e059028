//! Between rows of a type and columns: `to_columns` and `to_rows`, where a typed stream becomes a table and a query a stream.
//!
//! What a row looks like in columns is known to whoever brings the [`RowEncoder`] or [`RowDecoder`].
//!
//! Invariant: event times, origins and the order of rows stay; a row that cannot cross, or whose own code panics, is rejected
//! and leaves nothing behind.

use super::guarded::{Columns, guarded};
use super::{Operator, OperatorFactory, Output};
use crate::error::Result;
use crate::record::{BatchBox, ChangeBatch, Data, Origins, RowKind, Rows, downcast};
use crate::time::EventTime;
use arrow_array::RecordBatch;
use std::marker::PhantomData;
use std::sync::Arc;

/// Makes columns of rows.
pub trait RowEncoder<T>: Send {
    /// Appends a row.
    ///
    /// # Errors
    /// Why it cannot be in columns; then [`cut_back`](Self::cut_back) is called.
    fn push(&mut self, row: &T, time: EventTime) -> Result<(), String>;

    /// Forgets the row that failed, however far it got.
    fn cut_back(&mut self);

    /// What a row says of the one that was there before; rows of a stream are all inserts.
    fn kind(&self, _row: &T) -> RowKind {
        RowKind::Insert
    }

    /// The rows so far; there are none from then on.
    ///
    /// # Errors
    /// Columns beyond the limits of Arrow.
    fn take(&mut self) -> Result<RecordBatch>;
}

/// Makes one encoder a task.
pub type RowEncoderFactory<T> = Arc<dyn Fn() -> Result<Box<dyn RowEncoder<T>>> + Send + Sync>;

/// Makes rows of columns.
pub trait RowDecoder<T>: Send {
    /// Looks at a batch.
    ///
    /// # Errors
    /// Columns of another type than planned.
    fn begin(&mut self, batch: &ChangeBatch) -> Result<()>;

    /// The row `i` of that batch.
    ///
    /// # Errors
    /// Why the type does not take it.
    fn row(&mut self, i: usize) -> Result<T, String>;
}

/// Makes one decoder a task.
pub type RowDecoderFactory<T> = Arc<dyn Fn() -> Result<Box<dyn RowDecoder<T>>> + Send + Sync>;

/// `Rows<T>` to `ChangeBatch`. With `changes`, rows may take others back.
pub fn to_columns<T: Data>(changes: bool, make: RowEncoderFactory<T>) -> OperatorFactory {
    Arc::new(move || Box::new(ToColumns { changes, make: make.clone(), encoder: None }))
}

struct ToColumns<T> {
    changes: bool,
    make: RowEncoderFactory<T>,
    encoder: Option<Box<dyn RowEncoder<T>>>,
}

impl<T: Data> Operator for ToColumns<T> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert((self.make)()?),
        };
        let (rows, beside) = Columns::of(downcast::<Rows<T>>(batch));
        let mut state = (encoder, Vec::with_capacity(rows.len()));
        let each = |(encoder, kept): &mut (&mut Box<dyn RowEncoder<T>>, Vec<u32>), i: usize| {
            encoder.push(&rows[i], beside.times[i])?;
            kept.push(i as u32);
            Ok(())
        };
        guarded(rows.len(), &mut state, each, |(encoder, _), i, error| {
            encoder.cut_back();
            beside.reject(i, error, out)
        })?;
        let (encoder, kept) = state;
        let times = kept.iter().map(|&i| beside.times[i as usize]).collect();
        let mut batch = ChangeBatch::inserts(encoder.take()?, times);
        if self.changes {
            batch.kinds = Some(kept.iter().map(|&i| encoder.kind(&rows[i as usize])).collect());
        }
        batch.origins = beside.origins.as_ref().map(|o: &Origins| o.gather(&kept));
        out.emit(batch.boxed())
    }
}

/// `ChangeBatch` to `Rows<T>`, one row a change.
pub fn to_rows<T: Data>(make: RowDecoderFactory<T>) -> OperatorFactory {
    Arc::new(move || Box::new(ToRows { make: make.clone(), decoder: None, rows: PhantomData }))
}

struct ToRows<T> {
    make: RowDecoderFactory<T>,
    decoder: Option<Box<dyn RowDecoder<T>>>,
    rows: PhantomData<fn() -> T>,
}

impl<T: Data> Operator for ToRows<T> {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert((self.make)()?),
        };
        let batch = downcast::<ChangeBatch>(batch);
        decoder.begin(&batch)?;
        let mut rows = Rows::with_capacity(batch.times.len());
        let each = |rows: &mut Rows<T>, i: usize| {
            rows.push(decoder.row(i)?, batch.times[i], batch.origin(i));
            Ok(())
        };
        guarded(batch.times.len(), &mut rows, each, |_, i, error| out.reject(batch.origin(i), batch.times[i], error))?;
        if batch.origins.is_some() {
            rows.origins.get_or_insert_default();
        }
        out.emit(rows.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::ErrorPolicy;
    use crate::record::{Element, record_batch};
    use crate::testing::Harness;
    use arrow_array::{Array, Int64Array};
    use arrow_schema::{DataType, Field, Schema};

    /// Numbers; negative ones take back, 13 is refused half-way, 7 panics.
    #[derive(Default)]
    struct Numbers(Vec<i64>, usize);

    impl RowEncoder<i64> for Numbers {
        fn push(&mut self, row: &i64, _time: EventTime) -> Result<(), String> {
            self.1 = self.0.len();
            self.0.push(row.abs());
            assert!(*row != 7, "seven");
            if *row == 13 { Err("thirteen".into()) } else { Ok(()) }
        }
        fn cut_back(&mut self) {
            self.0.truncate(self.1);
        }
        fn kind(&self, row: &i64) -> RowKind {
            if *row < 0 { RowKind::Delete } else { RowKind::Insert }
        }
        fn take(&mut self) -> Result<RecordBatch> {
            let values = std::mem::take(&mut self.0);
            let rows = values.len();
            let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
            Ok(record_batch(schema, vec![Arc::new(Int64Array::from(values))], rows).unwrap())
        }
    }

    /// And back.
    #[derive(Default)]
    struct Back(Vec<(RowKind, i64)>);

    impl RowDecoder<i64> for Back {
        fn begin(&mut self, batch: &ChangeBatch) -> Result<()> {
            let column: &Int64Array = batch.columns.column(0).as_any().downcast_ref().unwrap();
            self.0 = (0..column.len()).map(|i| (batch.kind(i), column.value(i))).collect();
            Ok(())
        }
        fn row(&mut self, i: usize) -> Result<i64, String> {
            let (kind, n) = self.0[i];
            if n == 5 { Err("five".into()) } else { Ok(n * kind.weight()) }
        }
    }

    fn batches(harness: &mut Harness) -> Vec<BatchBox> {
        let elements = harness.take_elements(0).into_iter();
        elements.filter_map(|e| if let Element::Batch(batch) = e { Some(batch) } else { None }).collect()
    }

    #[test]
    fn rows_cross_with_their_times_and_those_that_cannot_are_rejected() {
        let make = to_columns(true, Arc::new(|| Ok(Box::new(Numbers::default()))));
        let mut there = Harness::with_policy(&make, 0, ErrorPolicy::DeadLetter);
        let rows = Rows::new(vec![1i64, 13, 2, 7, -3, 5], (10..16).map(EventTime).collect());
        there.push(0, rows.boxed());
        assert_eq!(there.take_rejected().len(), 2);
        let mut back = Harness::with_policy(&to_rows(Arc::new(|| Ok(Box::new(Back::default())))), 0, ErrorPolicy::DeadLetter);
        for batch in batches(&mut there) {
            back.push(0, batch);
        }
        let rows: Vec<Rows<i64>> = batches(&mut back).into_iter().map(downcast).collect();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].rows, [1, 2, -3]);
        assert_eq!(rows[0].times, [EventTime(10), EventTime(12), EventTime(14)]);
        assert_eq!(back.take_rejected().len(), 1);
    }
}
