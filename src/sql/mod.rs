//! SQL on this place's topics: what connects [`waterwheel_sql`] with the connectors, and runs what it plans.
//!
//! * `tables`: where tables are read from and written to, and what columns a topic has that nobody declared.
//! * `results`: a sink that shows rows as they come, or what they add up to in the end.
//! * `job`: SQL within a typed job.
//! * `kept`: declarations in a folder.
//! * `run`: a query until it ends or is stopped; a script of inserts as a job with the verbs of every job.
//!
//! Invariant: a query leaves nothing behind, neither checkpoints nor offsets; a script's job is a job like any other.

mod job;
mod kept;
mod results;
mod run;
mod tables;

pub(crate) use job::JobSql;
pub use job::{Query, StreamTable};
pub use kept::KeptCatalog;
pub use results::Form;
pub use run::{Script, Shell, Stopper, script};
pub use tables::Tables;
pub use waterwheel_sql::arrow;
pub use waterwheel_sql::{AggregateFunction, Datum, Function, ScalarFunction, TableFunction, TableRows};
pub use waterwheel_sql::{Connectors, FinalRows, NoConnectors, Outcome, Planned, Session, SqlError, parse};
