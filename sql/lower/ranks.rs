//! ROW_NUMBER: the first rows of each partition.
//!
//! `SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY x DESC) AS n FROM t) WHERE n <= 10`: only with a bound,
//! which says how much is kept. Of a window, where the partition is by both its bounds, they leave once, when it has ended; all
//! others are kept up to date. With n <= 1 and an order by event time alone it is a dedup: of rows of one time the latest to
//! come is the last one.
//!
//! Invariant: rows have the input's columns, then the rank; the rank means something only where somebody looks at it.

use super::aggregate::of_updates;
use super::windows::{INSTANT, Keeping};
use super::{Fired, Lowered, Lowering, Place, arrow_schema, check_class, check_ordered, column_of, size};
use crate::error::{SqlError, SqlResult};
use crate::kernels::keys::ColumnKeys;
use crate::kernels::ranked::{OrderColumn, RowNumbers};
use crate::kernels::window_rows::{FirstRows, RowColumn};
use crate::plan::NUMBER;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{BinaryExpr, Expr, Sort, WindowFunction};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{ExprSchemable, Filter, LogicalPlan, Operator, Projection, SubqueryAlias, Window, WindowFunctionDefinition};
use std::sync::Arc;
use waterwheel_engine::graph::{Bound, EqualityClass, NodeIndex, NodeNote, Routing, StateNote};
use waterwheel_engine::operators::{Ranking, key_columns, ranked};

/// Above this a partition costs more at each change than anybody wants.
const MAX_FIRST: i64 = 100_000;

/// What is wanted of the ranks below a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    first: usize,
    with_rank: bool,
}

/// The column of the ranks in a plan's schema, if a ROW_NUMBER is below it with nothing but projections between.
fn rank_column(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::Window(window) => {
            row_number(window)?;
            Some(window.schema.fields().len() - 1)
        }
        LogicalPlan::SubqueryAlias(alias) => rank_column(&alias.input),
        LogicalPlan::Projection(projection) => {
            let below = rank_column(&projection.input)?;
            projection.expr.iter().position(|e| column_of(e, projection.input.schema()) == Some(below))
        }
        _ => None,
    }
}

/// The call, if the node is one ROW_NUMBER.
fn row_number(window: &Window) -> Option<&WindowFunction> {
    let [expr] = window.window_expr.as_slice() else { return None };
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    let Expr::WindowFunction(function) = expr else { return None };
    let WindowFunctionDefinition::WindowUDF(udf) = &function.fun else { return None };
    (udf.name() == "row_number").then_some(&**function)
}

/// The most that a condition lets a column be.
fn upper_bound(condition: &Expr, column: usize, schema: &DFSchema) -> Option<i64> {
    let number = |e: &Expr| match e {
        Expr::Literal(ScalarValue::Int64(n), _) => *n,
        Expr::Literal(ScalarValue::Int32(n), _) => n.map(i64::from),
        Expr::Literal(ScalarValue::UInt64(n), _) => n.and_then(|n| i64::try_from(n).ok()),
        _ => None,
    };
    let is_column = |e: &Expr| column_of(e, schema) == Some(column);
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, bound) = if is_column(left) { (*op, number(right)?) } else { (op.swap()?, is_column(right).then(|| number(left))??) };
            match op {
                Operator::LtEq | Operator::Eq => Some(bound),
                Operator::Lt => Some(bound - 1),
                _ => None,
            }
        }
        Expr::Between(between) if !between.negated && is_column(&between.expr) => number(&between.high),
        _ => None,
    }
}

/// Whether a filter takes the first rows of all there are.
pub(super) fn is_first_of_all(filter: &Filter) -> bool {
    let mut below = &*filter.input;
    while let LogicalPlan::Projection(Projection { input, .. }) | LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) = below {
        below = input;
    }
    let LogicalPlan::Window(window) = below else { return false };
    let bounded = |rank| split_conjunction(&filter.predicate).into_iter().any(|c| upper_bound(c, rank, filter.input.schema()).is_some());
    row_number(window).is_some_and(|function| function.params.partition_by.is_empty()) && rank_column(&filter.input).is_some_and(bounded)
}

