//! Rules for joins: conditions go to the side that they are about, and into the join where they are about both.
//!
//! Each is DataFusion's, held back where it would change what a query means over time, or is wrong.
//!
//! Invariant: an identity of bags at every step. A condition stays above what gives rows their windows, and above the
//! aggregates over windows, because these give their rows once, at a time that the condition has no say in. It also stays
//! above an aggregate of all rows, which has a row whatever the condition. No condition reaches the versions of a table before
//! one is looked up: it would bring an older one back.

use super::{WindowTvf, versions};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{NullEquality, Result as PlanResult};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{Expr, Filter, Join, JoinType, LogicalPlan};
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Conditions go down as far as they may.
#[derive(Debug, Default)]
pub(super) struct PushDownFilters(PushDownFilter);

impl OptimizerRule for PushDownFilters {
    fn name(&self) -> &str {
        "push_down_filters"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> PlanResult<Transformed<LogicalPlan>> {
        // DataFusion's rule makes one of conditions upon each other and goes on with it: look at what is below them all.
        let mut below = &plan;
        while let LogicalPlan::Filter(filter) = below {
            below = &filter.input;
        }
        match below {
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() || has_windows(below)? => Ok(Transformed::no(plan)),
            LogicalPlan::Join(join) if versions::is_lookup(join) => beside_versions(plan),
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Conditions above a join that looks up versions: those on the rows that it is for are asked of these before.
fn beside_versions(plan: LogicalPlan) -> PlanResult<Transformed<LogicalPlan>> {
    let (mut parts, mut below) = (Vec::new(), plan);
    while let LogicalPlan::Filter(filter) = below {
        parts.extend(split_conjunction_owned(filter.predicate));
        below = Arc::unwrap_or_clone(filter.input);
    }
    let LogicalPlan::Join(join) = below else { return Ok(Transformed::no(below)) };
    let of_left = |part: &Expr| {
        let columns = part.column_refs();
        !columns.is_empty() && columns.iter().all(|column| join.left.schema().has_column(column))
    };
    let (left, rest): (Vec<Expr>, Vec<Expr>) = parts.into_iter().partition(of_left);
    let filtered = |parts: Vec<Expr>, plan: LogicalPlan| match conjunction(parts) {
        Some(predicate) => Filter::try_new(predicate, Arc::new(plan)).map(LogicalPlan::Filter),
        None => Ok(plan),
    };
    if left.is_empty() {
        return filtered(rest, LogicalPlan::Join(join)).map(Transformed::no);
    }
    let left = Arc::new(filtered(left, Arc::unwrap_or_clone(join.left))?);
    filtered(rest, LogicalPlan::Join(Join { left, ..join })).map(Transformed::yes)
}

/// Equalities in a condition become keys: not beside a key whose NULLs are equal, where that of the others are not.
#[derive(Debug, Default)]
pub(super) struct EqualKeys(ExtractEquijoinPredicate);

impl OptimizerRule for EqualKeys {
    fn name(&self) -> &str {
        "equal_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> PlanResult<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if has_equal_nulls(join) => Ok(Transformed::no(plan)),
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Whether a key's NULLs are equal to each other.
fn has_equal_nulls(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// Tables that are named side by side are joined in an order in which each has a key: only where there are such, because the
/// order that is written decides what has event time, and which version is looked up.
#[derive(Debug, Default)]
pub(super) struct OrderJoins(EliminateCrossJoin);

impl OptimizerRule for OrderJoins {
    fn name(&self) -> &str {
        "order_joins"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> PlanResult<Transformed<LogicalPlan>> {
        let (mut side_by_side, mut as_written) = (false, false);
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Join(join) = node {
                side_by_side |= join.join_type == JoinType::Inner && join.on.is_empty();
                // The rule takes the equality of NULLs of one join for that of all.
                as_written |= versions::is_lookup(join) || has_equal_nulls(join);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if side_by_side && !as_written { self.0.rewrite(plan, config) } else { Ok(Transformed::no(plan)) }
    }
}

/// Whether rows are given windows somewhere below.
fn has_windows(plan: &LogicalPlan) -> PlanResult<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Extension(e) if e.node.as_any().is::<WindowTvf>())))
}
