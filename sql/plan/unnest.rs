//! `CROSS JOIN UNNEST(array) AS t (x)`, `CROSS JOIN UNNEST(map) AS t (k, v)` and `LEFT JOIN UNNEST(array) AS t (x) ON TRUE`: a row beside each element of its array.
//! `LATERAL TABLE(f(x)) AS t (a, b)` is the same of the array of rows that a table function gives.
//!
//! Where UNNEST is planned the rows beside it are known by their columns alone, so the node stands for the elements until the
//! join around it is there; then the two become one node over the rows. Elements that are rows are as many columns.
//!
//! Invariant: nothing is pushed below the node but projections; elements that found no join are refused.

use super::{beside, functions::known};
use crate::error::{SqlError, SqlResult};
use crate::own::TableFunction;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, JoinType, Result as PlanResult, ScalarValue, TableReference};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use datafusion_expr::planner::RelationPlannerContext;
use datafusion_expr::{Expr, ExprSchemable, Extension, Filter, Join, LogicalPlan, ScalarUDF, ScalarUDFImpl};
use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, TableAlias};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Elements and their columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Elements {
    array: Expr,
    /// The elements' columns; the last is the place in the array, if that is asked for.
    fields: Vec<FieldRef>,
    alias: Option<TableReference>,
    with_place: bool,
    of: Of,
}

/// What the elements are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    Array,
    /// The rows of a table function.
    Function,
}

impl Of {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Of::Array => "UNNEST",
            Of::Function => "LATERAL TABLE",
        }
    }
}

/// How a table function is called.
pub(super) fn instead(name: &str) -> String {
    format!("FROM t, LATERAL TABLE({}(..)) AS s (..)", name.to_uppercase())
}

/// The node: before it has a join around it, of no rows.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Unnested {
    input: Option<LogicalPlan>,
    elements: Elements,
    /// A row whose array has no elements stays, beside NULLs.
    outer: bool,
    schema: DFSchemaRef,
}

impl Unnested {
    fn new(input: Option<LogicalPlan>, elements: Elements, outer: bool) -> PlanResult<Self> {
        let own = input.iter().flat_map(|input| input.schema().iter()).map(|(q, f)| (q.cloned(), f.clone()));
        let of_elements = elements.fields.iter().map(|field| (elements.alias.clone(), field.clone()));
        let schema = Arc::new(DFSchema::new_with_metadata(own.chain(of_elements).collect(), Default::default())?);
        Ok(Unnested { input, elements, outer, schema })
    }

    /// The rows; none where no join was found.
    pub(crate) fn input(&self) -> Option<&LogicalPlan> {
        self.input.as_ref()
    }

    pub(crate) fn array(&self) -> &Expr {
        &self.elements.array
    }

    pub(crate) fn with_place(&self) -> bool {
        self.elements.with_place
    }

    pub(crate) fn of(&self) -> Of {
        self.elements.of
    }

    pub(crate) fn outer(&self) -> bool {
        self.outer
    }

    /// Elements that have found no rows yet.
    pub(super) fn loose(plan: &LogicalPlan) -> Option<&Unnested> {
        Unnested::at(plan).filter(|unnested| unnested.input.is_none())
    }

    /// The rows whose elements they are, beside these.
    pub(super) fn beside(&self, rows: LogicalPlan, outer: bool) -> PlanResult<LogicalPlan> {
        let of_row = |expr: Expr| match expr {
            Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
            other => Ok(Transformed::no(other)),
        };
        let array = self.elements.array.clone().transform(of_row)?.data;
        for Column { relation, name, .. } in array.column_refs() {
            rows.schema().field_with_name(relation.as_ref(), name)?;
        }
        Ok(Unnested::new(Some(rows), Elements { array, ..self.elements.clone() }, outer)?.planned())
    }

