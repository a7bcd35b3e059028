//! GROUP BY: by key over the whole stream, or by key and window.
//!
//! Over windows that are pending, with both their bounds in GROUP BY, rows go into the engine's slices and each window gives
//! its results once, when it fires. Over windows that have fired already (an aggregate of window results), the bounds are part
//! of the key and a window of one instant, the last of the first, brings their rows together. All else is one group a key, kept
//! up to date.
//!
//! Invariant: the columns of the result are those of the plan's node: group expressions, then calls.

use super::own::{check_changes, check_windows, own_arguments, own_call};
use super::revisions::Emission;
use super::rows::named;
use super::windows::{INSTANT, longer_ms, operator};
use super::{Fired, Lowered, Lowering, Place, Timing, arrow_schema, check_class, column_of, physical, size};
use crate::error::{SqlError, SqlResult};
use crate::kernels::aggregate::{Argument, Call, Calls, Function};
use crate::kernels::group::GroupBy;
use crate::kernels::keys::ColumnKeys;
use crate::kernels::value::Class;
use crate::kernels::window::{FromWindows, GroupColumn, ToRowRefs, WindowCalls};
use crate::maps::parts;
use crate::plan::{WindowKind, Windows, own_of};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Expr, NullTreatment};
use datafusion_expr::{Aggregate, ExprSchemable};
use std::sync::Arc;
use waterwheel_engine::graph::{Bound, EqualityClass, NodeIndex, NodeNote, Routing, StateNote};
use waterwheel_engine::operators::{Grouping, OperatorFactory, group, key_columns};

/// An aggregate's parts, on columns that were computed before it.
struct Parts {
    /// Behind the computation of keys and arguments.
    node: NodeIndex,
    /// Classes of the key's columns, which come first.
    classes: Vec<Class>,
    calls: Calls,
}

/// What a window aggregate is over.
enum Over {
    Windows(Windows),
    /// Rows of windows at the last instants of these, known by their bounds.
    Fired(Emission),
}

