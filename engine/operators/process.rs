//! The process function: user code with keyed state, timers and side outputs.
//!
//! In [`ProcessFunction::open`] a function declares what it uses and keeps the handles; with a handle it reaches the state of
//! the key at hand through the context. State and timers are checkpointed and follow their key through a rescale.
//!
//! Timers fire in the order (time, key bytes, name). A call that panics is rejected: what it had emitted is taken back, what
//! it had changed in state and timers stays.
//!
//! Invariant: a function sees only the state of one key at a time, and no clock but the context's.

use super::guarded::{guarded_call, run_rows};
use super::process_state::{States, Timer};
use super::{OpenContext, Operator, OperatorFactory, Output, Port};
use crate::error::{Error, Result};
use crate::observe::{Counter, Gauge};
use crate::record::{BatchBox, Data, Key, Keys, Origin, Rows, downcast};
use crate::state::Table;
use crate::time::EventTime;
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// User code over a stream of `T` keyed by `K`, with results of type `U`.
///
/// ```
/// use waterwheel_engine::operators::{ProcessContext, ProcessFunction, ProcessOpen, Timer, ValueState, process};
/// /// Says how many rows a key had, one minute after the first.
/// #[derive(Default)]
/// struct CountPerMinute(ValueState<u64>);
///
/// impl ProcessFunction<String, i64, (String, u64)> for CountPerMinute {
///     fn open(&mut self, open: &mut ProcessOpen<'_>) {
///         self.0 = open.value("count");
///     }
///     fn on_element(&mut self, context: &mut ProcessContext<'_, String, (String, u64)>, _row: i64) {
///         let count = self.0.get(context).copied().unwrap_or(0);
///         if count == 0 {
///             context.set_timer("report", context.time().plus_ms(60_000));
///         }
///         self.0.set(context, count + 1);
///     }
///     fn on_timer(&mut self, context: &mut ProcessContext<'_, String, (String, u64)>, _timer: &Timer) {
///         if let Some(count) = self.0.take(context) {
///             let key = context.key();
///             context.emit((key, count));
///         }
///     }
/// }
/// let factory = process(CountPerMinute::default);
/// ```
pub trait ProcessFunction<K: Key, T: Data, U: Data>: Send + 'static {
    /// Called once at start: declares state, side outputs, metrics, always the same ones.
    fn open(&mut self, open: &mut ProcessOpen<'_>);
    /// A row has come.
    fn on_element(&mut self, context: &mut ProcessContext<'_, K, U>, row: T);
    /// A timer fires.
    fn on_timer(&mut self, _context: &mut ProcessContext<'_, K, U>, _timer: &Timer) {}
    /// The task ends.
    fn close(&mut self) {}
}

/// One function per task, made by `make`.
pub fn process<K: Key, T: Data, U: Data, P: ProcessFunction<K, T, U>>(make: impl Fn() -> P + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || Box::new(Process::<P, K, T, U>::new(make())))
}

/// How often a function with processing-time timers looks at the clock, in milliseconds: the resolution of such timers.
const WALL_TICK_MS: i64 = 50;

/// A side output that takes rows of type `S`.
pub struct SideOutput<S> {
    at: usize,
    rows: PhantomData<fn(S)>,
}

/// Declares what a process function uses.
pub struct ProcessOpen<'a> {
    pub(super) states: &'a mut States,
    sides: &'a mut Vec<Box<dyn Side>>,
    context: &'a OpenContext,
}

