//! `x = ANY (SELECT ..)`, `x > ALL (SELECT ..)`; SOME is another word for ANY.
//!
//! `= ANY` is IN and `<> ALL` is NOT IN. Whatever else is asked of all values is asked of the smallest or the largest: there is a value
//! that x is larger than if x is larger than the smallest one. Where none is, a value that is NULL might be one.
//!
//! Invariant: the three values of SQL; of no rows ANY is false and ALL is true.

use super::spans::binary;
use super::sugar::case;
use super::walk::{each_body, each_expr};
use crate::error::{SqlError, SqlResult};
use crate::parser::FlinkDialect;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Spanned, TableFactor, UnaryOperator, Value, visit_expressions,
};
use datafusion_sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Aggregates that are NULL where there are no rows, and no values that are NULL. They stay what they are with all other rows.
const ROWS: &str = "MIN(1)";
const NULLS: &str = "MIN(CASE WHEN (v) IS NULL THEN 1 END)";

/// What knows the names of aggregate functions.
type IsAggregate<'a> = &'a dyn Fn(&str) -> bool;

/// Rewrites them.
pub(super) fn rewrite(query: &mut Query, is_aggregate: IsAggregate<'_>) -> SqlResult<()> {
    each_body(query, |body, _| match body {
        SetExpr::Select(select) => {
            let conditions = [select.selection.as_mut(), select.having.as_mut()];
            conditions.into_iter().flatten().try_for_each(|expr| condition(expr, is_aggregate))
        }
        _ => Ok(()),
    })?;
    each_expr(query, |expr| {
        if let Some(asked) = Asked::of(expr, is_aggregate)? {
            *expr = asked.value()?;
        }
        Ok(())
    })
}

/// Where it is only asked whether that is true.
fn condition(expr: &mut Expr, is_aggregate: IsAggregate<'_>) -> SqlResult<()> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            condition(left, is_aggregate)?;
            condition(right, is_aggregate)
        }
        Expr::Nested(inner) => condition(inner, is_aggregate),
        _ => {
            if let Some(asked) = Asked::of(expr, is_aggregate)? {
                *expr = asked.is_true()?;
            }
            Ok(())
        }
    }
}

/// A comparison with all rows of a subquery.
struct Asked<'a> {
    value: &'a Expr,
    op: BinaryOperator,
    of: &'a Query,
    all: bool,
    is_aggregate: IsAggregate<'a>,
}

