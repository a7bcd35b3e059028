//! Typed streams and SQL in one job: a stream of a Rust type is a table, a query's rows are a stream of a Rust type.
//!
//! `shape` finds the columns of a type, `json::Give` puts its rows into them, `decode` reads them out; the engine's
//! `to_columns` and `to_rows` do so batch by batch.
//!
//! Invariant: event time and watermark are the stream's, on both sides; what a type cannot hold is refused before the job starts
//! where the types say so, and is a bad record where only a value does.

mod decode;
mod shape;
#[cfg(test)]
mod tests;

use crate::catalog::{Column as Origin, Given, Table, Watermark};
use crate::connect::Connectors;
use crate::error::{SqlError, SqlResult};
use crate::json::{Column, Give, Unfit};
use crate::lower::{can_cast, column_expr, lower_rows};
use crate::options::{Connector, Options};
use crate::parser::type_name;
use crate::session::Planned;
use arrow::array::{ArrayRef, RecordBatch, StructArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_expr::{LogicalPlanBuilder, cast};
use decode::Cell;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shape::Shape;
use std::marker::PhantomData;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{Input, LogicalGraph, LogicalNode, NodeIndex, Role, Routing};
use waterwheel_engine::operators::{OperatorFactory, RowDecoder, RowEncoder, to_columns, to_rows};
use waterwheel_engine::record::{Change, ChangeBatch, Data, RowKind, record_batch};
use waterwheel_engine::time::EventTime;

/// Makes the table that a stream is: its columns are those of `T`.
///
/// # Errors
/// `T` has no columns: it holds maps, enums with data, or is of no fixed shape.
pub fn stream_table<T: Data + Serialize + DeserializeOwned>(name: &str, input: Input) -> SqlResult<Table> {
    table(name, input, Shape::of::<T>()?, false, |making| {
        to_columns::<T>(false, Arc::new(move || Ok(Box::new(Encoder::<T>::new(&making)?))))
    })
}

/// Makes the table that a stream of changes is.
///
/// # Errors
/// As [`stream_table`].
pub fn changes_table<T: Data + Serialize + DeserializeOwned>(name: &str, input: Input) -> SqlResult<Table> {
    let make = |making: Making| to_columns::<Change<T>>(true, Arc::new(move || Ok(Box::new(Encoder::<T>::new(&making)?))));
    table(name, input, Shape::of::<T>()?, true, make)
}

fn table(
    name: &str,
    input: Input,
    shape: Shape,
    changes: bool,
    make: impl Fn(Making) -> OperatorFactory + Send + Sync + 'static,
) -> SqlResult<Table> {
    let schema = shape.schema.clone();
    let encode = move |projection: &[usize], time| make(Making { shape: shape.clone(), projection: projection.to_vec(), time });
    let given = Given { input, changes, encode: Arc::new(encode) };
    let mut table = Table::implied(name, schema, Options::implied(Connector::Stream, []), None);
    table.given = Some(given);
    Ok(table)
}

impl Table {
    /// The stream's event time becomes the column of that name: that of its rows which holds it, or one more.
    ///
    /// # Errors
    /// The column is no TIMESTAMP(3) and no TIMESTAMP_LTZ(3); a table that is no stream, or one whose rows change.
    pub fn with_event_time(mut self, name: &str) -> SqlResult<Table> {
        match &self.given {
            Some(given) if !given.changes => {}
            Some(_) => return Err(SqlError::new(format!("table \"{}\": rows that change have no event time", self.name))),
            None => return Err(SqlError::new(format!("table \"{}\" is no stream of this job", self.name))),
        }
        let column = match self.schema.index_of(name) {
            Ok(i) if matches!(self.schema.field(i).data_type(), DataType::Timestamp(TimeUnit::Millisecond, _)) => i,
            Ok(i) => {
                let kind = type_name(self.schema.field(i).data_type());
                return Err(SqlError::new(format!("event time is TIMESTAMP_LTZ(3), and {name:?} of table \"{}\" is {kind}", self.name))
                    .help("give it a name of its own: it becomes one more column"));
            }
            Err(_) => {
                let mut fields: Vec<Field> = self.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
                fields.push(Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false));
                self.schema = Arc::new(Schema::new(fields));
                self.columns.push(Origin::Physical);
                self.schema.fields().len() - 1
            }
        };
        self.watermark = Some(Watermark { column, delay_ms: 0 });
        Ok(self)
    }

    /// Columns that a row is known by, for its versions by event time.
    ///
    /// # Errors
    /// There is no such column.
    pub fn with_primary_key(mut self, names: &[&str]) -> SqlResult<Table> {
        let position = |name: &&str| {
            let all = || self.schema.fields().iter().map(|f| f.name().as_str());
            self.schema
                .index_of(name)
                .map_err(|_| SqlError::new(format!("column {name:?} not found in {}", self.name)).nearest(name, all()))
        };
        self.primary_key = names.iter().map(position).collect::<SqlResult<_>>()?;
        Ok(self)
    }
}

