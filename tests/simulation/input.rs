//! What a simulated job reads: rows of several splits, a table, records that are no rows; all from the seed.
//!
//! Invariant: within a split a row is never further behind the highest time than `disorder_ms`, so that a watermark of that
//! bound makes none late; an id names its split (`id % splits`) and grows within it.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use waterwheel::engine::testing::{SimBroker, SimMachine, SimRecord};

/// Topic with the rows.
pub(crate) const ROWS: &str = "rows";
/// Topic with the table's changes.
pub(crate) const TABLE: &str = "table";

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Unique.
    pub(crate) id: u32,
    /// Shared by rows of all splits.
    pub(crate) key: u32,
    /// The id, or for a repeat that of an earlier row of the split.
    pub(crate) tag: u32,
    /// Event time in milliseconds.
    pub(crate) at: i64,
}

impl Row {
    /// As a record of this form.
    fn written(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Json => format!("{{\"id\":{},\"key\":{},\"ms\":{}}}", self.id, self.key, self.at).into_bytes(),
            Form::Plain | Form::WithBad => self.encode(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let parts = [&self.id.to_le_bytes()[..], &self.key.to_le_bytes(), &self.tag.to_le_bytes(), &self.at.to_le_bytes()];
        parts.concat()
    }

    /// Reads a row back, or says why it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Row, String> {
        let number = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let time = bytes.get(12..).and_then(|b| b.try_into().ok()).map(i64::from_le_bytes);
        match (number(0), number(4), number(8), time) {
            (Some(id), Some(key), Some(tag), Some(at)) => Ok(Row { id, key, tag, at }),
            _ => Err(format!("{} bytes are no row", bytes.len())),
        }
    }
}

/// How rows become records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Numbers one behind the other.
    Plain,
    /// So, with records between that are no rows.
    WithBad,
    /// JSON.
    Json,
}

/// All input of a run.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Rows by split, in order.
    pub(crate) splits: Vec<Vec<Row>>,
    /// Records that are no rows, by split, in order.
    pub(crate) bad: Vec<Vec<Vec<u8>>>,
    /// Changes of the table, in order: key, and value or removal.
    pub(crate) changes: Vec<(u32, Option<u32>)>,
    /// How far rows of a split may be behind its highest time.
    pub(crate) disorder_ms: i64,
    /// A size for windows, delays and the like.
    pub(crate) span_ms: i64,
    /// For what else the workload wants to vary.
    pub(crate) variant: u64,
}

impl Input {
    /// Makes the input of a run and puts it into its topics.
    pub(crate) fn make(machine: &SimMachine, broker: &SimBroker, rows: usize, form: Form) -> Arc<Input> {
        let pick = |n: usize| machine.choose(n);
        let splits = 2 + pick(3);
        let keys = 1 + pick(40);
        let (jitter_ms, steps) = [(0, 30), (5, 4), (50, 30), (400, 30)][pick(4)];
        let step = 1 + pick(steps) as i64;
        let begin = [-50_000, -1, 0, 1_700_000_000_000][pick(4)];
        let mut input = Input {
            splits: vec![Vec::new(); splits],
            bad: vec![Vec::new(); splits],
            changes: Vec::new(),
            // As tight as can be: the last millisecond counts.
            disorder_ms: (jitter_ms - step).max(0),
            span_ms: 20 + pick(2_000) as i64,
            variant: pick(usize::MAX) as u64,
        };
        broker.create(ROWS, splits as u32);
        for i in 0..rows / splits {
            for split in 0..splits {
                if form == Form::WithBad && pick(40) == 0 {
                    let bad = format!("bad {split}/{i}").into_bytes();
                    broker.append(ROWS, split, 0, record(None, Some(bad.clone()), i as i64), false);
                    input.bad[split].push(bad);
                }
                let id = (i * splits + split) as u32;
                let seen = &input.splits[split];
                let tag = if pick(8) == 0 && !seen.is_empty() { seen[seen.len() - 1 - pick(seen.len().min(6))].tag } else { id };
                // The first and the last millisecond are where rules are off by one.
                let jitter = [0, jitter_ms, pick(jitter_ms as usize + 1) as i64][pick(3)];
                let at = begin + i as i64 * step + jitter;
                let row = Row { id, key: pick(keys) as u32, tag, at };
                // Ends of transactions and the like take offsets of their own; what was aborted must not be read.
                let gap = if pick(10) == 0 { pick(3) as i64 } else { 0 };
                if pick(30) == 0 {
                    let ghost = Row { id: u32::MAX, ..row };
                    broker.append(ROWS, split, 0, record(None, Some(ghost.written(form)), at), true);
                }
                broker.append(ROWS, split, gap, record(None, Some(row.written(form)), at), false);
                input.splits[split].push(row);
            }
        }
        // Often fewer than tasks: then one has nothing to read in, and must say so.
        let parts = [1, 1, 2, 3][pick(4)];
        broker.create(TABLE, parts as u32);
        for n in 0..keys as u32 * 2 {
            let (key, value) = (pick(keys) as u32, (pick(5) > 0).then_some(n));
            let name = key.to_string();
            let partition = key as usize % parts;
            broker.append(TABLE, partition, 0, record(Some(name.into_bytes()), value.map(|v| entry(key, v)), 0), false);
            input.changes.push((key, value));
        }
        Arc::new(input)
    }

    /// All rows, split by split.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.splits.iter().flatten()
    }
}

fn record(key: Option<Vec<u8>>, value: Option<Vec<u8>>, timestamp: i64) -> SimRecord {
    SimRecord { offset: 0, timestamp, key, value, headers: Vec::new() }
}

fn entry(key: u32, value: u32) -> Vec<u8> {
    [key.to_le_bytes(), value.to_le_bytes()].concat()
}

/// Reads an entry of the table back.
pub(crate) fn decode_entry(bytes: &[u8]) -> Result<(u32, u32), String> {
    match (bytes.get(..4).and_then(|b| b.try_into().ok()), bytes.get(4..).and_then(|b| b.try_into().ok())) {
        (Some(key), Some(value)) => Ok((u32::from_le_bytes(key), u32::from_le_bytes(value))),
        _ => Err("no entry of the table".into()),
    }
}
