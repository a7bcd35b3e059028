//! GROUPING SETS, ROLLUP and CUBE: several GROUP BYs over one input.
//!
//! A row goes once for each set into one aggregate by all keys and the number of the set; keys that are not of the set are NULL
//! there. The set without keys is an aggregate of all rows like any other: it has a result of no rows, too.
//!
//! Invariant: what is computed of a row is computed once, before it is multiplied. The columns of the result are those of the
//! plan's node: the keys, the number of the set, then the calls.

use super::aggregate::call_of;
use super::rows::named;
use super::{Lowered, Lowering, Place};
use crate::error::{SqlError, SqlResult};
use crate::kernels::expand::{Expand, KeySet};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Alias, Expr, GroupingSet};
use datafusion_expr::utils::{enumerate_grouping_sets, grouping_set_to_exprlist};
use datafusion_expr::{Aggregate, EmptyRelation, ExprSchemable, LogicalPlan, Projection, cast, lit};
use std::sync::Arc;
use waterwheel_engine::graph::{NodeNote, Routing};
use waterwheel_engine::operators::columns;

/// The column with the number of the set.
const SET: &str = Aggregate::INTERNAL_GROUPING_ID;

impl Lowering<'_> {
    pub(super) fn grouping_sets(&mut self, node: &Aggregate, mut input: Lowered) -> SqlResult<Lowered> {
        let keys = grouping_set_to_exprlist(&node.group_expr).map_err(SqlError::of_planner)?;
        let sets = sets_of(&node.group_expr, &keys)?;
        // A window is one of a row's columns where not every set is by it.
        let varies = |key: usize| sets.iter().any(|set| !set.has[key]);
        if keys.iter().enumerate().any(|(i, key)| varies(i) && self.uses_windows(key, &input)) {
            input = self.materialised(input)?;
        }
        if input.pending.is_some() {
            self.check_arguments(node, &input)?;
        }
        let (input, calls) = self.before_sets(node, &keys, input)?;
        let (of_all, by_key): (Vec<KeySet>, Vec<KeySet>) = sets.into_iter().partition(|set| !set.has.contains(&true));
        let mut parts = Vec::new();
        if !by_key.is_empty() {
            let detail = by_key.iter().map(|set| text(set, &keys)).collect::<Vec<_>>().join(", ");
            let expanded = self.expanded(&input, by_key, keys.len(), detail)?;
            let group = (0..keys.len()).map(|i| named(&key_name(i))).chain([named(SET)]).collect();
            let parted = self.aggregate(&of(&expanded, group, &calls)?, expanded, false)?;
            parts.push(self.as_planned(node, parted, keys.len(), None)?);
        }
        for set in of_all {
            let whole = self.aggregate(&of(&input, Vec::new(), &calls)?, input.clone(), false)?;
            parts.push(self.as_planned(node, whole, keys.len(), Some(set.id))?);
        }
        match <[Lowered; 1]>::try_from(parts) {
            Ok([only]) => Ok(only),
            Err(parts) => self.union(parts, &node.schema),
        }
    }

    /// Keys, arguments and filters as columns, and the calls over these.
    fn before_sets(&mut self, node: &Aggregate, keys: &[&Expr], input: Lowered) -> SqlResult<(Lowered, Vec<Expr>)> {
        let mut wanted: Vec<Expr> = keys.iter().enumerate().map(|(i, key)| (*key).clone().alias(key_name(i))).collect();
        let mut asked: Vec<Expr> = Vec::new();
        let mut column = |expr: &Expr| match expr {
            // COUNT(1), COUNT(*): nothing is asked of a row.
            Expr::Literal(..) => expr.clone(),
            _ => {
                let at = asked.iter().position(|e| e == expr).unwrap_or_else(|| {
                    asked.push(expr.clone());
                    asked.len() - 1
                });
                named(&format!("a{at}"))
            }
        };
        let mut calls = Vec::with_capacity(node.aggr_expr.len());
        for (i, expr) in node.aggr_expr.iter().enumerate() {
            let AggregateFunction { func, params } = call_of(expr)?;
            let mut params = params.clone();
            params.args = params.args.iter().map(&mut column).collect();
            params.filter = params.filter.as_deref().map(&mut column).map(Box::new);
            let call = Expr::AggregateFunction(AggregateFunction { func: func.clone(), params });
            calls.push(Expr::Alias(Alias::new(call, None::<&str>, format!("r{i}"))));
        }
        wanted.extend(asked.into_iter().enumerate().map(|(i, e)| e.alias(format!("a{i}"))));
        let output = Projection::try_new(wanted, rows_of(&input.schema)).map_err(SqlError::of_planner)?;
        Ok((self.projected(input, &output.expr, &output.schema)?, calls))
    }

    /// Every row once for each set.
    fn expanded(&mut self, input: &Lowered, sets: Vec<KeySet>, keys: usize, detail: String) -> SqlResult<Lowered> {
        let of_all = |column: usize| column >= keys || sets.iter().all(|set| set.has[column]);
        let key_at = |place: usize| (0..keys).find(|&key| input.places[key] == Place::Batch(place) && !of_all(key));
        let from = super::arrow_schema(&input.batch_schema()?);
        let width = from.fields().len();
        let varying = (0..width).map(key_at).collect();
        let set = Field::new(SET, DataType::Int64, false);
        let fields: Vec<_> = from.fields().iter().map(|f| f.as_ref().clone()).chain([super::nullable(&set)]).collect();
        let kernel = Expand { varying, sets: sets.clone().into(), schema: Arc::new(Schema::new(fields)) };
        let factory = columns(Arc::new(move || Ok(Box::new(kernel.clone()))));
        let note = NodeNote { detail, ..NodeNote::default() };
        let node = self.add("expand", factory, &[(input.node, Routing::Forward)], note);
        let mut fields: Vec<_> = input.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        fields.push((None, Arc::new(set)));
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)?;
        let mut places = input.places.clone();
        places.push(Place::Batch(width));
        let kept = |column: usize| of_all(column).then_some(column);
        Ok(Lowered {
            node,
            schema: Arc::new(schema),
            places,
            updating: input.updating,
            key: None,
            rowtimes: input.rowtimes.iter().copied().filter(|&i| of_all(i)).collect(),
            pending: input.pending,
            lagging: input.lagging.iter().copied().filter(|&(i, _)| of_all(i)).collect(),
            fired: input.fired.and_then(|fired| fired.moved(kept)),
            session_by: input.session_by.clone().filter(|by| by.iter().all(|&i| of_all(i))),
        })
    }

    /// The result with the node's columns; that of all rows has neither keys nor the number of its set.
    fn as_planned(&mut self, node: &Aggregate, input: Lowered, keys: usize, of_all: Option<i64>) -> SqlResult<Lowered> {
        let kind = |i: usize| node.schema.field(i).data_type();
        let mut exprs: Vec<Expr> = Vec::with_capacity(node.schema.fields().len());
        for key in 0..keys {
            exprs.push(match of_all {
                Some(_) => lit(ScalarValue::try_from(kind(key)).map_err(SqlError::of_planner)?),
                None => named(&key_name(key)),
            });
        }
        exprs.push(cast(of_all.map_or_else(|| named(SET), lit), kind(keys).clone()));
        for i in 0..node.aggr_expr.len() {
            let (is, wanted) = (named(&format!("r{i}")), kind(keys + 1 + i));
            let same = is.get_type(&*input.schema).is_ok_and(|kind| kind == *wanted);
            exprs.push(if same { is } else { cast(is, wanted.clone()) });
        }
        self.projected(input, &exprs, &node.schema)
    }
}

