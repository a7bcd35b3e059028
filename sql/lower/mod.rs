//! Logical plan to graph, node by node; what is not known is refused.
//!
//! Each node of the plan becomes a stream with what is known of it: whether it is changed later or only grows, which columns
//! are event time, which are the bounds of a window. Windows stay pending until an aggregate takes them (then rows go into the
//! engine's slices once, however many windows they are in) or something else asks for their columns.
//!
//! Invariant: a plan that is lowered means on every prefix of its input what DataFusion computes of that prefix, rows that
//! come late apart; there is no node that is left out or done differently.

mod aggregate;
mod arrival;
mod clock;
mod condition;
mod join;
mod lifetimes;
mod meet;
mod members;
mod over;
mod own;
mod pattern;
mod ranks;
mod revisions;
mod rows;
mod scan;
mod sets;
mod shared;
mod sink;
mod size;
mod times;
mod unnest;
mod upserts;
mod values;
mod versions;
mod windows;

pub(crate) use sink::{Target, can_cast, check_insert, lower_insert, lower_rows};

use self::revisions::Emission;
use crate::connect::Connectors;
use crate::error::{SqlError, SqlResult};
use crate::kernels::calc::Calc;
use crate::plan::{PatternMatch, Unnested, Versions, WindowTvf, Windows, Zone};
use crate::settings::Terms;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::{Column, DFSchema};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::Expr;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{LogicalPlan, Projection};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use waterwheel_engine::graph::{Input, LogicalGraph, LogicalNode, NodeIndex, NodeNote, Role, Routing};
use waterwheel_engine::operators::{OperatorFactory, columns, union};

/// Where a column of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the batch, at this position.
    Batch(usize),
    /// A bound of the pending window.
    WindowStart,
    WindowEnd,
    WindowTime,
    /// Nowhere: the time at which a row passes, for windows over it.
    Clock,
    /// Nowhere: it stands for the time that a version is looked up as of.
    AsOf,
}

/// How the event time of a window's rows follows from its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// It is so long after the window's last instant.
    pub(super) later_ms: i64,
    /// Whose clock shows the bounds, and whether that clock has cut the windows.
    shown_by: (Option<Zone>, bool),
}

impl Timing {
    pub(super) fn of(windows: &Windows) -> Timing {
        Timing { later_ms: windows::longer_ms(windows), shown_by: (windows.zone, windows.by_zone) }
    }
}

/// Which columns hold start and end of a window that has fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fired {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) timing: Timing,
    /// When an aggregate of the rows gives results: as the session says, where these are still those that went into the window.
    emission: Emission,
}

impl Fired {
    /// The same, of rows that come when the window has ended, and then no more.
    pub(super) fn complete(self) -> Fired {
        Fired { emission: Emission::default(), ..self }
    }

    /// The same columns elsewhere.
    pub(super) fn moved(self, to: impl Fn(usize) -> Option<usize>) -> Option<Fired> {
        Some(Fired { start: to(self.start)?, end: to(self.end)?, ..self })
    }
}

/// A lowered node: its stream, and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) node: NodeIndex,
    /// What a query sees.
    pub(super) schema: Arc<DFSchema>,
    /// Where each column of the schema is.
    pub(super) places: Vec<Place>,
    /// Rows are taken back.
    pub(super) updating: bool,
    /// Columns that a row is known by, where it is changed.
    pub(super) key: Option<Vec<usize>>,
    /// Columns that hold the row's event time.
    pub(super) rowtimes: Vec<usize>,
    /// The windows that the window columns are bounds of.
    pub(super) pending: Option<Windows>,
    /// Columns that hold an event time which is behind the row's, by so many milliseconds at most.
    pub(super) lagging: Vec<(usize, i64)>,
    /// The columns of a window that has fired.
    pub(super) fired: Option<Fired>,
    /// Columns that the pending sessions are by, if they are all still there.
    pub(super) session_by: Option<Vec<usize>>,
}

impl Lowered {
    /// A stream whose columns are all in the batch.
    fn plain(node: NodeIndex, schema: Arc<DFSchema>, updating: bool) -> Self {
        let places = (0..schema.fields().len()).map(Place::Batch).collect();
        Lowered {
            node,
            schema,
            places,
            updating,
            key: None,
            rowtimes: Vec::new(),
            lagging: Vec::new(),
            pending: None,
            fired: None,
            session_by: None,
        }
    }

