//! Conditions of joins, taken apart: what bounds two event times, what is a plain comparison, and the rest.
//!
//! Invariant: the parts together are true of a pair exactly if the condition is.

use super::physical;
use crate::error::{SqlError, SqlResult};
use crate::kernels::condition::{Comparison, Condition, Operand, Orders, Residual};
use crate::kernels::packed::Packed;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion_expr::expr::{Between, BinaryExpr, Expr};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Operator, cast};
use std::sync::Arc;
use waterwheel_engine::operators::joins::{LEFT, RIGHT};

/// Side and column of what a condition names.
type At = (usize, usize);

/// The two inputs of a join, as a condition sees them.
pub(super) struct Sides<'a> {
    pub(super) schemas: [&'a DFSchema; 2],
    /// Columns that hold an event time.
    pub(super) rowtimes: [Vec<usize>; 2],
}

/// What a comparison says of an event time of the right row, less one of the left row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart {
    /// The two columns.
    pub(super) times: [usize; 2],
    /// In milliseconds.
    pub(super) at_least: Option<i64>,
    pub(super) at_most: Option<i64>,
}

/// The parts of a condition that must all be true; `a BETWEEN b AND c` is two of them.
pub(super) fn parts(filter: Option<&Expr>) -> Vec<Expr> {
    let mut parts = Vec::new();
    for part in filter.map(split_conjunction).unwrap_or_default() {
        match part {
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let compare = |op, bound: &Expr| Expr::BinaryExpr(BinaryExpr::new(expr.clone(), op, Box::new(bound.clone())));
                parts.extend([compare(Operator::GtEq, low), compare(Operator::LtEq, high)]);
            }
            other => parts.push(other.clone()),
        }
    }
    parts
}

/// Refuses what the planner has left of subqueries.
pub(super) fn check_subqueries(expr: &Expr) -> SqlResult<()> {
    let is_subquery = |e: &Expr| {
        Ok(matches!(
            e,
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) | Expr::OuterReferenceColumn(..)
        ))
    };
    if !expr.exists(is_subquery).map_err(SqlError::of_planner)? {
        return Ok(());
    }
    Err(SqlError::unsupported(
        "this subquery",
        "it cannot be made a join",
        "IN, EXISTS or a value of an aggregate, compared in WHERE with columns by =",
    ))
}