impl<'a> Asked<'a> {
    fn of(expr: &'a Expr, is_aggregate: IsAggregate<'a>) -> SqlResult<Option<Asked<'a>>> {
        let (value, op, of, all) = match expr {
            Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, false),
            Expr::AllOp { left, compare_op, right } => (left, compare_op, right, true),
            _ => return Ok(None),
        };
        let word = if all { "ALL" } else { "ANY" };
        let Expr::Subquery(query) = &**of else {
            let what = format!("{op} {word} of a list or an array");
            let instead = "x IN (1, 2, 3), ARRAY_CONTAINS(array, x)";
            return Err(SqlError::unsupported(&what, "it is of the rows of a subquery", instead).at(of.span()));
        };
        match (&**value, op) {
            (Expr::Tuple(_), BinaryOperator::Eq) if !all => {}
            (Expr::Tuple(_), BinaryOperator::NotEq) if all => {}
            (Expr::Tuple(_), _) => {
                let what = format!("(a, b) {op} {word}");
                return Err(SqlError::unsupported(&what, "rows of values have no order", "(a, b) [NOT] IN (SELECT ..)").at(value.span()));
            }
            _ => {}
        }
        Ok(Some(Asked { value, op: op.clone(), of: query, all, is_aggregate }))
    }

    /// What it is by another name.
    fn membership(&self) -> Option<Expr> {
        let negated = match (&self.op, self.all) {
            (BinaryOperator::Eq, false) => false,
            (BinaryOperator::NotEq, true) => true,
            _ => return None,
        };
        Some(Expr::InSubquery { expr: Box::new(self.value.clone()), subquery: Box::new(self.of.clone()), negated })
    }

    fn is_true(&self) -> SqlResult<Expr> {
        if let Some(is_in) = self.membership() {
            return Ok(is_in);
        }
        if !self.all {
            return self.compared(&self.op, false);
        }
        // One NULL, and it is not known of all.
        let all = binary(self.compared(&self.op, true)?, BinaryOperator::And, Expr::IsNull(Box::new(self.subquery(NULLS)?)));
        Ok(nested(binary(Expr::IsNull(Box::new(self.subquery(ROWS)?)), BinaryOperator::Or, nested(all))))
    }

    fn value(&self) -> SqlResult<Expr> {
        if let Some(is_in) = self.membership() {
            return Ok(nested(is_in));
        }
        if self.all {
            // There is none of which the contrary is true.
            let op = contrary(&self.op).ok_or_else(|| self.no_comparison())?;
            let any = Asked { op, all: false, ..*self };
            return Ok(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested(any.value()?)) });
        }
        let found = self.compared(&self.op, false)?;
        let any = Expr::IsNotNull(Box::new(self.subquery(ROWS)?));
        let is_null = binary(Expr::IsNull(Box::new(nested(self.value.clone()))), BinaryOperator::And, any);
        let has_null = Expr::IsNotNull(Box::new(self.subquery(NULLS)?));
        let unknown = binary(nested(is_null), BinaryOperator::Or, has_null);
        let boolean = |value| Expr::Value(Value::Boolean(value).into());
        Ok(nested(case(found, boolean(true), case(unknown, Expr::Value(Value::Null.into()), boolean(false)))))
    }

    /// The comparison with the value of which it is true if it is of any, or of all.
    fn compared(&self, op: &BinaryOperator, all: bool) -> SqlResult<Expr> {
        let with = |op: &BinaryOperator, extreme: &str| {
            let value = self.subquery(&format!("{extreme}(v)"))?;
            Ok(binary(nested(self.value.clone()), op.clone(), value))
        };
        match op {
            BinaryOperator::Gt | BinaryOperator::GtEq => with(op, if all { "MAX" } else { "MIN" }),
            BinaryOperator::Lt | BinaryOperator::LtEq => with(op, if all { "MIN" } else { "MAX" }),
            // Equal to all: there is one value, which is both. Unlike one: unlike one of the two.
            BinaryOperator::Eq if all => Ok(nested(binary(with(op, "MIN")?, BinaryOperator::And, with(op, "MAX")?))),
            BinaryOperator::NotEq if !all => Ok(nested(binary(with(op, "MIN")?, BinaryOperator::Or, with(op, "MAX")?))),
            _ => Err(self.no_comparison()),
        }
    }

    /// An aggregate of the values `v` of the subquery.
    fn subquery(&self, aggregate: &str) -> SqlResult<Expr> {
        let value = plain_value(self.of, self.is_aggregate);
        let named = value.map_or_else(|| "`values`.`value`".to_string(), |value| format!("({value})"));
        let template = format!("(SELECT {} FROM (SELECT 1) AS `values` (`value`))", aggregate.replace("(v)", &format!("({named})")));
        let parsed = Parser::new(&FlinkDialect).try_with_sql(&template).and_then(|mut parser| parser.parse_expr());
        let mut subquery = parsed.map_err(|e| SqlError::new(e.to_string()))?;
        let Expr::Subquery(around) = &mut subquery else { return Ok(subquery) };
        let SetExpr::Select(select) = &mut *around.body else { return Ok(subquery) };
        match &*self.of.body {
            SetExpr::Select(own) if value.is_some() => {
                let projection = std::mem::take(&mut select.projection);
                **select = Select { projection, ..(**own).clone() };
            }
            _ => {
                for table in &mut select.from {
                    if let TableFactor::Derived { subquery: inner, .. } = &mut table.relation {
                        **inner = self.of.clone();
                    }
                }
            }
        }
        Ok(subquery)
    }

    fn no_comparison(&self) -> SqlError {
        let word = if self.all { "ALL" } else { "ANY" };
        SqlError::unsupported(&format!("{} {word}", self.op), "it is no comparison", "=, <>, <, <=, > or >=").at(self.value.span())
    }
}

fn contrary(op: &BinaryOperator) -> Option<BinaryOperator> {
    Some(match op {
        BinaryOperator::Eq => BinaryOperator::NotEq,
        BinaryOperator::NotEq => BinaryOperator::Eq,
        BinaryOperator::Lt => BinaryOperator::GtEq,
        BinaryOperator::LtEq => BinaryOperator::Gt,
        BinaryOperator::Gt => BinaryOperator::LtEq,
        BinaryOperator::GtEq => BinaryOperator::Lt,
        _ => return None,
    })
}

/// The value of a subquery that is one SELECT of plain values: then an aggregate may stand in the place of it.
fn plain_value<'a>(query: &'a Query, is_aggregate: IsAggregate<'_>) -> Option<&'a Expr> {
    let SetExpr::Select(select) = &*query.body else { return None };
    let is_grouped = select.having.is_some() || !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    if is_grouped || select.distinct.is_some() || query.with.is_some() || query.limit_clause.is_some() {
        return None;
    }
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] = &select.projection[..] else { return None };
    let computed = visit_expressions(value, |part| match part {
        Expr::Function(call) if call.over.is_some() || is_aggregate(&call.name.to_string().to_lowercase()) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    computed.is_continue().then_some(value)
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}
