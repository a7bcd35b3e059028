//! What was planted, and whether the job found exactly that.
//!
//! Invariant: a verdict is made from committed records alone, read the way any consumer reads them.

use crate::model::{AccountActivity, Alert, Rule, thousands};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use waterwheel::engine::env::Env;
use waterwheel::topics::{End, Reading, SourceOptions, Topics};
use waterwheel::{Error, Result};

/// Where payments are read from.
pub const PAYMENTS: &str = "payments";
/// Where customers are read from.
pub const CUSTOMERS: &str = "customers";
/// Where settings of rules are read from.
pub const RULES: &str = "rules";
/// Where records go that are no settings.
pub const BAD_RULES: &str = "rules.dead-letter";
/// Where alerts go.
pub const ALERTS: &str = "alerts";
/// Where the totals per account and minute go.
pub const ACTIVITY: &str = "account_activity";
/// Where records go that are no payments.
pub const DEAD_LETTERS: &str = "payments.dead-letter";
/// Where payments go that came too late.
pub const LATE: &str = "payments.late";
/// Where the truth is kept.
pub const TRUTH: &str = "payments.truth";

/// One thing that was planted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "planted", rename_all = "kebab-case")]
pub enum Planted {
    /// A fraud, on a card of its own.
    Fraud {
        /// Which rule it breaks.
        rule: Rule,
        /// Card.
        card: String,
        /// Ids of all payments of this card.
        payments: Vec<String>,
    },
    /// A payment that comes again.
    Duplicate {
        /// Its id.
        id: String,
        /// Minor units.
        amount: i64,
    },
    /// A payment that comes too late.
    Late {
        /// Its id.
        id: String,
        /// Minor units.
        amount: i64,
    },
    /// A record that is no payment.
    Broken {
        /// [`fingerprint`] of its key and value.
        fingerprint: u64,
    },
    /// What is left: payments that count.
    Total {
        /// How many.
        payments: u64,
        /// Minor units.
        amount: i64,
    },
}

impl Planted {
    /// Minor units that do not count.
    pub fn dropped_amount(&self) -> i64 {
        match self {
            Planted::Duplicate { amount, .. } | Planted::Late { amount, .. } => *amount,
            _ => 0,
        }
    }
}

/// A 64-bit FNV-1a of a record's key and value; no key differs from an empty one.
pub fn fingerprint(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let parts = [key, value].into_iter().flat_map(|part| {
        let known = [u8::from(part.is_some())];
        known.into_iter().chain(part.unwrap_or_default().iter().copied()).chain([0])
    });
    parts.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// One rule's line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleVerdict {
    /// Which rule.
    pub rule: Rule,
    /// Frauds planted.
    pub planted: usize,
    /// Of them found, with payments that prove it.
    pub found: usize,
    /// Alerts that no planted fraud accounts for, and second alerts for the same one.
    pub false_alerts: usize,
}

/// Something counted that should be another number, or is that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// What was planted.
    pub planted: u64,
    /// Of that, what is in the committed output.
    pub found: u64,
    /// What is there and was not planted.
    pub foreign: u64,
}

impl Count {
    fn compare<T: Ord>(planted: BTreeMap<T, u64>, mut found: BTreeMap<T, u64>) -> Count {
        let mut count = Count { planted: planted.values().sum(), ..Count::default() };
        for (what, n) in planted {
            let there = found.remove(&what).unwrap_or(0);
            count.found += n.min(there);
            count.foreign += there.saturating_sub(n);
        }
        count.foreign += found.values().sum::<u64>();
        count
    }

    fn is_exact(self) -> bool {
        self.planted == self.found && self.foreign == 0
    }
}

/// How the committed output compares with the truth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// In the order of [`Rule::ALL`].
    pub rules: Vec<RuleVerdict>,
    /// Broken records among the dead letters.
    pub dead_letters: Count,
    /// Late payments in the topic of late payments.
    pub late: Count,
    /// Duplicates planted.
    pub duplicates: u64,
    /// Payments in the totals per account and minute.
    pub payments: Count,
    /// Money in them, in minor units.
    pub amount: Count,
}

