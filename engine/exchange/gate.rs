//! N channels become one ordered stream: the only place that aligns barriers and merges watermarks.
//!
//! Invariants: the merged watermark never goes back; after a channel's barrier nothing of it passes until every channel's
//! barrier is there; rows of one channel keep their order. An idle channel holds no watermark back; when it wakes up its
//! older watermark does not pull the merged one back.
//!
//! Channels hold much: what is late must not depend on which of them is emptied first. So where the sources are held in step,
//! the channels are too: none is read that is further ahead of the slowest. That cannot come to a standstill. The slowest is
//! never held, and whoever sends it has sent its watermark everywhere; if that task waits for room itself, then because of
//! a gate whose slowest is behind it by more still, and so on up to a source that nobody holds. A channel whose barrier has
//! come waits for the others, so it does not count.

use super::Receiver;
use crate::env::{Bug, planted};
use crate::record::{Barrier, BatchBox, Element, Epoch};
use crate::time::EventTime;
use std::collections::VecDeque;

/// What the gate hands to its task.
#[derive(Debug)]
pub enum Gated {
    /// Rows of one input.
    Batch(usize, BatchBoxDebug),
    /// The watermark of one input has grown.
    InputWatermark(usize, EventTime),
    /// The watermark over all inputs has grown.
    Watermark(EventTime),
    /// Every channel is idle.
    Idle,
    /// Every channel has reached this barrier.
    Barrier(Barrier),
    /// Every channel has ended.
    End,
}

/// A batch that can be printed by its size.
pub struct BatchBoxDebug(pub BatchBox);

impl std::fmt::Debug for BatchBoxDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows", self.0.len())
    }
}

struct Channel {
    input: usize,
    receiver: Receiver,
    watermark: EventTime,
    idle: bool,
    ended: bool,
    barrier: Option<Barrier>,
    /// It keeps step with the others that do.
    in_step: bool,
}

/// How far channels may be ahead of the slowest of them, in milliseconds, and of which inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InStep {
    /// Milliseconds of event time.
    pub max_ahead_ms: i64,
    /// Inputs whose channels keep step; others are neither held nor waited for.
    pub inputs: Vec<usize>,
}

/// The inputs of one task.
pub struct Gate {
    channels: Vec<Channel>,
    inputs: usize,
    next: usize,
    input_watermarks: Vec<EventTime>,
    merged: EventTime,
    announced_idle: bool,
    announced_end: bool,
    ready: VecDeque<Gated>,
    /// How far a channel that keeps step may be ahead of the slowest one, in milliseconds.
    max_ahead_ms: Option<i64>,
    /// Newest barrier let through by the planted bug.
    passed: Epoch,
}

impl Gate {
    /// `channels`: the input number and the receiver of each upstream task.
    pub fn new(channels: Vec<(usize, Receiver)>) -> Self {
        assert!(!channels.is_empty(), "a gate has channels");
        let inputs = channels.iter().map(|(i, _)| i + 1).max().unwrap_or(0);
        let channels = channels
            .into_iter()
            .map(|(input, receiver)| Channel {
                input,
                receiver,
                watermark: EventTime::MIN,
                idle: false,
                ended: false,
                barrier: None,
                in_step: false,
            })
            .collect();
        Gate {
            channels,
            inputs,
            next: 0,
            input_watermarks: vec![EventTime::MIN; inputs],
            merged: EventTime::MIN,
            announced_idle: false,
            announced_end: false,
            ready: VecDeque::new(),
            max_ahead_ms: None,
            passed: 0,
        }
    }

    /// Keeps channels in step.
    #[must_use]
    pub fn in_step(mut self, in_step: Option<InStep>) -> Self {
        if let Some(InStep { max_ahead_ms, inputs }) = in_step {
            self.max_ahead_ms = Some(max_ahead_ms);
            self.channels.iter_mut().for_each(|c| c.in_step = inputs.contains(&c.input));
        }
        self
    }

    /// Number of inputs (not channels).
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The merged watermark.
    pub fn watermark(&self) -> EventTime {
        self.merged
    }

