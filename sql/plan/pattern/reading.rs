//! What DEFINE and MEASURES ask of the rows of a match: `A.x`, `LAST(A.x, 1)`, `SUM(A.x)`, `MATCH_ROWTIME()`.
//!
//! Each is a *reading*, one value; in the expression around it, it is a column. A column without a variable is of any of them.
//!
//! Invariant: an expression that is left has no column but readings; it, and the arguments of aggregates, have their final types.

use crate::error::{SqlError, SqlResult};
use crate::plan::{Zone, settled};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema};
use datafusion_expr::planner::RelationPlannerContext;
use datafusion_expr::{Expr, ExprSchemable};
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned, Value, VisitMut,
    VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use std::ops::ControlFlow;

/// Marks names that stand for readings: no name of a query is quoted so.
const READING: Option<char> = Some('\'');

/// One value of the rows of a match.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// Of its column.
    pub(crate) name: String,
    pub(crate) kind: DataType,
    /// The variable whose rows it is of; none = all.
    pub(crate) variable: Option<String>,
    pub(crate) what: What,
}

/// What is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// A column of one row, so many behind the first or before the last; NULL where there is none.
    Row { first: bool, offset: usize, column: usize },
    /// An aggregate of all rows; its columns are named by [`column_name`].
    Aggregate(Expr),
    /// The event time of the result.
    Time,
}

/// The name of a column that is looked at, by its place among those.
pub(crate) fn column_name(place: usize) -> String {
    format!("#{place}")
}

/// The readings as columns.
pub(crate) fn schema_of(readings: &[Reading]) -> SqlResult<DFSchema> {
    let fields = readings.iter().map(|r| (None, std::sync::Arc::new(Field::new(&r.name, r.kind.clone(), true)))).collect();
    DFSchema::new_with_metadata(fields, Default::default()).map_err(SqlError::of_planner)
}

/// Takes expressions over the rows of a match apart.
pub(super) struct Reader<'a> {
    pub(super) context: &'a mut dyn RelationPlannerContext,
    pub(super) input: &'a DFSchema,
    /// Of the pattern.
    pub(super) variables: &'a [String],
    /// Columns of the input that are looked at.
    pub(super) columns: Vec<Column>,
    /// The place of the event time among them.
    pub(super) time: Option<usize>,
    /// Of the session; none = UTC.
    pub(super) zone: Option<Zone>,
}

impl Reader<'_> {
    /// The place of a column among those that are looked at.
    pub(super) fn column(&mut self, name: SqlExpr) -> SqlResult<usize> {
        let span = name.span();
        let text = name.to_string();
        match self.context.sql_to_expr(name, self.input).map_err(|e| SqlError::of_planner(e).or_at(Some(span)))? {
            Expr::Column(column) => Ok(self.place(column)),
            _ => Err(SqlError::unsupported(&format!("{text} here"), "it is by columns", "compute it in a view or subquery").at(span)),
        }
    }

    fn place(&mut self, column: Column) -> usize {
        self.columns.iter().position(|c| *c == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        })
    }

    fn kind(&self, place: usize) -> SqlResult<DataType> {
        let at = self.input.index_of_column(&self.columns[place]).map_err(SqlError::of_planner)?;
        Ok(self.input.field(at).data_type().clone())
    }

    /// An expression of DEFINE or MEASURES over readings, which are put behind those that there are.
    pub(super) fn read(&mut self, mut expr: SqlExpr, in_measures: bool, readings: &mut Vec<Reading>) -> SqlResult<Expr> {
        let span = expr.span();
        let mut navigation = Navigation { reader: self, readings, in_measures, logical: None };
        if let ControlFlow::Break(error) = expr.visit(&mut navigation) {
            return Err((*error).or_at(Some(span)));
        }
        let schema = schema_of(readings)?;
        let expr = self.context.sql_to_expr(expr, &schema).map_err(|e| SqlError::of_planner(e).or_at(Some(span)))?;
        settled(expr, &schema, self.zone).map_err(|e| e.or_at(Some(span)))
    }

    /// Variable, column and fields of `A.x.y`, or of `x.y`.
    fn split<'n>(&self, names: &'n [Ident]) -> SqlResult<(Option<String>, &'n Ident, &'n [Ident])> {
        match names {
            [variable, column, rest @ ..] if self.variables.contains(&variable.value) => Ok((Some(variable.value.clone()), column, rest)),
            [column, rest @ ..] if rest.is_empty() || self.input.has_column_with_unqualified_name(&column.value) => {
                Ok((None, column, rest))
            }
            [name, ..] => Err(SqlError::new(format!("{name} is no variable of the PATTERN"))
                .at(name.span)
                .nearest(&name.value, self.variables.iter().map(String::as_str))),
            [] => Err(SqlError::new("a name is missing")),
        }
    }
}

