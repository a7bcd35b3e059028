//! SQL over topics: Flink's dialect, planned by DataFusion, run by the engine.
//!
//! A text becomes statements (`parser`), names become tables (`catalog`, `options`), a query becomes a logical plan (`plan`:
//! DataFusion parses, analyses and optimises), a plan becomes operators of the engine (`lower`), and what looks inside rows are
//! leaf kernels (`kernels`, `json`). What cannot be run is refused with its name, the reason and what to write instead.
//!
//! ```
//! use std::sync::Arc;
//! use waterwheel_sql::{NoConnectors, Outcome, Session};
//! let mut session = Session::new(Arc::new(NoConnectors));
//! let outcomes = session.run("job.sql", "
//!     CREATE TABLE payments (country STRING, amount DECIMAL(10, 2)) WITH ('connector' = 'topics', 'format' = 'json');
//!     SELECT country, SUM(amount) AS total FROM payments GROUP BY country;
//! ")?;
//! assert!(matches!(&outcomes[1], Outcome::Query(query) if query.schema().field(1).name() == "total"));
//! # Ok::<(), waterwheel_engine::error::Error>(())
//! ```
//!
//! Invariant: all contact with DataFusion is in this crate; no operator here keeps state, the engine's cores do.

mod alter;
pub mod catalog;
mod connect;
mod csv;
mod debezium;
mod encode;
mod error;
mod file_rows;
mod folders;
mod infer;
mod ingest;
mod json;
mod kernels;
mod like;
mod lower;
mod maps;
mod named;
mod nowhere;
pub mod options;
mod order;
mod own;
pub mod parser;
mod plan;
mod rows;
pub mod secrets;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod typed;

/// The columns that functions take and give.
pub use arrow;
pub use connect::{Connectors, NoConnectors};
pub use error::{SqlError, SqlResult};
pub use infer::infer;
pub use order::OrderBy;
pub use own::{AggregateFunction, Datum, Function, TableFunction, TableRows};
pub use parser::parse;
pub use plan::ScalarFunction;
pub use rows::{FinalRows, ShownRow};
pub use session::{Outcome, Planned, Session};
pub use settings::Settings;
pub use typed::{changes_table, stream_table};

use arrow::array::RecordBatch;
use waterwheel_engine::record::RowKind;

/// A value of a column as people and CSV read it; `NULL` for none.
pub fn cell(columns: &RecordBatch, column: usize, row: usize) -> String {
    json::cell(columns.column(column), row)
}

/// A row as JSON, as a topic would get it.
///
/// # Errors
/// A value that JSON cannot say.
pub fn json_row(columns: &RecordBatch, row: usize) -> Result<String, String> {
    let mut out = Vec::new();
    json::RowWriter::of(columns).json(row, &mut out)?;
    String::from_utf8(out).map_err(|e| e.to_string())
}

/// A change as Flink writes it: `+I[1, a]`.
pub fn change_line(kind: RowKind, columns: &RecordBatch, row: usize) -> String {
    let mut line = Vec::new();
    encode::put_line(kind, &json::ColumnWriter::all(columns), row, &mut line);
    String::from_utf8_lossy(&line).into_owned()
}
