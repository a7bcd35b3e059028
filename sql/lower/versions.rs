//! Temporal joins: each row with the version of a table that was there at the row's event time. Lookup joins: each row with
//! the rows of a table that was read in before.
//!
//! Invariant: a version is looked up by the whole primary key; what else is asked of the pair is asked after that, so that it
//! never brings an older version back.

use super::join::Joined;
use super::meet::{Meeting, Met};
use super::{Lowered, Lowering, Place, column_of, size};
use crate::error::{SqlError, SqlResult};
use crate::plan::{SINCE, Versions};
use datafusion_common::DFSchema;
use datafusion_expr::Expr;
use datafusion_expr::logical_plan::UserDefinedLogicalNodeCore;
use std::sync::Arc;
use waterwheel_engine::graph::{Bound, EqualityClass, StateNote};
use waterwheel_engine::operators::joins::{LEFT, RIGHT};

impl Lowering<'_> {
    pub(super) fn versions(&mut self, node: &Versions) -> SqlResult<Lowered> {
        if !node.is_beside_a_row() {
            return Err(SqlError::unsupported(
                "FOR SYSTEM_TIME AS OF here",
                "a version is that of a row of another table",
                "FROM a JOIN b FOR SYSTEM_TIME AS OF a.ts ON a.id = b.id",
            ));
        }
        self.read_in_first = node.of.is_bounded && !node.of.has_time;
        self.as_versions = node.of.of_records && node.of.has_time && !node.of.key.is_empty();
        let input = self.lower(node.input());
        (self.read_in_first, self.as_versions) = (false, false);
        let input = input?;
        if let Some(since) = input.schema.fields().iter().position(|field| field.name() == SINCE) {
            check_times(&input, since, &node.of.table)?;
        }
        let position = |name: &String| input.schema.fields().iter().position(|field| field.name() == name);
        let key = node.of.key.iter().map(position).collect();
        let mut places = input.places.clone();
        places.push(Place::AsOf);
        Ok(Lowered { schema: node.schema().clone(), places, key, ..input })
    }

    /// A join whose right side is versions, tied to the left one by a time.
    pub(super) fn temporal_join(&mut self, mut joined: Joined, versions: &Versions) -> SqlResult<Lowered> {
        let time = joined.untie()?;
        let left = joined.sides[LEFT].clone();
        if left.updating {
            return Err(SqlError::unsupported(
                "FOR SYSTEM_TIME AS OF beside rows that change",
                "such rows have no time of their own",
                "look the version up first",
            ));
        }
        if left.places[time] == Place::Clock {
            return self.lookup(joined, versions);
        }
        let left = self.materialised(left)?;
        if !left.is_rowtime(time) {
            return Err(SqlError::new(format!(
                "{:?} is no event time of the rows beside: a version is as of the column that WATERMARK FOR names",
                left.schema.field(time).name()
            )));
        }
        if versions.of.key.is_empty() || !versions.of.has_time {
            return Err(SqlError::new(format!("\"{}\" has no versions: it lacks a PRIMARY KEY or event time", versions.of.table))
                .help("declare both:  PRIMARY KEY (id) NOT ENFORCED, WATERMARK FOR ts AS ts"));
        }
        joined.sides[LEFT] = self.timed_by(left, time)?;
        joined.keep_key()?;
        let meeting = Meeting {
            how: Met::Temporal,
            updating: false,
            state: vec![
                StateNote {
                    what: format!("rows and versions ahead of the watermark, {}", size::of_sides(&joined)),
                    bound: Bound::Watermark,
                },
                StateNote { what: format!("1 version a key{}", size::each(&joined.sides[RIGHT].schema)), bound: Bound::Unbounded },
            ],
            class: vec![(EqualityClass::TimeDependent, "late rows and versions".into())],
        };
        let Lowered { rowtimes, lagging, .. } = joined.sides[LEFT].clone();
        let lowered = self.meet(joined, meeting)?;
        Ok(Lowered { rowtimes, lagging, ..lowered })
    }

    /// A join with the rows that a table has: one that is read to its end first, so that it is the same for all rows.
    fn lookup(&mut self, mut joined: Joined, versions: &Versions) -> SqlResult<Lowered> {
        let table = &versions.of.table;
        if !versions.of.is_bounded {
            return Err(SqlError::unsupported(
                &format!("FOR SYSTEM_TIME AS OF PROCTIME() on \"{table}\""),
                "what it holds when a row comes depends on how fast both are read",
                "a table of files; or a version by event time, with a PRIMARY KEY and a WATERMARK",
            ));
        }
        if versions.of.has_time {
            return Err(SqlError::new(format!("\"{table}\" is looked up by PROCTIME() and has event time"))
                .help("leave its WATERMARK out, or look it up by event time"));
        }
        if joined.on.is_empty() {
            return Err(SqlError::new(format!("\"{table}\" is looked up without an equality")).help("a.x = b.id in ON"));
        }
        // The clock is in no batch: its columns go round the join.
        let (left, whole) = (joined.sides[LEFT].clone(), joined.schema.clone());
        let clocks: Vec<usize> = (0..left.places.len()).filter(|&i| left.places[i] == Place::Clock).collect();
        joined.schema = without(&joined.schema, &clocks)?;
        joined.sides[LEFT] = self.materialised(left.without(&clocks)?)?;
        let Lowered { rowtimes, lagging, .. } = joined.sides[LEFT].clone();
        let meeting = Meeting {
            how: Met::Lookup,
            updating: false,
            state: vec![StateNote {
                what: format!("the rows of {table}, read in first{}", size::each(&joined.sides[RIGHT].schema)),
                bound: Bound::Unbounded,
            }],
            class: vec![(EqualityClass::Exact, "lookup in a table that is read to its end".into())],
        };
        let lowered = self.meet(joined, meeting)?;
        let mut in_batch = 0..;
        let place = |i: usize| if clocks.contains(&i) { Place::Clock } else { Place::Batch(in_batch.next().unwrap_or(i)) };
        let places = (0..whole.fields().len()).map(place).collect();
        let moved = |i: usize| (0..).filter(|at| !clocks.contains(at)).nth(i).unwrap_or(i);
        Ok(Lowered {
            schema: whole,
            places,
            rowtimes: rowtimes.into_iter().map(moved).collect(),
            lagging: lagging.into_iter().map(|(i, ms)| (moved(i), ms)).collect(),
            ..lowered
        })
    }
}

