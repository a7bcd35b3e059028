//! What CAST means beyond what DataFusion makes of it: values as [texts](super::texts) and times of texts as in Flink, lengths of texts,
//! digits of a time of day, whole numbers of texts with a point, rows, arrays and maps part by part, instants on the zone's clock.
//!
//! Invariant: a value that needs no change is what it was; a conversion to text never fails, so TRY_CAST of it is CAST.

use super::own::ScalarFunction;
use super::texts::texts;
use crate::maps::{build, parts};
use crate::parser::{Length, cast_type, type_name};
use crate::plan::zones::{Zone, in_second, shifted};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Date32Array, Int64Array, ListArray, PrimitiveArray, StringArray, StructArray,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Time64NanosecondType, TimeUnit};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use datafusion_common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::expr::{Cast, ScalarFunction as Call, TryCast};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::borrow::Cow;
use std::slice::Iter;
use std::sync::Arc;

const TIME: DataType = DataType::Time64(TimeUnit::Nanosecond);

/// A cast with a name of its own, which is the second argument.
pub(in crate::plan) const AS_WRITTEN: &str = "as_written";
/// `CAST(x AS ARRAY<CHAR(1)>)`: a cast to a type of Flink's that the planner does not read, which is the second argument.
pub(crate) const CAST_TO: &str = "cast_to";
/// That of TRY_CAST.
pub(crate) const TRY_CAST_TO: &str = "try_cast_to";

/// What CAST becomes when a query is read.
pub(super) fn functions() -> Vec<ScalarFunction> {
    vec![ScalarFunction::new("cut_time", vec![TIME, DataType::Int64], TIME, cut_time)]
}

/// The same, of any type.
pub(super) fn of_any_type() -> Vec<ScalarUDF> {
    let written = |tries| ScalarUDF::from(CastWritten { tries, signature: Signature::user_defined(Volatility::Immutable) });
    vec![written(false), written(true), ScalarUDF::from(AsWritten(Signature::user_defined(Volatility::Immutable)))]
}

/// A time of day with so many digits behind its seconds.
fn cut_time(args: &[ArrayRef]) -> std::result::Result<ArrayRef, String> {
    let (times, digits) = (args[0].as_primitive::<Time64NanosecondType>(), args[1].as_primitive::<Int64Type>());
    let cut = |(time, digits): (Option<i64>, Option<i64>)| {
        let unit = 10i64.pow(9u32.saturating_sub(u32::try_from(digits?).unwrap_or(0)));
        Some(time? / unit * unit)
    };
    let cut = times.iter().zip(digits.iter()).map(cut);
    Ok(Arc::new(cut.collect::<arrow::array::Time64NanosecondArray>()))
}

/// What stands for a cast, where DataFusion's gives something else than Flink's in this zone.
///
/// # Errors
/// Expressions without a type, casts that there are not.
pub(in crate::plan) fn replaced(expr: &Expr, schema: &DFSchema, zone: Option<Zone>) -> Result<Option<Expr>> {
    let (inner, to, lengths, tries) = match expr {
        Expr::Cast(Cast { expr: inner, field }) => (&**inner, field.data_type().clone(), Vec::new(), false),
        Expr::TryCast(TryCast { expr: inner, field }) => (&**inner, field.data_type().clone(), Vec::new(), true),
        Expr::ScalarFunction(Call { func, args }) if [CAST_TO, TRY_CAST_TO].contains(&func.name()) => {
            let [inner, Expr::Literal(ScalarValue::Utf8(Some(to)), _)] = &args[..] else { return plan_err!("CAST(value AS type)") };
            let (to, lengths) = cast_type(to).map_err(|e| e.into_planner())?;
            (inner, to, lengths, func.name() == TRY_CAST_TO)
        }
        _ => return Ok(None),
    };
    let from = inner.get_type(schema)?;
    let written = matches!(expr, Expr::ScalarFunction(_));
    if !written && !is_own(&from, &to, zone) {
        return Ok(None);
    }
    if !exists(&from, &to) {
        return plan_err!("{} is no value that can be CAST to {}", type_name(&from), type_name(&to));
    }
    Ok(Some(ScalarUDF::from(CastTo::new(to, lengths, zone, tries)).call(vec![inner.clone()])))
}

/// A value as one of another type that it [becomes](super::fits).
pub(crate) fn as_other(value: Expr, to: &DataType) -> Expr {
    ScalarUDF::from(CastTo::new(to.clone(), Vec::new(), None, false)).call(vec![value])
}

