//! Which columns of a file are read, and how they become those of a table: by name, and only where the value stays what it is.
//!
//! Wider numbers, finer times and more digits are exact. A coarser unit of time is taken too, and a value that is not whole in it
//! is an error: files have the units of their writers, not of the values. Instants and times without a zone are each other's in
//! UTC, the zone of all tables.
//!
//! Invariant: a type that does not fit is found before anything is read.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, MapArray, PrimitiveArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use std::sync::Arc;
use waterwheel_engine::record::record_batch;

/// How a type is called in messages.
pub(super) type Naming = fn(&DataType) -> String;

/// What does not fit, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) why: String,
    pub(super) help: String,
}

/// How a file's columns become those of a table.
pub(super) struct Fit {
    columns: Vec<Option<(usize, Step)>>,
    made: SchemaRef,
}

/// How values become those of another type.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Same,
    /// Arrow's way is exact, or says that it cannot be.
    Cast(DataType),
    /// Units of time: so many of the table's for one of the file's, or so many of the file's for one of the table's.
    Times(i64, DataType),
    Whole(i64, DataType),
    Row(Fields, Vec<Option<(usize, Step)>>),
    List(FieldRef, Box<Step>),
    /// Of keys and values.
    Map(FieldRef, Fields, Box<(Step, Step)>),
}

impl Fit {
    /// Of a file with columns of these names and types; those of the table are `wanted`. `made` is the same, each column may be
    /// without a value: who knows what becomes of such a row looks at it.
    pub(super) fn of(file: &Fields, wanted: &Fields, made: &SchemaRef, naming: Naming) -> Result<Fit, Misfit> {
        let column = |field: &FieldRef| match find(file, field.name()) {
            Some((at, found)) => Step::of(found.data_type(), field.data_type()).map(|step| Some((at, step))).ok_or_else(|| Misfit {
                why: format!(
                    "column {:?} is {} in the file and {} in the table",
                    field.name(),
                    naming(found.data_type()),
                    naming(field.data_type())
                ),
                help: format!("declare it  {} {}", field.name(), naming(found.data_type())),
            }),
            None => absent(file, field).map(|()| None),
        };
        Ok(Fit { columns: wanted.iter().map(column).collect::<Result<_, _>>()?, made: made.clone() })
    }

    /// The table's columns of those that were read.
    pub(super) fn apply(&self, read: &RecordBatch) -> Result<RecordBatch, String> {
        let make = |(column, field): (&Option<(usize, Step)>, &FieldRef)| match column {
            Some((at, step)) => step.apply(read.column(*at)).map_err(|e| format!("column {:?}: {}", field.name(), plain(e))),
            None => Ok(new_null_array(field.data_type(), read.num_rows())),
        };
        let columns = self.columns.iter().zip(self.made.fields()).map(make).collect::<Result<Vec<_>, _>>()?;
        record_batch(self.made.clone(), columns, read.num_rows()).map_err(plain)
    }
}

/// Without the words that Arrow puts before it.
fn plain(e: ArrowError) -> String {
    match e {
        ArrowError::ComputeError(text) | ArrowError::CastError(text) | ArrowError::InvalidArgumentError(text) => text,
        other => other.to_string(),
    }
}

fn find<'a>(fields: &'a Fields, name: &str) -> Option<(usize, &'a FieldRef)> {
    fields.iter().enumerate().find(|(_, field)| field.name() == name)
}

/// A column that the file has not; an error where it must have it, or where only the letters differ.
fn absent(file: &Fields, field: &Field) -> Result<(), Misfit> {
    let name = field.name();
    if let Some(other) = file.iter().find(|f| f.name().eq_ignore_ascii_case(name)) {
        return Err(Misfit {
            why: format!("the file has no column {name:?}, but {:?}", other.name()),
            help: format!("declare it  `{}`: columns are known by their names, as they are written", other.name()),
        });
    }
    if field.is_nullable() {
        return Ok(());
    }
    let names: Vec<&str> = file.iter().map(|f| f.name().as_str()).collect();
    Err(Misfit { why: format!("the file has no column {name:?}, which is NOT NULL"), help: format!("it has: {}", names.join(", ")) })
}

