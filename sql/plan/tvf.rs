//! Window table functions: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))`, `HOP`, `CUMULATE`, `SESSION`.
//!
//! The node adds window_start, window_end and window_time to the columns of its input. A table factor with anything in it that
//! DataFusion would leave out without a word is refused here.
//!
//! Invariant: sizes are whole milliseconds above 0; nothing is pushed below the node but projections.

use super::zones::Zone;
use super::{bags, lateral, pattern, sugar, unnest, versions};
use crate::error::{SqlError, SqlResult};
use crate::own::TableFunction;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion_common::{DFSchema, DFSchemaRef, Result as PlanResult};
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, ExprSchemable, Extension, LogicalPlan};
use datafusion_sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SetExpr, Spanned, TableAlias, TableFactor,
    TableFunctionArgs, Value,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which windows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) enum WindowKind {
    /// Of one length, side by side or overlapping: TUMBLE, HOP.
    Sliding,
    /// Growing in steps up to their length, then beginning anew: CUMULATE.
    Cumulative,
    /// As long as rows of a key come without a pause: SESSION.
    Session,
}

/// How event time is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct Windows {
    pub(crate) kind: WindowKind,
    /// Length of a window, in milliseconds; of a session, the pause that ends it.
    pub(crate) size_ms: i64,
    /// A window begins, or is a step longer, every so many milliseconds; the size, where they do not overlap.
    pub(crate) slide_ms: i64,
    /// Where the first one of 1970 begins.
    pub(crate) offset_ms: i64,
    /// Over the time of the clock, not of the rows.
    pub(crate) of_clock: bool,
    /// The bounds are shown as on this zone's clock; none = as in UTC.
    pub(crate) zone: Option<Zone>,
    /// Cut by the zone's clock, which makes some of them longer and shorter; else by time itself.
    pub(crate) by_zone: bool,
}

impl Windows {
    /// The zone whose clock cuts them, if it is not time itself.
    pub(crate) fn cut_by(&self) -> Option<Zone> {
        self.zone.filter(|_| self.by_zone)
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            WindowKind::Session => return write!(f, "SESSION until a pause of {} ms", self.size_ms),
            WindowKind::Cumulative => "CUMULATE",
            WindowKind::Sliding if self.size_ms == self.slide_ms => "TUMBLE",
            WindowKind::Sliding => "HOP",
        };
        write!(f, "{name} {} ms every {} ms", self.size_ms, self.slide_ms)?;
        self.cut_by().map_or(Ok(()), |zone| write!(f, " on the clock of {zone}"))
    }
}

/// The node.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowTvf {
    input: LogicalPlan,
    /// The column with the event time.
    pub(crate) time: Expr,
    /// The columns that sessions are by.
    pub(crate) partition: Vec<Expr>,
    pub(crate) windows: Windows,
    schema: DFSchemaRef,
}