fn is_instant(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(_, Some(_)))
}

/// Whether values of a type are times on a clock.
fn is_local(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(_, None) | DataType::Date32 | DataType::Time32(_) | DataType::Time64(_))
}

fn is_nested(kind: &DataType) -> bool {
    matches!(kind, DataType::Struct(_) | DataType::List(_) | DataType::Map(..))
}

/// Whether Arrow's cast is not Flink's.
fn is_own(from: &DataType, to: &DataType, zone: Option<Zone>) -> bool {
    match (from, to) {
        (DataType::Null, _) => false,
        (DataType::Boolean | DataType::Float32 | DataType::Float64 | DataType::Timestamp(_, _) | DataType::Binary, DataType::Utf8)
        | (DataType::Interval(_) | DataType::Duration(_), DataType::Utf8)
        | (DataType::Utf8, DataType::Timestamp(_, _) | DataType::Date32) => true,
        (DataType::Utf8, to) => to.is_integer(),
        (from, to) if is_nested(from) || is_nested(to) => from != to,
        (from, to) => zone.is_some() && ((is_instant(from) && is_local(to)) || (is_local(from) && is_instant(to))),
    }
}

/// Whether there is a cast from one type to the other.
fn exists(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Null, _) | (_, DataType::Utf8) => true,
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(from, to)| exists(from.data_type(), to.data_type()))
        }
        (DataType::List(from), DataType::List(to)) => exists(from.data_type(), to.data_type()),
        (from, to) if is_nested(from) || is_nested(to) => match (parts(from), parts(to)) {
            (Some(from), Some(to)) => exists(from.0.data_type(), to.0.data_type()) && exists(from.1.data_type(), to.1.data_type()),
            _ => false,
        },
        (DataType::Utf8, to) if is_instant(to) => true,
        (from, to) => can_cast_types(from, to),
    }
}

/// `cast_to(x, 'ARRAY<CHAR(1)>')`: only planned; the zone's pass puts the cast itself in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CastWritten {
    tries: bool,
    signature: Signature,
}