impl Step {
    fn of(file: &DataType, table: &DataType) -> Option<Step> {
        match (file, table) {
            (DataType::Struct(file), DataType::Struct(table)) => {
                let member = |field: &FieldRef| match find(file, field.name()) {
                    Some((at, found)) => Step::of(found.data_type(), field.data_type()).map(|step| Some((at, step))),
                    None => absent(file, field).ok().map(|()| None),
                };
                Some(Step::Row(table.clone(), table.iter().map(member).collect::<Option<_>>()?))
            }
            (DataType::List(file), DataType::List(table)) => {
                Some(Step::List(table.clone(), Box::new(Step::of(file.data_type(), table.data_type())?)))
            }
            (DataType::Map(file, _), DataType::Map(entries, _)) => {
                let (DataType::Struct(file), DataType::Struct(table)) = (file.data_type(), entries.data_type()) else { return None };
                let ([file_key, file_value], [key, value]) = (&file[..], &table[..]) else { return None };
                let steps = (Step::of(file_key.data_type(), key.data_type())?, Step::of(file_value.data_type(), value.data_type())?);
                Some(Step::Map(entries.clone(), table.clone(), Box::new(steps)))
            }
            (file, table) if file == table => Some(Step::Same),
            (file, table) => Step::of_units(file, table).or_else(|| is_exact(file, table).then(|| Step::Cast(table.clone()))),
        }
    }

    fn of_units(file: &DataType, table: &DataType) -> Option<Step> {
        let (from, to) = match (file, table) {
            (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => (from, to),
            (DataType::Time64(from), DataType::Time32(to)) => (from, to),
            _ => return None,
        };
        let (from, to) = (per_second(*from), per_second(*to));
        Some(if to >= from { Step::Times(to / from, table.clone()) } else { Step::Whole(from / to, table.clone()) })
    }

    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        match self {
            Step::Same => Ok(values.clone()),
            Step::Cast(kind) => strict(values, kind),
            Step::Times(by, kind) => {
                let of = |value: i64| {
                    value.checked_mul(*by).ok_or_else(|| ArrowError::ComputeError("a time lies beyond what the column's type holds".into()))
                };
                in_units(values, kind, of)
            }
            Step::Whole(by, kind) => {
                let of = |value: i64| if value % by == 0 { Ok(value / by) } else { Err(too_fine()) };
                in_units(values, kind, of)
            }
            Step::Row(fields, members) => {
                let rows = values.as_struct();
                let member = |(member, field): (&Option<(usize, Step)>, &FieldRef)| match member {
                    Some((at, step)) => step.apply(rows.column(*at)),
                    None => Ok(new_null_array(field.data_type(), rows.len())),
                };
                let columns = members.iter().zip(fields).map(member).collect::<Result<Vec<_>, _>>()?;
                Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, rows.nulls().cloned(), rows.len())?))
            }
            Step::List(field, step) => {
                let lists = values.as_list::<i32>();
                let items = step.apply(lists.values())?;
                Ok(Arc::new(ListArray::try_new(field.clone(), lists.offsets().clone(), items, lists.nulls().cloned())?))
            }
            Step::Map(entries, fields, steps) => {
                let maps = values.as_map();
                let columns = vec![steps.0.apply(maps.keys())?, steps.1.apply(maps.values())?];
                let pairs = StructArray::try_new(fields.clone(), columns, None)?;
                Ok(Arc::new(MapArray::try_new(entries.clone(), maps.offsets().clone(), pairs, maps.nulls().cloned(), false)?))
            }
        }
    }
}

fn too_fine() -> ArrowError {
    ArrowError::ComputeError("a time has a finer unit than the column's type: declare it with more digits, TIMESTAMP(6) or (9)".into())
}

