//! Broadcast maps: small tables that every task of a process function sees whole, such as rules that change while the job runs.
//!
//! Invariant: a map is changed by its stream alone; every task has every change.

use super::keyed::{KeyedStream, process_note};
use super::stream::Stream;
use super::table::Table;
use crate::graph::{Bound, EqualityClass, Input, Routing, StateNote};
use crate::operators::{self, BroadcastInput, ProcessFunction};
use crate::record::{Data, Key};
use crate::state::StateValue;

/// A map that is sent to every task. Made by [`Table::broadcast`] or [`Stream::broadcast`].
pub struct Broadcast<K, V> {
    name: String,
    changes: Stream<(K, Option<V>)>,
    input: BroadcastInput,
}

impl<K, V> Clone for Broadcast<K, V> {
    /// Another handle of the same map.
    fn clone(&self) -> Self {
        Broadcast { name: self.name.clone(), changes: self.changes.clone(), input: self.input.clone() }
    }
}

impl<K: Key, V: Data + StateValue> Table<K, V> {
    /// The whole table in every task, under a name by which a process function finds it. For some thousands of entries;
    /// larger ones are joined: [`Stream::join_table`]. It is read in before the first row.
    ///
    /// ```
    /// use waterwheel_engine::dsl::{KeyedStream, SourceStream, Stream};
    /// use waterwheel_engine::operators::{BroadcastState, ProcessContext, ProcessFunction, ProcessOpen};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Rule { name: String, above: i64 }
    ///
    /// /// Names every rule that a payment breaks. Rules come from a topic and change while the job runs.
    /// #[derive(Default)]
    /// struct Check { rules: BroadcastState<String, Rule> }
    ///
    /// impl ProcessFunction<String, i64, String> for Check {
    ///     fn open(&mut self, open: &mut ProcessOpen<'_>) {
    ///         self.rules = open.broadcast("rules");
    ///     }
    ///     fn on_element(&mut self, context: &mut ProcessContext<'_, String, String>, amount: i64) {
    ///         let broken: Vec<String> =
    ///             self.rules.entries(context).filter(|(_, r)| amount > r.above).map(|(name, _)| name.clone()).collect();
    ///         for name in broken {
    ///             context.emit(name);
    ///         }
    ///     }
    /// }
    ///
    /// fn checked(payments: &KeyedStream<String, i64>, rules: SourceStream<Rule>) -> Stream<String> {
    ///     let rules = rules.table(|r| r.name.clone()).broadcast("rules");
    ///     payments.with_broadcast(&rules).process(Check::default).id("check")
    /// }
    /// ```
    pub fn broadcast(&self, name: &str) -> Broadcast<K, V> {
        let input = BroadcastInput::new::<K, V>(name, true);
        Broadcast { name: name.to_string(), changes: self.changes().routed(Routing::Broadcast), input }
    }
}

impl<T: Data> Stream<T> {
    /// A map made of the rows of a stream, in every task: `change` gives the entry that a row sets, or removes (`None`). Rows
    /// of other streams do not wait for it. Changes of one entry must come in order: from one split.
    pub fn broadcast<K: Key, V: Data + StateValue>(
        &self,
        name: &str,
        change: impl Fn(T) -> (K, Option<V>) + Send + Sync + 'static,
    ) -> Broadcast<K, V> {
        let input = BroadcastInput::new::<K, V>(name, false);
        Broadcast { name: name.to_string(), changes: self.map(change).routed(Routing::Broadcast), input }
    }
}

impl<K: Key, T: Data> KeyedStream<K, T> {
    /// Lets the process function that follows see a broadcast map; several, one after the other.
    pub fn with_broadcast<B: Key, V: Data>(&self, map: &Broadcast<B, V>) -> KeyedWithBroadcast<K, T> {
        KeyedWithBroadcast { keyed: self.clone(), inputs: Vec::new(), maps: Vec::new(), names: Vec::new() }.with_broadcast(map)
    }
}

/// A keyed stream and the broadcast maps that its process function sees.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedWithBroadcast<K, T> {
    keyed: KeyedStream<K, T>,
    inputs: Vec<Input>,
    maps: Vec<BroadcastInput>,
    names: Vec<String>,
}

impl<K: Key, T: Data> KeyedWithBroadcast<K, T> {
    /// One more map.
    pub fn with_broadcast<B: Key, V: Data>(mut self, map: &Broadcast<B, V>) -> Self {
        self.inputs.extend(self.keyed.stream().meets(&map.changes));
        self.maps.push(map.input.clone());
        self.names.push(map.name.clone());
        self
    }

    /// As [`KeyedStream::process`]; the function finds the maps with
    /// [`open.broadcast(name)`](crate::operators::ProcessOpen::broadcast).
    pub fn process<U: Data, P: ProcessFunction<K, T, U>>(&self, make: impl Fn() -> P + Send + Sync + 'static) -> Stream<U> {
        let mut note = process_note(self.keyed.stream());
        for name in &self.names {
            note.state.push(StateNote { what: format!("{name} whole, in every task"), bound: Bound::Unbounded });
            note.class.push((EqualityClass::TimeDependent, format!("{name} as it is when a row comes")));
        }
        let factory = operators::process_with::<K, T, U, P>(make, self.maps.clone());
        self.keyed.stream().add("process", factory, &self.inputs, note)
    }
}