impl ScalarUDFImpl for CastWritten {
    fn name(&self) -> &str {
        if self.tries { TRY_CAST_TO } else { CAST_TO }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn return_type(&self, _kinds: &[DataType]) -> Result<DataType> {
        plan_err!("CAST(value AS type)")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.scalar_arguments.get(1) {
            Some(Some(ScalarValue::Utf8(Some(to)))) => {
                let (to, _) = cast_type(to).map_err(|e| e.into_planner())?;
                Ok(Arc::new(Field::new(self.name(), to, true)))
            }
            _ => plan_err!("CAST(value AS type)"),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("CAST is what the zone of the session says")
    }
}

/// The cast of a column.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CastTo {
    name: String,
    to: DataType,
    /// Of the texts in the type, in order; none at all where no text has one.
    lengths: Vec<Option<Length>>,
    /// None = UTC.
    zone: Option<Zone>,
    /// What cannot be cast is NULL.
    tries: bool,
    signature: Signature,
}

impl CastTo {
    fn new(to: DataType, lengths: Vec<Option<Length>>, zone: Option<Zone>, tries: bool) -> Self {
        let of_zone = zone.map_or_else(String::new, |zone| format!(" in {zone}"));
        let of_lengths: String = lengths.iter().flatten().map(|length| format!(" {length:?}")).collect();
        let name = format!("{} as {}{of_lengths}{of_zone}", if tries { "try cast" } else { "cast" }, type_name(&to));
        CastTo { name, to, lengths, zone, tries, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn column(&self, column: &ArrayRef) -> std::result::Result<ArrayRef, String> {
        let cast = |column: &ArrayRef, safe| self.part(column, &self.to, &mut self.lengths.iter(), safe);
        if !self.tries || !is_nested(column.data_type()) {
            return cast(column, self.tries);
        }
        // Of a row, an array or a map that fails in one part nothing is left.
        if let Ok(all) = cast(column, false) {
            return Ok(all);
        }
        let one = |row: usize| cast(&column.slice(row, 1), false).unwrap_or_else(|_| new_null_array(&self.to, 1));
        let rows: Vec<ArrayRef> = (0..column.len()).map(one).collect();
        concat(&rows.iter().map(AsRef::as_ref).collect::<Vec<_>>()).map_err(|e| e.to_string())
    }

    /// A column within the type; `safe`: what cannot be cast is NULL.
    fn part(
        &self,
        column: &ArrayRef,
        to: &DataType,
        lengths: &mut Iter<'_, Option<Length>>,
        safe: bool,
    ) -> std::result::Result<ArrayRef, String> {
        let arrow = |column: &ArrayRef, to: &DataType| {
            cast_with_options(column, to, &CastOptions { safe, ..CastOptions::default() }).map_err(|e| e.to_string())
        };
        let of_arrow = |e: arrow::error::ArrowError| e.to_string();
        Ok(match (column.data_type(), to) {
            (DataType::Null, _) => new_null_array(to, column.len()),
            (DataType::Struct(_), DataType::Struct(fields)) => {
                let rows = column.as_struct();
                let mut columns = Vec::with_capacity(fields.len());
                for (column, field) in rows.columns().iter().zip(fields) {
                    columns.push(self.part(column, field.data_type(), lengths, safe)?);
                }
                Arc::new(StructArray::try_new(fields.clone(), columns, rows.nulls().cloned()).map_err(of_arrow)?)
            }
            (DataType::List(_), DataType::List(item)) => {
                let lists = column.as_list::<i32>();
                let (within, each) = used(lists.value_offsets());
                let values = self.part(&lists.values().slice(within.0, within.1), item.data_type(), lengths, safe)?;
                let offsets = OffsetBuffer::from_lengths(each);
                Arc::new(ListArray::try_new(item.clone(), offsets, values, lists.nulls().cloned()).map_err(of_arrow)?)
            }
            (DataType::Map(..), DataType::Map(..)) => {
                let Some((key, value)) = parts(to) else { return Err(format!("{to} is no map")) };
                let maps = column.as_map();
                let (within, each) = used(maps.value_offsets());
                let keys = self.part(&maps.keys().slice(within.0, within.1), key.data_type(), lengths, safe)?;
                let values = self.part(&maps.values().slice(within.0, within.1), value.data_type(), lengths, safe)?;
                Arc::new(build(to, keys, values, &each, maps.nulls().cloned()).map_err(of_arrow)?)
            }
            (_, DataType::Utf8) => {
                let texts = texts(column, self.zone)?;
                match lengths.next().copied().flatten() {
                    None => Arc::new(texts),
                    Some(length) => Arc::new(texts.iter().map(|text| text.map(|text| length.of(text))).collect::<StringArray>()),
                }
            }
            (DataType::Utf8, DataType::Timestamp(unit, zone)) => {
                let in_unit = |time: NaiveDateTime| in_unit(time, *unit);
                let shown = "a time is 'yyyy-MM-dd[ HH:mm:ss[.fraction]]'";
                let times: Int64Array = read(column, to, shown, safe, |text| time_of(text).and_then(in_unit))?;
                let times = arrow(&(Arc::new(times) as ArrayRef), &DataType::Timestamp(*unit, None))?;
                if zone.is_some() { shifted(&times, self.zone, false)? } else { times }
            }
            (DataType::Utf8, DataType::Date32) => {
                let days = |text: &str| i32::try_from((date_of(text)? - NaiveDate::default()).num_days()).ok();
                let days: Date32Array = read(column, to, "a date is 'yyyy-MM-dd'", safe, days)?;
                Arc::new(days)
            }
            (DataType::Utf8, to) if to.is_integer() => {
                let texts = column.as_string::<i32>();
                match texts.value_data().contains(&b'.') {
                    false => arrow(column, to)?,
                    true => arrow(&(Arc::new(texts.iter().map(|text| text.map(whole)).collect::<StringArray>()) as ArrayRef), to)?,
                }
            }
            (from, to) if is_instant(from) && is_local(to) => arrow(&shifted(column, self.zone, true)?, to)?,
            (from, DataType::Timestamp(unit, Some(_))) if is_local(from) => {
                shifted(&arrow(column, &DataType::Timestamp(*unit, None))?, self.zone, false)?
            }
            _ => arrow(column, to)?,
        })
    }
}

/// Where the items of all lists of a column are, as a place and how many, and how many each has.
fn used(offsets: &[i32]) -> ((usize, usize), Vec<usize>) {
    let (start, end) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    ((start as usize, (end - start) as usize), offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect())
}

/// Values of texts; one that is none is NULL where that is `safe`.
fn read<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    to: &DataType,
    shown: &str,
    safe: bool,
    value: impl Fn(&str) -> Option<T::Native>,
) -> std::result::Result<PrimitiveArray<T>, String> {
    let one = |text: Option<&str>| match text.map(|text| (text, value(text))) {
        None => Ok(None),
        Some((text, None)) if !safe => Err(format!("Cannot cast string '{text}' to value of {} type: {shown}", type_name(to))),
        Some((_, value)) => Ok(value),
    };
    column.as_string::<i32>().iter().map(one).collect()
}

fn in_unit(time: NaiveDateTime, unit: TimeUnit) -> Option<i64> {
    let (seconds, nanos) = (time.and_utc().timestamp(), i64::from(time.and_utc().timestamp_subsec_nanos()));
    seconds.checked_mul(in_second(unit))?.checked_add(nanos / (1_000_000_000 / in_second(unit)))
}

/// So many digits before a sign, or before the end; and what is behind it.
fn digits<'a>(text: &'a str, most: usize, sign: &str) -> Option<(u32, Option<&'a str>)> {
    let (digits, rest) = text.split_once(sign).map_or((text, None), |(digits, rest)| (digits, Some(rest)));
    let fits = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| fits)?, rest))
}

