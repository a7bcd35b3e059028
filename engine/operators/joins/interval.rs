//! Interval join: rows of one key whose event times lie within a span of each other.
//!
//! A right row belongs to a left row if its time lies in `left + from ..= left + to`. Rows take part in the order of event
//! time, when the watermark has reached them: each meets the kept rows of the other side, then is kept as long as later rows
//! may look for it. So the kept rows of a key that a row meets are exactly those in its span (or before their turn), and
//! nothing is searched.
//!
//! A pair leaves with the later of the two times, when the watermark reaches it. A row of an outer side that found no partner
//! leaves when no more can come, with **that** time (its own plus what was left of the span), because its own has passed.
//!
//! Invariant: results leave by time; of one time first what rows of that time found, by (key bytes, left before right,
//! arrival), then the rows that stay alone, left before right, by (key bytes, arrival). A row at or before the watermark is
//! late and leaves by its side's late port, counted. State: rows ahead of the watermark, and behind it as far as the span
//! reaches.

use super::matches::{JoinKind, Matches, in_order};
use super::{LEFT, PairKernel, RIGHT, other, take_in};
use crate::env::{Bug, planted};
use crate::error::{Error, Result};
use crate::observe::{Counter, LATE};
use crate::operators::{OpenContext, Operator, OperatorFactory, Output, Progress};
use crate::record::{Batch, BatchBox};
use crate::state::{AppendTable, Side, Table, Waiting};
use crate::time::EventTime;
use std::sync::Arc;

/// How far the time of a right row may be from that of a left one: `from..=to` milliseconds later; negative is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    from: i64,
    to: i64,
}

impl Bounds {
    /// Both inside.
    ///
    /// # Errors
    /// `from` is after `to`.
    pub fn new(from: i64, to: i64) -> Result<Self> {
        if from > to {
            return Err(Error::fatal(format!("an interval join between {from} ms and {to} ms joins nothing"))
                .help("name the earlier bound first: between(before(mins(5)), after(mins(1)))"));
        }
        Ok(Bounds { from, to })
    }

    /// How long rows of a side are kept for later ones of the other, in milliseconds; `None` = none ever looks for them.
    pub fn keeps(self, side: Side) -> Option<i64> {
        match side {
            // A right row of the same millisecond has its turn later.
            LEFT => Some(self.to).filter(|to| *to >= 0),
            _ => Some(self.from.saturating_neg()).filter(|from| *from > 0),
        }
    }

    /// The last time at which a row may meet kept rows of the other side; none before time begins.
    fn until(self, side: Side, time: EventTime) -> Option<EventTime> {
        let until = match side {
            LEFT => i128::from(time.0) + i128::from(self.to),
            _ => i128::from(time.0) - i128::from(self.from),
        };
        (until >= i128::from(i64::MIN)).then(|| EventTime(i64::try_from(until).unwrap_or(i64::MAX)))
    }
}

/// An interval join of two streams with keys of one type. `kernel` makes a kernel per task.
pub fn interval_join<N: PairKernel>(bounds: Bounds, kind: JoinKind, kernel: impl Fn() -> N + Send + Sync + 'static) -> OperatorFactory {
    Arc::new(move || {
        let kernel = kernel();
        Box::new(IntervalJoin {
            bounds,
            table: AppendTable::new("rows", 2, &kernel.schema()).with_key(kernel.key()),
            matches: Matches::new(kind, kernel),
            progress: Progress::default(),
            late: Counter::default(),
            max_parallelism: 1,
            slots: Vec::new(),
            due: Vec::new(),
            scratch: Vec::new(),
        })
    })
}

struct IntervalJoin<N> {
    bounds: Bounds,
    table: AppendTable,
    matches: Matches<N>,
    progress: Progress,
    late: Counter,
    max_parallelism: u16,
    slots: Vec<u32>,
    due: Vec<Waiting>,
    scratch: Vec<u8>,
}

/// A mark: the row has found a partner.
const PARTNER: u8 = 1;

impl<N: PairKernel> IntervalJoin<N> {
    /// The next time at which something happens: a row's turn, or the end of one that is kept.
    fn next_time(&self) -> Option<EventTime> {
        let early = i64::from(planted(Bug::ForgetRowsEarly));
        let over = |side| Some(self.table.first_kept(side)?.plus_ms(self.bounds.keeps(side)? - early));
        [self.table.next_time(), over(LEFT), over(RIGHT)].into_iter().flatten().min()
    }

