//! The thresholds of the rules that look at single payments, and how they change while the job runs.
//!
//! Each rule has its own record in the topic `rules`; the newest of a rule counts, what it leaves out is as it is by default,
//! and a rule without a record is by default altogether.
//!
//! Invariant: what cannot be a threshold is no record of this topic; it goes to the dead letters and changes nothing.

use crate::model::Rule;
use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, Serialize};

/// The longest time within which payments can belong together, in seconds: a day.
const LONGEST_S: u32 = 86_400;

/// What one rule is to hold to: a record of the topic `rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Which rule: [`Rule::Velocity`] has no setting, its limits are those of the customer's tier.
    #[serde(deserialize_with = "with_setting")]
    pub rule: Rule,
    /// The rule finds nothing.
    #[serde(default)]
    pub off: bool,
    /// A payment up to this may be a trial of a stolen card, in minor units: [`Rule::SmallThenLarge`].
    #[serde(default)]
    pub small: Option<u32>,
    /// A payment from this on is large, after a small one, in minor units: [`Rule::SmallThenLarge`].
    #[serde(default)]
    pub large: Option<u32>,
    /// How long a small payment is remembered, or nobody is in two countries, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub within_s: Option<u32>,
}

fn with_setting<'de, D: Deserializer<'de>>(d: D) -> Result<Rule, D::Error> {
    match Rule::deserialize(d)? {
        Rule::Velocity => Err(serde::de::Error::custom("velocity goes by the tier of the customer and has no setting")),
        rule => Ok(rule),
    }
}

fn seconds<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    let seconds = Option::<u32>::deserialize(d)?;
    match seconds {
        Some(s) if s > LONGEST_S => Err(serde::de::Error::custom(format_args!("within_s {s} is more than {LONGEST_S}"))),
        _ => Ok(seconds),
    }
}

impl Setting {
    /// A rule as it is by default.
    pub fn of(rule: Rule) -> Setting {
        Setting { rule, off: false, small: None, large: None, within_s: None }
    }
}

/// All thresholds, as they are when a payment comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A payment up to this may be a trial of a stolen card; nothing if the rule is off.
    pub small: i64,
    /// A payment from this on is large, after a small one.
    pub large: i64,
    /// How long a small payment is remembered.
    pub trial: TimeDelta,
    /// Nobody is in two countries within this; `None` if the rule is off.
    pub travel: Option<TimeDelta>,
    /// Whether new devices are looked at.
    pub devices: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { small: 200, large: 50_000, trial: TimeDelta::minutes(1), travel: Some(TimeDelta::minutes(10)), devices: true }
    }
}

impl Limits {
    /// The defaults, changed by settings.
    pub fn of<'a>(settings: impl Iterator<Item = &'a Setting>) -> Limits {
        let mut limits = Limits::default();
        for setting in settings {
            let within = setting.within_s.map(|s| TimeDelta::seconds(s.into()));
            match setting.rule {
                Rule::SmallThenLarge => {
                    limits.small = if setting.off { 0 } else { setting.small.map_or(limits.small, i64::from) };
                    limits.large = setting.large.map_or(limits.large, i64::from);
                    limits.trial = within.unwrap_or(limits.trial);
                }
                Rule::TwoCountries => limits.travel = within.or(limits.travel).filter(|_| !setting.off),
                Rule::NewDevice => limits.devices = !setting.off,
                Rule::Velocity => {}
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_setting_leaves_out_is_as_by_default() {
        let read = |text: &str| serde_json::from_str::<Setting>(text).unwrap();
        assert_eq!(Limits::of([].iter()), Limits::default());
        let settings = [
            read(r#"{"rule":"small-then-large","small":500,"within_s":120}"#),
            read(r#"{"rule":"two-countries","off":true}"#),
            read(r#"{"rule":"new-device"}"#),
        ];
        let limits = Limits { small: 500, trial: TimeDelta::minutes(2), travel: None, ..Limits::default() };
        assert_eq!(Limits::of(settings.iter()), limits);
    }

    #[test]
    fn what_is_no_setting_is_refused_with_the_reason() {
        for (text, reason) in [
            (r#"{"rule":"velocity","off":true}"#, "tier"),
            (r#"{"rule":"two-countries","within_s":100000}"#, "86400"),
            (r#"{"rule":"small-then-large","small":-1}"#, "invalid value"),
            (r#"{"rule":"gut-feeling"}"#, "unknown variant"),
        ] {
            let error = serde_json::from_str::<Setting>(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
