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
//! A match is earlier than another if it is complete earlier, or, where the earliest start is to be first, if it starts earlier:
//! then a match that is complete waits for those that started before it, and of one first row there is one match, the first that
//! is complete.
//!
//! Invariant: the matches that come out are those of the definition above, each once; those that come out at one row come by
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

/// What is known of the matches of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Matching {
    pub(super) partials: Vec<Partial>,
    /// Complete, and waiting for what started before them; by start.
    pub(super) waiting: Vec<Vec<Taken>>,
}

impl Matching {
    pub(super) fn is_empty(&self) -> bool {
        self.partials.is_empty() && self.waiting.is_empty()
    }

    /// The rows that it holds, in no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = u64> {
        let partials = self.partials.iter().map(|p| &p.taken);
        partials.chain(&self.waiting).flatten().map(|(row, _)| *row)
    }
}

/// What a row or the passing of time led to, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Match(Vec<Taken>),
    TimedOut(Vec<Taken>),
}

/// Whether a condition fits the row at hand, given what a partial match has taken; an error is the row's.
pub(super) type Fits<'a> = &'a mut dyn FnMut(usize, &[Taken]) -> Result<bool, String>;

#[derive(Debug, Clone)]
pub(super) struct Nfa {
    pub(super) steps: Vec<Step>,
    /// Conditions that no row may fit between the last row and the end of the time.
    pub(super) ending: Vec<usize>,
    pub(super) within_ms: Option<i64>,
    pub(super) skip: AfterMatch,
    /// A match waits for those that started before it.
    pub(super) earliest_start_first: bool,
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
    /// Of a condition; more partial matches than the limit. Nothing has changed then.
    pub(super) fn advance(&self, matching: &mut Matching, row: u64, time_ms: i64, fits: Fits<'_>) -> Result<Vec<Found>, String> {
        let mut next = Vec::with_capacity(matching.partials.len() + 1);
        let mut matches = Vec::new();
        for partial in &matching.partials {
            self.offer(partial, row, fits, &mut next, &mut matches)?;
        }
        self.begin(row, time_ms, fits, &mut next, &mut matches)?;
        if next.len() > self.limit {
            return Err(format!(
                "more than {} partial matches of one key: the pattern needs a stricter condition or a shorter time",
                self.limit
            ));
        }
        matching.partials = next;
        matches.sort();
        let mut found = Vec::with_capacity(matches.len());
        self.complete(matches, matching, &mut Vec::new(), &mut found);
        Ok(found)
    }

    /// Takes out what lasts too long at `now_ms`: matches that only waited for the end of their time, and the others as timed
    /// out; each with the time at which it did.
    pub(super) fn expire(&self, matching: &mut Matching, now_ms: i64) -> Vec<(i64, Found)> {
        let Some(within) = self.within_ms else { return Vec::new() };
        let end = |p: &Partial| p.start_ms.saturating_add(within);
        if !matching.partials.iter().any(|p| end(p) <= now_ms) {
            return Vec::new();
        }
        let (mut expired, kept): (Vec<Partial>, Vec<Partial>) =
            std::mem::take(&mut matching.partials).into_iter().partition(|p| end(p) <= now_ms);
        matching.partials = kept;
        // The last one is next.
        expired.sort_by(|a, b| b.taken.cmp(&a.taken));
        let mut all = Vec::new();
        while let Some(partial) = expired.pop() {
            let (at, mut found, mut complete) = (end(&partial), Vec::new(), Vec::new());
            if partial.open & Self::END != 0 {
                complete.push(partial.taken);
            } else if !self.is_complete(&partial) {
                found.push(Found::TimedOut(partial.taken));
            }
            self.complete(complete, matching, &mut expired, &mut found);
            all.extend(found.into_iter().map(|found| (at, found)));
        }
        all
    }

    /// No row will come any more: what is complete comes out.
    pub(super) fn end(&self, matching: &mut Matching) -> Vec<Found> {
        let mut found = Vec::new();
        matching.partials.clear();
        self.complete(Vec::new(), matching, &mut Vec::new(), &mut found);
        found
    }

    /// When the first partial match lasts too long.
    pub(super) fn next_expiry_ms(&self, partials: &[Partial]) -> Option<i64> {
        let within = self.within_ms?;
        partials.iter().map(|p| p.start_ms.saturating_add(within)).min()
    }

