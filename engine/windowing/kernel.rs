//! What a window computes, apart from when: create, accumulate, merge, finish.
//!
//! Invariant: `merge` of two accumulators equals accumulating the rows of both, the earlier slice's rows first; the window
//! operator relies on it to cut a window into slices.

use crate::record::Data;
use crate::state::StateValue;
use std::marker::PhantomData;

/// An aggregate over rows of one type. All functions are pure; one that panics costs the row or the result it was called for.
pub trait Accumulate: Send + Sync + 'static {
    /// What comes in.
    type Row: Data;
    /// What is kept per key and slice.
    type Acc: StateValue;
    /// What comes out.
    type Out: Data;

    /// The accumulator of no rows.
    fn create(&self) -> Self::Acc;
    /// Takes one more row in.
    fn accumulate(&self, acc: &mut Self::Acc, row: &Self::Row);
    /// Takes the rows of a later slice in.
    fn merge(&self, acc: &mut Self::Acc, later: &Self::Acc);
    /// The result.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;

    /// Whether there is to be a result at all: of a window of which this says no, nothing leaves and nothing is copied.
    fn is_wanted(&self, _acc: &Self::Acc) -> bool {
        true
    }
    /// A small accumulator of the same rows, without what grows with them; `is_wanted` must say the same of it, and `merge`
    /// must take it. `None` (always, or never) when there is none: then overlapping windows of an accumulator that owns
    /// memory are put together from all of their slices at each firing.
    fn outline(&self, _acc: &Self::Acc) -> Option<Self::Acc> {
        None
    }

    /// This aggregate, with results only of windows that are `wanted`. The decision rests on an outline: `outline` copies an
    /// accumulator without its lists, and costs little however much a window holds.
    ///
    /// A result that has left and is no longer wanted after late rows is not taken back.
    ///
    /// ```
    /// use waterwheel_engine::windowing::{Accumulate, Aggregate};
    /// type Spent = (u64, Vec<u64>);
    /// let large = Aggregate::new(
    ///     Spent::default,
    ///     |acc: &mut Spent, amount: &u64| {
    ///         acc.0 += amount;
    ///         acc.1.push(*amount);
    ///     },
    ///     |acc: &mut Spent, later: &Spent| {
    ///         acc.0 += later.0;
    ///         acc.1.extend(&later.1);
    ///     },
    ///     |acc: &Spent| acc.1.clone(),
    /// )
    /// .only_if(|acc| (acc.0, Vec::new()), |acc| acc.0 >= 1_000);
    /// let mut acc = large.create();
    /// large.accumulate(&mut acc, &700);
    /// assert!(!large.is_wanted(&acc));
    /// large.accumulate(&mut acc, &400);
    /// assert!(large.is_wanted(&acc));
    /// ```
    fn only_if<O, W>(self, outline: O, wanted: W) -> OnlyIf<Self, O, W>
    where
        Self: Sized,
        O: Fn(&Self::Acc) -> Self::Acc + Send + Sync + 'static,
        W: Fn(&Self::Acc) -> bool + Send + Sync + 'static,
    {
        OnlyIf { aggregate: self, outline, wanted }
    }
}

/// The result, if there is to be one.
#[inline]
pub(super) fn result<G: Accumulate>(aggregate: &G, acc: &G::Acc) -> Option<G::Out> {
    aggregate.is_wanted(acc).then(|| aggregate.finish(acc))
}

/// See [`Accumulate::only_if`].
pub struct OnlyIf<G, O, W> {
    aggregate: G,
    outline: O,
    wanted: W,
}

impl<G, O, W> Accumulate for OnlyIf<G, O, W>
where
    G: Accumulate,
    O: Fn(&G::Acc) -> G::Acc + Send + Sync + 'static,
    W: Fn(&G::Acc) -> bool + Send + Sync + 'static,
{
    type Row = G::Row;
    type Acc = G::Acc;
    type Out = G::Out;

    #[inline]
    fn create(&self) -> G::Acc {
        self.aggregate.create()
    }
    #[inline]
    fn accumulate(&self, acc: &mut G::Acc, row: &G::Row) {
        self.aggregate.accumulate(acc, row);
    }
    #[inline]
    fn merge(&self, acc: &mut G::Acc, later: &G::Acc) {
        self.aggregate.merge(acc, later);
    }
    #[inline]
    fn finish(&self, acc: &G::Acc) -> G::Out {
        self.aggregate.finish(acc)
    }
    #[inline]
    fn is_wanted(&self, acc: &G::Acc) -> bool {
        (self.wanted)(acc) && self.aggregate.is_wanted(acc)
    }
    #[inline]
    fn outline(&self, acc: &G::Acc) -> Option<G::Acc> {
        Some((self.outline)(acc))
    }
}

/// An aggregate made of four closures.
///
/// ```
/// use waterwheel_engine::windowing::{Accumulate, Aggregate};
/// let mean = Aggregate::new(
///     || (0i64, 0u32),
///     |acc: &mut (i64, u32), amount: &i64| *acc = (acc.0 + amount, acc.1 + 1),
///     |acc: &mut (i64, u32), later: &(i64, u32)| *acc = (acc.0 + later.0, acc.1 + later.1),
///     |acc: &(i64, u32)| acc.0 as f64 / f64::from(acc.1),
/// );
/// let mut acc = mean.create();
/// mean.accumulate(&mut acc, &4);
/// mean.accumulate(&mut acc, &6);
/// assert_eq!(mean.finish(&acc), 5.0);
/// ```
pub struct Aggregate<T, A, R, C, U, M, F> {
    create: C,
    accumulate: U,
    merge: M,
    finish: F,
    types: PhantomData<fn(T, A) -> R>,
}

impl<T, A, R, C, U, M, F> Aggregate<T, A, R, C, U, M, F>
where
    C: Fn() -> A + Send + Sync + 'static,
    U: Fn(&mut A, &T) + Send + Sync + 'static,
    M: Fn(&mut A, &A) + Send + Sync + 'static,
    F: Fn(&A) -> R + Send + Sync + 'static,
{
    /// From create, accumulate, merge and finish.
    pub fn new(create: C, accumulate: U, merge: M, finish: F) -> Self {
        Aggregate { create, accumulate, merge, finish, types: PhantomData }
    }
}

impl<T, A, R, C, U, M, F> Accumulate for Aggregate<T, A, R, C, U, M, F>
where
    T: Data,
    A: StateValue,
    R: Data,
    C: Fn() -> A + Send + Sync + 'static,
    U: Fn(&mut A, &T) + Send + Sync + 'static,
    M: Fn(&mut A, &A) + Send + Sync + 'static,
    F: Fn(&A) -> R + Send + Sync + 'static,
{
    type Row = T;
    type Acc = A;
    type Out = R;

    #[inline]
    fn create(&self) -> A {
        (self.create)()
    }
    #[inline]
    fn accumulate(&self, acc: &mut A, row: &T) {
        (self.accumulate)(acc, row);
    }
    #[inline]
    fn merge(&self, acc: &mut A, later: &A) {
        (self.merge)(acc, later);
    }
    #[inline]
    fn finish(&self, acc: &A) -> R {
        (self.finish)(acc)
    }
}
