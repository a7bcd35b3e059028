//! A sink that shows a query's rows: as they come, or what they add up to when the input has ended.
//!
//! Invariant: a row that is shown is shown whole, and control characters in data do not steer the terminal.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Guarantee, LanePublisher, PublisherContext, SegmentRef, Sink, SinkWriter, WriterContext};
use waterwheel_engine::record::{BatchBox, ChangeBatch, Epoch, downcast};
use waterwheel_sql::{FinalRows, Planned, ShownRow, cell, change_line, json_row};

/// How rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A table; of rows that change, the changes, unless the input ends.
    Table,
    /// A JSON object a line.
    Json,
    /// Comma-separated values with a heading.
    Csv,
    /// Every change, as Flink writes it: `+I[1, a]`.
    Changelog,
}

impl std::str::FromStr for Form {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "table" => Ok(Form::Table),
            "json" => Ok(Form::Json),
            "csv" => Ok(Form::Csv),
            "changelog" => Ok(Form::Changelog),
            _ => Err("it is table, json, csv or changelog".into()),
        }
    }
}

/// The rows of one query.
#[derive(Clone)]
pub(super) struct Results {
    form: Form,
    names: Arc<[String]>,
    /// Rows are shown when the input has ended.
    collects: bool,
    /// So many rows are left out first.
    offset: usize,
    limit: Option<usize>,
    order: Arc<[waterwheel_sql::OrderBy]>,
    state: Arc<Mutex<State>>,
}

struct State {
    out: Box<dyn Write + Send>,
    rows: FinalRows,
    left_out: usize,
    shown: usize,
    headed: bool,
}

impl Results {
    /// For a query. `collects`: its rows are shown when the input has ended.
    pub(super) fn new(query: &Planned, form: Form, collects: bool, out: Box<dyn Write + Send>) -> Self {
        Results {
            form,
            names: query.schema().fields().iter().map(|f| f.name().clone()).collect(),
            collects: collects && form != Form::Changelog,
            offset: query.offset(),
            limit: query.limit(),
            order: query.order().into(),
            state: Arc::new(Mutex::new(State { out, rows: FinalRows::default(), left_out: 0, shown: 0, headed: false })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The input has ended: shows what was collected. How many rows were shown in all.
    pub(super) fn finish(&self) -> Result<usize> {
        let mut state = self.state();
        if self.collects {
            let rows = state.rows.finish(&self.order, self.offset, self.limit);
            state.shown = rows.len();
            let text = match self.form {
                Form::Table => table(&self.names, &rows),
                Form::Json => lines(&rows, |row| row.json.clone().unwrap_or_else(|e| format!("{{\"error\":{e:?}}}"))),
                Form::Csv | Form::Changelog => format!("{}\n{}", csv(&self.names), lines(&rows, |row| csv(&row.cells))),
            };
            write(&mut state.out, &text)?;
        }
        Ok(state.shown)
    }

    fn show(&self, state: &mut State, batch: &ChangeBatch) -> Result<()> {
        let mut text = String::new();
        let columns = &batch.columns;
        let changes = batch.kinds.is_some();
        let cells = |row| (0..columns.num_columns()).map(|c| cell(columns, c, row)).collect::<Vec<_>>();
        if !state.headed {
            state.headed = true;
            match self.form {
                Form::Csv => text.push_str(&format!("{}\n", csv(&self.names))),
                Form::Table => text.push_str(&format!("{}\n", self.names.join(" │ "))),
                Form::Json | Form::Changelog => {}
            }
        }
        for row in 0..batch.times.len() {
            if self.limit.is_some_and(|limit| state.shown >= limit) {
                break;
            }
            if state.left_out < self.offset {
                state.left_out += 1;
                continue;
            }
            state.shown += 1;
            let kind = batch.kind(row);
            let line = match self.form {
                Form::Changelog => change_line(kind, columns, row),
                Form::Table if changes => change_line(kind, columns, row),
                Form::Table => cells(row).join(" │ "),
                Form::Csv if changes => format!("{},{}", kind.short(), csv(&cells(row))),
                Form::Csv => csv(&cells(row)),
                Form::Json => {
                    let object = json_row(columns, row).map_err(|e| Error::fatal(format!("a row has no JSON: {e}")))?;
                    if changes { format!("{{\"op\":\"{}\",\"row\":{object}}}", kind.short()) } else { object }
                }
            };
            text.push_str(&printable(&line));
            text.push('\n');
        }
        write(&mut state.out, &text)
    }
}

fn write(out: &mut Box<dyn Write + Send>, text: &str) -> Result<()> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Error::fatal("rows could not be shown").because(e).help("keep the reader of the pipe open"))
}

fn lines(rows: &[ShownRow], line: impl Fn(&ShownRow) -> String) -> String {
    rows.iter().map(|row| printable(&line(row)) + "\n").collect()
}

fn csv(cells: &[String]) -> String {
    let quoted = |cell: &String| match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false if cell == "NULL" => String::new(),
        false => cell.clone(),
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// Control characters of data, made visible.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Rows below a heading; numbers to the right.
pub(super) fn table(names: &[String], rows: &[ShownRow]) -> String {
    let shown: Vec<Vec<String>> = rows.iter().map(|r| r.cells.iter().map(|c| printable(c)).collect()).collect();
    let width = |column: usize| shown.iter().map(|r| r[column].chars().count()).chain([names[column].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let is_number = |column: usize| {
        let mut cells = shown.iter().map(|r| &r[column]).filter(|c| *c != "NULL").peekable();
        cells.peek().is_some() && cells.all(|c| c.parse::<f64>().is_ok())
    };
    let right: Vec<bool> = (0..names.len()).map(is_number).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().enumerate().map(|(i, c)| {
            let gap = " ".repeat(widths[i] - c.chars().count());
            if right[i] { format!(" {gap}{c} ") } else { format!(" {c}{gap} ") }
        });
        cells.collect::<Vec<_>>().join("│").trim_end().to_string() + "\n"
    };
    let rule = widths.iter().map(|w| "─".repeat(w + 2)).collect::<Vec<_>>().join("┼") + "\n";
    line(names) + &rule + &shown.iter().map(|r| line(r)).collect::<String>()
}

impl Sink for Results {
    fn describe(&self) -> String {
        "shown".into()
    }
    fn guarantee(&self) -> Guarantee {
        Guarantee::None
    }
    fn lanes(&self) -> u32 {
        0
    }
    fn check(&self) -> Result<()> {
        Ok(())
    }
    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }
    fn lane(&self, _: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Err(Error::fatal("rows that are shown have no publish lanes"))
    }
}

impl SinkWriter for Results {
    fn ready(&mut self) -> Result<bool> {
        Ok(true)
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let batch = downcast::<ChangeBatch>(batch);
        let mut state = self.state();
        if self.collects { state.rows.add(&batch) } else { self.show(&mut state, &batch) }
    }

    fn prepare(&mut self, _: Epoch) -> Result<()> {
        Ok(())
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        Ok(Some(Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_harmless() {
        let row = |cells: &[&str]| ShownRow { cells: cells.iter().map(ToString::to_string).collect(), json: Ok(String::new()) };
        let rows = [row(&["DE", "12410"]), row(&["a\u{1b}[2J", "NULL"])];
        let text = table(&["country".into(), "n".into()], &rows);
        assert_eq!(text, " country    │     n\n────────────┼───────\n DE         │ 12410\n a\\u{1b}[2J │  NULL\n");
    }
}
