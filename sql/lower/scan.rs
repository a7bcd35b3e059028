//! A table in FROM: a source whose records become rows with event time.
//!
//! Invariant: only the columns that the query uses are read from a record, and those that they are computed from.

use super::members::Members;
use super::upserts::check_upserts;
use super::{Lowered, Lowering, arrow_schema, nullable, physical};
use crate::catalog::{Column, Given, Left, PlannedTable, Table};
use crate::csv::Csv;
use crate::debezium::Debezium;
use crate::error::{SqlError, SqlResult};
use crate::folders::FolderReading;
use crate::ingest::{Delayed, Format, Key, Reading, ingest, rejects};
use crate::kernels::calc::Calc;
use crate::options::Connector;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::{DFSchema, TableReference};
use datafusion_expr::TableScan;
use datafusion_expr::expr::Expr;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::graph::{DeadLetters, EqualityClass, LogicalNode, NodeIndex, NodeNote, ReadAs, Role, Routing, SourceNode};
use waterwheel_engine::operators::{ErrorPolicy, IngestFactory, dead_letters, late_rows};
use waterwheel_engine::time::WatermarkStrategy;

impl Lowering<'_> {
    pub(super) fn scan(&mut self, scan: &TableScan) -> SqlResult<Lowered> {
        let Some(PlannedTable(table)) = scan.source.downcast_ref::<PlannedTable>() else {
            return Err(SqlError::new(format!("{} is no table of the catalog", scan.table_name)));
        };
        if !scan.filters.is_empty() || scan.fetch.is_some() {
            return Err(SqlError::new("the planner has pushed a filter or limit into a table that takes none"));
        }
        let table = table.clone();
        if let Some(given) = &table.given {
            return self.given(scan, &table, given);
        }
        if !table.options.connector.is_source() {
            return Err(SqlError::new(format!(
                "table \"{}\" cannot be read: '{}' is only written to",
                table.name,
                table.options.connector.name()
            )));
        }
        let projection: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..table.schema.fields().len()).collect());
        let members = self.members.take().unwrap_or_default();
        match &table.left {
            Some(Left::Errors(base)) => return self.errors(&table, base, &projection, scan),
            Some(Left::Late(base)) => return self.late(base, &projection, &members, scan),
            None => {}
        }
        let by_key = table.is_by_key();
        if let Some(mut shared) = self.shared.remove(&table.name).filter(|s| s.places > 1 && !by_key && !self.read_in_first) {
            let columns: Vec<usize> = shared.columns.iter().copied().collect();
            let source = match shared.source.take() {
                Some(source) => source,
                None => self.source(&table, &columns, &shared.members, scan)?,
            };
            let taken = self.take_columns(&source, &columns, &projection);
            shared.source = Some(source);
            self.shared.insert(table.name.clone(), shared);
            let taken = taken?;
            // As the place names the table.
            let fields = taken.schema.fields().iter().map(|field| (Some(scan.table_name.clone()), field.clone())).collect();
            let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?;
            return Ok(Lowered { schema: Arc::new(schema), ..taken });
        }
        self.source(&table, &projection, &members, scan)
    }

    /// A source of some columns of a table.
    fn source(&mut self, table: &Arc<Table>, projection: &[usize], members: &Members, scan: &TableScan) -> SqlResult<Lowered> {
        let by_key = table.is_by_key();
        // What the query looks at, and what rows are known by.
        let mut read = projection.to_vec();
        if by_key {
            check_upserts(table)?;
        }
        let by_key = by_key && !self.as_versions;
        if by_key {
            read.extend(table.primary_key.iter().filter(|i| !projection.contains(i)));
        }
        let reading = Arc::new(reading(table, &read, members)?);
        let (output, columns) = (reading.output.clone(), reading.value.clone());
        let looked_at = columns_read(table, &reading);
        let node = self.read(table, ingest(reading), &columns, looked_at)?;
        // The query's columns, rows with the members that are read; then what of the key it does not look at.
        let all = read.iter().map(|&i| table.schema.field(i).clone());
        let of_types =
            |(field, read): (Field, &Arc<Field>)| (Some(scan.table_name.clone()), Arc::new(field.with_data_type(read.data_type().clone())));
        let fields = all.zip(output.fields()).map(of_types).collect();
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?;
        let is_changing = table.debezium().is_some() && !table.is_by_key();
        let mut lowered = Lowered::plain(node, Arc::new(schema), is_changing);
        if by_key {
            return self.newest(lowered, table, &read, projection.len());
        }
        if let Some(w) = table.watermark {
            lowered.rowtimes = (0..projection.len()).filter(|&i| projection[i] == w.column).collect();
        }
        Ok(lowered)
    }

    /// Records that are no rows of a table: read once more, whole, so that what the others leave out is found.
    fn errors(&mut self, table: &Arc<Table>, base: &Arc<Table>, projection: &[usize], scan: &TableScan) -> SqlResult<Lowered> {
        let all: Vec<usize> = (0..base.schema.fields().len()).collect();
        let reading = Arc::new(reading(base, &all, &Members::default())?);
        let schema = Arc::new(table.schema.project(projection).map_err(|e| SqlError::new(e.to_string()))?);
        let columns = reading.value.clone();
        let ingest = rejects(reading, projection.to_vec(), schema);
        let unstamped = Table { watermark: None, left: table.left.clone(), ..base.as_ref().clone() };
        let node = self.read(&Arc::new(unstamped), ingest, &columns, format!("records of {} that are no rows", base.name))?;
        Ok(Lowered::plain(node, scan.projected_schema.clone(), false))
    }

    /// Rows of a table that come behind the watermark.
    fn late(&mut self, base: &Arc<Table>, projection: &[usize], members: &Members, scan: &TableScan) -> SqlResult<Lowered> {
        let rows = self.source(base, projection, members, scan)?;
        let note = NodeNote {
            detail: format!("rows of {} behind the watermark", base.name),
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
            ..NodeNote::default()
        };
        // Dealt out, so that every task sees the watermark of all.
        let node = self.add("late", late_rows(), &[(rows.node, Routing::Rebalance)], note);
        Ok(Lowered { node, rowtimes: Vec::new(), ..rows })
    }

    /// The node that reads a table: these columns of its records.
    fn read(&mut self, table: &Arc<Table>, ingest: IngestFactory, columns: &SchemaRef, looked_at: String) -> SqlResult<NodeIndex> {
        let source = self.connectors.source(table, columns).map_err(|e| SqlError::new(e.report()))?;
        let policy = match table.options.get("error-policy") {
            // What is no row is what is wanted.
            _ if table.left.is_some() => ErrorPolicy::Fail,
            Some("drop") => ErrorPolicy::Drop,
            Some("dead-letter") => ErrorPolicy::DeadLetter,
            None if table.options.get("debezium-json.ignore-parse-errors") == Some("true") => ErrorPolicy::Drop,
            _ => ErrorPolicy::Fail,
        };
        let letters = || {
            let topic = format!("{}.dead-letter", table.options.get("topic").unwrap_or(&table.name));
            let sink = self.connectors.dead_letters(table, &topic).map_err(|e| SqlError::new(e.report()))?;
            Ok(DeadLetters { encode: dead_letters(topic.as_str()), sink })
        };
        let letters = (policy == ErrorPolicy::DeadLetter).then(letters).transpose()?;
        let node = SourceNode {
            connect: source,
            read_as: if self.read_in_first { ReadAs::Table } else { ReadAs::Stream },
            ingest,
            watermarks: table.watermark.map(|w| watermarks(&table.schema.fields()[w.column], w.delay_ms)),
            max_ahead_ms: None,
            in_step: None,
            policy,
            dead_letters: letters,
        };
        let mut node = LogicalNode::new("source", Role::Source(node), Vec::new());
        node.id = Some(self.id("source"));
        node.subject = Some(table.name.clone());
        node.can_reject = true;
        node.note.detail = looked_at;
        Ok(self.graph.add(node))
    }
}

