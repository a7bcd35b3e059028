//! Schemas and the codec, on types as users write them.

use crate::state::value::{check_codec, decode, encode};
use crate::state::{StateValue, check_schema, schema_of};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Account {
    id: Id,
    since: chrono::DateTime<chrono::Utc>,
    limits: BTreeMap<String, Option<i64>>,
    tier: Tier,
    tree: Option<Box<Tree>>,
    host: std::net::IpAddr,
    digest: [u8; 4],
    odd: std::num::NonZeroU32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Id(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tier {
    Low,
    Mid(u8),
    High { since: i64, by: String },
    Pair(u8, String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tree {
    children: Vec<Tree>,
    parent: Option<Box<Tree>>,
    after: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Expression {
    Add(Box<Expression>, Box<Expression>),
    Number(f64),
}

#[test]
fn a_schema_names_every_field() {
    assert_eq!(
        schema_of::<Account>(),
        "postcard/1 Account; Account{id: Id(u64), since: str, limits: {str: i64?}, tier: Tier, tree: Tree?, \
         host: IpAddr, digest: (u8 x 4), odd: u32}; Tree{children: [Tree], parent: Tree?, after: bool}; \
         IpAddr[V4((u8 x 4)), V6((u8 x 16))]; Tier[Low, Mid(u8), High{since: i64, by: str}, Pair(u8, str)]"
    );
}

#[test]
fn types_that_contain_themselves_end() {
    assert_eq!(schema_of::<Expression>(), "postcard/1 Expression; Expression[Add(Expression x 2), Number(f64)]");
}

#[test]
fn plain_types_have_schemas() {
    assert_eq!(schema_of::<()>(), "postcard/1 ()");
    assert_eq!(schema_of::<(u8, i64)>(), "postcard/1 (u8, i64)");
    assert_eq!(schema_of::<Option<Vec<f32>>>(), "postcard/1 [f32]?");
    assert_eq!(schema_of::<HashMap<u32, String>>(), "postcard/1 {u32: str}");
}

#[test]
fn a_changed_type_is_refused_by_field() {
    let stored = schema_of::<Tree>();
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Tree")]
    struct Changed {
        children: Vec<Changed>,
        after: u8,
        name: String,
    }
    assert!(check_schema("trees", &stored, &stored).is_ok());
    let report = check_schema("trees", &stored, &schema_of::<Changed>()).unwrap_err().report();
    for part in ["table trees", "Tree.after: bool became u8", "Tree.name: str is new and has no default"] {
        assert!(report.contains(part), "{part} in {report}");
    }
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Tier")]
    enum Fewer {
        Low,
        High { since: i64, by: String },
    }
    let report = check_schema("tiers", &schema_of::<Tier>(), &schema_of::<Fewer>()).unwrap_err().report();
    assert!(report.contains("Tier.Mid: (u8) is gone"), "{report}");
}

#[test]
fn types_that_the_codec_cannot_read_back_are_refused() {
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        A(u8),
        B(String),
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Id2,
    }
    #[derive(Serialize, Deserialize)]
    struct Id2 {
        id: u8,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        A { a: u8 },
    }
    assert!(check_codec::<Untagged>().is_err());
    assert!(check_codec::<Flat>().is_err());
    assert!(check_codec::<Tagged>().is_err());
    assert!(check_codec::<serde_json::Value>().is_err());
    assert!(check_codec::<Account>().is_ok());
}

#[test]
fn values_come_back_and_damage_is_an_error() {
    fn there_and_back<V: StateValue + PartialEq + std::fmt::Debug>(value: &V) {
        let bytes = encode(value);
        assert_eq!(&decode::<V>(&bytes).unwrap(), value);
        for len in 0..bytes.len() {
            let _ = decode::<V>(&bytes[..len]);
        }
        assert!(decode::<V>(&[&bytes[..], &[0]].concat()).is_err(), "bytes left over");
    }
    there_and_back(&Account {
        id: Id(7),
        since: chrono::DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
        limits: [("eur".to_string(), Some(5)), ("usd".to_string(), None)].into(),
        tier: Tier::High { since: -1, by: "x".into() },
        tree: Some(Box::new(Tree { children: vec![], parent: None, after: true })),
        host: [127, 0, 0, 1].into(),
        digest: [1, 2, 3, 4],
        odd: 3.try_into().unwrap(),
    });
    there_and_back(&Expression::Add(Expression::Number(1.5).into(), Expression::Number(2.0).into()));
}
