//! Types and their columns; rows there and back.

use super::*;
use arrow::datatypes::DataType as Kind;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tier {
    Basic,
    VeryBig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place(f64, Option<f32>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payment {
    #[serde(alias = "ident")]
    id: u64,
    #[serde(rename = "cardNumber")]
    card: String,
    #[serde(deserialize_with = "above_zero")]
    amount: i32,
    tier: Tier,
    at: DateTime<Utc>,
    day: NaiveDate,
    time: NaiveTime,
    letter: char,
    flag: Option<bool>,
    place: Option<Place>,
    items: Vec<Option<i16>>,
    #[serde(with = "waterwheel_engine::time::compact")]
    seen: DateTime<Utc>,
}

fn above_zero<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<i32, D::Error> {
    let n = i32::deserialize(d)?;
    if n > 0 { Ok(n) } else { Err(serde::de::Error::custom("not above zero")) }
}

fn payment(id: u64) -> Payment {
    let at: DateTime<Utc> = "2026-03-02T09:00:00.250Z".parse().unwrap();
    Payment {
        id,
        card: "4\u{e9}".into(),
        amount: 7,
        tier: Tier::VeryBig,
        at,
        day: NaiveDate::from_ymd_opt(1969, 12, 31).unwrap(),
        time: NaiveTime::from_hms_milli_opt(23, 59, 59, 999).unwrap(),
        letter: 'x',
        flag: id.is_multiple_of(2).then_some(true),
        place: id.is_multiple_of(3).then_some(Place(f64::NEG_INFINITY, None)),
        items: vec![Some(1), None],
        seen: at,
    }
}

fn encoder<T: Serialize + DeserializeOwned>(projection: &[usize], time: Option<usize>) -> Encoder<T> {
    Encoder::new(&Making { shape: Shape::of::<T>().unwrap(), projection: projection.to_vec(), time }).unwrap()
}

fn back<T: DeserializeOwned>(batch: RecordBatch) -> Vec<std::result::Result<T, String>> {
    let rows = batch.num_rows();
    let mut decoder = Decoder { is_value: Shape::of::<T>().unwrap().is_value, rows: None, kinds: None };
    decoder.look(&ChangeBatch::inserts(batch, vec![EventTime(0); rows]));
    (0..rows).map(|i| decoder.read(i)).collect()
}

#[test]
fn a_type_says_its_columns() {
    let schema = Shape::of::<Payment>().unwrap().schema;
    let shown: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{} {}{}", f.name(), type_name(f.data_type()), if f.is_nullable() { "?" } else { "" }))
        .collect();
    assert_eq!(
        shown,
        [
            "id BIGINT",
            "cardNumber STRING",
            "amount INT",
            "tier STRING",
            "at TIMESTAMP_LTZ(3)",
            "day DATE",
            "time TIME",
            "letter STRING",
            "flag BOOLEAN?",
            "place ROW<f0 DOUBLE, f1 FLOAT>?",
            "items ARRAY<SMALLINT>",
            "seen TIMESTAMP_LTZ(3)",
        ]
    );
    assert!(Shape::of::<String>().unwrap().is_value);
    assert_eq!(Shape::of::<(i64, String)>().unwrap().schema.field(1).name(), "f1");
}

#[derive(Debug, Serialize, Deserialize)]
enum Shapes {
    Plain,
    Circle(f64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Within {
    inner: Vec<Within>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    tier: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Never {
    #[serde(deserialize_with = "never")]
    n: i32,
}

fn never<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<i32, D::Error> {
    i32::deserialize(d).and_then(|_| Err(serde::de::Error::custom("nothing will do")))
}

#[test]
fn what_has_no_columns_is_refused_by_name() {
    let refused = |e: SqlResult<Shape>| e.unwrap_err().into_error("sql", "").report();
    for (error, what) in [
        (refused(Shape::of::<(i64, Shapes)>()), "its field f1 is an enum whose variants hold data"),
        (refused(Shape::of::<Within>()), "within itself"),
        (refused(Shape::of::<Flat>()), "flattened"),
        (refused(Shape::of::<BTreeMap<String, i64>>()), "it is a map"),
        (refused(Shape::of::<(i128,)>()), "128-bit"),
        (refused(Shape::of::<Option<i64>>()), "cannot be an Option"),
        (refused(Shape::of::<Never>()), "its field n refuses every value it is asked about: nothing will do"),
    ] {
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn rows_come_back_as_they_went_and_one_that_fails_leaves_nothing() {
    let all: Vec<usize> = (0..12).collect();
    let mut columns = encoder::<Payment>(&all, None);
    let rows = [payment(0), payment(u64::MAX), payment(1), payment(6)];
    for row in &rows {
        let put = RowEncoder::push(&mut columns, row, EventTime(5));
        if row.id == u64::MAX {
            assert_eq!(put.unwrap_err(), "id: 18446744073709551615 is no BIGINT");
            RowEncoder::<Payment>::cut_back(&mut columns);
        } else {
            put.unwrap();
        }
    }
    let batch = RowEncoder::<Payment>::take(&mut columns).unwrap();
    let read: Vec<Payment> = back(batch).into_iter().map(|r| r.unwrap()).collect();
    assert_eq!(read, [payment(0), payment(1), payment(6)]);
    // And again, of some columns only, with the event time behind them.
    RowEncoder::push(&mut columns, &payment(2), EventTime(5)).unwrap();
    let mut some = encoder::<Payment>(&[12, 1], Some(12));
    RowEncoder::push(&mut some, &payment(2), EventTime(77)).unwrap();
    let batch = RowEncoder::<Payment>::take(&mut some).unwrap();
    assert_eq!((crate::cell(&batch, 1, 0), batch.num_columns()), ("4\u{e9}".to_string(), 2));
    assert!(crate::cell(&batch, 0, 0).contains("00:00:00.077"), "{}", crate::cell(&batch, 0, 0));
}

#[test]
fn a_column_of_the_event_time_holds_it() {
    let mut columns = encoder::<Payment>(&[0], Some(4));
    let at = payment(1).at.timestamp_millis();
    RowEncoder::push(&mut columns, &payment(1), EventTime(at)).unwrap();
    assert!(RowEncoder::push(&mut columns, &payment(1), EventTime(at + 1)).unwrap_err().contains("holds another one"));
    RowEncoder::<Payment>::cut_back(&mut columns);
    assert_eq!(RowEncoder::<Payment>::take(&mut columns).unwrap().num_rows(), 1);
}

#[test]
fn what_a_type_does_not_take_is_an_error_of_the_row() {
    let mut columns = encoder::<(Option<i64>, String)>(&[0, 1], None);
    for row in [(Some(1), "basic".to_string()), (None, "very-big".into()), (Some(2), "huge".into())] {
        RowEncoder::push(&mut columns, &row, EventTime(0)).unwrap();
    }
    let rows = back::<(i64, Tier)>(RowEncoder::<(Option<i64>, String)>::take(&mut columns).unwrap());
    assert_eq!(rows[0], Ok((1, Tier::Basic)));
    assert!(rows[1].as_ref().unwrap_err().starts_with("f0: it is NULL"), "{rows:?}");
    assert!(rows[2].as_ref().unwrap_err().starts_with("f1: unknown variant `huge`"), "{rows:?}");
}

#[test]
fn values_of_every_kind_cross() {
    let mut texts = encoder::<String>(&[0], None);
    RowEncoder::push(&mut texts, &"a".to_string(), EventTime(0)).unwrap();
    let batch = RowEncoder::<String>::take(&mut texts).unwrap();
    assert_eq!(*batch.schema().field(0).data_type(), Kind::Utf8);
    assert_eq!(back::<String>(batch), [Ok("a".to_string())]);
    let mut nans = encoder::<(f32, f64)>(&[0, 1], None);
    RowEncoder::push(&mut nans, &(f32::MIN_POSITIVE, f64::NAN), EventTime(0)).unwrap();
    let read = back::<(f32, f64)>(RowEncoder::<(f32, f64)>::take(&mut nans).unwrap());
    assert!(matches!(read[0], Ok((least, nan)) if least == f32::MIN_POSITIVE && nan.is_nan()));
}
