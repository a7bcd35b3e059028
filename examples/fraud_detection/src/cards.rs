//! Where the rules meet the engine: state per card, timers, accumulators.
//!
//! Invariant: nothing is decided here that [`crate::rules`] could decide; this file only remembers.

use crate::limits::{Limits, Setting};
use crate::model::{Alert, Rule, Spending};
use crate::rules::{Activity, CardHistory, Episode};
use chrono::TimeDelta;
use std::time::Duration;
use waterwheel::engine::operators::{Port, ProcessContext, ProcessFunction, ProcessOpen, SideOutput, Timer, ValueState};
use waterwheel::engine::windowing::{Accumulate, Aggregate};
use waterwheel::prelude::*;

/// From one velocity window to the next.
pub const STEP: Duration = secs(10);
/// Port of [`CardRules`] where alerts leave; what an account spends leaves by the main one.
pub const FOUND: Port = 1;

/// An alert; of a window with its end, because successive windows show the same fraud again.
pub type Found = (Option<DateTime<Utc>>, Alert);

/// Event time as a date.
pub fn instant(time: EventTime) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.0).unwrap_or_default()
}

/// The velocity window: what a card did, where it is too much. The others, nearly all windows, cost no copy.
pub fn too_much() -> impl Accumulate<Row = Spending, Out = Activity> {
    Aggregate::new(Activity::default, Activity::add, Activity::merge, Activity::clone).only_if(Activity::outline, Activity::is_too_much)
}

/// Name of the broadcast map of settings, by the name of the rule.
pub const SETTINGS: &str = "settings";

/// The rules that look at single payments of a card, one after the other, by the settings of the moment. What the account
/// spends passes on.
#[derive(Default)]
pub struct CardRules {
    settings: BroadcastState<Str, Setting>,
    history: ValueState<CardHistory>,
    found: Option<SideOutput<Found>>,
}

impl ProcessFunction<Str, Spending, Spent> for CardRules {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.settings = open.broadcast(SETTINGS);
        self.history = open.value("history");
        self.found = Some(open.side_output(FOUND));
    }

    fn on_element(&mut self, context: &mut ProcessContext<'_, Str, Spent>, spending: Spending) {
        let limits = Limits::of(self.settings.entries(context).map(|(_, setting)| setting));
        let (alerts, trial_until) = self.history.update(context, |history| {
            let history = history.get_or_insert_default();
            (history.see(&spending, &limits), history.trial_until(&limits))
        });
        let payment = spending.payment;
        if let Some(until) = trial_until.filter(|_| payment.amount <= limits.small) {
            context.set_timer("trial", until.into());
        }
        for alert in alerts {
            if let Some(found) = &self.found {
                context.emit_to(found, (None, alert));
            }
        }
        context.emit(Spent { account: payment.account, amount: payment.amount });
    }

    fn on_timer(&mut self, context: &mut ProcessContext<'_, Str, Spent>, timer: &Timer) {
        let now = instant(timer.time);
        let limits = Limits::of(self.settings.entries(context).map(|(_, setting)| setting));
        let trial_until = self.history.update(context, |history| {
            let history = history.as_mut()?;
            history.forget_trial(now, &limits);
            history.trial_until(&limits)
        });
        // It is remembered for longer than when the timer was set.
        if let Some(until) = trial_until {
            context.set_timer("trial", until.into());
        }
    }
}

/// Lets one alert of each fraud through. Windows show a fraud again and again while it lasts; other rules show it once.
#[derive(Default)]
pub struct Episodes {
    episode: ValueState<Episode>,
}

impl ProcessFunction<Str, Found, Alert> for Episodes {
    fn open(&mut self, open: &mut ProcessOpen<'_>) {
        self.episode = open.value_with_ttl("episode", hours(1));
    }

    fn on_element(&mut self, context: &mut ProcessContext<'_, Str, Alert>, (window_end, alert): Found) {
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

/// One payment, as far as it counts for the account.
#[derive(Debug, Clone)]
pub struct Spent {
    /// Account.
    pub account: Str,
    /// Minor units.
    pub amount: i64,
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
    pub fn add(&mut self, spent: &Spent) {
        self.payments += 1;
        self.amount += spent.amount;
    }
}

impl Merge for Total {
    fn merge(&mut self, later: &Self) {
        self.payments += later.payments;
        self.amount += later.amount;
    }
}
