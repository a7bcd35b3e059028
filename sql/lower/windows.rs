//! Window table functions, and rows spread over their windows where a query asks for that.
//!
//! Invariant: a window is taken over event time only; a row is in the windows [start, end) with start <= time < end.

use super::{Fired, Lowered, Lowering, Place, arrow_schema, column_of};
use crate::error::{SqlError, SqlResult};
use crate::kernels::aggregate::Calls;
use crate::kernels::keys::KeyBytes;
use crate::kernels::window::{WindowCalls, bound_in};
use crate::plan::{WindowKind, WindowTvf, Windows, Zone};
use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};
use datafusion_expr::Expr;
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{EqualityClass, NodeNote, Routing};
use waterwheel_engine::operators::{ColumnKernel, OperatorFactory, RowError, by_clock, columns};
use waterwheel_engine::record::{ChangeBatch, record_batch};
use waterwheel_engine::time::EventTime;
use waterwheel_engine::windowing::{self, Cumulative, Session, Sliding, Tumbling, WindowOptions, window};

/// Whether an expression is `PROCTIME()`.
pub(super) fn is_clock(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_clock(&alias.expr),
        Expr::ScalarFunction(function) => function.name() == "proctime",
        _ => false,
    }
}

/// Which rows keep a session going is decided before a filter behind it.
pub(super) fn check_filter(input: &Lowered) -> SqlResult<()> {
    match input.pending {
        Some(Windows { kind: WindowKind::Session, .. }) => Err(SqlError::unsupported(
            "WHERE between SESSION and its GROUP BY",
            "the rows that it leaves out keep sessions going all the same",
            "the condition in a view that SESSION is taken over, or HAVING",
        )),
        _ => Ok(()),
    }
}

/// The engine's operator for an aggregate over windows, and how many slices a key has.
pub(super) fn operator(windows: Windows, calls: Calls) -> SqlResult<(OperatorFactory, String)> {
    let Windows { kind, size_ms, slide_ms, offset_ms, .. } = windows;
    let millis = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    let calls = WindowCalls(calls);
    let factory = match kind {
        // Flink's sessions end after more than the gap, the engine's after the gap: its windows are one millisecond longer.
        WindowKind::Session => {
            windowing::Windows::operator::<KeyBytes, _>(&Session::gap(millis(size_ms + 1)), WindowOptions::default(), calls)
        }
        WindowKind::Cumulative => {
            window::<KeyBytes, _>(&Cumulative::of(millis(size_ms)).every(millis(slide_ms)).offset_ms(offset_ms), Duration::ZERO, calls)
        }
        WindowKind::Sliding if size_ms == slide_ms => {
            window::<KeyBytes, _>(&Tumbling::of(millis(size_ms)).offset_ms(offset_ms), Duration::ZERO, calls)
        }
        WindowKind::Sliding => {
            window::<KeyBytes, _>(&Sliding::of(millis(size_ms)).every(millis(slide_ms)).offset_ms(offset_ms), Duration::ZERO, calls)
        }
    };
    let kept = if kind == WindowKind::Session { "open sessions".into() } else { format!("{} slices a key", size_ms / slide_ms) };
    Ok((factory.map_err(|e| SqlError::new(e.report()))?, kept))
}

impl Lowering<'_> {
    pub(super) fn tvf(&mut self, tvf: &WindowTvf) -> SqlResult<Lowered> {
        let mut input = self.lower(tvf.input())?;
        let time = column_of(&tvf.time, &input.schema);
        let of_clock = time.is_some_and(|i| input.places[i] == Place::Clock);
        if of_clock {
            let note = NodeNote { class: vec![(EqualityClass::TimeDependent, "windows of the clock".into())], ..NodeNote::default() };
            input.node = self.add("clock", by_clock(), &[(input.node, Routing::Forward)], note);
        } else {
            input = self.materialised(input)?;
        }
        if !of_clock {
            input = match time {
                Some(column) if input.is_rowtime(column) => self.timed_by(input, column)?,
                _ => {
                    let name = time.map_or_else(|| tvf.time.to_string(), |i| input.schema.field(i).name().clone());
                    let what = format!("{name:?} is no event time: a window is taken over the column that WATERMARK FOR names");
                    return Err(SqlError::new(what).help(format!("declare it:  WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND")));
                }
            };
        }
        if input.updating {
            return Err(SqlError::unsupported(
                "a window over rows that change",
                "a window is closed once",
                "aggregate in the window first",
            ));
        }
        if of_clock && input.pending.is_some() {
            return Err(SqlError::unsupported("a window of the clock over a window", "its rows have left time already", "one window"));
        }
        let mut places = input.places.clone();
        places.extend([Place::WindowStart, Place::WindowEnd, Place::WindowTime]);
        let session_by = tvf.partition.iter().map(|e| column_of(e, &input.schema)).collect::<Option<Vec<_>>>();
        let windows = Windows { of_clock, ..tvf.windows };
        let (rowtimes, lagging) = if of_clock { Default::default() } else { (input.rowtimes.clone(), input.lagging.clone()) };
        Ok(Lowered { schema: tvf.schema().clone(), places, pending: Some(windows), fired: None, session_by, rowtimes, lagging, ..input })
    }

    /// The same stream with all its columns in the batch, one row a window.
    pub(super) fn materialised(&mut self, input: Lowered) -> SqlResult<Lowered> {
        check_columns(&input)?;
        // In windows that overlap a row is several rows, whether its window's bounds are looked at or not.
        let overlap = |w: &Windows| w.size_ms != w.slide_ms || w.kind == WindowKind::Session;
        match input.pending.filter(|w| input.has_window_columns() || overlap(w)) {
            Some(windows) => self.spread(input, windows, false),
            None => Ok(Lowered { pending: None, ..input }),
        }
    }

    /// The same stream with its windows' bounds in the batch: as rows of these windows, where it has both.
    pub(super) fn with_bounds(&mut self, input: Lowered) -> SqlResult<Lowered> {
        let has = |place| input.places.contains(&place);
        if has(Place::WindowStart) && has(Place::WindowEnd) { self.at_window_end(input) } else { self.materialised(input) }
    }

    /// The same rows as rows of their windows: each has the last instant of its window for its event time, as results of
    /// windows have. Of rows whose windows have fired already nothing changes.
    pub(super) fn at_window_end(&mut self, input: Lowered) -> SqlResult<Lowered> {
        let Some(windows) = input.pending else { return Ok(input) };
        check_columns(&input)?;
        let at = |place| input.places.iter().position(|p| *p == place);
        let fired = at(Place::WindowStart).zip(at(Place::WindowEnd)).map(|(start, end)| Fired { start, end, later_ms: 0 });
        let rowtimes = at(Place::WindowTime).into_iter().collect();
        Ok(Lowered { fired, rowtimes, lagging: Vec::new(), ..self.spread(input, windows, true)? })
    }

    fn spread(&mut self, input: Lowered, windows: Windows, at_end: bool) -> SqlResult<Lowered> {
        if windows.kind == WindowKind::Session {
            return Err(SqlError::unsupported(
                "SESSION without its GROUP BY",
                "where a session ends is known only when it has ended",
                "GROUP BY its PARTITION BY columns, window_start and window_end",
            ));
        }
        let kernel = Spread { windows, places: input.places.clone(), schema: arrow_schema(&input.schema), at_end };
        let factory = columns(Arc::new(move || Ok(Box::new(kernel.clone()))));
        let note = NodeNote { detail: windows.to_string(), ..NodeNote::default() };
        let node = self.add("windows", factory, &[(input.node, Routing::Forward)], note);
        let places = (0..input.places.len()).map(Place::Batch).collect();
        Ok(Lowered { node, places, pending: None, ..input })
    }
}

