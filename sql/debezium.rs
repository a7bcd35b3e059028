//! Debezium's envelope: a record says what has become of a row, with the row before and after.
//!
//! `{"before": {..}, "after": {..}, "op": "c"}`, perhaps within `payload` beside a `schema`. c and r bring a row, u changes one, d takes it
//! away. What databases leave out of `before` does no harm to a table with a primary key: its rows are known by that alone.
//!
//! Invariant: a record gives all of its changes or none and an error; an update is the row that goes, then the one that comes, or by
//! key the latter alone.

use crate::json::{JsonRows, RowWriter};
use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::record::RowKind;

/// How the envelope is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Debezium {
    /// The envelope is the member `payload` of the record.
    pub(crate) in_payload: bool,
    /// Rows are known by a primary key: the row before an update is known then, and of one that goes no more is needed. A change
    /// of the key is, as Debezium writes it, a row that goes and one that comes.
    pub(crate) by_key: bool,
}

/// Changes being made of records.
pub(crate) struct Envelopes {
    debezium: Debezium,
    row: SchemaRef,
    rows: JsonRows,
}

/// Changes, and which of the records each is of.
pub(crate) struct Unrolled {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) of: Vec<usize>,
    pub(crate) kinds: Vec<RowKind>,
    /// Records that say nothing, and why.
    pub(crate) failed: Vec<(usize, String)>,
}

const BEFORE: usize = 0;
const AFTER: usize = 1;

