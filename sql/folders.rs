//! Columns of a table that are not in its files but in the names of the folders around them (`PARTITIONED BY`).
//!
//! Invariant: what a row's folder says, reading gives back: folders are named after the text of a value, which its type reads as
//! the same value, and NULL after `partition.default-name`.

use crate::catalog::Table;
use crate::error::{SqlError, SqlResult};
use crate::json::{Column, cell};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use std::sync::Arc;
use waterwheel_engine::error::Result;
use waterwheel_engine::record::folders::{self, NO_VALUE};

/// The name that stands for NULL.
fn none(table: &Table) -> Arc<str> {
    table.options.get("partition.default-name").unwrap_or(NO_VALUE).into()
}

/// How a row gets its folder.
pub(crate) struct Folders {
    /// Columns of the row by position, with their names.
    columns: Vec<(usize, String)>,
    none: Arc<str>,
    time: Option<Pattern>,
}

/// The time of a folder: a text in which `$column` stands for a value.
struct Pattern(String);

impl Folders {
    /// Of a table that is written; nothing where its files are all in one folder.
    ///
    /// # Errors
    /// A pattern that names no column.
    pub(crate) fn of(table: &Table) -> SqlResult<Option<Folders>> {
        if table.partitioned_by.is_empty() {
            return Ok(None);
        }
        let row = table.written();
        let place = |i: &usize| row.iter().position(|r| r == i);
        let columns: Vec<(usize, String)> =
            table.partitioned_by.iter().filter_map(|i| Some((place(i)?, table.schema.field(*i).name().clone()))).collect();
        let by_time = table.options.get("sink.partition-commit.trigger") == Some("partition-time");
        let time = by_time.then(|| match table.options.get("partition.time-extractor.timestamp-pattern") {
            Some(pattern) => Pattern(pattern.to_string()),
            None => Pattern(columns.first().map_or(String::new(), |(_, name)| format!("${name}"))),
        });
        if let Some(Pattern(pattern)) = &time
            && !columns.iter().any(|(_, name)| pattern.contains(&format!("${name}")))
        {
            let names: Vec<String> = columns.iter().map(|(_, name)| format!("${name}")).collect();
            return Err(SqlError::new(format!(
                "'partition.time-extractor.timestamp-pattern' = '{pattern}' names no column of the folders"
            ))
            .help(format!("it is made of {}", names.join(", "))));
        }
        Ok(Some(Folders { columns, none: none(table), time }))
    }

    /// The folder of a row and the time that it stands for (-1 where nobody asks); `last` is what the row before it had.
    ///
    /// # Errors
    /// A value that cannot name a folder, or gives no time.
    pub(crate) fn folder<'a>(&self, columns: &RecordBatch, row: usize, last: &'a mut Last) -> std::result::Result<(&'a str, i64), String> {
        if last.row.is_none_or(|before| !self.same(columns, before, row)) {
            last.row = None;
            last.path.clear();
            let mut values = Vec::with_capacity(self.columns.len());
            for (i, name) in &self.columns {
                let column = columns.column(*i);
                let value = column.is_valid(row).then(|| cell(column, row));
                folders::push(&mut last.path, name, value.as_deref(), &self.none)?;
                values.push((name.as_str(), value));
            }
            last.time = match &self.time {
                Some(pattern) => pattern.time(values)?,
                None => -1,
            };
            last.row = Some(row);
        }
        Ok((&last.path, last.time))
    }

    fn same(&self, columns: &RecordBatch, a: usize, b: usize) -> bool {
        let same = |column: &ArrayRef| match column.data_type() {
            DataType::Utf8 if column.is_valid(a) && column.is_valid(b) => {
                let texts = column.as_string::<i32>();
                texts.value(a) == texts.value(b)
            }
            _ => column.slice(a, 1) == column.slice(b, 1),
        };
        self.columns.iter().all(|(i, _)| same(columns.column(*i)))
    }
}

/// The folder of the row before.
#[derive(Default)]
pub(crate) struct Last {
    row: Option<usize>,
    path: String,
    time: i64,
}

impl Pattern {
    /// Milliseconds since 1970, the text being in UTC.
    fn time(&self, mut values: Vec<(&str, Option<String>)>) -> std::result::Result<i64, String> {
        // A name that another one begins with must not be taken for it.
        values.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut text = self.0.clone();
        for (name, value) in values {
            let place = format!("${name}");
            if text.contains(&place) {
                text = text.replace(&place, &value.ok_or_else(|| format!("column {name} is NULL, which gives its folder no time"))?);
            }
        }
        let date = || NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN));
        let time = NaiveDateTime::parse_from_str(text.trim(), "%Y-%m-%d %H:%M:%S%.f").or_else(|_| date());
        time.map(|time| time.and_utc().timestamp_millis())
            .map_err(|_| format!("the time of its folder would be {text:?}; it is yyyy-MM-dd or yyyy-MM-dd HH:mm:ss"))
    }
}

