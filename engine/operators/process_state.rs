//! State and timers of a process function: tables behind handles.
//!
//! Invariant: all tables are resolved for the keys of the batch at hand before the function is called, so that every access
//! through a handle is array access.

use super::broadcast::Shared;
use super::process::{ProcessContext, ProcessOpen};
use super::ttl::{Since, Ttl};
use crate::error::{Error, Result};
use crate::record::{Data, Key, Keys};
use crate::state::{OrderedTable, PointTable, StateValue, Table};
use crate::time::EventTime;
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// A timer that fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Its name.
    pub name: String,
    /// When it was due: event time, or wall time in milliseconds for a processing-time timer.
    pub time: EventTime,
    /// Whether it is a processing-time timer.
    pub is_processing_time: bool,
}

impl Timer {
    pub(super) fn new(tag: &[u8], time: EventTime, is_processing_time: bool) -> Result<Timer> {
        let name = std::str::from_utf8(tag).map_err(|_| Error::fatal("the name of a timer in state is damaged"))?;
        Ok(Timer { name: name.to_string(), time, is_processing_time })
    }
}

/// Everything a function keeps.
pub(super) struct States {
    values: Vec<Box<dyn KeyedState>>,
    /// Per table: slot of each row of the batch at hand.
    slots: Vec<Vec<u32>>,
    /// Per table: what its time to live counts from.
    since: Vec<Option<Since>>,
    /// Tables that a look makes younger, and rows that looked during the call at hand.
    read: RefCell<Vec<(usize, usize)>>,
    pub(super) timers: OrderedTable<()>,
    pub(super) wall_timers: OrderedTable<()>,
    pub(super) uses_wall: bool,
    /// At the end of the input: timers set by the call at hand.
    pub(super) rearmed: Option<Vec<(String, EventTime)>>,
    pub(super) shared: Shared,
    /// Kind of the keys.
    key: Option<String>,
    /// What is wrong with what was declared.
    pub(super) problem: Option<Error>,
}

impl Default for States {
    fn default() -> Self {
        States {
            values: Vec::new(),
            slots: Vec::new(),
            since: Vec::new(),
            read: RefCell::default(),
            timers: OrderedTable::new("timers"),
            wall_timers: OrderedTable::new("processing-timers"),
            uses_wall: false,
            rearmed: None,
            shared: Shared::default(),
            key: None,
            problem: None,
        }
    }
}