impl Verdict {
    /// Compares alerts only.
    pub fn of_alerts(truth: &[Planted], alerts: &[Alert]) -> Verdict {
        let mut planted: BTreeMap<(Rule, &str), (&[String], bool)> = BTreeMap::new();
        for t in truth {
            if let Planted::Fraud { rule, card, payments } = t {
                planted.insert((*rule, card), (payments, false));
            }
        }
        let mut rules: Vec<RuleVerdict> =
            Rule::ALL.into_iter().map(|rule| RuleVerdict { rule, planted: 0, found: 0, false_alerts: 0 }).collect();
        planted.keys().for_each(|(rule, _)| rules[*rule as usize].planted += 1);
        for alert in alerts {
            let line = &mut rules[alert.rule as usize];
            match planted.get_mut(&(alert.rule, alert.card.as_str())) {
                Some((payments, found)) if !*found && proves(alert, payments) => {
                    *found = true;
                    line.found += 1;
                }
                _ => line.false_alerts += 1,
            }
        }
        Verdict { rules, ..Verdict::default() }
    }

    /// Whether everything is as planted.
    pub fn is_exact(&self) -> bool {
        let rules = self.rules.iter().all(|r| r.found == r.planted && r.false_alerts == 0);
        rules && [self.dead_letters, self.late, self.payments, self.amount].into_iter().all(Count::is_exact)
    }

    /// Duplicates that were not counted as payments of their own; nothing can be said before every payment is counted.
    fn duplicates_dropped(&self) -> u64 {
        if self.payments.found < self.payments.planted { 0 } else { self.duplicates.saturating_sub(self.payments.foreign) }
    }
}

/// Whether an alert names payments of the planted fraud, in order, each once.
fn proves(alert: &Alert, planted: &[String]) -> bool {
    let named: BTreeSet<&str> = alert.payments.iter().map(|p| p.id.as_str()).collect();
    let ordered = alert.payments.is_sorted_by_key(|p| (p.at, &p.id));
    ordered && !named.is_empty() && named.len() == alert.payments.len() && named.iter().all(|id| planted.iter().any(|p| p == id))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:20}{:>8}{:>7}{:>8}{:>7}", "", "planted", "found", "missed", "false")?;
        for RuleVerdict { rule, planted, found, false_alerts } in &self.rules {
            writeln!(f, " {rule:19}{planted:>8}{found:>7}{:>8}{false_alerts:>7}", planted - found)?;
        }
        let of = |count: Count| {
            let more = if count.foreign > 0 { format!(" (and {} that were not planted)", thousands(count.foreign)) } else { String::new() };
            format!("{} of {}{more}", thousands(count.found), thousands(count.planted))
        };
        writeln!(f)?;
        writeln!(f, " dead-lettered       {} broken records", of(self.dead_letters))?;
        writeln!(f, " late                {} payments", of(self.late))?;
        writeln!(f, " duplicates dropped  {} of {}", thousands(self.duplicates_dropped()), thousands(self.duplicates))?;
        write!(f, " counted             {} payments", of(self.payments))
    }
}

/// Reads a topic up to its present end, record by record: key, value.
///
/// # Errors
/// Those of the topic, and of `each`.
pub fn read(topics: &dyn Topics, topic: &str, mut each: impl FnMut(Option<&[u8]>, Option<&[u8]>) -> Result<()>) -> Result<()> {
    let source = topics.source(SourceOptions::new(topic).end(End::Latest))?;
    Reading::open(&*source, &Env::real())?.drain(|batch| batch.records().try_for_each(|r| each(r.key, r.value)))
}

fn parsed<T: for<'de> Deserialize<'de>>(topic: &str, value: Option<&[u8]>) -> Result<T> {
    serde_json::from_slice(value.unwrap_or_default()).map_err(|e| {
        Error::fatal(format!("a record of {topic} is not what this example writes there"))
            .because(e)
            .help("generate anew into another place")
    })
}

/// Compares what is committed with what was planted.
///
/// # Errors
/// A topic that is missing or cannot be read.
pub fn verify(topics: &dyn Topics) -> Result<Verdict> {
    let mut truth: Vec<Planted> = Vec::new();
    read(topics, TRUTH, |_, value| {
        truth.push(parsed(TRUTH, value)?);
        Ok(())
    })?;
    let mut alerts: Vec<Alert> = Vec::new();
    read(topics, ALERTS, |_, value| {
        alerts.push(parsed(ALERTS, value)?);
        Ok(())
    })?;
    let mut verdict = Verdict::of_alerts(&truth, &alerts);
    verdict.duplicates = truth.iter().filter(|t| matches!(t, Planted::Duplicate { .. })).count() as u64;
    verdict.dead_letters = dead_letters(topics, &truth)?;
    verdict.late = late(topics, &truth)?;
    (verdict.payments, verdict.amount) = totals(topics, &truth)?;
    Ok(verdict)
}

fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    all.for_each(|what| *counts.entry(what).or_insert(0) += 1);
    counts
}