impl Lowering<'_> {
    /// The aggregate of a stream; no grouping sets.
    pub(super) fn aggregate(&mut self, node: &Aggregate, input: Lowered, only_new: bool) -> SqlResult<Lowered> {
        let sources: Vec<Option<usize>> = node.group_expr.iter().map(|e| column_of(e, &input.schema)).collect();
        let place = |s: &Option<usize>| s.map(|i| input.places[i]);
        let has = |wanted: Place| sources.iter().any(|s| place(s) == Some(wanted));
        if let Some(windows) = input.pending.filter(|_| has(Place::WindowStart) && has(Place::WindowEnd)) {
            let columns = sources.iter().map(|s| match place(s) {
                Some(Place::WindowStart) => GroupColumn::WindowStart,
                Some(Place::WindowEnd) => GroupColumn::WindowEnd,
                Some(Place::WindowTime) => GroupColumn::WindowTime,
                _ => GroupColumn::Key,
            });
            let columns: Vec<GroupColumn> = columns.collect();
            if !windows.by_zone && (windows.kind != WindowKind::Session || is_of_sessions(&input, &sources, &columns)) {
                return self.windowed(node, &input, columns, &Over::Windows(windows), only_new);
            }
        }
        // By other columns than sessions are by, or over windows of other lengths: of their rows, when they have ended.
        let by_window = |windows: &Windows| windows.by_zone && has(Place::WindowStart) && has(Place::WindowEnd);
        let at_end = input.pending.is_some_and(|windows| windows.kind == WindowKind::Session || by_window(&windows));
        let input = if at_end { self.at_window_end(input)? } else { input };
        if let Some(Fired { start, end, emission, .. }) = input.fired.filter(|_| !input.updating)
            && sources.contains(&Some(start))
            && sources.contains(&Some(end))
        {
            return self.windowed(node, &input, vec![GroupColumn::Key; sources.len()], &Over::Fired(emission), only_new);
        }
        let input = self.materialised(input)?;
        self.grouped(node, &input, only_new)
    }

    fn grouped(&mut self, node: &Aggregate, input: &Lowered, only_new: bool) -> SqlResult<Lowered> {
        let keys: Vec<&Expr> = node.group_expr.iter().collect();
        if input.updating {
            check_changes(&calls_of(node)?)?;
        }
        let Parts { node: from, classes, calls } = self.parts(node, input, &keys, input.updating)?;
        let (key_count, lifetime) = (classes.len(), self.lifetime_of(&input.schema));
        let keyed = self.keyed(from, key_count);
        let schema = arrow_schema(&node.schema);
        let detail = format!("{}{}", detail(node), of_updates(only_new));
        let values = calls.iter().filter(|c| c.keeps_values()).count();
        let arrivals = calls.iter().filter(|c| c.keeps_arrivals()).count();
        let factory = group(Grouping { global: key_count == 0, only_new, ttl_ms: lifetime.ms(), ends_ms: None }, move || {
            GroupBy::new(calls.clone(), classes.clone(), schema.clone())
        });
        let note = NodeNote {
            detail,
            state: vec![StateNote { what: kept(size::about(&node.schema), key_count, values, arrivals), bound: lifetime.bound() }],
            class: lifetime.class(EqualityClass::Converging, "running aggregate"),
            glue: false,
        };
        let grouped = self.add("group", factory, &[(keyed, Routing::KeyGroup)], note);
        Ok(Lowered { key: Some((0..key_count).collect()), ..Lowered::plain(grouped, node.schema.clone(), true) })
    }

    fn windowed(
        &mut self,
        node: &Aggregate,
        input: &Lowered,
        columns: Vec<GroupColumn>,
        over: &Over,
        only_new: bool,
    ) -> SqlResult<Lowered> {
        let keys: Vec<&Expr> = node.group_expr.iter().zip(&columns).filter(|(_, c)| **c == GroupColumn::Key).map(|(e, _)| e).collect();
        self.check_arguments(node, input)?;
        if let Over::Windows(windows) = over {
            check_windows(&calls_of(node)?, windows)?;
        }
        let Parts { node: from, classes, calls } = self.parts(node, input, &keys, false)?;
        let keyed = self.keyed(from, classes.len());
        let (to_refs, of_results) = (calls.clone(), calls.clone());
        let glue = || NodeNote { glue: true, ..NodeNote::default() };
        let refs: OperatorFactory = Arc::new(move || Box::new(ToRowRefs(to_refs.clone())));
        let refs = self.add("rows", refs, &[(keyed, Routing::KeyGroup)], glue());
        let (windows, emission) = match over {
            Over::Windows(windows) => (*windows, self.emission(windows)?),
            Over::Fired(emission) => (INSTANT, *emission),
        };
        let (factory, kept) = operator(windows, emission, WindowCalls(calls))?;
        let of = if let Over::Windows(windows) = over { windows.to_string() } else { "of the rows of each window".into() };
        let note = NodeNote {
            detail: format!("{of}: {}{}", detail(node), emission.describe()),
            state: vec![StateNote { what: format!("{kept}{}", size::each(&node.schema)), bound: Bound::Watermark }],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
            glue: false,
        };
        let fired = self.add("window", factory, &[(refs, Routing::Forward)], note);
        let (longer_ms, zone) = (longer_ms(&windows), windows.zone);
        let from_windows = (of_results, columns.clone(), classes, arrow_schema(&node.schema));
        let results: OperatorFactory = Arc::new(move || {
            let (calls, columns, classes, schema) = from_windows.clone();
            Box::new(FromWindows { calls, columns, classes, schema, longer_ms, zone })
        });
        let results = self.add("results", results, &[(fired, Routing::Forward)], glue());
        if !emission.is_final() {
            return self.revised(results, &node.schema, node.group_expr.len(), emission, only_new);
        }
        let mut lowered = Lowered::plain(results, node.schema.clone(), false);
        let at = |wanted: GroupColumn| columns.iter().position(|c| *c == wanted);
        let group_source = |i: usize| node.group_expr.iter().position(|e| column_of(e, &input.schema) == Some(i));
        match (over, input.fired) {
            (Over::Windows(windows), _) => {
                let bounds = at(GroupColumn::WindowStart).zip(at(GroupColumn::WindowEnd));
                lowered.fired = bounds.map(|(start, end)| Fired { start, end, timing: Timing::of(windows), emission });
                // A session leaves when it is known to have ended, which is later than its own last instant. Of windows of
                // the clock the time is none that a watermark goes with downstream.
                match at(GroupColumn::WindowTime).filter(|_| !windows.of_clock) {
                    Some(time) if longer_ms > 0 => lowered.lagging.push((time, longer_ms)),
                    time => lowered.rowtimes.extend(time),
                }
            }
            (Over::Fired(_), Some(fired)) => {
                lowered.fired = fired.moved(group_source);
                lowered.rowtimes = input.rowtimes.iter().filter_map(|&i| group_source(i)).collect();
                lowered.lagging = input.lagging.iter().filter_map(|&(i, ms)| Some((group_source(i)?, ms))).collect();
            }
            (Over::Fired(_), None) => {}
        }
        Ok(lowered)
    }

    /// Refuses aggregates of the bounds of their own window.
    pub(super) fn check_arguments(&self, node: &Aggregate, input: &Lowered) -> SqlResult<()> {
        match node.aggr_expr.iter().find(|e| self.uses_windows(e, input)) {
            None => Ok(()),
            Some(expr) => Err(SqlError::unsupported(
                &format!("{expr}"),
                "the bounds of a window are no input of its aggregate",
                "GROUP BY them and compute on the result",
            )),
        }
    }

    fn keyed(&mut self, from: NodeIndex, key_count: usize) -> NodeIndex {
        let kernel = Arc::new(ColumnKeys((0..key_count).collect()));
        self.add("key_by", key_columns(kernel), &[(from, Routing::Forward)], NodeNote { glue: true, ..NodeNote::default() })
    }

    /// Computes keys, arguments and filters as columns, and the calls over these.
    fn parts(&mut self, node: &Aggregate, input: &Lowered, keys: &[&Expr], retracting: bool) -> SqlResult<Parts> {
        let from = input.batch_schema()?;
        let mut exprs: Vec<Expr> = keys.iter().map(|e| (*e).clone()).collect();
        let mut classes = Vec::with_capacity(keys.len());
        for key in keys {
            let kind = key.get_type(&from).map_err(SqlError::of_planner)?;
            classes.push(check_class(&kind, &format!("GROUP BY {key}"))?);
        }
        let key_count = exprs.len();
        let functions = calls_of(node)?;
        // What several calls ask for is computed once.
        let mut place = |expr: &Expr| match exprs[key_count..].iter().position(|e| e == expr) {
            Some(at) => key_count + at,
            None => {
                exprs.push(expr.clone());
                exprs.len() - 1
            }
        };
        let mut places = Vec::with_capacity(functions.len());
        for function in &functions {
            let own: Vec<usize> = own_arguments(function).iter().map(&mut place).collect();
            places.push((argument(function)?.map(&mut place), own, function.params.filter.as_deref().map(&mut place)));
        }
        let mut fields = Vec::with_capacity(exprs.len());
        for (i, expr) in exprs.iter().enumerate() {
            fields.push(Field::new(format!("c{i}"), expr.get_type(&from).map_err(SqlError::of_planner)?, true));
        }
        let schema = Arc::new(Schema::new(fields));
        let computed = self.calc(input, None, Some(&exprs), schema.clone(), "project")?;
        let over = DFSchema::try_from(schema.clone()).map_err(SqlError::of_planner)?;
        let column = |i: usize| physical(&named(&format!("c{i}")), &over);
        let mut calls = Vec::with_capacity(functions.len());
        let read = |at: usize| -> SqlResult<_> { Ok((column(at)?, schema.field(at).data_type().clone())) };
        for (i, (function, (argument, own, filter))) in functions.iter().zip(places).enumerate() {
            let output = node.schema.field(node.group_expr.len() + i).data_type().clone();
            let name = name_of(function)?;
            let argument = match argument {
                None => None,
                Some(at) => {
                    let kind = schema.field(at).data_type().clone();
                    let class = check_class(&kind, &format!("{name:?} of {}", exprs[at]))?;
                    Some(Argument { expr: column(at)?, kind, class, column: at })
                }
            };
            let filter = filter.map(column).transpose()?;
            check_result(name, argument.as_ref(), &output)?;
            let (own, distinct, separator) = (own_call(function, &own, read)?, function.params.distinct, separator(function)?);
            calls.push(Call { function: name, argument, own, filter, distinct, retracting, separator, output });
        }
        Ok(Parts { node: computed, classes, calls: Calls::new(calls) })
    }
}

