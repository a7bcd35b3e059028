//! VALUES and queries without FROM: rows that stand in the query itself are read like a table that ends.
//!
//! Invariant: each row is read once, in the order in which it is written; state goes on with the same rows alone.

use super::{Lowered, Lowering, arrow_schema, physical};
use crate::error::{SqlError, SqlResult};
use crate::plan::hex;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{cast, concat};
use arrow::datatypes::Schema;
use datafusion_common::DFSchema;
use datafusion_expr::Expr;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{LogicalNode, ReadAs, Role, SourceNode};
use waterwheel_engine::operators::{ErrorPolicy, Ingest, Poll, ReaderContext, Source, SourceReader, Split, SplitId, SplitState};
use waterwheel_engine::record::{BatchBox, ChangeBatch, Rejected, record_batch};
use waterwheel_engine::time::EventTime;

impl Lowering<'_> {
    /// Rows of values.
    pub(super) fn values(&mut self, schema: &Arc<DFSchema>, rows: &[Vec<Expr>]) -> SqlResult<Lowered> {
        let columns = columns_of(schema, rows)?;
        let written: Vec<String> = rows.iter().flatten().map(ToString::to_string).collect();
        let identity = hex(&Sha256::digest(format!("{written:?}")));
        self.constant(schema, columns, identity)
    }

    /// What a query without FROM reads: one row without columns.
    pub(super) fn one_row(&mut self, schema: &Arc<DFSchema>) -> SqlResult<Lowered> {
        let columns = record_batch(arrow_schema(schema), Vec::new(), 1).map_err(|e| SqlError::new(e.to_string()))?;
        self.constant(schema, columns, "one row".into())
    }

    fn constant(&mut self, schema: &Arc<DFSchema>, columns: RecordBatch, identity: String) -> SqlResult<Lowered> {
        let (id, count) = (self.id("values"), columns.num_rows());
        let source = Arc::new(Constant { name: id.as_str().into(), columns, identity });
        let node = SourceNode {
            connect: Box::new(move |read_as| Ok(Arc::new(Reading { source: source.clone(), read_as }))),
            read_as: if self.read_in_first { ReadAs::Table } else { ReadAs::Stream },
            ingest: Arc::new(|_| Box::new(AsIs)),
            watermarks: None,
            max_ahead_ms: None,
            in_step: None,
            policy: ErrorPolicy::Fail,
            dead_letters: None,
        };
        let mut node = LogicalNode::new("source", Role::Source(node), Vec::new());
        node.id = Some(id);
        node.can_reject = true;
        node.note.detail = format!("VALUES, rows: {count}");
        Ok(Lowered::plain(self.graph.add(node), schema.clone(), false))
    }
}

/// Each expression is computed when the query is planned.
fn columns_of(schema: &DFSchema, rows: &[Vec<Expr>]) -> SqlResult<RecordBatch> {
    let failed = |e: &dyn std::fmt::Display| SqlError::new(format!("VALUES: {e}"));
    let nothing = DFSchema::empty();
    let row = record_batch(Arc::new(Schema::empty()), Vec::new(), 1).map_err(|e| failed(&e))?;
    let value = |expr: &Expr| -> SqlResult<ArrayRef> {
        let value = physical(expr, &nothing)?.evaluate(&row).and_then(|value| value.into_array(1));
        value.map_err(|e| failed(&crate::kernels::calc::explain(&e)))
    };
    let types = arrow_schema(schema);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(types.fields().len());
    for (i, field) in types.fields().iter().enumerate() {
        let values = rows.iter().filter_map(|row| row.get(i)).map(value).collect::<SqlResult<Vec<_>>>()?;
        let of_type = values.iter().map(|value| cast(value, field.data_type())).collect::<std::result::Result<Vec<_>, _>>();
        let of_type = of_type.map_err(|e| failed(&e))?;
        let all: Vec<&dyn Array> = of_type.iter().map(AsRef::as_ref).collect();
        columns.push(concat(&all).map_err(|e| failed(&e))?);
    }
    record_batch(types, columns, rows.len()).map_err(|e| failed(&e))
}

/// The rows of a query.
#[derive(Debug)]
struct Constant {
    name: Arc<str>,
    columns: RecordBatch,
    identity: String,
}

impl Constant {
    fn split(&self) -> SplitId {
        SplitId { name: self.name.clone(), partition: 0 }
    }

    fn end(&self) -> i64 {
        self.columns.num_rows() as i64
    }
}

/// With how they are read.
struct Reading {
    source: Arc<Constant>,
    read_as: ReadAs,
}

impl Source for Reading {
    fn describe(&self) -> String {
        format!("VALUES, rows: {}", self.source.end())
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn splits(&self, _first: bool) -> Result<Vec<Split>> {
        let end = self.source.end();
        Ok(vec![Split {
            id: self.source.split(),
            start: 0,
            end: Some(end),
            bootstrap_end: (self.read_as == ReadAs::Table).then_some(end),
            topic_id: Some(self.source.identity.clone()),
        }])
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Reader { source: self.source.clone(), batch_rows: context.batch_rows.max(1), next: None }))
    }
}

struct Reader {
    source: Arc<Constant>,
    batch_rows: usize,
    /// The next row; none = nothing is to be read, or no more.
    next: Option<usize>,
}

impl SourceReader for Reader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        if let Some(state) = splits.first() {
            let at = usize::try_from(state.position).ok().filter(|at| *at <= self.source.columns.num_rows());
            let gone = || Error::fatal(format!("{} has no row {}", self.source.name, state.position));
            self.next = Some(at.ok_or_else(gone)?);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Poll> {
        let Some(from) = self.next else { return Ok(Poll::Empty) };
        let count = self.batch_rows.min(self.source.columns.num_rows() - from);
        let split = self.source.split();
        if count == 0 {
            self.next = None;
            return Ok(Poll::Ended { split });
        }
        self.next = Some(from + count);
        // They have no time.
        let batch = ChangeBatch::inserts(self.source.columns.slice(from, count), vec![EventTime(-1); count]);
        Ok(Poll::Batch { split, batch: batch.boxed(), next: (from + count) as i64 })
    }
}

/// The rows are columns already.
struct AsIs;

impl Ingest for AsIs {
    fn ingest(&mut self, batch: BatchBox, _rejected: &mut Vec<Rejected>) -> Result<BatchBox> {
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    #[test]
    fn rows_go_on_where_they_were() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let columns = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let source = Arc::new(Constant { name: "v".into(), columns, identity: "i".into() });
        let split = Reading { source: source.clone(), read_as: ReadAs::Stream }.splits(true).unwrap().remove(0);
        let at = |position| SplitState { position, ..SplitState::fresh(split.clone()) };
        let mut reader = Reader { source, batch_rows: 2, next: None };
        assert!(matches!(reader.poll().unwrap(), Poll::Empty));
        assert!(reader.assign(&[at(4)]).is_err());
        reader.assign(&[at(0)]).unwrap();
        for (rows, behind) in [(2, 2), (1, 3)] {
            let Poll::Batch { batch, next, .. } = reader.poll().unwrap() else { panic!("no rows") };
            assert_eq!((batch.len(), next), (rows, behind));
        }
        assert!(matches!(reader.poll().unwrap(), Poll::Ended { .. }));
        assert!(matches!(reader.poll().unwrap(), Poll::Empty));
        reader.assign(&[at(3)]).unwrap();
        assert!(matches!(reader.poll().unwrap(), Poll::Ended { .. }));
    }
}
