//! `LATERAL TABLE(f(x)) AS t (a, b)`: the rows that a table function makes of the row beside.
//!
//! Invariant: the function is one that the user has registered, and is called as it is declared; nothing of the call is left out.

use super::tvf::name_span;
use super::unnest;
use crate::error::{SqlError, SqlResult};
use crate::own::TableFunction;
use datafusion_expr::LogicalPlan;
use datafusion_expr::planner::RelationPlannerContext;
use datafusion_sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Spanned, TableAlias,
};
use std::collections::BTreeMap;

/// What stands behind LATERAL.
pub(super) struct Lateral {
    pub(super) name: ObjectName,
    pub(super) args: Vec<FunctionArg>,
    pub(super) alias: Option<TableAlias>,
    /// The place of a row among those of its call, from 1, is a column behind it.
    pub(super) with_place: bool,
}

impl Lateral {
    pub(super) fn plan(
        self,
        functions: &BTreeMap<String, TableFunction>,
        context: &mut dyn RelationPlannerContext,
    ) -> SqlResult<LogicalPlan> {
        let function = match self.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Function(function)))]
                if self.name.to_string().eq_ignore_ascii_case("TABLE") =>
            {
                function
            }
            _ => {
                let what = format!("LATERAL {}(..)", self.name);
                return Err(SqlError::unsupported(&what, "LATERAL is of a table function", &unnest::instead("f")).at(self.name.span()));
            }
        };
        let called = function.name.to_string();
        let Some(known) = functions.get(&called.to_lowercase()) else { return Err(unknown(function, functions)) };
        let arguments = arguments(function)?;
        unnest::rows(known, arguments, &called.to_uppercase(), self.alias, self.with_place, context)
            .map_err(|e| e.or_at(Some(name_span(function))))
    }
}

/// A table function without LATERAL.
pub(super) fn missing(function: &Function) -> SqlError {
    let called = function.name.to_string();
    SqlError::unsupported(
        &format!("TABLE({}(...)) without LATERAL", called.to_uppercase()),
        "its rows are those of the row beside",
        &unnest::instead(&called),
    )
}

fn unknown(function: &Function, functions: &BTreeMap<String, TableFunction>) -> SqlError {
    let called = function.name.to_string();
    if matches!(called.to_uppercase().as_str(), "TUMBLE" | "HOP" | "CUMULATE" | "SESSION") {
        let what = format!("LATERAL TABLE({}(...))", called.to_uppercase());
        return SqlError::unsupported(&what, "a window is taken over a table, not a row", "without LATERAL").at(name_span(function));
    }
    let error = SqlError::new(format!("table function \"{called}\" is not known")).at(name_span(function));
    let error = error.nearest(&called, functions.keys().map(String::as_str));
    if functions.is_empty() { error.help("job.register(TableFunction::new(..)) makes one known") } else { error }
}

/// The arguments, which stand there as they are.
fn arguments(function: &Function) -> SqlResult<Vec<SqlExpr>> {
    let otherwise = || {
        let what = format!("{} with more than its arguments", function.name.to_string().to_uppercase());
        SqlError::unsupported(&what, "a table function is called for each row", "f(x, y)").at(name_span(function))
    };
    let FunctionArguments::List(list) = &function.args else { return Err(otherwise()) };
    let more = function.filter.is_some() || function.over.is_some() || function.null_treatment.is_some();
    if more || !function.within_group.is_empty() || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(otherwise());
    }
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
        _ => Err(otherwise()),
    };
    list.args.iter().map(argument).collect()
}
