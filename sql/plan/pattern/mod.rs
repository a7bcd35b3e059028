//! MATCH_RECOGNIZE: patterns of rows in the order of event time, as Flink has them.
//!
//! `steps` reads PATTERN, `reading` takes apart what DEFINE and MEASURES ask of the rows of a match; the node holds both.
//!
//! Invariant: the node's columns are those of PARTITION BY, then MEASURES; nothing is pushed below it but projections.

mod reading;
mod steps;

pub(crate) use reading::{Reading, What, column_name, schema_of};
pub(crate) use steps::PatternStep;

use super::interval_ms;
use super::zones::Zone;
use crate::error::{SqlError, SqlResult};
use crate::parser::WITHIN;
use arrow::datatypes::{DataType, Field};
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, Result as PlanResult};
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use datafusion_expr::planner::RelationPlannerContext;
use datafusion_expr::{Expr, ExprSchemable, Extension, LogicalPlan, cast};
use datafusion_sql::sqlparser::ast::{
    Expr as SqlExpr, MatchRecognizePattern, Measure, OrderByExpr, RowsPerMatch, Spanned, SymbolDefinition, TableAlias, TableFactor,
};
use reading::Reader;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use waterwheel_engine::operators::AfterMatch;

/// One column of ORDER BY.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderBy {
    /// Its place among the node's columns.
    pub(crate) column: usize,
    pub(crate) ascending: bool,
    pub(crate) nulls_first: bool,
}

/// An expression over readings.
#[derive(Debug, Clone)]
pub(crate) struct Formula {
    pub(crate) readings: Vec<Reading>,
    pub(crate) expr: Expr,
}

/// All that the clause says.
#[derive(Debug)]
pub(crate) struct Clause {
    /// As it is written, which says all of it.
    pub(crate) text: String,
    pub(crate) pattern: String,
    /// The first columns are those of PARTITION BY.
    pub(crate) partition: usize,
    /// The first one is the event time.
    pub(crate) order: Vec<OrderBy>,
    /// Each with its condition, if it has one.
    pub(crate) steps: Vec<(PatternStep, Option<Formula>)>,
    pub(crate) skip: AfterMatch,
    pub(crate) within_ms: Option<i64>,
    /// What the results are computed of, the columns of PARTITION BY first.
    pub(crate) readings: Vec<Reading>,
    /// The columns of the results.
    pub(crate) results: Vec<Expr>,
}

impl Clause {
    /// Whether all its matches are of as many rows, so that none waits for another.
    pub(crate) fn has_one_length(&self) -> bool {
        self.steps.iter().all(|(step, _)| !step.optional && step.max == Some(step.min))
    }
}

/// The node.
#[derive(Debug, Clone)]
pub(crate) struct PatternMatch {
    input: LogicalPlan,
    /// The columns of the input that it looks at.
    columns: Vec<Expr>,
    clause: Arc<Clause>,
    schema: DFSchemaRef,
}

impl PatternMatch {
    pub(crate) fn input(&self) -> &LogicalPlan {
        &self.input
    }

    pub(crate) fn columns(&self) -> &[Expr] {
        &self.columns
    }

    pub(crate) fn clause(&self) -> &Arc<Clause> {
        &self.clause
    }

    fn parts(&self) -> (&LogicalPlan, &[Expr], &str) {
        (&self.input, &self.columns, &self.clause.text)
    }
}

impl PartialEq for PatternMatch {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for PatternMatch {}

impl Hash for PatternMatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialOrd for PatternMatch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.parts().partial_cmp(&other.parts())
    }
}

impl UserDefinedLogicalNodeCore for PatternMatch {
    fn name(&self) -> &str {
        "MatchRecognize"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.columns.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchRecognize: PATTERN ({})", self.clause.pattern)
    }

    fn with_exprs_and_inputs(&self, columns: Vec<Expr>, inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        let Some(input) = inputs.into_iter().next() else {
            return Err(DataFusionError::Internal("a pattern is of the rows of one input".into()));
        };
        Ok(PatternMatch { input, columns, ..self.clone() })
    }

    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let place = |e: &Expr| if let Expr::Column(column) = e { self.input.schema().index_of_column(column).ok() } else { None };
        let mut needed = self.columns.iter().map(place).collect::<Option<Vec<usize>>>()?;
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// The plan of a table with MATCH_RECOGNIZE behind it.
pub(super) fn recognize(
    factor: TableFactor,
    context: &mut dyn RelationPlannerContext,
    zone: Option<Zone>,
) -> SqlResult<(LogicalPlan, Option<TableAlias>)> {
    let text = factor.to_string();
    let TableFactor::MatchRecognize { table, partition_by, order_by, measures, rows_per_match, after_match_skip, pattern, symbols, alias } =
        factor
    else {
        return Err(SqlError::new(format!("{text} is no MATCH_RECOGNIZE")));
    };
    if let Some(RowsPerMatch::AllRows(_)) = rows_per_match {
        return Err(SqlError::unsupported("ALL ROWS PER MATCH", "a match is one row, as in Flink", "ONE ROW PER MATCH, with MEASURES"));
    }
    let input = context.plan(*table).map_err(SqlError::of_planner)?;
    let steps = steps::steps(&pattern)?;
    let skip = steps::skip(after_match_skip.as_ref(), &steps)?;
    let variables: Vec<String> = steps.iter().map(|step| step.name.value.clone()).collect();
    let mut reader = Reader { context, input: input.schema(), variables: &variables, columns: Vec::new(), time: None, zone };
    let partition = partition_by.len();
    for (i, column) in partition_by.into_iter().enumerate() {
        let span = column.span();
        if reader.column(column)? != i {
            return Err(SqlError::new("a column is in PARTITION BY twice").at(span));
        }
    }
    let order = order_of(order_by, &mut reader)?;
    let (within_ms, steps) = definitions(symbols, &pattern, steps, &mut reader)?;
    let (readings, results, fields) = results(measures, partition, &mut reader)?;
    let columns = reader.columns.into_iter().map(Expr::Column).collect();
    let fields = fields.into_iter().map(|field| (None, Arc::new(field))).collect();
    let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?);
    let pattern = pattern.to_string();
    let clause = Arc::new(Clause { text, pattern, partition, order, steps, skip, within_ms, readings, results });
    let node = PatternMatch { input: input.clone(), columns, clause, schema };
    Ok((LogicalPlan::Extension(Extension { node: Arc::new(node) }), alias))
}

