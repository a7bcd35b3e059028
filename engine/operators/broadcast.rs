//! Broadcast state: maps that every task of a process function sees whole, changed by streams of their own.
//!
//! Input 0 is the keyed stream, input `n` the changes of the n-th map: `Rows<(K, Option<V>)>`, `None` removes; they reach
//! every task. The function reads a map through a [`BroadcastState`] and cannot change it: so all tasks agree on it at every
//! barrier, and it survives a rescale. A map that is read from a table is read in before the first row.
//!
//! Invariant: a row meets the maps as they are when it comes; a barrier parts rows and changes alike.

use super::process::{Process, ProcessContext, ProcessFunction, ProcessOpen};
use super::{OpenContext, Operator, OperatorFactory, Output};
use crate::error::{Error, Result};
use crate::record::{BatchBox, Data, Key, Rows, downcast};
use crate::state::{BroadcastTable, StateValue, Table};
use crate::time::EventTime;
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// A map that a process function sees; see [`process_with`].
#[derive(Clone)]
pub struct BroadcastInput {
    make: Arc<dyn Fn() -> Box<dyn SharedMap> + Send + Sync>,
    read_first: bool,
}

impl BroadcastInput {
    /// The map `name`; with `read_first` no row is taken before the watermark of its input says that it has been read in.
    pub fn new<K: Key, V: Data + StateValue>(name: &str, read_first: bool) -> Self {
        let name = name.to_string();
        BroadcastInput { make: Arc::new(move || Box::new(BroadcastTable::<K, V>::new(&name))), read_first }
    }
}

/// As [`process`](super::process), of a function that sees the maps of `inputs`.
pub fn process_with<K: Key, T: Data, U: Data, P: ProcessFunction<K, T, U>>(
    make: impl Fn() -> P + Send + Sync + 'static,
    inputs: Vec<BroadcastInput>,
) -> OperatorFactory {
    Arc::new(move || {
        let mut process = Process::<P, K, T, U>::new(make());
        process.states.shared.0 = inputs.iter().map(|input| (input.make)()).collect();
        let ready = inputs.iter().map(|input| !input.read_first).collect();
        Box::new(WithBroadcast { process, ready })
    })
}

/// Reads one map of the process function; changed by its stream alone.
pub struct BroadcastState<K, V> {
    at: usize,
    types: PhantomData<fn(K, V)>,
}

impl<K, V> Default for BroadcastState<K, V> {
    /// A handle to be replaced in `open`; using it before is a bug that panics.
    fn default() -> Self {
        BroadcastState { at: usize::MAX, types: PhantomData }
    }
}

/// The maps of a function.
#[derive(Default)]
pub(super) struct Shared(Vec<Box<dyn SharedMap>>);

/// A map of any types.
trait SharedMap: Send {
    fn change(&mut self, batch: BatchBox);
    fn table(&mut self) -> &mut dyn Table;
    fn name(&self) -> &str;
    fn as_any(&self) -> &dyn Any;
}