/// Refuses columns that are in no batch.
fn check_columns(input: &Lowered) -> SqlResult<()> {
    if input.places.contains(&Place::AsOf) {
        return Err(super::versions::misplaced());
    }
    if input.places.contains(&Place::Clock) {
        return Err(SqlError::unsupported(
            "PROCTIME() here",
            "the time at which a row passes is another one after each restart",
            "TABLE(TUMBLE(TABLE t, DESCRIPTOR(proctime), ...)) with GROUP BY window_start, window_end",
        ));
    }
    Ok(())
}

/// Every row once for each of its windows.
#[derive(Clone)]
struct Spread {
    windows: Windows,
    places: Vec<Place>,
    schema: SchemaRef,
    /// Rows take the last instant of their window for their event time.
    at_end: bool,
}

impl Spread {
    /// The windows that hold a time, the earliest first; none where time itself ends.
    fn windows_of(&self, time: EventTime) -> Vec<(i64, i64)> {
        let Windows { kind, size_ms, slide_ms, offset_ms, .. } = self.windows;
        let count = size_ms / slide_ms;
        if kind == WindowKind::Cumulative {
            let start = time.floor_to(size_ms, offset_ms).0;
            let ends = (1..=count).filter_map(|i| start.checked_add(i * slide_ms)).filter(|end| *end > time.0);
            return ends.map(|end| (start, end)).collect();
        }
        let newest = time.floor_to(slide_ms, offset_ms).0;
        let starts = (0..count).rev().filter_map(|i| newest.checked_sub(i * slide_ms));
        starts.filter_map(|start| Some((start, start.checked_add(size_ms)?))).collect()
    }
}

impl ColumnKernel for Spread {
    fn apply(&mut self, batch: &ChangeBatch, failed: &mut Vec<RowError>) -> Result<ChangeBatch> {
        let (mut rows, mut bounds) = (Vec::new(), Vec::new());
        for (row, &time) in batch.times.iter().enumerate() {
            let of_row = self.windows_of(time);
            if of_row.is_empty() {
                failed.push((row, format!("event time {} is out of range", time.0)));
            }
            rows.extend(std::iter::repeat_n(row as u32, of_row.len()));
            bounds.extend(of_row);
        }
        let mut spread = batch.gather(&rows)?;
        if self.at_end {
            spread.times = bounds.iter().map(|w| EventTime(w.1 - 1)).collect();
        }
        let stamps = |bound: fn(&(i64, i64)) -> i64, of: Option<Zone>, kind: &DataType| -> Result<ArrayRef> {
            let values = bounds.iter().map(|window| bound_in(of, bound(window)).map(Some)).collect::<Result<Int64Array>>()?;
            let zone = if let DataType::Timestamp(_, zone) = kind { zone.clone() } else { None };
            Ok(Arc::new(values.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone)))
        };
        let column = |(place, field): (&Place, &arrow::datatypes::FieldRef)| match place {
            Place::Batch(i) => Ok(spread.columns.column(*i).clone()),
            Place::WindowStart => stamps(|w| w.0, self.windows.zone, field.data_type()),
            Place::WindowEnd => stamps(|w| w.1, self.windows.zone, field.data_type()),
            Place::WindowTime => stamps(|w| w.1 - 1, None, field.data_type()),
            Place::Clock | Place::AsOf => Err(Error::fatal("plan bug: a column that is in no batch")),
        };
        let all = self.places.iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
        let all =
            record_batch(self.schema.clone(), all, rows.len()).map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?;
        debug_assert!(all.columns().iter().all(|c| c.len() == rows.len()));
        Ok(spread.with_columns(all))
    }
}
