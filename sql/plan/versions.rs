//! `t FOR SYSTEM_TIME AS OF l.ts`: a table as it was at the event time of the row beside it.
//!
//! Where the table is planned, the row beside it is not known yet. So the node keeps the name of the time until the join
//! around it is there, and then gets one column more, which the join must find equal to that time. The column is never made:
//! the join that is equal on it is the one that looks up versions, and a plan in which it is used otherwise is refused.
//!
//! A view may be the versions of a table too (`versioned`).
//!
//! Invariant: nothing is pushed below the node but projections, and no condition on a version between it and its join.

use super::versioned;
use crate::catalog::PlannedTable;
use crate::error::{SqlError, SqlResult};
use crate::options::Connector;
use arrow::datatypes::Field;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, JoinType, Result as PlanResult, TableReference};
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use datafusion_expr::{Expr, ExprSchemable, Extension, Join, LogicalPlan, Projection, SubqueryAlias};
use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, TableVersion};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Name of the column that stands for the time of the row beside.
const AS_OF: &str = "$as_of";

/// What is known of the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Versioned {
    pub(crate) table: String,
    /// Names of the columns that a row is known by.
    pub(crate) key: Vec<String>,
    /// It has event time.
    pub(crate) has_time: bool,
    /// It is read to its end.
    pub(crate) is_bounded: bool,
    /// They are records of a table by key, not rows of a query.
    pub(crate) of_records: bool,
}

/// The node.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Versions {
    input: LogicalPlan,
    /// The time of the row beside, as written.
    time: Vec<String>,
    /// Whose they are.
    pub(crate) of: Versioned,
    /// With the column for the time of the row beside, which is of this type.
    as_of: Option<Arc<Field>>,
    schema: DFSchemaRef,
}

impl Versions {
    fn new(input: LogicalPlan, time: Vec<String>, of: Versioned, as_of: Option<Arc<Field>>) -> PlanResult<Self> {
        let is_seen = |name: &str| as_of.is_some() || !versioned::is_hidden(name);
        let own = input.schema().iter().filter(|(_, field)| is_seen(field.name()));
        let mut fields: Vec<_> = own.map(|(q, f)| (q.cloned(), f.clone())).collect();
        fields.extend(as_of.clone().map(|field| (None, field)));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Versions { input, time, of, as_of, schema })
    }

    pub(crate) fn input(&self) -> &LogicalPlan {
        &self.input
    }

    /// Whether a join has been found for it.
    pub(crate) fn is_beside_a_row(&self) -> bool {
        self.as_of.is_some()
    }

    fn at(plan: &LogicalPlan) -> Option<&Versions> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// The versions that a side of a join is, with nothing but other names between.
    pub(crate) fn beneath(plan: &LogicalPlan) -> Option<&Versions> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => Versions::beneath(&alias.input),
            LogicalPlan::Projection(projection) => Versions::beneath(&projection.input),
            other => Versions::at(other),
        }
    }
}

