//! Queries to logical plans: DataFusion analyses and optimises, with our catalog, functions and window functions.
//!
//! Only rules that are identities of bags are used, because then they are identities of changes too: none that goes by
//! statistics, order or limits, and none that moves a filter below what makes watermarks or windows.
//!
//! Invariant: DataFusion's physical planner has no part in it; a plan that leaves here is lowered node by node, or refused.

mod bags;
mod below;
mod beside;
mod fields;
mod first;
mod functions;
mod join;
mod lateral;
mod legacy;
mod membership;
mod names;
mod over;
mod pattern;
mod quantified;
mod spans;
pub(crate) mod sugar;
mod tuples;
mod tvf;
mod unnest;
mod versioned;
mod versions;
mod walk;
mod wildcards;
mod zones;

pub(crate) use first::NUMBER;
pub use functions::ScalarFunction;
pub(crate) use functions::{
    CAST_TO, CHANCE, CURRENT_WATERMARK, FRACTION_OF, Functions, SEEDED, Seeded, TRY_CAST_TO, UUID_OF, aggregate_of, as_other, fits, hex,
    is_of_the_clock, known, own_of,
};
pub(crate) use pattern::{Clause, Formula, PatternMatch, Reading, What, column_name, schema_of};
pub(crate) use tvf::{WindowKind, WindowTvf, Windows, interval_ms};
pub(crate) use unnest::{Of, Unnested};
pub(crate) use versioned::SINCE;
pub(crate) use versions::Versions;
pub(crate) use zones::Zone;

use crate::catalog::{Catalog, Entry, PlannedTable, PlannedView};
use crate::error::{SqlError, SqlResult};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DataFusionError, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion_optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion_optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion_optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimize_unions::OptimizeUnions;
use datafusion_optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion_optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyExpressions};
use datafusion_optimizer::{Analyzer, Optimizer, OptimizerContext};
use datafusion_sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, Query, Statement};
use std::sync::Arc;
use zones::Zoned;

/// What DataFusion asks while it plans.
struct Context<'a> {
    catalog: &'a Catalog,
    functions: &'a Functions,
    options: ConfigOptions,
}

