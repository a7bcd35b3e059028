//! Window table functions, and rows spread over their windows where a query asks for that.
//!
//! Invariant: a window is taken over event time only; a row is in the windows [start, end) with start <= time < end.

use super::{Lowered, Lowering, Place, arrow_schema, column_of};
use crate::error::{SqlError, SqlResult};
use crate::plan::{WindowTvf, Windows};
use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{NodeNote, Routing};
use waterwheel_engine::operators::{ColumnKernel, RowError, columns};
use waterwheel_engine::record::{ChangeBatch, record_batch};
use waterwheel_engine::time::EventTime;

impl Lowering<'_> {
    pub(super) fn tvf(&mut self, tvf: &WindowTvf) -> SqlResult<Lowered> {
        let input = self.lower(tvf.input())?;
        let input = self.materialised(input)?;
        let time = column_of(&tvf.time, &input.schema);
        if !time.is_some_and(|i| input.rowtimes.contains(&i)) {
            let name = time.map_or_else(|| tvf.time.to_string(), |i| input.schema.field(i).name().clone());
            return Err(SqlError::new(format!("{name:?} is no event time: a window is taken over the column that WATERMARK FOR names"))
                .help(format!("declare it:  WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND")));
        }
        if input.updating {
            return Err(SqlError::unsupported(
                "a window over rows that change",
                "a window is closed once",
                "aggregate in the window first",
            ));
        }
        let mut places = input.places.clone();
        places.extend([Place::WindowStart, Place::WindowEnd, Place::WindowTime]);
        Ok(Lowered { schema: tvf.schema().clone(), places, pending: Some(tvf.windows), fired: None, ..input })
    }

    /// The same stream with all its columns in the batch, one row a window.
    pub(super) fn materialised(&mut self, input: Lowered) -> SqlResult<Lowered> {
        // In windows that overlap a row is several rows, whether its window's bounds are looked at or not.
        let Some(windows) = input.pending.filter(|w| input.has_window_columns() || w.size_ms != w.slide_ms) else {
            return Ok(Lowered { pending: None, ..input });
        };
        let schema = arrow_schema(&input.schema);
        let kernel = Spread { windows, places: input.places.clone(), schema };
        let factory = columns(Arc::new(move || Ok(Box::new(kernel.clone()))));
        let note = NodeNote { detail: windows.to_string(), ..NodeNote::default() };
        let node = self.add("windows", factory, &[(input.node, Routing::Forward)], note);
        let places = (0..input.places.len()).map(Place::Batch).collect();
        Ok(Lowered { node, places, pending: None, ..input })
    }
}

/// Every row once for each of its windows.
#[derive(Clone)]
struct Spread {
    windows: Windows,
    places: Vec<Place>,
    schema: SchemaRef,
}

impl Spread {
    /// Starts of the windows that hold a time, the earliest first; none where time itself ends.
    fn starts(&self, time: EventTime) -> Vec<i64> {
        let Windows { size_ms, slide_ms, offset_ms } = self.windows;
        let newest = time.floor_to(slide_ms, offset_ms).0;
        let count = size_ms / slide_ms;
        (0..count).rev().filter_map(|i| newest.checked_sub(i * slide_ms)).filter(|start| start.checked_add(size_ms).is_some()).collect()
    }
}

impl ColumnKernel for Spread {
    fn apply(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<ChangeBatch> {
        let (mut rows, mut starts) = (Vec::new(), Vec::new());
        for (row, &time) in batch.times.iter().enumerate() {
            let of_row = self.starts(time);
            if of_row.is_empty() {
                failed.push((row, format!("event time {} is out of range", time.0)));
            }
            rows.extend(std::iter::repeat_n(row as u32, of_row.len()));
            starts.extend(of_row);
        }
        let spread = batch.gather(&rows)?;
        let stamps = |plus: i64, kind: &DataType| -> Result<ArrayRef> {
            let values = Int64Array::from_iter_values(starts.iter().map(|s| s + plus));
            let zone = if let DataType::Timestamp(_, zone) = kind { zone.clone() } else { None };
            Ok(Arc::new(values.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone)))
        };
        let column = |(place, field): (&Place, &arrow::datatypes::FieldRef)| match place {
            Place::Batch(i) => Ok(spread.columns.column(*i).clone()),
            Place::WindowStart => stamps(0, field.data_type()),
            Place::WindowEnd => stamps(self.windows.size_ms, field.data_type()),
            Place::WindowTime => stamps(self.windows.size_ms - 1, field.data_type()),
        };
        let all = self.places.iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
        let all =
            record_batch(self.schema.clone(), all, rows.len()).map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?;
        debug_assert!(all.columns().iter().all(|c| c.len() == rows.len()));
        Ok(spread.with_columns(all))
    }
}
