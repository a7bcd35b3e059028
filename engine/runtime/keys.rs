//! Watches state that nothing bounds in time: says how many keys it holds, before memory does.
//!
//! Invariant: of one operator it speaks at most once a doubling, also across restarts: what it said last is a metric.

use crate::graph::PhysicalPlan;
use crate::observe::{Metric, Metrics, STATE_KEYS, UNBOUNDED_KEYS};
use crate::record::OperatorId;
use std::time::Duration;

/// Fewer keys are not spoken of.
const FIRST: u64 = 1_000_000;
/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// The operators of a job that keep keys for ever, and what each keeps.
pub(crate) struct KeyWatch {
    unbounded: Vec<(OperatorId, String)>,
    metrics: Metrics,
    next: Duration,
}

/// An operator, its keys over all tasks, and what it keeps of each.
type Grown = (OperatorId, u64, String);

impl KeyWatch {
    pub(crate) fn new(plan: &PhysicalPlan, metrics: Metrics) -> Self {
        let nodes = plan.chains.iter().flat_map(|chain| &chain.nodes);
        let unbounded = nodes.filter(|n| !n.unbounded.is_empty()).map(|n| (n.id.clone(), n.unbounded.join("; ")));
        KeyWatch { unbounded: unbounded.collect(), metrics, next: Duration::ZERO }
    }

    /// Looks, if it is time to.
    pub(crate) fn look(&mut self, now: Duration) {
        if self.unbounded.is_empty() || now < self.next {
            return;
        }
        self.next = now + EVERY;
        for (operator, keys, what) in self.grown() {
            tracing::warn!(%operator, keys, %what, "state that nothing bounds grows: it keeps every key for ever (see explain)");
        }
    }

    fn grown(&self) -> Vec<Grown> {
        let all = self.metrics.snapshot();
        let keys_of = |operator: &OperatorId| -> u64 {
            let of = all.iter().filter(|(key, _)| key.name == STATE_KEYS && key.operator == operator.as_str());
            of.map(|(_, metric)| if let Metric::Gauge(keys) = metric { keys.get().unsigned_abs() } else { 0 }).sum()
        };
        let mut grown = Vec::new();
        for (operator, what) in &self.unbounded {
            let (keys, said) = (keys_of(operator), self.metrics.gauge(UNBOUNDED_KEYS, operator.as_str(), 0));
            if keys >= FIRST.max(2 * said.get().unsigned_abs()) {
                // The doubling that was reached: the next one is twice that, not twice this moment's number.
                said.set((FIRST << (keys / FIRST).ilog2()) as i64);
                grown.push((operator.clone(), keys, what.clone()));
            }
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_once_a_doubling_of_all_tasks_together() {
        let metrics = Metrics::default();
        let unbounded = vec![(OperatorId::new("join-1"), "rows of both sides".to_string())];
        let watch = || KeyWatch { unbounded: unbounded.clone(), metrics: metrics.clone(), next: Duration::ZERO };
        let said = |keys: [i64; 2]| {
            for (task, keys) in keys.into_iter().enumerate() {
                metrics.gauge(STATE_KEYS, "join-1", task as u32).set(keys);
                metrics.gauge(STATE_KEYS, "window-1", task as u32).set(100 * keys);
            }
            // A new attempt, each time.
            watch().grown().into_iter().map(|(operator, keys, _)| (operator.to_string(), keys)).collect::<Vec<_>>()
        };
        assert_eq!(said([400_000, 599_999]), []);
        assert_eq!(said([400_000, 600_000]), [("join-1".to_string(), 1_000_000)]);
        assert_eq!(said([999_999, 1_000_000]), []);
        assert_eq!(said([5_000_000, 1]), [("join-1".to_string(), 5_000_001)]);
        assert_eq!(said([5_000_000, 2_999_999]), []);
        assert_eq!(said([5_000_000, 3_000_000]).len(), 1);
        assert_eq!(metrics.gauge(UNBOUNDED_KEYS, "join-1", 0).get(), 8_000_000);
    }
}
