//! The one loop in which user functions run over the rows of a batch.
//!
//! Invariant: a row whose function panics or returns an error is rejected and leaves no result; the rows before and after it
//! are processed. One `catch_unwind` covers the loop, not each row, so that the straight case costs nothing per row.

use super::Output;
use crate::error::Result;
use crate::record::{Data, Origin, Origins, Rows};
use crate::time::EventTime;
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Calls `each(state, i)` for the rows `i` of a range, up to the first that panics or returns an error; says which, and why.
#[inline]
pub(crate) fn run_rows<S>(
    rows: Range<usize>,
    state: &mut S,
    mut each: impl FnMut(&mut S, usize) -> Result<(), String>,
) -> Option<(usize, String)> {
    let mut at = rows.start;
    let run = catch_unwind(AssertUnwindSafe(|| -> Result<(), String> {
        while at < rows.end {
            each(state, at)?;
            at += 1;
        }
        Ok(())
    }));
    match run {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some((at, error)),
        Err(panic) => Some((at, panicked(&*panic))),
    }
}

/// Calls `each(state, i)` for every row `0..n`, and `failed(state, i, error)` for a row whose call panicked or returned an
/// error. `failed` puts `state` back to where it was before row `i`.
///
/// # Errors
/// Of `failed`; the loop ends there.
#[inline]
pub(crate) fn guarded<S>(
    n: usize,
    state: &mut S,
    mut each: impl FnMut(&mut S, usize) -> Result<(), String>,
    mut failed: impl FnMut(&mut S, usize, String) -> Result<()>,
) -> Result<()> {
    let mut next = 0;
    while let Some((i, error)) = run_rows(next..n, state, &mut each) {
        failed(state, i, error)?;
        next = i + 1;
    }
    Ok(())
}

/// What a function refuses whose signature has no place for an error.
struct Refused(String);

/// Ends the call of a function that may panic, at the cost of its row or its result, with an error that is no panic: nothing
/// is printed, and nobody is told of one.
///
/// ```
/// use waterwheel_engine::operators::{guarded_call, refuse};
/// assert_eq!(guarded_call(|| -> u64 { refuse("too large".into()) }), Err("too large".into()));
/// ```
pub fn refuse(why: String) -> ! {
    resume_unwind(Box::new(Refused(why)))
}

/// Calls one user function outside of a row loop (timers, results).
///
/// # Errors
/// The text of its panic, or what it has [refused](refuse).
pub fn guarded_call<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panicked(&*panic))
}

/// The error text of a panic.
pub(super) fn panicked(payload: &(dyn Any + Send)) -> String {
    if let Some(Refused(why)) = payload.downcast_ref() {
        return why.clone();
    }
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("user function panicked: {}", text.unwrap_or("(no message)"))
}

/// What travels beside the rows of a batch into new ones made of them; keys do not.
pub(crate) struct Columns {
    pub(crate) times: Vec<EventTime>,
    pub(crate) origins: Option<Origins>,
}

impl Columns {
    /// Takes a batch apart.
    pub(crate) fn of<T: Data>(batch: Rows<T>) -> (Vec<T>, Columns) {
        let Rows { rows, times, origins, .. } = batch;
        (rows, Columns { times, origins })
    }

    /// A copy of the origin of row `i`.
    pub(crate) fn origin(&self, i: usize) -> Option<Origin> {
        self.origins.as_ref().map(|o| o.0[i].clone())
    }

    /// Rejects row `i`.
    pub(crate) fn reject(&self, i: usize, error: String, out: &mut Output<'_>) -> Result<()> {
        out.reject(self.origin(i), self.times[i], error)
    }

    /// The batch whose row `j` came from row `from[j]`; without keys, because the rows are new ones.
    pub(crate) fn gather<U: Data>(&self, rows: Vec<U>, from: &[u32]) -> Rows<U> {
        debug_assert_eq!(rows.len(), from.len());
        let times = from.iter().map(|&i| self.times[i as usize]).collect();
        Rows { rows, times, keys: None, origins: self.origins.as_ref().map(|o| o.gather(from)) }
    }
}

/// The rows of a batch for which `keep` says so, with everything beside them, moved and not cloned.
pub(crate) fn retain<T: Data>(batch: Rows<T>, keep: &[bool]) -> Rows<T> {
    let kept = keep.iter().filter(|k| **k).count();
    if kept == batch.rows.len() {
        return batch;
    }
    let Rows { mut rows, mut times, keys, origins } = batch;
    retain_vec(&mut rows, keep);
    retain_vec(&mut times, keep);
    let origins = origins.map(|mut o| {
        retain_vec(&mut o.0, keep);
        o
    });
    let keys = keys.map(|k| {
        let rows: Vec<u32> = (0..keep.len() as u32).filter(|&i| keep[i as usize]).collect();
        k.gather(&rows)
    });
    Rows { rows, times, keys, origins }
}

fn retain_vec<T>(column: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    column.retain(|_| keep.next().copied().unwrap_or(false));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Keys;

    #[test]
    fn the_loop_goes_on_behind_every_failing_row() {
        let mut state: (Vec<usize>, Vec<String>) = Default::default();
        let each = |s: &mut (Vec<usize>, Vec<String>), i: usize| match i {
            0 | 3 => panic!("at {i}"),
            4 => Err("refused".to_string()),
            _ => {
                s.0.push(i);
                Ok(())
            }
        };
        guarded(5, &mut state, each, |s, i, e| {
            s.1.push(format!("{i} {e}"));
            Ok(())
        })
        .unwrap();
        assert_eq!(state.0, [1, 2]);
        assert_eq!(state.1, ["0 user function panicked: at 0", "3 user function panicked: at 3", "4 refused"]);
    }

    #[test]
    fn retain_keeps_all_columns_in_step() {
        let mut batch = Rows::new(vec![1u64, 2, 3], vec![EventTime(10), EventTime(20), EventTime(30)]);
        batch.keys = Some(Keys::encode(vec![1u64, 2, 3].into_iter()));
        let kept = retain(batch, &[true, false, true]);
        assert_eq!(kept.rows, [1, 3]);
        assert_eq!(kept.times, [EventTime(10), EventTime(30)]);
        assert_eq!(kept.keys.unwrap().as_u64().unwrap(), [1, 3]);
    }
}
