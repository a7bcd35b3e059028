//! `map_async` and `lookup_async`: rows become results of calls to the outside, many at once, without holding the task up.
//!
//! Rows whose results have not left are state: a barrier passes at once, and after a restore their calls are made again. So a
//! call may be made more than once, though its result leaves once. A reply that comes after a barrier belongs to the next
//! epoch.
//!
//! Invariant: rows in = results + rejected rows + rows inside; a watermark, idleness or the end leaves only when every row
//! that came before it has; ordered, results leave in the order of the rows; unordered on a keyed stream, those of one key do,
//! and no call of a key starts before the one before it is settled.

use super::async_options::AsyncOptions;
use super::call::{Asked, Patience, make_call};
use super::guarded::guarded_call;
use super::{OpenContext, Operator, OperatorFactory, Output, Signal};
use crate::env::{Bug, Env, Running, planted};
use crate::error::Result;
use crate::record::{BatchBox, Data, Key, Keys, Origin, Rows, downcast, key_group};
use crate::state::{OrderedTable, StateValue, Table};
use crate::time::{EventTime, millis};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows become what `call` answers. `keyed`: rows are keyed, and unordered calls keep the order of each key.
pub fn map_async<T, U, F>(options: AsyncOptions, keyed: bool, call: impl Fn(T) -> F + Send + Sync + 'static) -> OperatorFactory
where
    T: Data + StateValue,
    U: Data,
    F: Future<Output = Result<U, String>> + Send + 'static,
{
    let call = Arc::new(call);
    let ask = move |row: &T| {
        let (row, call) = (row.clone(), call.clone());
        Asked { cache_key: None, call: Box::new(move || Box::pin(call(row.clone()))) }
    };
    factory(options, keyed, ask, |_, answer: &U| answer.clone())
}

/// Rows are joined with what `call` answers for the key that `key` gives; answers may be cached.
pub fn lookup_async<T, Q, V, U, F>(
    options: AsyncOptions,
    keyed: bool,
    key: impl Fn(&T) -> Q + Send + Sync + 'static,
    call: impl Fn(Q) -> F + Send + Sync + 'static,
    join: impl Fn(T, &V) -> U + Send + Sync + 'static,
) -> OperatorFactory
where
    T: Data + StateValue,
    Q: Key,
    V: Data,
    U: Data,
    F: Future<Output = Result<V, String>> + Send + 'static,
{
    let call = Arc::new(call);
    let caches = options.cache.is_some();
    let ask = move |row: &T| {
        let (key, call) = (key(row), call.clone());
        let cache_key = caches.then(|| {
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            bytes
        });
        Asked { cache_key, call: Box::new(move || Box::pin(call(key.clone()))) }
    };
    factory(options, keyed, ask, join)
}

fn factory<T: Data + StateValue, V: Data, U: Data>(
    options: AsyncOptions,
    keyed: bool,
    ask: impl Fn(&T) -> Asked<V> + Send + Sync + 'static,
    join: impl Fn(T, &V) -> U + Send + Sync + 'static,
) -> OperatorFactory {
    let (ask, join) = (Arc::new(ask), Arc::new(join));
    Arc::new(move || {
        Box::new(MapAsync::<T, V, U> {
            options: options.clone(),
            keyed,
            ask: ask.clone(),
            join: join.clone(),
            env: None,
            own_key: Vec::new(),
            stored: OrderedTable::new("calls").in_memory(),
            restored: false,
            inside: BTreeMap::new(),
            next: 0,
            waiting: VecDeque::new(),
            busy: BTreeMap::new(),
            done: BTreeSet::new(),
            running: 0,
            replies: Replies::default(),
            signals: VecDeque::new(),
            cache: Cache::default(),
            wall_ms: 0,
        })
    })
}

/// What is asked for a row.
type Ask<T, V> = Arc<dyn Fn(&T) -> Asked<V> + Send + Sync>;
/// What becomes of a row and its answer.
type Join<T, V, U> = Arc<dyn Fn(T, &V) -> U + Send + Sync>;
/// Number of a row and what its call led to.
type Replies<V> = Arc<Mutex<Vec<(u64, Result<V, String>)>>>;

/// A row inside.
struct Row<V> {
    key: Vec<u8>,
    origin: Option<Origin>,
    /// Of the question.
    cache_key: Option<Vec<u8>>,
    state: RowState<V>,
}

enum RowState<V> {
    Waiting,
    /// Held, because dropping it ends the call.
    Called(#[expect(dead_code, reason = "dropping it ends the call")] Running),
    Done(Result<V, String>),
}

struct MapAsync<T, V, U> {
    options: AsyncOptions,
    keyed: bool,
    ask: Ask<T, V>,
    join: Join<T, V, U>,
    env: Option<Env>,
    /// Of a stream without keys: a key of this instance.
    own_key: Vec<u8>,
    /// Rows inside with their event times, by number.
    stored: OrderedTable<(i64, T)>,
    restored: bool,
    /// By number: the order of arrival.
    inside: BTreeMap<u64, Row<V>>,
    next: u64,
    /// Rows whose calls may start, in order.
    waiting: VecDeque<u64>,
    /// Unordered on a keyed stream: keys with a row that is under way, and the rows behind it.
    busy: BTreeMap<Vec<u8>, VecDeque<u64>>,
    done: BTreeSet<u64>,
    running: usize,
    replies: Replies<V>,
    /// What waits for the rows of smaller numbers.
    signals: VecDeque<(u64, Signal)>,
    cache: Cache<V>,
    wall_ms: i64,
}

impl<T: Data + StateValue, V: Data, U: Data> MapAsync<T, V, U> {
    fn per_key(&self) -> bool {
        self.keyed && !self.options.ordered
    }

    /// A row comes in.
    fn take_in(&mut self, key: &[u8], time: i64, row: T, origin: Option<Origin>) {
        let number = self.next;
        self.next += 1;
        self.stored.insert(EventTime(number as i64), key, &[], (time, row));
        self.inside.insert(number, Row { key: key.to_vec(), origin, cache_key: None, state: RowState::Waiting });
        if self.per_key() {
            if let Some(behind) = self.busy.get_mut(key) {
                behind.push_back(number);
                return;
            }
            self.busy.insert(key.to_vec(), VecDeque::new());
        }
        self.waiting.push_back(number);
    }

    /// Rows of before the restore, numbered anew: two former instances may have given one number each.
    fn take_in_restored(&mut self) -> Result<()> {
        let mut rows = Vec::new();
        while let Some(due) = self.stored.pop_due(EventTime::MAX)? {
            rows.push(due);
        }
        if planted(Bug::ForgetCalls) {
            return Ok(());
        }
        for due in rows {
            let (time, row) = due.value;
            self.take_in(&due.key, time, row, None);
        }
        Ok(())
    }

    /// Takes the replies that have come.
    fn collect(&mut self) {
        let replies = std::mem::take(&mut *self.replies.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, reply) in replies {
            self.running -= 1;
            if let (Ok(answer), Some((ttl, entries))) = (&reply, self.options.cache)
                && let Some(key) = self.inside.get_mut(&number).and_then(|row| row.cache_key.take())
            {
                self.cache.put(key, answer.clone(), self.wall_ms.saturating_add(millis(ttl)), entries);
            }
            self.settle(number, reply);
        }
    }

    fn settle(&mut self, number: u64, reply: Result<V, String>) {
        if let Some(row) = self.inside.get_mut(&number) {
            row.state = RowState::Done(reply);
            self.done.insert(number);
        }
    }

    /// Starts calls up to the capacity.
    fn start(&mut self) {
        let Some(env) = self.env.clone() else { return };
        while self.running < self.options.capacity
            && let Some(number) = self.waiting.pop_front()
        {
            let Some(row) = self.inside.get(&number) else { continue };
            let Some((_, value)) = self.stored.get(EventTime(number as i64), &row.key, &[]) else { continue };
            let asked = match guarded_call(|| (self.ask)(value)) {
                Ok(asked) => asked,
                Err(error) => {
                    self.settle(number, Err(error));
                    continue;
                }
            };
            if let Some(answer) = asked.cache_key.as_ref().and_then(|key| self.cache.get(key)).cloned() {
                self.settle(number, Ok(answer));
                continue;
            }
            let replies = self.replies.clone();
            let reply = move |reply| replies.lock().unwrap_or_else(PoisonError::into_inner).push((number, reply));
            let patience = Patience { timeout: self.options.timeout, retries: self.options.retries, backoff: self.options.backoff };
            self.running += 1;
            let call = env.calls.start(make_call(asked.call, env.calls.clone(), patience, reply));
            if let Some(row) = self.inside.get_mut(&number) {
                (row.cache_key, row.state) = (asked.cache_key, RowState::Called(call));
            }
        }
    }

    /// The row whose result may leave next.
    fn next_done(&self) -> Option<u64> {
        match self.options.ordered {
            true => self.inside.first_key_value().filter(|(_, row)| matches!(row.state, RowState::Done(_))).map(|(number, _)| *number),
            false => self.done.first().copied(),
        }
    }

    /// Lets out what may leave; whether anything did.
    fn emit(&mut self, out: &mut Output<'_>) -> Result<bool> {
        let (mut results, mut any) = (Rows::default(), false);
        loop {
            let first = self.inside.first_key_value().map(|(number, _)| *number);
            if let Some(&(behind, signal)) = self.signals.front()
                && first.is_none_or(|first| first >= behind)
            {
                out.emit(std::mem::take(&mut results).boxed())?;
                self.signals.pop_front();
                out.forward(signal)?;
                continue;
            }
            let Some(number) = self.next_done() else { break };
            any = true;
            self.let_out(number, &mut results, out)?;
        }
        out.emit(results.boxed())?;
        Ok(any)
    }

    fn let_out(&mut self, number: u64, results: &mut Rows<U>, out: &mut Output<'_>) -> Result<()> {
        self.done.remove(&number);
        let Some(row) = self.inside.remove(&number) else { return Ok(()) };
        if self.per_key()
            && let Some(behind) = self.busy.get_mut(&row.key)
        {
            match behind.pop_front() {
                Some(next) => self.waiting.push_back(next),
                None => drop(self.busy.remove(&row.key)),
            }
        }
        let stored = self.stored.remove(EventTime(number as i64), &row.key, &[])?;
        let (Some((time, value)), RowState::Done(reply)) = (stored, row.state) else { return Ok(()) };
        match reply.and_then(|answer| guarded_call(|| (self.join)(value, &answer))) {
            Ok(result) => {
                // Restored rows have no origin; a batch has one for all rows or for none.
                if !results.rows.is_empty() && results.origins.is_some() != row.origin.is_some() {
                    out.emit(std::mem::take(results).boxed())?;
                }
                results.push(result, EventTime(time), row.origin);
                Ok(())
            }
            Err(error) => out.reject(row.origin, EventTime(time), error),
        }
    }

    fn advance(&mut self, out: &mut Output<'_>) -> Result<()> {
        loop {
            self.collect();
            self.start();
            // What left may have made room for calls that the cache answers at once.
            if !self.emit(out)? {
                return Ok(());
            }
        }
    }
}

impl<T: Data + StateValue, V: Data, U: Data> Operator for MapAsync<T, V, U> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.env = Some(context.env.clone());
        // Some key among the first few hundred lies in every key group.
        let mut candidates = (0u64..).map(|n| (n, Keys::encode(std::iter::once(n)).hashes()[0]));
        let own = candidates.find(|(_, hash)| context.groups.contains(&key_group(*hash, context.max_parallelism)));
        self.own_key = own.map(|(n, _)| n.to_be_bytes().to_vec()).unwrap_or_default();
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.stored]
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Rows { rows, times, keys, origins } = downcast::<Rows<T>>(batch);
        let own_key = self.own_key.clone();
        let mut scratch = [0; 8];
        for (i, (row, time)) in rows.into_iter().zip(times).enumerate() {
            let origin = origins.as_ref().map(|o| o.0[i].clone());
            match &keys {
                Some(keys) if self.keyed => self.take_in(keys.bytes(i, &mut scratch), time.0, row, origin),
                _ => self.take_in(&own_key, time.0, row, origin),
            }
        }
        self.advance(out)
    }

    fn on_watermark(&mut self, _time: EventTime, out: &mut Output<'_>) -> Result<()> {
        self.advance(out)
    }

    fn hold(&mut self, signal: Signal) -> bool {
        let holds = self.holds();
        if holds {
            self.signals.push_back((self.next, signal));
        }
        holds
    }

    fn holds(&self) -> bool {
        !self.inside.is_empty()
    }

    /// Looks for replies each millisecond while there are rows inside.
    fn on_time(&mut self, wall_ms: i64, out: &mut Output<'_>) -> Result<Option<i64>> {
        self.wall_ms = wall_ms;
        if !std::mem::replace(&mut self.restored, true) {
            self.take_in_restored()?;
        }
        self.cache.expire(wall_ms);
        self.advance(out)?;
        Ok(if self.holds() { Some(wall_ms + 1) } else { self.cache.next_expiry() })
    }

    fn before_barrier(&mut self, _epoch: crate::record::Epoch, out: &mut Output<'_>) -> Result<()> {
        self.advance(out)
    }

    fn ready(&mut self) -> Result<bool> {
        self.collect();
        Ok(self.inside.len() < self.options.capacity)
    }

    fn close(&mut self) {
        self.inside.clear();
    }
}