    /// A row's turn.
    fn meet(&mut self, row: Waiting, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        let side = self.table.side(row.row);
        let kind = self.matches.kind();
        let until = self.bounds.until(side, time);
        let mut partner = self.table.first(other(side), row.slot);
        while let Some(kept) = partner.filter(|&kept| until.is_some_and(|until| self.table.time(kept) <= until)) {
            let (left, right) = in_order(side, row.row, kept);
            let has_partner = self.table.mark(left) == PARTNER;
            if self.matches.meet(&self.table.bytes_of(left)?, has_partner, &self.table.bytes_of(right)?, time, out)? {
                if kind.marks(LEFT) {
                    self.table.set_mark(left, PARTNER)?;
                }
                if kind.marks(RIGHT) {
                    self.table.set_mark(right, PARTNER)?;
                }
            }
            partner = self.table.after(kept);
        }
        if self.bounds.keeps(side).is_some() {
            self.table.keep(row.row);
            return Ok(());
        }
        self.end(row.row, time, out)
    }

    /// No more partners will come for a row.
    fn end(&mut self, row: u32, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        if self.table.mark(row) != PARTNER {
            self.matches.stays_alone(self.table.side(row), &self.table.bytes_of(row)?, time, out)?;
        }
        self.table.release(row)
    }

    /// Kept rows whose span ends at or before `time`.
    fn end_kept(&mut self, time: EventTime, out: &mut Output<'_>) -> Result<()> {
        for side in [LEFT, RIGHT] {
            let keeps = self.bounds.keeps(side);
            let early = i64::from(planted(Bug::ForgetRowsEarly));
            let until = if time == EventTime::MAX { Some(i64::MAX) } else { keeps.and_then(|keeps| time.0.checked_sub(keeps - early)) };
            let Some(until) = until else { continue };
            while let Some(row) = self.table.take_over(side, EventTime(until)) {
                self.end(row, time, out)?;
            }
        }
        Ok(())
    }
}

impl<N: PairKernel> Operator for IntervalJoin<N> {
    fn open(&mut self, context: &OpenContext) -> Result<()> {
        self.late = context.metrics.counter(LATE, context.operator.as_str(), context.index);
        self.progress.owns(&context.groups);
        self.max_parallelism = context.max_parallelism;
        self.matches.kernel().check()
    }

    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        let progress = self.progress;
        let kernel = self.matches.kernel();
        let to = (&mut self.table, &mut self.slots, &mut self.scratch);
        let encode = |batch: &dyn Batch, row: usize, bytes: &mut Vec<u8>| kernel.encode(input, batch, row, bytes);
        take_in((input, input), batch, encode, |time| progress.is_late(time), to, &self.late, out)
    }

    fn on_watermark(&mut self, watermark: EventTime, out: &mut Output<'_>) -> Result<()> {
        if !self.progress.advance(watermark) {
            return Ok(());
        }
        let mut due = std::mem::take(&mut self.due);
        while let Some(time) = self.next_time().filter(|&time| time <= watermark) {
            if self.table.take_due(time, &mut due).is_some() {
                due.iter().try_for_each(|&row| self.meet(row, time, out))?;
            }
            self.end_kept(time, out)?;
        }
        self.due = due;
        for side in [LEFT, RIGHT] {
            if let Some(last_over) = watermark.0.checked_sub(self.bounds.keeps(side).unwrap_or(0)) {
                self.table.set_floor(side, EventTime(last_over).plus_ms(1));
            }
        }
        self.matches.flush(out)
    }

    fn save(&mut self) -> Vec<u8> {
        self.progress.save()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        let behind = self.progress.restore(blobs)?;
        let (latest, max_parallelism) = (self.progress.watermark(), self.max_parallelism);
        if let Some(watermark) = latest.filter(|_| !planted(Bug::RepeatTurns)) {
            self.table.keep_until(watermark, |index, slot, time| {
                behind.of(index.group(slot, max_parallelism), latest).is_some_and(|until| time <= until)
            });
        }
        Ok(())
    }
}
