//! Foreign-key join: each row of a table with the row of another table that it refers to.
//!
//! Three operators with exchanges between them. [`refer`] (by key of the left table) tells the row referred to what refers to
//! it, and the one that was referred to before that it no longer is. [`answer`] (by key of the right table) knows both and makes
//! results. [`collect`] (by key of the left table again) brings the answers in order.
//!
//! A row that turns from one reference to another gets answers from two tasks, which may overtake each other. So each thing
//! that `refer` tells has a version that grows, answers carry the version they were made for, and `collect` leaves out what is
//! older than what it has.
//!
//! Invariant: when everything has arrived, the result has a value for each left row with the newest right row that it refers
//! to. A row for which the result's function fails is rejected and has no value until it or the row it refers to changes.

use super::{Changes, keys_of};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::operators::guarded::guarded_call;
use crate::operators::{Operator, OperatorFactory, Output};
use crate::record::{BatchBox, Data, Epoch, Key, Keys, Rows, downcast};
use crate::state::{MapTable, PointTable, StateValue, Table};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// What a left row tells a right one.
#[derive(Debug, Clone)]
pub struct Reference<K, V> {
    key: K,
    what: Told<V>,
    version: u64,
}

#[derive(Debug, Clone)]
enum Told<V> {
    /// It refers to it, and is this.
    Is(V),
    /// It refers to another one now.
    Moved,
    /// It is no more.
    Gone,
}

/// The result for a left row, as of one version.
#[derive(Debug, Clone)]
pub struct Answer<K, R> {
    key: K,
    result: Option<R>,
    version: u64,
}

/// Rows per batch.
const EMIT_ROWS: usize = 4096;

/// Changes of the left table in, `Rows<Reference<K, V>>` keyed by what they refer to out.
pub fn refer<K: Key, V: Data, F: Key>(to: impl Fn(&V) -> F + Send + Sync + 'static) -> OperatorFactory {
    let to = Arc::new(to);
    Arc::new(move || {
        Box::new(Refer {
            to: to.clone(),
            refers_to: PointTable::new("refers-to").with_key(K::kind()),
            version: 0,
            slots: Vec::new(),
            types: PhantomData::<fn(K, V) -> F>,
        })
    })
}

struct Refer<P, K, V, F> {
    to: Arc<P>,
    /// Canonical bytes of the key that each row refers to.
    refers_to: PointTable<Vec<u8>>,
    version: u64,
    slots: Vec<u32>,
    types: PhantomData<fn(K, V) -> F>,
}

impl<P, K, V, F> Operator for Refer<P, K, V, F>
where
    K: Key,
    V: Data,
    F: Key,
    P: Fn(&V) -> F + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.refers_to]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Changes<K, V>>(batch);
        self.refers_to.resolve(keys_of(&batch), &mut self.slots)?;
        let (mut told, mut keys) = (Rows::with_capacity(batch.rows.len()), Vec::with_capacity(batch.rows.len()));
        for (i, (key, value)) in batch.rows.iter().enumerate() {
            let slot = self.slots[i];
            let (time, origin) = (batch.times[i], || batch.origin(i));
            let new = match value.as_ref().map(|value| guarded_call(|| (self.to)(value))).transpose() {
                Ok(new) => new,
                Err(error) => {
                    out.reject(origin(), time, error)?;
                    continue;
                }
            };
            let mut bytes = Vec::new();
            if let Some(new) = &new {
                new.encode(&mut bytes);
            }
            let old = match &new {
                Some(_) => self.refers_to.insert(slot, bytes.clone()),
                None => self.refers_to.remove(slot),
            };
            self.version += 1;
            let mut tell = |to: F, what| {
                keys.push(to);
                told.push(Reference { key: key.clone(), what, version: self.version }, time, origin());
            };
            if let Some(old) = old.filter(|old| new.is_none() || *old != bytes) {
                let what = if new.is_some() { Told::Moved } else { Told::Gone };
                tell(F::decode(&mut &old[..])?, what);
            }
            if let (Some(new), Some(value)) = (new, value) {
                tell(new, Told::Is(value.clone()));
            }
        }
        told.keys = Some(Keys::encode(keys.into_iter()));
        out.emit(told.boxed())
    }

    fn save(&mut self) -> Vec<u8> {
        self.version.to_be_bytes().to_vec()
    }

    /// The largest: versions of a key grow whichever task it comes from.
    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        for blob in blobs {
            let version = blob[..].try_into().map_err(|_| Error::fatal("the saved progress of a foreign-key join is damaged"))?;
            self.version = self.version.max(u64::from_be_bytes(version));
        }
        Ok(())
    }
}

