//! `CREATE TABLE a (...) LIKE b (...)`: one declaration out of two.
//!
//! Invariant: what is declared in both is an error unless one of them is said to go.

use crate::error::{SqlError, SqlResult};
use crate::parser::{ColumnKind, CreateTable, Like, Part, Taking};

/// The declaration of `new` with what it takes over from `base`.
pub(crate) fn merged(base: &CreateTable, new: &CreateTable, like: &Like) -> SqlResult<CreateTable> {
    let said = |part| like.parts.iter().rev().find(|(p, _)| *p == part).map(|p| p.1);
    let of = |part: Part| match said(part).or(said(Part::All)) {
        Some(taking) => taking,
        None if part == Part::Options => Taking::Overwriting,
        None => Taking::Including,
    };
    let mut table = CreateTable { like: None, columns: Vec::new(), ..new.clone() };
    for column in &base.columns {
        let taking = match column.kind {
            ColumnKind::Physical(_) => Taking::Including,
            ColumnKind::Metadata { .. } => of(Part::Metadata),
            ColumnKind::Computed(_) => of(Part::Generated),
        };
        let again = new.columns.iter().find(|c| c.name.value == column.name.value);
        match (taking, again) {
            (Taking::Excluding, _) | (Taking::Overwriting, Some(_)) => {}
            (Taking::Including, Some(again)) => {
                return Err(
                    SqlError::new(format!("column {:?} is in \"{}\" already", column.name.value, base.name.value)).at(again.name.span)
                );
            }
            (_, None) => table.columns.push(column.clone()),
        }
    }
    table.columns.extend(new.columns.iter().cloned());
    match (of(Part::Watermarks), &base.watermark, &new.watermark) {
        (Taking::Including, Some(_), Some(again)) => {
            return Err(SqlError::new(format!("\"{}\" has a WATERMARK already", base.name.value))
                .at(again.span)
                .help("LIKE ... (OVERWRITING WATERMARKS)"));
        }
        (Taking::Including | Taking::Overwriting, Some(watermark), None) => table.watermark = Some(watermark.clone()),
        _ => {}
    }
    if of(Part::Constraints) != Taking::Excluding && !base.primary_key.is_empty() {
        if let Some(again) = new.primary_key.first() {
            return Err(SqlError::new(format!("\"{}\" has a PRIMARY KEY already", base.name.value))
                .at(again.span)
                .help("LIKE ... (EXCLUDING CONSTRAINTS)"));
        }
        table.primary_key.clone_from(&base.primary_key);
    }
    if of(Part::Partitions) != Taking::Excluding && !base.partitioned_by.is_empty() {
        if let Some(again) = new.partitioned_by.first() {
            return Err(SqlError::new(format!("\"{}\" is PARTITIONED BY already", base.name.value))
                .at(again.span)
                .help("LIKE ... (EXCLUDING PARTITIONS)"));
        }
        table.partitioned_by.clone_from(&base.partitioned_by);
    }
    let options = of(Part::Options);
    for (key, value, span) in base.options.iter().filter(|_| options != Taking::Excluding) {
        match new.options.iter().find(|o| o.0 == *key) {
            None => table.options.push((key.clone(), value.clone(), *span)),
            Some(_) if options == Taking::Overwriting => {}
            Some((_, _, again)) => {
                return Err(SqlError::new(format!("option '{key}' is in \"{}\" already", base.name.value))
                    .at(*again)
                    .help("LIKE ... (OVERWRITING OPTIONS)"));
            }
        }
    }
    Ok(table)
}
