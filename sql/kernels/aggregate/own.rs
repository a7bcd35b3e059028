//! Functions of users among the calls of an accumulator: the only ones that may fail.
//!
//! Invariant: a row that one of them refuses is taken in by none of them, nor by any other call: they have their turn first.

use super::layout::OwnPlace;
use super::state::State;
use super::{Acc, Arguments, Calls, OwnCall};
use crate::kernels::value::{Cells, Value};
use crate::own::{Datum, Held};
use arrow::array::ArrayRef;
use datafusion_physical_expr::PhysicalExpr;
use std::sync::Arc;
use waterwheel_engine::error::Result;
use waterwheel_engine::operators::over::Called;

impl Calls {
    /// Whether a row, or a result, may fail.
    pub(crate) fn can_fail(&self) -> bool {
        !self.0.own.is_empty()
    }

    fn own(&self, place: &OwnPlace) -> Option<&OwnCall> {
        self.0.calls[place.call].own.as_ref()
    }

    /// What they ask for of a batch.
    pub(super) fn own_exprs(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        self.0.own.iter().filter_map(|place| self.own(place)).flat_map(|own| &own.arguments).map(|argument| &argument.expr)
    }

    /// The same, evaluated.
    pub(super) fn own_cells(&self, columns: impl Iterator<Item = ArrayRef>) -> Result<Vec<Vec<Cells>>> {
        let mut columns = columns;
        let cells = |own: &OwnCall| columns.by_ref().take(own.arguments.len()).map(|column| Cells::of(&column)).collect();
        self.0.own.iter().filter_map(|place| self.own(place)).map(cells).collect()
    }

    /// Takes a row of a batch in or out.
    pub(super) fn fold_own(&self, acc: &mut Acc, arguments: &Arguments, row: usize, weight: i64) -> Called {
        self.take(acc, weight, |at, place| {
            arguments.inputs[place.input].passes(row).then(|| arguments.own[at].iter().map(|cells| Datum::of(cells, row)).collect())
        })
    }

    /// Takes a row in whose arguments are single values.
    pub(super) fn fold_own_values(&self, acc: &mut Acc, mut own: impl FnMut(usize) -> Result<Option<Vec<Value>>>) -> Result<Called> {
        let values = self.0.own.iter().map(|place| own(place.call)).collect::<Result<Vec<_>>>()?;
        Ok(self.take(acc, 1, |at, _| values[at].as_ref().map(|values| values.iter().map(Datum::from).collect())))
    }

    /// `given` says what each is called with; of a row that does not count for it, nothing.
    fn take<'v>(&self, acc: &mut Acc, weight: i64, given: impl Fn(usize, &OwnPlace) -> Option<Vec<Datum<'v>>>) -> Called {
        let Some(rest) = &mut acc.rest else { return Ok(()) };
        // One that fails leaves what it keeps as it was; those before it have taken the row already.
        let several = self.0.own.len() > 1;
        let before: Vec<State> =
            if several { self.0.own.iter().map(|place| rest.states[place.state].clone()).collect() } else { Vec::new() };
        for (at, place) in self.0.own.iter().enumerate() {
            let (Some(own), State::Own(held)) = (self.own(place), &mut rest.states[place.state]) else { continue };
            let Some(args) = given(at, place) else { continue };
            if let Err(why) = own.aggregator.take(held, &args, weight) {
                self.0.own.iter().zip(before).for_each(|(place, state)| rest.states[place.state] = state);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Takes in what was kept of later rows.
    pub(super) fn merge_own(&self, acc: &mut Acc, later: &Acc) -> Called {
        let (Some(rest), Some(later)) = (&mut acc.rest, &later.rest) else { return Ok(()) };
        for place in &self.0.own {
            if let (Some(own), State::Own(held), State::Own(later)) =
                (self.own(place), &mut rest.states[place.state], &later.states[place.state])
            {
                own.aggregator.merge(held, later)?;
            }
        }
        Ok(())
    }

    fn held<'a>(&self, acc: &'a Acc, place: &OwnPlace) -> Option<&'a Held> {
        match &acc.rest.as_ref()?.states[place.state] {
            State::Own(held) => Some(held),
            _ => None,
        }
    }

    /// All results, one a call.
    ///
    /// # Errors
    /// Of a function of the user's.
    pub(crate) fn values(&self, acc: &Acc) -> Result<Vec<Value>, String> {
        let mut values: Vec<Value> = self.results(acc).collect();
        for place in &self.0.own {
            if let (Some(own), Some(held)) = (self.own(place), self.held(acc, place)) {
                values[place.call] = own.aggregator.value(held)?;
            }
        }
        Ok(values)
    }
}