impl Lowering<'_> {
    /// A stream of the job: its rows become columns.
    fn given(&mut self, scan: &TableScan, table: &Table, given: &Given) -> SqlResult<Lowered> {
        self.members = None;
        let projection: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..table.schema.fields().len()).collect());
        let time = table.watermark.map(|w| w.column);
        let mut node = LogicalNode::new("to_table", Role::Operator((given.encode)(&projection, time)), vec![given.input]);
        node.id = Some(self.id("to_table"));
        node.can_reject = true;
        node.note.detail.clone_from(&table.name);
        let mut lowered = Lowered::plain(self.graph.add(node), scan.projected_schema.clone(), given.changes);
        lowered.rowtimes = (0..projection.len()).filter(|&i| Some(projection[i]) == time).collect();
        Ok(lowered)
    }
}

/// For `explain`: which columns are read of a record, and of rows which members.
fn columns_read(table: &Table, reading: &Reading) -> String {
    let all = table.columns.iter().filter(|c| matches!(c, Column::Physical)).count();
    let in_folders = reading.folders.as_ref().map_or(String::new(), |folders| format!("; of the folders {}", folders.names().join(", ")));
    let named = |field: &Arc<Field>| match (field.data_type(), table.schema.field_with_name(field.name()).map(Field::data_type)) {
        (DataType::Struct(some), Ok(DataType::Struct(whole))) if some.len() < whole.len() => {
            format!("{}({})", field.name(), some.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", "))
        }
        _ => field.name().clone(),
    };
    let names: Vec<String> = reading.value.fields().iter().map(named).collect();
    let columns = match names.len() {
        0 => "reads no column".into(),
        n if n == all => format!("reads {}", names.join(", ")),
        n => format!("reads {n} of {all} columns: {}", names.join(", ")),
    };
    columns + &in_folders
}

