//! What does a timer cost, to keep and to fire?
//!
//! Ten million keys of which each sets one timer, spread over a hundred seconds of event time; then the watermark goes through
//! them in steps of a second. The function does nothing else, and the memory is what the process gained by them.

use std::sync::atomic::Ordering::Relaxed;
use waterwheel::engine::operators::{ProcessContext, ProcessFunction, ProcessOpen, Timer, process};
use waterwheel::engine::record::{Element, Keys, Rows};
use waterwheel::engine::time::EventTime;
use waterwheel_benches::meter::{Target, figure, millions, rss, spent};
use waterwheel_benches::node::chain;

const TIMERS: u64 = 10_000_000;
const BATCH: u64 = 4096;
const SPAN_MS: i64 = 100_000;
const STEP_MS: i64 = 1000;

/// Says that the time of a key has come.
#[derive(Default)]
struct Remind;

impl ProcessFunction<u64, u64, u64> for Remind {
    fn open(&mut self, _open: &mut ProcessOpen<'_>) {}
    fn on_element(&mut self, context: &mut ProcessContext<'_, u64, u64>, at: u64) {
        context.set_timer("remind", EventTime(at as i64));
    }
    fn on_timer(&mut self, context: &mut ProcessContext<'_, u64, u64>, _timer: &Timer) {
        let key = context.key();
        context.emit(key);
    }
}

fn main() {
    let (mut node, fired) = chain(&[process(Remind::default)]);
    let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let before = rss();
    let (set, ()) = spent(|| {
        for first in (0..TIMERS).step_by(BATCH as usize) {
            let keys: Vec<u64> = (first..(first + BATCH).min(TIMERS)).map(key).collect();
            let due = |key: &u64| 1 + (key >> 7) % SPAN_MS as u64;
            let mut batch = Rows::new(keys.iter().map(due).collect(), vec![EventTime(0); keys.len()]);
            batch.keys = Some(Keys::encode(keys.into_iter()));
            node.push(0, Element::Batch(batch.boxed())).expect("rows go through");
        }
    });
    let each = rss().saturating_sub(before) as f64 / TIMERS as f64;
    let (fire, ()) = spent(|| {
        for now in (STEP_MS..=SPAN_MS).step_by(STEP_MS as usize) {
            node.push(0, Element::Watermark(EventTime(now))).expect("timers fire");
        }
    });
    assert_eq!(fired.load(Relaxed), TIMERS, "every timer fires once");
    figure("timers: memory of one, its name and a key of 8 bytes included", each, "B", Target::Below(64.0));
    figure("timers: set", millions(TIMERS, set.cpu), "M per CPU-second", Target::None);
    figure("timers: fired", millions(TIMERS, fire.cpu), "M per CPU-second", Target::AtLeast(2.0));
}