/// Whether it is the number of a row in the order of arrival, for LIMIT.
fn is_by_arrival(window: &Window) -> bool {
    matches!(&window.window_expr[..], [Expr::Alias(alias)] if alias.name == NUMBER)
}

/// Whether a condition says no more than that a rank is at most so much; of the first row alone, that it is the first.
fn only_bounds(condition: &Expr, bound: i64) -> bool {
    matches!(condition, Expr::BinaryExpr(BinaryExpr { op, .. }) if *op != Operator::Eq || bound == 1)
}

impl Lowering<'_> {
    /// Whether a projection looks at the ranks that its input filters by; noted for when these are lowered.
    pub(super) fn note_rank_use(&mut self, projection: &Projection) {
        let LogicalPlan::Filter(filter) = &*projection.input else { return };
        let Some(rank) = rank_column(&filter.input) else { return };
        let schema = filter.input.schema();
        let seen = projection.expr.iter().flat_map(Expr::column_refs).any(|c| schema.index_of_column(c).ok() == Some(rank));
        self.rank_unseen = !seen;
    }

    /// The filter over a ROW_NUMBER: its bound goes into the ranking, the rest is a filter behind it. None for other filters.
    pub(super) fn rank_filter(&mut self, filter: &Filter) -> SqlResult<Option<Lowered>> {
        let (unseen, only_new) = (std::mem::take(&mut self.rank_unseen), std::mem::take(&mut self.only_new));
        let Some(rank) = rank_column(&filter.input) else { return Ok(None) };
        let schema = filter.input.schema().clone();
        let conditions = split_conjunction(&filter.predicate);
        let bound = conditions.iter().filter_map(|c| upper_bound(c, rank, &schema)).min();
        let Some(bound) = bound else { return Ok(None) };
        if bound > MAX_FIRST {
            return Err(SqlError::unsupported(&format!("the first {bound} rows"), "each change may move them all", "a smaller bound"));
        }
        let rest: Vec<Expr> =
            conditions.into_iter().filter(|c| upper_bound(c, rank, &schema) != Some(bound) || !only_bounds(c, bound)).cloned().collect();
        let rank_in_rest = rest.iter().flat_map(Expr::column_refs).any(|c| schema.index_of_column(c).ok() == Some(rank));
        // None of them: an empty ranking keeps nothing, and the filter behind it stands for itself.
        let first = usize::try_from(bound.max(1)).unwrap_or(1);
        self.rank = Some(Wanted { first, with_rank: !unseen || rank_in_rest || bound < 1 });
        self.only_new = only_new && rest.is_empty() && bound >= 1;
        let lowered = self.lower(&filter.input)?;
        if bound < 1 {
            return self.filter(lowered, &filter.predicate).map(Some);
        }
        match rest.into_iter().reduce(Expr::and) {
            Some(rest) => self.filter(lowered, &rest).map(Some),
            None => Ok(Some(lowered)),
        }
    }

    pub(super) fn ranked(&mut self, window: &Window, wanted: Wanted, only_new: bool) -> SqlResult<Lowered> {
        let Some(function) = row_number(window) else { return self.over(window) };
        let params = &function.params;
        if params.order_by.is_empty() && !is_by_arrival(window) {
            return Err(
                SqlError::new("ROW_NUMBER() without ORDER BY has no first rows").help("ROW_NUMBER() OVER (PARTITION BY k ORDER BY x)")
            );
        }
        if params.filter.is_some() || params.distinct || params.null_treatment.is_some() {
            return Err(SqlError::unsupported("FILTER, DISTINCT or IGNORE NULLS of ROW_NUMBER()", "it counts all rows", "WHERE"));
        }
        let input = self.lower(&window.input)?;
        // The time that the query names: a row of a window that has ended has the window's.
        let by_latest = by_time_descending(&params.order_by, &input);
        let of_window = |input: &Lowered, start: usize, end: usize| {
            let is_by = |wanted| params.partition_by.iter().any(|e| column_of(e, &input.schema) == Some(wanted));
            is_by(start) && is_by(end)
        };
        let at = |place| input.places.iter().position(|p| *p == place);
        let is_pending = at(Place::WindowStart).zip(at(Place::WindowEnd)).is_some_and(|(start, end)| of_window(&input, start, end));
        let (input, by_arrival, clocks) = match input.by_arrival(&params.order_by) {
            Some(ascending) => {
                let (rows, clocks) = self.without_clock(input)?;
                (rows, Some(ascending), Some(clocks))
            }
            None if is_pending => (self.at_window_end(input)?, None, None),
            None => (self.materialised(input)?, None, None),
        };
        if by_arrival == Some(false) && wanted.first > 1 {
            let why = "each row that comes would move all others";
            return Err(SqlError::unsupported(
                "the last rows in the order of arrival",
                why,
                "n <= 1, the last one, or a column of the rows",
            ));
        }
        // In the order of arrival rows are equal: the first of them to come is first, or the last one.
        let order_by = if by_arrival.is_some() { &params.order_by[1..] } else { &params.order_by[..] };
        for field in input.schema.fields() {
            check_class(field.data_type(), &format!("ROW_NUMBER() over rows with the column {}", field.name()))?;
        }
        for sort in order_by {
            check_ordered(&sort.expr.get_type(&*input.schema).map_err(SqlError::of_planner)?, &format!("ORDER BY {}", sort.expr))?;
        }
        let newest_first = by_arrival == Some(false) || wanted.first == 1 && by_latest;
        // Behind the order of arrival nothing tells rows apart.
        let order_by = if by_arrival.is_some() { &[] } else { order_by };
        let by: Vec<&Expr> = params.partition_by.iter().chain(order_by.iter().map(|s| &s.expr)).collect();
        let (node, places) = self.computed(&input, &by)?;
        let (keys, by) = places.split_at(params.partition_by.len());
        let order: Arc<[OrderColumn]> = by
            .iter()
            .zip(order_by)
            .map(|(&column, sort)| OrderColumn { column, descending: !sort.asc, nulls_first: sort.nulls_first })
            .collect();
        let glue = NodeNote { glue: true, ..NodeNote::default() };
        let keyed = self.add("key_by", key_columns(Arc::new(ColumnKeys(keys.to_vec()))), &[(node, Routing::Forward)], glue);
        let rank = window.schema.fields().len() - 1;
        let fields = input.schema.iter().map(|(table, field)| (table.cloned(), field.clone()));
        let (table, field) = window.schema.qualified_field(rank);
        let fields = fields.chain([(table.cloned(), field.clone())]).collect();
        let ranked_rows = Arc::new(DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?);
        let (partition, order_text) = (list(params.partition_by.iter()), list(params.order_by.iter().map(|s| &s.expr)));
        let detail = format!("first {} by {order_text} of ({partition})", wanted.first);
        if let Some(Fired { start, end, .. }) = input.fired.filter(|_| !input.updating)
            && of_window(&input, start, end)
        {
            let first = FirstRows { most: wanted.first, newest_first };
            return self.first_of_windows(keyed, input, order, first, ranked_rows, detail);
        }
        let ranking = Ranking {
            first: wanted.first,
            retracting: input.updating,
            newest_first,
            with_rank: wanted.with_rank,
            only_new,
            ttl_ms: self.lifetime().ms(),
        };
        let (schema, of_kernel): (_, Arc<str>) = (arrow_schema(&ranked_rows), partition.into());
        let factory = ranked(ranking, move || RowNumbers::new(order.clone(), schema.clone(), of_kernel.clone()));
        let kept = if input.updating { "every row".to_string() } else { format!("{} rows a partition", wanted.first) };
        let kept = format!("{kept}{}", size::each(&input.schema));
        let note = NodeNote {
            detail: format!("{detail}{}", of_updates(only_new)),
            state: vec![StateNote { what: kept, bound: self.lifetime().bound() }],
            class: self.lifetime().class(EqualityClass::Converging, "rows that are first so far"),
            glue: false,
        };
        let node = self.add("ranked", factory, &[(keyed, Routing::KeyGroup)], note);
        let mut lowered = Lowered::plain(node, ranked_rows, true);
        let known: Option<Vec<usize>> = params.partition_by.iter().map(|e| column_of(e, &input.schema)).collect();
        lowered.key = match (known, wanted) {
            (Some(key), Wanted { first: 1, .. }) => Some(key),
            (Some(key), Wanted { with_rank: true, .. }) => Some(key.into_iter().chain([lowered.schema.fields().len() - 1]).collect()),
            _ => None,
        };
        Ok(match clocks {
            Some(clocks) => clocks.put_back(lowered, &window.schema),
            None => lowered,
        })
    }

    /// The first rows of windows: once, when a window has ended. All rows of a window have one time, its last instant.
    fn first_of_windows(
        &mut self,
        keyed: NodeIndex,
        input: Lowered,
        order: Arc<[OrderColumn]>,
        first: FirstRows,
        ranked_rows: Arc<DFSchema>,
        detail: String,
    ) -> SqlResult<Lowered> {
        let rows = arrow_schema(&input.schema);
        let newest = if first.newest_first { ", the newest first" } else { "" };
        let keeping = Keeping {
            windows: INSTANT,
            columns: (0..rows.fields().len()).map(RowColumn::Row).chain([RowColumn::Rank]).collect(),
            rows,
            order,
            first,
            schema: arrow_schema(&ranked_rows),
            description: format!("{detail}{newest}"),
        };
        let kept = format!("{} rows a partition{}", first.most, size::each(&input.schema));
        let note = NodeNote {
            detail: format!("{detail}; once, when a window has ended"),
            state: vec![StateNote { what: kept, bound: Bound::Watermark }],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
            glue: false,
        };
        let node = self.kept_rows(keyed, keeping, note)?;
        let Lowered { rowtimes, lagging, fired, .. } = input;
        Ok(Lowered { rowtimes, lagging, fired: fired.map(Fired::complete), ..Lowered::plain(node, ranked_rows, false) })
    }

    /// The rows with what is needed besides their columns behind these; where each expression is.
    pub(super) fn computed(&mut self, input: &Lowered, exprs: &[&Expr]) -> SqlResult<(waterwheel_engine::graph::NodeIndex, Vec<usize>)> {
        let from = input.batch_schema()?;
        let own = input.schema.fields().len();
        let mut all: Vec<Expr> = (0..own).map(|i| super::column_expr(&input.schema, i)).collect();
        let mut fields: Vec<Field> = input.schema.fields().iter().map(|f| super::nullable(f)).collect();
        let mut places = Vec::with_capacity(exprs.len());
        for expr in exprs {
            let kind: DataType = expr.get_type(&from).map_err(SqlError::of_planner)?;
            check_class(&kind, &format!("{expr} in OVER"))?;
            places.push(column_of(expr, &input.schema).unwrap_or_else(|| {
                fields.push(Field::new(format!("by{}", fields.len()), kind, true));
                all.push((*expr).clone());
                fields.len() - 1
            }));
        }
        if all.len() == own && input.places.iter().enumerate().all(|(i, place)| *place == Place::Batch(i)) {
            return Ok((input.node, places));
        }
        let node = self.calc(input, None, Some(&all), Arc::new(Schema::new(fields)), "project")?;
        Ok((node, places))
    }
}

/// Whether the order is by event time alone, the latest first: then of two rows of one time the one that came last is.
fn by_time_descending(order: &[Sort], input: &Lowered) -> bool {
    let [Sort { expr, asc: false, .. }] = order else { return false };
    column_of(expr, &input.schema).is_some_and(|i| input.is_rowtime(i))
}

pub(super) fn list<'a>(exprs: impl Iterator<Item = &'a Expr>) -> String {
    exprs.map(|e| e.schema_name().to_string()).collect::<Vec<_>>().join(", ")
}
