//! The core of pattern detection: partial matches of one key, moved on row by row. Blind to what is in a row.
//!
//! A partial match has taken some rows, the last of them for some step. From there it has *options*: to take a further row for
//! the same step, or the first row for a later one. A row is offered to every open option. What it takes makes a new partial
//! match; the old one stays as long as an option of it is open:
//! * strict: an option is over after the next row,
//! * relaxed: it is over with the first row that fits,
//! * any: it stays.
//!
//! And it is over when a row fits a `not` between the two, or when a greedy step before it took the row.
//!
//! Invariant: the matches that come out are those of the definition above, each once; those that end at one row come by
//! (start, rows taken, earlier rows first), and a match that an earlier one skips never comes out.

use serde::{Deserialize, Serialize};

/// Which rows may lie between two rows of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contiguity {
    /// None.
    Strict,
    /// Those that do not fit: the first row that fits is taken.
    #[default]
    Relaxed,
    /// Any: also rows that fit are passed by, each choice a match of its own.
    Any,
}

/// Where detection goes on after a match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AfterMatch {
    /// Every match comes out.
    #[default]
    NoSkip,
    /// No other match that starts with the same row.
    ToNext,
    /// The next match starts behind the last row of this one.
    PastLast,
    /// The next match starts at the first row of this step, or behind it.
    ToFirst(String),
    /// The next match starts at the last row of this step, or behind it.
    ToLast(String),
}

/// A step: rows that fit one condition.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: String,
    /// Index of its condition.
    pub(super) fits: usize,
    pub(super) optional: bool,
    /// At least 1.
    pub(super) min: u32,
    pub(super) max: Option<u32>,
    pub(super) greedy: bool,
    /// Between rows of the step.
    pub(super) inner: Contiguity,
    /// Between the step before and this one, with the conditions that must not fit: the next row; any row between.
    pub(super) link: Contiguity,
    pub(super) not_next: Vec<usize>,
    pub(super) not_between: Vec<usize>,
}

/// Row and step: in this order matches sort by the rows that they take.
pub(super) type Taken = (u64, u16);

/// A match that is not complete, or may grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Partial {
    pub(super) taken: Vec<Taken>,
    pub(super) start_ms: i64,
    /// Rows of the last step.
    count: u32,
    /// Options by target step; [`Nfa::LOOP`] and [`Nfa::END`] beside.
    open: u64,
}

impl Partial {
    fn start(&self) -> u64 {
        self.taken[0].0
    }
}

/// What a row or the passing of time led to, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Match(Vec<Taken>),
    TimedOut(Vec<Taken>),
}

/// Whether a condition fits the row at hand, given what a partial match has taken.
pub(super) type Fits<'a> = &'a mut dyn FnMut(usize, &[Taken]) -> bool;

#[derive(Debug, Clone)]
pub(super) struct Nfa {
    pub(super) steps: Vec<Step>,
    /// Conditions that no row may fit between the last row and the end of the time.
    pub(super) ending: Vec<usize>,
    pub(super) within_ms: Option<i64>,
    pub(super) skip: AfterMatch,
    /// Partial matches of a key.
    pub(super) limit: usize,
}

impl Nfa {
    /// Steps of a pattern at most.
    pub(super) const MAX_STEPS: usize = 60;
    /// Another row for the same step.
    const LOOP: u64 = 1 << 62;
    /// No further row: the match is complete when its time is over.
    const END: u64 = 1 << 63;

    /// Steps that may come next, behind `step` (`None`: at the start).
    fn targets(&self, step: Option<usize>) -> std::ops::Range<usize> {
        let from = step.map_or(0, |s| s + 1);
        let until = self.steps[from..].iter().position(|s| !s.optional).map_or(self.steps.len(), |n| from + n + 1);
        from..until
    }

    /// Whether a match may end with so many rows of `step`.
    fn completes(&self, step: usize, count: u32) -> bool {
        count >= self.steps[step].min && self.steps[step + 1..].iter().all(|s| s.optional)
    }