impl<K: Key, V: Data + StateValue> SharedMap for BroadcastTable<K, V> {
    fn change(&mut self, batch: BatchBox) {
        for (key, value) in downcast::<Rows<(K, Option<V>)>>(batch).rows {
            BroadcastTable::change(self, key, value);
        }
    }
    fn table(&mut self) -> &mut dyn Table {
        self
    }
    fn name(&self) -> &str {
        Table::name(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Shared {
    pub(super) fn tables(&mut self) -> impl Iterator<Item = &mut dyn Table> {
        self.0.iter_mut().map(|map| map.table())
    }
}

impl ProcessOpen<'_> {
    /// The broadcast map of that name, which the plan connects to this function.
    pub fn broadcast<K: Key, V: Data + StateValue>(&mut self, name: &str) -> BroadcastState<K, V> {
        let maps = &self.states.shared.0;
        let found = maps.iter().position(|map| map.name() == name && map.as_any().is::<BroadcastTable<K, V>>());
        if found.is_none() {
            let known: Vec<_> = maps.iter().map(|map| map.name().to_string()).collect();
            let why = match known.iter().any(|known| known == name) {
                true => format!("the broadcast map {name:?} has other types than the process function asks for"),
                false => format!("the process function asks for a broadcast map {name:?}, but none is connected to it"),
            };
            self.states.problem = Some(Error::fatal(why).help(format!(
                "connect one of that name and type: .with_broadcast(&...); connected are: {}",
                if known.is_empty() { "none".to_string() } else { known.join(", ") }
            )));
        }
        BroadcastState { at: found.unwrap_or(usize::MAX), types: PhantomData }
    }
}

impl<K: Key, V: Data + StateValue> BroadcastState<K, V> {
    fn map<'c, C: Key, U: Data>(&self, context: &'c ProcessContext<'_, C, U>) -> &'c BroadcastTable<K, V> {
        let Some(map) = context.states.shared.0[self.at].as_any().downcast_ref::<BroadcastTable<K, V>>() else {
            unreachable!("a handle is of the type it was declared with")
        };
        map
    }

    /// The value of a key of the map.
    pub fn get<'c, C: Key, U: Data>(&self, context: &'c ProcessContext<'_, C, U>, key: &K) -> Option<&'c V> {
        self.map(context).get(key)
    }

    /// All entries, in the order of their keys.
    pub fn entries<'c, C: Key, U: Data>(&self, context: &'c ProcessContext<'_, C, U>) -> impl Iterator<Item = (&'c K, &'c V)> {
        self.map(context).iter()
    }
}

struct WithBroadcast<P, K, T, U> {
    process: Process<P, K, T, U>,
    /// Per map: it has been read in.
    ready: Vec<bool>,
}

impl<K: Key, T: Data, U: Data, P: ProcessFunction<K, T, U>> Operator for WithBroadcast<P, K, T, U> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.process.open(context)
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        self.process.tables()
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        match input.checked_sub(1) {
            None => self.process.on_batch(0, batch, out),
            Some(map) => {
                self.process.states.shared.0[map].change(batch);
                Ok(())
            }
        }
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        self.process.on_watermark(time, out)
    }

    fn on_input_watermark(&mut self, input: usize, time: EventTime) {
        if let Some(map) = input.checked_sub(1) {
            self.ready[map] |= time > EventTime::MIN;
        }
    }

    fn only_input(&self) -> Option<usize> {
        self.ready.iter().position(|ready| !ready).map(|map| map + 1)
    }

    fn on_time(&mut self, wall_ms: i64, out: &mut Output<'_>) -> Result<Option<i64>> {
        self.process.on_time(wall_ms, out)
    }

    fn save(&mut self) -> Vec<u8> {
        let mut blob = self.process.save();
        blob.extend(self.ready.iter().map(|&ready| u8::from(ready)));
        blob
    }

    /// A map that the function did not have before is read in first, as at a first start.
    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let mut own = Vec::with_capacity(blobs.len());
        let mut ready = vec![true; self.ready.len()];
        for blob in blobs {
            let (process, maps) =
                blob.split_at_checked(8).ok_or_else(|| Error::fatal("the saved progress of broadcast state is damaged"))?;
            own.push(process.to_vec());
            for (at, ready) in ready.iter_mut().enumerate() {
                *ready &= maps.get(at) == Some(&1);
            }
        }
        self.ready.iter_mut().zip(ready).for_each(|(at_start, restored)| *at_start |= restored && !blobs.is_empty());
        self.process.restore(&own)
    }

    fn close(&mut self) {
        self.process.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Keys, key_groups_of};
    use crate::state::{MemoryStores, RestoredSnapshot, StateStores, TableContext, WriteBatch};
    use crate::testing::{Harness, SimMachine, Step};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// Emits the row with everything that the map holds.
    #[derive(Default)]
    struct Look(BroadcastState<u64, i64>);

    impl ProcessFunction<u64, i64, (i64, Vec<(u64, i64)>)> for Look {
        fn open(&mut self, open: &mut ProcessOpen<'_>) {
            self.0 = open.broadcast("rules");
        }
        fn on_element(&mut self, c: &mut ProcessContext<'_, u64, (i64, Vec<(u64, i64)>)>, row: i64) {
            assert_eq!(self.0.get(c, &1), self.0.entries(c).find(|(k, _)| **k == 1).map(|(_, v)| v));
            let all = self.0.entries(c).map(|(k, v)| (*k, *v)).collect();
            c.emit((row, all));
        }
    }

    fn look(read_first: bool) -> OperatorFactory {
        process_with(Look::default, vec![BroadcastInput::new::<u64, i64>("rules", read_first)])
    }

    fn keyed(rows: &[(u64, i64)]) -> BatchBox {
        let mut batch = Rows::new(rows.iter().map(|r| r.1).collect(), vec![EventTime(0); rows.len()]);
        batch.keys = Some(Keys::encode(rows.iter().map(|r| r.0).collect::<Vec<_>>().into_iter()));
        batch.boxed()
    }

    fn changes(list: &[(u64, Option<i64>)]) -> BatchBox {
        Rows::new(list.to_vec(), vec![EventTime(0); list.len()]).boxed()
    }

    proptest! {
        /// Against a plain map: every row sees the changes before it and none after, in every mode, also while instances
        /// come and go.
        #[test]
        fn every_row_sees_the_map_of_its_moment(script in proptest::collection::vec((0u64..4, proptest::option::of(0i64..3), any::<bool>()), 1..25)) {
            let (mut steps, mut model, mut expect) = (Vec::new(), BTreeMap::new(), Vec::new());
            for (i, (key, value, is_row)) in script.into_iter().enumerate() {
                if is_row {
                    let row = i as i64;
                    steps.push(Step::Batch(0, keyed(&[(key, row), (key + 10, row)])));
                    expect.extend([(row, model.clone()), (row, model.clone())]);
                } else {
                    steps.push(Step::Broadcast(1, changes(&[(key, value)])));
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
            }
            let got = Harness::in_every_mode(&look(false), 0, &steps, |h| {
                let mut all: Vec<_> = h.take::<(i64, Vec<(u64, i64)>)>(0).into_iter().map(|(row, _)| row).collect();
                all.sort();
                all
            });
            let expect: Vec<_> = expect.into_iter().map(|(row, map)| (row, map.into_iter().collect::<Vec<_>>())).collect();
            prop_assert_eq!(got, expect);
        }
    }

    #[test]
    fn a_table_is_read_in_before_the_first_row() {
        let mut h = Harness::new(&look(true), 0);
        assert_eq!(h.only_input(), Some(1));
        h.push_to_all(1, &changes(&[(1, Some(5))]));
        h.snapshot_and_restore(2);
        assert_eq!(h.only_input(), Some(1), "half a table is no table");
        h.input_watermark(1, EventTime(0));
        assert_eq!(h.only_input(), None);
        h.snapshot_and_restore(3);
        assert_eq!(h.only_input(), None);
    }

    #[test]
    fn a_map_that_is_not_connected_is_refused_by_name() {
        struct Wrong;
        impl ProcessFunction<u64, i64, i64> for Wrong {
            fn open(&mut self, open: &mut ProcessOpen<'_>) {
                let _ = open.broadcast::<u64, String>("rules");
            }
            fn on_element(&mut self, _: &mut ProcessContext<'_, u64, i64>, _: i64) {}
        }
        for (inputs, part) in [(vec![], "none is connected"), (vec![BroadcastInput::new::<u64, i64>("rules", false)], "has other types")] {
            let factory = process_with(|| Wrong, inputs);
            let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Harness::new(&factory, 0))).err().expect("does not open");
            assert!(opened.downcast_ref::<String>().is_some_and(|text| text.contains(part)));
        }
    }

    /// What an epoch that was given up had to write goes with the next one.
    #[test]
    fn a_given_up_epoch_loses_nothing() {
        let stores = MemoryStores::new(SimMachine::new(1).env());
        let context = |store, index| TableContext { operator: "o".into(), store, groups: key_groups_of(index, 2, 16), max_parallelism: 16 };
        let store = stores.create(Path::new("/a")).unwrap();
        let mut table = BroadcastTable::<u64, i64>::new("rules");
        table.open(&context(store.clone(), 0), false).unwrap();
        table.change(1, Some(10));
        table.change(2, Some(20));
        table.freeze(1);
        let mut half = WriteBatch::default();
        assert!(!table.drain(&mut half, 3).unwrap());
        store.write(&half).unwrap();
        table.change(1, None);
        table.freeze(2);
        let mut rest = WriteBatch::default();
        while !table.drain(&mut rest, 3).unwrap() {}
        store.write(&rest).unwrap();
        store.checkpoint(Path::new("/snap")).unwrap();
        let snapshot = RestoredSnapshot { dir: "/snap".into(), groups: 0..8 };
        let store = stores.restore(Path::new("/b"), &[snapshot], 4..8).unwrap();
        let mut again = BroadcastTable::<u64, i64>::new("rules");
        again.open(&TableContext { groups: 4..8, ..context(store, 0) }, true).unwrap();
        assert_eq!(again.iter().collect::<Vec<_>>(), [(&2, &20)]);
    }
}