fn strict(values: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(values, kind, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Times as numbers, changed, and as times again.
fn in_units(values: &ArrayRef, kind: &DataType, of: impl Fn(i64) -> Result<i64, ArrowError>) -> Result<ArrayRef, ArrowError> {
    let numbers = strict(values, &DataType::Int64)?;
    let changed: Int64Array = PrimitiveArray::try_unary(numbers.as_primitive::<Int64Type>(), of)?;
    let changed: ArrayRef = Arc::new(changed);
    match kind {
        DataType::Time32(_) => strict(&strict(&changed, &DataType::Int32)?, kind),
        _ => strict(&changed, kind),
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Bits of an integer's value without its sign.
fn bits(kind: &DataType) -> Option<u32> {
    Some(match kind {
        DataType::Int8 => 7,
        DataType::UInt8 => 8,
        DataType::Int16 => 15,
        DataType::UInt16 => 16,
        DataType::Int32 => 31,
        DataType::UInt32 => 32,
        DataType::Int64 => 63,
        DataType::UInt64 => 64,
        _ => return None,
    })
}

/// Whether each value of the one type is a value of the other.
fn is_exact(from: &DataType, to: &DataType) -> bool {
    // Digits that any number of so many bits fits into.
    let digits = |bits: u32| match bits {
        0..=8 => 3,
        9..=16 => 5,
        17..=32 => 10,
        33..=63 => 19,
        _ => 20,
    };
    match (from, to) {
        (DataType::Float16, DataType::Float32 | DataType::Float64) | (DataType::Float32, DataType::Float64) => true,
        (DataType::FixedSizeBinary(_), DataType::Binary) => true,
        (from, DataType::Float32) => bits(from).is_some_and(|bits| bits <= 24),
        (from, DataType::Float64) => bits(from).is_some_and(|bits| bits <= 53),
        (DataType::Decimal128(p, s) | DataType::Decimal256(p, s), DataType::Decimal128(precision, scale)) => {
            s <= scale && i16::from(*p) - i16::from(*s) <= i16::from(*precision) - i16::from(*scale)
        }
        (from, DataType::Decimal128(precision, scale)) => {
            bits(from).is_some_and(|bits| digits(bits) <= i16::from(*precision) - i16::from(*scale))
        }
        (from, to) if to.is_signed_integer() => bits(from).zip(bits(to)).is_some_and(|(from, to)| from <= to),
        _ => false,
    }
}

/// The leaves of a file's columns, by their number, that a table's columns are made of.
pub(super) fn leaves(file: &Fields, wanted: &Fields) -> Vec<usize> {
    let (mut next, mut picked) = (0, Vec::new());
    for field in file {
        match find(wanted, field.name()) {
            Some((_, wanted)) => pick(field.data_type(), Some(wanted.data_type()), &mut next, &mut picked),
            None => pick(field.data_type(), None, &mut next, &mut picked),
        }
    }
    picked
}

/// Those below a type of which this much is wanted.
fn pick(file: &DataType, wanted: Option<&DataType>, next: &mut usize, picked: &mut Vec<usize>) {
    match (file, wanted) {
        (DataType::Struct(file), Some(DataType::Struct(wanted))) => {
            let (first, before) = (*next, picked.len());
            for field in file {
                pick(field.data_type(), find(wanted, field.name()).map(|(_, field)| field.data_type()), next, picked);
            }
            if picked.len() == before {
                // Which rows there are is known from any leaf.
                picked.push(first);
            }
        }
        (DataType::Struct(file), Some(whole)) => file.iter().for_each(|field| pick(field.data_type(), Some(whole), next, picked)),
        (DataType::Struct(file), None) => file.iter().for_each(|field| pick(field.data_type(), None, next, picked)),
        (DataType::Map(file, _), Some(DataType::Map(wanted, _))) => {
            // Keys and values go by their places, not by their names.
            let (DataType::Struct(file), DataType::Struct(wanted)) = (file.data_type(), wanted.data_type()) else { return };
            file.iter().zip(wanted).for_each(|(file, wanted)| pick(file.data_type(), Some(wanted.data_type()), next, picked));
        }
        (DataType::List(file), Some(DataType::List(wanted))) => pick(file.data_type(), Some(wanted.data_type()), next, picked),
        (DataType::List(item) | DataType::Map(item, _), wanted) => pick(item.data_type(), wanted, next, picked),
        (_, wanted) => {
            if wanted.is_some() {
                picked.push(*next);
            }
            *next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, DataType)]) -> Fields {
        all.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect()
    }

    fn row(all: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields(all))
    }

    #[test]
    fn numbers_fit_where_no_value_is_lost() {
        let fits = |from: DataType, to: DataType| Step::of(&from, &to).is_some();
        use DataType::*;
        for (from, to) in [
            (Int8, Int16),
            (Int32, Int64),
            (UInt8, Int16),
            (UInt32, Int64),
            (Int16, Float32),
            (Int32, Float64),
            (Float32, Float64),
            (Int32, Decimal128(12, 2)),
            (UInt64, Decimal128(20, 0)),
            (Decimal128(10, 2), Decimal128(12, 3)),
            (Decimal128(9, 0), Decimal128(9, 0)),
            (FixedSizeBinary(16), Binary),
            (Time64(TimeUnit::Microsecond), Time32(TimeUnit::Millisecond)),
        ] {
            assert!(fits(from.clone(), to.clone()), "{from} {to}");
        }
        for (from, to) in [
            (Int64, Int32),
            (UInt32, Int32),
            (UInt64, Int64),
            (Int32, Float32),
            (Int64, Float64),
            (Float64, Float32),
            (Int32, Decimal128(11, 2)),
            (Decimal128(10, 2), Decimal128(10, 3)),
            (Decimal128(10, 2), Decimal128(10, 1)),
            (Utf8, Int32),
            (Int32, Utf8),
            (Binary, Utf8),
            (Date32, Timestamp(TimeUnit::Millisecond, None)),
            (Boolean, Int32),
        ] {
            assert!(!fits(from.clone(), to.clone()), "{from} {to}");
        }
    }

    #[test]
    fn only_leaves_that_are_wanted_are_read() {
        let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
        let inner = row(&[("x", DataType::Int32), ("y", DataType::Int32)]);
        let file = fields(&[("a", DataType::Int32), ("r", inner.clone()), ("l", list(inner.clone())), ("z", DataType::Utf8)]);
        let some = row(&[("y", DataType::Int32)]);
        let other = row(&[("w", DataType::Int32)]);
        assert_eq!(leaves(&file, &fields(&[("z", DataType::Utf8), ("r", some.clone())])), [2, 5]);
        assert_eq!(leaves(&file, &fields(&[("l", list(some)), ("none", DataType::Utf8)])), [4]);
        assert_eq!(leaves(&file, &fields(&[("r", other)])), [1], "which rows there are");
        assert_eq!(leaves(&file, &fields(&[])), [] as [usize; 0]);
    }

    #[test]
    fn what_does_not_fit_is_said_by_name() {
        let schema = |fields: &Fields| Arc::new(arrow::datatypes::Schema::new(fields.clone()));
        let misfit = |wanted: Fields| {
            Fit::of(&fields(&[("id", DataType::Int64)]), &wanted, &schema(&wanted), |kind| kind.to_string()).err().map(|misfit| misfit.why)
        };
        assert_eq!(misfit(fields(&[("id", DataType::Int32)])).unwrap(), "column \"id\" is Int64 in the file and Int32 in the table");
        assert_eq!(misfit(fields(&[("ID", DataType::Int64)])).unwrap(), "the file has no column \"ID\", but \"id\"");
        assert_eq!(misfit(fields(&[("x", DataType::Int64)])), None);
        let needed: Fields = vec![Field::new("x", DataType::Int64, false)].into();
        assert_eq!(misfit(needed).unwrap(), "the file has no column \"x\", which is NOT NULL");
    }

    #[test]
    fn units_of_time_are_exact_or_refused() {
        let kind = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
        let made = |from: DataType, to: DataType, values: Vec<Option<i64>>| {
            let values = strict(&(Arc::new(Int64Array::from(values)) as ArrayRef), &from).unwrap();
            let made = Step::of(&from, &to).unwrap().apply(&values)?;
            assert_eq!(*made.data_type(), to);
            Ok::<_, ArrowError>(strict(&made, &DataType::Int64).unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>())
        };
        let (ms, us, ns) = (TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond);
        assert_eq!(made(kind(us, None), kind(ms, Some("UTC")), vec![Some(-2_000), None]).unwrap(), [Some(-2), None]);
        assert!(made(kind(us, None), kind(ms, None), vec![Some(2_001)]).unwrap_err().to_string().contains("finer"));
        assert_eq!(made(kind(ms, Some("UTC")), kind(ns, None), vec![Some(7)]).unwrap(), [Some(7_000_000)]);
        assert!(made(kind(ms, None), kind(ns, None), vec![Some(i64::MAX / 2)]).is_err());
        let times = made(DataType::Time64(us), DataType::Time32(ms), vec![Some(86_399_999_000)]);
        assert_eq!(times.unwrap(), [Some(86_399_999)]);
    }
}