impl WindowTvf {
    pub(crate) fn new(input: LogicalPlan, time: Expr, partition: Vec<Expr>, windows: Windows) -> PlanResult<Self> {
        let (_, kind) = time.to_field(input.schema())?;
        let stamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        let mut fields: Vec<_> = input.schema().iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        for (name, kind) in [("window_start", stamp.clone()), ("window_end", stamp), ("window_time", kind.data_type().clone())] {
            fields.push((None, Arc::new(Field::new(name, kind, false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(WindowTvf { input, time, partition, windows, schema })
    }

    pub(crate) fn input(&self) -> &LogicalPlan {
        &self.input
    }
}

impl PartialOrd for WindowTvf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.windows.partial_cmp(&other.windows) {
            Some(Ordering::Equal) => self.input.partial_cmp(&other.input),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowTvf {
    fn name(&self) -> &str {
        "Windows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.partition).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Windows: {} over {}", self.windows, self.time)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        let mut exprs = exprs.into_iter();
        let (Some(time), Some(input)) = (exprs.next(), inputs.into_iter().next()) else {
            return Err(datafusion_common::DataFusionError::Internal("a window function has one input and one column".into()));
        };
        WindowTvf::new(input, time, exprs.collect(), self.windows)
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let columns = self.input.schema().fields().len();
        let own = self.expressions().into_iter().map(|e| match &e {
            Expr::Column(column) => self.input.schema().index_of_column(column).ok(),
            _ => None,
        });
        let own = own.collect::<Option<Vec<usize>>>()?;
        let mut needed: Vec<usize> = output.iter().copied().filter(|i| *i < columns).chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// Plans table factors that DataFusion does not know, or would misread.
#[derive(Debug, Default)]
pub(super) struct TablePlanner {
    /// The user's table functions.
    pub(super) functions: BTreeMap<String, TableFunction>,
    /// Of the session.
    pub(super) zone: Option<Zone>,
}

impl RelationPlanner for TablePlanner {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> PlanResult<RelationPlanning> {
        let span = relation.span();
        let planned = |plan: LogicalPlan, alias| Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))));
        let relation = called(relation);
        match relation {
            TableFactor::TableFunction { expr: SqlExpr::Function(function), alias } => {
                if self.functions.contains_key(&function.name.to_string().to_lowercase()) {
                    return Err(lateral::missing(&function).at(name_span(&function)).into_planner());
                }
                let (plan, alias) = function_plan(&function, alias, context, self.zone).map_err(|e| e.or_at(Some(span)).into_planner())?;
                planned(plan, alias)
            }
            TableFactor::Function { lateral: true, name, args, with_ordinality, alias } => {
                let call = lateral::Lateral { name, args, alias, with_place: with_ordinality };
                let plan = call.plan(&self.functions, context).map_err(|e| e.or_at(Some(span)).into_planner())?;
                planned(plan, None)
            }
            TableFactor::Table {
                version: Some(version),
                alias,
                name,
                args: None,
                with_hints,
                sample: None,
                with_ordinality: false,
                partitions,
                json_path,
                index_hints,
            } => {
                let table = TableFactor::Table {
                    name,
                    alias: None,
                    args: None,
                    with_hints,
                    version: None,
                    with_ordinality: false,
                    partitions,
                    json_path,
                    sample: None,
                    index_hints,
                };
                let table = context.plan(table)?;
                let plan = versions::versions(table, &version).map_err(|e| e.or_at(Some(span)).into_planner())?;
                planned(plan, alias)
            }
            TableFactor::Table { ref name, ref version, ref sample, with_ordinality, ref with_hints, ref partitions, ref args, .. } => {
                let lost = match () {
                    () if version.is_some() => Some(("FOR SYSTEM_TIME AS OF beside other words", "it is a table's alone")),
                    () if sample.is_some() => Some(("TABLESAMPLE", "a sample of a stream is not defined")),
                    () if with_ordinality => Some(("WITH ORDINALITY", "rows of a stream have no number")),
                    () if !with_hints.is_empty() || !partitions.is_empty() => {
                        Some(("this form of a table", "it is not of Flink's dialect"))
                    }
                    () if args.is_some() => Some(("this call of a table function", "it is not of Flink's dialect")),
                    () => None,
                };
                match lost {
                    Some((what, why)) => {
                        let instead = if args.is_some() { format!("TABLE({name}(...))") } else { String::new() };
                        Err(SqlError::unsupported(what, why, &instead).at(span).into_planner())
                    }
                    None => Ok(RelationPlanning::Original(Box::new(relation))),
                }
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_offset_alias: None, with_ordinality } => {
                let plan =
                    unnest::elements(array_exprs, alias, with_ordinality, context).map_err(|e| e.or_at(Some(span)).into_planner())?;
                planned(plan, None)
            }
            TableFactor::UNNEST { .. } => {
                let (what, instead) = ("UNNEST WITH OFFSET", "WITH ORDINALITY");
                Err(SqlError::unsupported(what, "it is not of Flink's dialect", instead).at(span).into_planner())
            }
            TableFactor::MatchRecognize { .. } => {
                let (plan, alias) = pattern::recognize(relation, context, self.zone).map_err(|e| e.or_at(Some(span)).into_planner())?;
                planned(plan, alias)
            }
            TableFactor::TableFunction { .. } => {
                Err(SqlError::unsupported("this table function", "TUMBLE, HOP, CUMULATE and SESSION are known", "").at(span).into_planner())
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// `TUMBLE(..)` is `TABLE(TUMBLE(..))`.
fn called(relation: TableFactor) -> TableFactor {
    match relation {
        TableFactor::Table {
            name,
            alias,
            args: Some(TableFunctionArgs { args, settings: None }),
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
            TableFactor::TableFunction { expr: SqlExpr::Function(sugar::call_with(name, args)), alias }
        }
        other => other,
    }
}

/// What a window function is called with, by position or by name.
#[derive(Default)]
struct Arguments {
    data: Option<SqlExpr>,
    time: Option<SqlExpr>,
    spans: Vec<SqlExpr>,
    size: Option<SqlExpr>,
    slide: Option<SqlExpr>,
    offset: Option<SqlExpr>,
}

fn function_plan(
    function: &Function,
    alias: Option<TableAlias>,
    context: &mut dyn RelationPlannerContext,
    zone: Option<Zone>,
) -> SqlResult<(LogicalPlan, Option<TableAlias>)> {
    if let Some(plan) = bags::plan(function, context)? {
        return Ok((plan, alias));
    }
    let name = function.name.to_string().to_uppercase();
    let usage = match name.as_str() {
        "TUMBLE" => "TUMBLE(TABLE t, DESCRIPTOR(ts), size [, offset])",
        "HOP" => "HOP(TABLE t, DESCRIPTOR(ts), slide, size [, offset])",
        "CUMULATE" => "CUMULATE(TABLE t, DESCRIPTOR(ts), step, size [, offset])",
        "SESSION" => "SESSION(TABLE t [PARTITION BY key], DESCRIPTOR(ts), gap)",
        _ => {
            let why = "no such table function is known";
            return Err(SqlError::unsupported(&format!("{name}(...)"), why, "TUMBLE, HOP, CUMULATE or SESSION").at(name_span(function)));
        }
    };
    let mut arguments = arguments(function)?;
    let wrong = || SqlError::new(format!("{name} is called otherwise")).at(name_span(function)).help(usage);
    let Some(SqlExpr::Subquery(mut data)) = arguments.data.take() else { return Err(wrong()) };
    let partition = partition_of(&mut data);
    if name != "SESSION" && !partition.is_empty() {
        return Err(SqlError::unsupported(&format!("PARTITION BY in {name}"), "its windows are the same for all keys", "GROUP BY")
            .at(name_span(function)));
    }
    let windows = windows(&name, &mut arguments, &wrong).map_err(|e| e.or_at(Some(name_span(function))))?;
    let input = TableFactor::Derived { lateral: false, subquery: data, alias: None, sample: None };
    let input = context.plan(input).map_err(SqlError::of_planner)?;
    let mut column = |e: SqlExpr| {
        let span = e.span();
        let expr = context.sql_to_expr(e, input.schema()).map_err(|e| SqlError::of_planner(e).or_at(Some(span)))?;
        if matches!(expr, Expr::Column(_)) { Ok(expr) } else { Err(wrong()) }
    };
    let time = column(arguments.time.ok_or_else(wrong)?)?;
    let partition = partition.into_iter().map(&mut column).collect::<SqlResult<Vec<_>>>()?;
    let kind = time.get_type(input.schema()).map_err(SqlError::of_planner)?;
    let windows = Zone::windows(zone, windows, &kind);
    let node = WindowTvf::new(input, time, partition, windows).map_err(SqlError::of_planner)?;
    Ok((LogicalPlan::Extension(Extension { node: Arc::new(node) }), alias))
}

/// The columns of PARTITION BY, which the dialect has put into CLUSTER BY.
fn partition_of(data: &mut Query) -> Vec<SqlExpr> {
    match &mut *data.body {
        SetExpr::Select(select) => std::mem::take(&mut select.cluster_by),
        _ => Vec::new(),
    }
}

/// The windows that a function's spans of time make.
fn windows(name: &str, arguments: &mut Arguments, wrong: &dyn Fn() -> SqlError) -> SqlResult<Windows> {
    let span_ms = |e: &SqlExpr| {
        interval_ms(e).ok_or_else(|| SqlError::new(format!("{e} is no fixed span of time")).at(e.span()).help("INTERVAL '10' MINUTE"))
    };
    let mut spans = std::mem::take(&mut arguments.spans).into_iter();
    let two = matches!(name, "HOP" | "CUMULATE");
    let slide = if two { arguments.slide.take().or_else(|| spans.next()) } else { None };
    let size = arguments.size.take().or_else(|| spans.next());
    let offset = if name == "SESSION" { None } else { arguments.offset.take().or_else(|| spans.next()) };
    if spans.next().is_some() || arguments.slide.is_some() || arguments.offset.is_some() {
        return Err(wrong());
    }
    let size_ms = span_ms(&size.ok_or_else(wrong)?)?;
    let slide_ms = if two { span_ms(&slide.ok_or_else(wrong)?)? } else { size_ms };
    let offset_ms = offset.as_ref().map(span_ms).transpose()?.unwrap_or(0);
    let kind = match name {
        "CUMULATE" => WindowKind::Cumulative,
        "SESSION" => WindowKind::Session,
        _ => WindowKind::Sliding,
    };
    if size_ms <= 0 || slide_ms <= 0 || size_ms % slide_ms != 0 {
        return Err(SqlError::new(format!(
            "windows of {size_ms} ms every {slide_ms} ms: the size must be a multiple of the slide, both above 0"
        )));
    }
    Ok(Windows { kind, size_ms, slide_ms, offset_ms, of_clock: false, zone: None, by_zone: false })
}

fn arguments(function: &Function) -> SqlResult<Arguments> {
    let wrong = || SqlError::new(format!("{function} cannot be read")).at(name_span(function));
    let FunctionArguments::List(list) = &function.args else { return Err(wrong()) };
    let mut arguments = Arguments::default();
    for arg in &list.args {
        let (name, arg) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => (String::new(), e.clone()),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), .. } => (name.value.to_uppercase(), e.clone()),
            FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(e), .. } => (name.to_string().to_uppercase(), e.clone()),
            _ => return Err(wrong()),
        };
        let descriptor = descriptor(&arg);
        match (name.as_str(), descriptor) {
            ("TIMECOL", Some(column)) => arguments.time = Some(column),
            ("DATA", _) => arguments.data = Some(arg),
            ("SIZE" | "GAP", _) => arguments.size = Some(arg),
            ("SLIDE" | "STEP", _) => arguments.slide = Some(arg),
            ("OFFSET", _) => arguments.offset = Some(arg),
            ("", Some(column)) if arguments.time.is_none() => arguments.time = Some(column),
            ("", None) if matches!(arg, SqlExpr::Subquery(_)) && arguments.data.is_none() => arguments.data = Some(arg),
            ("", None) => arguments.spans.push(arg),
            _ => return Err(wrong()),
        }
    }
    Ok(arguments)
}

/// Where the function's name stands.
pub(super) fn name_span(function: &Function) -> Span {
    function.name.0.first().map_or_else(|| function.span(), Spanned::span)
}

/// The column of `DESCRIPTOR(column)`.
fn descriptor(expr: &SqlExpr) -> Option<SqlExpr> {
    let SqlExpr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    match (function.name.to_string().eq_ignore_ascii_case("DESCRIPTOR"), list.args.as_slice()) {
        (true, [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))]) => Some(column.clone()),
        _ => None,
    }
}

/// Milliseconds of `INTERVAL '5' SECOND`; none for what has no fixed length or is written otherwise.
pub(crate) fn interval_ms(expr: &SqlExpr) -> Option<i64> {
    let SqlExpr::Interval(interval) = expr else { return None };
    if interval.last_field.is_some() || interval.leading_precision.is_some() || interval.fractional_seconds_precision.is_some() {
        return None;
    }
    let SqlExpr::Value(value) = &*interval.value else { return None };
    let text = match &value.value {
        Value::SingleQuotedString(text) | Value::Number(text, _) => text.trim().to_string(),
        _ => return None,
    };
    let unit = interval.leading_field.as_ref()?.to_string().to_uppercase();
    let unit_ms = match unit.trim_end_matches('S') {
        "MILLISECOND" => 1,
        "SECOND" => 1_000,
        "MINUTE" => 60_000,
        "HOUR" => 3_600_000,
        "DAY" => 86_400_000,
        "WEEK" => 604_800_000,
        _ => return None,
    };
    if let Ok(whole) = text.parse::<i64>() {
        return whole.checked_mul(unit_ms);
    }
    // `'0.5' SECOND`: only where it is whole milliseconds.
    let (whole, fraction) = text.split_once('.')?;
    if unit_ms != 1_000
        || fraction.is_empty()
        || fraction.len() > 3
        || !fraction.bytes().all(|b| b.is_ascii_digit())
        || whole.starts_with('-')
    {
        return None;
    }
    let thousandths: i64 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(thousandths)
}