impl Envelopes {
    /// Changes of rows of these columns.
    ///
    /// # Errors
    /// A type that JSON cannot be read into.
    pub(crate) fn new(debezium: &Debezium, row: SchemaRef) -> Result<Self> {
        let row_type = DataType::Struct(row.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect());
        let field = |name: &str, kind: &DataType| Field::new(name, kind.clone(), true);
        let envelope = vec![field("before", &row_type), field("after", &row_type), field("op", &DataType::Utf8)];
        let schema = match debezium.in_payload {
            true => vec![field("payload", &DataType::Struct(envelope.into()))],
            false => envelope,
        };
        Ok(Envelopes { debezium: debezium.clone(), row, rows: JsonRows::new(Arc::new(Schema::new(schema)))? })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// It is no JSON, or a member has another type.
    pub(crate) fn push(&mut self, value: &[u8]) -> std::result::Result<(), String> {
        self.rows.push(value)
    }

    /// Takes the records apart into changes.
    ///
    /// # Errors
    /// Columns beyond the limits of Arrow.
    pub(crate) fn take(&mut self) -> Result<Unrolled> {
        let records = self.rows.take()?;
        let members: StructArray = match self.debezium.in_payload {
            true => records.column(0).as_struct().clone(),
            false => records.into(),
        };
        let sides = [members.column(BEFORE).as_struct(), members.column(AFTER).as_struct()];
        let ops = members.column(2).as_string::<i32>();
        let (mut picked, mut of, mut kinds, mut failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for record in 0..members.len() {
            let op = if members.is_valid(record) && ops.is_valid(record) { ops.value(record) } else { "" };
            match self.changes(&sides, record, op) {
                Ok(changes) => {
                    for (side, kind) in changes {
                        picked.push((side, record));
                        of.push(record);
                        kinds.push(kind);
                    }
                }
                Err(why) => failed.push((record, why)),
            }
        }
        let column = |i: usize| -> Result<ArrayRef> {
            interleave(&[sides[BEFORE].column(i), sides[AFTER].column(i)], &picked)
                .map_err(|e| Error::restart("records cannot be put into columns").because(e))
        };
        let columns = (0..self.row.fields().len()).map(column).collect::<Result<_>>()?;
        Ok(Unrolled { columns, of, kinds, failed })
    }

    fn changes(&self, sides: &[&StructArray; 2], record: usize, op: &str) -> std::result::Result<Vec<(usize, RowKind)>, String> {
        let has = |side: usize| sides[side].is_valid(record);
        let mut changes = Vec::with_capacity(2);
        match op {
            "c" | "r" => changes.push((AFTER, RowKind::Insert)),
            "u" => {
                if !self.debezium.by_key {
                    changes.push((BEFORE, RowKind::UpdateBefore));
                }
                changes.push((AFTER, RowKind::UpdateAfter));
            }
            "d" => changes.push((BEFORE, RowKind::Delete)),
            "" => return Err("the record has no \"op\": it is no change as Debezium writes it".into()),
            other => return Err(format!("\"op\": {other:?} is not c, r, u or d")),
        }
        for &(side, _) in &changes {
            if !has(side) {
                return Err(if side == BEFORE {
                    format!(
                        "a change with \"op\": {op:?} has no \"before\": let the database log whole rows (a PRIMARY KEY spares it that of updates)"
                    )
                } else {
                    format!("a change with \"op\": {op:?} has no \"after\"")
                });
            }
            // Of the row before a database may say no more than its key.
            let is_partial = side == BEFORE && self.debezium.by_key;
            let broken = |(field, column): &(&Arc<Field>, &ArrayRef)| !field.is_nullable() && column.is_null(record);
            let broken = self.row.fields().iter().zip(sides[side].columns()).find(broken).filter(|_| !is_partial);
            if let Some((field, _)) = broken {
                return Err(format!("column {} is NOT NULL and has no value", field.name()));
            }
        }
        Ok(changes)
    }
}

/// Appends a change as Flink writes it: a row that comes is one made, one that goes is one deleted.
///
/// # Errors
/// A value that JSON cannot say.
pub(crate) fn write_change(rows: &RowWriter<'_>, row: usize, kind: RowKind, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    if kind.weight() > 0 {
        out.extend_from_slice(b"{\"before\":null,\"after\":");
        rows.json(row, out)?;
        out.extend_from_slice(b",\"op\":\"c\"}");
    } else {
        out.extend_from_slice(b"{\"before\":");
        rows.json(row, out)?;
        out.extend_from_slice(b",\"after\":null,\"op\":\"d\"}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Int64Type;

    #[test]
    fn what_is_written_is_read_back() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]));
        let mut rows = JsonRows::new(schema.clone()).unwrap();
        for record in [r#"{"id":1,"s":"a"}"#, r#"{"id":2}"#, r#"{"id":3,"s":"\"c\""}"#] {
            rows.push(record.as_bytes()).unwrap();
        }
        let batch = rows.take().unwrap();
        let kinds = [RowKind::Insert, RowKind::UpdateBefore, RowKind::Delete];
        let mut envelopes = Envelopes::new(&Debezium { in_payload: false, by_key: false }, schema).unwrap();
        for (row, kind) in kinds.into_iter().enumerate() {
            let mut out = Vec::new();
            write_change(&RowWriter::of(&batch), row, kind, &mut out).unwrap();
            envelopes.push(&out).unwrap();
        }
        let unrolled = envelopes.take().unwrap();
        assert_eq!((unrolled.of, unrolled.kinds), (vec![0, 1, 2], vec![RowKind::Insert, RowKind::Delete, RowKind::Delete]));
        assert_eq!(unrolled.columns, batch.columns());
        assert!(unrolled.failed.is_empty());
    }

    #[test]
    fn an_update_is_two_rows_or_by_key_one() {
        let row: SchemaRef = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let of = |by_key: bool| {
            let mut envelopes = Envelopes::new(&Debezium { in_payload: false, by_key }, row.clone()).unwrap();
            envelopes.push(br#"{"before":{"id":1},"after":{"id":2},"op":"u"}"#).unwrap();
            envelopes.push(br#"{"before":null,"after":{"id":null},"op":"c"}"#).unwrap();
            let unrolled = envelopes.take().unwrap();
            assert_eq!(unrolled.failed, [(1, "column id is NOT NULL and has no value".to_string())]);
            let ids = unrolled.columns[0].as_primitive::<Int64Type>().values().to_vec();
            (ids, unrolled.kinds)
        };
        assert_eq!(of(false), (vec![1, 2], vec![RowKind::UpdateBefore, RowKind::UpdateAfter]));
        assert_eq!(of(true), (vec![2], vec![RowKind::UpdateAfter]));
    }
}