/// Input 0: what left rows tell; input 1: changes of the right table, both by key of the right one. `result(key, left, right)`
/// is the value of a left row, `None` for none.
pub fn answer<K, F, V, W, R>(result: impl Fn(&K, &V, Option<&W>) -> Option<R> + Send + Sync + 'static) -> OperatorFactory
where
    K: Key,
    F: Key,
    V: Data + StateValue,
    W: Data + StateValue,
    R: Data,
{
    let result = Arc::new(result);
    Arc::new(move || {
        Box::new(Answers {
            result: result.clone(),
            lefts: MapTable::<(u64, V)>::new("lefts").with_key(F::kind()),
            right: PointTable::<W>::new("right").with_key(F::kind()),
            slots: (Vec::new(), Vec::new()),
            types: PhantomData::<fn(K, F) -> R>,
        })
    })
}

struct Answers<P, K, F, V, W, R> {
    result: Arc<P>,
    /// By key of the right table and key of the left one: version and row.
    lefts: MapTable<(u64, V)>,
    right: PointTable<W>,
    slots: (Vec<u32>, Vec<u32>),
    types: PhantomData<fn(K, F) -> R>,
}

/// Answers that wait to leave.
struct Waiting<K, R> {
    answers: Rows<Answer<K, R>>,
    keys: Vec<K>,
}

impl<K: Key, R: Data> Waiting<K, R> {
    fn push(&mut self, answer: Answer<K, R>, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        self.keys.push(answer.key.clone());
        self.answers.push(answer, time, None);
        if self.keys.len() >= EMIT_ROWS { self.flush(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut Output<'_>) -> Result<()> {
        let mut answers = std::mem::take(&mut self.answers);
        answers.keys = Some(Keys::encode(std::mem::take(&mut self.keys).into_iter()));
        out.emit(answers.boxed())
    }
}

impl<P, K, F, V, W, R> Answers<P, K, F, V, W, R>
where
    K: Key,
    F: Key,
    V: Data + StateValue,
    W: Data + StateValue,
    R: Data,
    P: Fn(&K, &V, Option<&W>) -> Option<R> + Send + Sync + 'static,
{
    fn take_references(&mut self, batch: Rows<Reference<K, V>>, waiting: &mut Waiting<K, R>, out: &mut Output<'_>) -> Result<()> {
        self.lefts.resolve(keys_of(&batch), &mut self.slots.0)?;
        self.right.resolve(keys_of(&batch), &mut self.slots.1)?;
        let Rows { rows, times, origins, .. } = batch;
        let mut name = Vec::new();
        for (i, Reference { key, what, version }) in rows.into_iter().enumerate() {
            name.clear();
            key.encode(&mut name);
            let slot = self.slots.0[i];
            let result = match what {
                Told::Moved => {
                    self.lefts.remove(slot, &name);
                    continue;
                }
                Told::Gone => {
                    self.lefts.remove(slot, &name);
                    None
                }
                Told::Is(row) => {
                    let right = self.right.get(self.slots.1[i]);
                    let result = guarded_call(|| (self.result)(&key, &row, right));
                    self.lefts.insert(slot, &name, (version, row));
                    match result {
                        Ok(result) => result,
                        Err(error) => {
                            out.reject(origins.as_ref().map(|o| o.0[i].clone()), times[i], error)?;
                            None
                        }
                    }
                }
            };
            waiting.push(Answer { key, result, version }, times[i], out)?;
        }
        Ok(())
    }

    fn take_changes(&mut self, batch: Changes<F, W>, waiting: &mut Waiting<K, R>, out: &mut Output<'_>) -> Result<()> {
        self.lefts.resolve(keys_of(&batch), &mut self.slots.0)?;
        self.right.resolve(keys_of(&batch), &mut self.slots.1)?;
        for (i, (_, value)) in batch.rows.into_iter().enumerate() {
            let (time, slot) = (batch.times[i], self.slots.1[i]);
            match value {
                Some(value) => drop(self.right.insert(slot, value)),
                None => drop(self.right.remove(slot)),
            }
            let right = self.right.get(slot);
            for (name, (version, row)) in self.lefts.entries(self.slots.0[i]) {
                let key = K::decode(&mut &name[..])?;
                let result = match guarded_call(|| (self.result)(&key, row, right)) {
                    Ok(result) => result,
                    Err(error) => {
                        out.reject(None, time, error)?;
                        None
                    }
                };
                waiting.push(Answer { key, result, version: *version }, time, out)?;
            }
        }
        Ok(())
    }
}

impl<P, K, F, V, W, R> Operator for Answers<P, K, F, V, W, R>
where
    K: Key,
    F: Key,
    V: Data + StateValue,
    W: Data + StateValue,
    R: Data,
    P: Fn(&K, &V, Option<&W>) -> Option<R> + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.lefts, &mut self.right]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let mut waiting = Waiting { answers: Rows::default(), keys: Vec::new() };
        match input {
            0 => self.take_references(downcast(batch), &mut waiting, out)?,
            _ => self.take_changes(downcast(batch), &mut waiting, out)?,
        }
        waiting.flush(out)
    }
}