/// Rows of a query are versions where they only come, in the order that the query says is theirs.
fn check_times(input: &Lowered, since: usize, view: &str) -> SqlResult<()> {
    let refuse = |why, instead| Err(SqlError::unsupported(&format!("FOR SYSTEM_TIME AS OF on \"{view}\""), why, instead));
    if input.updating {
        return refuse("its rows change: the newest of them is no version", "ROW_NUMBER() over a table that only grows");
    }
    if !input.is_rowtime(since) {
        return refuse("what its rows are ordered by is no event time", "ORDER BY ts DESC, the column that WATERMARK FOR names");
    }
    Ok(())
}

/// A schema less some of its columns.
fn without(schema: &DFSchema, columns: &[usize]) -> SqlResult<Arc<DFSchema>> {
    let fields = schema.iter().enumerate().filter(|(i, _)| !columns.contains(i));
    let fields = fields.map(|(_, (qualifier, field))| (qualifier.cloned(), field.clone())).collect();
    DFSchema::new_with_metadata(fields, Default::default()).map(Arc::new).map_err(SqlError::of_planner)
}

impl Lowered {
    /// The same less columns that are in no batch.
    fn without(self, columns: &[usize]) -> SqlResult<Lowered> {
        let moved = |i: usize| (!columns.contains(&i)).then(|| i - columns.iter().filter(|column| **column < i).count());
        Ok(Lowered {
            schema: without(&self.schema, columns)?,
            places: self.places.iter().enumerate().filter(|(i, _)| !columns.contains(i)).map(|(_, place)| *place).collect(),
            key: self.key.as_ref().and_then(|key| key.iter().map(|i| moved(*i)).collect()),
            rowtimes: self.rowtimes.iter().filter_map(|i| moved(*i)).collect(),
            lagging: self.lagging.iter().filter_map(|&(i, ms)| Some((moved(i)?, ms))).collect(),
            fired: self.fired.and_then(|fired| fired.moved(moved)),
            session_by: self.session_by.as_ref().and_then(|by| by.iter().map(|i| moved(*i)).collect()),
            ..self
        })
    }
}

impl Joined {
    /// Takes the time out of what must be equal, and the column that stood for it out of the right side and the result.
    /// Returns the column of the left side that the time is.
    fn untie(&mut self) -> SqlResult<usize> {
        let [left, right] = &mut self.sides;
        let as_of = right.places.iter().position(|place| *place == Place::AsOf).ok_or_else(misplaced)?;
        let is_tie = |pair: &(Expr, Expr)| column_of(&pair.1, &right.schema) == Some(as_of);
        let (ties, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.on).into_iter().partition(is_tie);
        let [(time, _)] = &ties[..] else { return Err(misplaced()) };
        let time = column_of(time, &left.schema).ok_or_else(misplaced)?;
        self.on = on;
        self.schema = without(&self.schema, &[as_of + left.schema.fields().len()])?;
        *right = right.clone().without(&[as_of])?;
        Ok(time)
    }

    /// Leaves the key of the versions in what must be equal, all of it and nothing else; the rest is asked of the pair.
    fn keep_key(&mut self) -> SqlResult<()> {
        let right = &self.sides[RIGHT];
        let key = right.key.clone().unwrap_or_default();
        let is_key = |pair: &(Expr, Expr)| column_of(&pair.1, &right.schema).is_some_and(|column| key.contains(&column));
        let (on, more): (Vec<_>, Vec<_>) = std::mem::take(&mut self.on).into_iter().partition(is_key);
        let found = |column: &usize| on.iter().any(|(_, r)| column_of(r, &right.schema) == Some(*column));
        if key.is_empty() || !key.iter().all(found) {
            return Err(SqlError::new("a version is looked up by its table's whole PRIMARY KEY")
                .help("l.x = r.id in ON, for each column of the key"));
        }
        self.on = on;
        self.filter.extend(more.into_iter().map(|(l, r)| l.eq(r)));
        Ok(())
    }

    /// Whether the right side is versions.
    pub(super) fn is_lookup(&self) -> bool {
        self.sides[RIGHT].places.contains(&Place::AsOf)
    }
}

/// Versions that no join looks up.
pub(super) fn misplaced() -> SqlError {
    SqlError::unsupported(
        "this use of FOR SYSTEM_TIME AS OF",
        "a version is looked up for the row of one table beside it",
        "FROM a JOIN b FOR SYSTEM_TIME AS OF a.ts ON a.id = b.id",
    )
}
