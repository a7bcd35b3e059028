//! OVER: each row with what is computed of the rows of its partition up to it.
//!
//! In the order of event time, over rows that only come, a row has its turn once. In any other order, and over rows that change,
//! all rows are kept, and a change is one of the results that it touches.
//!
//! Functions of one partition, order and frame are one operator; several of them stand one behind the other. LEAD gives its
//! results when the later row comes, so it stands last, and event time ends there.
//!
//! Invariant: the columns of the result are those of the plan's node: the input's, then one a function.

use super::aggregate::{argument, check_result, name_of, separator};
use super::own::{check_frame, own_arguments, own_call};
use super::ranks::list;
use super::{Fired, Lowered, Lowering, column_of, size};
use crate::error::{SqlError, SqlResult};
use crate::kernels::aggregate::{Argument, Call, Calls};
use crate::kernels::keys::ColumnKeys;
use crate::kernels::over::{Computed, OverCalls, OverRules};
use crate::kernels::over_changes::OverChanges;
use crate::kernels::packed::Packed;
use crate::kernels::ranked::OrderColumn;
use crate::kernels::value::{Class, Value};
use crate::plan;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Expr, Sort, WindowFunction, WindowFunctionParams};
use datafusion_expr::{Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::graph::{Bound, EqualityClass, NodeNote, Routing, StateNote};
use waterwheel_engine::observe::human_duration;
use waterwheel_engine::operators::over::{Frame, OverOptions, over};
use waterwheel_engine::operators::{by_clock, key_columns, over_changes};

/// Functions of one partition, order and frame, by their places in the node.
struct Group<'a> {
    params: &'a WindowFunctionParams,
    frame: Frame,
    /// How far a LEAD looks.
    lead: Option<u32>,
    functions: Vec<(usize, &'a WindowFunction)>,
    /// Rows have their turn once, in the order of event time.
    in_turn: bool,
}

impl Group<'_> {
    /// What tells rows apart in their order; event time does so by itself.
    fn order(&self) -> impl Iterator<Item = &Sort> {
        self.params.order_by.iter().skip(usize::from(self.in_turn))
    }

    fn takes(&self, function: &WindowFunction, frame: Frame, lead: Option<u32>) -> bool {
        let WindowFunctionParams { partition_by, order_by, .. } = &function.params;
        (partition_by, order_by, frame, lead) == (&self.params.partition_by, &self.params.order_by, self.frame, self.lead)
    }
}

/// Where in a kept row what a function asks for is.
struct Places {
    partition: Vec<usize>,
    ties: Vec<usize>,
    arguments: Vec<Option<usize>>,
    /// Of functions of users.
    own: Vec<Vec<usize>>,
    filters: Vec<Option<usize>>,
}