    fn has_window_columns(&self) -> bool {
        self.places.iter().any(|p| !matches!(p, Place::Batch(_)))
    }

    /// The schema of the columns in the batch, in their order there, as expressions see it.
    fn batch_schema(&self) -> SqlResult<DFSchema> {
        let mut fields: Vec<(usize, _)> = Vec::new();
        for (place, (qualifier, field)) in self.places.iter().zip(self.schema.iter()) {
            if let Place::Batch(i) = place {
                fields.push((*i, (qualifier.cloned(), field.clone())));
            }
        }
        fields.sort_by_key(|f| f.0);
        let fields = fields.into_iter().map(|f| f.1).collect();
        DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)
    }
}

/// Lowers the plans of one statement.
pub(super) struct Lowering<'a> {
    pub(super) graph: &'a mut LogicalGraph,
    pub(super) connectors: &'a dyn Connectors,
    /// Begins the id of every operator of the statement.
    name: String,
    /// How long the statement keeps what, and when its windows give results.
    terms: Terms,
    /// Names of inputs that hints are about and that were found.
    lived: BTreeSet<String>,
    /// How many of each kind there are already.
    counts: BTreeMap<&'static str, u32>,
    /// What the filter above a ROW_NUMBER that is to be lowered next asks of it.
    rank: Option<ranks::Wanted>,
    /// Nobody looks at the ranks of the filter that is to be lowered next.
    rank_unseen: bool,
    /// Nobody asks for the old row of an update of what is to be lowered next.
    only_new: bool,
    /// What is looked at of the scan that is to be lowered next.
    members: Option<members::Members>,
    /// What is read of each table.
    shared: BTreeMap<String, shared::Shared>,
    /// Aggregates that are there already.
    aggregates: Vec<shared::Once>,
    /// Projections and filters that nothing but the node of the plan above them reads: those may become one with it.
    calcs: BTreeMap<NodeIndex, Calc>,
    /// The scan that is lowered next is read to its end before what is joined with it.
    read_in_first: bool,
    /// Tables are read for the versions of their rows: as records, not as what they add up to.
    as_versions: bool,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a mut LogicalGraph, connectors: &'a dyn Connectors, name: &str, terms: &Terms) -> Self {
        Lowering {
            graph,
            connectors,
            name: name.to_string(),
            terms: terms.clone(),
            lived: BTreeSet::new(),
            counts: BTreeMap::new(),
            rank: None,
            rank_unseen: false,
            only_new: false,
            members: None,
            shared: BTreeMap::new(),
            aggregates: Vec::new(),
            calcs: BTreeMap::new(),
            read_in_first: false,
            as_versions: false,
        }
    }

    /// A stable id within the statement: the statement's name, the kind, a number.
    fn id(&mut self, kind: &'static str) -> String {
        let count = self.counts.entry(kind).or_insert(0);
        *count += 1;
        format!("{}-{kind}-{count}", self.name)
    }

    /// Adds an operator behind others.
    fn add(&mut self, kind: &'static str, factory: OperatorFactory, inputs: &[(NodeIndex, Routing)], note: NodeNote) -> NodeIndex {
        let inputs = inputs.iter().map(|&(from, routing)| Input { from, port: 0, routing }).collect();
        let mut node = LogicalNode::new(kind, Role::Operator(factory), inputs);
        node.id = Some(self.id(kind));
        node.can_reject = kind != "union";
        node.note = note;
        self.graph.add(node)
    }

    fn lower(&mut self, plan: &LogicalPlan) -> SqlResult<Lowered> {
        let lowered = self.lower_node(plan)?;
        self.graph.node_mut(lowered.node).changes = Some(lowered.updating);
        Ok(lowered)
    }

    fn lower_node(&mut self, plan: &LogicalPlan) -> SqlResult<Lowered> {
        // Passed on by what makes one row of one.
        let only_new = std::mem::take(&mut self.only_new);
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Values(values) => self.values(&values.schema, &values.values),
            LogicalPlan::EmptyRelation(nothing) if nothing.produce_one_row => self.one_row(&nothing.schema),
            LogicalPlan::SubqueryAlias(alias) => {
                self.only_new = only_new;
                let input = self.lower(&alias.input)?;
                Ok(Lowered { schema: alias.schema.clone(), ..input })
            }
            LogicalPlan::Projection(projection) => {
                self.only_new = only_new;
                self.project(projection)
            }
            LogicalPlan::Filter(filter) => {
                self.only_new = only_new;
                if let Some(ranked) = self.rank_filter(filter)? {
                    return Ok(ranked);
                }
                self.only_new = false;
                let input = self.lower(&filter.input)?;
                self.filter(input, &filter.predicate)
            }
            LogicalPlan::Aggregate(aggregate) => self.once(plan, only_new, |me| {
                let input = me.lower(&aggregate.input)?;
                match aggregate.group_expr.as_slice() {
                    [Expr::GroupingSet(_)] => me.grouping_sets(aggregate, input),
                    _ => me.aggregate(aggregate, input, only_new),
                }
            }),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(all) => {
                let inputs = all.inputs.iter().map(|plan| self.lower(plan)).collect::<SqlResult<Vec<_>>>()?;
                self.union(inputs, &all.schema)
            }
            LogicalPlan::Window(window) => match self.rank.take() {
                Some(wanted) => self.ranked(window, wanted, only_new),
                None => self.over(window),
            },
            LogicalPlan::Extension(extension) => {
                let node = extension.node.as_any();
                if let Some(tvf) = node.downcast_ref::<WindowTvf>() {
                    self.tvf(tvf)
                } else if let Some(versions) = node.downcast_ref::<Versions>() {
                    self.versions(versions)
                } else if let Some(unnested) = node.downcast_ref::<Unnested>() {
                    self.unnest(unnested)
                } else if let Some(pattern) = node.downcast_ref::<PatternMatch>() {
                    self.pattern(pattern)
                } else {
                    Err(unknown(plan))
                }
            }
            other => Err(unknown(other)),
        }
    }

    fn union(&mut self, inputs: Vec<Lowered>, schema: &Arc<DFSchema>) -> SqlResult<Lowered> {
        let mut from = Vec::with_capacity(inputs.len());
        let mut updating = false;
        for input in inputs {
            let input = self.materialised(input)?;
            // By position, in the types of the whole.
            let same = input.schema.fields().iter().zip(schema.fields()).all(|(a, b)| a.data_type() == b.data_type());
            if !same || input.schema.fields().len() != schema.fields().len() {
                return Err(SqlError::new("the parts of the UNION have different columns").help("CAST them to the same types"));
            }
            updating |= input.updating;
            from.push((input.node, Routing::Forward));
        }
        let node = self.add("union", union(), &from, NodeNote::default());
        Ok(Lowered::plain(node, schema.clone(), updating))
    }

    fn project(&mut self, projection: &Projection) -> SqlResult<Lowered> {
        self.note_rank_use(projection);
        self.note_members(projection);
        let input = self.lower(&projection.input)?;
        self.projected(input, &projection.expr, &projection.schema)
    }

    /// Expressions over a stream, as the columns of a schema.
    fn projected(&mut self, mut input: Lowered, wanted: &[Expr], output: &Arc<DFSchema>) -> SqlResult<Lowered> {
        // Window columns that are passed on as they are stay pending; any other use asks for them in the batch.
        let sources: Vec<Option<usize>> = wanted.iter().map(|e| column_of(e, &input.schema)).collect();
        let plain_window = |i: &Option<usize>| i.is_some_and(|i| !matches!(input.places[i], Place::Batch(_)));
        let computes_on_windows = wanted.iter().zip(&sources).any(|(e, s)| !plain_window(s) && self.uses_windows(e, &input));
        if computes_on_windows {
            input = self.materialised(input)?;
        }
        let (mut exprs, mut places) = (Vec::new(), Vec::new());
        for (expr, source) in wanted.iter().zip(&sources) {
            match source.map(|i| input.places[i]).or_else(|| windows::is_clock(expr).then_some(Place::Clock)) {
                Some(place) if !matches!(place, Place::Batch(_)) => places.push(place),
                _ => {
                    places.push(Place::Batch(exprs.len()));
                    exprs.push(expr.clone());
                }
            }
        }
        let in_batch = |output: usize| matches!(places[output], Place::Batch(_));
        let fields: Vec<Field> = (0..places.len()).filter(|i| in_batch(*i)).map(|i| nullable(output.field(i))).collect();
        let schema = Arc::new(Schema::new(fields));
        let node = self.step(&input, None, Some(&exprs), schema, "project")?;
        let moved = |i: usize| sources.iter().position(|s| *s == Some(i));
        Ok(Lowered {
            node,
            schema: output.clone(),
            places,
            updating: input.updating,
            key: input.key.as_ref().and_then(|key| key.iter().map(|i| moved(*i)).collect()),
            rowtimes: (0..sources.len()).filter(|&o| sources[o].is_some_and(|i| input.rowtimes.contains(&i))).collect(),
            pending: input.pending,
            lagging: (0..sources.len()).filter_map(|o| Some((o, input.lag_of(sources[o]?)?))).collect(),
            fired: input.fired.and_then(|fired| fired.moved(moved)),
            session_by: input.session_by.as_ref().and_then(|by| by.iter().map(|i| moved(*i)).collect()),
        })
    }

    fn filter(&mut self, input: Lowered, predicate: &Expr) -> SqlResult<Lowered> {
        // A version is looked up among all of them: none is taken out before.
        if input.places.contains(&Place::AsOf) {
            return Err(versions::misplaced());
        }
        let behind = self.uses_windows(predicate, &input) || windows::is_behind_sessions(&input, predicate);
        let input = if behind { self.with_bounds(input)? } else { input };
        let schema = arrow_schema(&input.batch_schema()?);
        let node = self.step(&input, Some(predicate), None, schema, "filter")?;
        Ok(Lowered { node, ..input })
    }

    fn calc(
        &mut self,
        input: &Lowered,
        predicate: Option<&Expr>,
        exprs: Option<&[Expr]>,
        schema: SchemaRef,
        kind: &'static str,
    ) -> SqlResult<NodeIndex> {
        let (node, calc) = self.computing(input, predicate, exprs, schema)?;
        Ok(self.add_calc(node, calc, kind))
    }

    /// A calc, and what it reads.
    fn computing(
        &mut self,
        input: &Lowered,
        predicate: Option<&Expr>,
        exprs: Option<&[Expr]>,
        schema: SchemaRef,
    ) -> SqlResult<(NodeIndex, Calc)> {
        let from = input.batch_schema()?;
        Ok(match self.clocked(input, &from, predicate, exprs)? {
            Some(c) => (c.node, calc(&c.schema, c.predicate.as_ref(), Some(&c.exprs), schema)?),
            None => (input.node, calc(&from, predicate, exprs, schema)?),
        })
    }

    /// A projection or filter of the plan: one with that below it, where there is one.
    fn step(
        &mut self,
        input: &Lowered,
        predicate: Option<&Expr>,
        exprs: Option<&[Expr]>,
        schema: SchemaRef,
        kind: &'static str,
    ) -> SqlResult<NodeIndex> {
        let (node, calc) = self.computing(input, predicate, exprs, schema)?;
        let both = self.calcs.get(&node).map(|below| below.then(&calc)).transpose().map_err(SqlError::of_planner)?.flatten();
        let (node, calc) = match both {
            Some(both) => {
                let below = self.graph.node_mut(node);
                below.role = Role::Operator(factory(&both));
                below.kind = "calc";
                (node, both)
            }
            None => (self.add_calc(node, calc.clone(), kind), calc),
        };
        self.calcs.insert(node, calc);
        Ok(node)
    }

    fn add_calc(&mut self, node: NodeIndex, calc: Calc, kind: &'static str) -> NodeIndex {
        self.add(kind, factory(&calc), &[(node, Routing::Forward)], NodeNote::default())
    }

    fn uses_windows(&self, expr: &Expr, input: &Lowered) -> bool {
        let refs = expr.column_refs();
        refs.into_iter().filter_map(|c| input.schema.index_of_column(c).ok()).any(|i| !matches!(input.places[i], Place::Batch(_)))
    }
}