impl PartialOrd for Versions {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.time.partial_cmp(&other.time) {
            Some(Ordering::Equal) => self.input.partial_cmp(&other.input),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for Versions {
    fn name(&self) -> &str {
        "Versions"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Versions: as of {}", self.time.join("."))
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        let Some(input) = inputs.into_iter().next() else {
            return Err(DataFusionError::Internal("versions have one input".into()));
        };
        Versions::new(input, self.time.clone(), self.of.clone(), self.as_of.clone())
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let fields = self.input.schema().fields();
        let since = fields.iter().position(|field| field.name() == versioned::SINCE);
        let mut needed: Vec<usize> = output.iter().copied().filter(|i| *i < fields.len()).chain(since).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// The versions of a table that was planned, as the version clause says.
pub(super) fn versions(table: LogicalPlan, version: &TableVersion) -> SqlResult<LogicalPlan> {
    let TableVersion::ForSystemTimeAsOf(time) = version else {
        return Err(SqlError::unsupported("this form of a table's version", "it is not of Flink's dialect", "FOR SYSTEM_TIME AS OF l.ts"));
    };
    let time = match time {
        SqlExpr::Identifier(name) => vec![name.value.clone()],
        SqlExpr::CompoundIdentifier(names) if names.len() == 2 => names.iter().map(|name| name.value.clone()).collect(),
        other => {
            return Err(SqlError::unsupported(
                &format!("FOR SYSTEM_TIME AS OF {other}"),
                "it is the event time of the row beside, as it is",
                "FOR SYSTEM_TIME AS OF l.ts",
            ));
        }
    };
    let view = versioned::versions(&table)?;
    let name = |i: &usize| view.plan.schema().field(*i).name().clone();
    let key = view.key.iter().map(name).collect();
    let of = match &view.table {
        Some(PlannedTable(known)) => Versioned {
            table: known.name.clone(),
            key,
            has_time: known.watermark.is_some(),
            is_bounded: known.options.connector == Connector::Filesystem && known.options.get("source.monitor-interval").is_none(),
            of_records: true,
        },
        None => Versioned { table: view_name(&table), key, has_time: true, is_bounded: false, of_records: false },
    };
    let table = view.plan;
    let node = Versions::new(table, time, of, None).map_err(SqlError::of_planner)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// What a view is called where it is read.
fn view_name(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => alias.alias.to_string(),
        _ => "this query".into(),
    }
}

/// Ties versions to the rows that they are looked up for.
pub(super) fn tie(plan: LogicalPlan) -> SqlResult<LogicalPlan> {
    let tied = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => tie_join(join),
        other => Ok(Transformed::no(other)),
    });
    tied.map(|tied| tied.data).map_err(SqlError::of_planner)
}

/// Whether a join looks up versions, or is to: other rules may have put projections between the two.
pub(super) fn is_lookup(join: &Join) -> bool {
    join.on.iter().any(|(_, right)| matches!(right, Expr::Column(column) if column.name == AS_OF))
}

fn tie_join(join: Join) -> PlanResult<Transformed<LogicalPlan>> {
    let (versions, alias) = match &*join.right {
        LogicalPlan::SubqueryAlias(alias) => (Versions::at(&alias.input), Some(alias.alias.clone())),
        right => (Versions::at(right), None),
    };
    let Some(versions) = versions.filter(|versions| !versions.is_beside_a_row()) else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        let what = format!("a {} join FOR SYSTEM_TIME AS OF", join.join_type);
        return Err(SqlError::unsupported(&what, "a version is looked up for a row", "JOIN or LEFT JOIN").into_planner());
    }
    let time = match &versions.time[..] {
        [table, name] => Column::new(Some(TableReference::bare(table.as_str())), name),
        names => Column::new_unqualified(names.concat()),
    };
    let time = time.normalize_with_schemas_and_ambiguity_check(&[&[join.left.schema()]], &[])?;
    let (_, field) = Expr::Column(time.clone()).to_field(join.left.schema())?;
    let as_of = Arc::new(Field::new(AS_OF, field.data_type().clone(), true));
    let node = Versions::new(versions.input.clone(), versions.time.clone(), versions.of.clone(), Some(as_of))?;
    let mut right = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    let mut column = Column::new_unqualified(AS_OF);
    if let Some(alias) = alias {
        column = Column::new(Some(alias.clone()), AS_OF);
        right = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(right), alias)?);
    }
    let wanted: Vec<Expr> = join.schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
    let filter = join.filter.into_iter().chain(versioned::is_there(&right)).reduce(Expr::and);
    let mut on = join.on;
    on.push((Expr::Column(time), Expr::Column(column)));
    let tied =
        Join::try_new(join.left, Arc::new(right), on, filter, join.join_type, join.join_constraint, join.null_equality, join.null_aware)?;
    let projection = Projection::try_new(wanted, Arc::new(LogicalPlan::Join(tied)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}