impl Lowering<'_> {
    pub(super) fn over(&mut self, window: &Window) -> SqlResult<Lowered> {
        let input = self.lower(&window.input)?;
        let functions = window.window_expr.iter().map(function_of).collect::<SqlResult<Vec<_>>>()?;
        let by_arrival = |f: &&WindowFunction| input.by_arrival(&f.params.order_by).is_some();
        if !functions.iter().any(by_arrival) {
            let input = self.materialised(input)?;
            return self.over_rows(window, input, false);
        }
        let other = functions.iter().find(|f| input.by_arrival(&f.params.order_by) != Some(true));
        let ranks = functions.iter().find(|f| matches!(f.fun.name(), "rank" | "dense_rank"));
        if let Some(other) = other.or(ranks) {
            let why = "the others of this SELECT are in the order of arrival, in which no two rows are equal";
            return Err(SqlError::unsupported(
                &format!("{} OVER here", other.fun.name().to_uppercase()),
                why,
                "ROW_NUMBER(), or ORDER BY of columns alone, in a query of its own",
            ));
        }
        let (rows, clocks) = self.without_clock(input)?;
        let note = NodeNote { class: vec![(EqualityClass::TimeDependent, "the order of arrival".into())], ..NodeNote::default() };
        let node = self.add("clock", by_clock(), &[(rows.node, Routing::Forward)], note);
        let lowered = self.over_rows(window, Lowered { node, ..rows }, true)?;
        Ok(clocks.put_back(lowered, &window.schema))
    }

    /// Over rows whose columns are all in the batch; `by_arrival`: their event time is that of the clock, which is no column.
    fn over_rows(&mut self, window: &Window, input: Lowered, by_arrival: bool) -> SqlResult<Lowered> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (at, expr) in window.window_expr.iter().enumerate() {
            let function = function_of(expr)?;
            let (frame, lead) = match frame_of(function)? {
                // Rows come one by one.
                (Frame::Range(None), lead) if by_arrival => (Frame::Rows(None), lead),
                other => other,
            };
            match groups.iter_mut().find(|group| group.takes(function, frame, lead)) {
                Some(group) => group.functions.push((at, function)),
                None => groups.push(Group { params: &function.params, frame, lead, functions: vec![(at, function)], in_turn: false }),
            }
        }
        for group in &mut groups {
            group.in_turn = by_arrival || in_turn(&group.params.order_by, &input, group)?;
        }
        groups.sort_by_key(|group| (!group.in_turn, group.lead.is_some()));
        if groups.iter().filter(|group| group.in_turn && group.lead.is_some()).count() > 1 {
            return Err(SqlError::unsupported(
                "LEAD by different distances, or over different windows, in one SELECT",
                "event time ends at the first",
                "one of them, or LAG",
            ));
        }
        let columns = input.schema.fields().len();
        let schema = Arc::new(with_results(&input, 0..window.window_expr.len(), window)?);
        let mut order: Vec<usize> = Vec::with_capacity(window.window_expr.len());
        let mut lowered = input;
        for group in &groups {
            lowered = self.over_group(lowered, group, window)?;
            order.extend(group.functions.iter().map(|(at, _)| *at));
        }
        let place = |output: usize| match output.checked_sub(columns) {
            None => output,
            Some(at) => columns + order.iter().position(|o| *o == at).unwrap_or(at),
        };
        if order.is_sorted() {
            return Ok(Lowered { schema, ..lowered });
        }
        let exprs: Vec<Expr> = (0..columns + order.len()).map(|i| super::column_expr(&lowered.schema, place(i))).collect();
        let node = self.calc(&lowered, None, Some(&exprs), super::arrow_schema(&schema), "project")?;
        Ok(Lowered { node, schema, ..lowered })
    }

    fn over_group(&mut self, input: Lowered, group: &Group<'_>, window: &Window) -> SqlResult<Lowered> {
        let mut wanted: Vec<&Expr> = Vec::new();
        let mut place = |expr| {
            wanted.push(expr);
            wanted.len() - 1
        };
        let aggregates = group.functions.iter().map(|(_, f)| aggregate_of(f)).collect::<SqlResult<Vec<_>>>()?;
        let partition: Vec<usize> = group.params.partition_by.iter().map(&mut place).collect();
        let ties: Vec<usize> = group.order().map(|sort| place(&sort.expr)).collect();
        let called: Vec<&AggregateFunction> = aggregates.iter().flatten().collect();
        check_frame(&called, group.frame, group.in_turn)?;
        let (mut arguments, mut own, mut filters) = (Vec::new(), Vec::new(), Vec::new());
        for ((_, function), aggregate) in group.functions.iter().zip(&aggregates) {
            let argument = match aggregate {
                Some(aggregate) => argument(aggregate)?,
                None => function.params.args.first(),
            };
            arguments.push(argument.map(&mut place));
            own.push(aggregate.iter().flat_map(own_arguments).map(&mut place).collect::<Vec<usize>>());
            filters.push(function.params.filter.as_deref().map(&mut place));
        }
        let (from, columns) = self.computed(&input, &wanted)?;
        let at = |wanted: &Option<usize>| wanted.map(|w| columns[w]);
        let places = Places {
            partition: partition.iter().map(|w| columns[*w]).collect(),
            ties: ties.iter().map(|w| columns[*w]).collect(),
            arguments: arguments.iter().map(at).collect(),
            own: own.iter().map(|of_call| of_call.iter().map(|w| columns[*w]).collect()).collect(),
            filters: filters.iter().map(at).collect(),
        };
        let kept = self.kept(&input, &wanted, &columns)?;
        let schema = with_results(&input, group.functions.iter().map(|(at, _)| *at), window)?;
        let rules = Arc::new(rules(&places, &aggregates, &kept, &schema, group, input.updating)?);
        let glue = NodeNote { glue: true, ..NodeNote::default() };
        let note = note(group, &input.schema, self.lifetime().bound());
        let keyed = self.add("key_by", key_columns(Arc::new(ColumnKeys(places.partition))), &[(from, Routing::Forward)], glue);
        if !group.in_turn {
            let frame = group.frame;
            let factory = over_changes(self.lifetime().ms(), move || OverChanges::new(rules.clone(), frame));
            let node = self.add("over_changes", factory, &[(keyed, Routing::KeyGroup)], note);
            // A row stays in one task as long as it is known by what the partitions are by.
            let partition: Option<Vec<usize>> = group.params.partition_by.iter().map(|e| column_of(e, &input.schema)).collect();
            let key = input.key.filter(|key| partition.is_some_and(|partition| partition.iter().all(|column| key.contains(column))));
            return Ok(Lowered { key, ..Lowered::plain(node, Arc::new(schema), true) });
        }
        let options = OverOptions { frame: group.frame, ttl_ms: self.lifetime().ms(), keys: None };
        let factory = over(options, move || Ok(OverCalls::new(rules.clone())));
        let node = self.add("over", factory, &[(keyed, Routing::KeyGroup)], note);
        let lowered = Lowered::plain(node, Arc::new(schema), false);
        if group.lead.is_some() {
            return Ok(lowered);
        }
        Ok(Lowered { rowtimes: input.rowtimes, lagging: input.lagging, fired: input.fired.map(Fired::complete), ..lowered })
    }

    /// The columns of kept rows: the input's, and those that were computed behind them.
    fn kept(&self, input: &Lowered, wanted: &[&Expr], columns: &[usize]) -> SqlResult<Schema> {
        use datafusion_expr::ExprSchemable;
        let from = input.batch_schema()?;
        let mut fields: Vec<Field> = input.schema.fields().iter().map(|f| super::nullable(f)).collect();
        let own = fields.len();
        for (expr, &column) in wanted.iter().zip(columns).filter(|(_, column)| **column >= own) {
            let kind = expr.get_type(&from).map_err(SqlError::of_planner)?;
            fields.push(Field::new(format!("c{column}"), kind, true));
        }
        Ok(Schema::new(fields))
    }
}

