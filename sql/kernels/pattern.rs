//! MATCH_RECOGNIZE: what conditions and results read of the packed rows of a match.
//!
//! A reading is one value: a column of one row of a variable, or an aggregate of its rows. Around the readings are plain
//! expressions; those of the results are computed for whole batches, behind the engine's `pattern`.
//!
//! Invariant: a row that a condition is asked for counts as one of its variable's rows, the last one.

use super::aggregate::Calls;
use super::calc::explain;
use super::group::{building, take_columns};
use super::packed::Packed;
use super::value::{Value, column};
use arrow::array::{Array, AsArray};
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::joins::EncodedRows;
use waterwheel_engine::operators::{Match, Operator, Output};
use waterwheel_engine::record::{BatchBox, ChangeBatch, Rows, downcast, record_batch};
use waterwheel_engine::time::EventTime;

/// A row as the engine's operators keep it.
pub(crate) type PackedRow = Vec<u8>;

/// Where one value of a match comes from.
#[derive(Debug, Clone)]
pub(crate) enum Read {
    /// A column of one row of a variable (none = of any), so many behind the first or before the last.
    Row { variable: Option<String>, first: bool, offset: usize, column: usize },
    /// A tally, and a call of it.
    Call(usize, usize),
    /// The event time of the result, which is known behind the pattern.
    Time,
}

/// The aggregates of the rows of one variable; none = of all.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) variable: Option<String>,
    pub(crate) calls: Calls,
    /// The columns that their arguments look at.
    pub(crate) columns: Vec<usize>,
    pub(crate) schema: SchemaRef,
}

/// The values that an expression is computed of.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    pub(crate) packed: Arc<Packed>,
    pub(crate) reads: Vec<Read>,
    pub(crate) tallies: Vec<Tally>,
    /// Of the values, as columns.
    pub(crate) schema: SchemaRef,
}

/// The rows of a match, and one that may become a row of it.
struct Seen<'m> {
    taken: &'m Match<'m, PackedRow>,
    /// Its variable, and the row.
    current: Option<(&'m str, &'m [u8])>,
}

impl<'m> Seen<'m> {
    fn taken_of(&self, variable: Option<&'m str>) -> impl DoubleEndedIterator<Item = &'m [u8]> + use<'m> {
        let of = move |name: &str| variable.is_none_or(|variable| variable == name);
        self.taken.rows().filter(move |(name, ..)| of(name)).map(|(.., row)| row.as_slice())
    }

    fn current_of(&self, variable: Option<&str>) -> Option<&'m [u8]> {
        self.current.filter(|(name, _)| variable.is_none_or(|variable| variable == *name)).map(|(_, row)| row)
    }

    fn row(&self, variable: Option<&'m str>, first: bool, offset: usize) -> Option<&'m [u8]> {
        let current = self.current_of(variable);
        if first {
            return self.taken_of(variable).chain(current).nth(offset);
        }
        match (current, offset) {
            (Some(row), 0) => Some(row),
            (current, offset) => self.taken_of(variable).nth_back(offset - usize::from(current.is_some())),
        }
    }
}

impl Reads {
    /// The values of a match, or of one that may be.
    fn values(&self, seen: &Seen<'_>) -> Result<Vec<Value>> {
        let tallies = self.tallies.iter().map(|tally| tally.results(&self.packed, seen)).collect::<Result<Vec<_>>>()?;
        let value = |read: &Read| match read {
            Read::Row { variable, first, offset, column } => {
                let row = seen.row(variable.as_deref(), *first, *offset);
                row.map_or(Ok(Value::Null), |row| self.packed.value(row, *column))
            }
            Read::Call(tally, call) => Ok(tallies[*tally][*call].clone()),
            Read::Time => Ok(Value::Null),
        };
        self.reads.iter().map(value).collect()
    }

    /// The values of a match that is complete.
    ///
    /// # Errors
    /// An aggregate that cannot be computed.
    pub(crate) fn of_match(&self, found: &Match<'_, PackedRow>) -> Result<Vec<Value>, String> {
        self.values(&Seen { taken: found, current: None }).map_err(|e| e.to_string())
    }