    /// What comes next, if anything is there. With `only`, channels of other inputs are left alone.
    pub fn poll(&mut self, only: Option<usize>) -> Option<Gated> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let (at, element) = self.take(only)?;
            self.accept(at, element);
        }
    }

    /// In turn over the channels, so that none starves.
    fn take(&mut self, only: Option<usize>) -> Option<(usize, Element)> {
        let n = self.channels.len();
        let limit = self.limit();
        for offset in 0..n {
            let at = (self.next + offset) % n;
            let channel = &self.channels[at];
            if (channel.barrier.is_some() && !planted(Bug::ReadPastBarrier)) || only.is_some_and(|input| channel.input != input) {
                continue;
            }
            if channel.in_step && limit.is_some_and(|limit| channel.watermark > limit) {
                continue;
            }
            if let Some(element) = channel.receiver.pop() {
                self.next = (at + 1) % n;
                return Some((at, element));
            }
        }
        None
    }

    /// The watermark beyond which a channel is held.
    fn limit(&self) -> Option<EventTime> {
        let max_ahead_ms = self.max_ahead_ms?;
        let waited_for = |c: &&Channel| c.in_step && !c.idle && !c.ended && c.barrier.is_none();
        Some(self.channels.iter().filter(waited_for).map(|c| c.watermark).min()?.plus_ms(max_ahead_ms))
    }

    fn accept(&mut self, at: usize, element: Element) {
        match element {
            Element::Batch(batch) => {
                self.channels[at].idle = false;
                self.announced_idle = false;
                self.ready.push_back(Gated::Batch(self.channels[at].input, BatchBoxDebug(batch)));
            }
            Element::Watermark(time) => {
                let channel = &mut self.channels[at];
                channel.idle = false;
                channel.watermark = channel.watermark.max(time);
                self.announced_idle = false;
                self.merge();
            }
            Element::Idle => {
                self.channels[at].idle = true;
                self.merge();
            }
            Element::Barrier(barrier) => {
                let aligned = self.channels.iter().find_map(|c| c.barrier);
                assert!(aligned.is_none_or(|b| b == barrier), "barriers {aligned:?} and {barrier:?} meet at one gate");
                if planted(Bug::SkipAlignment) {
                    if self.passed < barrier.epoch {
                        self.passed = barrier.epoch;
                        self.ready.push_back(Gated::Barrier(barrier));
                    }
                    return;
                }
                self.channels[at].barrier = Some(barrier);
                if self.channels.iter().all(|c| c.barrier.is_some()) {
                    self.channels.iter_mut().for_each(|c| c.barrier = None);
                    self.ready.push_back(Gated::Barrier(barrier));
                }
            }
            Element::End => {
                self.channels[at].ended = true;
                self.channels[at].watermark = EventTime::MAX;
                self.merge();
                if !self.announced_end && self.channels.iter().all(|c| c.ended) {
                    self.announced_end = true;
                    self.ready.push_back(Gated::End);
                }
            }
        }
    }

    fn merge(&mut self) {
        for input in 0..self.inputs {
            let low = lowest(self.channels.iter().filter(|c| c.input == input));
            if low.is_some_and(|t| t > self.input_watermarks[input]) {
                self.input_watermarks[input] = low.unwrap_or(EventTime::MIN);
                if self.inputs > 1 {
                    self.ready.push_back(Gated::InputWatermark(input, self.input_watermarks[input]));
                }
            }
        }
        match lowest(self.channels.iter()) {
            Some(low) if low > self.merged => {
                self.merged = low;
                self.ready.push_back(Gated::Watermark(low));
            }
            Some(_) => {}
            None if !self.announced_idle => {
                self.announced_idle = true;
                self.ready.push_back(Gated::Idle);
            }
            None => {}
        }
    }
}

/// The lowest watermark of those that are not idle.
fn lowest<'a>(channels: impl Iterator<Item = &'a Channel>) -> Option<EventTime> {
    let watermarks = channels.filter(|c| !c.idle || c.ended).map(|c| c.watermark);
    if planted(Bug::FastestWatermark) { watermarks.max() } else { watermarks.min() }
}

#[cfg(test)]
mod tests {
    use super::super::{Sender, channel};
    use super::*;
    use crate::record::{BarrierKind, Rows, downcast};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn gate(inputs: &[usize]) -> (Vec<Sender>, Gate) {
        let (tx, rx): (Vec<_>, Vec<_>) = inputs.iter().map(|_| channel(1 << 20, Arc::new(|| ()), Arc::new(|| ()))).unzip();
        (tx, Gate::new(inputs.iter().copied().zip(rx).collect()))
    }

    fn row(v: u64) -> Element {
        Element::Batch(Rows::new(vec![v], vec![EventTime(0)]).boxed())
    }

    fn barrier(epoch: u64) -> Element {
        Element::Barrier(Barrier { epoch, kind: BarrierKind::Checkpoint })
    }