/// Answers by question, until they expire.
struct Cache<V> {
    answers: BTreeMap<Vec<u8>, (i64, V)>,
    /// By expiry.
    expiries: BTreeSet<(i64, Vec<u8>)>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Cache { answers: BTreeMap::new(), expiries: BTreeSet::new() }
    }
}

impl<V> Cache<V> {
    fn get(&self, key: &[u8]) -> Option<&V> {
        self.answers.get(key).map(|(_, answer)| answer)
    }

    /// The oldest answers make room.
    fn put(&mut self, key: Vec<u8>, answer: V, expiry_ms: i64, entries: usize) {
        if let Some((old, _)) = self.answers.insert(key.clone(), (expiry_ms, answer)) {
            self.expiries.remove(&(old, key.clone()));
        }
        self.expiries.insert((expiry_ms, key));
        while self.answers.len() > entries
            && let Some((_, oldest)) = self.expiries.pop_first()
        {
            self.answers.remove(&oldest);
        }
    }

    fn expire(&mut self, wall_ms: i64) {
        while self.next_expiry().is_some_and(|at| at <= wall_ms)
            && let Some((_, key)) = self.expiries.pop_first()
        {
            self.answers.remove(&key);
        }
    }

    fn next_expiry(&self) -> Option<i64> {
        self.expiries.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests;