/// Within FIRST or LAST.
struct Logical {
    first: bool,
    offset: usize,
    /// Of all columns in it.
    variable: Option<Option<String>>,
}

/// Puts readings in the place of what asks for them.
struct Navigation<'r, 'a> {
    reader: &'r mut Reader<'a>,
    readings: &'r mut Vec<Reading>,
    in_measures: bool,
    logical: Option<Logical>,
}

impl VisitorMut for Navigation<'_, '_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Box<SqlError>> {
        let why = "a row is looked at beside the rows of its match only";
        ControlFlow::Break(Box::new(SqlError::unsupported("a subquery in MATCH_RECOGNIZE", why, "a join before it or behind it")))
    }

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<Box<SqlError>> {
        match self.replaced(expr) {
            Ok(Some(reading)) => *expr = reading,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(Box::new(error)),
        }
        ControlFlow::Continue(())
    }
}

impl Navigation<'_, '_> {
    fn replaced(&mut self, expr: &SqlExpr) -> SqlResult<Option<SqlExpr>> {
        Ok(match expr {
            SqlExpr::Identifier(name) if name.quote_style == READING => None,
            SqlExpr::CompoundIdentifier(names) if names.first().is_some_and(|name| name.quote_style == READING) => None,
            SqlExpr::Identifier(name) => Some(SqlExpr::Identifier(self.of_row(None, name)?)),
            SqlExpr::CompoundIdentifier(names) => {
                let (variable, column, rest) = self.reader.split(names)?;
                let reading = self.of_row(variable, column)?;
                Some(if rest.is_empty() {
                    SqlExpr::Identifier(reading)
                } else {
                    SqlExpr::CompoundIdentifier(std::iter::once(reading).chain(rest.iter().cloned()).collect())
                })
            }
            SqlExpr::CompoundFieldAccess { root, access_chain } => match (&**root, access_chain.split_first()) {
                (SqlExpr::Identifier(variable), Some((AccessExpr::Dot(SqlExpr::Identifier(column)), rest)))
                    if self.reader.variables.contains(&variable.value) =>
                {
                    let root = Box::new(SqlExpr::Identifier(self.of_row(Some(variable.value.clone()), column)?));
                    Some(SqlExpr::CompoundFieldAccess { root, access_chain: rest.to_vec() })
                }
                _ => None,
            },
            SqlExpr::Function(function) => return self.of_call(function),
            _ => None,
        })
    }

    /// The reading of a column of one row.
    fn of_row(&mut self, variable: Option<String>, column: &Ident) -> SqlResult<Ident> {
        let (first, offset) = match &mut self.logical {
            None => (false, 0),
            Some(logical) => {
                let of = logical.variable.get_or_insert_with(|| variable.clone());
                if *of != variable {
                    let why = "its value is computed of one row";
                    return Err(SqlError::unsupported("FIRST or LAST of several variables", why, "one FIRST or LAST each").at(column.span));
                }
                (logical.first, logical.offset)
            }
        };
        let place = self.reader.column(SqlExpr::Identifier(column.clone()))?;
        let kind = self.reader.kind(place)?;
        let of = variable.as_ref().map_or(column.value.clone(), |v| format!("{v}.{}", column.value));
        Ok(self.put(variable, kind, What::Row { first, offset, column: place }, &of, column.span))
    }

