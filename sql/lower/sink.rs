//! The end of a statement: INSERT INTO a table, or rows to be shown.
//!
//! Invariant: a table that only grows never gets a change; one that is known by a primary key gets changes only where the
//! query's rows are known by the same columns, because then all changes of a key come from one task, in order.

use super::{Lowered, Lowering, column_expr};
use crate::catalog::{Column, Table};
use crate::connect::Connectors;
use crate::encode::{Encoding, encode};
use crate::error::{SqlError, SqlResult};
use crate::file_rows::{Columns, into_folders};
use crate::kernels::keys::ColumnKeys;
use crate::options::Connector;
use crate::parser::type_name;
use crate::plan::{as_other, fits};
use crate::settings::Terms;
use arrow::datatypes::DataType;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use std::sync::Arc;
use waterwheel_engine::graph::{Input, LogicalGraph, LogicalNode, NodeIndex, NodeNote, Role, Routing, SinkRef};
use waterwheel_engine::operators::{key_columns, note_progress};

/// Where the rows of a statement go.
#[derive(Clone)]
pub(crate) enum Target {
    /// Into a table.
    Table(Arc<Table>),
    /// To a sink that takes [`ChangeBatch`](waterwheel_engine::record::ChangeBatch)es.
    Changes(SinkRef),
}

/// The plan of a query whose columns are those of the table: by position, cast where nothing is lost without notice.
pub(crate) fn check_insert(plan: LogicalPlan, table: &Table) -> SqlResult<LogicalPlan> {
    let connector = table.options.connector;
    if !connector.is_sink() {
        return Err(SqlError::new(format!("table \"{}\" cannot be written: '{}' is only read", table.name, connector.name())));
    }
    for (field, column) in table.schema.fields().iter().zip(&table.columns) {
        if let Column::Metadata { from, is_virtual: false } = column
            && !from.is_writable()
        {
            return Err(SqlError::new(format!(
                "column {:?} of table \"{}\" is '{}', which is only read",
                field.name(),
                table.name,
                from.name()
            ))
            .help(format!("declare it  METADATA FROM '{}' VIRTUAL", from.name())));
        }
    }
    let wanted: Vec<_> = table.written().into_iter().map(|i| table.schema.field(i)).collect();
    let given = plan.schema().clone();
    if wanted.len() != given.fields().len() {
        return Err(SqlError::new(format!(
            "the query has {} columns, table \"{}\" takes {}",
            given.fields().len(),
            table.name,
            wanted.len()
        ))
        .help(format!(
            "it takes: {}",
            wanted.iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect::<Vec<_>>().join(", ")
        )));
    }
    let mut exprs = Vec::with_capacity(wanted.len());
    for (i, field) in wanted.iter().enumerate() {
        let (from, to) = (given.field(i).data_type(), field.data_type());
        let column = column_expr(&given, i);
        let value: Expr = if from == to {
            column
        } else if can_cast(from, to) {
            cast(column, to.clone())
        } else if fits(from, to, can_cast) {
            as_other(column, to)
        } else {
            return Err(SqlError::new(format!(
                "column {:?} of table \"{}\" is {}, the query gives {}",
                field.name(),
                table.name,
                type_name(to),
                type_name(from)
            ))
            .help(format!("CAST({} AS {})", given.field(i).name(), type_name(to))));
        };
        exprs.push(value.alias(field.name()));
    }
    LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build).map_err(SqlError::of_planner)
}