/// A table of any value type.
pub(super) trait KeyedState: Send {
    fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) -> Result<()>;
    fn expire(&mut self, watermark: EventTime);
    fn touch(&mut self, slot: u32, time: EventTime);
    fn table(&mut self) -> &mut dyn Table;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<V: StateValue> KeyedState for PointTable<V> {
    fn resolve(&mut self, keys: &Keys, slots: &mut Vec<u32>) -> Result<()> {
        PointTable::resolve(self, keys, slots)
    }
    fn expire(&mut self, watermark: EventTime) {
        PointTable::expire(self, watermark);
    }
    fn touch(&mut self, slot: u32, time: EventTime) {
        PointTable::touch(self, slot, time);
    }
    fn table(&mut self) -> &mut dyn Table {
        self
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl States {
    /// Nothing kept yet, under keys of a kind.
    pub(super) fn of_keys(kind: Option<String>) -> Self {
        let timers = OrderedTable::new("timers").with_key(kind.clone());
        let wall_timers = OrderedTable::new("processing-timers").with_key(kind.clone());
        States { timers, wall_timers, key: kind, ..States::default() }
    }

    pub(super) fn resolve(&mut self, keys: &Keys) -> Result<()> {
        self.values.iter_mut().zip(&mut self.slots).try_for_each(|(state, slots)| state.resolve(keys, slots))
    }

    pub(super) fn expire(&mut self, watermark: EventTime) {
        self.values.iter_mut().for_each(|state| state.expire(watermark));
    }

    pub(super) fn tables(&mut self) -> Vec<&mut dyn Table> {
        let values = self.values.iter_mut().map(|state| state.table());
        values.chain([&mut self.timers as &mut dyn Table, &mut self.wall_timers]).chain(self.shared.tables()).collect()
    }

    pub(super) fn check_names(&mut self) -> Result<()> {
        self.check()?;
        let mut names: Vec<String> = self.tables().iter().map(|t| t.name().to_string()).collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::fatal(format!("two states of a process function are named {:?}", pair[0]))
                .help("give each state a name of its own; \"timers\" and \"processing-timers\" are taken")),
            None => Ok(()),
        }
    }

    pub(super) fn set_timer(&mut self, keys: &Keys, row: usize, name: &str, time: EventTime) {
        let mut scratch = [0; 8];
        self.timers.insert(time, keys.bytes(row, &mut scratch), name.as_bytes(), ());
        if let Some(rearmed) = &mut self.rearmed {
            rearmed.push((name.to_string(), time));
        }
    }

    /// Takes a timer back; whether there was one. A store that cannot say so is a [problem](Self::check) of the call.
    pub(super) fn delete_timer(&mut self, by_clock: bool, key: &[u8], name: &str, time: EventTime) -> bool {
        let timers = if by_clock { &mut self.wall_timers } else { &mut self.timers };
        match timers.remove(time, key, name.as_bytes()) {
            Ok(timer) => timer.is_some(),
            Err(e) => {
                self.problem.get_or_insert(e);
                false
            }
        }
    }

    /// What went wrong where nobody could be told.
    pub(super) fn check(&mut self) -> Result<()> {
        self.problem.take().map_or(Ok(()), Err)
    }

    /// A further table; its place.
    pub(super) fn add<V: StateValue>(&mut self, name: &str, ttl: Option<Ttl>) -> usize {
        let table = PointTable::<V>::new(name).with_key(self.key.clone());
        self.values.push(Box::new(match ttl {
            Some(ttl) => table.with_ttl(ttl.span_ms),
            None => table,
        }));
        self.slots.push(Vec::new());
        self.since.push(ttl.map(|ttl| ttl.since));
        self.values.len() - 1
    }

    /// The call at `time` is over: what it looked at is as young as that, where a look counts.
    pub(super) fn note_reads(&mut self, time: EventTime) {
        for (at, row) in self.read.get_mut().drain(..) {
            self.values[at].touch(self.slots[at][row], time);
        }
    }

    #[inline]
    pub(super) fn get<V: StateValue>(&self, at: usize, row: usize) -> Option<&V> {
        let Some(table) = self.values[at].as_any().downcast_ref::<PointTable<V>>() else {
            unreachable!("a handle is of the type it was declared with")
        };
        if self.since[at] == Some(Since::Use) {
            self.read.borrow_mut().push((at, row));
        }
        table.get(self.slots[at][row])
    }

    #[inline]
    pub(super) fn update<V: StateValue, R>(
        &mut self,
        at: usize,
        row: usize,
        time: EventTime,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> R {
        let Some(table) = self.values[at].as_any_mut().downcast_mut::<PointTable<V>>() else {
            unreachable!("a handle is of the type it was declared with")
        };
        let slot = self.slots[at][row];
        let result = change(table.get_mut(slot));
        if self.since[at] != Some(Since::Creation) || !table.is_touched(slot) {
            table.touch(slot, time);
        }
        result
    }

    pub(super) fn take<V: StateValue>(&mut self, at: usize, row: usize) -> Option<V> {
        let Some(table) = self.values[at].as_any_mut().downcast_mut::<PointTable<V>>() else {
            unreachable!("a handle is of the type it was declared with")
        };
        table.remove(self.slots[at][row])
    }
}

/// A handle that was never declared in `open`.
const UNDECLARED: usize = usize::MAX;

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($t:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($t),+> {
            at: usize,
            types: PhantomData<fn($($t),+)>,
        }

        impl<$($t),+> Default for $name<$($t),+> {
            /// A handle to be replaced in `open`; using it before is a bug that panics.
            fn default() -> Self {
                $name { at: UNDECLARED, types: PhantomData }
            }
        }
    };
}

handle! {
    /// One value per key.
    ValueState<V>
}
handle! {
    /// A list per key, kept as one entry: for short lists (some hundreds).
    ListState<V>
}
handle! {
    /// A map per key, kept as one entry, in key order: for small maps (some hundreds).
    MapState<M, V>
}

impl ProcessOpen<'_> {
    /// A value per key.
    pub fn value<V: StateValue>(&mut self, name: &str) -> ValueState<V> {
        ValueState { at: self.states.add::<V>(name, None), types: PhantomData }
    }

    /// A value per key that is forgotten: a `Duration` after its last change, or as [`Ttl`] says.
    pub fn value_with_ttl<V: StateValue>(&mut self, name: &str, ttl: impl Into<Ttl>) -> ValueState<V> {
        ValueState { at: self.states.add::<V>(name, Some(ttl.into())), types: PhantomData }
    }

    /// A list per key.
    pub fn list<V: StateValue>(&mut self, name: &str) -> ListState<V> {
        ListState { at: self.states.add::<Vec<V>>(name, None), types: PhantomData }
    }

    /// A list per key that is forgotten as a whole, as [`value_with_ttl`](Self::value_with_ttl).
    pub fn list_with_ttl<V: StateValue>(&mut self, name: &str, ttl: impl Into<Ttl>) -> ListState<V> {
        ListState { at: self.states.add::<Vec<V>>(name, Some(ttl.into())), types: PhantomData }
    }

    /// A map per key.
    pub fn map<M: StateValue + Ord, V: StateValue>(&mut self, name: &str) -> MapState<M, V> {
        MapState { at: self.states.add::<BTreeMap<M, V>>(name, None), types: PhantomData }
    }

    /// A map per key that is forgotten as a whole, as [`value_with_ttl`](Self::value_with_ttl).
    pub fn map_with_ttl<M: StateValue + Ord, V: StateValue>(&mut self, name: &str, ttl: impl Into<Ttl>) -> MapState<M, V> {
        MapState { at: self.states.add::<BTreeMap<M, V>>(name, Some(ttl.into())), types: PhantomData }
    }
}

