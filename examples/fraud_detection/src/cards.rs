//! Where the rules meet the engine: state per card, timers, accumulators.
//!
//! Invariant: nothing is decided here that [`crate::rules`] could decide; this file only remembers.

use crate::model::{Alert, Payment, Rule};
use crate::rules::{Activity, CardHistory, Episode, Suspicion, TINY};
use chrono::TimeDelta;
use std::time::Duration;
use waterwheel::engine::operators::{Port, ProcessContext, ProcessFunction, ProcessOpen, SideOutput, Timer, ValueState};
use waterwheel::engine::windowing::{Accumulate, Aggregate};
use waterwheel::prelude::*;

/// From one velocity window to the next.
pub const STEP: Duration = secs(10);
/// Port of [`CardRules`] where suspicions leave; payments leave by the main one.
pub const SUSPICIONS: Port = 1;

/// Event time as a date.
pub fn instant(time: EventTime) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.0).unwrap_or_default()
}

/// The velocity window: what a card did, where it may be too much. The other windows, nearly all, cost no copy.
pub fn unusual_activity() -> impl Accumulate<Row = Payment, Out = Option<Activity>> {
    let unusual = |activity: &Activity| activity.is_unusual().then(|| activity.clone());
    Aggregate::new(Activity::default, Activity::add, Activity::merge, unusual)
}

/// The rules that look at single payments of a card, one after the other. Payments pass through.
#[derive(Default)]
pub struct CardRules {
    history: ValueState<CardHistory>,
    suspicions: Option<SideOutput<Suspicion>>,
}

impl ProcessFunction<String, Payment, Payment> for CardRules {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.history = open.value("history");
        self.suspicions = Some(open.side_output(SUSPICIONS));
    }

    fn on_element(&mut self, context: &mut ProcessContext<'_, String, Payment>, payment: Payment) {
        let (found, trial_until) = self.history.update(context, |history| {
            let history = history.get_or_insert_default();
            (history.see(&payment), history.trial_until())
        });
        if let Some(until) = trial_until.filter(|_| payment.amount <= TINY) {
            context.set_timer("trial", until.into());
        }
        for suspicion in found {
            if let Some(suspicions) = &self.suspicions {
                context.emit_to(suspicions, suspicion);
            }
        }
        context.emit(payment);
    }

    fn on_timer(&mut self, context: &mut ProcessContext<'_, String, Payment>, timer: &Timer) {
        let now = instant(timer.time);
        self.history.update(context, |history| {
            if let Some(history) = history {
                history.forget_trial(now);
            }
        });
    }
}

/// Lets one alert of each fraud through. Windows show a fraud again and again while it lasts; other rules show it once.
#[derive(Default)]
pub struct Episodes {
    episode: ValueState<Episode>,
}

impl ProcessFunction<String, (Option<DateTime<Utc>>, Alert), Alert> for Episodes {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.episode = open.value_with_ttl("episode", hours(1));
    }

    fn on_element(&mut self, context: &mut ProcessContext<'_, String, Alert>, (window_end, alert): (Option<DateTime<Utc>>, Alert)) {
        let step = TimeDelta::from_std(STEP).unwrap_or_default();
        let begins = match window_end {
            Some(end) if alert.rule == Rule::Velocity => self.episode.update(context, |e| e.get_or_insert_default().begins(end, step)),
            _ => true,
        };
        if begins {
            context.emit(alert);
        }
    }
}

/// Payments and money of an account within a minute.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Total {
    /// Number of payments.
    pub payments: u64,
    /// Minor units.
    pub amount: i64,
}

impl Total {
    /// One more payment.
    pub fn add(&mut self, payment: &Payment) {
        self.payments += 1;
        self.amount += payment.amount;
    }
}

impl Merge for Total {
    fn merge(&mut self, later: &Self) {
        self.payments += later.payments;
        self.amount += later.amount;
    }
}