/// `Rows<Answer<K, R>>` keyed by the left table's key in, changes of the result out.
pub fn collect<K: Key, R: Data>() -> OperatorFactory {
    Arc::new(|| {
        Box::new(Collect {
            newest: PointTable::new("newest").with_key(K::kind()),
            gone: Vec::new(),
            slots: Vec::new(),
            types: PhantomData::<fn(K) -> R>,
        })
    })
}

struct Collect<K, R> {
    /// Version of the newest answer, and whether it was a value.
    newest: PointTable<(u64, bool)>,
    /// Keys without a value since the last barrier.
    gone: Vec<K>,
    slots: Vec<u32>,
    types: PhantomData<fn(K) -> R>,
}

impl<K: Key, R: Data> Operator for Collect<K, R> {
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.newest]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let batch = downcast::<Rows<Answer<K, R>>>(batch);
        self.newest.resolve(keys_of(&batch), &mut self.slots)?;
        let Rows { rows, times, keys, .. } = batch;
        let (mut changes, mut from) = (Rows::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for (i, Answer { key, result, version }) in rows.into_iter().enumerate() {
            let slot = self.slots[i];
            let (newest, had) = self.newest.get(slot).copied().unwrap_or((0, false));
            if version < newest && !planted(Bug::StaleAnswers) {
                continue;
            }
            self.newest.insert(slot, (version, result.is_some()));
            if result.is_none() {
                self.gone.push(key.clone());
            }
            if result.is_some() || had {
                changes.push((key, result), times[i], None);
                from.push(i as u32);
            }
        }
        changes.keys = keys.map(|keys| keys.gather(&from));
        out.emit(changes.boxed())
    }

    /// What a version outdates was sent before the barrier that follows it, so behind a barrier nothing older can come, and
    /// keys without a value need not be remembered.
    fn before_barrier(&mut self, _epoch: Epoch, _out: &mut Output<'_>) -> Result<()> {
        let keys = Keys::encode(std::mem::take(&mut self.gone).into_iter());
        self.newest.resolve(&keys, &mut self.slots)?;
        for &slot in &self.slots {
            if self.newest.get(slot).is_some_and(|(_, has_value)| !has_value) {
                self.newest.remove(slot);
            }
        }
        Ok(())
    }
}