    fn all(gate: &mut Gate) -> Vec<String> {
        std::iter::from_fn(|| gate.poll(None))
            .map(|e| match e {
                Gated::Batch(input, b) => format!("{input}:{}", downcast::<Rows<u64>>(b.0).rows[0]),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_barrier_waits_for_the_slow_channel_and_holds_the_fast_one() {
        let (tx, mut gate) = gate(&[0, 0]);
        tx[0].send(barrier(1));
        tx[0].send(row(2));
        tx[1].send(row(1));
        assert_eq!(all(&mut gate), ["0:1"]);
        tx[1].send(barrier(1));
        assert_eq!(all(&mut gate), ["Barrier(Barrier { epoch: 1, kind: Checkpoint })", "0:2"]);
    }

    #[test]
    fn idle_holds_nothing_back_and_waking_up_pulls_nothing_back() {
        let (tx, mut gate) = gate(&[0, 0]);
        tx[0].send(Element::Watermark(EventTime(10)));
        assert!(all(&mut gate).is_empty());
        tx[1].send(Element::Idle);
        assert_eq!(all(&mut gate), ["Watermark(EventTime(10))"]);
        tx[1].send(Element::Watermark(EventTime(3)));
        tx[1].send(Element::Watermark(EventTime(12)));
        tx[0].send(Element::Watermark(EventTime(11)));
        assert_eq!(all(&mut gate), ["Watermark(EventTime(11))"]);
    }

    #[test]
    fn end_comes_once_and_barriers_still_pass_after_it() {
        let (tx, mut gate) = gate(&[0, 1]);
        tx[0].send(Element::End);
        tx[1].send(Element::End);
        for t in &tx {
            t.send(barrier(4));
        }
        let seen = all(&mut gate);
        assert_eq!(seen.last().unwrap(), "Barrier(Barrier { epoch: 4, kind: Checkpoint })");
        assert_eq!(seen.iter().filter(|s| *s == "End").count(), 1);
    }

    /// Inputs 0, 0, 1 of which the first two keep step; each event of the script is sent, then the gate is emptied.
    #[test]
    fn a_channel_that_is_ahead_waits_for_the_slowest() {
        let (tx, gate) = gate(&[0, 0, 1]);
        let mut gate = gate.in_step(Some(InStep { max_ahead_ms: 10, inputs: vec![0] }));
        let watermark = |ms| Element::Watermark(EventTime(ms));
        tx[0].send(watermark(5));
        tx[0].send(row(1));
        assert!(all(&mut gate).is_empty(), "nobody knows where the other one is");
        tx[2].send(row(2));
        assert_eq!(all(&mut gate), ["1:2"], "another input passes");
        tx[1].send(watermark(-5));
        assert_eq!(all(&mut gate), ["InputWatermark(0, EventTime(-5))", "0:1"], "ten are allowed");
        tx[0].send(watermark(6));
        tx[0].send(row(3));
        tx[1].send(row(4));
        assert_eq!(all(&mut gate), ["0:4"], "eleven are not");
        tx[1].send(Element::Idle);
        assert_eq!(all(&mut gate), ["InputWatermark(0, EventTime(6))", "0:3"], "an idle one is not waited for");
    }

    #[test]
    fn a_channel_that_is_ahead_is_read_up_to_the_barrier_that_the_others_wait_for() {
        let (tx, gate) = gate(&[0, 0]);
        let mut gate = gate.in_step(Some(InStep { max_ahead_ms: 10, inputs: vec![0] }));
        tx[0].send(Element::Watermark(EventTime(100)));
        tx[0].send(row(1));
        tx[0].send(barrier(1));
        tx[0].send(row(2));
        tx[1].send(Element::Watermark(EventTime(0)));
        assert_eq!(all(&mut gate), ["Watermark(EventTime(0))"]);
        tx[1].send(barrier(1));
        assert_eq!(all(&mut gate), ["0:1", "Barrier(Barrier { epoch: 1, kind: Checkpoint })"]);
        tx[1].send(Element::End);
        assert_eq!(all(&mut gate), ["Watermark(EventTime(100))", "0:2"]);
    }

    #[test]
    fn only_leaves_the_other_inputs_alone() {
        let (tx, mut gate) = gate(&[0, 1]);
        tx[0].send(row(1));
        tx[1].send(row(2));
        assert!(matches!(gate.poll(Some(1)), Some(Gated::Batch(1, _))));
        assert!(gate.poll(Some(1)).is_none());
    }

    proptest! {
        /// Against the definition: rows between two barriers are exactly those each channel sent between them, in order.
        #[test]
        fn epochs_never_mix(script in proptest::collection::vec((0usize..3, 0u8..4), 0..60), polls in proptest::collection::vec(0usize..3, 60)) {
            let (tx, mut gate) = gate(&[0, 0, 0]);
            let mut sent: Vec<Vec<(u64, u64)>> = vec![vec![]; 3];
            let mut epoch = [0u64; 3];
            let mut seen: Vec<(u64, u64)> = Vec::new();
            let mut seen_epoch = 0;
            let mut id = 0;
            let mut drain = |gate: &mut Gate, n: usize, seen: &mut Vec<(u64, u64)>| {
                for _ in 0..n {
                    match gate.poll(None) {
                        Some(Gated::Batch(_, b)) => seen.push((seen_epoch, downcast::<Rows<u64>>(b.0).rows[0])),
                        Some(Gated::Barrier(b)) => { assert_eq!(b.epoch, seen_epoch + 1); seen_epoch = b.epoch; }
                        _ => {}
                    }
                }
            };
            for ((c, what), n) in script.iter().zip(polls) {
                if *what == 0 {
                    epoch[*c] += 1;
                    tx[*c].send(barrier(epoch[*c]));
                } else {
                    id += 1;
                    sent[*c].push((epoch[*c], id));
                    tx[*c].send(row(id));
                }
                drain(&mut gate, n, &mut seen);
            }
            drain(&mut gate, 1000, &mut seen);
            let low = *epoch.iter().min().unwrap();
            for c in &sent {
                let expected: Vec<_> = c.iter().filter(|(e, _)| *e <= low).copied().collect();
                let got: Vec<_> = seen.iter().filter(|s| c.contains(s)).copied().collect();
                prop_assert_eq!(got, expected);
            }
        }
    }
}
