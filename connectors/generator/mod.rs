//! Rows made up on the spot: row `n` of split `s` is a function of `(s, n)` and nothing else.
//!
//! Invariant: the position of a split is the index of its next row, so a restored job makes the very same rows again. The
//! clock decides only when a row comes, never which.

mod random;

pub use random::Random;

use std::sync::Arc;
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Poll, ReaderContext, Source, SourceReader, Split, SplitId, SplitState};
use waterwheel_engine::record::{Data, Rows};
use waterwheel_engine::time::EventTime;

type MakeRow<T> = Arc<dyn Fn(u32, u64) -> Option<T> + Send + Sync>;
type TimeOf<T> = Arc<dyn Fn(&T) -> EventTime + Send + Sync>;

/// A typed source of generated rows (`Rows<T>`).
///
/// ```
/// use waterwheel_connectors::generator::{Generator, Random};
/// use waterwheel_engine::operators::Source;
/// let source = Generator::new("numbers", 2, |split, n| Some(Random::of(42, split, n).below(100))).count(1_000).rate(500);
/// assert!(source.is_bounded());
/// assert_eq!(source.splits(true).unwrap().len(), 2);
/// ```
pub struct Generator<T> {
    name: Arc<str>,
    splits: u32,
    row: MakeRow<T>,
    time: TimeOf<T>,
    count: Option<u64>,
    rate: Option<u64>,
    bounded: bool,
}

impl<T> Clone for Generator<T> {
    fn clone(&self) -> Self {
        Generator { name: self.name.clone(), row: self.row.clone(), time: self.time.clone(), ..*self }
    }
}

impl<T: Data> Generator<T> {
    /// `row(split, n)` makes row `n` of a split, counted from 0; `None` ends the split.
    pub fn new(name: &str, splits: u32, row: impl Fn(u32, u64) -> Option<T> + Send + Sync + 'static) -> Self {
        let time = Arc::new(|_: &T| EventTime(-1));
        Generator { name: name.into(), splits, row: Arc::new(row), time, count: None, rate: None, bounded: false }
    }

    /// Ends each split after so many rows.
    #[must_use]
    pub fn count(mut self, rows: u64) -> Self {
        self.count = Some(rows);
        self.bounded = true;
        self
    }

    /// Says that `row` ends every split by itself.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.bounded = true;
        self
    }

    /// At most so many rows per second, over all splits; without it as fast as possible.
    #[must_use]
    pub fn rate(mut self, rows_per_second: u64) -> Self {
        self.rate = Some(rows_per_second);
        self
    }

    /// Event time of a row; without it rows have none (-1) until the job assigns it.
    #[must_use]
    pub fn time(mut self, time: impl Fn(&T) -> EventTime + Send + Sync + 'static) -> Self {
        self.time = Arc::new(time);
        self
    }
}

impl<T: Data> Source for Generator<T> {
    fn describe(&self) -> String {
        let rate = self.rate.map_or("as fast as possible".into(), |r| format!("{r}/s"));
        format!("generator {}, {rate}", self.name)
    }

    fn is_bounded(&self) -> bool {
        self.bounded
    }

    fn splits(&self, _first: bool) -> Result<Vec<Split>> {
        if self.splits == 0 || self.rate == Some(0) {
            return Err(Error::fatal(format!("generator {} needs at least one split and a rate above 0", self.name)));
        }
        let end = self.count.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let split = |partition| SplitId { name: self.name.clone(), partition };
        Ok((0..self.splits as i32).map(|p| Split { id: split(p), start: 0, end, bootstrap_end: None, topic_id: None }).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        let opened = context.open.env.clock.monotonic();
        Ok(Box::new(Reader { generator: self.clone(), context, opened, tracks: Vec::new(), turn: 0 }))
    }
}

struct Reader<T> {
    generator: Generator<T>,
    context: ReaderContext,
    opened: Duration,
    tracks: Vec<Track>,
    turn: usize,
}

struct Track {
    id: SplitId,
    next: u64,
    end: u64,
    /// Rows made since the reader was opened, for the rate.
    made: u64,
    held: bool,
    exhausted: bool,
    ended: bool,
}

impl<T: Data> Reader<T> {
    /// How many rows a split may have made by now.
    fn allowance(&self) -> u64 {
        let Some(rate) = self.generator.rate else { return u64::MAX };
        let elapsed = self.context.open.env.clock.monotonic().saturating_sub(self.opened);
        let rows = elapsed.as_nanos() * u128::from(rate) / (u128::from(self.generator.splits) * 1_000_000_000);
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    fn make(&mut self, at: usize, allowance: u64) -> Poll {
        let track = &mut self.tracks[at];
        let room = (allowance - track.made).min(track.end - track.next).min(self.context.batch_rows as u64);
        let mut rows = Rows::with_capacity(room as usize);
        for _ in 0..room {
            let Some(row) = (self.generator.row)(track.id.partition as u32, track.next) else {
                track.exhausted = true;
                break;
            };
            let time = (self.generator.time)(&row);
            rows.push(row, time, None);
            track.next += 1;
            track.made += 1;
        }
        Poll::Batch { split: track.id.clone(), next: track.next as i64, batch: rows.boxed() }
    }
}

impl<T: Data> SourceReader for Reader<T> {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        self.tracks.extend(splits.iter().map(|state| Track {
            id: state.split.id.clone(),
            next: u64::try_from(state.position).unwrap_or(0),
            end: state.split.end.and_then(|e| u64::try_from(e).ok()).unwrap_or(i64::MAX as u64),
            made: 0,
            held: false,
            exhausted: false,
            ended: state.ended,
        }));
        Ok(())
    }

