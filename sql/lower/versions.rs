//! Temporal joins: each row with the version of a table that was there at the row's event time.
//!
//! Invariant: a version is looked up by the whole primary key; what else is asked of the pair is asked after that, so that it
//! never brings an older version back.

use super::join::Joined;
use super::meet::{Meeting, Met};
use super::{Lowered, Lowering, Place, column_of};
use crate::error::{SqlError, SqlResult};
use crate::plan::Versions;
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
        let input = self.lower(node.input())?;
        let position = |name: &String| input.schema.fields().iter().position(|field| field.name() == name);
        let key = node.key.iter().map(position).collect();
        let mut places = input.places.clone();
        places.push(Place::AsOf);
        Ok(Lowered { schema: node.schema().clone(), places, key, ..input })
    }

    /// A join whose right side is versions, tied to the left one by a time.
    pub(super) fn temporal_join(&mut self, mut joined: Joined) -> SqlResult<Lowered> {
        let input = joined.sides[LEFT].clone();
        joined.sides[LEFT] = self.materialised(input)?;
        let time = joined.tie()?;
        let input = joined.sides[LEFT].clone();
        joined.sides[LEFT] = self.timed_by(input, time)?;
        let meeting = Meeting {
            how: Met::Temporal,
            updating: false,
            state: vec![
                StateNote { what: "rows and versions ahead of the watermark".into(), bound: Bound::Watermark },
                StateNote { what: "1 version a key".into(), bound: Bound::Unbounded },
            ],
            class: (EqualityClass::TimeDependent, "late rows and versions".into()),
        };
        let Lowered { rowtimes, lagging, .. } = joined.sides[LEFT].clone();
        let lowered = self.meet(joined, meeting)?;
        Ok(Lowered { rowtimes, lagging, ..lowered })
    }
}

impl Joined {
    /// Takes the time out of the condition, and all that is not the key of the versions out of what must be equal. Returns the
    /// column of the left side that the time is.
    fn tie(&mut self) -> SqlResult<usize> {
        let [left, right] = &mut self.sides;
        if left.updating {
            return Err(SqlError::unsupported(
                "FOR SYSTEM_TIME AS OF beside rows that change",
                "such rows have no event time",
                "look the version up first",
            ));
        }
        let as_of = right.places.iter().position(|place| *place == Place::AsOf);
        let (ties, on): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.on).into_iter().partition(|(_, r)| as_of.is_some() && column_of(r, &right.schema) == as_of);
        let [(time, _)] = &ties[..] else { return Err(misplaced()) };
        let Some(time) = column_of(time, &left.schema).filter(|time| left.is_rowtime(*time)) else {
            return Err(SqlError::new(format!(
                "{time} is no event time of the rows beside: a version is as of the column that WATERMARK FOR names"
            )));
        };
        let key = right.key.take().unwrap_or_default();
        let is_key = |pair: &(Expr, Expr)| column_of(&pair.1, &right.schema).is_some_and(|column| key.contains(&column));
        let (on, more): (Vec<_>, Vec<_>) = on.into_iter().partition(is_key);
        let found = |column: &usize| on.iter().any(|(_, r)| column_of(r, &right.schema) == Some(*column));
        if key.is_empty() || !key.iter().all(found) {
            return Err(SqlError::new("a version is looked up by its table's whole PRIMARY KEY")
                .help("l.x = r.id in ON, for each column of the key"));
        }
        self.on = on;
        self.filter.extend(more.into_iter().map(|(l, r)| l.eq(r)));
        // The column that stood for the time is not there.
        let fields = |schema: &DFSchema, without: Option<usize>| {
            let fields = schema.iter().enumerate().filter(|(i, _)| Some(*i) != without);
            let fields = fields.map(|(_, (qualifier, field))| (qualifier.cloned(), field.clone())).collect();
            DFSchema::new_with_metadata(fields, Default::default()).map(Arc::new).map_err(SqlError::of_planner)
        };
        let all = as_of.map(|i| i + left.schema.fields().len());
        self.schema = fields(&self.schema, all)?;
        right.schema = fields(&right.schema, as_of)?;
        right.places.retain(|place| *place != Place::AsOf);
        Ok(time)
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
