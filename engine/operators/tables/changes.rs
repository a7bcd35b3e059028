//! `to_changes`: a table becomes a stream of its changes, with kinds and old values.
//!
//! Invariant: each key's changes are `+I`, then pairs of `-U` and `+U`, then `-D`, and so on; what is taken back is what was
//! given. A change that sets the value that is there already is left out.

use super::{Changes, keys_of};
use crate::error::Result;
use crate::operators::{Operator, OperatorFactory, Output};
use crate::record::{BatchBox, Change, Data, Key, RowKind, Rows, downcast};
use crate::state::{PointTable, StateValue, Table, encode_into};
use std::marker::PhantomData;
use std::sync::Arc;

/// Changes in, `Rows<Change<(K, V)>>` out, with their keys.
pub fn to_changes<K: Key, V: Data + StateValue>() -> OperatorFactory {
    Arc::new(move || {
        Box::new(ToChanges {
            table: PointTable::<V>::new("table").with_key(K::kind()),
            slots: Vec::new(),
            scratch: (Vec::new(), Vec::new()),
            key: PhantomData::<fn(K)>,
        })
    })
}

struct ToChanges<K, V> {
    table: PointTable<V>,
    slots: Vec<u32>,
    scratch: (Vec<u8>, Vec<u8>),
    key: PhantomData<fn(K)>,
}

impl<K, V: StateValue> ToChanges<K, V> {
    /// Values need not be comparable: they are equal if their encodings are.
    fn are_equal(&mut self, a: &V, slot: u32) -> bool {
        let (left, right) = &mut self.scratch;
        left.clear();
        right.clear();
        let Some(b) = self.table.get(slot) else { return false };
        encode_into(a, left);
        encode_into(b, right);
        left == right
    }
}

impl<K: Key, V: Data + StateValue> Operator for ToChanges<K, V> {
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Changes<K, V>>(batch);
        let mut slots = std::mem::take(&mut self.slots);
        self.table.resolve(keys_of(&batch), &mut slots)?;
        let (mut changes, mut from) = (Rows::with_capacity(batch.rows.len()), Vec::new());
        let Rows { rows, times, keys, origins } = batch;
        for (i, (key, value)) in rows.into_iter().enumerate() {
            let mut push = |kind, key: K, value| {
                let origin = origins.as_ref().map(|o| o.0[i].clone());
                changes.push(Change { kind, row: (key, value) }, times[i], origin);
                from.push(i as u32);
            };
            match value {
                Some(value) if self.are_equal(&value, slots[i]) => {}
                Some(value) => match self.table.insert(slots[i], value.clone()) {
                    Some(old) => {
                        push(RowKind::UpdateBefore, key.clone(), old);
                        push(RowKind::UpdateAfter, key, value);
                    }
                    None => push(RowKind::Insert, key, value),
                },
                None => {
                    if let Some(old) = self.table.remove(slots[i]) {
                        push(RowKind::Delete, key, old);
                    }
                }
            }
        }
        self.slots = slots;
        changes.keys = keys.map(|keys| keys.gather(&from));
        out.emit(changes.boxed())
    }
}
