//! Joins: which of the engine's a join of the plan becomes, and what is known of its rows.
//!
//! Rows that both belong to windows, joined on the windows' bounds, meet when the window fires. Rows that only come, joined
//! with bounds between their event times, meet within these. All else is a regular join: every row with every partner so far,
//! kept up to date. Versions of a table are looked up as of the time of the row beside (`versions`).
//!
//! Invariant: of these the one with the least state is taken that has the same results for rows that are not late.

use super::condition::{self, Sides};
use super::meet::{Meeting, Met};
use super::{Fired, Lowered, Lowering, Place, Timing, column_of, size};
use crate::error::{SqlError, SqlResult};
use crate::plan::Versions;
use datafusion_common::{DFSchema, JoinType, NullEquality};
use datafusion_expr::{Expr, Join, LogicalPlan};
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::graph::{Bound, EqualityClass, StateNote};
use waterwheel_engine::observe::human_duration;
use waterwheel_engine::operators::joins::{Bounds, JoinKind, LEFT, RIGHT};

/// A join before it is decided how its rows meet.
pub(super) struct Joined {
    pub(super) kind: JoinKind,
    pub(super) sides: [Lowered; 2],
    /// What must be equal.
    pub(super) on: Vec<(Expr, Expr)>,
    /// What else must be true.
    pub(super) filter: Vec<Expr>,
    /// NULL is equal to NULL.
    pub(super) null_is_equal: bool,
    pub(super) schema: Arc<DFSchema>,
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, node: &Join) -> SqlResult<Lowered> {
        let (kind, swapped) = kind(node.join_type)?;
        if node.null_aware {
            return Err(SqlError::unsupported("NOT IN here", "one NULL in the subquery takes all rows away", "NOT IN in WHERE or SELECT"));
        }
        let mut sides = [self.lower(&node.left)?, self.lower(&node.right)?];
        let mut on = node.on.clone();
        if swapped {
            sides.swap(LEFT, RIGHT);
            on = on.into_iter().map(|(left, right)| (right, left)).collect();
        }
        let mut joined = Joined {
            kind,
            sides,
            on,
            filter: condition::parts(node.filter.as_ref()),
            null_is_equal: node.null_equality == NullEquality::NullEqualsNull,
            schema: node.schema.clone(),
        };
        if joined.is_lookup() {
            let versions = Versions::beneath(&node.right).ok_or_else(super::versions::misplaced)?;
            return self.temporal_join(joined, versions);
        }
        if joined.is_on_windows() {
            return self.window_join(joined);
        }
        for side in [LEFT, RIGHT] {
            let input = joined.sides[side].clone();
            joined.sides[side] = self.materialised(input)?;
        }
        if let Some(span) = joined.take_span() {
            return self.interval_join(joined, span);
        }
        if joined.on.is_empty() && !is_few(&node.left) && !is_few(&node.right) {
            return Err(SqlError::unsupported(
                "a join without an equality between its sides",
                "every row of one would meet every row of the other",
                "a.x = b.y in ON; or bounds on both event times: a.ts BETWEEN b.ts - INTERVAL '1' MINUTE AND b.ts",
            )
            .help("or one side of few rows: an aggregate of all rows, VALUES, ORDER BY x LIMIT n"));
        }
        self.regular_join(joined)
    }

    fn regular_join(&mut self, joined: Joined) -> SqlResult<Lowered> {
        let key = joined.known_by();
        let inputs_change = joined.sides.iter().any(|side| side.updating);
        let lifetimes = [LEFT, RIGHT].map(|side| self.lifetime_of(&joined.sides[side].schema));
        let forgets = lifetimes.into_iter().find(|lifetime| lifetime.0.is_some()).unwrap_or(lifetimes[LEFT]);
        let of_side = |name: &str, side: usize| {
            let what = format!("{name} rows{}", size::each(&joined.sides[side].schema));
            StateNote { what, bound: lifetimes[side].bound() }
        };
        let state = if lifetimes[LEFT] == lifetimes[RIGHT] {
            vec![StateNote { what: format!("the rows of both sides, {}", size::of_sides(&joined)), bound: forgets.bound() }]
        } else {
            vec![of_side("left", LEFT), of_side("right", RIGHT)]
        };
        let meeting = Meeting {
            how: Met::Regular(lifetimes),
            updating: inputs_change || !matches!(joined.kind, JoinKind::Inner | JoinKind::Semi),
            state,
            class: forgets.class(EqualityClass::Converging, "regular join"),
        };
        let lowered = self.meet(joined, meeting)?;
        Ok(Lowered { key, ..lowered })
    }

    fn interval_join(&mut self, mut joined: Joined, span: Span) -> SqlResult<Lowered> {
        for side in [LEFT, RIGHT] {
            let input = joined.sides[side].clone();
            joined.sides[side] = self.timed_by(input, span.times[side])?;
        }
        let bounds = Bounds::new(span.from, span.to).map_err(|e| SqlError::new(e.report()))?;
        let keeps = |side| human_duration(Duration::from_millis(bounds.keeps(side).unwrap_or(0).unsigned_abs()));
        let state = |what: String| StateNote { what, bound: Bound::Watermark };
        let meeting = Meeting {
            how: Met::Interval(bounds),
            updating: false,
            state: vec![
                state(format!("left rows for {} of event time{}", keeps(LEFT), size::each(&joined.sides[LEFT].schema))),
                state(format!("right rows for {}{}", keeps(RIGHT), size::each(&joined.sides[RIGHT].schema))),
            ],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
        };
        // A result has the later time of its two rows, or that at which it is known that there is no partner. By so much the
        // times of a side may be behind it that has a row in every result.
        let (kind, columns) = (joined.kind, joined.sides[LEFT].schema.fields().len());
        let mut times: Vec<(usize, i64)> = Vec::new();
        if matches!(kind, JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti) {
            times.extend(joined.sides[LEFT].times_behind(span.to));
        }
        if matches!(kind, JoinKind::Inner | JoinKind::Right) {
            times.extend(joined.sides[RIGHT].times_behind(span.from.saturating_neg()).map(|(i, ms)| (i + columns, ms)));
        }
        let lowered = self.meet(joined, meeting)?;
        let rowtimes = times.iter().filter(|time| time.1 == 0).map(|time| time.0).collect();
        times.retain(|time| time.1 > 0);
        Ok(Lowered { rowtimes, lagging: times, ..lowered })
    }

    fn window_join(&mut self, mut joined: Joined) -> SqlResult<Lowered> {
        for side in [LEFT, RIGHT] {
            let input = joined.sides[side].clone();
            joined.sides[side] = self.at_window_end(input)?;
        }
        let meeting = Meeting {
            how: Met::AtWindowEnd,
            updating: false,
            state: vec![StateNote { what: format!("the rows of both sides, {}", size::of_sides(&joined)), bound: Bound::Watermark }],
            class: vec![(EqualityClass::TimeDependent, "late rows".into())],
        };
        // Of a side that has a row in every result.
        let columns = joined.sides[LEFT].schema.fields().len();
        let (side, at) = if joined.kind == JoinKind::Right { (RIGHT, columns) } else { (LEFT, 0) };
        let Lowered { fired, rowtimes, lagging, .. } = joined.sides[side].clone();
        let in_all = joined.kind != JoinKind::Full;
        let lowered = self.meet(joined, meeting)?;
        if !in_all {
            return Ok(lowered);
        }
        Ok(Lowered {
            fired: fired.and_then(|fired| fired.complete().moved(|i| Some(i + at))),
            rowtimes: rowtimes.into_iter().map(|i| i + at).collect(),
            lagging: lagging.into_iter().map(|(i, ms)| (i + at, ms)).collect(),
            ..lowered
        })
    }
}