impl<'a> Context<'a> {
    fn new(catalog: &'a Catalog, functions: &'a Functions) -> Self {
        Context { catalog, functions, options: ConfigOptions::default() }
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> datafusion_common::Result<Arc<dyn TableSource>> {
        match (&name, self.catalog.get(name.table())) {
            (TableReference::Bare { .. }, Some(Entry::Table(table))) => Ok(Arc::new(PlannedTable(table.clone()))),
            (TableReference::Bare { .. }, Some(Entry::View(view))) => {
                let schema: SchemaRef = Arc::new(view.plan.schema().as_arrow().clone());
                Ok(Arc::new(PlannedView { view: view.clone(), schema }))
            }
            (TableReference::Bare { .. }, None) => match self.catalog.left(name.table()).map_err(SqlError::into_planner)? {
                Some(table) => Ok(Arc::new(PlannedTable(Arc::new(table)))),
                None => Err(self.catalog.missing(name.table()).into_planner()),
            },
            _ => {
                Err(SqlError::unsupported("a name with a catalog or database before it", "there is one of each", "leave it out")
                    .into_planner())
            }
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.functions.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.functions.relation_planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.scalar.get(&name.to_lowercase()).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregate.get(&name.to_lowercase()).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.functions.window.get(&name.to_lowercase()).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.functions.window.keys().cloned().collect()
    }
}

/// Names keep their case, 0.1 is a decimal, text is `Utf8`, NULL is the smallest: as in Flink.
fn options() -> ParserOptions {
    ParserOptions::new()
        .with_enable_ident_normalization(false)
        .with_parse_float_as_decimal(true)
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(true)
        .with_default_null_ordering(NullOrdering::NullsMin)
}

/// A query's plan as written.
pub(crate) fn plan(query: &Query, catalog: &Catalog, functions: &Functions) -> SqlResult<LogicalPlan> {
    let as_written = |query| planned(query, catalog, functions);
    as_written(query.clone()).or_else(|refused| {
        let mut expanded = query.clone();
        if wildcards::expand(&mut expanded, &as_written)? { as_written(expanded) } else { Err(refused) }
    })
}

fn planned(mut query: Query, catalog: &Catalog, functions: &Functions) -> SqlResult<LogicalPlan> {
    let context = Context::new(catalog, functions);
    let planner = SqlToRel::new_with_options(&context, options());
    bags::rewrite(&mut query)?;
    legacy::rewrite(&mut query)?;
    names::rewrite(&mut query, |name| functions.aggregate.contains_key(name))?;
    quantified::rewrite(&mut query, &|name| functions.aggregate.contains_key(name))?;
    tuples::rewrite(&mut query)?;
    sugar::rewrite(&mut query)?;
    planner.sql_statement_to_plan(Statement::Query(Box::new(query))).map_err(|e| explain(e, functions))
}

/// The same plan with types made equal and work moved to where it is least.
pub(crate) fn optimize(plan: LogicalPlan, functions: &Functions) -> SqlResult<LogicalPlan> {
    let mut config = ConfigOptions::default();
    // A subquery for one value is a join like any other.
    config.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    let config = Arc::new(config);
    let row_number = functions.window.get("row_number").ok_or_else(|| SqlError::new("ROW_NUMBER is not known"))?;
    let plan = below::rewrite(plan).and_then(|plan| first::rewrite(plan, row_number)).map_err(SqlError::of_planner)?;
    let plan = unnest::tie(versions::tie(plan)?)?;
    let plan = Analyzer::new().execute_and_check(plan, &config, |_, _| {}).map_err(SqlError::of_planner)?;
    let plan = Zoned::of(functions.zone).plan(plan).map_err(SqlError::of_planner)?;
    let rules = Optimizer::with_rules(vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(membership::Memberships),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(join::EqualKeys::default()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(join::OrderJoins::default()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(join::PushDownFilters::default()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ]);
    let context = OptimizerContext::new_with_config_options(config).without_query_execution_start_time();
    rules.optimize(plan, &context, |_, _| {}).map_err(SqlError::of_planner)
}

/// A computed column: its expression over the record's columns, and its type.
pub(crate) fn compute(expr: &SqlExpr, record: &SchemaRef, functions: &Functions) -> SqlResult<(Expr, DataType)> {
    let catalog = Catalog::default();
    let context = Context::new(&catalog, functions);
    let planner = SqlToRel::new_with_options(&context, options());
    let schema = DFSchema::try_from(record.clone()).map_err(SqlError::of_planner)?;
    let mut expr = expr.clone();
    sugar::rewrite(&mut expr)?;
    let expr = planner.sql_to_expr(expr, &schema, &mut PlannerContext::new()).map_err(|e| explain(e, functions))?;
    let expr = settled(expr, &schema, functions.zone)?;
    let kind = expr.get_type(&schema).map_err(SqlError::of_planner)?;
    Ok((expr, kind))
}

/// An expression with types made equal, as a session in a zone means it, and simplified.
fn settled(expr: Expr, schema: &DFSchema, zone: Option<Zone>) -> SqlResult<Expr> {
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    let simplifier = ExprSimplifier::new(context);
    let expr = simplifier.coerce(expr, schema).map_err(SqlError::of_planner)?;
    let expr = Zoned::of(zone).expr(expr, schema).map_err(SqlError::of_planner)?.data;
    // Some functions are only names for what the simplifier makes of them: COALESCE.
    simplifier.simplify(expr).map_err(SqlError::of_planner)
}

/// What the planner says, where it does not know a function with the nearest that is known.
fn explain(error: DataFusionError, functions: &Functions) -> SqlError {
    let error = SqlError::of_planner(error);
    let Some(name) = error.message().strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()).map(str::to_string) else {
        return error;
    };
    let unknown = SqlError::new(format!("function \"{name}\" is not known")).placed_as(error.clone());
    match name.to_lowercase().as_str() {
        "tumble" | "hop" | "session" | "cumulate" => unknown.help(
            "windows are tables:  FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
        ),
        "ntile" | "percent_rank" | "cume_dist" | "nth_value" => {
            SqlError::unsupported(&format!("{name}(...) OVER"), "it needs all rows of a partition, which never end", "RANK or ROW_NUMBER")
                .placed_as(error)
        }
        table if functions.tables.contains_key(table) => {
            let (call, instead) = (name.to_uppercase(), unnest::instead(&name));
            SqlError::unsupported(&format!("{call}(...) here"), "it gives rows, no value", &instead).placed_as(error)
        }
        _ => unknown.nearest(&name, functions.scalar.keys().chain(functions.aggregate.keys()).map(String::as_str)),
    }
}