/// What is said of updates.
pub(super) fn of_updates(only_new: bool) -> &'static str {
    if only_new { "; of updates the new row" } else { "" }
}

/// Whether groups are by what sessions are by, and so one for each session.
fn is_of_sessions(input: &Lowered, sources: &[Option<usize>], columns: &[GroupColumn]) -> bool {
    let keys = sources.iter().zip(columns).filter(|(_, c)| **c == GroupColumn::Key).map(|(s, _)| *s);
    let mut keys = keys.collect::<Option<Vec<usize>>>();
    let mut by = input.session_by.clone();
    for columns in [&mut keys, &mut by].into_iter().flatten() {
        columns.sort_unstable();
        columns.dedup();
    }
    keys.is_some() && keys == by
}

/// The calls of a node.
fn calls_of(node: &Aggregate) -> SqlResult<Vec<&AggregateFunction>> {
    node.aggr_expr.iter().map(call_of).collect()
}

pub(super) fn call_of(expr: &Expr) -> SqlResult<&AggregateFunction> {
    match expr {
        Expr::AggregateFunction(function) => Ok(function),
        Expr::Alias(alias) => call_of(&alias.expr),
        other => Err(SqlError::new(format!("{other} is no aggregate that is known"))),
    }
}

pub(super) fn name_of(function: &AggregateFunction) -> SqlResult<Function> {
    let called = function.func.name();
    let refuse = |what: &str, why: &str| Err(SqlError::unsupported(&format!("{what} in {called}"), why, ""));
    let by_arrival = matches!(called, "first_value" | "last_value" | "listagg" | "array_agg");
    if !function.params.order_by.is_empty() {
        return refuse("ORDER BY", if by_arrival { "it goes by the order of arrival" } else { "it does not depend on an order" });
    }
    if function.params.null_treatment.is_some() && called != "array_agg" {
        return refuse("IGNORE NULLS", "NULLs are left out anyway");
    }
    if own_of(&function.func).is_some() {
        let shown = called.to_uppercase();
        let what = format!("DISTINCT in {shown}");
        let instead = format!("{shown} of a subquery with SELECT DISTINCT");
        return match function.params.distinct {
            true => Err(SqlError::unsupported(&what, "which of its arguments have been seen is not kept", &instead)),
            false => Ok(Function::Own),
        };
    }
    if function.params.distinct && matches!(called, "first_value" | "last_value") {
        return refuse("DISTINCT", "one value is distinct by itself");
    }
    Ok(match called {
        "count" => Function::Count,
        "sum" => Function::Sum,
        "min" => Function::Min,
        "max" => Function::Max,
        "avg" => Function::Avg,
        "first_value" => Function::First,
        "last_value" => Function::Last,
        "listagg" => Function::List,
        "array_agg" => Function::Array { nulls: function.params.null_treatment != Some(NullTreatment::IgnoreNulls) },
        "collect" => Function::Collect,
        "var_pop" => Function::Variance { sample: false, root: false },
        "var_samp" => Function::Variance { sample: true, root: false },
        "stddev_pop" => Function::Variance { sample: false, root: true },
        "stddev_samp" => Function::Variance { sample: true, root: true },
        "approx_count_distinct" => Function::ApproxCount,
        other => {
            return Err(SqlError::unsupported(
                &format!("the aggregate {other}"),
                "it cannot be kept up to date yet",
                "COUNT, SUM, MIN, MAX, AVG, FIRST_VALUE, LAST_VALUE, LISTAGG, ARRAY_AGG, COLLECT, VAR_POP, STDDEV_POP, APPROX_COUNT_DISTINCT",
            ));
        }
    })
}