impl ProcessOpen<'_> {
    /// A side output that leaves by `port` (1 and up; 0 is the main output).
    pub fn side_output<S: Data>(&mut self, port: Port) -> SideOutput<S> {
        self.sides.push(Box::new(SideRows::<S> { port, rows: Rows::default() }));
        SideOutput { at: self.sides.len() - 1, rows: PhantomData }
    }

    /// A metric of the user's own that counts.
    pub fn counter(&self, name: &'static str) -> Counter {
        self.context.metrics.counter(name, self.context.operator.as_str(), self.context.index)
    }

    /// A metric of the user's own that goes up and down.
    pub fn gauge(&self, name: &'static str) -> Gauge {
        self.context.metrics.gauge(name, self.context.operator.as_str(), self.context.index)
    }

    /// Allows [`ProcessContext::set_processing_timer`].
    pub fn use_processing_time(&mut self) {
        self.states.uses_wall = true;
    }

    /// The 0-based index of this instance and the number of instances.
    pub fn instance(&self) -> (u32, u32) {
        (self.context.index, self.context.parallelism)
    }
}

/// What a function sees of the world during one call.
pub struct ProcessContext<'a, K, U> {
    pub(super) states: &'a mut States,
    /// Row within the batch whose keys are resolved.
    pub(super) row: usize,
    keys: &'a Keys,
    time: EventTime,
    watermark: EventTime,
    wall_ms: i64,
    origin: Option<Origin>,
    emitted: &'a mut Emitted<U>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, U: Data> ProcessContext<'_, K, U> {
    /// The key at hand.
    ///
    /// # Panics
    /// When the stream was keyed by another type: a bug in the plan.
    pub fn key(&self) -> K {
        let mut scratch = [0; 8];
        match K::decode(&mut self.keys.bytes(self.row, &mut scratch)) {
            Ok(key) => key,
            Err(e) => panic!("plan bug: keys are of another type: {e}"),
        }
    }

    /// Event time of the row, or of the timer (the watermark, for a processing-time timer).
    pub fn time(&self) -> EventTime {
        self.time
    }

    /// How far event time has come; [`EventTime::MIN`] at first.
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// Wall time in milliseconds, as of the last tick (see [`ProcessOpen::use_processing_time`]); results that depend on it
    /// differ from run to run.
    pub fn processing_time_ms(&self) -> i64 {
        self.wall_ms
    }

    /// Emits a result with the time of this call.
    pub fn emit(&mut self, row: U) {
        self.emitted.rows.push(row, self.time, self.origin.clone());
    }

    /// Emits to a side output.
    pub fn emit_to<S: Data>(&mut self, output: &SideOutput<S>, row: S) {
        let side = self.emitted.sides[output.at].as_any_mut().downcast_mut::<SideRows<S>>();
        let Some(side) = side else { unreachable!("a handle is of the type it was declared with") };
        side.rows.push(row, self.time, self.origin.clone());
    }

    /// Fires [`ProcessFunction::on_timer`] for this key when the watermark reaches `time`. Name and time together name a
    /// timer; setting it again changes nothing. One in the past fires with the next watermark.
    ///
    /// At the end of a bounded input every timer fires; one that its own `on_timer` sets again then does not, so that
    /// periodic timers come to an end.
    pub fn set_timer(&mut self, name: &str, time: EventTime) {
        self.states.set_timer(self.keys, self.row, name, time);
    }

    /// Takes back a timer of this key; whether there was one.
    pub fn delete_timer(&mut self, name: &str, time: EventTime) -> bool {
        let mut scratch = [0; 8];
        self.states.delete_timer(false, self.keys.bytes(self.row, &mut scratch), name, time)
    }

    /// Fires [`ProcessFunction::on_timer`] for this key when wall time reaches `wall_ms`, some 50 ms later at most.
    ///
    /// # Panics
    /// Without [`ProcessOpen::use_processing_time`].
    pub fn set_processing_timer(&mut self, name: &str, wall_ms: i64) {
        assert!(self.states.uses_wall, "processing-time timers need open.use_processing_time()");
        let mut scratch = [0; 8];
        let key = self.keys.bytes(self.row, &mut scratch);
        self.states.wall_timers.insert(EventTime(wall_ms), key, name.as_bytes(), ());
    }

    /// Takes back a processing-time timer of this key; whether there was one.
    pub fn delete_processing_timer(&mut self, name: &str, wall_ms: i64) -> bool {
        let mut scratch = [0; 8];
        self.states.delete_timer(true, self.keys.bytes(self.row, &mut scratch), name, EventTime(wall_ms))
    }
}

