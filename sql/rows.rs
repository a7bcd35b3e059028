//! The rows that a query's changes add up to, to be shown when the input has ended.
//!
//! Invariant: a row is there as often as it was added more than it was taken away; without ORDER BY rows are in the order of
//! their values, so that the same rows are shown the same way.

use crate::json;
use crate::kernels::value::{Cells, Value};
use crate::order::OrderBy;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use waterwheel_engine::error::Result;
use waterwheel_engine::record::ChangeBatch;

/// Rows so far.
#[derive(Debug, Default)]
pub struct FinalRows {
    rows: BTreeMap<Vec<u8>, Kept>,
}

#[derive(Debug)]
struct Kept {
    count: i64,
    values: Vec<Value>,
    shown: ShownRow,
}

/// A row as it is shown.
#[derive(Debug, Clone)]
pub struct ShownRow {
    /// Each column's text.
    pub cells: Vec<String>,
    /// The row as a JSON object, or why it has none.
    pub json: Result<String, String>,
}

impl FinalRows {
    /// Takes changes in.
    ///
    /// # Errors
    /// Columns that cannot be read: a bug.
    pub fn add(&mut self, batch: &ChangeBatch) -> Result<()> {
        let columns = batch.columns.columns();
        // What has no class is ordered by its text.
        let cells: Vec<Option<Cells>> = columns.iter().map(|c| Cells::of(c).ok()).collect();
        for row in 0..batch.times.len() {
            let mut key = Vec::new();
            let mut values = Vec::with_capacity(columns.len());
            for (column, cells) in columns.iter().zip(&cells) {
                let value = cells.as_ref().map_or_else(|| Value::Text(json::cell(column, row)), |c| c.value(row));
                value.encode(&mut key);
                values.push(value);
            }
            let weight = batch.kind(row).weight();
            let kept = self.rows.entry(key).or_insert_with(|| Kept {
                count: 0,
                values,
                shown: ShownRow { cells: columns.iter().map(|c| json::cell(c, row)).collect(), json: crate::json_row(&batch.columns, row) },
            });
            kept.count += weight;
        }
        self.rows.retain(|_, kept| kept.count != 0);
        Ok(())
    }

    /// The rows in order, but for so many at the beginning, and as many as wanted.
    pub fn finish(&self, order: &[OrderBy], offset: usize, limit: Option<usize>) -> Vec<ShownRow> {
        let mut kept: Vec<&Kept> = self.rows.values().filter(|k| k.count > 0).collect();
        kept.sort_by(|a, b| compare(a, b, order));
        let all = kept.into_iter().flat_map(|k| std::iter::repeat_n(&k.shown, usize::try_from(k.count).unwrap_or(0)));
        all.skip(offset).take(limit.unwrap_or(usize::MAX)).cloned().collect()
    }
}

fn compare(a: &Kept, b: &Kept, order: &[OrderBy]) -> Ordering {
    for by in order {
        let (x, y) = (&a.values[by.column], &b.values[by.column]);
        let nulls = match (matches!(x, Value::Null), matches!(y, Value::Null)) {
            (true, false) => Some(if by.nulls_first { Ordering::Less } else { Ordering::Greater }),
            (false, true) => Some(if by.nulls_first { Ordering::Greater } else { Ordering::Less }),
            _ => None,
        };
        let order = nulls.unwrap_or_else(|| if by.descending { y.total_cmp(x) } else { x.total_cmp(y) });
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}