/// How a task makes columns.
#[derive(Clone)]
struct Making {
    shape: Shape,
    /// The columns that are made, by position; the one behind those of the type is the event time.
    projection: Vec<usize>,
    /// The column that is the event time.
    time: Option<usize>,
}

/// Rows to columns.
struct Encoder<T> {
    making: Making,
    wanted: Vec<bool>,
    rows: Column,
    times: Vec<i64>,
    output: SchemaRef,
    of: PhantomData<fn(T)>,
}

impl<T: Serialize> Encoder<T> {
    fn new(making: &Making) -> Result<Self> {
        let fields = making.shape.schema.fields();
        let mut wanted = vec![false; fields.len()];
        // The event time is looked at even if nobody selects it: the row must agree with it.
        for &i in making.projection.iter().chain(&making.time).filter(|i| **i < fields.len()) {
            wanted[i] = true;
        }
        let stamp = |i: usize| match fields.get(i) {
            Some(field) => Field::new(field.name(), field.data_type().clone(), true),
            None => Field::new("event time", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        };
        Ok(Encoder {
            wanted,
            rows: making.shape.column()?,
            times: Vec::new(),
            output: Arc::new(Schema::new(making.projection.iter().map(|&i| stamp(i)).collect::<Vec<_>>())),
            making: making.clone(),
            of: PhantomData,
        })
    }

    fn put(&mut self, row: &T, time: EventTime) -> std::result::Result<(), Unfit> {
        row.serialize(Give::members(&mut self.rows, &self.wanted))?;
        if let Some(column) = self.making.time.and_then(|i| self.rows.members().get(i))
            && column.last_int() != Some(time.0)
        {
            return Err(Unfit(format!("the column of the event time holds another one than the row, which is of {}", time.0)));
        }
        self.times.push(time.0);
        Ok(())
    }

    fn forget(&mut self) {
        self.rows.truncate(self.times.len());
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        let columns = std::mem::replace(&mut self.rows, self.making.shape.column()?).into_members();
        let times = std::mem::take(&mut self.times);
        let rows = times.len();
        let mut columns: Vec<Option<Column>> = columns.into_iter().map(Some).collect();
        let stamps: ArrayRef = Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC"));
        let finish = |&i: &usize| columns.get_mut(i).and_then(Option::take).map_or_else(|| Ok(stamps.clone()), Column::finish);
        let arrays = self.making.projection.iter().map(finish).collect::<Result<Vec<_>>>()?;
        record_batch(self.output.clone(), arrays, rows).map_err(|e| Error::fatal("plan bug: columns of another type").because(e))
    }
}

impl<T: Serialize> RowEncoder<T> for Encoder<T> {
    fn push(&mut self, row: &T, time: EventTime) -> std::result::Result<(), String> {
        self.put(row, time).map_err(|e| e.0)
    }
    fn cut_back(&mut self) {
        self.forget();
    }
    fn take(&mut self) -> Result<RecordBatch> {
        self.batch()
    }
}

impl<T: Serialize> RowEncoder<Change<T>> for Encoder<T> {
    fn push(&mut self, change: &Change<T>, time: EventTime) -> std::result::Result<(), String> {
        self.put(&change.row, time).map_err(|e| e.0)
    }
    fn cut_back(&mut self) {
        self.forget();
    }
    fn kind(&self, change: &Change<T>) -> RowKind {
        change.kind
    }
    fn take(&mut self) -> Result<RecordBatch> {
        self.batch()
    }
}

impl Planned {
    /// Draws a query whose rows only come; the node's batches are `Rows<T>`.
    ///
    /// # Errors
    /// Its rows change later; its columns are not those of `T`; what cannot be run.
    pub fn draw_rows<T: Data + DeserializeOwned>(&self, graph: &mut LogicalGraph, connectors: &dyn Connectors) -> SqlResult<NodeIndex> {
        let shape = Shape::of::<T>()?;
        let (node, updating) = self.draw_in_shape(&shape, graph, connectors)?;
        if updating {
            return Err(SqlError::unsupported("to_stream of this query", "its rows change later", "to_changelog: rows with what they say"));
        }
        let is_value = shape.is_value;
        let make = move || -> Result<Box<dyn RowDecoder<T>>> { Ok(Box::new(Decoder { is_value, rows: None, kinds: None })) };
        Ok(self.behind(graph, node, "to_stream", to_rows(Arc::new(make))))
    }

