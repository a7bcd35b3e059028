//! Two keyed streams as one: shared state, shared timers, shared windows.
//!
//! Invariant: rows of one key of both streams meet in one task; each stream keeps its order, between them rows come as they
//! arrive unless they are sorted.

use super::keyed::KeyedStream;
use super::stream::Stream;
use crate::graph::NodeNote;
use crate::operators::{self, Either};
use crate::record::{Data, Key};

impl<K: Key, A: Data> KeyedStream<K, A> {
    /// This stream and another with the same type of key, as one: every row is an [`Either`]. What follows has its state per
    /// key, shared by both.
    ///
    /// A process function with two inputs:
    ///
    /// ```
    /// use waterwheel_engine::dsl::{KeyedStream, Stream, mins};
    /// use waterwheel_engine::operators::{Either, ProcessContext, ProcessFunction, ProcessOpen, Timer, ValueState};
    ///
    /// /// Orders that were not paid within ten minutes.
    /// #[derive(Default)]
    /// struct Unpaid { order: ValueState<String>, paid: ValueState<bool> }
    ///
    /// impl ProcessFunction<u64, Either<String, i64>, String> for Unpaid {
    ///     fn open(&mut self, open: &mut ProcessOpen<'_>) {
    ///         self.order = open.value("order");
    ///         self.paid = open.value("paid");
    ///     }
    ///     fn on_element(&mut self, context: &mut ProcessContext<'_, u64, String>, row: Either<String, i64>) {
    ///         match row {
    ///             Either::First(order) => {
    ///                 self.order.set(context, order);
    ///                 context.set_timer("late", context.time().plus_ms(600_000));
    ///             }
    ///             Either::Second(_amount) => self.paid.set(context, true),
    ///         }
    ///     }
    ///     fn on_timer(&mut self, context: &mut ProcessContext<'_, u64, String>, _timer: &Timer) {
    ///         let paid = self.paid.take(context).is_some();
    ///         if let Some(order) = self.order.take(context).filter(|_| !paid) {
    ///             context.emit(order);
    ///         }
    ///     }
    /// }
    ///
    /// fn unpaid(orders: &KeyedStream<u64, String>, payments: &KeyedStream<u64, i64>) -> Stream<String> {
    ///     orders.connect(payments).process(Unpaid::default).id("unpaid")
    /// }
    /// ```
    ///
    /// And a co-group: both streams in the same windows.
    ///
    /// ```
    /// use waterwheel_engine::dsl::{KeyedStream, Merge, mins};
    /// use waterwheel_engine::operators::Either;
    /// use waterwheel_engine::windowing::Tumbling;
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Clone, Default, Serialize, Deserialize)]
    /// struct Group { orders: Vec<String>, payments: Vec<i64> }
    ///
    /// impl Merge for Group {
    ///     fn merge(&mut self, later: &Self) {
    ///         self.orders.extend_from_slice(&later.orders);
    ///         self.payments.extend_from_slice(&later.payments);
    ///     }
    /// }
    /// # fn example(orders: &KeyedStream<u64, String>, payments: &KeyedStream<u64, i64>) {
    /// let groups = orders.connect(payments).window(Tumbling::of(mins(5))).aggregate(Group::default, |group, row| match row {
    ///     Either::First(order) => group.orders.push(order.clone()),
    ///     Either::Second(amount) => group.payments.push(*amount),
    /// });
    /// # let _ = groups;
    /// # }
    /// ```
    pub fn connect<B: Data>(&self, other: &KeyedStream<K, B>) -> KeyedStream<K, Either<A, B>> {
        let note = NodeNote { glue: true, ..NodeNote::default() };
        let both: Stream<Either<A, B>> =
            self.stream().add("connect", operators::either::<A, B>(), &self.stream().meets(other.stream()), note);
        both.change(|node| node.can_reject = false);
        // Rows keep their keys and stay in their task: what follows is chained.
        KeyedStream::in_place(both)
    }
}