/// `2024-02-29`, `2024-2-9 1:02:03.45`: a day, and a time of it to the second at least.
fn time_of(text: &str) -> Option<NaiveDateTime> {
    let (day, time) = text.split_once(' ').map_or((text, None), |(day, time)| (day, Some(time)));
    let (year, rest) = digits(day, 4, "-").filter(|_| day.find('-') == Some(4))?;
    let (month, rest) = digits(rest?, 2, "-")?;
    let (number, None) = digits(rest?, 2, "-")? else { return None };
    let day = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, number)?;
    let Some(time) = time else { return Some(day.and_time(NaiveTime::MIN)) };
    let (hour, rest) = digits(time, 2, ":")?;
    let (minute, rest) = digits(rest?, 2, ":")?;
    let (second, fraction) = digits(rest?, 2, ".")?;
    let fraction = fraction.unwrap_or("");
    let fits = fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    let nanos = format!("{fraction:0<9}").parse().ok().filter(|_| fits)?;
    day.and_hms_nano_opt(hour, minute, second, nanos).filter(|_| second < 60)
}

/// `2024-02-29`, `2024-2-9 ..` with whatever stands behind the blank, `2024-2` and `2024`: their first day.
fn date_of(text: &str) -> Option<NaiveDate> {
    let day = text.split_once(' ').filter(|(day, _)| !day.is_empty()).map_or(text, |(day, _)| day);
    let mut parts =
        day.splitn(3, '-').map(|part| part.trim().parse::<u32>().ok().filter(|_| part.trim().bytes().all(|b| b.is_ascii_digit())));
    let year = parts.next()?.filter(|year| *year <= 9999)?;
    let (month, day) = (parts.next().unwrap_or(Some(1))?, parts.next().unwrap_or(Some(1))?);
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)
}

impl ScalarUDFImpl for CastTo {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn return_type(&self, _kinds: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = &args.args[..] else { return exec_err!("one value is expected") };
        match self.column(&value.to_array(args.number_rows)?) {
            Ok(column) => Ok(ColumnarValue::Array(column)),
            Err(why) => exec_err!("{why}"),
        }
    }
}

/// The text of a whole number, of that of a number with a point, whose fraction Flink cuts off; any other text as it is.
fn whole(text: &str) -> Cow<'_, str> {
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let Some((before, behind)) = text.trim_ascii().split_once('.') else { return text.into() };
    let digits = before.strip_prefix(['-', '+']).unwrap_or(before);
    match (digits, behind) {
        _ if !are_digits(digits) || !are_digits(behind) => text.into(),
        ("", "") => text.into(),
        ("", _) => "0".into(),
        _ => before.into(),
    }
}

/// `as_written(cast, 'CAST(x AS INT)')`: the cast, as a column of that name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsWritten(Signature);