/// Expressions over columns of a schema, with results in another one.
fn calc(from: &DFSchema, predicate: Option<&Expr>, exprs: Option<&[Expr]>, schema: SchemaRef) -> SqlResult<Calc> {
    let predicate = predicate.map(|e| physical(e, from)).transpose()?;
    let exprs = exprs.map(|exprs| exprs.iter().map(|e| physical(e, from)).collect::<SqlResult<Vec<_>>>()).transpose()?;
    if let Some(exprs) = &exprs {
        check_types(exprs, &schema, from)?;
    }
    Calc::new(predicate, exprs, schema, arrow_schema(from)).map_err(SqlError::of_planner)
}

fn factory(calc: &Calc) -> OperatorFactory {
    let calc = calc.clone();
    columns(Arc::new(move || Ok(Box::new(calc.clone()))))
}

/// The expression's types are those that the plan promises: else rows would fail one by one.
fn check_types(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef, from: &DFSchema) -> SqlResult<()> {
    for (expr, field) in exprs.iter().zip(schema.fields()) {
        let kind = expr.data_type(from.as_arrow()).map_err(SqlError::of_planner)?;
        if kind != *field.data_type() {
            let (is, wanted) = (crate::parser::type_name(&kind), crate::parser::type_name(field.data_type()));
            return Err(SqlError::new(format!("column {:?} is {is} where the plan has {wanted}", field.name()))
                .help("CAST it to the type that is meant"));
        }
    }
    Ok(())
}