    fn is_complete(&self, partial: &Partial) -> bool {
        partial.taken.last().is_some_and(|(_, step)| self.completes(usize::from(*step), partial.count))
    }

    /// A partial match whose last row was just taken.
    fn grown(&self, taken: Vec<Taken>, start_ms: i64, count: u32) -> Partial {
        let step = usize::from(taken[taken.len() - 1].1);
        let mut open = 0;
        if self.steps[step].max.is_none_or(|max| count < max) {
            open |= Self::LOOP;
        }
        if count >= self.steps[step].min {
            open |= self.targets(Some(step)).fold(0, |bits, target| bits | 1 << target);
        }
        if !self.ending.is_empty() && self.completes(step, count) {
            open |= Self::END;
        }
        Partial { taken, start_ms, count, open }
    }

    /// Offers a row to every partial match of its key. `row` grows by one with each row of the key.
    ///
    /// # Errors
    /// More partial matches than the limit; nothing has changed then.
    pub(super) fn advance(&self, partials: &mut Vec<Partial>, row: u64, time_ms: i64, fits: Fits<'_>) -> Result<Vec<Found>, String> {
        let mut next = Vec::with_capacity(partials.len() + 1);
        let mut matches = Vec::new();
        for partial in partials.iter() {
            self.offer(partial, row, fits, &mut next, &mut matches);
        }
        self.begin(row, time_ms, fits, &mut next, &mut matches);
        if next.len() > self.limit {
            return Err(format!(
                "more than {} partial matches of one key: the pattern needs a stricter condition or a shorter time",
                self.limit
            ));
        }
        *partials = next;
        matches.sort();
        Ok(self.select(matches, partials))
    }

    /// Takes out what lasts too long at `now_ms`: matches that only waited for the end of their time, and the others as timed
    /// out.
    pub(super) fn expire(&self, partials: &mut Vec<Partial>, now_ms: i64) -> Vec<Found> {
        let Some(within) = self.within_ms else { return Vec::new() };
        let over = |p: &Partial| p.start_ms.saturating_add(within) <= now_ms;
        if !partials.iter().any(over) {
            return Vec::new();
        }
        let (mut expired, kept): (Vec<Partial>, Vec<Partial>) = std::mem::take(partials).into_iter().partition(over);
        *partials = kept;
        expired.sort_by(|a, b| a.taken.cmp(&b.taken));
        let mut found = Vec::new();
        let mut skips: Vec<(u64, u64)> = Vec::new();
        for partial in expired {
            let start = partial.start();
            if skips.iter().any(|(from, to)| (*from..*to).contains(&start)) {
                continue;
            }
            if partial.open & Self::END != 0 {
                skips.extend(self.skipped(&partial.taken));
                found.push(Found::Match(partial.taken));
            } else if !self.is_complete(&partial) {
                found.push(Found::TimedOut(partial.taken));
            }
        }
        partials.retain(|p| !skips.iter().any(|(from, to)| (*from..*to).contains(&p.start())));
        found
    }

    /// When the first partial match lasts too long.
    pub(super) fn next_expiry_ms(&self, partials: &[Partial]) -> Option<i64> {
        let within = self.within_ms?;
        partials.iter().map(|p| p.start_ms.saturating_add(within)).min()
    }

    /// A row that begins a match.
    fn begin(&self, row: u64, time_ms: i64, fits: Fits<'_>, next: &mut Vec<Partial>, matches: &mut Vec<Vec<Taken>>) {
        for target in self.targets(None) {
            let step = &self.steps[target];
            if fits(step.fits, &[]) {
                self.take(vec![(row, target as u16)], time_ms, 1, next, matches);
                if step.greedy {
                    return;
                }
            }
        }
    }

    fn take(&self, taken: Vec<Taken>, start_ms: i64, count: u32, next: &mut Vec<Partial>, matches: &mut Vec<Vec<Taken>>) {
        let step = usize::from(taken[taken.len() - 1].1);
        if self.ending.is_empty() && self.completes(step, count) {
            matches.push(taken.clone());
        }
        let grown = self.grown(taken, start_ms, count);
        if grown.open != 0 {
            next.push(grown);
        }
    }