/// The argument; none where every row counts, and of functions of users, which may have several.
pub(super) fn argument(function: &AggregateFunction) -> SqlResult<Option<&Expr>> {
    match function.params.args.as_slice() {
        _ if own_of(&function.func).is_some() => Ok(None),
        [Expr::Literal(value, _)] if function.func.name() == "count" && !value.is_null() && !function.params.distinct => Ok(None),
        [Expr::Literal(ScalarValue::Null, _)] => Err(SqlError::new(format!("{}(NULL) has no type", function.func.name()))),
        [argument] => Ok(Some(argument)),
        [argument, _] if function.func.name() == "listagg" => Ok(Some(argument)),
        _ => {
            Err(SqlError::unsupported(&format!("{} of several columns", function.func.name()), "it takes one", "concatenate them with ||"))
        }
    }
}

/// What LISTAGG puts between texts.
pub(super) fn separator(function: &AggregateFunction) -> SqlResult<Arc<str>> {
    match function.params.args.as_slice() {
        [_, separator] if function.func.name() == "listagg" => match separator {
            Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
                Ok(text.as_str().into())
            }
            other => {
                Err(SqlError::new(format!("the separator of LISTAGG is {other}, not a text that is written there"))
                    .help("LISTAGG(x, ', ')"))
            }
        },
        _ => Ok(",".into()),
    }
}

