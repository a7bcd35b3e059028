//! MATCH_RECOGNIZE: rows of a key in the order of event time, through the engine's patterns.
//!
//! Rows are packed, sorted by event time and then by what ORDER BY names besides; the pattern gives what MEASURES read of each
//! match, and expressions over that are computed behind it.
//!
//! Invariant: rows are looked at once the watermark has reached them; a match is one row that is never taken back.

use super::aggregate::{argument, call_of, check_result, name_of, separator};
use super::{Lowered, Lowering, Place, arrow_schema, calc, check_class, check_ordered, column_of, physical};
use crate::error::{SqlError, SqlResult};
use crate::kernels::aggregate::{Argument, Call, Calls};
use crate::kernels::keys::{ColumnKeys, KeyBytes};
use crate::kernels::packed::Packed;
use crate::kernels::pattern::{Define, FromMatches, PackedRow, Read, Reads, Tally, ToPacked};
use crate::kernels::ranked::{OrderColumn, order_of_packed};
use crate::kernels::value::Value;
use crate::plan::{Clause, Formula, PatternMatch, Reading, What, column_name, schema_of};
use arrow::datatypes::{Field, Schema};
use datafusion_common::DFSchema;
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use datafusion_expr::{Expr, ExprSchemable};
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::graph::{Bound, EqualityClass, NodeIndex, NodeNote, Routing, StateNote};
use waterwheel_engine::observe::human_duration;
use waterwheel_engine::operators::{Match, OperatorFactory, Pattern, key_columns, sort_by_time, try_detect};