    fn at(plan: &LogicalPlan) -> Option<&Unnested> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            LogicalPlan::Subquery(subquery) => Unnested::at(&subquery.subquery),
            _ => None,
        }
    }

    fn planned(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

impl PartialOrd for Unnested {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.elements.array.partial_cmp(&other.elements.array) {
            Some(Ordering::Equal) => self.input.partial_cmp(&other.input),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for Unnested {
    fn name(&self) -> &str {
        "Unnested"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.input.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.elements.array.clone()]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unnested: {}", self.elements.array)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        let Some(array) = exprs.into_iter().next() else {
            return Err(DataFusionError::Internal("elements are of one array".into()));
        };
        Unnested::new(inputs.into_iter().next(), Elements { array, ..self.elements.clone() }, self.outer)
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let Some(input) = &self.input else { return Some(Vec::new()) };
        let columns = input.schema().fields().len();
        let own = self.elements.array.column_refs().into_iter().map(|column| input.schema().index_of_column(column).ok());
        let own = own.collect::<Option<Vec<usize>>>()?;
        let mut needed: Vec<usize> = output.iter().copied().filter(|i| *i < columns).chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// The elements of an array of the row beside.
pub(super) fn elements(
    arrays: Vec<SqlExpr>,
    alias: Option<TableAlias>,
    with_place: bool,
    context: &mut dyn RelationPlannerContext,
) -> SqlResult<LogicalPlan> {
    let [array] = <[SqlExpr; 1]>::try_from(arrays)
        .map_err(|_| SqlError::unsupported("UNNEST of several arrays", "which elements belong together is not said", "one UNNEST each"))?;
    let text = array.to_string();
    let nothing = DFSchema::empty();
    let array = context.sql_to_expr(array, &nothing).map_err(SqlError::of_planner)?;
    let kind = array.get_type(&nothing).map_err(SqlError::of_planner)?;
    let (array, kind) = match (kind, known("map_entries")) {
        (DataType::Map(..), Some(entries)) => {
            let entries = entries.call(vec![array]);
            let kind = entries.get_type(&nothing).map_err(SqlError::of_planner)?;
            (entries, kind)
        }
        (kind, _) => (array, kind),
    };
    let DataType::List(item) = &kind else {
        let what = format!("UNNEST of {text}, which is {}", crate::parser::type_name(&kind));
        return Err(SqlError::unsupported(&what, "it takes an array", "a column of type ARRAY<..> or MAP<..>"));
    };
    planned(array, item, &format!("UNNEST({text})"), alias, with_place, Of::Array)
}

/// The rows that a table function gives for the row beside.
pub(super) fn rows(
    function: &TableFunction,
    arguments: Vec<SqlExpr>,
    text: &str,
    alias: Option<TableAlias>,
    with_place: bool,
    context: &mut dyn RelationPlannerContext,
) -> SqlResult<LogicalPlan> {
    let name = function.name().to_uppercase();
    if let Some(kind) = function.unknown() {
        let what = format!("{} in the table function {name}", crate::parser::type_name(kind));
        return Err(SqlError::unsupported(&what, "its arguments and columns are plain values", "fields of rows, elements by UNNEST"));
    }
    let nothing = DFSchema::empty();
    let argument = |argument| context.sql_to_expr(argument, &nothing).map_err(SqlError::of_planner);
    let arguments = arguments.into_iter().map(argument).collect::<SqlResult<Vec<_>>>()?;
    let kinds = arguments.iter().map(|argument| argument.get_type(&nothing)).collect::<PlanResult<Vec<_>>>();
    kinds.and_then(|kinds| function.function().coerce_types(&kinds)).map_err(SqlError::of_planner)?;
    let udf = Arc::new(ScalarUDF::from(function.function().clone()));
    let array = Expr::ScalarFunction(ScalarFunction::new_udf(udf, arguments));
    match array.get_type(&nothing).map_err(SqlError::of_planner)? {
        DataType::List(item) if matches!(item.data_type(), DataType::Struct(columns) if columns.is_empty()) => {
            Err(SqlError::new(format!("the table function {name} has no columns")).help("declare one at least"))
        }
        DataType::List(item) => planned(array, &item, text, alias, with_place, Of::Function),
        _ => Err(SqlError::new(format!("{name} is no table function"))),
    }
}

fn planned(array: Expr, item: &Field, text: &str, alias: Option<TableAlias>, with_place: bool, of: Of) -> SqlResult<LogicalPlan> {
    let nullable = |name: &str, kind: &DataType| Field::new(name, kind.clone(), true);
    let mut fields = match item.data_type() {
        DataType::Struct(members) => members.iter().map(|member| nullable(member.name(), member.data_type())).collect(),
        of_one => vec![nullable("f0", of_one)],
    };
    if with_place {
        fields.push(nullable("ORDINALITY", &DataType::Int32));
    }
    let names = alias.iter().flat_map(|alias| &alias.columns).map(|column| column.name.value.clone()).collect::<Vec<_>>();
    if !names.is_empty() {
        if names.len() != fields.len() {
            let (given, are) = (names.len(), fields.len());
            return Err(SqlError::new(format!("{text} has {are} columns, and {given} are named")));
        }
        fields = fields.into_iter().zip(names).map(|(field, name)| field.with_name(name)).collect();
    }
    let alias = alias.map(|alias| TableReference::bare(alias.name.value));
    let elements = Elements { array, fields: fields.into_iter().map(Arc::new).collect(), alias, with_place, of };
    Unnested::new(None, elements, false).map(Unnested::planned).map_err(SqlError::of_planner)
}

/// Ties elements to the rows that they are of.
pub(super) fn tie(plan: LogicalPlan) -> SqlResult<LogicalPlan> {
    let tied = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => tie_join(join),
        other => Ok(Transformed::no(other)),
    });
    tied.map(|tied| tied.data).map_err(SqlError::of_planner)
}

fn tie_join(join: Join) -> PlanResult<Transformed<LogicalPlan>> {
    let Some(unnested) = Unnested::loose(&join.right) else {
        return Ok(match beside::joined(&join)? {
            Some(plan) => Transformed::yes(plan),
            None => Transformed::no(LogicalPlan::Join(join)),
        });
    };
    let always = |filter: &Expr| matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    let filter = join.filter.filter(|filter| !always(filter));
    let outer = match join.join_type {
        JoinType::Inner if join.on.is_empty() => false,
        JoinType::Left if join.on.is_empty() && filter.is_none() => true,
        other => {
            let of = unnested.elements.of.words();
            let what = format!("a {other} join with {of} and a condition");
            let instead = format!("CROSS JOIN {of}(..), with the condition in WHERE; LEFT JOIN {of}(..) ON TRUE");
            return Err(SqlError::unsupported(&what, "elements belong to their row", &instead).into_planner());
        }
    };
    let tied = unnested.beside(Arc::unwrap_or_clone(join.left), outer)?;
    let plan = match filter {
        Some(filter) => LogicalPlan::Filter(Filter::try_new(filter, Arc::new(tied))?),
        None => tied,
    };
    Ok(Transformed::yes(plan))
}