impl Sides<'_> {
    fn column(&self, column: &Column) -> Option<At> {
        [LEFT, RIGHT].into_iter().find_map(|side| Some((side, self.schemas[side].index_of_column(column).ok()?)))
    }

    /// An event time, and the milliseconds added to it.
    fn time(&self, expr: &Expr) -> Option<(At, i64)> {
        match expr {
            Expr::Column(column) => {
                let (side, column) = self.column(column)?;
                self.rowtimes[side].contains(&column).then_some(((side, column), 0))
            }
            _ => {
                let (inner, plus) = shifted(expr)?;
                let (at, more) = self.time(inner)?;
                Some((at, more.checked_add(plus)?))
            }
        }
    }

    /// What a comparison says of event times of both sides.
    pub(super) fn apart(&self, part: &Expr) -> Option<Apart> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else { return None };
        let ((first, a), (second, b)) = (self.time(left)?, self.time(right)?);
        let (times, op, a, b) = match (first, second) {
            ((LEFT, l), (RIGHT, r)) => ([l, r], *op, a, b),
            ((RIGHT, r), (LEFT, l)) => ([l, r], op.swap()?, b, a),
            _ => return None,
        };
        // left + a op right + b
        let by = a.checked_sub(b)?;
        let (at_least, at_most) = match op {
            Operator::LtEq => (Some(by), None),
            Operator::Lt => (Some(by.checked_add(1)?), None),
            Operator::GtEq => (None, Some(by)),
            Operator::Gt => (None, Some(by.checked_sub(1)?)),
            Operator::Eq => (Some(by), Some(by)),
            _ => return None,
        };
        Some(Apart { times, at_least, at_most })
    }

    /// The kernel's form of a condition.
    pub(super) fn compile(&self, parts: Vec<Expr>, packed: &[Packed; 2]) -> SqlResult<Condition> {
        let mut condition = Condition::default();
        let mut rest = Vec::new();
        for part in parts {
            match self.comparison(&part, packed) {
                Some(comparison) => condition.comparisons.push(comparison),
                None => rest.push(part),
            }
        }
        condition.residual = conjunction(rest).map(|rest| self.residual(rest, packed)).transpose()?;
        Ok(condition)
    }

    fn comparison(&self, part: &Expr, packed: &[Packed; 2]) -> Option<Comparison> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else { return None };
        let orders = |less, equal, greater| Some(Orders { less, equal, greater });
        let orders = match op {
            Operator::Eq => orders(false, true, false),
            Operator::NotEq => orders(true, false, true),
            Operator::Lt => orders(true, false, false),
            Operator::LtEq => orders(true, true, false),
            Operator::Gt => orders(false, false, true),
            Operator::GtEq => orders(false, true, true),
            _ => None,
        }?;
        let ((left, a), (right, b)) = (self.operand(left, packed)?, self.operand(right, packed)?);
        (a == b).then_some(Comparison { left, orders, right })
    }

    /// An operand that is read from packed rows, and the type that it is compared as.
    fn operand(&self, expr: &Expr, packed: &[Packed; 2]) -> Option<(Operand, DataType)> {
        match expr {
            Expr::Alias(alias) => self.operand(&alias.expr, packed),
            Expr::Column(column) => {
                let (side, column) = self.column(column)?;
                Some((Operand::Column(side, column, 0), compared(packed[side].kind(column))?))
            }
            Expr::Literal(value, _) => literal(value),
            // Whole numbers are all of one width once they are unpacked.
            Expr::Cast(c) if *c.field.data_type() == DataType::Int64 => {
                self.operand(&c.expr, packed).filter(|(_, kind)| *kind == DataType::Int64)
            }
            _ => {
                let (inner, plus) = shifted(expr)?;
                match self.operand(inner, packed)? {
                    (Operand::Column(side, column, more), kind @ DataType::Timestamp(TimeUnit::Millisecond, _)) => {
                        Some((Operand::Column(side, column, more.checked_add(plus)?), kind))
                    }
                    _ => None,
                }
            }
        }
    }

    fn residual(&self, expr: Expr, packed: &[Packed; 2]) -> SqlResult<Residual> {
        let (mut columns, mut missing): (Vec<At>, Option<Column>) = (Vec::new(), None);
        let renamed = expr.transform(|e| {
            let Expr::Column(column) = &e else { return Ok(Transformed::no(e)) };
            let Some(at) = self.column(column) else {
                missing = Some(column.clone());
                return Ok(Transformed::no(e));
            };
            let position = columns.iter().position(|c| *c == at).unwrap_or_else(|| {
                columns.push(at);
                columns.len() - 1
            });
            Ok(Transformed::yes(Expr::Column(Column::new(None::<TableReference>, format!("c{position}")))))
        });
        let expr = renamed.map_err(SqlError::of_planner)?.data;
        if let Some(column) = missing {
            return Err(SqlError::new(format!("column {:?} of a join's condition is in neither side", column.name)));
        }
        let fields: Vec<Field> = columns
            .iter()
            .enumerate()
            .map(|(i, &(side, column))| Field::new(format!("c{i}"), packed[side].kind(column).clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let over = DFSchema::try_from(schema.clone()).map_err(SqlError::of_planner)?;
        let mut physical_expr = physical(&expr, &over)?;
        if physical_expr.data_type(&schema).map_err(SqlError::of_planner)? != DataType::Boolean {
            // NULL alone has no type.
            physical_expr = physical(&cast(expr, DataType::Boolean), &over)?;
        }
        Ok(Residual { expr: physical_expr, columns, schema })
    }
}

/// The type as which values of a column are compared, where packed rows can tell.
fn compared(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::Date32 | DataType::Timestamp(_, _) | DataType::Boolean => kind.clone(),
        DataType::Decimal128(_, scale) => DataType::Decimal128(38, *scale),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        _ => return None,
    })
}

fn literal(value: &ScalarValue) -> Option<(Operand, DataType)> {
    let int = |n: i64, kind| Some((Operand::Int(n), kind));
    match value {
        ScalarValue::Int8(Some(n)) => int(i64::from(*n), DataType::Int64),
        ScalarValue::Int16(Some(n)) => int(i64::from(*n), DataType::Int64),
        ScalarValue::Int32(Some(n)) => int(i64::from(*n), DataType::Int64),
        ScalarValue::Int64(Some(n)) => int(*n, DataType::Int64),
        ScalarValue::TimestampMillisecond(Some(n), _) => int(*n, value.data_type()),
        ScalarValue::Decimal128(Some(n), _, scale) => Some((Operand::Decimal(*n), DataType::Decimal128(38, *scale))),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Some((Operand::Text(text.clone()), DataType::Utf8))
        }
        _ => None,
    }
}

/// What an expression adds a fixed span of time to, and its milliseconds.
fn shifted(expr: &Expr) -> Option<(&Expr, i64)> {
    match expr {
        Expr::Alias(alias) => Some((&alias.expr, 0)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (op, &**left, &**right) {
            (Operator::Plus, inner, Expr::Literal(span, _)) | (Operator::Plus, Expr::Literal(span, _), inner) => {
                Some((inner, span_ms(span)?))
            }
            (Operator::Minus, inner, Expr::Literal(span, _)) => Some((inner, span_ms(span)?.checked_neg()?)),
            _ => None,
        },
        _ => None,
    }
}

/// Milliseconds of an interval that has as many at any time.
fn span_ms(span: &ScalarValue) -> Option<i64> {
    const DAY: i64 = 86_400_000;
    match span {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 && i.nanoseconds % 1_000_000 == 0 => {
            i64::from(i.days).checked_mul(DAY)?.checked_add(i.nanoseconds / 1_000_000)
        }
        ScalarValue::IntervalDayTime(Some(i)) => i64::from(i.days).checked_mul(DAY)?.checked_add(i64::from(i.milliseconds)),
        ScalarValue::DurationMillisecond(Some(ms)) => Some(*ms),
        _ => None,
    }
}
