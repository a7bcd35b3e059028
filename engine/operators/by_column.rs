//! `by_column`: rows take the time in one of their columns for their event time, and the watermark is held back.
//!
//! For times that are behind those that rows have had so far, by a known span at most: of the two times of a join's result the
//! earlier one.
//!
//! Invariant: the watermark downstream is the one from before less the span; the end is the end. A row without a time in that
//! column is rejected.

use super::{Operator, OperatorFactory, Output, Signal};
use crate::error::{Error, Result};
use crate::record::{BatchBox, ChangeBatch, downcast};
use crate::time::EventTime;
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use std::sync::Arc;

/// `ChangeBatch` to `ChangeBatch`, by column `column`, which holds milliseconds; watermarks leave `behind_ms` earlier.
pub fn by_column(column: usize, behind_ms: i64) -> OperatorFactory {
    Arc::new(move || Box::new(ByColumn { column, behind_ms }))
}

struct ByColumn {
    column: usize,
    behind_ms: i64,
}

impl Operator for ByColumn {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let mut batch = downcast::<ChangeBatch>(batch);
        let column = batch.columns.columns().get(self.column).and_then(|c| c.as_primitive_opt::<TimestampMillisecondType>()).cloned();
        let Some(times) = column else {
            return Err(Error::fatal("plan bug: event time in a column of another type"));
        };
        for (time, value) in batch.times.iter_mut().zip(times.values()) {
            *time = EventTime(*value);
        }
        if times.null_count() == 0 {
            return out.emit(batch.boxed());
        }
        let (mut kept, origins) = (Vec::with_capacity(batch.times.len()), batch.origins.clone());
        for row in 0..batch.times.len() {
            if times.is_valid(row) {
                kept.push(row as u32);
            } else {
                let origin = origins.as_ref().map(|o| o.0[row].clone());
                out.reject(origin, batch.times[row], "the event time is NULL")?;
            }
        }
        out.emit(batch.gather(&kept)?.boxed())
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        if time == EventTime::MAX { Ok(()) } else { out.forward(Signal::Watermark(time.minus_ms(self.behind_ms))) }
    }

    fn hold(&mut self, signal: Signal) -> bool {
        matches!(signal, Signal::Watermark(time) if time < EventTime::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Element, record_batch};
    use crate::testing::Harness;
    use arrow_array::TimestampMillisecondArray;
    use arrow_schema::{DataType, Field, Schema, TimeUnit};

    fn rows(times: &[Option<i64>]) -> BatchBox {
        let schema = Schema::new(vec![Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true)]);
        let column = Arc::new(TimestampMillisecondArray::from(times.to_vec()));
        let batch = record_batch(Arc::new(schema), vec![column], times.len()).unwrap();
        ChangeBatch::inserts(batch, vec![EventTime(100); times.len()]).boxed()
    }

    #[test]
    fn times_are_those_of_the_column_and_the_watermark_stays_behind() {
        let mut harness = Harness::new(&by_column(0, 30), 0);
        harness.take_elements(0);
        harness.push(0, rows(&[Some(90), Some(70)]));
        harness.watermark(EventTime(100));
        harness.end();
        let show = |element| match element {
            Element::Batch(batch) => batch.times().iter().map(|t| t.0.to_string()).collect::<Vec<_>>().join(","),
            Element::Watermark(time) => format!("w{}", time.0),
            _ => "other".into(),
        };
        let seen: Vec<String> = harness.take_elements(0).into_iter().map(show).collect();
        assert_eq!(seen[..3], ["90,70".to_string(), "w70".into(), format!("w{}", i64::MAX)]);
    }
}
