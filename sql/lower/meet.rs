//! Where two streams meet: keys, rows without a key, the engine's join between them.
//!
//! A key with a NULL in it is equal to none. Rows with such a key go round the join: where their side is an outer one they
//! are results at once, padded, and else they are left out. So they make no load of one key, and no state.
//!
//! Invariant: the columns of the result are those of the plan's node, in order.

use super::join::Joined;
use super::lifetimes::Lifetime;
use super::{Lowered, Lowering, Place, arrow_schema, check_class, check_ordered, column_expr, column_of, nullable};
use crate::error::{SqlError, SqlResult};
use crate::kernels::keys::ColumnKeys;
use crate::kernels::packed::Packed;
use crate::kernels::pairs::{PairKernelOf, Pairs};
use crate::parser::type_name;
use arrow::datatypes::{Field, Schema};
use datafusion_common::ScalarValue;
use datafusion_expr::expr::Expr;
use datafusion_expr::utils::{conjunction, disjunction};
use datafusion_expr::{ExprSchemable, lit};
use std::sync::Arc;
use waterwheel_engine::graph::{EqualityClass, NodeIndex, NodeNote, Routing, StateNote};
use waterwheel_engine::operators::joins::{
    Bounds, Forget, JoinKind, LEFT, RIGHT, growing_join, interval_join, lookup_join, regular_join, temporal_join,
};
use waterwheel_engine::operators::{OperatorFactory, key_columns, union};
use waterwheel_engine::record::{Batch, ChangeBatch};
use waterwheel_engine::windowing::{SliceLayout, window_join};

/// Which of the engine's joins.
pub(super) enum Met {
    /// What is kept of each side nothing else bounds.
    Regular([Lifetime; 2]),
    Interval(Bounds),
    /// Rows of one instant, which is the last of their window.
    AtWindowEnd,
    /// Rows with the versions of their time.
    Temporal,
    /// Rows with the rows of a table that was read in first.
    Lookup,
}

/// How rows meet, and what is to be said of it.
pub(super) struct Meeting {
    pub(super) how: Met,
    /// Results are taken back.
    pub(super) updating: bool,
    pub(super) state: Vec<StateNote>,
    pub(super) class: Vec<(EqualityClass, String)>,
}

/// A side on its way into a join.
struct Side {
    /// Keyed rows.
    keyed: NodeIndex,
    /// Rows without a key, as results.
    alone: Option<NodeIndex>,
}

impl Lowering<'_> {
    /// The join itself.
    pub(super) fn meet(&mut self, joined: Joined, meeting: Meeting) -> SqlResult<Lowered> {
        let pairs = Arc::new(pairs(&joined, meeting.updating)?);
        let left = self.side(&joined, LEFT)?;
        let right = self.side(&joined, RIGHT)?;
        let kind = joined.kind;
        let kernel = move || PairKernelOf::new(pairs.clone());
        let (name, factory): (_, OperatorFactory) = match meeting.how {
            Met::Regular([Lifetime(None), Lifetime(None)]) if kind == JoinKind::Inner && !meeting.updating => {
                ("join", growing_join(kernel))
            }
            Met::Regular(lifetimes) => {
                let forget = lifetimes.map(|lifetime| lifetime.ms().map_or(Forget::Never, Forget::ByClock));
                ("join", regular_join(kind, forget, kernel))
            }
            Met::Interval(bounds) => ("interval_join", interval_join(bounds, kind, kernel)),
            Met::AtWindowEnd => {
                let instant = SliceLayout::new(1, 1, 0).map_err(|e| SqlError::new(e.report()))?;
                ("window_join", window_join(instant, kind, kernel))
            }
            Met::Temporal => ("temporal_join", temporal_join(kind, Arc::new(is_deleted), kernel)),
            Met::Lookup => ("lookup_join", lookup_join(kind, kernel)),
        };
        let changes = if meeting.updating { "rows change later" } else { "rows only come" };
        let note =
            NodeNote { detail: format!("{}; {changes}", described(&joined)), state: meeting.state, class: meeting.class, glue: false };
        let inputs = [(left.keyed, Routing::KeyGroup), (right.keyed, Routing::KeyGroup)];
        let mut node = self.add(name, factory, &inputs, note);
        let alone: Vec<_> = [left.alone, right.alone].into_iter().flatten().map(|node| (node, Routing::Forward)).collect();
        if !alone.is_empty() {
            let all = [vec![(node, Routing::Forward)], alone].concat();
            node = self.add("union", union(), &all, NodeNote { glue: true, ..NodeNote::default() });
        }
        Ok(Lowered::plain(node, joined.schema.clone(), meeting.updating))
    }

    /// Computes the keys of a side, behind its columns, and takes out the rows that have none.
    fn side(&mut self, joined: &Joined, side: usize) -> SqlResult<Side> {
        let input = &joined.sides[side];
        let from = input.batch_schema()?;
        let keys: Vec<&Expr> = joined.on.iter().map(|(left, right)| if side == LEFT { left } else { right }).collect();
        let may_be_null = |key: &&&Expr| key.nullable(&from).unwrap_or(true);
        let without: Vec<Expr> =
            if joined.null_is_equal { Vec::new() } else { keys.iter().filter(may_be_null).map(|key| (**key).clone().is_null()).collect() };
        let columns = input.schema.fields().len();
        let (mut exprs, mut positions) = (all_columns(input), Vec::with_capacity(keys.len()));
        for key in &keys {
            positions.push(column_of(key, &input.schema).unwrap_or(exprs.len()));
            if positions.last() == Some(&exprs.len()) {
                exprs.push((*key).clone());
            }
        }
        let in_order = input.places.iter().enumerate().all(|(i, place)| *place == Place::Batch(i));
        let mut node = input.node;
        if !in_order || exprs.len() > columns || !without.is_empty() {
            let mut fields: Vec<Field> = input.schema.fields().iter().map(|f| nullable(f)).collect();
            for (i, expr) in exprs.iter().enumerate().skip(columns) {
                fields.push(Field::new(format!("key{i}"), expr.get_type(&from).map_err(SqlError::of_planner)?, true));
            }
            let has_key = conjunction(without.iter().map(|is_null| !is_null.clone()));
            node = self.calc(input, has_key.as_ref(), Some(&exprs), Arc::new(Schema::new(fields)), "project")?;
        }
        let alone = match disjunction(without).filter(|_| joined.kind.wants_alone(side)) {
            Some(has_none) => {
                Some(self.calc(input, Some(&has_none), Some(&padded(joined, side)), arrow_schema(&joined.schema), "project")?)
            }
            None => None,
        };
        let glue = NodeNote { glue: true, ..NodeNote::default() };
        let by = key_columns(Arc::new(ColumnKeys(positions)));
        let keyed = self.add("key_by", by, &[(node, Routing::Forward)], glue);
        Ok(Side { keyed, alone })
    }
}