fn function_of(expr: &Expr) -> SqlResult<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Ok(function),
        Expr::Alias(alias) => function_of(&alias.expr),
        other => Err(SqlError::new(format!("{other} is no function over rows"))),
    }
}

/// The same call as an aggregate, if it is one.
fn aggregate_of(function: &WindowFunction) -> SqlResult<Option<AggregateFunction>> {
    let WindowFunctionParams { args, filter, null_treatment, distinct, .. } = &function.params;
    let udf = match &function.fun {
        WindowFunctionDefinition::AggregateUDF(udf) => Some(udf.clone()),
        // The planner has them apart from the aggregates, to which NULL is no value.
        other if matches!(other.name(), "first_value" | "last_value") => plan::aggregate_of(other.name()),
        WindowFunctionDefinition::WindowUDF(_) => None,
    };
    let Some(udf) = udf else {
        if filter.is_some() || *distinct || null_treatment.is_some() {
            return Err(SqlError::unsupported(
                &format!("FILTER, DISTINCT or IGNORE NULLS of {}", function.fun.name()),
                "it is of all rows",
                "CASE WHEN in its argument",
            ));
        }
        return Ok(None);
    };
    #[expect(deprecated, reason = "the planner still makes it of COUNT(*)")]
    let is_star = matches!(args[..], [Expr::Wildcard { .. }]);
    let args = if is_star { vec![datafusion_expr::lit(1i64)] } else { args.clone() };
    Ok(Some(AggregateFunction::new_udf(udf, args, *distinct, filter.clone(), Vec::new(), *null_treatment)))
}