    /// Draws a query with the changes of its rows; the node's batches are `Rows<Change<T>>`.
    ///
    /// # Errors
    /// Its columns are not those of `T`; what cannot be run.
    pub fn draw_changes<T: Data + DeserializeOwned>(&self, graph: &mut LogicalGraph, connectors: &dyn Connectors) -> SqlResult<NodeIndex> {
        let shape = Shape::of::<T>()?;
        let (node, _) = self.draw_in_shape(&shape, graph, connectors)?;
        let is_value = shape.is_value;
        let make =
            move || -> Result<Box<dyn RowDecoder<Change<T>>>> { Ok(Box::new(Changes(Decoder { is_value, rows: None, kinds: None }))) };
        Ok(self.behind(graph, node, "to_changelog", to_rows(Arc::new(make))))
    }

    fn behind(&self, graph: &mut LogicalGraph, from: NodeIndex, kind: &'static str, factory: OperatorFactory) -> NodeIndex {
        let input = Input { from, port: 0, routing: Routing::Forward };
        let mut node = LogicalNode::new(kind, Role::Operator(factory), vec![input]);
        node.id = Some(self.name().to_string());
        node.can_reject = true;
        graph.add(node)
    }

    /// The query with the columns of a type, in its order.
    fn draw_in_shape(&self, shape: &Shape, graph: &mut LogicalGraph, connectors: &dyn Connectors) -> SqlResult<(NodeIndex, bool)> {
        if !self.order().is_empty() || self.limit().is_some() || self.offset() > 0 {
            let instead = "SELECT * FROM (SELECT .. ORDER BY x LIMIT n), the first rows so far";
            return Err(SqlError::unsupported("ORDER BY and LIMIT of a stream", "its rows have no last one", instead));
        }
        let given = self.plan().schema().clone();
        let names = || given.fields().iter().map(|f| f.name().as_str());
        let mut exprs = Vec::new();
        for field in shape.schema.fields() {
            let (name, to) = (field.name(), field.data_type());
            let found = if shape.is_value && names().count() == 1 { Some(0) } else { names().position(|n| n == name) };
            let Some(i) = found else {
                return Err(SqlError::new(format!("the query has no column {name:?}, which the type reads")).nearest(name, names()));
            };
            let from = given.field(i).data_type();
            let column = column_expr(&given, i);
            let value = match from == to {
                true => column,
                false if can_cast(from, to) => cast(column, to.clone()),
                false => {
                    return Err(SqlError::new(format!("column {name:?} is {}, the type reads {}", type_name(from), type_name(to)))
                        .help(format!("CAST({name} AS {})", type_name(to))));
                }
            };
            exprs.push(value.alias(name));
        }
        if let Some(extra) = names().find(|n| !shape.is_value && shape.schema.index_of(n).is_err()) {
            return Err(
                SqlError::new(format!("the type reads no column {extra:?} of the query")).help("leave it out of SELECT, or add the field")
            );
        }
        let plan = LogicalPlanBuilder::from(self.plan().clone()).project(exprs).and_then(LogicalPlanBuilder::build);
        let plan = plan.map_err(SqlError::of_planner)?;
        self.placed(lower_rows(graph, connectors, self.name(), &plan, &self.terms))
    }
}

/// Columns to rows.
struct Decoder {
    is_value: bool,
    rows: Option<ArrayRef>,
    kinds: Option<Vec<RowKind>>,
}

impl Decoder {
    fn look(&mut self, batch: &ChangeBatch) {
        self.kinds.clone_from(&batch.kinds);
        self.rows = Some(match self.is_value {
            true => batch.columns.column(0).clone(),
            false => Arc::new(StructArray::from(batch.columns.clone())),
        });
    }

    fn read<T: DeserializeOwned>(&self, row: usize) -> std::result::Result<T, String> {
        let column = self.rows.as_ref().ok_or("plan bug: no batch")?;
        T::deserialize(Cell { column: column.as_ref(), row }).map_err(|e| e.0)
    }
}

impl<T: DeserializeOwned> RowDecoder<T> for Decoder {
    fn begin(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.look(batch);
        Ok(())
    }
    fn row(&mut self, i: usize) -> std::result::Result<T, String> {
        self.read(i)
    }
}

/// Columns to changes.
struct Changes(Decoder);

impl<T: DeserializeOwned> RowDecoder<Change<T>> for Changes {
    fn begin(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.0.look(batch);
        Ok(())
    }
    fn row(&mut self, i: usize) -> std::result::Result<Change<T>, String> {
        let kind = self.0.kinds.as_ref().map_or(RowKind::Insert, |kinds| kinds[i]);
        Ok(Change { kind, row: self.0.read(i)? })
    }
}