    /// The columns that hold the event time of the result.
    pub(crate) fn times(&self) -> Vec<usize> {
        (0..self.reads.len()).filter(|i| matches!(self.reads[*i], Read::Time)).collect()
    }
}

impl Tally {
    fn results(&self, packed: &Packed, seen: &Seen<'_>) -> Result<Vec<Value>> {
        let variable = self.variable.as_deref();
        let rows: Vec<&[u8]> = seen.taken_of(variable).chain(seen.current_of(variable)).collect();
        let columns = self.columns.iter().map(|&c| packed.column(c, rows.iter().map(|row| Some(*row)))).collect::<Result<Vec<_>>>()?;
        let columns = record_batch(self.schema.clone(), columns, rows.len()).map_err(misfit)?;
        let mut failed = Vec::new();
        let arguments = self.calls.arguments(&ChangeBatch::inserts(columns, vec![EventTime(0); rows.len()]), &mut failed)?;
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(Error::fatal(error));
        }
        let mut acc = self.calls.create();
        // Functions of users, which may fail, are refused by the planner.
        (0..rows.len()).try_for_each(|row| self.calls.fold(&mut acc, &arguments, row, 1)).map_err(Error::fatal)?;
        self.calls.values(&acc).map_err(Error::fatal)
    }
}

#[cold]
fn misfit(error: arrow::error::ArrowError) -> Error {
    Error::fatal("plan bug: values of a match are of another type").because(error)
}

/// A condition of DEFINE.
#[derive(Debug, Clone)]
pub(crate) struct Define {
    pub(crate) variable: String,
    pub(crate) reads: Reads,
    pub(crate) condition: Arc<dyn PhysicalExpr>,
}

impl Define {
    /// Whether a row fits behind those that were taken; NULL does not.
    ///
    /// # Errors
    /// What the condition says of the row's values.
    pub(crate) fn holds(&self, row: &[u8], taken: &Match<'_, PackedRow>) -> Result<bool, String> {
        let seen = Seen { taken, current: Some((&self.variable, row)) };
        let one_row = || -> Result<_> {
            let values = self.reads.values(&seen)?;
            let fields = self.reads.schema.fields().iter();
            let columns =
                values.iter().zip(fields).map(|(value, field)| column(field.data_type(), &[value])).collect::<Result<Vec<_>>>()?;
            record_batch(self.reads.schema.clone(), columns, 1).map_err(misfit)
        };
        let batch = one_row().map_err(|e| e.to_string())?;
        let value = self.condition.evaluate(&batch).and_then(|value| value.into_array(1)).map_err(|e| explain(&e))?;
        let value = value.as_boolean_opt().ok_or("plan bug: a condition that is no BOOLEAN")?;
        Ok(value.is_valid(0) && value.value(0))
    }
}

/// Rows of columns to packed rows, with their keys and times.
pub(crate) struct ToPacked(pub(crate) Arc<Packed>);

impl Operator for ToPacked {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let mut all = EncodedRows::default();
        self.0.pack_all(&batch.columns, &mut all);
        let rows: Vec<PackedRow> = (0..batch.times.len()).map(|row| all.row(row).to_vec()).collect();
        out.emit(Rows { rows, times: batch.times, keys: batch.keys, origins: batch.origins }.boxed())
    }
}

/// The values of matches to columns.
pub(crate) struct FromMatches {
    pub(crate) schema: SchemaRef,
    /// Columns that hold the event time of the row.
    pub(crate) times: Vec<usize>,
}

impl Operator for FromMatches {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let mut batch = downcast::<Rows<Vec<Value>>>(batch);
        for (row, time) in batch.rows.iter_mut().zip(&batch.times) {
            self.times.iter().for_each(|&column| row[column] = Value::Int(time.0));
        }
        let mut columns = building(&self.schema)?;
        for row in &batch.rows {
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        let columns = take_columns(&self.schema, &mut columns, batch.rows.len())?;
        out.emit(ChangeBatch::inserts(columns, batch.times).boxed())
    }
}