/// Results of the calls so far.
struct Emitted<U> {
    rows: Rows<U>,
    sides: Vec<Box<dyn Side>>,
}

trait Side: Send {
    fn len(&self) -> usize;
    fn truncate(&mut self, len: usize);
    fn take(&mut self) -> (Port, BatchBox);
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

struct SideRows<S> {
    port: Port,
    rows: Rows<S>,
}

fn truncate<S>(rows: &mut Rows<S>, len: usize) {
    rows.rows.truncate(len);
    rows.times.truncate(len);
    if let Some(origins) = &mut rows.origins {
        origins.0.truncate(len);
    }
}

impl<S: Data> Side for SideRows<S> {
    fn len(&self) -> usize {
        self.rows.rows.len()
    }
    fn truncate(&mut self, len: usize) {
        truncate(&mut self.rows, len);
    }
    fn take(&mut self) -> (Port, BatchBox) {
        (self.port, std::mem::take(&mut self.rows).boxed())
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl<U: Data> Emitted<U> {
    fn marks(&self, marks: &mut Vec<usize>) {
        marks.clear();
        marks.extend(self.sides.iter().map(|s| s.len()));
        marks.push(self.rows.rows.len());
    }

    fn roll_back(&mut self, marks: &[usize]) {
        let Some((&main, sides)) = marks.split_last() else { return };
        truncate(&mut self.rows, main);
        self.sides.iter_mut().zip(sides).for_each(|(side, &len)| side.truncate(len));
    }

    fn flush(&mut self, out: &mut Output<'_>) -> Result<()> {
        out.emit(std::mem::take(&mut self.rows).boxed())?;
        for side in &mut self.sides {
            let (port, batch) = side.take();
            out.emit_to(port, batch)?;
        }
        Ok(())
    }
}

pub(super) struct Process<P, K, T, U> {
    function: P,
    pub(super) states: States,
    emitted: Emitted<U>,
    /// The key of the timer that fires.
    fired: Keys,
    /// How much was emitted before it.
    marks: Vec<usize>,
    watermark: EventTime,
    wall_ms: i64,
    types: PhantomData<fn(K, T)>,
}

/// Results of so many timers leave together.
const TIMERS_AT_ONCE: usize = 1024;

impl<K: Key, T: Data, U: Data, P: ProcessFunction<K, T, U>> Process<P, K, T, U> {
    pub(super) fn new(function: P) -> Self {
        let emitted = Emitted { rows: Rows::default(), sides: Vec::new() };
        let states = States::of_keys(K::kind());
        Process {
            function,
            states,
            emitted,
            fired: Keys::default(),
            marks: Vec::new(),
            watermark: EventTime::MIN,
            wall_ms: 0,
            types: PhantomData,
        }
    }

    /// Fires one timer; its results wait in `emitted`.
    fn fire(&mut self, key: &[u8], timer: &Timer, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        self.fired.clear();
        self.fired.push_encoded::<K>(key)?;
        self.states.resolve(&self.fired)?;
        self.emitted.marks(&mut self.marks);
        let Process { function, states, emitted, fired: keys, watermark, wall_ms, .. } = self;
        let fired = guarded_call(|| {
            let mut context = ProcessContext {
                states,
                row: 0,
                keys,
                time,
                watermark: *watermark,
                wall_ms: *wall_ms,
                origin: None,
                emitted,
                key: PhantomData,
            };
            function.on_timer(&mut context, timer);
        });
        states.note_reads(time);
        states.check()?;
        if let Err(error) = fired {
            self.emitted.roll_back(&self.marks);
            out.reject(None, time, error)?;
        }
        if self.emitted.rows.rows.len() >= TIMERS_AT_ONCE {
            self.emitted.flush(out)?;
        }
        Ok(())
    }
}

impl<K: Key, T: Data, U: Data, P: ProcessFunction<K, T, U>> Operator for Process<P, K, T, U> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        let mut open = ProcessOpen { states: &mut self.states, sides: &mut self.emitted.sides, context };
        self.function.open(&mut open);
        self.states.check_names()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        self.states.tables()
    }