    /// The column of a reading, which may be there already.
    fn put(&mut self, variable: Option<String>, kind: DataType, what: What, text: &str, span: Span) -> Ident {
        let known = self.readings.iter().find(|r| r.variable == variable && r.what == what && r.kind == kind);
        let value = known.map(|r| r.name.clone()).unwrap_or_else(|| {
            let name = format!("{}: {text}", self.readings.len());
            self.readings.push(Reading { name: name.clone(), kind, variable, what });
            name
        });
        Ident { value, quote_style: READING, span }
    }

    fn of_call(&mut self, function: &Function) -> SqlResult<Option<SqlExpr>> {
        let name = function.name.to_string();
        let refuse = |why: &str, instead: &str| Err(SqlError::unsupported(&format!("{name}(...)"), why, instead).at(function.name.span()));
        match name.to_uppercase().as_str() {
            first @ ("FIRST" | "LAST") => self.logical(function, first == "FIRST").map(Some),
            "PREV" | "NEXT" => refuse("rows are looked at that are in the match", "LAST(A.x, 1): the row of A before"),
            "CLASSIFIER" | "MATCH_NUMBER" | "MATCH_PROCTIME" => refuse("Flink's MATCH_RECOGNIZE has it not, or by the clock", ""),
            "MATCH_ROWTIME" if !self.in_measures => refuse("it is known when the match is complete", "it is for MEASURES"),
            "MATCH_ROWTIME" => self.time(function).map(Some),
            other if self.reader.context.context_provider().get_aggregate_meta(&other.to_lowercase()).is_some() => {
                self.aggregate(function).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The arguments of a call, without clauses.
    fn arguments(function: &Function) -> SqlResult<Vec<&SqlExpr>> {
        let wrong = || SqlError::new(format!("{function} cannot be read")).at(function.name.span());
        fn plain(arg: &FunctionArg) -> Option<&SqlExpr> {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = arg { Some(e) } else { None }
        }
        match &function.args {
            FunctionArguments::List(list) if list.clauses.is_empty() && list.duplicate_treatment.is_none() && function.over.is_none() => {
                list.args.iter().map(plain).collect::<Option<Vec<_>>>().ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    /// `LAST(A.x, 1)`: every column in it is of that row.
    fn logical(&mut self, function: &Function, first: bool) -> SqlResult<SqlExpr> {
        let wrong = |what: String| {
            SqlError::new(what).at(function.name.span()).help("LAST(A.x) is of the last row of A, LAST(A.x, 1) of the one before")
        };
        if self.logical.is_some() {
            return Err(wrong(format!("{function} is within another FIRST or LAST")));
        }
        let (mut of, offset) = match Self::arguments(function)?[..] {
            [of] => (of.clone(), 0),
            [of, SqlExpr::Value(n)] => match &n.value {
                Value::Number(n, _) => (of.clone(), n.parse().map_err(|_| wrong(format!("the offset of {function} is no whole number")))?),
                _ => return Err(wrong(format!("the offset of {function} is no whole number"))),
            },
            _ => return Err(wrong(format!("{function} is called otherwise"))),
        };
        let logical = Some(Logical { first, offset, variable: None });
        let mut inner = Navigation { reader: self.reader, readings: self.readings, in_measures: self.in_measures, logical };
        if let ControlFlow::Break(error) = of.visit(&mut inner) {
            return Err(*error);
        }
        match inner.logical {
            Some(Logical { variable: Some(_), .. }) => Ok(SqlExpr::Nested(Box::new(of))),
            _ => Err(wrong(format!("{function} is of no column"))),
        }
    }

    fn time(&mut self, function: &Function) -> SqlResult<SqlExpr> {
        let kind = match Self::arguments(function)?[..] {
            [] => DataType::Timestamp(TimeUnit::Millisecond, None),
            [column] => {
                let place = self.reader.column(column.clone())?;
                if Some(place) != self.reader.time {
                    let what = format!("{function} is not of the event time that ORDER BY names");
                    return Err(SqlError::new(what).at(function.name.span()).help("MATCH_ROWTIME()"));
                }
                self.reader.kind(place)?
            }
            _ => return Err(SqlError::new(format!("{function} is called otherwise")).at(function.name.span()).help("MATCH_ROWTIME()")),
        };
        Ok(SqlExpr::Identifier(self.put(None, kind, What::Time, &function.to_string(), function.name.span())))
    }

    /// `SUM(A.x * A.y)`: of the rows of one variable.
    fn aggregate(&mut self, function: &Function) -> SqlResult<SqlExpr> {
        if self.logical.is_some() {
            let why = "FIRST and LAST are of one row";
            return Err(
                SqlError::unsupported(&format!("{function} within FIRST or LAST"), why, "the aggregate alone").at(function.name.span())
            );
        }
        let (mut plain, text) = (function.clone(), function.to_string());
        let mut strip = Strip { reader: self.reader, variable: None };
        if let FunctionArguments::List(list) = &mut plain.args {
            for arg in &mut list.args {
                let FunctionArg::Unnamed(arg) = arg else { continue };
                let of = match arg {
                    FunctionArgExpr::QualifiedWildcard(name) => Some(name.to_string()).filter(|n| strip.reader.variables.contains(n)),
                    _ => continue,
                };
                strip.of(of, function.name.span())?;
                *arg = FunctionArgExpr::Wildcard;
            }
        }
        if let ControlFlow::Break(error) = plain.visit(&mut strip) {
            return Err(*error);
        }
        let variable = strip.variable.flatten();
        let input = self.reader.input;
        let call = self
            .reader
            .context
            .sql_to_expr(SqlExpr::Function(plain), input)
            .map_err(|e| SqlError::of_planner(e).or_at(Some(function.name.span())))?;
        let call = settled(call, input, self.reader.zone)?.unalias_nested().data;
        let kind = call.get_type(input).map_err(SqlError::of_planner)?;
        let call = call.transform(|e| match e {
            Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column_name(self.reader.place(column)))))),
            other => Ok(Transformed::no(other)),
        });
        let call = call.map_err(SqlError::of_planner)?.data;
        Ok(SqlExpr::Identifier(self.put(variable, kind, What::Aggregate(call), &text, function.name.span())))
    }
}

/// Takes the variable away from the columns of an aggregate.
struct Strip<'r, 'a> {
    reader: &'r Reader<'a>,
    variable: Option<Option<String>>,
}

impl Strip<'_, '_> {
    fn of(&mut self, variable: Option<String>, span: Span) -> SqlResult<()> {
        if *self.variable.get_or_insert_with(|| variable.clone()) == variable {
            return Ok(());
        }
        let why = "it is of the rows of one";
        Err(SqlError::unsupported("an aggregate over the columns of several variables", why, "an aggregate each").at(span))
    }
}

impl VisitorMut for Strip<'_, '_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Box<SqlError>> {
        ControlFlow::Break(Box::new(SqlError::unsupported(
            "a subquery in an aggregate of a pattern",
            "its rows are those of the match",
            "",
        )))
    }

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<Box<SqlError>> {
        let done = match expr {
            // What was stripped before is met again within itself.
            SqlExpr::Identifier(name) if name.quote_style == READING => Ok(None),
            SqlExpr::CompoundIdentifier(names) if names.first().is_some_and(|name| name.quote_style == READING) => Ok(None),
            SqlExpr::Identifier(name) => self.of(None, name.span).map(|()| None),
            SqlExpr::CompoundIdentifier(names) => self.reader.split(names).and_then(|(variable, column, rest)| {
                self.of(variable, column.span)?;
                Ok(Some(if rest.is_empty() {
                    SqlExpr::Identifier(Ident { quote_style: READING, ..column.clone() })
                } else {
                    let first = Ident { quote_style: READING, ..column.clone() };
                    SqlExpr::CompoundIdentifier(std::iter::once(first).chain(rest.iter().cloned()).collect())
                }))
            }),
            SqlExpr::Function(call) if matches!(call.name.to_string().to_uppercase().as_str(), "FIRST" | "LAST" | "MATCH_ROWTIME") => {
                let why = "an aggregate is of all rows of a variable";
                Err(SqlError::unsupported(&format!("{call} within an aggregate"), why, "the column alone").at(call.name.span()))
            }
            _ => Ok(None),
        };
        match done {
            Ok(Some(plain)) => *expr = plain,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(Box::new(error)),
        }
        ControlFlow::Continue(())
    }
}
