//! An aggregate function: of many rows to a value, with what it keeps of them.
//!
//! Invariant: what is kept is a value in the engine's state like any other: frozen at a barrier, spilled, restored, moved to
//! other tasks. After a restore it is bytes until somebody asks for it.

use super::datum::{Datum, unknown};
use crate::error::{SqlError, SqlResult};
use crate::kernels::value::Value;
use crate::parser::type_name;
use arrow::datatypes::DataType;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::Any;
use std::sync::Arc;
use waterwheel_engine::operators::guarded_call;
use waterwheel_engine::state::{StateValue, check_codec, decode, encode_into, schema_of};

/// Takes a row in or out.
type Take<A> = Box<dyn Fn(&mut A, &[Datum<'_>]) -> Result<(), String> + Send + Sync>;
/// Takes in what was kept of other rows.
type Merge<A> = Box<dyn Fn(&mut A, &A) -> Result<(), String> + Send + Sync>;
/// The result.
type Finish<A> = Box<dyn Fn(&A) -> Result<Datum<'static>, String> + Send + Sync>;

/// A function of many rows to a value, for GROUP BY, windows and OVER; `A` is what it keeps of the rows of a group.
///
/// ```
/// use arrow::datatypes::DataType::{Float64, Int64};
/// use std::sync::Arc;
/// use waterwheel_sql::{AggregateFunction, Datum, NoConnectors, Session};
/// // The sum of values by their weights, and the sum of weights.
/// type Sums = (i64, i64);
/// let add = |sums: &mut Sums, args: &[Datum<'_>], sign: i64| {
///     if let [Datum::Int(value), Datum::Int(weight)] = args {
///         *sums = (sums.0 + sign * value * weight, sums.1 + sign * weight);
///     }
///     Ok(())
/// };
/// let weighted_avg = AggregateFunction::new(
///     "weighted_avg",
///     vec![Int64, Int64],
///     Float64,
///     Sums::default(),
///     move |sums, args| add(sums, args, 1),
///     |&(sum, weights)| Ok((weights != 0).then(|| sum as f64 / weights as f64).into()),
/// )
/// .retract(move |sums, args| add(sums, args, -1))
/// .merge(|sums, later| {
///     *sums = (sums.0 + later.0, sums.1 + later.1);
///     Ok(())
/// });
/// let mut session = Session::new(Arc::new(NoConnectors));
/// session.register(weighted_avg);
/// session.run("job.sql", "
///     CREATE TABLE t (k STRING, value BIGINT, weight BIGINT) WITH ('connector' = 'topics', 'format' = 'json');
///     SELECT k, WEIGHTED_AVG(value, weight) FILTER (WHERE weight > 0) AS mean FROM t GROUP BY k;
/// ")?;
/// # Ok::<(), waterwheel_engine::error::Error>(())
/// ```
pub struct AggregateFunction<A> {
    name: String,
    arguments: Vec<DataType>,
    result: DataType,
    steps: Steps<A>,
}

struct Steps<A> {
    initial: A,
    accumulate: Take<A>,
    retract: Option<Take<A>>,
    merge: Option<Merge<A>>,
    value: Finish<A>,
}

impl<A: StateValue + Clone + Sync> AggregateFunction<A> {
    /// A function that keeps `initial` of no rows, a copy for each group. `accumulate` takes a row in, also one whose arguments
    /// are NULL; `value` gives the result of the rows so far, which may be NULL. Both depend on what they are given alone.
    ///
    /// An error of `accumulate` is that of the row, which counts for no aggregate beside it either, and so is a panic; what
    /// was kept is to be left as it was. An error of `value` is that of a row that has changed the group, which counts all the
    /// same: the group has no result until there is one again.
    ///
    /// `A` is a type that serde reads back by position, as in state anywhere. Arguments and result are of plain types: no rows,
    /// arrays or maps.
    pub fn new(
        name: &str,
        arguments: Vec<DataType>,
        result: DataType,
        initial: A,
        accumulate: impl Fn(&mut A, &[Datum<'_>]) -> Result<(), String> + Send + Sync + 'static,
        value: impl Fn(&A) -> Result<Datum<'static>, String> + Send + Sync + 'static,
    ) -> Self {
        let steps = Steps { initial, accumulate: Box::new(accumulate), retract: None, merge: None, value: Box::new(value) };
        AggregateFunction { name: name.to_lowercase(), arguments, result, steps }
    }

    /// How a row is taken out again that was taken in: without it the function is refused over rows that change. Of a row that
    /// moves between tasks this may come before the row itself. When all rows are taken out, what is kept should be `initial`
    /// again: anything else stays in state for when the group comes back.
    #[must_use]
    pub fn retract(mut self, retract: impl Fn(&mut A, &[Datum<'_>]) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.steps.retract = Some(Box::new(retract));
        self
    }

    /// How what was kept of later rows is taken in: without it the function is refused where rows are aggregated in parts, which
    /// are HOP, CUMULATE and SESSION windows and frames of OVER that move on. Taking in parts gives what taking in their rows
    /// one after the other gives.
    #[must_use]
    pub fn merge(mut self, merge: impl Fn(&mut A, &A) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.steps.merge = Some(Box::new(merge));
        self
    }

    /// The same whatever it keeps.
    pub(super) fn erased(self) -> Aggregator {
        let AggregateFunction { name, arguments, result, steps } = self;
        Aggregator { name, arguments: arguments.into(), result, steps: Arc::new(steps) }
    }
}

/// What a function keeps of a group.
trait Kept: Send {
    fn encode(&self) -> Vec<u8>;
    fn copy(&self) -> Box<dyn Kept>;
    fn any(&self) -> &dyn Any;
    fn any_mut(&mut self) -> &mut dyn Any;
}

impl<A: StateValue + Clone> Kept for A {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_into(self, &mut bytes);
        bytes
    }

    fn copy(&self) -> Box<dyn Kept> {
        Box::new(self.clone())
    }

    fn any(&self) -> &dyn Any {
        self
    }

    fn any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The steps of a function, whatever it keeps.
trait AnySteps: Send + Sync {
    fn initial(&self) -> Box<dyn Kept>;
    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Kept>, String>;
    /// Takes a row in, or out.
    fn take(&self, kept: &mut dyn Kept, args: &[Datum<'_>], out: bool) -> Result<(), String>;
    fn merge(&self, kept: &mut dyn Kept, later: &dyn Kept) -> Result<(), String>;
    fn value(&self, kept: &dyn Kept) -> Result<Datum<'static>, String>;
    fn retracts(&self) -> bool;
    fn merges(&self) -> bool;
    fn schema(&self) -> String;
    fn check(&self) -> Result<(), String>;
}

fn other_type() -> String {
    "plan bug: it keeps something of another type".to_string()
}

impl<A: StateValue + Clone + Sync> AnySteps for Steps<A> {
    fn initial(&self) -> Box<dyn Kept> {
        Box::new(self.initial.clone())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Kept>, String> {
        let kept: A = decode(bytes).map_err(|e| e.to_string())?;
        Ok(Box::new(kept))
    }

    fn take(&self, kept: &mut dyn Kept, args: &[Datum<'_>], out: bool) -> Result<(), String> {
        let kept = kept.any_mut().downcast_mut().ok_or_else(other_type)?;
        match (&self.retract, out) {
            (_, false) => (self.accumulate)(kept, args),
            (Some(retract), true) => retract(kept, args),
            (None, true) => Err("plan bug: it takes no row out".into()),
        }
    }

    fn merge(&self, kept: &mut dyn Kept, later: &dyn Kept) -> Result<(), String> {
        let merge = self.merge.as_ref().ok_or("plan bug: it merges no parts")?;
        merge(kept.any_mut().downcast_mut().ok_or_else(other_type)?, later.any().downcast_ref().ok_or_else(other_type)?)
    }

    fn value(&self, kept: &dyn Kept) -> Result<Datum<'static>, String> {
        (self.value)(kept.any().downcast_ref().ok_or_else(other_type)?)
    }

    fn retracts(&self) -> bool {
        self.retract.is_some()
    }

    fn merges(&self) -> bool {
        self.merge.is_some()
    }

    fn schema(&self) -> String {
        schema_of::<A>()
    }

    fn check(&self) -> Result<(), String> {
        check_codec::<A>().map_err(|e| e.to_string())
    }
}

/// What a function keeps of a group, as it is in state.
pub(crate) struct Held(Form);

enum Form {
    Live(Box<dyn Kept>),
    /// As they were read; nobody has asked for them yet.
    Bytes(Vec<u8>),
}

impl Held {
    fn bytes(&self) -> Vec<u8> {
        match &self.0 {
            Form::Live(kept) => kept.encode(),
            Form::Bytes(bytes) => bytes.clone(),
        }
    }

    fn live(&mut self, steps: &dyn AnySteps) -> Result<&mut dyn Kept, String> {
        if let Form::Bytes(bytes) = &self.0 {
            self.0 = Form::Live(steps.decode(bytes)?);
        }
        match &mut self.0 {
            Form::Live(kept) => Ok(&mut **kept),
            Form::Bytes(_) => Err(other_type()),
        }
    }

    fn look<R>(&self, steps: &dyn AnySteps, look: impl FnOnce(&dyn Kept) -> Result<R, String>) -> Result<R, String> {
        match &self.0 {
            Form::Live(kept) => look(&**kept),
            Form::Bytes(bytes) => look(&*steps.decode(bytes)?),
        }
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Held(match &self.0 {
            Form::Live(kept) => Form::Live(kept.copy()),
            Form::Bytes(bytes) => Form::Bytes(bytes.clone()),
        })
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({:?})", self.bytes())
    }
}

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Live(kept) => kept.encode().serialize(serializer),
            Form::Bytes(bytes) => bytes.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|bytes| Held(Form::Bytes(bytes)))
    }
}

/// An aggregate function, whatever it keeps.
#[derive(Clone)]
pub(crate) struct Aggregator {
    name: String,
    arguments: Arc<[DataType]>,
    result: DataType,
    steps: Arc<dyn AnySteps>,
}

impl std::fmt::Debug for Aggregator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.usage())
    }
}

impl Aggregator {
    /// In small letters.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As it is written where it is spoken of.
    pub(crate) fn shown(&self) -> String {
        self.name.to_uppercase()
    }

    pub(crate) fn arguments(&self) -> &[DataType] {
        &self.arguments
    }

    pub(crate) fn result(&self) -> &DataType {
        &self.result
    }

    /// How it is called.
    pub(crate) fn usage(&self) -> String {
        format!("{}({})", self.shown(), self.arguments.iter().map(type_name).collect::<Vec<_>>().join(", "))
    }

    /// Whether rows can be taken out.
    pub(crate) fn retracts(&self) -> bool {
        self.steps.retracts()
    }

    /// Whether parts can be put together.
    pub(crate) fn merges(&self) -> bool {
        self.steps.merges()
    }

    /// For the description that state is checked against: which function, and what it keeps.
    pub(crate) fn describe(&self) -> String {
        format!("{}: {} of {}", self.name, self.result, self.steps.schema())
    }

    /// Refuses types that it cannot have, and what cannot be kept in state.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(crate) fn check(&self) -> SqlResult<()> {
        if let Some(kind) = unknown(self.arguments.iter().chain([&self.result])) {
            let what = format!("{} in the aggregate function {}", type_name(kind), self.shown());
            let instead = "fields of rows as arguments, LISTAGG or UNNEST for elements";
            return Err(SqlError::unsupported(&what, "its arguments and its result are plain values", instead));
        }
        self.steps.check().map_err(|why| SqlError::new(format!("what {} keeps is no state: {why}", self.shown())))
    }

    /// What is kept of no rows.
    pub(crate) fn none(&self) -> Held {
        Held(Form::Live(self.steps.initial()))
    }

    /// Whether that is what is kept.
    pub(crate) fn is_none(&self, held: &Held) -> bool {
        held.bytes() == self.steps.initial().encode()
    }

    /// Takes a row in (weight 1) or out (-1).
    ///
    /// # Errors
    /// Of the function.
    pub(crate) fn take(&self, held: &mut Held, args: &[Datum<'_>], weight: i64) -> Result<(), String> {
        self.call(|| {
            let kept = held.live(&*self.steps)?;
            (0..weight.unsigned_abs()).try_for_each(|_| self.steps.take(kept, args, weight < 0))
        })
    }

    /// Takes in what was kept of later rows.
    ///
    /// # Errors
    /// Of the function.
    pub(crate) fn merge(&self, held: &mut Held, later: &Held) -> Result<(), String> {
        self.call(|| {
            let kept = held.live(&*self.steps)?;
            later.look(&*self.steps, |later| self.steps.merge(kept, later))
        })
    }

    /// The result.
    ///
    /// # Errors
    /// Of the function; a value that is none of its type.
    pub(crate) fn value(&self, held: &Held) -> Result<Value, String> {
        self.call(|| {
            let datum = held.look(&*self.steps, |kept| self.steps.value(kept))?;
            if datum.fits(&self.result) { Ok(datum.into()) } else { Err(datum.misfit(&self.result)) }
        })
    }

    /// An error, or a panic, is said with the function's name.
    fn call<R>(&self, call: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
        guarded_call(call).and_then(|done| done).map_err(|why| format!("{}: {why}", self.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total() -> Aggregator {
        let take = |total: &mut (i64, String), args: &[Datum<'_>]| match args {
            [Datum::Int(13)] => Err("unlucky".to_string()),
            [Datum::Int(7)] => panic!("seven"),
            [Datum::Int(n)] => {
                total.0 += n;
                Ok(())
            }
            _ => Ok(()),
        };
        let value = |total: &(i64, String)| Ok(if total.0 == 300 { "much".into() } else { total.0.into() });
        AggregateFunction::new("Total", vec![DataType::Int64], DataType::Int16, (0i64, String::new()), take, value)
            .merge(|total, later| {
                total.0 += later.0;
                Ok(())
            })
            .erased()
    }

    /// As state is written and read again.
    fn again(held: &Held) -> Held {
        let mut bytes = Vec::new();
        encode_into(held, &mut bytes);
        decode(&bytes).unwrap()
    }

    #[test]
    fn what_is_kept_comes_back_from_state() {
        let total = total();
        let mut held = again(&total.none());
        assert!(total.is_none(&held));
        total.take(&mut held, &[5.into()], 1).unwrap();
        let mut held = again(&held);
        assert!(matches!(total.value(&held), Ok(Value::Int(5))));
        let other = again(&held);
        total.merge(&mut held, &other).unwrap();
        assert!(matches!(total.value(&held), Ok(Value::Int(10))) && !total.is_none(&held));
        assert_eq!(again(&held).bytes(), held.bytes());
        assert!(total.take(&mut Held(Form::Bytes(Vec::new())), &[5.into()], 1).unwrap_err().starts_with("TOTAL: "));
    }

    #[test]
    fn errors_and_panics_are_said_with_the_name() {
        let total = total();
        let mut held = total.none();
        assert_eq!(total.take(&mut held, &[13.into()], 1).unwrap_err(), "TOTAL: unlucky");
        assert_eq!(total.take(&mut held, &[7.into()], 1).unwrap_err(), "TOTAL: user function panicked: seven");
        total.take(&mut held, &[300.into()], 1).unwrap();
        assert_eq!(total.value(&held).unwrap_err(), "TOTAL: Text(\"much\") is no SMALLINT");
        total.take(&mut held, &[40_000.into()], 1).unwrap();
        assert_eq!(total.value(&held).unwrap_err(), "TOTAL: Int(40300) is no SMALLINT");
        assert!(!total.retracts() && total.merges() && total.check().is_ok());
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let list = DataType::new_list(DataType::Int64, true);
        let of = |arguments| AggregateFunction::new("f", arguments, DataType::Int64, 0i64, |_, _| Ok(()), |n| Ok((*n).into())).erased();
        assert!(of(vec![DataType::Int64]).check().is_ok());
        let error = of(vec![list]).check().unwrap_err();
        assert!(error.message().contains("ARRAY<BIGINT> in the aggregate function F"), "{error}");
        let json = AggregateFunction::new("f", vec![], DataType::Int64, serde_json::Value::Null, |_, _| Ok(()), |_| Ok(Datum::Null));
        assert!(json.erased().check().unwrap_err().message().starts_with("what F keeps is no state: "));
    }
}
