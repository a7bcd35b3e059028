//! Ready functions over rows in order: the row before, the row behind, numbers and ranks.
//!
//! Invariant: each is over the frame that its `FRAME` or [`Lag::frame`] says, and right over no other.

use super::Frame;
use super::kernel::Place;
use super::typed::OverFunctions;
use crate::record::Data;
use crate::state::StateValue;
use crate::time::EventTime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::marker::PhantomData;

/// Each row with the one so many rows before it.
pub struct Lag<T, O, F> {
    distance: u32,
    result: F,
    types: PhantomData<fn(T) -> O>,
}

impl<T, O, F: Fn(&T, Option<&T>) -> O> Lag<T, O, F> {
    /// `distance` rows before; 0 is the row itself.
    pub fn new(distance: u32, result: F) -> Self {
        Lag { distance, result, types: PhantomData }
    }

    /// The frame that it is over.
    pub fn frame(&self) -> Frame {
        Frame::Rows(Some(self.distance))
    }
}

impl<T, O, F> OverFunctions for Lag<T, O, F>
where
    T: Data + StateValue,
    O: Data,
    F: Fn(&T, Option<&T>) -> O + Send + Sync + 'static,
{
    type Row = T;
    /// Number of rows, and the first.
    type Acc = (u64, Option<T>);
    type Out = O;

    fn create(&self) -> Self::Acc {
        (0, None)
    }

    fn fold(&self, (rows, first): &mut Self::Acc, row: &T, _time: EventTime) {
        *rows += 1;
        first.get_or_insert_with(|| row.clone());
    }

    fn merge(&self, (rows, first): &mut Self::Acc, later: &Self::Acc) {
        *rows += later.0;
        if first.is_none() {
            first.clone_from(&later.1);
        }
    }

    fn result(&self, row: &T, (rows, first): &Self::Acc, _place: Place) -> Option<O> {
        let before = first.as_ref().filter(|_| *rows > u64::from(self.distance));
        Some((self.result)(row, before))
    }
}

/// Each row with the one so many rows behind it. The result leaves when that row has its turn, with its time; at the end of the
/// input, with the last instant of time, when there is none.
pub struct Lead<T, O, F> {
    distance: u32,
    result: F,
    types: PhantomData<fn(T) -> O>,
}

impl<T, O, F: Fn(&T, Option<&T>) -> O> Lead<T, O, F> {
    /// The frame that it is over.
    pub const FRAME: Frame = Frame::Rows(None);

    /// `distance` rows behind; 0 is the row itself.
    pub fn new(distance: u32, result: F) -> Self {
        Lead { distance, result, types: PhantomData }
    }
}

impl<T, O, F> OverFunctions for Lead<T, O, F>
where
    T: Data + StateValue,
    O: Data,
    F: Fn(&T, Option<&T>) -> O + Send + Sync + 'static,
{
    type Row = T;
    /// The last rows, up to the distance and one.
    type Acc = VecDeque<T>;
    type Out = O;

    fn describe(&self) -> String {
        format!("lead {}", self.distance)
    }

    fn create(&self) -> VecDeque<T> {
        VecDeque::new()
    }

    fn fold(&self, last: &mut VecDeque<T>, row: &T, _time: EventTime) {
        if last.len() > self.distance as usize {
            last.pop_front();
        }
        last.push_back(row.clone());
    }

    fn merge(&self, last: &mut VecDeque<T>, later: &VecDeque<T>) {
        later.iter().for_each(|row| self.fold(last, row, EventTime::MIN));
    }

    fn result(&self, row: &T, last: &VecDeque<T>, _place: Place) -> Option<O> {
        let waited = last.front().filter(|_| last.len() > self.distance as usize)?;
        Some((self.result)(waited, Some(row)))
    }

    const FINISHES: bool = true;

    fn finish(&self, last: &VecDeque<T>) -> Vec<O> {
        let settled = usize::from(last.len() > self.distance as usize);
        last.iter().skip(settled).map(|row| (self.result)(row, None)).collect()
    }
}

/// The numbers of a row among the rows of its key so far, all from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Its number: ROW_NUMBER.
    pub row: u64,
    /// The number of the first of its peers: RANK.
    pub rank: u64,
    /// The number of its time: DENSE_RANK.
    pub dense_rank: u64,
}

/// Each row with its [`Numbers`].
pub struct Numbered<T, O, F> {
    result: F,
    types: PhantomData<fn(T) -> O>,
}

impl<T, O, F: Fn(&T, Numbers) -> O> Numbered<T, O, F> {
    /// The frame that it is over.
    pub const FRAME: Frame = Frame::Rows(None);

    /// Of that result.
    pub fn new(result: F) -> Self {
        Numbered { result, types: PhantomData }
    }
}

/// Counts rows and times.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Counted {
    rows: u64,
    times: u64,
    /// Rows before the last time.
    earlier: u64,
    last_ms: i64,
}

impl Counted {
    fn numbers(&self) -> Numbers {
        Numbers { row: self.rows, rank: self.earlier + 1, dense_rank: self.times }
    }
}

impl<T, O, F> OverFunctions for Numbered<T, O, F>
where
    T: Data + StateValue,
    O: Data,
    F: Fn(&T, Numbers) -> O + Send + Sync + 'static,
{
    type Row = T;
    type Acc = Counted;
    type Out = O;

    fn create(&self) -> Counted {
        Counted::default()
    }

    fn fold(&self, counted: &mut Counted, _row: &T, time: EventTime) {
        if counted.times == 0 || time.0 > counted.last_ms {
            *counted = Counted { times: counted.times + 1, earlier: counted.rows, last_ms: time.0, ..counted.clone() };
        }
        counted.rows += 1;
    }

    fn merge(&self, _counted: &mut Counted, _later: &Counted) {
        unreachable!("plan bug: rows are numbered over all rows so far")
    }

    fn result(&self, row: &T, counted: &Counted, _place: Place) -> Option<O> {
        Some((self.result)(row, counted.numbers()))
    }
}