    fn on_batch(&mut self, _input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let Rows { rows, times, keys, origins } = downcast::<Rows<T>>(batch);
        let Some(keys) = keys else { unreachable!("plan bug: a process function needs a keyed stream") };
        self.states.resolve(&keys)?;
        let n = rows.len();
        let (mut rows, mut marks) = (rows.into_iter(), Vec::new());
        let origin = |i: usize| origins.as_ref().map(|o| o.0[i].clone());
        let Process { function, states, emitted, watermark, wall_ms, .. } = self;
        let mut next = 0;
        loop {
            let failed = run_rows(next..n, &mut *emitted, |emitted, i| {
                emitted.marks(&mut marks);
                let Some(row) = rows.next() else { return Ok(()) };
                let (time, origin) = (times[i], origin(i));
                let (watermark, wall_ms) = (*watermark, *wall_ms);
                let mut context = ProcessContext {
                    states: &mut *states,
                    row: i,
                    keys: &keys,
                    time,
                    watermark,
                    wall_ms,
                    origin,
                    emitted,
                    key: PhantomData,
                };
                function.on_element(&mut context, row);
                states.note_reads(time);
                Ok(())
            });
            states.check()?;
            let Some((i, error)) = failed else { break };
            emitted.roll_back(&marks);
            states.note_reads(times[i]);
            out.reject(origin(i), times[i], error)?;
            next = i + 1;
        }
        self.emitted.flush(out)
    }

    fn on_watermark(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        self.watermark = self.watermark.max(time);
        // Most timers have the name of the one before.
        let (mut timer, mut key) = (Timer::new(&[], time, false)?, Vec::new());
        loop {
            let popped = self.states.timers.pop_with(self.watermark, |due, due_key, name, ()| -> Result<()> {
                key.clear();
                key.extend_from_slice(due_key);
                if timer.name.as_bytes() != name {
                    timer = Timer::new(name, due, false)?;
                }
                timer.time = due;
                Ok(())
            })?;
            match popped {
                Some(due) => due?,
                None => break,
            }
            self.states.rearmed = (time == EventTime::MAX).then(Vec::new);
            self.fire(&key, &timer, timer.time, out)?;
            let own = |(name, _): &(String, EventTime)| *name == timer.name;
            for (_, at) in self.states.rearmed.take().unwrap_or_default().into_iter().filter(own) {
                self.states.timers.discard(at, &key, timer.name.as_bytes());
            }
        }
        self.emitted.flush(out)?;
        self.states.expire(time);
        Ok(())
    }

    fn on_time(&mut self, wall_ms: i64, out: &mut Output<'_>) -> Result<Option<i64>> {
        if !self.states.uses_wall {
            return Ok(None);
        }
        self.wall_ms = wall_ms;
        // Those set while others fire come with the next tick, or two that set each other would never end.
        let mut due = Vec::new();
        while let Some(timer) = self.states.wall_timers.pop_due(EventTime(wall_ms))? {
            due.push(timer);
        }
        for due in due {
            let timer = Timer::new(&due.tag, due.time, true)?;
            self.fire(&due.key, &timer, self.watermark, out)?;
        }
        self.emitted.flush(out)?;
        Ok(Some(wall_ms.saturating_add(WALL_TICK_MS)))
    }

    fn save(&mut self) -> Vec<u8> {
        self.watermark.0.to_be_bytes().to_vec()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        for (i, blob) in blobs.iter().enumerate() {
            let damaged = |_| Error::fatal("the saved watermark of a process function is damaged");
            let wm = EventTime(i64::from_be_bytes(blob[..].try_into().map_err(damaged)?));
            self.watermark = if i == 0 { wm } else { self.watermark.min(wm) };
        }
        Ok(())
    }

    fn close(&mut self) {
        self.function.close();
    }
}
