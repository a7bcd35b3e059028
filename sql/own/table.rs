//! A table function: of one row to any number of rows.
//!
//! It is a function to an array of rows, and `LATERAL TABLE` is UNNEST of that array.
//!
//! Invariant: a call gives whole rows of the declared columns, or its row fails.

use super::datum::{Datum, unknown};
use crate::kernels::building::Building;
use crate::kernels::value::Cells;
use crate::plan::ScalarFunction;
use arrow::array::{ArrayRef, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion_expr::ScalarUDFImpl;
use std::sync::Arc;

/// What a user wrote: from the arguments of a row to its rows.
type Produce = dyn Fn(&[Datum<'_>], &mut TableRows) -> Result<(), String> + Send + Sync;

/// A function of a row to rows, which stand beside it: `FROM t, LATERAL TABLE(split(t.line)) AS s (word, n)`.
///
/// ```
/// use arrow::datatypes::DataType;
/// use std::sync::Arc;
/// use waterwheel_sql::{Datum, NoConnectors, Outcome, Session, TableFunction};
/// let split = TableFunction::new("split", vec![DataType::Utf8], &[("word", DataType::Utf8), ("n", DataType::Int64)], |args, rows| {
///     for word in args[0].as_text().unwrap_or_default().split_whitespace() {
///         rows.push([word.into(), (word.len() as i64).into()]);
///     }
///     Ok(())
/// });
/// let mut session = Session::new(Arc::new(NoConnectors));
/// session.register(split);
/// let outcomes = session.run("job.sql", "
///     CREATE TABLE t (line STRING) WITH ('connector' = 'topics', 'format' = 'json');
///     SELECT t.line, s.word, s.n FROM t LEFT JOIN LATERAL TABLE(split(t.line)) AS s (word, n) ON TRUE;
/// ")?;
/// assert!(matches!(&outcomes[1], Outcome::Query(query) if query.schema().field(2).name() == "n"));
/// # Ok::<(), waterwheel_engine::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TableFunction {
    /// To an array of rows.
    function: ScalarFunction,
    arguments: Vec<DataType>,
    columns: Vec<DataType>,
}

impl TableFunction {
    /// A function that depends on its arguments alone: the same arguments, the same rows, so that a row that is taken back
    /// takes its rows along. It is called once for each row, also where arguments are NULL, and gives its rows by
    /// [`TableRows::push`]; an error is that of the row, and so is a panic.
    ///
    /// Arguments and columns are of plain types: no rows, arrays or maps, which a query takes apart by fields and UNNEST.
    pub fn new(
        name: &str,
        arguments: Vec<DataType>,
        columns: &[(&str, DataType)],
        produce: impl Fn(&[Datum<'_>], &mut TableRows) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let fields: Fields = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        let kinds = columns.iter().map(|(_, kind)| kind.clone()).collect();
        let item = Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true));
        let rows = DataType::List(item);
        let function = ScalarFunction::new(name, arguments.clone(), rows, move |args| rows_of(args, &fields, &produce));
        TableFunction { function, arguments, columns: kinds }
    }

    pub(crate) fn name(&self) -> &str {
        self.function.name()
    }

    /// The function to an array of rows.
    pub(crate) fn function(&self) -> &ScalarFunction {
        &self.function
    }

    /// The first type of its own that it cannot have.
    pub(crate) fn unknown(&self) -> Option<&DataType> {
        unknown(self.arguments.iter().chain(&self.columns))
    }
}

/// The rows that a table function gives.
#[derive(Debug)]
pub struct TableRows {
    fields: Fields,
    columns: Vec<Building>,
    rows: usize,
    /// What is wrong with the first row that is none.
    wrong: Option<String>,
}

impl TableRows {
    fn of(fields: &Fields) -> Result<TableRows, String> {
        let columns = fields.iter().map(|field| Building::of(field.data_type())).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|e| e.to_string())?;
        Ok(TableRows { fields: fields.clone(), columns, rows: 0, wrong: None })
    }

    /// Gives one more row: a value for each column, in their order. With another number of values, or one of another type,
    /// the call fails when it is over.
    pub fn push<'d>(&mut self, row: impl IntoIterator<Item = Datum<'d>>) {
        if self.wrong.is_some() {
            return;
        }
        let mut given = 0;
        for datum in row {
            match (self.fields.get(given), self.columns.get_mut(given)) {
                (Some(field), Some(column)) if datum.fits(field.data_type()) => column.push(&datum.into()),
                (Some(field), _) => {
                    self.wrong = Some(format!("{} for the column {:?}", datum.misfit(field.data_type()), field.name()));
                    return;
                }
                (None, _) => {}
            }
            given += 1;
        }
        if given != self.fields.len() {
            self.wrong = Some(format!("a row of {given} values for {} columns", self.fields.len()));
        }
        self.rows += 1;
    }
}

/// An array of rows for each row of the arguments.
fn rows_of(args: &[ArrayRef], fields: &Fields, produce: &Produce) -> Result<ArrayRef, String> {
    let cells = args.iter().map(Cells::of).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let mut made = TableRows::of(fields)?;
    // Without arguments, one call is that of every row.
    let calls = args.first().map_or(1, |first| first.len());
    let mut counts = Vec::with_capacity(calls);
    for row in 0..calls {
        let before = made.rows;
        let datums: Vec<Datum<'_>> = cells.iter().map(|cells| Datum::of(cells, row)).collect();
        produce(&datums, &mut made)?;
        if let Some(wrong) = made.wrong.take() {
            return Err(wrong);
        }
        counts.push(made.rows - before);
    }
    if i32::try_from(made.rows).is_err() {
        return Err("more than 2147483647 rows at once".into());
    }
    let columns = made.columns.iter_mut().map(Building::take).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true));
    let rows = StructArray::try_new_with_length(fields.clone(), columns, None, made.rows).map_err(|e| e.to_string())?;
    let list = ListArray::try_new(item, OffsetBuffer::from_lengths(counts), Arc::new(rows), None).map_err(|e| e.to_string())?;
    Ok(Arc::new(list))
}