    /// A row that begins a match.
    fn begin(&self, row: u64, time_ms: i64, fits: Fits<'_>, next: &mut Vec<Partial>, matches: &mut Vec<Vec<Taken>>) -> Result<(), String> {
        for target in self.targets(None) {
            let step = &self.steps[target];
            if fits(step.fits, &[])? {
                self.take(vec![(row, target as u16)], time_ms, 1, next, matches);
                if step.greedy {
                    break;
                }
            }
        }
        Ok(())
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

    fn offer(
        &self,
        partial: &Partial,
        row: u64,
        fits: Fits<'_>,
        next: &mut Vec<Partial>,
        matches: &mut Vec<Vec<Taken>>,
    ) -> Result<(), String> {
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
            let fitted = (step.inner != Contiguity::Strict || is_next) && fits(step.fits, &partial.taken)?;
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
            if is_next && any(skipped.iter().flat_map(|s| &s.not_next), &partial.taken, fits)? {
                continue;
            }
            let fitted = (step.link != Contiguity::Strict || is_next) && fits(step.fits, &partial.taken)?;
            if fitted {
                grow(target, 1);
                greedy_took = step.greedy;
            }
            if stays(step.link, fitted) && !any(skipped.iter().flat_map(|s| &s.not_between), &partial.taken, fits)? {
                open |= 1 << target;
            }
        }
        if partial.open & Self::END != 0 && !any(self.ending.iter(), &partial.taken, fits)? {
            open |= Self::END;
        }
        if open != 0 {
            next.push(Partial { taken: partial.taken.clone(), open, ..*partial });
        }
        Ok(())
    }

    /// Matches that are complete, in order, come out as far as nothing that started before them is left, neither in `matching`
    /// nor in `more`; what they skip goes.
    fn complete(&self, matches: Vec<Vec<Taken>>, matching: &mut Matching, more: &mut Vec<Partial>, found: &mut Vec<Found>) {
        for taken in matches {
            let start = taken[0].0;
            if !self.earliest_start_first {
                matching.waiting.push(taken);
            } else if let Err(place) = matching.waiting.binary_search_by_key(&start, |waiting| waiting[0].0) {
                // Whatever comes of it, no other match of its first row will.
                matching.waiting.insert(place, taken);
                matching.partials.retain(|p| p.start() != start);
                more.retain(|p| p.start() != start);
            }
        }
        while let Some(first) = matching.waiting.first() {
            let start = first[0].0;
            if self.earliest_start_first && matching.partials.iter().chain(&*more).any(|p| p.start() < start) {
                break;
            }
            let taken = matching.waiting.remove(0);
            let skipped = self.skipped(&taken);
            if !skipped.is_empty() {
                matching.waiting.retain(|waiting| !skipped.contains(&waiting[0].0));
                matching.partials.retain(|p| !skipped.contains(&p.start()));
                more.retain(|p| !skipped.contains(&p.start()));
            }
            found.push(Found::Match(taken));
        }
    }

    fn is_of(&self, taken: &Taken, step: &str) -> bool {
        self.steps[usize::from(taken.1)].name == step
    }

    /// Rows with which no other match may start after this one.
    fn skipped(&self, taken: &[Taken]) -> std::ops::Range<u64> {
        let from = taken[0].0;
        let to = match &self.skip {
            AfterMatch::NoSkip => None,
            AfterMatch::ToNext => Some(from + 1),
            AfterMatch::PastLast => Some(taken[taken.len() - 1].0 + 1),
            AfterMatch::ToFirst(name) => taken.iter().find(|t| self.is_of(t, name)).map(|t| t.0),
            AfterMatch::ToLast(name) => taken.iter().rev().find(|t| self.is_of(t, name)).map(|t| t.0),
        };
        from..to.unwrap_or(from).max(from + u64::from(self.earliest_start_first))
    }
}

/// Whether one of some conditions fits.
fn any<'a>(mut conditions: impl Iterator<Item = &'a usize>, taken: &[Taken], fits: Fits<'_>) -> Result<bool, String> {
    conditions.try_fold(false, |found, condition| Ok(found || fits(*condition, taken)?))
}

/// Whether an option is still open after a row.
fn stays(contiguity: Contiguity, fitted: bool) -> bool {
    match contiguity {
        Contiguity::Strict => false,
        Contiguity::Relaxed => !fitted,
        Contiguity::Any => true,
    }
}
