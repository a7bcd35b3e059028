//! What SQL asks of the world outside: where tables are read from and written to.
//!
//! Invariant: nothing is connected while a statement is planned, but for what `infer` must look at.

use crate::catalog::Table;
use arrow::datatypes::SchemaRef;
use waterwheel_engine::error::Result;
use waterwheel_engine::graph::{NoTopics, SinkRef, SourceFactory, TopicRequest, TopicSinks};

/// Connects tables; implemented where the connectors are known.
pub trait Connectors: Send + Sync {
    /// The source of a table: its reader hands over records as bytes
    /// ([`RawBatch`](waterwheel_engine::record::RawBatch)), or values that are made up (`Rows<Vec<u8>>`). Where the format is
    /// `parquet` it hands over these columns of the table, each of its type, in
    /// [`FileRows`](waterwheel_engine::record::FileRows).
    ///
    /// # Errors
    /// Options that cannot work.
    fn source(&self, table: &Table, columns: &SchemaRef) -> Result<SourceFactory>;

    /// The sink of a table: its writer takes records as bytes, whose value is a line of text for `print`; columns as they are for
    /// `blackhole`, and [`FileRows`](waterwheel_engine::record::FileRows) where the format is `parquet`.
    ///
    /// # Errors
    /// Options that cannot work.
    fn sink(&self, table: &Table) -> Result<SinkRef>;

    /// Where the dead letters of a table go: a topic of this name in the table's own place, if it names one; else, as here, where
    /// the job's topics are.
    ///
    /// # Errors
    /// Options that cannot work.
    fn dead_letters(&self, _table: &Table, topic: &str) -> Result<SinkRef> {
        Ok(SinkRef::Topic(TopicRequest::dead_letters(topic)))
    }

    /// A table for a name that was not declared, its columns inferred from a sample; none when there is nothing of that name.
    ///
    /// # Errors
    /// The place is away, or its records have no columns.
    fn infer(&self, name: &str) -> Result<Option<Table>>;

    /// Names that `infer` would know.
    ///
    /// # Errors
    /// The place is away.
    fn names(&self) -> Result<Vec<String>>;

    /// Makes sinks of topics at the job's place.
    fn topics(&self) -> &dyn TopicSinks {
        &NoTopics
    }
}

/// For sessions without a world: everything must be declared, and nothing can be run.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoConnectors;

impl Connectors for NoConnectors {
    fn source(&self, table: &Table, _columns: &SchemaRef) -> Result<SourceFactory> {
        Err(waterwheel_engine::error::Error::fatal(format!("table {} cannot be read here", table.name)))
    }

    fn sink(&self, table: &Table) -> Result<SinkRef> {
        Err(waterwheel_engine::error::Error::fatal(format!("table {} cannot be written here", table.name)))
    }

    fn infer(&self, _name: &str) -> Result<Option<Table>> {
        Ok(None)
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