    fn offer(&self, partial: &Partial, row: u64, fits: Fits<'_>, next: &mut Vec<Partial>, matches: &mut Vec<Vec<Taken>>) {
        let (last_row, last_step) = partial.taken[partial.taken.len() - 1];
        let (at, is_next) = (usize::from(last_step), row == last_row + 1);
        let (mut open, mut greedy_took) = (0, false);
        let mut grow = |target: usize, count: u32| {
            let mut taken = Vec::with_capacity(partial.taken.len() + 1);
            taken.extend_from_slice(&partial.taken);
            taken.push((row, target as u16));
            self.take(taken, partial.start_ms, count, next, matches);
        };
        if partial.open & Self::LOOP != 0 {
            let step = &self.steps[at];
            let fitted = (step.inner != Contiguity::Strict || is_next) && fits(step.fits, &partial.taken);
            if fitted {
                grow(at, partial.count + 1);
                greedy_took = step.greedy;
            }
            if stays(step.inner, fitted) {
                open |= Self::LOOP;
            }
        }
        for target in self.targets(Some(at)) {
            if partial.open & (1 << target) == 0 || greedy_took {
                continue;
            }
            let step = &self.steps[target];
            let skipped = &self.steps[at + 1..=target];
            if is_next && skipped.iter().flat_map(|s| &s.not_next).any(|not| fits(*not, &partial.taken)) {
                continue;
            }
            let fitted = (step.link != Contiguity::Strict || is_next) && fits(step.fits, &partial.taken);
            if fitted {
                grow(target, 1);
                greedy_took = step.greedy;
            }
            if stays(step.link, fitted) && !skipped.iter().flat_map(|s| &s.not_between).any(|not| fits(*not, &partial.taken)) {
                open |= 1 << target;
            }
        }
        if partial.open & Self::END != 0 && !self.ending.iter().any(|not| fits(*not, &partial.taken)) {
            open |= Self::END;
        }
        if open != 0 {
            next.push(Partial { taken: partial.taken.clone(), open, ..*partial });
        }
    }

    /// Which of the matches that end now come out; takes out of `partials` what they skip.
    fn select(&self, matches: Vec<Vec<Taken>>, partials: &mut Vec<Partial>) -> Vec<Found> {
        let mut skips: Vec<(u64, u64)> = Vec::new();
        let mut found = Vec::with_capacity(matches.len());
        for taken in matches {
            if !skips.iter().any(|(from, to)| (*from..*to).contains(&taken[0].0)) {
                skips.extend(self.skipped(&taken));
                found.push(Found::Match(taken));
            }
        }
        if !skips.is_empty() {
            partials.retain(|p| !skips.iter().any(|(from, to)| (*from..*to).contains(&p.start())));
        }
        found
    }

    fn is_of(&self, taken: &Taken, step: &str) -> bool {
        self.steps[usize::from(taken.1)].name == step
    }

    /// Rows `from..to` with which no other match may start after this one.
    fn skipped(&self, taken: &[Taken]) -> Option<(u64, u64)> {
        let from = taken[0].0;
        let to = match &self.skip {
            AfterMatch::NoSkip => return None,
            AfterMatch::ToNext => from + 1,
            AfterMatch::PastLast => taken[taken.len() - 1].0 + 1,
            AfterMatch::ToFirst(name) => taken.iter().find(|t| self.is_of(t, name))?.0,
            AfterMatch::ToLast(name) => taken.iter().rev().find(|t| self.is_of(t, name))?.0,
        };
        Some((from, to))
    }
}

/// Whether an option is still open after a row.
fn stays(contiguity: Contiguity, fitted: bool) -> bool {
    match contiguity {
        Contiguity::Strict => false,
        Contiguity::Relaxed => !fitted,
        Contiguity::Any => true,
    }
}