fn watermarks(field: &Field, delay_ms: i64) -> WatermarkStrategy {
    let delay = waterwheel_engine::observe::human_duration(Duration::from_millis(delay_ms.unsigned_abs()));
    WatermarkStrategy::custom(format!("{}, {delay} out of order", field.name()), move || Box::new(Delayed::new(delay_ms)))
}

fn reading(table: &Table, projection: &[usize], above: &Members) -> SqlResult<Reading> {
    let format = match table.options.format() {
        None | Some("json") => Format::Json,
        Some("raw") => Format::Raw,
        Some("debezium-json") => Format::Debezium(table.debezium().unwrap_or(Debezium { in_payload: false, by_key: false })),
        Some("csv") => {
            let physical = (0..table.columns.len()).filter(|&i| matches!(table.columns[i], Column::Physical));
            let fields: Vec<Field> = physical.map(|i| table.schema.field(i).clone()).collect();
            let names = fields.iter().map(|f| f.name().clone()).collect();
            Csv::check(&Schema::new(fields))?;
            Format::Csv(Csv::of(&table.options)?, names)
        }
        Some("parquet") => Format::Parquet,
        Some(other) => {
            return Err(SqlError::unsupported(
                &format!("format '{other}'"),
                "it cannot be read into columns yet",
                "'json', 'csv', 'raw' or 'debezium-json'",
            ));
        }
    };
    let wanted: Vec<usize> = projection.iter().copied().chain(table.watermark.map(|w| w.column)).collect();
    // Which of the record's columns are needed.
    let exprs: Vec<Expr> = wanted.iter().map(|&i| column(table, i)).collect();
    let mut members = Members::default();
    exprs.iter().filter(|e| !matches!(e, Expr::Column(_))).for_each(|e| members.add(e));
    for &i in projection.iter().filter(|i| !matches!(table.columns[**i], Column::Computed(_))) {
        members.merge(&above.of(table.schema.field(i).name()));
    }
    let mut needed: Vec<&str> = exprs.iter().flat_map(|e| e.column_refs()).map(|c| c.name.as_str()).collect();
    let all_values: Vec<&str> = (0..table.columns.len())
        .filter(|&i| matches!(table.columns[i], Column::Physical))
        .map(|i| table.schema.field(i).name().as_str())
        .collect();
    if format == Format::Raw {
        if all_values.len() != 1 {
            return Err(SqlError::new(format!("format 'raw' is for a table of one column; \"{}\" has {}", table.name, all_values.len())));
        }
        needed.push(all_values[0]);
    }
    let (mut value, mut metadata, mut around, mut folders) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, column) in table.columns.iter().enumerate() {
        let field = table.schema.field(i);
        match column {
            Column::Physical if needed.contains(&field.name().as_str()) || !field.is_nullable() => value.push(members.pruned(field)),
            Column::Metadata { from, .. } if needed.contains(&field.name().as_str()) => {
                metadata.push(*from);
                around.push(field.clone());
            }
            Column::Folder if needed.contains(&field.name().as_str()) => folders.push(field.clone()),
            _ => {}
        }
    }
    let record = DFSchema::try_from(Schema::new([value.clone(), around, folders.clone()].concat())).map_err(SqlError::of_planner)?;
    let physical_exprs = exprs.iter().map(|e| physical(e, &record)).collect::<SqlResult<Vec<_>>>()?;
    let fields: Vec<Field> = wanted.iter().map(|&i| nullable(&members.pruned(table.schema.field(i)))).collect();
    let output = Arc::new(Schema::new(fields[..projection.len()].to_vec()));
    let record = arrow_schema(&record);
    let calc = Calc::new(None, Some(physical_exprs), Arc::new(Schema::new(fields)), record.clone()).map_err(SqlError::of_planner)?;
    Ok(Reading {
        format,
        value: Arc::new(Schema::new(value)),
        metadata,
        folders: FolderReading::of(table, &folders),
        record,
        calc,
        event_time: table.watermark.is_some(),
        by_key: table.is_by_key(),
        key: (table.options.connector == Connector::UpsertKafka).then(|| match (table.options.get("key.format"), &table.primary_key[..]) {
            (Some("raw"), [one]) => Key::Raw(table.schema.field(*one).name().clone()),
            _ => Key::Json,
        }),
        output,
    })
}

/// Column `i` of the table over the record's columns.
fn column(table: &Table, i: usize) -> Expr {
    match &table.columns[i] {
        Column::Computed(expr) => (**expr).clone(),
        _ => Expr::Column(datafusion_common::Column::new(None::<TableReference>, table.schema.field(i).name())),
    }
}