/// The kernel's result has the type that the plan promises.
pub(super) fn check_result(function: Function, argument: Option<&Argument>, output: &DataType) -> SqlResult<()> {
    let class = check_class(output, "a result")?;
    let fits = match (function, argument) {
        (Function::Own, _) => return Ok(()),
        (Function::Count, _) => *output == DataType::Int64,
        (Function::Min | Function::Max, Some(a)) => a.kind == *output && a.class != Class::Nested,
        (Function::Sum, Some(a)) => {
            a.class == class && matches!(class, Class::Int | Class::Float | Class::Decimal) && scale(&a.kind) == scale(output)
        }
        (Function::Avg, Some(a)) => a.class == class && matches!(class, Class::Int | Class::Float | Class::Decimal),
        (Function::First | Function::Last, Some(a)) => a.kind == *output,
        (Function::List, Some(a)) => a.class == Class::Text && class == Class::Text,
        (Function::Array { .. }, Some(a)) => matches!(output, DataType::List(item) if *item.data_type() == a.kind),
        (Function::Collect, Some(a)) => parts(output).is_some_and(|(key, _)| *key.data_type() == a.kind),
        // Squares of more digits are too long for exact sums.
        (Function::Variance { .. }, Some(a)) => {
            a.class == class
                && matches!(class, Class::Int | Class::Float | Class::Decimal)
                && !matches!(a.kind, DataType::Decimal128(29.., _))
        }
        (Function::ApproxCount, Some(_)) => *output == DataType::Int64,
        _ => false,
    };
    let small = matches!(output, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Float32) && function == Function::Sum;
    if fits && !small {
        return Ok(());
    }
    if let Some(a) = argument.filter(|a| a.class == Class::Nested) {
        return Err(super::no_order(&a.kind, &format!("{function:?}")));
    }
    let over = argument.map_or("*".into(), |a| crate::parser::type_name(&a.kind));
    Err(SqlError::unsupported(
        &format!("{function:?} over {over}"),
        &format!("its result would be {output}"),
        "CAST the argument to a number",
    ))
}

fn scale(kind: &DataType) -> i8 {
    if let DataType::Decimal128(_, scale) = kind { *scale } else { 0 }
}

fn detail(node: &Aggregate) -> String {
    let list = |exprs: &[Expr]| exprs.iter().map(|e| e.schema_name().to_string()).collect::<Vec<_>>().join(", ");
    if node.group_expr.is_empty() { list(&node.aggr_expr) } else { format!("{} by {}", list(&node.aggr_expr), list(&node.group_expr)) }
}

fn kept(bytes: usize, keys: usize, values: usize, arrivals: usize) -> String {
    let row = if keys == 0 { "1 row".into() } else { format!("1 row a key, about {bytes} B each") };
    let distinct = if values == 0 { String::new() } else { format!(", and every distinct value of {values} aggregates") };
    let all = if arrivals == 0 { String::new() } else { format!(", and every value of {arrivals} aggregates") };
    format!("{row}{distinct}{all}")
}
