//! What does an entry of state cost on its way from the barrier to the checkpoint?
//!
//! A table of a million keys, of which a hundred thousand change in each of sixty epochs: frozen, drained into a batch,
//! written to the store, checkpointed; merging of files included. Once into the journal, which a store is as long as nothing was
//! evicted; then into RocksDB, as sorted files that are moved in and through memtable and flush.

use std::path::Path;
use std::time::Duration;
use waterwheel::connectors::generator::Random;
use waterwheel::engine::env::Env;
use waterwheel::engine::record::Keys;
use waterwheel::engine::state::{PointTable, RocksSettings, StateStores, Table, TableContext, TieredStores, WriteBatch};
use waterwheel_benches::meter::{Target, cpu, figure, thread_cpu};
use waterwheel_benches::node::KEY_GROUPS;

const KEYS: u64 = 1_000_000;
const CHANGED: u64 = 100_000;
const EPOCHS: u64 = 60;
const BATCH: u64 = 4096;

type Totals = PointTable<[u64; 6]>;

/// Changes some keys.
fn update(totals: &mut Totals, keys: impl Iterator<Item = u64>) {
    let keys: Vec<u64> = keys.map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let mut slots = Vec::new();
    totals.resolve(&Keys::encode(keys.iter().copied()), &mut slots).expect("the store reads");
    for (&slot, &key) in slots.iter().zip(&keys) {
        let total = totals.get_mut(slot).get_or_insert([0; 6]);
        total[0] += 1;
        total[key as usize % 5 + 1] = key;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Journal,
    SortedFiles,
    Memtable,
}

/// CPU time: of the drain on the task's own thread, and of all.
fn run(dir: &Path, way: Way) -> (Duration, Duration) {
    let store = TieredStores::on_disk(&Env::real(), RocksSettings::default()).create(&dir.join("live")).expect("a new store");
    let context = TableContext { operator: "bench".into(), store: store.clone(), groups: 0..KEY_GROUPS, max_parallelism: KEY_GROUPS };
    if way != Way::Journal {
        store.get(b"any").expect("a read makes it a database");
    }
    let mut totals = Totals::new("totals");
    totals.open(&context, false).expect("an empty table opens");
    (0..KEYS).step_by(BATCH as usize).for_each(|first| update(&mut totals, first..(first + BATCH).min(KEYS)));

    let (mut drain, mut updates, mut start) = (Duration::ZERO, Duration::ZERO, cpu());
    for epoch in 0..=EPOCHS {
        let before = thread_cpu();
        let mut batch = WriteBatch::default();
        totals.freeze(epoch);
        while !totals.drain(&mut batch, BATCH as usize).expect("all is in memory") {}
        drain += thread_cpu() - before;
        let written = if way == Way::Memtable { store.write(&batch) } else { store.write_run(&batch) };
        written.and_then(|()| store.checkpoint(&dir.join(format!("checkpoint-{epoch}")))).expect("the disk takes it");
        store.tidy().expect("the disk takes it");
        totals.drained(epoch);
        if epoch == 0 {
            // It holds every key.
            (drain, start) = (Duration::ZERO, cpu());
        }
        let before = thread_cpu();
        for first in (0..CHANGED).step_by(BATCH as usize) {
            update(&mut totals, (first..(first + BATCH).min(CHANGED)).map(|n| Random::of(2, epoch as u32, n).below(KEYS)));
        }
        updates += thread_cpu() - before;
    }
    // What RocksDB's threads did during the updates counts.
    (drain, cpu() - start - updates)
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let per_entry = |time: Duration| time.as_secs_f64() * 1e9 / (EPOCHS * CHANGED) as f64;
    let ways = [("journal", Way::Journal), ("database, sorted files", Way::SortedFiles), ("database, memtable", Way::Memtable)];
    for (name, way) in ways {
        let (drain, all) = run(&folder.path().join(name), way);
        figure(&format!("drain: {name}, on the task's thread"), per_entry(drain), "ns per entry", Target::None);
        figure(&format!("drain: {name}, all threads"), per_entry(all), "ns per entry", Target::None);
    }
}