/// How far an event time of the right row may be from one of the left row: `from..=to` milliseconds later.
struct Span {
    /// The two columns.
    times: [usize; 2],
    from: i64,
    to: i64,
}

impl Joined {
    /// Columns of a pair of what must be equal.
    fn columns(&self, (left, right): &(Expr, Expr)) -> Option<(usize, usize)> {
        Some((column_of(left, &self.sides[LEFT].schema)?, column_of(right, &self.sides[RIGHT].schema)?))
    }

    /// Whether both sides are rows of windows, and both bounds of these must be equal.
    fn is_on_windows(&self) -> bool {
        let pairs: Vec<_> = self.on.iter().filter_map(|pair| self.columns(pair)).collect();
        let both = |wanted: Place| {
            pairs.iter().any(|&(left, right)| is_bound(&self.sides[LEFT], left, wanted) && is_bound(&self.sides[RIGHT], right, wanted))
        };
        // Only then rows of equal bounds have one time.
        let [left, right] = &self.sides;
        let timing = |side: &Lowered| side.fired.map(|fired| fired.timing).or(side.pending.map(|windows| Timing::of(&windows)));
        both(Place::WindowStart) && both(Place::WindowEnd) && timing(left) == timing(right)
    }

    /// How far event times of both sides may be apart, where the condition bounds it at both ends; the parts that say so are
    /// taken out of it.
    fn take_span(&mut self) -> Option<Span> {
        if self.sides.iter().any(|side| side.updating) {
            return None;
        }
        let sides = self.as_sides();
        let equal = |(left, right): &(Expr, Expr)| sides.apart(&left.clone().eq(right.clone()));
        let said: Vec<_> = self.filter.iter().map(|part| sides.apart(part)).collect();
        let all: Vec<_> = said.iter().copied().chain(self.on.iter().map(equal)).flatten().collect();
        let span = |times: [usize; 2]| {
            let of = || all.iter().filter(move |apart| apart.times == times);
            let (from, to) = (of().filter_map(|apart| apart.at_least).max()?, of().filter_map(|apart| apart.at_most).min()?);
            Some(Span { times, from, to })
        };
        let span = all.iter().find_map(|apart| span(apart.times))?;
        if span.from > span.to {
            // It joins nothing, which the condition says as well.
            return Some(Span { from: 0, to: 0, ..span });
        }
        let mut said = said.iter();
        self.filter.retain(|_| said.next().is_some_and(|apart| apart.is_none_or(|apart| apart.times != span.times)));
        Some(span)
    }