fn dead_letters(topics: &dyn Topics, truth: &[Planted]) -> Result<Count> {
    let planted = truth.iter().filter_map(|t| if let Planted::Broken { fingerprint } = t { Some(*fingerprint) } else { None });
    let mut found = Vec::new();
    read(topics, DEAD_LETTERS, |key, value| {
        found.push(fingerprint(key, value));
        Ok(())
    })?;
    Ok(Count::compare(counted(planted), counted(found.into_iter())))
}

fn late(topics: &dyn Topics, truth: &[Planted]) -> Result<Count> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let planted = truth.iter().filter_map(|t| if let Planted::Late { id, .. } = t { Some(id.clone()) } else { None });
    let mut found = Vec::new();
    read(topics, LATE, |_, value| {
        found.push(parsed::<Id>(LATE, value)?.id);
        Ok(())
    })?;
    Ok(Count::compare(counted(planted), counted(found.into_iter())))
}

/// Payments and money in the newest record of every account and minute.
fn totals(topics: &dyn Topics, truth: &[Planted]) -> Result<(Count, Count)> {
    let mut newest: BTreeMap<Vec<u8>, (u64, i64)> = BTreeMap::new();
    read(topics, ACTIVITY, |key, value| {
        let activity: AccountActivity = parsed(ACTIVITY, value)?;
        newest.insert(key.unwrap_or_default().to_vec(), (activity.payments, activity.amount));
        Ok(())
    })?;
    let (found, sum) = newest.values().fold((0, 0), |(n, sum), (payments, amount)| (n + payments, sum + amount));
    let (planted, amount) = truth
        .iter()
        .find_map(|t| if let Planted::Total { payments, amount } = t { Some((*payments, *amount)) } else { None })
        .unwrap_or_default();
    let count = |planted: u64, found: u64| Count { planted, found: found.min(planted), foreign: found.saturating_sub(planted) };
    Ok((count(planted, found), count(amount.unsigned_abs(), sum.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Evidence;
    use chrono::DateTime;

    fn alert(rule: Rule, card: &str, ids: &[&str]) -> Alert {
        let evidence = |(i, id): (usize, &&str)| Evidence {
            id: (*id).into(),
            amount: 1,
            country: "DE".into(),
            device: "d".into(),
            at: DateTime::from_timestamp(i as i64, 0).unwrap(),
        };
        let payments = ids.iter().enumerate().map(evidence).collect();
        Alert { rule, card: card.into(), account: "a".into(), at: DateTime::default(), reason: String::new(), payments }
    }

    #[test]
    fn only_what_is_planted_and_proven_counts_and_only_once() {
        let fraud = Planted::Fraud { rule: Rule::TwoCountries, card: "c".into(), payments: vec!["1".into(), "2".into()] };
        let good = alert(Rule::TwoCountries, "c", &["1", "2"]);
        let line = |alerts: &[Alert]| {
            let verdict = Verdict::of_alerts(std::slice::from_ref(&fraud), alerts);
            (verdict.rules[2].found, verdict.rules.iter().map(|r| r.false_alerts).sum::<usize>())
        };
        assert_eq!(line(&[]), (0, 0));
        assert_eq!(line(std::slice::from_ref(&good)), (1, 0));
        assert_eq!(line(&[good.clone(), good]), (1, 1), "doubled");
        assert_eq!(line(&[alert(Rule::Velocity, "c", &["1", "2"])]), (0, 1), "another rule");
        assert_eq!(line(&[alert(Rule::TwoCountries, "c", &["2", "3"])]), (0, 1), "a payment that has nothing to do with it");
        assert_eq!(line(&[alert(Rule::TwoCountries, "c", &[])]), (0, 1), "no proof");
    }

    #[test]
    fn counts_see_what_is_lost_doubled_and_foreign() {
        let of = |what: &[&str]| counted(what.iter().map(|s| s.to_string()));
        assert!(Count::compare(of(&["a", "b"]), of(&["b", "a"])).is_exact());
        for wrong in [&["a"][..], &["a", "b", "b"], &["a", "b", "c"], &["a", "c"]] {
            assert!(!Count::compare(of(&["a", "b"]), of(wrong)).is_exact(), "{wrong:?}");
        }
    }

    #[test]
    fn fingerprints_tell_nothing_from_empty() {
        let all =
            [(None, None), (Some(&b""[..]), None), (None, Some(&b""[..])), (Some(&b"a"[..]), Some(&b"b"[..])), (Some(b"ab"), Some(b""))];
        let distinct: BTreeSet<u64> = all.iter().map(|(k, v)| fingerprint(*k, *v)).collect();
        assert_eq!(distinct.len(), all.len());
    }
}
