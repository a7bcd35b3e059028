//! What a sink is told of event time at each barrier, as sinks of files are that mark folders as complete.
//!
//! Invariant: once every task has noted a time, no row at or before the least of these times is published any more, whatever has
//! happened between; and at the end all have noted that nothing comes any more.

use super::super::graph::{Noted, OUT, Text};
use super::super::input::{Input, Row};
use super::{Order, Output, Workload};
use std::collections::BTreeMap;
use waterwheel::engine::operators::{ProcessContext, ProcessFunction, ProcessOpen};

/// Says what comes.
struct Shown;

impl ProcessFunction<u32, Row, Text> for Shown {
    fn open(&mut self, _: &mut ProcessOpen<'_>) {}
    fn on_element(&mut self, context: &mut ProcessContext<'_, u32, Text>, row: Row) {
        context.emit((Noted::KEY.to_string(), format!("{} {}", row.id, row.at)));
    }
}

/// Rows in the order of event time, with the notes.
pub(crate) const NOTES: Workload = Workload {
    name: "progress-notes",
    draw: |draw| {
        let sorted = draw.rows().key_by(|row| row.key).sort_by_time(|row| row.id).id("sorted");
        draw.out_with_notes(&sorted.process(|| Shown).id("text"));
    },
    expect: |_| Vec::new(),
    order: Order::Open,
    also: check,
};

fn check(input: &Input, output: &Output) -> Result<(), String> {
    let mut wanted: Vec<String> = input.rows().map(|row| format!("{} {}", row.id, row.at)).collect();
    let (mut found, mut notes, mut passed) = (Vec::new(), BTreeMap::new(), i64::MIN);
    for (_, value) in output.all(OUT) {
        match Noted::parse(value).ok_or_else(|| format!("{value:?} is neither row nor note"))? {
            Noted::Progress { task, tasks, watermark } => {
                // Those of a run with another number of tasks say nothing of this one's.
                notes.retain(|_, (of, _)| *of == tasks);
                notes.insert(task, (tasks, watermark));
                if notes.len() == tasks as usize {
                    passed = notes.values().map(|(_, watermark)| *watermark).min().unwrap_or(i64::MIN).max(passed);
                }
            }
            Noted::Row(row) => {
                let at = row.split_once(' ').and_then(|(_, at)| at.parse::<i64>().ok()).ok_or("a row without a time")?;
                if at <= passed {
                    return Err(format!("row {row} is published behind notes that nothing comes before {passed} any more"));
                }
                found.push(row);
            }
        }
    }
    wanted.sort_unstable();
    found.sort_unstable();
    if found != wanted {
        return Err(format!("{} rows expected, {} committed, or others", wanted.len(), found.len()));
    }
    if passed != i64::MAX {
        return Err(format!("the last notes do not say that the input has ended: {notes:?}"));
    }
    Ok(())
}