/// The position of the column that an expression is, aliases aside.
fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.index_of_column(column).ok(),
        Expr::Alias(alias) => column_of(&alias.expr, schema),
        _ => None,
    }
}

pub(crate) fn column_expr(schema: &DFSchema, i: usize) -> Expr {
    Expr::Column(Column::from(schema.qualified_field(i)))
}

/// An expression that can be evaluated over batches of a schema.
fn physical(expr: &Expr, schema: &DFSchema) -> SqlResult<Arc<dyn PhysicalExpr>> {
    condition::check_subqueries(expr)?;
    clock::check_none(expr)?;
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default()).map_err(SqlError::of_planner)
}

/// A column that may be NULL: batches carry values, the plan what is known of them.
fn nullable(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), true)
}

fn arrow_schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| nullable(f)).collect::<Vec<_>>()))
}

/// What is refused, why, and what to write instead.
fn unknown(plan: &LogicalPlan) -> SqlError {
    let (construct, reason, instead) = match plan {
        LogicalPlan::Sort(_) => ("ORDER BY here", "rows of a stream have no last one", "ORDER BY at the end of a query whose input ends"),
        LogicalPlan::Limit(_) => {
            ("LIMIT here", "which rows come first depends on how they arrive", "LIMIT at the end of a query whose input ends")
        }
        LogicalPlan::Distinct(_) => ("DISTINCT ON", "which row of several it keeps is not said", "GROUP BY"),
        LogicalPlan::EmptyRelation(_) => ("a query of no rows", "nothing is read", "SELECT ... FROM table"),
        LogicalPlan::Subquery(_) => {
            let why = "what it asks of the row beside it is no equality, stands in a UNION, or is of an aggregate of elements";
            ("this LATERAL subquery", why, "b.x = a.y in its WHERE; for elements UNNEST and GROUP BY")
        }
        LogicalPlan::Unnest(_) => ("UNNEST in SELECT", "it is a table", "FROM t CROSS JOIN UNNEST(t.array) AS e (x)"),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE", "a stream has no fixed point", ""),
        other => {
            return SqlError::unsupported(
                &format!("this query ({})", other.display()),
                "the planner has made a step of it that cannot be run",
                "",
            );
        }
    };
    SqlError::unsupported(construct, reason, instead)
}

/// A data type whose values have an order.
fn check_ordered(kind: &DataType, what: &str) -> SqlResult<crate::kernels::value::Class> {
    use crate::kernels::value::Class;
    match check_class(kind, what)? {
        Class::Nested => Err(no_order(kind, what)),
        class => Ok(class),
    }
}

fn no_order(kind: &DataType, what: &str) -> SqlError {
    let what = format!("{what} of type {}", crate::parser::type_name(kind));
    SqlError::unsupported(&what, "its values have no order", "take a field of it")
}

/// A data type whose values can be keys, arguments and results of aggregates.
fn check_class(kind: &DataType, what: &str) -> SqlResult<crate::kernels::value::Class> {
    crate::kernels::value::Class::of(kind).ok_or_else(|| no_order(kind, what))
}
