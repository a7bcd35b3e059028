//! Rows of a Rust type: the batch of the typed DSL.
//!
//! Invariant: `times` has one entry a row, and so have `keys` and `origins` where present.

use super::{Batch, BatchBox, Keys, Origin, Origins};
use crate::time::EventTime;
use std::any::Any;

/// What the typed DSL can carry: cheap to move, cloned only on a fan-out.
pub trait Data: Clone + Send + 'static {}
impl<T: Clone + Send + 'static> Data for T {}

/// A batch of `T`.
#[derive(Debug, Clone)]
pub struct Rows<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Event time of each row.
    pub times: Vec<EventTime>,
    /// Keys, after `key_by`.
    pub keys: Option<Keys>,
    /// Source records, when the source asked for dead letters.
    pub origins: Option<Origins>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows { rows: Vec::new(), times: Vec::new(), keys: None, origins: None }
    }
}

impl<T: Data> Rows<T> {
    /// Rows with their times, without keys or origins.
    pub fn new(rows: Vec<T>, times: Vec<EventTime>) -> Self {
        assert_eq!(rows.len(), times.len());
        Rows { rows, times, keys: None, origins: None }
    }

    /// No rows, room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Rows { rows: Vec::with_capacity(n), times: Vec::with_capacity(n), keys: None, origins: None }
    }

    /// Appends a row, with its origin when it has one. Either all rows of a batch have origins or none.
    pub fn push(&mut self, row: T, time: EventTime, origin: Option<Origin>) {
        self.rows.push(row);
        self.times.push(time);
        if let Some(o) = origin {
            self.origins.get_or_insert_default().0.push(o);
        }
    }

    /// The origin of row `i`, cloned (a reference count).
    pub fn origin(&self, i: usize) -> Option<Origin> {
        self.origins.as_ref().map(|o| o.0[i].clone())
    }

    /// The rows named, in that order, cloned.
    pub fn gather(&self, rows: &[u32]) -> Rows<T> {
        Rows {
            rows: rows.iter().map(|&r| self.rows[r as usize].clone()).collect(),
            times: rows.iter().map(|&r| self.times[r as usize]).collect(),
            keys: self.keys.as_ref().map(|k| k.gather(rows)),
            origins: self.origins.as_ref().map(|o| o.gather(rows)),
        }
    }

    /// Boxed, to be sent.
    pub fn boxed(self) -> BatchBox {
        Box::new(self)
    }
}

impl<T: Data> Batch for Rows<T> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        // Heap inside T is unknown; twice the flat size is the estimate queues are bounded by.
        self.rows.len() * (2 * size_of::<T>() + 8) + self.keys.as_ref().map_or(0, Keys::heap_bytes)
    }

    fn times(&self) -> &[EventTime] {
        &self.times
    }

    fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    fn origins(&self) -> Option<&Origins> {
        self.origins.as_ref()
    }

    fn scatter(self: Box<Self>, targets: &[u32], parts: usize) -> Vec<BatchBox> {
        let mut counts = vec![0usize; parts];
        for &t in targets {
            counts[t as usize] += 1;
        }
        let mut out: Vec<Rows<T>> = counts.iter().map(|&n| Rows::with_capacity(n)).collect();
        let Rows { rows, times, keys, origins } = *self;
        for ((row, time), &t) in rows.into_iter().zip(times).zip(targets) {
            let part = &mut out[t as usize];
            part.rows.push(row);
            part.times.push(time);
        }
        if let Some(keys) = keys {
            for (part, keys) in out.iter_mut().zip(keys.scatter(targets, parts)) {
                part.keys = Some(keys);
            }
        }
        if let Some(origins) = origins {
            for part in &mut out {
                part.origins = Some(Origins::default());
            }
            for (origin, &t) in origins.0.into_iter().zip(targets) {
                if let Some(o) = &mut out[t as usize].origins {
                    o.0.push(origin);
                }
            }
        }
        out.into_iter().map(Rows::boxed).collect()
    }

    fn clone_batch(&self) -> BatchBox {
        self.clone().boxed()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scatter_deals_in_order() {
        let mut rows = Rows::new(vec![1, 2, 3, 4], (0..4).map(EventTime).collect());
        rows.keys = Some(Keys::encode(vec![1u64, 2, 3, 4].into_iter()));
        let parts = Box::new(rows).scatter(&[0, 1, 0, 1], 2);
        let odd: Rows<i32> = super::super::downcast(parts.into_iter().next().unwrap());
        assert_eq!(odd.rows, [1, 3]);
        assert_eq!(odd.times, [EventTime(0), EventTime(2)]);
        assert_eq!(odd.keys.unwrap().as_u64().unwrap(), [1, 3]);
    }
}
