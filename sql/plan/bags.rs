//! INTERSECT ALL and EXCEPT ALL: copies of a row are counted against each other.
//!
//! Each copy gets its number among the rows equal to it, on both sides; then a copy stays if the other side has one of the same
//! number, or has not.
//!
//! Invariant: rows are equal where all their columns are, NULLs too.

use super::walk::each_body;
use crate::error::{SqlError, SqlResult};
use crate::parser::FlinkDialect;
use datafusion_common::{Column, JoinType, NullEquality, Result as PlanResult};
use datafusion_expr::planner::RelationPlannerContext;
use datafusion_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition, expr::WindowFunction};
use datafusion_sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SetExpr, SetOperator, SetQuantifier, Spanned,
    TableFactor, VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Table functions that stand for them.
const INTERSECT: &str = "INTERSECT_ALL";
const EXCEPT: &str = "EXCEPT_ALL";

/// The number of a copy.
const COPY: &str = "copy of a row";

/// Puts table functions in their place.
pub(super) fn rewrite(query: &mut Query) -> SqlResult<()> {
    each_body(query, |body, _| operation(body))
}

fn operation(body: &mut SetExpr) -> SqlResult<()> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Ok(()) };
    let name = match (&*set_quantifier, &*op) {
        (SetQuantifier::All, SetOperator::Intersect) => INTERSECT,
        (SetQuantifier::All, SetOperator::Except | SetOperator::Minus) => EXCEPT,
        (SetQuantifier::AllByName | SetQuantifier::ByName | SetQuantifier::DistinctByName, SetOperator::Union) => return Ok(()),
        (SetQuantifier::AllByName | SetQuantifier::ByName | SetQuantifier::DistinctByName, _) => {
            let what = format!("{op} {set_quantifier}");
            return Err(SqlError::unsupported(&what, "columns are matched by their places", &op.to_string()).at(left.span()));
        }
        _ => return Ok(()),
    };
    let text = format!("SELECT * FROM TABLE({name}((SELECT 1), (SELECT 1)))");
    let read = Parser::new(&FlinkDialect).try_with_sql(&text).and_then(|mut parser| parser.parse_query());
    let mut template = *read.map_err(|e| SqlError::new(e.to_string()))?;
    let mut sides = Sides(vec![std::mem::replace(&mut **right, empty()), std::mem::replace(&mut **left, empty())]);
    let _ = template.visit(&mut sides);
    *body = *template.body;
    Ok(())
}

fn empty() -> SetExpr {
    SetExpr::Values(datafusion_sql::sqlparser::ast::Values { explicit_row: false, value_keyword: false, rows: Vec::new() })
}

/// Puts the sides of an operation into the two subqueries of a template.
struct Sides(Vec<SetExpr>);

impl VisitorMut for Sides {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
        if let SqlExpr::Subquery(query) = expr
            && let Some(side) = self.0.pop()
        {
            *query.body = side;
        }
        ControlFlow::Continue(())
    }
}

/// The plan of such a table function; none if it is another one.
pub(super) fn plan(function: &Function, context: &mut dyn RelationPlannerContext) -> SqlResult<Option<LogicalPlan>> {
    let (kind, name) = match function.name.to_string().as_str() {
        INTERSECT => (JoinType::LeftSemi, "INTERSECT ALL"),
        EXCEPT => (JoinType::LeftAnti, "EXCEPT ALL"),
        _ => return Ok(None),
    };
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let mut sides = Vec::with_capacity(2);
    for arg in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Subquery(query))) = arg else { return Ok(None) };
        let table = TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
        sides.push(context.plan(table).map_err(SqlError::of_planner)?);
    }
    let Ok([left, right]) = <[LogicalPlan; 2]>::try_from(sides) else { return Ok(None) };
    let kinds = |plan: &LogicalPlan| plan.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    if kinds(&left) != kinds(&right) {
        return Err(SqlError::new(format!("the sides of {name} have columns of other types")).help("CAST them to the same types"));
    }
    let row_number = context.context_provider().get_window_meta("row_number");
    let row_number = row_number.ok_or_else(|| SqlError::new("ROW_NUMBER is not known"))?;
    let numbered = |plan: LogicalPlan, alias: &str| -> PlanResult<(LogicalPlanBuilder, Vec<Column>)> {
        let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        let number = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number.clone()), Vec::new()));
        // Of rows that are equal in all columns any order is as good; downwards, no event time is waited for.
        let order = columns.first().map(|column| column.clone().sort(false, false)).into_iter().collect();
        let number = number.partition_by(columns).order_by(order).build()?.alias(COPY);
        let numbered = LogicalPlanBuilder::from(plan).window(vec![number])?.alias(alias)?;
        let columns = numbered.schema().columns();
        Ok((numbered, columns))
    };
    let planned = || -> PlanResult<LogicalPlan> {
        let ((left, of_left), (right, of_right)) = (numbered(left, "left")?, numbered(right, "right")?);
        let kept: Vec<Expr> = of_left.iter().filter(|column| column.name != COPY).map(|c| Expr::Column(c.clone()).alias(&c.name)).collect();
        let joined = left.join_detailed(right.build()?, kind, (of_left, of_right), None, NullEquality::NullEqualsNull)?;
        joined.project(kept)?.build()
    };
    planned().map(Some).map_err(SqlError::of_planner)
}