impl ScalarUDFImpl for AsWritten {
    fn name(&self) -> &str {
        AS_WRITTEN
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [_, Expr::Literal(ScalarValue::Utf8(Some(name)), _)] => Ok(name.clone()),
            _ => plan_err!("a cast with a name is expected"),
        }
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        match args.arg_fields.first() {
            Some(field) => Ok(field.clone()),
            None => plan_err!("a cast with a name is expected"),
        }
    }

    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match args.into_iter().next() {
            Some(expr) => Ok(ExprSimplifyResult::Simplified(expr)),
            None => plan_err!("a cast with a name is expected"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => plan_err!("a cast with a name is expected"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;

    #[test]
    fn fractions_are_cut_off_numbers_alone() {
        for (text, expected) in [
            ("12", "12"),
            ("12.7", "12"),
            (" -3.9 ", "-3"),
            ("+1.", "+1"),
            (".5", "0"),
            ("-.5", "0"),
            (".", "."),
            ("1.2.3", "1.2.3"),
            ("1.x", "1.x"),
            ("x.1", "x.1"),
            ("--1.0", "--1.0"),
            ("1e3.0", "1e3.0"),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }

    #[test]
    fn times_and_dates_of_texts() {
        let time = |text: &str| time_of(text).map(|time| time.to_string());
        assert_eq!(time("2024-02-29").as_deref(), Some("2024-02-29 00:00:00"));
        assert_eq!(time("2024-2-9 1:2:3.45").as_deref(), Some("2024-02-09 01:02:03.450"));
        assert_eq!(time("2024-02-29 23:59:59.123456789").as_deref(), Some("2024-02-29 23:59:59.123456789"));
        for none in [
            "123",
            "2021/09/27",
            "2024-01-01 10:00",
            "2024-01-01T10:00:00",
            "2024-02-30",
            "2024-01-01 24:00:00",
            "2024-01-01 10:00:00Z",
            " 2024-01-01",
            "2024-01-01 ",
            "",
        ] {
            assert_eq!(time(none), None, "{none}");
        }
        let date = |text: &str| date_of(text).map(|date| date.to_string());
        for (text, expected) in
            [("2021-09-27", "2021-09-27"), ("123", "0123-01-01"), ("2024-2", "2024-02-01"), ("2021-09-27 12:34:56", "2021-09-27")]
        {
            assert_eq!(date(text).as_deref(), Some(expected), "{text}");
        }
        for none in ["2021/09/27", "2024-13-01", "x", "", "2024-", "+2024-01-01"] {
            assert_eq!(date(none), None, "{none}");
        }
    }

    fn row(fields: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect())
    }

    fn cast(column: &ArrayRef, to: &DataType) -> std::result::Result<ArrayRef, String> {
        CastTo::new(to.clone(), Vec::new(), None, false).column(column)
    }

    #[test]
    fn values_of_rows_go_by_their_places() {
        let DataType::Struct(fields) = row(&[("b", DataType::Int64), ("a", DataType::Utf8), ("none", DataType::Null)]) else { return };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec!["x", "y", "z"])),
            new_null_array(&DataType::Null, 3),
        ];
        let rows = StructArray::try_new(fields, columns, Some(vec![true, true, false].into())).unwrap();
        let to = row(&[("a", DataType::Int32), ("c", DataType::Utf8), ("d", DataType::Int32)]);
        let rows = cast(&(Arc::new(rows) as ArrayRef), &to).unwrap();
        assert_eq!(rows.data_type(), &to);
        assert!(rows.is_null(2) && !rows.is_null(1));
        assert_eq!(rows.as_struct().column(0).as_ref(), &Int32Array::from(vec![Some(1), None, Some(3)]));
        assert_eq!(rows.as_struct().column(2).null_count(), 3);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1 << 40]));
        let DataType::Struct(fields) = row(&[("a", DataType::Int64)]) else { return };
        let rows: ArrayRef = Arc::new(StructArray::try_new(fields, vec![numbers], None).unwrap());
        assert!(cast(&rows, &row(&[("a", DataType::Int32)])).is_err());
    }

    #[test]
    fn other_rows_do_no_harm() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), Some(vec![Some(1 << 40)]), None]);
        let lists: ArrayRef = Arc::new(lists);
        let to = DataType::new_list(DataType::Int32, true);
        assert!(cast(&lists, &to).is_err());
        assert_eq!(cast(&lists.slice(0, 1), &to).unwrap().as_list::<i32>().value(0).as_ref(), &Int32Array::from(vec![1]));
        let tried = CastTo::new(to, Vec::new(), None, true).column(&lists).unwrap();
        assert!(!tried.is_null(0) && tried.is_null(1) && tried.is_null(2));
    }
}
