//! The operator around the detection: rows and partial matches by key, timers, what comes out.
//!
//! State of a key is one entry: its partial matches and the rows that they have taken. It goes when the last of them does.
//!
//! Invariant: before a row is offered, what is too old for it is taken out; so what comes out of a key does not depend on when
//! the watermark came. A row whose condition panics leaves no trace.

use super::nfa::{Found, Matching, Nfa};
use super::{KeptRow, Match, Pattern};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::operators::check_description;
use crate::operators::guarded::guarded_call;
use crate::operators::{OpenContext, Operator, OperatorFactory, Output, Port};
use crate::record::{BatchBox, Data, Key, Keys, Rows, downcast};
use crate::state::{OrderedTable, PointTable, StateValue, Table};
use crate::time::EventTime;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where partial matches leave that lasted too long.
pub const TIMED_OUT_PORT: Port = 1;

/// Detects `pattern` in a keyed stream whose rows come in the order of event time. `select` makes a result of a match,
/// `timed_out` one of a partial match that lasted too long, for [`TIMED_OUT_PORT`].
pub fn detect<K: Key, T: Data + StateValue, U: Data, V: Data>(
    pattern: &Pattern<T>,
    select: impl Fn(&Match<'_, T>) -> U + Send + Sync + 'static,
    timed_out: impl Fn(&Match<'_, T>) -> V + Send + Sync + 'static,
) -> OperatorFactory {
    try_detect::<K, T, U, V>(pattern, move |found| Ok(select(found)), move |late| Ok(timed_out(late)))
}

/// As [`detect`], with functions that may fail: then the match has no result, and is rejected.
pub fn try_detect<K: Key, T: Data + StateValue, U: Data, V: Data>(
    pattern: &Pattern<T>,
    select: impl Fn(&Match<'_, T>) -> Result<U, String> + Send + Sync + 'static,
    timed_out: impl Fn(&Match<'_, T>) -> Result<V, String> + Send + Sync + 'static,
) -> OperatorFactory {
    let pattern = pattern.clone();
    let (select, timed_out): (Select<T, U>, Select<T, V>) = (Arc::new(select), Arc::new(timed_out));
    Arc::new(move || {
        Box::new(Detect {
            pattern: pattern.clone(),
            nfa: None,
            select: select.clone(),
            timed_out: timed_out.clone(),
            keys: PointTable::new("partial-matches").with_key(K::kind()),
            timers: OrderedTable::new("timeouts").with_key(K::kind()),
            slots: Vec::new(),
            results: Rows::default(),
            late: Rows::default(),
        })
    })
}

type Select<T, U> = Arc<dyn Fn(&Match<'_, T>) -> Result<U, String> + Send + Sync>;

/// State of a key.
#[derive(Serialize, Deserialize)]
struct KeyState<T> {
    matching: Matching,
    /// Rows that were taken, by number.
    rows: Vec<KeptRow<T>>,
    /// Number of the row that comes next.
    next: u64,
    /// When the timer of the key goes off, if there is one.
    timer_ms: Option<i64>,
}

impl<T> Default for KeyState<T> {
    fn default() -> Self {
        KeyState { matching: Matching::default(), rows: Vec::new(), next: 0, timer_ms: None }
    }
}

impl<T> KeyState<T> {
    /// Rows that no match has taken go.
    fn forget_rows(&mut self) {
        let mut taken: Vec<u64> = self.matching.rows().collect();
        taken.sort_unstable();
        self.rows.retain(|(number, ..)| taken.binary_search(number).is_ok());
    }
}

struct Detect<T, U, V> {
    pattern: Pattern<T>,
    nfa: Option<Arc<Nfa>>,
    select: Select<T, U>,
    timed_out: Select<T, V>,
    keys: PointTable<KeyState<T>>,
    timers: OrderedTable<()>,
    slots: Vec<u32>,
    results: Rows<U>,
    late: Rows<V>,
}

impl<T: Data + StateValue, U: Data, V: Data> Detect<T, U, V> {
    fn put_out(&mut self, found: Vec<(i64, Found)>, state: &KeyState<T>, out: &mut Output<'_>) -> Result<()> {
        let Some(nfa) = self.nfa.clone() else { return Ok(()) };
        for (time, found) in found {
            let time = EventTime(time);
            let done = match &found {
                Found::Match(taken) => {
                    let rows = Match { steps: &nfa.steps, taken, rows: &state.rows };
                    guarded_call(|| (self.select)(&rows)).flatten().map(|row| self.results.push(row, time, None))
                }
                Found::TimedOut(taken) => {
                    let rows = Match { steps: &nfa.steps, taken, rows: &state.rows };
                    guarded_call(|| (self.timed_out)(&rows)).flatten().map(|row| self.late.push(row, time, None))
                }
            };
            if let Err(error) = done {
                out.reject(None, time, error)?;
            }
        }
        Ok(())
    }

    /// Offers a row to its key.
    fn offer(&mut self, state: &mut KeyState<T>, time: i64, row: T, out: &mut Output<'_>) -> Result<Option<String>> {
        let Some(nfa) = self.nfa.clone() else { return Ok(None) };
        let found = if planted(Bug::MatchTooOld) { Vec::new() } else { nfa.expire(&mut state.matching, time) };
        self.put_out(found, state, out)?;
        let number = state.next;
        let conditions = &self.pattern.conditions;
        let (matching, rows) = (&mut state.matching, &state.rows);
        let offered = guarded_call(|| {
            nfa.advance(matching, number, time, &mut |condition, taken| {
                conditions[condition](&row, &Match { steps: &nfa.steps, taken, rows })
            })
        });
        let found = match offered.flatten() {
            Ok(found) => found,
            Err(error) => return Ok(Some(error)),
        };
        state.next += 1;
        state.rows.push((number, time, row));
        self.put_out(found.into_iter().map(|found| (time, found)).collect(), state, out)?;
        state.forget_rows();
        Ok(None)
    }

    /// Sets the timer of a key whose first partial match lasts too long before the timer that there is.
    fn set_timer(&mut self, state: &mut KeyState<T>, key: &[u8]) {
        let expiry = self.nfa.as_ref().and_then(|nfa| nfa.next_expiry_ms(&state.matching.partials));
        if let Some(at) = expiry
            && state.timer_ms.is_none_or(|timer| timer > at)
        {
            // At the last moment before: from then on no row can come that is in time.
            self.timers.insert(EventTime(at.saturating_sub(1)), key, &[], ());
            state.timer_ms = Some(at);
        }
    }

    /// Puts the state of a key back, or forgets the key.
    fn put_back(&mut self, slot: u32, state: KeyState<T>) {
        if state.matching.is_empty() && state.timer_ms.is_none() {
            self.keys.remove(slot);
        } else {
            self.keys.insert(slot, state);
        }
    }

    /// The input has ended: matches that waited, and would for ever, come out with the time of their key's last row.
    fn end(&mut self, out: &mut Output<'_>) -> Result<()> {
        let Some(nfa) = self.nfa.clone() else { return Ok(()) };
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.keys.for_each(|key, state| {
            if !state.matching.waiting.is_empty() {
                keys.push(key.to_vec());
            }
        })?;
        keys.sort_unstable();
        let mut slots = Vec::new();
        for key in keys {
            self.keys.resolve(&Keys::of_bytes(&key), &mut slots)?;
            let Some(mut state) = self.keys.remove(slots[0]) else { continue };
            let time = state.rows.last().map_or(i64::MAX, |row| row.1);
            let found = nfa.end(&mut state.matching);
            self.put_out(found.into_iter().map(|found| (time, found)).collect(), &state, out)?;
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Output<'_>) -> Result<()> {
        out.emit(std::mem::take(&mut self.results).boxed())?;
        out.emit_to(TIMED_OUT_PORT, std::mem::take(&mut self.late).boxed())
    }
}

impl<T: Data + StateValue, U: Data, V: Data> Operator for Detect<T, U, V> {
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        self.nfa = Some(Arc::new(self.pattern.nfa()?));
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.keys, &mut self.timers]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Rows { rows, times, keys, origins } = downcast::<Rows<T>>(batch);
        let Some(keys) = keys else { unreachable!("plan bug: a pattern needs a keyed stream") };
        let mut slots = std::mem::take(&mut self.slots);
        self.keys.resolve(&keys, &mut slots)?;
        let mut scratch = [0; 8];
        for (i, row) in rows.into_iter().enumerate() {
            let slot = slots[i];
            let known = self.keys.get(slot).is_some();
            let mut state = if known { self.keys.get_mut(slot).take().unwrap_or_default() } else { KeyState::default() };
            if let Some(error) = self.offer(&mut state, times[i].0, row, out)? {
                out.reject(origins.as_ref().map(|o| o.0[i].clone()), times[i], error)?;
            }
            self.set_timer(&mut state, keys.bytes(i, &mut scratch));
            if known || !state.matching.is_empty() {
                self.put_back(slot, state);
            }
        }
        self.slots = slots;
        self.flush(out)
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let mut slots = Vec::new();
        while let Some(due) = self.timers.pop_due(time)? {
            let keys = Keys::of_bytes(&due.key);
            self.keys.resolve(&keys, &mut slots)?;
            let slot = slots[0];
            let Some(mut state) = self.keys.get_mut(slot).take() else { continue };
            state.timer_ms = None;
            let Some(nfa) = self.nfa.clone() else { return Err(Error::fatal("a pattern was used before it was opened")) };
            let at = due.time.0.saturating_add(1);
            let found = nfa.expire(&mut state.matching, at);
            self.put_out(found, &state, out)?;
            state.forget_rows();
            self.set_timer(&mut state, &due.key);
            self.put_back(slot, state);
        }
        if time == EventTime::MAX && self.nfa.as_ref().is_some_and(|nfa| nfa.earliest_start_first) {
            self.end(out)?;
        }
        self.flush(out)
    }

    fn save(&mut self) -> Vec<u8> {
        self.pattern.meaning.clone().into_bytes()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        check_description(&self.pattern.meaning, blobs)
    }
}