    fn poll(&mut self) -> Result<Poll> {
        if let Some(track) = self.tracks.iter_mut().find(|t| !t.ended && (t.exhausted || t.next >= t.end)) {
            track.ended = true;
            return Ok(Poll::Ended { split: track.id.clone() });
        }
        let (allowance, n) = (self.allowance(), self.tracks.len());
        let may = |t: &Track| !t.held && !t.ended && t.made < allowance;
        let Some(at) = (0..n).map(|i| (self.turn + i) % n).find(|&i| may(&self.tracks[i])) else {
            return Ok(Poll::Empty);
        };
        self.turn = (at + 1) % n;
        Ok(self.make(at, allowance))
    }

    fn hold_back(&mut self, split: &SplitId, hold: bool) {
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == *split) {
            track.held = hold;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{poll_all, reader_context, states};
    use waterwheel_engine::env::{Clock, Env};
    use waterwheel_engine::record::downcast;

    struct Hand(std::sync::Mutex<Duration>);
    impl Clock for Hand {
        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        fn wall_ms(&self) -> i64 {
            0
        }
    }

    #[test]
    fn a_reader_in_the_middle_makes_the_same_rest() {
        let source = Generator::new("g", 2, |s, n| Some((s, n, Random::of(1, s, n).next_u64()))).count(100);
        let all = poll_all(&source, states(&source), &Env::real());
        let mut from_40 = states(&source);
        from_40.iter_mut().for_each(|s| s.position = 40);
        let rest = poll_all(&source, from_40, &Env::real());
        let rows = |batches: Vec<(SplitId, waterwheel_engine::record::BatchBox)>| {
            let mut rows: Vec<(u32, u64, u64)> = batches.into_iter().flat_map(|(_, b)| downcast::<Rows<_>>(b).rows).collect();
            rows.sort();
            rows
        };
        let (all, rest) = (rows(all), rows(rest));
        assert_eq!(all.len(), 200);
        assert_eq!(rest, all.into_iter().filter(|r| r.1 >= 40).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_function_can_end_a_split() {
        let source = Generator::new("g", 1, |_, n| (n < 7).then_some(n)).bounded();
        let made: usize = poll_all(&source, states(&source), &Env::real()).iter().map(|(_, b)| b.len()).sum();
        assert_eq!(made, 7);
    }

    #[test]
    fn the_rate_holds_by_the_clock() {
        let clock = Arc::new(Hand(std::sync::Mutex::new(Duration::from_secs(9))));
        let env = Env { clock: clock.clone(), ..Env::real() };
        let source = Generator::new("g", 2, |_, n| Some(n)).rate(100);
        let mut reader = source.reader(reader_context(&env)).unwrap();
        reader.assign(&states(&source)).unwrap();
        let mut drain = || {
            let mut rows = 0;
            while let Poll::Batch { batch, .. } = reader.poll().unwrap() {
                rows += batch.len();
            }
            rows
        };
        assert_eq!(drain(), 0);
        *clock.0.lock().unwrap() += Duration::from_secs(1);
        assert_eq!(drain(), 100);
        *clock.0.lock().unwrap() += Duration::from_millis(20);
        assert_eq!(drain(), 2);
    }
}
