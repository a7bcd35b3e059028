//! Types that change between two runs of a job: what is read, what is refused, through every kind of table.

use crate::record::{Keys, key_groups_of};
use crate::state::value::encode;
use crate::state::{
    BroadcastTable, MemoryStores, OrderedTable, PointTable, RestoredSnapshot, Schema, SliceTable, StateStores, StateValue, Table,
    TableContext, WriteBatch, check_schema, evolve, schema_of, show_value,
};
use crate::testing::SimMachine;
use crate::time::EventTime;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Values of the old type, read as the new one.
fn evolved<Old: StateValue, New: StateValue>(old: &Old) -> Result<New, String> {
    let (stored, now) = (format!("point {}", schema_of::<Old>()), format!("point {}", schema_of::<New>()));
    check_schema("t", &stored, &now).map_err(|e| e.report())?;
    crate::state::described::read(&Schema::parse(&stored).unwrap(), &encode(old)).map_err(|e| e.report())
}

mod v1 {
    use super::*;
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Total {
        pub(super) amount: i32,
        pub(super) dropped: Vec<(u8, String)>,
        pub(super) sum: f32,
        pub(super) kind: Kind,
        pub(super) inner: Inner,
        pub(super) by_day: BTreeMap<u16, Option<Inner>>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Inner {
        pub(super) b: u8,
        pub(super) a: String,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) enum Kind {
        One,
        Two(u8),
        Three { x: i8 },
    }
}

mod v2 {
    use super::*;
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Total {
        /// In another place.
        pub(super) inner: Inner,
        /// Wider.
        pub(super) amount: i64,
        /// Renamed by attribute, and wider.
        #[serde(alias = "sum")]
        pub(super) total: f64,
        pub(super) kind: Kind,
        /// New.
        #[serde(default)]
        pub(super) note: String,
        #[serde(default = "seven")]
        pub(super) seven: u32,
        pub(super) perhaps: Option<u8>,
        pub(super) by_day: BTreeMap<u32, Option<Inner>>,
    }
    fn seven() -> u32 {
        7
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Inner {
        pub(super) a: Option<String>,
        pub(super) b: u16,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) enum Kind {
        New(String),
        Three { x: i16 },
        Two(u8),
        One,
    }
}

fn old_total(n: i32) -> v1::Total {
    let inner = v1::Inner { b: n as u8, a: format!("a{n}") };
    let kind = [v1::Kind::One, v1::Kind::Two(n as u8), v1::Kind::Three { x: n as i8 }][n as usize % 3].clone();
    let by_day = [(n as u16, Some(inner.clone())), (n as u16 + 1, None)].into();
    v1::Total { amount: -n, dropped: vec![(1, "x".into()); n as usize % 4], sum: n as f32 / 2.0, kind, inner, by_day }
}

fn new_total(n: i32) -> v2::Total {
    let inner = v2::Inner { b: u16::from(n as u8), a: Some(format!("a{n}")) };
    let kind = [v2::Kind::One, v2::Kind::Two(n as u8), v2::Kind::Three { x: i16::from(n as i8) }][n as usize % 3].clone();
    let by_day = [(n as u32, Some(inner.clone())), (n as u32 + 1, None)].into();
    let (note, seven, perhaps) = (String::new(), 7, None);
    v2::Total { inner, amount: -i64::from(n), total: f64::from(n) / 2.0, kind, note, seven, perhaps, by_day }
}

proptest! {
    #[test]
    fn fields_are_found_by_name(n in 0i32..120) {
        prop_assert_eq!(evolved::<v1::Total, v2::Total>(&old_total(n)), Ok(new_total(n)));
    }
}

#[test]
fn the_schema_says_what_may_be_missing_and_other_names() {
    let schema = schema_of::<v2::Total>();
    for part in ["total/sum: f64", "note: str default", "seven: u32 default", "perhaps: u8?,", "amount: i64,"] {
        assert!(schema.contains(part), "{part} in {schema}");
    }
    assert!(Schema::parse(&format!("point {schema}")).is_ok());
}

#[test]
fn what_would_lose_something_is_refused_by_name() {
    macro_rules! one {
        ($($field:tt)*) => {{
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            struct T { $($field)* }
            schema_of::<T>()
        }};
    }
    let refused = |old: String, new: String, part: &str| {
        let report = check_schema("t", &format!("point {old}"), &format!("point {new}")).unwrap_err().report();
        assert!(report.contains(part), "{part} in {report}");
    };
    refused(one!(a: i64,), one!(a: i32,), "T.a: i64 became i32");
    refused(one!(a: i32,), one!(a: u64,), "T.a: i32 became u64");
    refused(one!(a: u32,), one!(a: i32,), "T.a: u32 became i32");
    refused(one!(a: u64,), one!(a: f64,), "T.a: u64 became f64");
    refused(one!(a: String,), one!(a: i64,), "T.a: str became i64");
    refused(one!(a: Option<u8>,), one!(a: u8,), "T.a: u8? became u8");
    refused(one!(a: Vec<u8>,), one!(a: Option<u8>,), "T.a: [u8] became u8");
    refused(one!(a: (u8, u16),), one!(a: (u8, u16, u32),), "T.a: (u8, u16) became (u8, u16, u32)");
    refused(one!(a: u8,), one!(a: u8, b: u8,), "T.b: u8 is new and has no default");
    refused(one!(a: u8, b: u8,), one!(#[serde(alias = "b")] a: u8,), "stored as b too");
    refused("postcard/1 u8".into(), "postcard/2 u8".into(), "became");
    let report = check_schema("t", "point postcard/1 u8", "slice postcard/1 u8").unwrap_err().report();
    assert!(report.contains("the table was `point` and is `slice`"), "{report}");
    let report = check_schema("t", "point key str postcard/1 u8", "point key u64 postcard/1 u8").unwrap_err().report();
    assert!(report.contains("the key was str and is u64"), "{report}");
    let report = check_schema("t", "append postcard/1 u8", "append postcard/1 u16").unwrap_err().report();
    assert!(report.contains("rows that wait for others cannot change"), "{report}");
}

#[test]
fn wider_is_fine_in_every_direction_that_holds_all_values() {
    assert_eq!(evolved::<u8, i16>(&200), Ok(200));
    assert_eq!(evolved::<u64, i128>(&u64::MAX), Ok(i128::from(u64::MAX)));
    assert_eq!(evolved::<i8, i64>(&-3), Ok(-3));
    assert_eq!(evolved::<f32, f64>(&1.5), Ok(1.5));
    assert_eq!(evolved::<Vec<u8>, Vec<Option<u16>>>(&vec![1, 2]), Ok(vec![Some(1), Some(2)]));
    assert_eq!(evolved::<(u8, String), (u16, String)>(&(1, "x".into())), Ok((1, "x".into())));
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(u32);
    assert_eq!(evolved::<u16, Wrapped>(&9), Ok(Wrapped(9)));
}

fn context(store: std::sync::Arc<dyn crate::state::StateStore>) -> TableContext {
    TableContext { operator: "o".into(), store, groups: key_groups_of(0, 1, 8), max_parallelism: 8 }
}

/// Writes a table of the old type, restores it as the new one.
fn restored<Old: Table, New: Table>(mut old: Old, fill: impl FnOnce(&mut Old), mut new: New) -> New {
    let stores = MemoryStores::new(SimMachine::new(1).env());
    let store = stores.create(Path::new("/a")).unwrap();
    old.open(&context(store.clone()), false).unwrap();
    fill(&mut old);
    old.freeze(1);
    let mut writes = WriteBatch::default();
    while !old.drain(&mut writes, 7).unwrap() {}
    store.write(&writes).unwrap();
    store.checkpoint(Path::new("/snap")).unwrap();
    let store = stores.restore(Path::new("/b"), &[RestoredSnapshot { dir: "/snap".into(), groups: 0..8 }], 0..8).unwrap();
    evolve(&new, &context(store.clone()), &old.schema()).unwrap();
    new.open(&context(store), true).unwrap();
    new
}

#[test]
fn every_kind_of_table_is_rewritten() {
    let keys = Keys::encode((0..30u64).collect::<Vec<_>>().into_iter());
    let mut slots = Vec::new();
    let mut point = restored(
        PointTable::<v1::Total>::new("t").with_ttl(1_000),
        |t| {
            t.resolve(&keys, &mut slots).unwrap();
            for (n, &slot) in slots.iter().enumerate() {
                t.insert(slot, old_total(n as i32));
                t.touch(slot, EventTime(n as i64));
            }
        },
        PointTable::<v2::Total>::new("t").with_ttl(1_000),
    );
    point.expire(EventTime(1_009));
    let mut seen = Vec::new();
    point.for_each(|_, value| seen.push(value.clone())).unwrap();
    assert_eq!(seen, (10..30).map(new_total).collect::<Vec<_>>(), "times of last use are kept");

    let mut ordered = restored(
        OrderedTable::<v1::Inner>::new("t"),
        |t| t.insert(EventTime(5), &7u64.to_be_bytes(), b"x", old_total(3).inner),
        OrderedTable::<v2::Inner>::new("t"),
    );
    assert_eq!(ordered.pop_due(EventTime(5)).unwrap().unwrap().value, new_total(3).inner);

    let slices = restored(
        SliceTable::<v1::Kind>::new("t"),
        |t| {
            t.resolve(&keys, &mut slots);
            t.slice(10).put(slots[4], old_total(5).kind);
        },
        SliceTable::<v2::Kind>::new("t"),
    );
    let mut kinds = slices;
    kinds.resolve(&keys, &mut slots);
    kinds.recall([(10, slots[4])].into_iter()).unwrap();
    assert_eq!(kinds.get(10, slots[4]), Some(&new_total(5).kind));

    let map = restored(BroadcastTable::<u64, u8>::new("t"), |t| t.change(1, Some(3)), BroadcastTable::<u64, Option<u32>>::new("t"));
    assert_eq!(map.get(&1), Some(&Some(3)));
}

#[test]
fn values_are_shown_without_their_type() {
    let schema = Schema::parse(&format!("point {}", schema_of::<v1::Total>())).unwrap();
    let shown = show_value(&schema, &encode(&old_total(2))).unwrap();
    assert_eq!(
        shown.to_string(),
        r#"{"amount":-2,"by_day":{"2":{"a":"a2","b":2},"3":null},"dropped":[[1,"x"],[1,"x"]],"inner":{"a":"a2","b":2},"kind":{"Three":{"x":2}},"sum":1.0}"#
    );
    assert!(show_value(&schema, &encode(&old_total(2))[1..]).is_err(), "damage is an error");
}
