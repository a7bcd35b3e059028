//! `KeyedStream<K, T>`: rows dealt out by key, and what needs the rows of a key together.
//!
//! Invariant: all rows of a key reach one task, in order of arrival; state is per key.

use super::stream::Stream;
use crate::graph::Routing;
use crate::record::{Data, Key};
use std::marker::PhantomData;

/// Rows of `T` by keys of `K`.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedStream<K, T> {
    stream: Stream<T>,
    keys: PhantomData<fn() -> K>,
}

impl<K: Key, T: Data> KeyedStream<K, T> {
    /// From a stream whose batches carry keys.
    pub(super) fn new(keyed: Stream<T>) -> Self {
        KeyedStream { stream: keyed.routed(Routing::KeyGroup), keys: PhantomData }
    }
}