    pub(super) fn as_sides(&self) -> Sides<'_> {
        Sides {
            schemas: [&self.sides[LEFT].schema, &self.sides[RIGHT].schema],
            rowtimes: [LEFT, RIGHT].map(|side| self.sides[side].times_behind(0).map(|time| time.0).collect()),
        }
    }

    /// Columns that a result is known by, if all changes of one come from one task: where the side that has a row in every
    /// result is known by columns among which are those that it is joined on, and has one partner at most.
    fn known_by(&self) -> Option<Vec<usize>> {
        let pairs: Option<Vec<_>> = self.on.iter().map(|pair| self.columns(pair)).collect();
        let pairs = pairs.filter(|pairs| !pairs.is_empty())?;
        let columns = self.sides[LEFT].schema.fields().len();
        let known = |side: usize| self.sides[side].key.as_ref();
        let of = |side: usize| pairs.iter().map(move |pair| if side == LEFT { pair.0 } else { pair.1 });
        let within = |side: usize| known(side).filter(|key| of(side).all(|column| key.contains(&column)));
        let single = |side: usize| known(side).is_some_and(|key| key.iter().all(|column| of(side).any(|c| c == *column)));
        let left = || within(LEFT).filter(|_| matches!(self.kind, JoinKind::Semi | JoinKind::Anti) || single(RIGHT)).cloned();
        let right = || within(RIGHT).filter(|_| single(LEFT)).map(|key| key.iter().map(|i| i + columns).collect());
        match self.kind {
            JoinKind::Inner => left().or_else(right),
            JoinKind::Left | JoinKind::Semi | JoinKind::Anti => left(),
            JoinKind::Right => right(),
            JoinKind::Full => None,
        }
    }
}

/// Whether a column of a side is that bound of the windows that its rows belong to.
fn is_bound(side: &Lowered, column: usize, wanted: Place) -> bool {
    let has = |place: Place| side.places.contains(&place);
    match side.fired {
        _ if side.updating => false,
        _ if side.pending.is_some() => has(Place::WindowStart) && has(Place::WindowEnd) && side.places[column] == wanted,
        Some(Fired { start, end, .. }) => column == if wanted == Place::WindowStart { start } else { end },
        None => false,
    }
}

/// The engine's kind, and whether the sides change places for it.
fn kind(kind: JoinType) -> SqlResult<(JoinKind, bool)> {
    Ok(match kind {
        JoinType::Inner => (JoinKind::Inner, false),
        JoinType::Left => (JoinKind::Left, false),
        JoinType::Right => (JoinKind::Right, false),
        JoinType::Full => (JoinKind::Full, false),
        JoinType::LeftSemi => (JoinKind::Semi, false),
        JoinType::LeftAnti => (JoinKind::Anti, false),
        JoinType::RightSemi => (JoinKind::Semi, true),
        JoinType::RightAnti => (JoinKind::Anti, true),
        JoinType::LeftMark | JoinType::RightMark => {
            return Err(SqlError::unsupported("this use of IN or EXISTS", "it cannot be made a join", "IN or EXISTS in WHERE or SELECT"));
        }
    })
}

/// Whether a query has few rows, however many are read: one for all, or as many as it says itself.
fn is_few(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Projection(projection) => is_few(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_few(&alias.input),
        LogicalPlan::Filter(filter) => is_few(&filter.input) || super::ranks::is_first_of_all(filter),
        LogicalPlan::Join(join) => is_few(&join.left) && is_few(&join.right),
        LogicalPlan::Union(all) => all.inputs.iter().all(|input| is_few(input)),
        _ => false,
    }
}