/// The frame that a function is computed over, and how far it looks ahead.
fn frame_of(function: &WindowFunction) -> SqlResult<(Frame, Option<u32>)> {
    Ok(match function.fun.name() {
        "row_number" | "rank" | "dense_rank" => (Frame::Rows(None), None),
        "lag" => (Frame::Rows(Some(distance(function)?)), None),
        "lead" => (Frame::Rows(None), Some(distance(function)?)),
        _ => (frame(&function.params)?, None),
    })
}

fn frame(params: &WindowFunctionParams) -> SqlResult<Frame> {
    let frame = &params.window_frame;
    let unsupported = |why| {
        let text = format!("the frame {frame}");
        SqlError::unsupported(
            &text,
            why,
            "ROWS BETWEEN n PRECEDING AND CURRENT ROW, or RANGE BETWEEN INTERVAL .. PRECEDING AND CURRENT ROW",
        )
    };
    if params.order_by.is_empty() {
        return Err(SqlError::unsupported(
            "OVER without ORDER BY",
            "it is of all rows of a partition, and those that are still to come are not there yet",
            "OVER (PARTITION BY k ORDER BY ts), of the rows so far; for all of them a join: \
             FROM t JOIN (SELECT k, MAX(x) AS x FROM t GROUP BY k) AS m ON t.k = m.k",
        ));
    }
    if !matches!(frame.end_bound, WindowFrameBound::CurrentRow) {
        return Err(unsupported("a frame ends at its row, because those behind it are not there yet"));
    }
    let preceding = match &frame.start_bound {
        WindowFrameBound::Preceding(bound) => bound,
        WindowFrameBound::CurrentRow => &ScalarValue::UInt64(Some(0)),
        WindowFrameBound::Following(_) => return Err(unsupported("it is empty")),
    };
    match frame.units {
        _ if preceding.is_null() && frame.units == WindowFrameUnits::Rows => Ok(Frame::Rows(None)),
        _ if preceding.is_null() => Ok(Frame::Range(None)),
        WindowFrameUnits::Rows => match preceding {
            ScalarValue::UInt64(Some(n)) => u32::try_from(*n).map(|n| Frame::Rows(Some(n))).map_err(|_| unsupported("it is too long")),
            _ => Err(unsupported("its length is no number")),
        },
        WindowFrameUnits::Range => {
            let ms = span_ms(preceding).ok_or_else(|| unsupported("over event time its length is an interval of days or less"))?;
            Ok(Frame::Range(Some(ms)))
        }
        WindowFrameUnits::Groups => Err(unsupported("GROUPS are not here")),
    }
}

/// An interval without months, which have no length, in whole milliseconds.
fn span_ms(bound: &ScalarValue) -> Option<i64> {
    match bound {
        ScalarValue::UInt64(Some(0)) => Some(0),
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            let nanos = interval.nanoseconds;
            let ms = i64::from(interval.days).checked_mul(86_400_000)?.checked_add(nanos / 1_000_000)?;
            (nanos % 1_000_000 == 0 && ms >= 0).then_some(ms)
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            i64::from(interval.days).checked_mul(86_400_000)?.checked_add(i64::from(interval.milliseconds)).filter(|ms| *ms >= 0)
        }
        _ => None,
    }
}

/// The second argument of LAG and LEAD.
fn distance(function: &WindowFunction) -> SqlResult<u32> {
    let given = match function.params.args.get(1) {
        None => Some(1),
        Some(Expr::Literal(ScalarValue::Int64(n), _)) => n.and_then(|n| u32::try_from(n).ok()),
        Some(Expr::Literal(ScalarValue::Int32(n), _)) => n.and_then(|n| u32::try_from(n).ok()),
        Some(_) => None,
    };
    given.filter(|n| *n <= 1_000_000).ok_or_else(|| {
        SqlError::new(format!("the offset of {} is no whole number from 0 to 1000000", function.fun.name()))
            .help("LAG(x, 3) looks three rows back, LEAD(x, 3) three rows ahead")
    })
}

