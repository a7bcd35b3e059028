//! Rows by key that only ever come, as a subject.

use super::tables::{bytes, keys, steps};
use super::{Subject, run};
use crate::state::PileTable;
use proptest::prelude::*;
use std::collections::BTreeMap;
use twox_hash::XxHash3_64;

struct Pile;

/// Side, key, row; some rows are longer than a chunk.
type Added = (usize, u8, Vec<u8>);

fn added() -> impl Strategy<Value = Added> {
    let row = prop_oneof![9 => proptest::collection::vec(any::<u8>(), 0..40), 1 => proptest::collection::vec(any::<u8>(), 120..300)];
    (0usize..2, 0u8..6, row)
}

impl Subject for Pile {
    type Op = Added;
    /// By side and key, newest first.
    type Model = BTreeMap<(usize, u8), Vec<Vec<u8>>>;
    type Table = PileTable;

    fn make() -> PileTable {
        PileTable::new("p", "bytes")
    }

    fn apply(table: &mut PileTable, model: &mut Self::Model, (side, key, row): &Added) {
        let mut slots = Vec::new();
        table.resolve(&keys([*key].into_iter()), &mut slots);
        table.touch(*side, &slots);
        table.add(*side, slots[0], row);
        model.entry((*side, *key)).or_default().insert(0, row.clone());
    }

    fn read(table: &mut PileTable) -> Self::Model {
        let mut model = Self::Model::new();
        for key in 0..6 {
            let name = bytes(key);
            let Some(slot) = table.index().find(&name, XxHash3_64::oneshot(&name)) else { continue };
            for side in 0..2 {
                let rows: Vec<_> = table.rows(side, slot).map(|row| row.unwrap().into_owned()).collect();
                if !rows.is_empty() {
                    model.insert((side, key), rows);
                }
            }
        }
        assert_eq!(table.len(), model.values().map(Vec::len).sum::<usize>());
        model
    }

    fn merge(mut a: Self::Model, b: Self::Model) -> Self::Model {
        a.extend(b);
        a
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn pile_table_is_a_list_of_each_side_and_key(script in steps(added())) {
        run::<Pile>(&script);
    }
}
