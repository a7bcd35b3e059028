//! The tables and stores against naive models, with freezes, drains, evictions and restarts at every step.

mod evolution;
mod far;
mod pile;
mod shown;
mod slices;
mod stores;
mod tables;
mod types;

use super::{MemoryStore, Scratch, StateFile, StateStore, Table, TableContext, Visit, VisitFound, WriteBatch};
use crate::error::Result;
use crate::record::{Epoch, KeyGroup, key_groups_of};
use crate::testing::SimMachine;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const GROUPS: u16 = 16;

/// What a table is compared with, step by step.
trait Subject {
    type Op: Clone + std::fmt::Debug;
    type Model: Clone + Default + PartialEq + std::fmt::Debug;
    type Table: Table;

    fn make() -> Self::Table;
    /// Does one thing to both.
    fn apply(table: &mut Self::Table, model: &mut Self::Model, op: &Self::Op);
    /// What the table holds, read in every way there is.
    fn read(table: &mut Self::Table) -> Self::Model;
    /// Two tasks' content together.
    fn merge(a: Self::Model, b: Self::Model) -> Self::Model;
}

#[derive(Debug, Clone)]
enum Step<Op> {
    Do(Op),
    Freeze,
    Drain(usize),
    Evict(usize),
    Compact,
    /// Crash, and restore of the last snapshot.
    Restart,
}

struct Snapshot<M> {
    /// One store per task.
    stores: Vec<Arc<MemoryStore>>,
    model: M,
}

struct Rig<S: Subject> {
    table: S::Table,
    model: S::Model,
    store: Arc<MemoryStore>,
    epoch: Epoch,
    /// The model at the freeze that is being drained.
    draining: Option<S::Model>,
    batch: WriteBatch,
    saved: Option<Snapshot<S::Model>>,
}

/// A store with room for rows on disk, which may be loaded whole, as a journal is.
struct Opened {
    store: Arc<MemoryStore>,
    is_resident: bool,
    scratch: Scratch,
}

impl StateStore for Opened {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(key)
    }
    fn multi_get(&self, keys: &[&[u8]], visit: VisitFound<'_>) -> Result<()> {
        self.store.multi_get(keys, visit)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.store.scan(from, to, visit)
    }
    fn is_resident(&self) -> bool {
        self.is_resident
    }
    fn write(&self, batch: &WriteBatch) -> Result<()> {
        self.store.write(batch)
    }
    fn checkpoint(&self, dir: &Path) -> Result<Vec<StateFile>> {
        self.store.checkpoint(dir)
    }
    fn scratch(&self) -> Option<Scratch> {
        Some(self.scratch.clone())
    }
    fn expire(&self, table: u32, before: [u8; 8]) {
        self.store.expire(table, before);
    }
}

fn open<T: Table>(table: &mut T, store: &Arc<MemoryStore>, groups: Range<KeyGroup>, restored: bool, resident: bool) {
    let scratch = Scratch::new(&SimMachine::new(1).env().files, Path::new("rows"));
    let store = Arc::new(Opened { store: store.clone(), is_resident: resident, scratch });
    let context = TableContext { operator: "op".into(), store, groups, max_parallelism: GROUPS };
    table.open(&context, restored).unwrap();
}

/// A store with the content of some others, cut to groups.
fn copy(stores: &[Arc<MemoryStore>], groups: &Range<KeyGroup>) -> Arc<MemoryStore> {
    let mut batch = WriteBatch::default();
    let (from, to) = super::keyspace::group_range(groups);
    for store in stores {
        store
            .scan(&from, &to, &mut |key, value| {
                batch.put(key, value);
                Ok(())
            })
            .unwrap();
    }
    let out = MemoryStore::default();
    out.write(&batch).unwrap();
    Arc::new(out)
}

impl<S: Subject> Rig<S> {
    fn new() -> Self {
        let (mut table, store) = (S::make(), Arc::new(MemoryStore::default()));
        open(&mut table, &store, 0..GROUPS, false, false);
        Rig { table, model: S::Model::default(), store, epoch: 0, draining: None, batch: WriteBatch::default(), saved: None }
    }

    fn step(&mut self, step: &Step<S::Op>) {
        match step {
            Step::Do(op) => S::apply(&mut self.table, &mut self.model, op),
            Step::Freeze => {
                self.epoch += 1;
                self.table.freeze(self.epoch);
                self.draining = Some(self.model.clone());
            }
            Step::Drain(entries) => self.drain(*entries),
            Step::Evict(bytes) if self.draining.is_none() || self.table.evicts_apart() => self.table.evict(*bytes).unwrap(),
            Step::Evict(_) => {}
            Step::Compact => self.store.compact(),
            Step::Restart => self.restart(),
        }
        assert_eq!(S::read(&mut self.table), self.model, "after {step:?}");
    }

    fn drain(&mut self, entries: usize) {
        let Some(frozen) = self.draining.clone() else { return };
        if self.table.drain(&mut self.batch, entries).unwrap() {
            self.store.write(&std::mem::take(&mut self.batch)).unwrap();
            let store = copy(std::slice::from_ref(&self.store), &(0..GROUPS));
            self.saved = Some(Snapshot { stores: vec![store], model: frozen });
            self.draining = None;
            self.table.drained(self.epoch);
        }
    }

    fn restart(&mut self) {
        let (store, restored) = match &self.saved {
            Some(snapshot) => (copy(&snapshot.stores, &(0..GROUPS)), true),
            None => (Arc::new(MemoryStore::default()), false),
        };
        self.model = self.saved.as_ref().map(|snapshot| snapshot.model.clone()).unwrap_or_default();
        (self.table, self.store, self.draining, self.batch) = (S::make(), store, None, WriteBatch::default());
        // In turn read on demand and loaded whole.
        let resident = self.epoch % 2 == 1;
        open(&mut self.table, &self.store, 0..GROUPS, restored, resident);
    }

    /// Takes a last snapshot and rescales it 1 -> 3 -> 2, with every task saving all over again in between.
    fn rescale(mut self) {
        self.step(&Step::Freeze);
        while self.draining.is_some() {
            self.step(&Step::Drain(3));
        }
        let Some(mut snapshot) = self.saved.take() else { unreachable!("just saved") };
        for parallelism in [3, 2] {
            let mut stores = Vec::new();
            let mut found = S::Model::default();
            for index in 0..parallelism {
                let groups = key_groups_of(index, parallelism, GROUPS);
                let (mut table, store) = (S::make(), copy(&snapshot.stores, &groups));
                open(&mut table, &store, groups, true, index % 2 == 1);
                found = S::merge(found, S::read(&mut table));
                table.freeze(1);
                let mut batch = WriteBatch::default();
                while !table.drain(&mut batch, 2).unwrap() {}
                store.write(&batch).unwrap();
                stores.push(store);
            }
            assert_eq!(found, snapshot.model, "at parallelism {parallelism}");
            snapshot.stores = stores;
        }
    }
}

fn run<S: Subject>(script: &[Step<S::Op>]) {
    let mut rig = Rig::<S>::new();
    script.iter().for_each(|step| rig.step(step));
    rig.rescale();
}