impl Lowering<'_> {
    pub(super) fn pattern(&mut self, node: &PatternMatch) -> SqlResult<Lowered> {
        let clause = node.clause().clone();
        let input = self.lower(node.input())?;
        let input = self.materialised(input)?;
        if input.updating {
            return Err(SqlError::unsupported(
                "MATCH_RECOGNIZE over rows that change",
                "a match that has come out is never taken back",
                "a table or view whose rows only come",
            ));
        }
        let input = self.in_time(input, node, &clause)?;
        // The columns that are looked at, by their places.
        let from = input.batch_schema()?;
        let mut fields = Vec::with_capacity(node.columns().len());
        for (place, column) in node.columns().iter().enumerate() {
            fields.push(Field::new(column_name(place), column.get_type(&from).map_err(SqlError::of_planner)?, true));
        }
        let schema = Arc::new(Schema::new(fields));
        for (column, field) in node.columns().iter().zip(schema.fields()).take(clause.partition) {
            check_class(field.data_type(), &format!("PARTITION BY {column}"))?;
        }
        let packed = Packed::of(&schema, false).map_err(|column| {
            SqlError::unsupported(&format!("MATCH_RECOGNIZE over the column {column}"), "its type cannot be kept", "leave it out")
        })?;
        let packed = Arc::new(packed);
        let rows = self.calc(&input, None, Some(node.columns()), schema.clone(), "project")?;
        let rows = self.in_order(rows, node, &clause, &packed)?;
        let over = DFSchema::try_from(schema).map_err(SqlError::of_planner)?;
        let reads = reads(&clause.readings, &over, &packed)?;
        let node_of_matches = self.matches(rows, &clause, &reads, &over)?;
        let of_matches = schema_of(&clause.readings)?;
        let results = arrow_schema(node.schema());
        let measured = calc(&of_matches, None, Some(&clause.results), results)?;
        let measured = self.add_calc(node_of_matches, measured, "project");
        let mut lowered = Lowered::plain(measured, node.schema().clone(), false);
        // A match that may wait without end has no time that a watermark could go by.
        if clause.within_ms.is_some() || clause.has_one_length() {
            let is_time = |expr: &Expr| column_of(expr, &of_matches).is_some_and(|i| clause.readings[i].what == What::Time);
            lowered.rowtimes = (0..clause.results.len()).filter(|&i| is_time(&clause.results[i])).collect();
        }
        Ok(lowered)
    }

    /// The input with the event time that ORDER BY begins with.
    fn in_time(&mut self, input: Lowered, node: &PatternMatch, clause: &Clause) -> SqlResult<Lowered> {
        let time = clause.order.first().map(|by| &node.columns()[by.column]);
        let column = time.and_then(|time| column_of(time, &input.schema));
        if let Some(column) = column.filter(|&column| input.is_rowtime(column) && matches!(input.places[column], Place::Batch(_))) {
            return self.timed_by(input, column);
        }
        let name = column.map_or(String::new(), |column| input.schema.field(column).name().clone());
        let what =
            format!("{name:?} is no event time: the rows of MATCH_RECOGNIZE are in the order of the column that WATERMARK FOR names");
        Err(SqlError::new(what).help(format!("declare it:  WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND")))
    }

    /// Packed rows of each key in the order of event time.
    fn in_order(&mut self, rows: NodeIndex, node: &PatternMatch, clause: &Clause, packed: &Arc<Packed>) -> SqlResult<NodeIndex> {
        let glue = || NodeNote { glue: true, ..NodeNote::default() };
        let kernel = Arc::new(ColumnKeys((0..clause.partition).collect()));
        let keyed = self.add("key_by", key_columns(kernel), &[(rows, Routing::Forward)], glue());
        let of_rows = packed.clone();
        let rows: OperatorFactory = Arc::new(move || Box::new(ToPacked(of_rows.clone())));
        let rows = self.add("rows", rows, &[(keyed, Routing::KeyGroup)], glue());
        let mut ties = Vec::with_capacity(clause.order.len());
        for by in clause.order.iter().skip(1) {
            check_ordered(packed.kind(by.column), &format!("ORDER BY {}", node.columns()[by.column]))?;
            ties.push(OrderColumn { column: by.column, descending: !by.ascending, nulls_first: by.nulls_first });
        }
        let mut class = vec![(EqualityClass::TimeDependent, "late rows".to_string())];
        if ties.is_empty() {
            class.push((EqualityClass::TimeDependent, "arrival order of rows of one time".to_string()));
        }
        let packed = packed.clone();
        let tie = move |row: &PackedRow| {
            let mut bytes = Vec::new();
            let ordered = order_of_packed(&ties, &packed, row, &mut bytes);
            ordered.unwrap_or_else(|e| unreachable!("a row that was just packed: {e}"));
            KeyBytes::new(&bytes)
        };
        let note = NodeNote {
            detail: "by event time".into(),
            state: vec![StateNote { what: "rows ahead of the watermark".into(), bound: Bound::Watermark }],
            class,
            glue: false,
        };
        Ok(self.add("sort", sort_by_time::<KeyBytes, PackedRow, KeyBytes>(tie), &[(rows, Routing::Forward)], note))
    }

    /// What results read of each match, as columns.
    fn matches(&mut self, rows: NodeIndex, clause: &Clause, reads: &Reads, over: &DFSchema) -> SqlResult<NodeIndex> {
        let pattern = pattern(clause, over, &reads.packed)?;
        pattern.check().map_err(|e| SqlError::new(e.report()))?;
        let of_match = reads.clone();
        let select = move |found: &Match<'_, PackedRow>| of_match.of_match(found);
        let factory = try_detect::<KeyBytes, PackedRow, Vec<Value>, ()>(&pattern, select, |_| Ok(()));
        let within =
            clause.within_ms.map_or(String::new(), |ms| format!(" within {}", human_duration(Duration::from_millis(ms.unsigned_abs()))));
        let bound = if clause.within_ms.is_some() { Bound::Watermark } else { Bound::Unbounded };
        let note = NodeNote {
            detail: format!("{}{within}", clause.pattern),
            state: vec![StateNote { what: "partial matches and their rows".into(), bound }],
            ..NodeNote::default()
        };
        let found = self.add("pattern", factory, &[(rows, Routing::Forward)], note);
        let (schema, times) = (reads.schema.clone(), reads.times());
        let results: OperatorFactory = Arc::new(move || Box::new(FromMatches { schema: schema.clone(), times: times.clone() }));
        Ok(self.add("results", results, &[(found, Routing::Forward)], NodeNote { glue: true, ..NodeNote::default() }))
    }
}