/// How columns are read from the names of folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderReading {
    /// All columns of the folders in order, and which of them are wanted.
    names: Vec<String>,
    wanted: Vec<(usize, Field)>,
    none: Arc<str>,
}

impl FolderReading {
    /// Of a table that is read; nothing where none of these columns is in a folder.
    pub(crate) fn of(table: &Table, wanted: &[Field]) -> Option<FolderReading> {
        let names: Vec<String> = table.partitioned_by.iter().map(|&i| table.schema.field(i).name().clone()).collect();
        let place = |field: &Field| Some((names.iter().position(|name| name == field.name())?, field.clone()));
        let wanted: Vec<(usize, Field)> = wanted.iter().filter_map(place).collect();
        (!wanted.is_empty()).then(|| FolderReading { names, wanted, none: none(table) })
    }

    /// The columns that are wanted.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.wanted.iter().map(|(_, field)| field.name().as_str()).collect()
    }

    /// Columns without a row yet.
    ///
    /// # Errors
    /// A type that no text is read into.
    pub(crate) fn columns(&self) -> Result<FolderColumns<'_>> {
        let columns = self.wanted.iter().map(|(_, field)| Column::new(field.data_type())).collect::<Result<_>>()?;
        Ok(FolderColumns { reading: self, columns, last: None })
    }
}

/// Columns being made of the names of folders.
pub(crate) struct FolderColumns<'a> {
    reading: &'a FolderReading,
    columns: Vec<Column>,
    /// The path of the record before and the values in it.
    last: Option<(Arc<str>, Vec<Option<String>>)>,
}

impl FolderColumns<'_> {
    /// Adds the row of a record with this path.
    ///
    /// # Errors
    /// What is wrong with the path; then nothing is added.
    pub(crate) fn push(&mut self, path: &Arc<str>) -> std::result::Result<(), String> {
        if !self.last.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, path) || last == path) {
            let values = folders::values(path, &self.reading.names, &self.reading.none);
            let wrong = || format!("{path} is in no folder of {}", self.reading.names.join("=/") + "=");
            self.last = Some((path.clone(), values.ok_or_else(wrong)?));
        }
        let Some((_, values)) = &self.last else { return Ok(()) };
        let rows = self.columns.first().map_or(0, Column::len);
        for ((i, field), column) in self.reading.wanted.iter().zip(&mut self.columns) {
            let added = match &values[*i] {
                Some(text) => column.text(text),
                None if !field.is_nullable() => Err("it is NOT NULL and has no value".to_string()),
                None => {
                    column.null();
                    Ok(())
                }
            };
            if let Err(error) = added {
                self.columns.iter_mut().for_each(|column| column.truncate(rows));
                return Err(format!("column {} of folder {path}: {error}", field.name()));
            }
        }
        Ok(())
    }

    /// Takes the newest row away.
    pub(crate) fn pop(&mut self) {
        let rows = self.columns.first().map_or(0, Column::len).saturating_sub(1);
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
    }

    /// The columns.
    ///
    /// # Errors
    /// Columns beyond the limits of Arrow.
    pub(crate) fn finish(self) -> Result<Vec<ArrayRef>> {
        self.columns.into_iter().map(Column::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_patterns() {
        let time = |pattern: &str, values: &[(&str, Option<&str>)]| {
            let values = values.iter().map(|(name, value)| (*name, value.map(String::from))).collect();
            Pattern(pattern.into()).time(values)
        };
        let minute = [("dt", Some("2024-01-01")), ("hm", Some("00:05"))];
        assert_eq!(time("$dt $hm:00", &minute), Ok(1_704_067_500_000));
        assert_eq!(time("$d-$dt", &[("d", Some("2024")), ("dt", Some("01-01"))]), Ok(1_704_067_200_000));
        assert_eq!(time("$dt", &minute), Ok(1_704_067_200_000));
        assert_eq!(
            time("$y-$m-$d 0$h:00:00", &[("y", Some("2024")), ("m", Some("1")), ("d", Some("1")), ("h", Some("1"))]),
            Ok(1_704_070_800_000)
        );
        assert!(time("$dt", &[("dt", None)]).unwrap_err().contains("NULL"));
        assert!(time("$dt $hm", &minute).unwrap_err().contains("\"2024-01-01 00:05\""));
    }
}