/// Whether rows have their turn once: they only come, in the order of event time, upwards; further columns tell rows of one
/// time apart, where one is not equal to the other.
fn in_turn(order: &[Sort], input: &Lowered, group: &Group<'_>) -> SqlResult<bool> {
    use datafusion_expr::ExprSchemable;
    let Some((first, ties)) = order.split_first() else {
        return Err(SqlError::new("OVER without ORDER BY has no rows up to a row")
            .help("OVER (PARTITION BY k ORDER BY ts), where ts is the column of the WATERMARK"));
    };
    let mut kinds = Vec::with_capacity(order.len());
    for sort in order {
        let kind = sort.expr.get_type(&*input.schema).map_err(SqlError::of_planner)?;
        super::check_ordered(&kind, &format!("ORDER BY {}", sort.expr))?;
        kinds.push(kind);
    }
    let by_peers = |(_, f): &(usize, &WindowFunction)| matches!(f.fun.name(), "rank" | "dense_rank");
    let peers = matches!(group.frame, Frame::Range(_)) || group.functions.iter().any(by_peers);
    let by_time = first.asc && column_of(&first.expr, &input.schema).is_some_and(|i| input.rowtimes.contains(&i));
    if by_time && !input.updating && (ties.is_empty() || !peers) {
        return Ok(true);
    }
    let of_time = matches!(kinds[..], [DataType::Timestamp(TimeUnit::Millisecond, _)]);
    if matches!(group.frame, Frame::Range(Some(_))) && !of_time {
        return Err(SqlError::unsupported(
            &format!("RANGE with a length over {first}"),
            "its length is a span of time",
            "ORDER BY a column of type TIMESTAMP(3), or ROWS BETWEEN n PRECEDING AND CURRENT ROW",
        ));
    }
    Ok(false)
}

/// The input's columns, and some results of a window.
fn with_results(input: &Lowered, results: impl Iterator<Item = usize>, window: &Window) -> SqlResult<DFSchema> {
    let own = window.input.schema().fields().len();
    let mut fields: Vec<_> = input.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
    for at in results {
        let (qualifier, field) = window.schema.qualified_field(own + at);
        fields.push((qualifier.cloned(), field.clone()));
    }
    DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)
}

fn rules(
    places: &Places,
    aggregates: &[Option<AggregateFunction>],
    kept: &Schema,
    schema: &DFSchema,
    group: &Group<'_>,
    canonical: bool,
) -> SqlResult<OverRules> {
    let packed = Packed::of(kept, canonical || !group.in_turn).map_err(|column| {
        SqlError::unsupported(&format!("OVER over rows with the column {column}"), "its type cannot be kept", "leave it out")
    })?;
    let own = schema.fields().len() - group.functions.len();
    let (mut calls, mut of_calls, mut of_own, mut computed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, ((_, function), aggregate)) in group.functions.iter().zip(aggregates).enumerate() {
        let output = schema.field(own + i).data_type();
        let argument = places.arguments[i];
        match aggregate {
            Some(aggregate) => {
                computed.push(Computed::Call(calls.len()));
                of_calls.push((argument, places.filters[i]));
                of_own.push(places.own[i].clone());
                calls.push(call(aggregate, (argument, &places.own[i]), places.filters[i], kept, output)?);
            }
            None => computed.push(function_over(function, argument, output)?),
        }
    }
    let order = group.order().zip(&places.ties);
    let ties = order.map(|(sort, &column)| OrderColumn { column, descending: !sort.asc, nulls_first: sort.nulls_first }).collect();
    Ok(OverRules {
        packed,
        calls: Calls::new(calls),
        arguments: of_calls,
        own: of_own,
        computed,
        distance: match (group.frame, group.lead) {
            (_, Some(n)) | (Frame::Rows(Some(n)), None) => n,
            _ => 0,
        },
        leads: group.lead.is_some(),
        ties,
        schema: super::arrow_schema(schema),
        partition: list(group.params.partition_by.iter()),
    })
}

fn call(
    aggregate: &AggregateFunction,
    (argument, own): (Option<usize>, &[usize]),
    filter: Option<usize>,
    kept: &Schema,
    output: &DataType,
) -> SqlResult<Call> {
    let function = name_of(aggregate)?;
    let read = |column: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(kept.field(column).name(), column)) };
    let argument = match argument {
        None => None,
        Some(column) => {
            let kind = kept.field(column).data_type().clone();
            let class = super::check_class(&kind, &format!("{function:?} OVER"))?;
            Some(Argument { expr: read(column), kind, class, column })
        }
    };
    check_result(function, argument.as_ref(), output)?;
    let own = own_call(aggregate, own, |column| Ok((read(column), kept.field(column).data_type().clone())))?;
    // Values of a frame leave it again: those of DISTINCT are counted.
    let (distinct, separator, output) = (aggregate.params.distinct, separator(aggregate)?, output.clone());
    Ok(Call { function, argument, own, filter: filter.map(read), distinct, retracting: distinct, separator, output })
}