fn order_of(order_by: Vec<OrderByExpr>, reader: &mut Reader<'_>) -> SqlResult<Vec<OrderBy>> {
    let mut order = Vec::with_capacity(order_by.len());
    for by in order_by {
        let span = by.expr.span();
        let ascending = by.options.asc.unwrap_or(true);
        if order.is_empty() && !ascending {
            let why = "rows come in the order of event time";
            return Err(SqlError::unsupported("ORDER BY .. DESC of event time", why, "ORDER BY ts").at(span));
        }
        let column = reader.column(by.expr)?;
        order.push(OrderBy { column, ascending, nulls_first: by.options.nulls_first.unwrap_or(ascending) });
    }
    match order.first() {
        Some(first) => reader.time = Some(first.column),
        None => {
            let help = "ORDER BY ts, where ts is the column of the WATERMARK";
            return Err(SqlError::new("MATCH_RECOGNIZE without ORDER BY has no pattern").help(help));
        }
    }
    Ok(order)
}

/// WITHIN, and each variable with its condition.
type Defined = (Option<i64>, Vec<(PatternStep, Option<Formula>)>);

fn definitions(
    symbols: Vec<SymbolDefinition>,
    pattern: &MatchRecognizePattern,
    steps: Vec<PatternStep>,
    reader: &mut Reader<'_>,
) -> SqlResult<Defined> {
    let mut within_ms = None;
    let mut steps: Vec<(PatternStep, Option<Formula>)> = steps.into_iter().map(|step| (step, None)).collect();
    for SymbolDefinition { symbol, definition } in symbols {
        let span = definition.span();
        if symbol.value == WITHIN {
            let ms = interval_ms(&definition).filter(|ms| *ms > 0 && *ms < i64::MAX);
            let wrong =
                || SqlError::new(format!("WITHIN {definition} is no fixed span of time")).at(span).help("WITHIN INTERVAL '10' MINUTE");
            within_ms = Some(ms.ok_or_else(wrong)?);
            continue;
        }
        let Some((_, define)) = steps.iter_mut().find(|(step, _)| step.name.value == symbol.value) else {
            let names = reader.variables.iter().map(String::as_str);
            let what = format!("{symbol} is in DEFINE, and not in PATTERN ({pattern})");
            return Err(SqlError::new(what).at(symbol.span).nearest(&symbol.value, names));
        };
        if define.is_some() {
            return Err(SqlError::new(format!("{symbol} is in DEFINE twice")).at(symbol.span));
        }
        let mut readings = Vec::new();
        let expr = reader.read(definition, false, &mut readings)?;
        let kind = expr.get_type(&schema_of(&readings)?).map_err(SqlError::of_planner)?;
        let expr = match kind {
            DataType::Boolean => expr,
            DataType::Null => cast(expr, DataType::Boolean),
            other => {
                let is = crate::parser::type_name(&other);
                return Err(SqlError::new(format!("the condition of {symbol} is {is}, not BOOLEAN")).at(span));
            }
        };
        *define = Some(Formula { readings, expr });
    }
    Ok((within_ms, steps))
}

/// Readings, expressions over them and columns of the results.
fn results(measures: Vec<Measure>, partition: usize, reader: &mut Reader<'_>) -> SqlResult<(Vec<Reading>, Vec<Expr>, Vec<Field>)> {
    let (mut readings, mut exprs, mut fields) = (Vec::new(), Vec::new(), Vec::new());
    for place in 0..partition {
        let name = reader.columns[place].name.clone();
        let expr = reader.read(SqlExpr::Identifier(name.as_str().into()), true, &mut readings)?;
        fields.push(Field::new(name, expr.get_type(&schema_of(&readings)?).map_err(SqlError::of_planner)?, true));
        exprs.push(expr);
    }
    for Measure { expr, alias } in measures {
        if fields.iter().any(|field| *field.name() == alias.value) {
            return Err(SqlError::new(format!("two columns of MATCH_RECOGNIZE are named {alias}")).at(alias.span));
        }
        let expr = reader.read(expr, true, &mut readings)?;
        fields.push(Field::new(alias.value, expr.get_type(&schema_of(&readings)?).map_err(SqlError::of_planner)?, true));
        exprs.push(expr);
    }
    if fields.is_empty() {
        return Err(SqlError::new("MATCH_RECOGNIZE has no columns").help("MEASURES LAST(A.ts) AS at"));
    }
    Ok((readings, exprs, fields))
}