fn key_name(i: usize) -> String {
    format!("k{i}")
}

/// A stream as the input of a node of the plan.
fn rows_of(schema: &Arc<DFSchema>) -> Arc<LogicalPlan> {
    Arc::new(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: schema.clone() }))
}

/// The node of an aggregate of a stream.
fn of(input: &Lowered, group: Vec<Expr>, calls: &[Expr]) -> SqlResult<Aggregate> {
    Aggregate::try_new(rows_of(&input.schema), group, calls.to_vec()).map_err(SqlError::of_planner)
}

/// The sets, numbered as the planner does: a bit a key that is not of the set, the last key the lowest; above them, how many
/// equal sets there are before.
fn sets_of(group: &[Expr], keys: &[&Expr]) -> SqlResult<Vec<KeySet>> {
    // Beside another set, ROLLUP and CUBE are written out by the planner.
    let beside = Expr::GroupingSet(GroupingSet::GroupingSets(vec![Vec::new()]));
    let all = match group {
        [Expr::GroupingSet(GroupingSet::GroupingSets(_))] => group.to_vec(),
        _ => enumerate_grouping_sets(group.iter().cloned().chain([beside]).collect()).map_err(SqlError::of_planner)?,
    };
    let [Expr::GroupingSet(GroupingSet::GroupingSets(all))] = all.as_slice() else {
        return Err(SqlError::new("these grouping sets cannot be read"));
    };
    let mut sets: Vec<KeySet> = Vec::with_capacity(all.len());
    for (i, set) in all.iter().enumerate() {
        let has: Vec<bool> = keys.iter().map(|key| set.contains(key)).collect();
        let mask = has.iter().fold(0i64, |mask, has| mask << 1 | i64::from(!has));
        let before = all[..i].iter().filter(|other| *other == set).count() as i64;
        sets.push(KeySet { has, id: before << keys.len() | mask });
    }
    if keys.len() > 32 {
        return Err(SqlError::unsupported("grouping sets over more than 32 columns", "their number has no more bits", "fewer columns"));
    }
    Ok(sets)
}

fn text(set: &KeySet, keys: &[&Expr]) -> String {
    let names = keys.iter().zip(&set.has).filter(|(_, has)| **has).map(|(key, _)| key.schema_name().to_string());
    format!("({})", names.collect::<Vec<_>>().join(", "))
}