impl<V: StateValue> ValueState<V> {
    /// The value of the key at hand.
    pub fn get<'c, K: Key, U: Data>(&self, context: &'c ProcessContext<'_, K, U>) -> Option<&'c V> {
        context.states.get(self.at, context.row)
    }

    /// Sets the value of the key at hand.
    pub fn set<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>, value: V) {
        self.update(context, |v| *v = Some(value));
    }

    /// Changes the value of the key at hand; `None` is no value.
    pub fn update<K: Key, U: Data, R>(&self, context: &mut ProcessContext<'_, K, U>, change: impl FnOnce(&mut Option<V>) -> R) -> R {
        let time = context.time();
        context.states.update(self.at, context.row, time, change)
    }

    /// Removes the value of the key at hand.
    pub fn take<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>) -> Option<V> {
        context.states.take(self.at, context.row)
    }
}

impl<V: StateValue> ListState<V> {
    /// The list of the key at hand.
    pub fn get<'c, K: Key, U: Data>(&self, context: &'c ProcessContext<'_, K, U>) -> &'c [V] {
        context.states.get::<Vec<V>>(self.at, context.row).map_or(&[], |list| list)
    }

    /// Appends to the list of the key at hand.
    pub fn push<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>, value: V) {
        let time = context.time();
        context.states.update(self.at, context.row, time, |list: &mut Option<Vec<V>>| list.get_or_insert_default().push(value));
    }

    /// Keeps the items that `keep` accepts; an empty list takes no room.
    pub fn retain<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>, keep: impl FnMut(&V) -> bool) {
        if self.get(context).is_empty() {
            return;
        }
        let time = context.time();
        let empty = context.states.update(self.at, context.row, time, |list: &mut Option<Vec<V>>| {
            let list = list.get_or_insert_default();
            list.retain(keep);
            list.is_empty()
        });
        if empty {
            self.take(context);
        }
    }

    /// Removes the list of the key at hand.
    pub fn take<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>) -> Vec<V> {
        context.states.take(self.at, context.row).unwrap_or_default()
    }
}

impl<M: StateValue + Ord, V: StateValue> MapState<M, V> {
    /// One entry of the map of the key at hand.
    pub fn get<'c, K: Key, U: Data>(&self, context: &'c ProcessContext<'_, K, U>, entry: &M) -> Option<&'c V> {
        context.states.get::<BTreeMap<M, V>>(self.at, context.row)?.get(entry)
    }

    /// All entries, in order.
    pub fn entries<'c, K: Key, U: Data>(&self, context: &'c ProcessContext<'_, K, U>) -> impl Iterator<Item = (&'c M, &'c V)> {
        context.states.get::<BTreeMap<M, V>>(self.at, context.row).into_iter().flatten()
    }

    /// Sets one entry; returns the old one.
    pub fn insert<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>, entry: M, value: V) -> Option<V> {
        let time = context.time();
        let change = |map: &mut Option<BTreeMap<M, V>>| map.get_or_insert_default().insert(entry, value);
        context.states.update(self.at, context.row, time, change)
    }

    /// Removes one entry; an empty map takes no room.
    pub fn remove<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>, entry: &M) -> Option<V> {
        self.get(context, entry)?;
        let time = context.time();
        let (removed, empty) = context.states.update(self.at, context.row, time, |map: &mut Option<BTreeMap<M, V>>| {
            let map = map.get_or_insert_default();
            (map.remove(entry), map.is_empty())
        });
        if empty {
            context.states.take::<BTreeMap<M, V>>(self.at, context.row);
        }
        removed
    }

    /// Removes the map of the key at hand.
    pub fn take<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>) -> BTreeMap<M, V> {
        context.states.take(self.at, context.row).unwrap_or_default()
    }
}
