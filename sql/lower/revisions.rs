//! Windows whose results change: rows that come behind the end of their window still count for a while, or results leave
//! before it.
//!
//! The engine's window gives the whole result again; here it takes the place of the one before. So the rows of such a query
//! change, and what is behind it goes by no window any more.
//!
//! Invariant: a result is kept until its window takes no more rows in; sessions take none in behind their end, as in Flink,
//! because one may become a part of another.

use super::{Lowered, Lowering, arrow_schema, size};
use crate::error::{SqlError, SqlResult};
use crate::kernels::keys::ColumnKeys;
use crate::kernels::newest::Newest;
use crate::kernels::packed::Packed;
use crate::plan::{WindowKind, Windows};
use datafusion_common::DFSchema;
use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::graph::{Bound, EqualityClass, NodeIndex, NodeNote, Routing, StateNote};
use waterwheel_engine::observe::human_duration;
use waterwheel_engine::operators::{Grouping, group, key_columns};
use waterwheel_engine::windowing::{Firing, WindowOptions};

/// When a window gives results besides at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Emission {
    /// For so long after its end: with each batch of late rows.
    lateness: Duration,
    /// Before its end: every so often, or with each row.
    early: Option<Duration>,
}

impl Emission {
    /// At its end alone: results never change.
    pub(super) fn is_final(self) -> bool {
        self == Emission::default()
    }

    /// What is said of it.
    pub(super) fn describe(self) -> String {
        let early = self.early.map(|every| match every.is_zero() {
            true => "; results with each row".to_string(),
            false => format!("; results every {}", human_duration(every)),
        });
        let late = (!self.lateness.is_zero()).then(|| format!("; late rows change results for {}", human_duration(self.lateness)));
        early.into_iter().chain(late).collect()
    }

    /// What is kept of a key.
    pub(super) fn kept(self, windows: &Windows) -> String {
        let unit = if self.early.is_some() { "windows" } else { "slices" };
        format!("{} {unit} a key", windows.size_ms / windows.slide_ms)
    }

    /// The engine's options.
    pub(super) fn options<T>(self) -> WindowOptions<T> {
        let every = self.early.filter(|every| !every.is_zero());
        let rows = self.early.filter(Duration::is_zero).map(|_| 1);
        WindowOptions { allowed_lateness: self.lateness, firing: Firing { every, rows, ..Firing::default() } }
    }
}

impl Lowering<'_> {
    /// As the session says.
    pub(super) fn emission(&self, windows: &Windows) -> SqlResult<Emission> {
        let early = self.terms.early;
        if windows.kind == WindowKind::Session {
            return match early {
                None => Ok(Emission::default()),
                Some(_) => Err(SqlError::unsupported(
                    "'table.exec.emit.early-fire.enabled' with SESSION",
                    "a session may become a part of another",
                    "RESET 'table.exec.emit.early-fire.enabled'",
                )),
            };
        }
        // Of the clock's windows no row is late.
        let lateness = if windows.of_clock { Duration::ZERO } else { self.terms.lateness };
        Ok(Emission { lateness, early })
    }

    /// Results that come again, known by their first columns, as changes of those before.
    pub(super) fn revised(
        &mut self,
        results: NodeIndex,
        schema: &Arc<DFSchema>,
        keys: usize,
        emission: Emission,
        only_new: bool,
    ) -> SqlResult<Lowered> {
        let columns = arrow_schema(schema);
        let packed = Packed::of(&columns, false).map_err(|name| {
            SqlError::unsupported(&format!("column {name:?} of a window whose results change"), "such values are not kept yet", "")
        })?;
        let key: Vec<usize> = (0..keys).collect();
        let glue = NodeNote { glue: true, ..NodeNote::default() };
        let keyed = self.add("key_by", key_columns(Arc::new(ColumnKeys(key.clone()))), &[(results, Routing::Forward)], glue);
        let note = NodeNote {
            detail: "newest result of each window".into(),
            state: vec![StateNote { what: format!("1 row a key and window{}", size::each(schema)), bound: Bound::Watermark }],
            class: vec![(EqualityClass::TimeDependent, "results that are not final".into())],
            glue: false,
        };
        let ends_ms = Some(i64::try_from(emission.lateness.as_millis()).unwrap_or(i64::MAX));
        let factory =
            group(Grouping { only_new, ends_ms, ..Grouping::default() }, move || Ok(Newest::new(packed.clone(), columns.clone())));
        let node = self.add("revised", factory, &[(keyed, Routing::KeyGroup)], note);
        Ok(Lowered { key: Some(key), ..Lowered::plain(node, schema.clone(), true) })
    }
}
