//! State of a process function that takes values in as they come: reducing and aggregating state.
//!
//! Invariant: what is kept is what folding the values of the key in their order gives; the functions come from `open`, the
//! state holds data only.

use super::process::{ProcessContext, ProcessOpen};
use super::ttl::Ttl;
use crate::record::{Data, Key};
use crate::state::StateValue;
use std::sync::Arc;

type Create<A> = Arc<dyn Fn() -> A + Send + Sync>;
type Fold<A, V> = Arc<dyn Fn(&mut A, V) + Send + Sync>;

/// Values of one type, taken into one per key: a sum, a maximum.
///
/// ```
/// use waterwheel_engine::operators::{ProcessContext, ProcessFunction, ProcessOpen, ReducingState};
/// /// Emits the largest value so far.
/// #[derive(Default)]
/// struct Largest(ReducingState<i64>);
///
/// impl ProcessFunction<String, i64, i64> for Largest {
///     fn open(&mut self, open: &mut ProcessOpen<'_>) {
///         self.0 = open.reducing("largest", |largest, value: i64| *largest = value.max(*largest));
///     }
///     fn on_element(&mut self, context: &mut ProcessContext<'_, String, i64>, row: i64) {
///         self.0.add(context, row);
///         let largest = self.0.get(context).copied().unwrap_or(row);
///         context.emit(largest);
///     }
/// }
/// ```
pub struct ReducingState<V> {
    at: usize,
    reduce: Option<Fold<V, V>>,
}

/// Values of `V`, taken into an accumulator of `A` per key.
///
/// ```
/// use waterwheel_engine::operators::{AggregatingState, ProcessContext, ProcessFunction, ProcessOpen};
/// /// Emits the mean so far.
/// #[derive(Default)]
/// struct Mean(AggregatingState<(i64, i64), i64>);
///
/// impl ProcessFunction<String, i64, i64> for Mean {
///     fn open(&mut self, open: &mut ProcessOpen<'_>) {
///         self.0 = open.aggregating("mean", || (0, 0), |(sum, count), value| {
///             *sum += value;
///             *count += 1;
///         });
///     }
///     fn on_element(&mut self, context: &mut ProcessContext<'_, String, i64>, row: i64) {
///         self.0.add(context, row);
///         if let Some((sum, count)) = self.0.get(context).copied() {
///             context.emit(sum / count);
///         }
///     }
/// }
/// ```
pub struct AggregatingState<A, V> {
    at: usize,
    fold: Option<(Create<A>, Fold<A, V>)>,
}

impl<V> Default for ReducingState<V> {
    /// A handle to be replaced in `open`; using it before is a bug that panics.
    fn default() -> Self {
        ReducingState { at: usize::MAX, reduce: None }
    }
}

impl<A, V> Default for AggregatingState<A, V> {
    /// A handle to be replaced in `open`; using it before is a bug that panics.
    fn default() -> Self {
        AggregatingState { at: usize::MAX, fold: None }
    }
}

impl ProcessOpen<'_> {
    /// One value per key; `reduce` takes a further value into the one so far.
    pub fn reducing<V: StateValue>(&mut self, name: &str, reduce: impl Fn(&mut V, V) + Send + Sync + 'static) -> ReducingState<V> {
        ReducingState { at: self.states.add::<V>(name, None), reduce: Some(Arc::new(reduce)) }
    }

    /// As [`reducing`](Self::reducing), forgotten as [`value_with_ttl`](Self::value_with_ttl) says.
    pub fn reducing_with_ttl<V: StateValue>(
        &mut self,
        name: &str,
        ttl: impl Into<Ttl>,
        reduce: impl Fn(&mut V, V) + Send + Sync + 'static,
    ) -> ReducingState<V> {
        ReducingState { at: self.states.add::<V>(name, Some(ttl.into())), reduce: Some(Arc::new(reduce)) }
    }

    /// One accumulator per key, made by `create` when the first value comes; `add` takes a value in.
    pub fn aggregating<A: StateValue, V>(
        &mut self,
        name: &str,
        create: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&mut A, V) + Send + Sync + 'static,
    ) -> AggregatingState<A, V> {
        AggregatingState { at: self.states.add::<A>(name, None), fold: Some((Arc::new(create), Arc::new(add))) }
    }

    /// As [`aggregating`](Self::aggregating), forgotten as [`value_with_ttl`](Self::value_with_ttl) says.
    pub fn aggregating_with_ttl<A: StateValue, V>(
        &mut self,
        name: &str,
        ttl: impl Into<Ttl>,
        create: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&mut A, V) + Send + Sync + 'static,
    ) -> AggregatingState<A, V> {
        AggregatingState { at: self.states.add::<A>(name, Some(ttl.into())), fold: Some((Arc::new(create), Arc::new(add))) }
    }
}

impl<V: StateValue> ReducingState<V> {
    /// The value of the key at hand.
    pub fn get<'c, K: Key, U: Data>(&self, context: &'c ProcessContext<'_, K, U>) -> Option<&'c V> {
        context.states.get(self.at, context.row)
    }

    /// Takes a value into that of the key at hand.
    pub fn add<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>, value: V) {
        let Some(reduce) = &self.reduce else { unreachable!("the state was not declared in open") };
        let time = context.time();
        context.states.update(self.at, context.row, time, |kept| match kept {
            Some(kept) => reduce(kept, value),
            None => *kept = Some(value),
        });
    }

    /// Removes the value of the key at hand.
    pub fn take<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>) -> Option<V> {
        context.states.take(self.at, context.row)
    }
}

impl<A: StateValue, V> AggregatingState<A, V> {
    /// The accumulator of the key at hand.
    pub fn get<'c, K: Key, U: Data>(&self, context: &'c ProcessContext<'_, K, U>) -> Option<&'c A> {
        context.states.get(self.at, context.row)
    }

    /// Takes a value into the accumulator of the key at hand.
    pub fn add<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>, value: V) {
        let Some((create, add)) = &self.fold else { unreachable!("the state was not declared in open") };
        let time = context.time();
        context.states.update(self.at, context.row, time, |kept: &mut Option<A>| add(kept.get_or_insert_with(|| create()), value));
    }

    /// Removes the accumulator of the key at hand.
    pub fn take<K: Key, U: Data>(&self, context: &mut ProcessContext<'_, K, U>) -> Option<A> {
        context.states.take(self.at, context.row)
    }
}