/// Whether a value becomes the other type by itself; what does not fit is an error of its row.
pub(crate) fn can_cast(from: &DataType, to: &DataType) -> bool {
    let number = |k: &DataType| k.is_integer() || k.is_floating() || matches!(k, DataType::Decimal128(_, _));
    let stamp = |k: &DataType| matches!(k, DataType::Timestamp(_, _));
    let text = |k: &DataType| matches!(k, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    from.is_null() || (number(from) && number(to)) || (stamp(from) && stamp(to)) || (text(from) && text(to))
}

/// Draws a statement into a job's graph; whether its rows change later.
pub(crate) fn lower_insert(
    graph: &mut LogicalGraph,
    connectors: &dyn Connectors,
    name: &str,
    plan: &LogicalPlan,
    terms: &Terms,
    target: &Target,
) -> SqlResult<bool> {
    let mut lowering = Lowering::new(graph, connectors, name, terms);
    lowering.note_tables(plan);
    lowering.only_new = matches!(target, Target::Table(table) if takes_only_new(table));
    let rows = lowering.lower(plan)?;
    let rows = lowering.materialised(rows)?;
    lowering.check_lifetimes()?;
    let updating = rows.updating;
    match target {
        Target::Changes(sink) => lowering.sink(&rows, sink.clone(), Routing::Forward)?,
        Target::Table(table) => lowering.table_sink(rows, table)?,
    }
    Ok(updating)
}

/// Draws a query; its last node, and whether its rows change later.
pub(crate) fn lower_rows(
    graph: &mut LogicalGraph,
    connectors: &dyn Connectors,
    name: &str,
    plan: &LogicalPlan,
    terms: &Terms,
) -> SqlResult<(NodeIndex, bool)> {
    let mut lowering = Lowering::new(graph, connectors, name, terms);
    let rows = lowering.lower(plan)?;
    let rows = lowering.materialised(rows)?;
    lowering.check_lifetimes()?;
    Ok((rows.node, rows.updating))
}

/// Whether rows of a table are known by their primary key where they are written.
fn is_keyed(table: &Table) -> bool {
    let connector = table.options.connector;
    matches!(connector, Connector::UpsertKafka | Connector::Kafka | Connector::Local | Connector::Topics) && !table.primary_key.is_empty()
}

/// Whether the new row of an update says all: it takes the old one's place by itself, or there is no place.
fn takes_only_new(table: &Table) -> bool {
    table.options.connector == Connector::Blackhole || is_keyed(table) && table.debezium().is_none()
}

impl Lowering<'_> {
    fn table_sink(&mut self, mut rows: Lowered, table: &Arc<Table>) -> SqlResult<()> {
        let (connector, keyed) = (table.options.connector, is_keyed(table));
        if connector == Connector::UpsertKafka && !keyed {
            return Err(SqlError::new(format!("table \"{}\": 'upsert-kafka' needs a PRIMARY KEY", table.name))
                .help("PRIMARY KEY (id) NOT ENFORCED"));
        }
        let by_time = table.options.get("sink.partition-commit.policy.kind").is_some()
            && table.options.get("sink.partition-commit.trigger") == Some("partition-time");
        if by_time && !self.has_event_time(rows.node) {
            return Err(SqlError::new(format!(
                "table \"{}\": its folders are complete when event time has passed them, and no row has an event time",
                table.name
            ))
            .help("a WATERMARK on the table that is read, or 'sink.partition-commit.trigger' = 'process-time'"));
        }
        let takes_changes = matches!(connector, Connector::Print | Connector::Blackhole) || keyed;
        if rows.updating && !takes_changes {
            return Err(SqlError::unsupported(
                &format!("writing changes to table \"{}\"", table.name),
                &format!("the query's rows change later, and '{}' only appends", connector.name()),
                "a table with a PRIMARY KEY ('upsert-kafka'), or an aggregate over a window",
            ));
        }
        if keyed {
            self.check_key(&rows, table)?;
        }
        if table.options.get("debezium-json.schema-include") == Some("true") {
            return Err(SqlError::unsupported(
                "writing 'debezium-json.schema-include'",
                "changes are written without a schema",
                "leave it out",
            ));
        }
        let sink = self.connectors.sink(table).map_err(|e| SqlError::new(e.report()))?;
        let mut routing = Routing::Forward;
        if keyed && !rows.updating {
            // Rows of a key from one task, in the order of their arrival.
            let keys = key_columns(Arc::new(ColumnKeys(table.written_key())));
            rows.node = self.add("key_by", keys, &[(rows.node, Routing::Forward)], NodeNote { glue: true, ..NodeNote::default() });
            routing = Routing::KeyGroup;
        }
        let records = match table.options.format() {
            Some("parquet") => Some(into_folders(Arc::new(Columns::of(table)?))),
            _ => Encoding::of(table, keyed && table.debezium().is_none())?.map(|encoding| encode(Arc::new(encoding))),
        };
        if let Some(records) = records {
            let note = NodeNote { glue: true, ..NodeNote::default() };
            rows.node = self.add("encode", records, &[(rows.node, routing)], note);
            routing = Routing::Forward;
        }
        if table.options.follows_progress() {
            let note = NodeNote { glue: true, ..NodeNote::default() };
            rows.node = self.add("progress", note_progress(), &[(rows.node, routing)], note);
        }
        self.sink(&rows, sink, routing)
    }

    /// Whether a source of these rows has a watermark.
    fn has_event_time(&self, node: NodeIndex) -> bool {
        let node = self.graph.node(node);
        match &node.role {
            Role::Source(source) => source.watermarks.is_some(),
            _ => node.inputs.iter().any(|input| self.has_event_time(input.from)),
        }
    }

    fn check_key(&self, rows: &Lowered, table: &Table) -> SqlResult<()> {
        let written = table.written();
        let names = |columns: &[usize]| {
            columns.iter().filter_map(|&i| Some(table.schema.field(*written.get(i)?).name().as_str())).collect::<Vec<_>>().join(", ")
        };
        for &i in &table.primary_key {
            super::check_ordered(table.schema.field(i).data_type(), &format!("the PRIMARY KEY column {}", table.schema.field(i).name()))?;
        }
        if !rows.updating {
            return Ok(());
        }
        let mut wanted = table.written_key();
        wanted.sort_unstable();
        let mut known = rows.key.clone().unwrap_or_default();
        known.sort_unstable();
        if wanted == known {
            return Ok(());
        }
        let known = if known.is_empty() { "no column".into() } else { names(&known) };
        Err(SqlError::new(format!(
            "the PRIMARY KEY of \"{}\" is ({}), but the query's rows are known by {known}",
            table.name,
            names(&wanted)
        ))
        .help("declare the columns of the query's GROUP BY as PRIMARY KEY, and select them all"))
    }

    fn sink(&mut self, rows: &Lowered, sink: SinkRef, routing: Routing) -> SqlResult<()> {
        let mut node = LogicalNode::new("sink", Role::Sink(sink), vec![Input { from: rows.node, port: 0, routing }]);
        node.id = Some(self.name.clone());
        node.subject = Some(self.name.clone());
        self.graph.add(node);
        Ok(())
    }
}
