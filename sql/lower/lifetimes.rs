//! How long state is kept that nothing else bounds: as the session says, or a hint of the statement for one input.
//!
//! `/*+ STATE_TTL('a' = '1 d', 'b' = '2 d') */` names inputs of joins and aggregates as they are called in the statement. What a
//! join has put together has no such name, and is kept as the session says.
//!
//! Invariant: a hint that names no input is an error.

use super::Lowering;
use crate::error::{SqlError, SqlResult};
use datafusion_common::DFSchema;
use std::time::Duration;
use waterwheel_engine::graph::{Bound, EqualityClass};

/// None = for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime(pub(super) Option<Duration>);

impl Lifetime {
    /// What ends the state.
    pub(super) fn bound(self) -> Bound {
        self.0.map_or(Bound::Unbounded, Bound::Ttl)
    }

    /// In the engine's milliseconds.
    pub(super) fn ms(self) -> Option<i64> {
        self.0.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
    }

    /// The equality class of an operator with such state.
    pub(super) fn class(self, class: EqualityClass, why: &str) -> Vec<(EqualityClass, String)> {
        let forgets = self.0.map(|_| (EqualityClass::TimeDependent, "state that is forgotten by the clock".to_string()));
        [(class, why.to_string())].into_iter().chain(forgets).collect()
    }
}

impl Lowering<'_> {
    /// Of state that is of no input alone.
    pub(super) fn lifetime(&self) -> Lifetime {
        Lifetime(self.terms.ttl)
    }

    /// Of what is kept of an input with these columns.
    pub(super) fn lifetime_of(&mut self, input: &DFSchema) -> Lifetime {
        let mut names = input.iter().filter_map(|(table, _)| Some(table?.table()));
        let name = names.next().filter(|name| names.all(|other| other == *name));
        let hinted = name.and_then(|name| self.terms.hinted.iter().find(|hinted| hinted.0 == name));
        match hinted {
            Some((name, ttl, _)) => {
                self.lived.insert(name.clone());
                Lifetime(*ttl)
            }
            None => self.lifetime(),
        }
    }

    /// Refuses hints that have named nothing.
    pub(super) fn check_lifetimes(&self) -> SqlResult<()> {
        match self.terms.hinted.iter().find(|hinted| !self.lived.contains(&hinted.0)) {
            None => Ok(()),
            Some((name, _, span)) => Err(SqlError::new(format!(
                "STATE_TTL names {name:?}, which is no input of a join or an aggregate whose state nothing else bounds"
            ))
            .at(*span)
            .help("the name, or the alias, that a table or subquery has in FROM")),
        }
    }
}
