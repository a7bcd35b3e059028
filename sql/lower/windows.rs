//! Window table functions, and rows spread over their windows where a query asks for that.
//!
//! Invariant: a window is taken over event time only; a row is in the windows [start, end) with start <= time < end.

use super::revisions::Emission;
use super::{Fired, Lowered, Lowering, Place, Timing, arrow_schema, check_class, column_of, size};
use crate::error::{SqlError, SqlResult};
use crate::kernels::keys::{ColumnKeys, KeyBytes};
use crate::kernels::packed::Packed;
use crate::kernels::ranked::OrderColumn;
use crate::kernels::window::{bound_in, stamps};
use crate::kernels::window_rows::{FirstRows, FromPackedRows, RowColumn, ToPackedRows};
use crate::plan::{WindowKind, WindowTvf, Windows, Zone};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{Bound, EqualityClass, NodeIndex, NodeNote, Routing, StateNote};
use waterwheel_engine::operators::{ColumnKernel, OperatorFactory, RowError, by_clock, columns, key_columns};
use waterwheel_engine::record::{ChangeBatch, record_batch};
use waterwheel_engine::time::EventTime;
use waterwheel_engine::windowing::{self, Accumulate, Cumulative, Session, Sliding, Tumbling};

/// Whether an expression is `PROCTIME()`.
pub(super) fn is_clock(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_clock(&alias.expr),
        Expr::ScalarFunction(function) => function.name() == "proctime",
        _ => false,
    }
}

/// Whether the rows that a condition leaves out would have kept sessions going that are pending: it is looked at when these have
/// ended. A condition on what sessions are by takes whole sessions out.
pub(super) fn is_behind_sessions(input: &Lowered, predicate: &Expr) -> bool {
    let Some(Windows { kind: WindowKind::Session, .. }) = input.pending else { return false };
    let by = input.session_by.as_deref().unwrap_or_default();
    let columns = predicate.column_refs();
    columns.is_empty() || columns.iter().any(|c| input.schema.index_of_column(c).map_or(true, |i| !by.contains(&i)))
}

/// Windows that have fired, of which each row has the last instant: a window of that instant alone brings their rows together.
pub(super) const INSTANT: Windows =
    Windows { kind: WindowKind::Sliding, size_ms: 1, slide_ms: 1, offset_ms: 0, of_clock: false, zone: None, by_zone: false };

/// By how many milliseconds the engine's windows are longer: Flink's sessions end after more than the gap, the engine's after the
/// gap.
pub(super) fn longer_ms(windows: &Windows) -> i64 {
    i64::from(windows.kind == WindowKind::Session)
}

/// The engine's operator for an aggregate over windows, and how many slices a key has.
pub(super) fn operator<G: Accumulate>(windows: Windows, emission: Emission, calls: G) -> SqlResult<(OperatorFactory, String)> {
    use windowing::Windows as Kind;
    let Windows { kind, size_ms, slide_ms, offset_ms, .. } = windows;
    let millis = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    let options = emission.options();
    let factory = match kind {
        WindowKind::Session => Kind::operator::<KeyBytes, _>(&Session::gap(millis(size_ms + longer_ms(&windows))), options, calls),
        WindowKind::Cumulative => {
            let growing = Cumulative::of(millis(size_ms)).every(millis(slide_ms)).offset_ms(offset_ms);
            Kind::operator::<KeyBytes, _>(&growing, options, calls)
        }
        WindowKind::Sliding if size_ms == slide_ms => {
            Kind::operator::<KeyBytes, _>(&Tumbling::of(millis(size_ms)).offset_ms(offset_ms), options, calls)
        }
        WindowKind::Sliding => {
            let sliding = Sliding::of(millis(size_ms)).every(millis(slide_ms)).offset_ms(offset_ms);
            Kind::operator::<KeyBytes, _>(&sliding, options, calls)
        }
    };
    let kept = if kind == WindowKind::Session { "open sessions".into() } else { emission.kept(&windows) };
    Ok((factory.map_err(|e| SqlError::new(e.report()))?, kept))
}

