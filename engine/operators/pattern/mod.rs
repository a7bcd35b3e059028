//! Event patterns: sequences of rows of one key, such as "three small payments, then a large one, within ten minutes".
//!
//! [`Pattern`] describes, `nfa` detects without looking into rows, `operator` feeds it and keeps its state.
//!
//! Invariant: rows of a key come in the order of event time; a pattern with a time keeps nothing longer than that.

mod nfa;
mod operator;
#[cfg(test)]
mod tests;

pub use nfa::{AfterMatch, Contiguity};
pub use operator::{TIMED_OUT_PORT, detect, try_detect};

use crate::error::{Error, Result};
use crate::time::{EventTime, millis};
use nfa::{Nfa, Step, Taken};
use std::sync::Arc;
use std::time::Duration;

/// Partial matches of one key at most, unless the pattern says otherwise.
const PARTIAL_MATCHES: usize = 10_000;

/// Whether a row fits, given what was taken before it.
type Condition<T> = Arc<dyn Fn(&T, &Match<'_, T>) -> Result<bool, String> + Send + Sync>;

/// What a condition says of a row: whether it fits, or why that cannot be told; then the row is rejected and leaves no trace.
pub trait Verdict {
    /// The same as a result.
    ///
    /// # Errors
    /// What is wrong with the row.
    fn verdict(self) -> Result<bool, String>;
}

impl Verdict for bool {
    fn verdict(self) -> Result<bool, String> {
        Ok(self)
    }
}

impl Verdict for Result<bool, String> {
    fn verdict(self) -> Result<bool, String> {
        self
    }
}

/// A pattern over the rows of a key. A step is a condition with a name; what follows a step says how often and how close.
///
/// ```
/// use std::time::Duration;
/// use waterwheel_engine::operators::{AfterMatch, Pattern};
/// let probed = Pattern::begin("small", |amount: &i64, _| *amount < 100)
///     .times_or_more(3)
///     .greedy()
///     .followed_by("large", |amount, so_far| *amount > 100 * so_far.of("small").sum::<i64>())
///     .within(Duration::from_secs(600))
///     .after_match(AfterMatch::PastLast);
/// # let _ = probed;
/// ```
///
/// How close: [`next`](Self::next) allows no row between, [`followed_by`](Self::followed_by) takes the first row that fits,
/// [`followed_by_any`](Self::followed_by_any) each of them. How often: [`one_or_more`](Self::one_or_more),
/// [`times`](Self::times), [`times_or_more`](Self::times_or_more), [`times_between`](Self::times_between),
/// [`optional`](Self::optional); between rows of one step others may lie, unless they are [`consecutive`](Self::consecutive).
/// A step that is not [`greedy`](Self::greedy) gives a match for each number of rows that it may take.
pub struct Pattern<T> {
    steps: Vec<Step>,
    conditions: Vec<Condition<T>>,
    /// For the link to the step that comes next.
    not_next: Vec<usize>,
    not_between: Vec<usize>,
    within: Option<Duration>,
    after_match: AfterMatch,
    earliest_start_first: bool,
    limit: usize,
    /// Says what it detects where its type does not.
    meaning: String,
    problem: Option<String>,
}

impl<T> Clone for Pattern<T> {
    fn clone(&self) -> Self {
        Pattern {
            steps: self.steps.clone(),
            conditions: self.conditions.clone(),
            not_next: self.not_next.clone(),
            not_between: self.not_between.clone(),
            after_match: self.after_match.clone(),
            meaning: self.meaning.clone(),
            problem: self.problem.clone(),
            ..*self
        }
    }
}

impl<T> Pattern<T> {
    /// The first step: one row for which `fits` is true.
    pub fn begin<V: Verdict>(name: &str, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> Self {
        let pattern = Pattern {
            steps: Vec::new(),
            conditions: Vec::new(),
            not_next: Vec::new(),
            not_between: Vec::new(),
            within: None,
            after_match: AfterMatch::NoSkip,
            earliest_start_first: false,
            limit: PARTIAL_MATCHES,
            meaning: String::new(),
            problem: None,
        };
        pattern.step(name, Contiguity::Any, fits)
    }

    fn condition<V: Verdict>(&mut self, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> usize {
        self.conditions.push(Arc::new(move |row, so_far| fits(row, so_far).verdict()));
        self.conditions.len() - 1
    }

    fn step<V: Verdict>(mut self, name: &str, link: Contiguity, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> Self {
        if self.steps.iter().any(|step| step.name == name) {
            self.problem = Some(format!("two steps of a pattern are named {name:?}"));
        }
        let (not_next, not_between) = (std::mem::take(&mut self.not_next), std::mem::take(&mut self.not_between));
        let (name, fits, inner) = (name.to_string(), self.condition(fits), Contiguity::Relaxed);
        self.steps.push(Step { name, fits, optional: false, min: 1, max: Some(1), greedy: false, inner, link, not_next, not_between });
        self
    }

    fn last(mut self, change: impl FnOnce(&mut Step)) -> Self {
        if let Some(step) = self.steps.last_mut() {
            change(step);
        }
        self
    }

    /// Then the very next row.
    #[must_use]
    pub fn next<V: Verdict>(self, name: &str, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> Self {
        self.step(name, Contiguity::Strict, fits)
    }

    /// Then the first row that fits; rows that do not are passed by.
    #[must_use]
    pub fn followed_by<V: Verdict>(self, name: &str, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> Self {
        self.step(name, Contiguity::Relaxed, fits)
    }

    /// Then any row that fits: each gives a match of its own.
    #[must_use]
    pub fn followed_by_any<V: Verdict>(self, name: &str, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> Self {
        self.step(name, Contiguity::Any, fits)
    }

    /// The very next row must not fit this.
    #[must_use]
    pub fn not_next<V: Verdict>(mut self, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> Self {
        let condition = self.condition(fits);
        self.not_next.push(condition);
        self
    }

    /// No row between the step before and the one behind may fit this. At the end of a pattern with a time: no row until the
    /// time is over; the match comes out then.
    #[must_use]
    pub fn not_followed_by<V: Verdict>(mut self, fits: impl Fn(&T, &Match<'_, T>) -> V + Send + Sync + 'static) -> Self {
        let condition = self.condition(fits);
        self.not_between.push(condition);
        self
    }

    /// The step takes one row or more.
    #[must_use]
    pub fn one_or_more(self) -> Self {
        self.times_or_more(1)
    }

    /// The step takes exactly so many rows.
    #[must_use]
    pub fn times(self, rows: u32) -> Self {
        self.times_between(rows, rows)
    }

    /// The step takes at least so many rows.
    #[must_use]
    pub fn times_or_more(self, rows: u32) -> Self {
        self.last(|step| (step.min, step.max) = (rows.max(1), None))
    }

    /// The step takes `least` to `most` rows.
    #[must_use]
    pub fn times_between(mut self, least: u32, most: u32) -> Self {
        if least == 0 || most < least {
            self.problem = Some(format!("a step of a pattern cannot take {least} to {most} rows; for none see optional()"));
        }
        self.last(|step| (step.min, step.max) = (least.max(1), Some(most.max(1))))
    }

    /// The step may be left out.
    #[must_use]
    pub fn optional(self) -> Self {
        self.last(|step| step.optional = true)
    }

    /// The step takes every row that it can: a row that it takes is not offered to the steps behind it, and it is not left
    /// while rows fit.
    #[must_use]
    pub fn greedy(self) -> Self {
        self.last(|step| step.greedy = true)
    }

    /// No row lies between the rows of the step.
    #[must_use]
    pub fn consecutive(self) -> Self {
        self.last(|step| step.inner = Contiguity::Strict)
    }

    /// The step may pass by rows that fit: each choice is a match of its own.
    #[must_use]
    pub fn allow_combinations(self) -> Self {
        self.last(|step| step.inner = Contiguity::Any)
    }

    /// From the first row to the last passes less time than this.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Where detection goes on after a match.
    #[must_use]
    pub fn after_match(mut self, skip: AfterMatch) -> Self {
        self.after_match = skip;
        self
    }

    /// Of two matches the one that starts earlier is the earlier one, as in MATCH_RECOGNIZE: a match that is complete waits while
    /// one that started before it may still come, and of one first row there is one match, the first that is complete. A match
    /// goes on behind its first row at least, wherever it skips to.
    #[must_use]
    pub fn earliest_start_first(mut self) -> Self {
        self.earliest_start_first = true;
        self
    }

    /// Says what is detected, where the type of the rows does not: state of another meaning is refused.
    #[must_use]
    pub fn meaning(mut self, text: String) -> Self {
        self.meaning = text;
        self
    }

    /// Partial matches of one key at most; a row that would make more of them is a bad record. 10,000 unless set.
    #[must_use]
    pub fn limit(mut self, partial_matches: usize) -> Self {
        self.limit = partial_matches;
        self
    }

    /// Whether it has a time, which bounds its state.
    pub fn is_bounded(&self) -> bool {
        self.within.is_some()
    }

    /// In a few words, for `explain`.
    pub fn describe(&self) -> String {
        let names: Vec<_> = self.steps.iter().map(|step| step.name.as_str()).collect();
        let within = self.within.map_or(String::new(), |d| format!(" within {}", crate::observe::human_duration(d)));
        format!("{}{within}", names.join(", "))
    }

    fn nfa(&self) -> Result<Nfa> {
        let wrong = |what: String, help: &str| Err(Error::fatal(what).help(help));
        if let Some(problem) = &self.problem {
            return wrong(problem.clone(), "change the pattern");
        }
        if self.steps.len() > Nfa::MAX_STEPS {
            return wrong(format!("a pattern has {} steps", self.steps.len()), "use 60 at most");
        }
        if self.steps.last().is_some_and(|step| step.greedy) {
            return wrong("the last step of a pattern is greedy, so that it never knows when it is over".into(), "let another step follow");
        }
        if !self.not_next.is_empty() {
            return wrong("a pattern ends with not_next".into(), "let a step follow, or end with not_followed_by and within");
        }
        if !self.not_between.is_empty() && self.within.is_none() {
            return wrong("a pattern ends with not_followed_by, but has no time".into(), "say how long: .within(...)");
        }
        if self.within.is_some_and(|within| millis(within) < 1) {
            return wrong("the time of a pattern is shorter than 1 ms".into(), "give it more");
        }
        if let AfterMatch::ToFirst(name) | AfterMatch::ToLast(name) = &self.after_match
            && !self.steps.iter().any(|step| step.name == *name)
        {
            return wrong(format!("after a match the pattern skips to {name:?}, which is no step of it"), "name one of its steps");
        }
        let (steps, ending, within_ms) = (self.steps.clone(), self.not_between.clone(), self.within.map(millis));
        let (skip, earliest_start_first) = (self.after_match.clone(), self.earliest_start_first);
        Ok(Nfa { steps, ending, within_ms, skip, earliest_start_first, limit: self.limit })
    }

    /// Whether it can be detected.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub fn check(&self) -> Result<()> {
        self.nfa().map(drop)
    }
}

/// A row that some partial match has taken: its number, time and content.
pub(super) type KeptRow<T> = (u64, i64, T);

/// The rows of a match, or those taken so far.
pub struct Match<'a, T> {
    steps: &'a [Step],
    taken: &'a [Taken],
    /// By number.
    rows: &'a [KeptRow<T>],
}

impl<'a, T> Match<'a, T> {
    /// Every row with the name of its step and its time, in order.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = (&'a str, EventTime, &'a T)> + use<'a, T> {
        let (steps, rows) = (self.steps, self.rows);
        self.taken.iter().filter_map(move |(number, step)| {
            let at = rows.binary_search_by_key(number, |row| row.0).ok()?;
            Some((steps[usize::from(*step)].name.as_str(), EventTime(rows[at].1), &rows[at].2))
        })
    }

    /// The rows of a step, in order.
    pub fn of<'m>(&'m self, step: &'m str) -> impl DoubleEndedIterator<Item = &'a T> + 'm {
        self.rows().filter(move |(name, ..)| *name == step).map(|(.., row)| row)
    }

    /// The first row of a step.
    pub fn first(&self, step: &str) -> Option<&'a T> {
        self.of(step).next()
    }

    /// The last row of a step.
    pub fn last(&self, step: &str) -> Option<&'a T> {
        self.of(step).next_back()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// No row yet.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}