fn function_over(function: &WindowFunction, argument: Option<usize>, output: &DataType) -> SqlResult<Computed> {
    let name = function.fun.name();
    Ok(match (name, argument) {
        ("row_number", _) => Computed::RowNumber,
        ("rank", _) => Computed::Rank,
        ("dense_rank", _) => Computed::DenseRank,
        ("lag", Some(column)) => Computed::Lag { column, default: default_of(function, output)? },
        ("lead", Some(column)) => Computed::Lead { column, default: default_of(function, output)? },
        _ => return Err(SqlError::unsupported(&format!("{name}(...) OVER"), "it is not here", "")),
    })
}

/// The third argument of LAG and LEAD.
fn default_of(function: &WindowFunction, kind: &DataType) -> SqlResult<Value> {
    let wrong = || {
        SqlError::new(format!("the default of {} is no literal of type {}", function.fun.name(), crate::parser::type_name(kind)))
            .help("write a literal, or COALESCE around the call")
    };
    let literal = match function.params.args.get(2) {
        None => return Ok(Value::Null),
        Some(Expr::Literal(value, _)) => value.cast_to(kind).map_err(|_| wrong())?,
        Some(_) => return Err(wrong()),
    };
    let array = literal.to_array().map_err(|_| wrong())?;
    Class::of(kind).ok_or_else(wrong)?;
    Ok(crate::kernels::value::Cells::of(&array).map_err(|_| wrong())?.value(0))
}

/// What is to be said of it; `unbounded` is what ends state that rows alone do not.
fn note(group: &Group<'_>, rows: &DFSchema, unbounded: Bound) -> NodeNote {
    let names: Vec<String> = group.functions.iter().map(|(_, f)| f.fun.name().to_uppercase()).collect();
    let (frame, what, bound) = match (group.frame, group.lead) {
        (_, Some(n)) => (format!("{n} rows behind"), format!("{n} rows a key"), unbounded),
        (Frame::Rows(Some(n)), _) => (format!("{n} rows before"), format!("{n} rows a key"), unbounded),
        (Frame::Rows(None), _) => ("all rows before".into(), "1 value a key".into(), unbounded),
        (Frame::Range(None), _) => ("all up to its time".into(), "1 value a key".into(), unbounded),
        (Frame::Range(Some(ms)), _) => {
            let span = human_duration(Duration::from_millis(ms.unsigned_abs()));
            (format!("within {span}"), format!("rows for {span} of event time"), Bound::Watermark)
        }
    };
    let by = list(group.params.partition_by.iter());
    if !group.in_turn {
        let order = list(group.params.order_by.iter().map(|sort| &sort.expr));
        let state = vec![StateNote { what: format!("every row, and its results{}", size::each(rows)), bound: unbounded }];
        let mut class = vec![(EqualityClass::Converging, "results over the rows so far".to_string())];
        if unbounded != Bound::Unbounded {
            class.push((EqualityClass::TimeDependent, "state that is forgotten by the clock".into()));
        }
        return NodeNote { detail: format!("{} {frame}, by ({by}) in the order of {order}", names.join(", ")), state, class, glue: false };
    }
    let mut class = vec![(EqualityClass::TimeDependent, "late rows".to_string())];
    if group.params.order_by.len() == 1 && matches!(group.frame, Frame::Rows(_)) {
        class.push((EqualityClass::TimeDependent, "arrival order of rows of one time".to_string()));
    }
    let ahead = StateNote { what: format!("rows ahead of the watermark{}", size::each(rows)), bound: Bound::Watermark };
    let detail = format!("{} {frame}, by ({by})", names.join(", "));
    NodeNote { detail, state: vec![ahead, StateNote { what, bound }], class, glue: false }
}