/// Rows that are kept until their windows have ended.
pub(super) struct Keeping {
    pub(super) windows: Windows,
    /// The columns of a row as it comes; those behind them were computed for its key and order.
    pub(super) rows: SchemaRef,
    pub(super) order: Arc<[OrderColumn]>,
    pub(super) first: FirstRows,
    /// Of the results.
    pub(super) columns: Vec<RowColumn>,
    pub(super) schema: SchemaRef,
    /// Says what is kept, so that state of another query is refused.
    pub(super) description: String,
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
            Some(Windows { kind: WindowKind::Session, .. }) => self.at_window_end(input),
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
        let (timing, emission) = (Timing::of(&windows), self.emission(&windows)?);
        let bounds = at(Place::WindowStart).zip(at(Place::WindowEnd));
        let fired = bounds.map(|(start, end)| Fired { start, end, timing, emission });
        // Of windows of the clock it is none that a watermark goes with.
        let time = at(Place::WindowTime).filter(|_| !windows.of_clock);
        if windows.kind == WindowKind::Session {
            // Rows leave when it is known that their session has ended, which is later than its last instant.
            let lagging = time.map(|time| (time, timing.later_ms)).into_iter().collect();
            return Ok(Lowered { fired, rowtimes: Vec::new(), lagging, ..self.sessions(input, windows)? });
        }
        Ok(Lowered { fired, rowtimes: time.into_iter().collect(), lagging: Vec::new(), ..self.spread(input, windows, true)? })
    }

    /// The rows of sessions, when these have ended.
    fn sessions(&mut self, input: Lowered, windows: Windows) -> SqlResult<Lowered> {
        let Some(by) = input.session_by.clone() else {
            return Err(SqlError::unsupported(
                "SESSION without its PARTITION BY columns",
                "a session is of these columns",
                "select them too",
            ));
        };
        for &column in &by {
            let field = input.schema.field(column);
            check_class(field.data_type(), &format!("SESSION by {}", field.name()))?;
        }
        let in_batch = |place: &Place| if let Place::Batch(at) = place { Some(*at) } else { None };
        let keys = by.iter().filter_map(|&column| in_batch(&input.places[column])).collect();
        let glue = NodeNote { glue: true, ..NodeNote::default() };
        let keyed = self.add("key_by", key_columns(Arc::new(ColumnKeys(keys))), &[(input.node, Routing::Forward)], glue);
        let column = |place: &Place| match place {
            Place::Batch(at) => RowColumn::Row(*at),
            Place::WindowStart => RowColumn::WindowStart,
            Place::WindowEnd => RowColumn::WindowEnd,
            // The others were refused.
            Place::WindowTime | Place::Clock | Place::AsOf => RowColumn::WindowTime,
        };
        let keeping = Keeping {
            windows,
            rows: arrow_schema(&input.batch_schema()?),
            order: Arc::new([]),
            first: FirstRows { most: usize::MAX, newest_first: false },
            columns: input.places.iter().map(column).collect(),
            schema: arrow_schema(&input.schema),
            description: "rows of sessions".into(),
        };
        let note = NodeNote {
            detail: windows.to_string(),
            state: vec![StateNote { what: format!("rows of open sessions{}", size::each(&input.schema)), bound: Bound::Watermark }],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
            glue: false,
        };
        let node = self.kept_rows(keyed, keeping, note)?;
        let places = (0..input.places.len()).map(Place::Batch).collect();
        Ok(Lowered { node, places, pending: None, session_by: None, ..input })
    }

    /// Keyed rows, when their windows have ended.
    pub(super) fn kept_rows(&mut self, keyed: NodeIndex, keeping: Keeping, note: NodeNote) -> SqlResult<NodeIndex> {
        let Keeping { windows, rows, order, first, columns, schema, description } = keeping;
        let packed = Packed::of(&rows, false).map_err(|name| {
            SqlError::unsupported(&format!("column {name:?} in rows of a window"), "such values are not kept yet", "select other columns")
        })?;
        let glue = || NodeNote { glue: true, ..NodeNote::default() };
        let to_packed = ToPackedRows { order, packed: packed.clone(), description: description.into() };
        let packing: OperatorFactory = Arc::new(move || Box::new(to_packed.clone()));
        let packing = self.add("rows", packing, &[(keyed, Routing::KeyGroup)], glue());
        let (factory, _) = operator(windows, Emission::default(), first)?;
        let fired = self.add("window_rows", factory, &[(packing, Routing::Forward)], note);
        let from_packed = FromPackedRows { packed, columns, schema, longer_ms: longer_ms(&windows), zone: windows.zone };
        let results: OperatorFactory = Arc::new(move || Box::new(from_packed.clone()));
        Ok(self.add("results", results, &[(fired, Routing::Forward)], glue()))
    }

    fn spread(&mut self, input: Lowered, windows: Windows, at_end: bool) -> SqlResult<Lowered> {
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

/// Every row once for each of its windows; of those that a zone's clock cuts, the bounds are what it shows.
#[derive(Clone)]
struct Spread {
    windows: Windows,
    places: Vec<Place>,
    schema: SchemaRef,
    /// Rows take the last instant of their window for their event time.
    at_end: bool,
}

impl Spread {
    /// The last instant of a window.
    fn last_of(&self, window: &(i64, i64)) -> Result<i64> {
        let beyond = |zone: Zone| Error::fatal(format!("a window's end, {} ms, is beyond the calendar of {zone}", window.1));
        let last = |zone: Zone| zone.last_instant_ms(window.1 - 1).ok_or_else(|| beyond(zone));
        self.windows.cut_by().map_or(Ok(window.1 - 1), last)
    }

    /// The windows that hold a time as their clock shows it, the earliest first; none where time itself ends.
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
            let shown = self.windows.cut_by().map_or(Some(time), |zone| zone.local_ms(time.0).map(EventTime));
            let of_row = shown.map_or_else(Vec::new, |time| self.windows_of(time));
            if of_row.is_empty() {
                failed.push((row, format!("event time {} is out of range", time.0)));
            }
            rows.extend(std::iter::repeat_n(row as u32, of_row.len()));
            bounds.extend(of_row);
        }
        let mut spread = batch.gather(&rows)?;
        if self.at_end {
            spread.times = bounds.iter().map(|window| self.last_of(window).map(EventTime)).collect::<Result<_>>()?;
        }
        // What was cut by the zone's clock is shown by it already.
        let shown_by = self.windows.zone.filter(|_| !self.windows.by_zone);
        let of = |bound: fn(&(i64, i64)) -> i64, zone: Option<Zone>, field: &arrow::datatypes::FieldRef| -> Result<ArrayRef> {
            stamps(bounds.iter().map(|window| bound_in(zone, bound(window))), field.data_type())
        };
        let column = |(place, field): (&Place, &arrow::datatypes::FieldRef)| match place {
            Place::Batch(i) => Ok(spread.columns.column(*i).clone()),
            Place::WindowStart => of(|w| w.0, shown_by, field),
            Place::WindowEnd => of(|w| w.1, shown_by, field),
            Place::WindowTime => stamps(bounds.iter().map(|window| self.last_of(window)), field.data_type()),
            Place::Clock | Place::AsOf => Err(Error::fatal("plan bug: a column that is in no batch")),
        };
        let all = self.places.iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
        let all =
            record_batch(self.schema.clone(), all, rows.len()).map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?;
        debug_assert!(all.columns().iter().all(|c| c.len() == rows.len()));
        Ok(spread.with_columns(all))
    }
}
