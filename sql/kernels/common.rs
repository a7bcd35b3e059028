//! What a calc asks for several times is computed once: `WHERE f(x) > 1` and `SELECT f(x)`.
//!
//! An expression is taken out where it stands at least twice, and at least once where it is computed for every row that comes so
//! far: not only in a branch of a CASE. Parts of the predicate that look at none of these decide first, so that nothing is
//! computed for rows that go anyway.
//!
//! Invariant: values are those of the expressions as written. Where a row fails the calc begins anew without this, and finds out
//! whether that row would have come so far.

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{CaseExpr, Column, Literal};
use datafusion_physical_expr::split_conjunction;
use datafusion_physical_expr::utils::{collect_columns, conjunction_opt};
use std::collections::HashMap;
use std::sync::Arc;

type Expr = Arc<dyn PhysicalExpr>;

/// The expressions of a calc, with what they have in common apart.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// Decides first, over the columns of the batch.
    pub(super) first: Option<Expr>,
    /// Computed next: each is a further column, behind which the ones after it may look at it.
    pub(super) steps: Vec<Step>,
    /// Decides of what is left.
    pub(super) rest: Option<Expr>,
    /// The results.
    pub(super) outputs: Vec<Expr>,
    /// Columns of the batch that are looked at behind `first`.
    pub(super) needed: Vec<usize>,
    /// Columns, these and those of the steps, that the results look at.
    pub(super) needed_last: Vec<usize>,
}

/// An expression, and the columns of the batch with it.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) expr: Expr,
    pub(super) schema: SchemaRef,
}

/// How often an expression stands there.
#[derive(Default)]
struct Count {
    times: usize,
    /// It is computed whatever the values are.
    always: bool,
    /// Expressions within it, itself included.
    size: usize,
}

impl Common {
    /// Of a calc over columns of a schema; nothing where nothing is asked for twice.
    ///
    /// # Errors
    /// Expressions without a type.
    pub(super) fn of(predicate: Option<&Expr>, outputs: &[Expr], input: &Schema) -> Result<Option<Common>> {
        let mut counts: HashMap<Expr, Count> = HashMap::new();
        for expr in predicate.into_iter().chain(outputs) {
            count(expr, true, &mut counts);
        }
        let mut shared: Vec<(Expr, usize)> =
            counts.into_iter().filter(|(_, count)| count.times > 1 && count.always).map(|(expr, count)| (expr, count.size)).collect();
        if shared.is_empty() {
            return Ok(None);
        }
        // What is within another one comes before it. The text makes an order of those of one size.
        shared.sort_by_cached_key(|(expr, size)| (*size, expr.to_string()));
        let (mut places, mut steps) = (HashMap::new(), Vec::with_capacity(shared.len()));
        let mut fields: Vec<Arc<Field>> = input.fields().iter().cloned().collect();
        for (expr, _) in shared {
            let kind = expr.data_type(input)?;
            let rewritten = replaced(&expr, &places)?;
            let column = Column::new(&format!("common{}", fields.len()), fields.len());
            fields.push(Arc::new(Field::new(column.name(), kind, true)));
            steps.push(Step { expr: rewritten, schema: Arc::new(Schema::new(fields.clone())) });
            places.insert(expr, Arc::new(column) as Expr);
        }
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for part in predicate.into_iter().flat_map(|predicate| split_conjunction(predicate)) {
            let now = replaced(part, &places)?;
            let looks = collect_columns(&now).iter().any(|column| column.index() >= input.fields().len());
            if looks { rest.push(now) } else { first.push(now) }
        }
        let outputs = outputs.iter().map(|expr| replaced(expr, &places)).collect::<Result<Vec<_>>>()?;
        let behind = steps.iter().map(|step| &step.expr).chain(&rest).chain(&outputs);
        let (needed, needed_last) = (needed(behind, input.fields().len()), needed(outputs.iter(), fields.len()));
        Ok(Some(Common { first: conjunction_opt(first), steps, rest: conjunction_opt(rest), outputs, needed, needed_last }))
    }
}

/// The columns that expressions look at, of the first so many.
pub(super) fn needed<'a>(exprs: impl Iterator<Item = &'a Expr>, columns: usize) -> Vec<usize> {
    let mut needed: Vec<usize> = exprs.flat_map(collect_columns).map(|column| column.index()).filter(|i| *i < columns).collect();
    needed.sort_unstable();
    needed.dedup();
    needed
}

/// Counts an expression and what is within it; its size. What is within a second one is no further use.
fn count(expr: &Expr, always: bool, counts: &mut HashMap<Expr, Count>) -> usize {
    if expr.is::<Column>() || expr.is::<Literal>() || expr.is_volatile_node() {
        return 1;
    }
    if let Some(known) = counts.get_mut(expr) {
        known.times += 1;
        known.always |= always;
        return known.size;
    }
    let is_case = expr.is::<CaseExpr>();
    // Of a CASE the first condition alone is computed for all.
    let size = 1 + expr.children().iter().enumerate().map(|(i, child)| count(child, always && (!is_case || i == 0), counts)).sum::<usize>();
    // Something volatile within makes all around it so.
    if !is_volatile(expr) {
        let entry = counts.entry(expr.clone()).or_default();
        (entry.times, entry.always, entry.size) = (entry.times + 1, entry.always | always, size);
    }
    size
}

fn replaced(expr: &Expr, places: &HashMap<Expr, Expr>) -> Result<Expr> {
    let replace = |part: Expr| {
        Ok(match places.get(&part) {
            Some(column) => Transformed::new(column.clone(), true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        })
    };
    expr.clone().transform_down(replace).map(|done| done.data)
}

/// An expression over the results of others as one over what these look at.
///
/// # Errors
/// Never: rewriting does not fail.
pub(super) fn through(expr: &Expr, inner: &[Expr]) -> Result<Expr> {
    let replace = |part: Expr| {
        Ok(match part.downcast_ref::<Column>().and_then(|column| inner.get(column.index())) {
            Some(below) => Transformed::new(below.clone(), true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        })
    };
    expr.clone().transform_down(replace).map(|done| done.data)
}

/// Whether something in it has another value each time.
fn is_volatile(expr: &Expr) -> bool {
    expr.is_volatile_node() || expr.children().into_iter().any(is_volatile)
}

/// How many expressions there are in one, itself included.
pub(super) fn size(expr: &Expr) -> usize {
    1 + expr.children().iter().map(|child| size(child)).sum::<usize>()
}