/// The engine's pattern.
fn pattern(clause: &Clause, over: &DFSchema, packed: &Arc<Packed>) -> SqlResult<Pattern<PackedRow>> {
    let mut pattern: Option<Pattern<PackedRow>> = None;
    for (step, define) in &clause.steps {
        let define = define.as_ref().map(|formula| condition(&step.name.value, formula, over, packed)).transpose()?;
        let fits = move |row: &PackedRow, taken: &Match<'_, PackedRow>| define.as_ref().map_or(Ok(true), |define| define.holds(row, taken));
        let mut with = match pattern {
            None => Pattern::begin(&step.name.value, fits),
            Some(before) => before.next(&step.name.value, fits),
        };
        with = match step.max {
            Some(max) => with.times_between(step.min, max),
            None => with.times_or_more(step.min),
        };
        with = with.consecutive();
        if step.optional {
            with = with.optional();
        }
        if step.greedy {
            with = with.greedy();
        }
        pattern = Some(with);
    }
    let pattern = pattern.ok_or_else(|| SqlError::new("a PATTERN without variables"))?;
    let pattern =
        pattern.after_match(clause.skip.clone()).earliest_start_first().meaning(format!("{}: {}", clause.text, packed.describe()));
    Ok(match clause.within_ms {
        // The engine's time ends before it, Flink's with it.
        Some(ms) => pattern.within(Duration::from_millis(ms.unsigned_abs() + 1)),
        None => pattern,
    })
}

fn condition(variable: &str, formula: &Formula, over: &DFSchema, packed: &Arc<Packed>) -> SqlResult<Define> {
    let reads = reads(&formula.readings, over, packed)?;
    let condition = physical(&formula.expr, &schema_of(&formula.readings)?)?;
    Ok(Define { variable: variable.to_string(), reads, condition })
}

/// How readings are read of packed rows.
fn reads(readings: &[Reading], over: &DFSchema, packed: &Arc<Packed>) -> SqlResult<Reads> {
    let mut tallies: Vec<(Option<String>, Vec<CallOf<'_>>)> = Vec::new();
    let mut reads = Vec::with_capacity(readings.len());
    for reading in readings {
        check_class(&reading.kind, &reading.name)?;
        reads.push(match &reading.what {
            What::Time => Read::Time,
            What::Row { first, offset, column } => {
                Read::Row { variable: reading.variable.clone(), first: *first, offset: *offset, column: *column }
            }
            What::Aggregate(call) => {
                let tally = tallies.iter().position(|(variable, _)| *variable == reading.variable).unwrap_or_else(|| {
                    tallies.push((reading.variable.clone(), Vec::new()));
                    tallies.len() - 1
                });
                tallies[tally].1.push((call.clone(), reading));
                Read::Call(tally, tallies[tally].1.len() - 1)
            }
        });
    }
    let tallies = tallies.into_iter().map(|(variable, calls)| tally(variable, &calls, over)).collect::<SqlResult<_>>()?;
    Ok(Reads { packed: packed.clone(), reads, tallies, schema: arrow_schema(&schema_of(readings)?) })
}

/// An aggregate, and the reading that it is.
type CallOf<'r> = (Expr, &'r Reading);

/// Aggregates of the rows of one variable.
fn tally(variable: Option<String>, calls: &[CallOf<'_>], over: &DFSchema) -> SqlResult<Tally> {
    let of = |column: &datafusion_common::Column| over.index_of_column(column).map_err(SqlError::of_planner);
    let mut columns = calls.iter().flat_map(|(call, _)| call.column_refs()).map(of).collect::<SqlResult<Vec<_>>>()?;
    columns.sort_unstable();
    columns.dedup();
    let fields: Vec<Field> = columns.iter().map(|&i| over.field(i).as_ref().clone()).collect();
    let schema = Arc::new(Schema::new(fields));
    let over = DFSchema::try_from(schema.clone()).map_err(SqlError::of_planner)?;
    let mut of_tally = Vec::with_capacity(calls.len());
    for (i, (call, reading)) in calls.iter().enumerate() {
        let function = call_of(call)?;
        super::own::check_pattern(function)?;
        let name = name_of(function)?;
        let argument = match argument(function)? {
            None => None,
            Some(argument) => {
                let kind = argument.get_type(&over).map_err(SqlError::of_planner)?;
                let class = check_class(&kind, &reading.name)?;
                // Each argument is for itself.
                Some(Argument { expr: physical(argument, &over)?, kind, class, column: i })
            }
        };
        check_result(name, argument.as_ref(), &reading.kind)?;
        let filter = function.params.filter.as_deref().map(|filter| physical(filter, &over)).transpose()?;
        let (distinct, separator, output) = (function.params.distinct, separator(function)?, reading.kind.clone());
        of_tally.push(Call { function: name, argument, own: None, filter, distinct, retracting: false, separator, output });
    }
    Ok(Tally { variable, calls: Calls::new(of_tally), columns, schema })
}