fn all_columns(input: &Lowered) -> Vec<Expr> {
    (0..input.schema.fields().len()).map(|i| column_expr(&input.schema, i)).collect()
}

/// The columns of a result of a row of this side alone.
fn padded(joined: &Joined, side: usize) -> Vec<Expr> {
    let own = all_columns(&joined.sides[side]);
    if joined.kind == JoinKind::Anti {
        return own;
    }
    let none = |side: usize| {
        let kinds = joined.sides[side].schema.fields().iter();
        kinds.map(|field| lit(ScalarValue::try_new_null(field.data_type()).unwrap_or(ScalarValue::Null))).collect::<Vec<_>>()
    };
    if side == LEFT { [own, none(RIGHT)].concat() } else { [none(LEFT), own].concat() }
}

/// What the kernel is told.
fn pairs(joined: &Joined, updating: bool) -> SqlResult<Pairs> {
    for (left, right) in &joined.on {
        let kind = |expr: &Expr, side: usize| expr.get_type(&joined.sides[side].schema).map_err(SqlError::of_planner);
        let (a, b) = (kind(left, LEFT)?, kind(right, RIGHT)?);
        // Where NULL is no value, one within a row makes it equal to nothing, which bytes do not tell.
        let check = if joined.null_is_equal { check_class } else { check_ordered };
        let (class, other) = (check(&a, &format!("a join on {left}"))?, check(&b, &format!("a join on {right}"))?);
        if a != b && (class != other || matches!(a, arrow::datatypes::DataType::Decimal128(_, _))) {
            return Err(SqlError::new(format!("{left} is {}, {right} is {}", type_name(&a), type_name(&b))).help("CAST one to the other"));
        }
    }
    let packed = |side: usize| {
        let input = &joined.sides[side];
        Packed::of(&arrow_schema(&input.schema), input.updating).map_err(|name| {
            let kind = input.schema.fields().iter().find(|f| *f.name() == name).map_or(String::new(), |f| type_name(f.data_type()));
            SqlError::unsupported(
                &format!("column {name:?} of type {kind} in a join"),
                "a join does not keep such values yet",
                "select the fields of it that are needed, before the join",
            )
        })
    };
    let sides = [packed(LEFT)?, packed(RIGHT)?];
    let condition = joined.as_sides().compile(joined.filter.clone(), &sides)?;
    Ok(Pairs {
        sides,
        condition,
        schema: arrow_schema(&joined.schema),
        only_left: matches!(joined.kind, JoinKind::Semi | JoinKind::Anti),
        updating,
        described: described(joined),
    })
}

/// Kind, keys and condition, for people and to tell joins apart.
fn described(joined: &Joined) -> String {
    let mut parts: Vec<String> = joined.on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
    parts.extend(joined.filter.iter().map(ToString::to_string));
    let name = joined.kind.name();
    if parts.is_empty() { format!("{name}, every row with every row") } else { format!("{name} on {}", parts.join(" AND ")) }
}

/// Whether a version says that its key has none from here on.
fn is_deleted(versions: &dyn Batch, row: usize) -> bool {
    versions.as_any().downcast_ref::<ChangeBatch>().is_some_and(|changes| changes.kind(row).weight() < 0)
}
