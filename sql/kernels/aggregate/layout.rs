//! What an accumulator of some calls is made of: words for numbers, states for what is more, and who shares what.
//!
//! Invariant: calls on the same column behind the same filter look at the same rows, so they have one input.

use super::call::{Call, Function};
use super::numbers::{Number, Single};
use super::{Acc, Rest};
use crate::kernels::distinct::{MOST, Seen};
use crate::kernels::value::Class;

/// What an accumulator is made of.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) calls: Vec<Call>,
    /// By call.
    pub(super) places: Vec<Place>,
    pub(super) inputs: Vec<Input>,
    pub(super) families: Vec<Family>,
    pub(super) words: usize,
    /// Calls with a state each, in order.
    pub(super) stateful: Vec<usize>,
    /// Those of them that are functions of the user's.
    pub(super) own: Vec<OwnPlace>,
}

/// Where a function of the user's is.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnPlace {
    pub(super) call: usize,
    pub(super) state: usize,
    /// Says which rows pass.
    pub(super) input: usize,
}

/// Where the result of a call is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Rows,
    /// A word that counts.
    Count(usize),
    Number {
        number: Number,
        count: usize,
    },
    State(usize),
}

/// Rows that some calls look at alike: of one column, behind one filter.
#[derive(Debug)]
pub(super) struct Input {
    /// One of them.
    pub(super) call: usize,
    /// The word that counts its rows with a value; none = every row counts, and the accumulator has that.
    pub(super) count: Option<usize>,
    pub(super) numbers: Vec<Number>,
    /// Calls and their states.
    pub(super) states: Vec<(usize, usize)>,
}

/// Calls that count the distinct values of one column, each with its filter.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) numbers: bool,
    /// By bit: its input, and the word that counts.
    pub(super) calls: Vec<(usize, usize)>,
}

impl Layout {
    pub(super) fn of(calls: Vec<Call>) -> Layout {
        let (places, stateful, own) = (Vec::new(), Vec::new(), Vec::new());
        let mut layout = Layout { places, inputs: Vec::new(), families: Vec::new(), words: 0, stateful, own, calls };
        let mut families: Vec<(usize, Family)> = Vec::new();
        for i in 0..layout.calls.len() {
            let input = layout.input_of(i);
            let place = layout.place(i, input);
            layout.places.push(place);
            let (call, Place::Count(word)) = (&layout.calls[i], place) else { continue };
            let Some(argument) = call.argument.as_ref().filter(|_| call.counts_seen()) else { continue };
            match families.iter_mut().find(|(column, family)| *column == argument.column && family.calls.len() < MOST) {
                Some((_, family)) => family.calls.push((input, word)),
                None => families.push((argument.column, Family { numbers: argument.class == Class::Int, calls: vec![(input, word)] })),
            }
        }
        layout.families = families.into_iter().map(|(_, family)| family).collect();
        layout
    }

    /// The input of a call, made if no call before has the same.
    fn input_of(&mut self, i: usize) -> usize {
        let call = &self.calls[i];
        let column = |call: &Call| call.argument.as_ref().map(|a| a.column);
        let same = |other: &Call| column(other) == column(call) && other.filter == call.filter;
        if let Some(known) = self.inputs.iter().position(|input| same(&self.calls[input.call])) {
            return known;
        }
        let counts_all = call.argument.is_none() && call.filter.is_none();
        let count = (!counts_all).then(|| self.take_word());
        self.inputs.push(Input { call: i, count, numbers: Vec::new(), states: Vec::new() });
        self.inputs.len() - 1
    }

    fn take_word(&mut self) -> usize {
        self.words += 1;
        self.words - 1
    }

    fn place(&mut self, i: usize, at: usize) -> Place {
        let call = &self.calls[i];
        if call.counts_seen() {
            return Place::Count(self.take_word());
        }
        if call.own.is_some() {
            let state = self.stateful.len();
            self.own.push(OwnPlace { call: i, state, input: at });
            self.stateful.push(i);
            return Place::State(state);
        }
        let input = &mut self.inputs[at];
        match (call.number(), input.count) {
            (Some((what, kind)), Some(count)) => {
                let known = input.numbers.iter().find(|number| number.is(what, kind)).copied();
                let number = known.unwrap_or_else(|| Number::new(what, kind, &mut self.words));
                if known.is_none() {
                    input.numbers.push(number);
                }
                Place::Number { number, count }
            }
            (None, None) => Place::Rows,
            (None, Some(count)) if call.function == Function::Count && !call.keeps_values() => Place::Count(count),
            _ => {
                input.states.push((i, self.stateful.len()));
                self.stateful.push(i);
                Place::State(self.stateful.len() - 1)
            }
        }
    }

    /// The accumulator of no rows.
    pub(super) fn create(&self) -> Acc {
        let rest = || Rest {
            states: self.stateful.iter().map(|&call| self.calls[call].create()).collect(),
            seen: self.families.iter().map(|family| Seen::none(family.numbers)).collect(),
        };
        let has_rest = !self.stateful.is_empty() || !self.families.is_empty();
        Acc { rows: 0, words: vec![0; self.words].into(), rest: has_rest.then(|| Box::new(rest())) }
    }
}

impl Input {
    /// Takes a value in or out; none where the calls look at no column.
    #[inline]
    pub(super) fn fold(&self, words: &mut [i64], value: Option<Single>, weight: i64) {
        let Some(count) = self.count else { return };
        if let Some(value) = value {
            let first = words[count] == 0;
            self.numbers.iter().for_each(|number| number.fold(words, first, value, weight));
        }
        words[count] += weight;
    }
}
