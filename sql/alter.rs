//! `ALTER TABLE`: a declaration with one thing changed.
//!
//! Invariant: what is changed is there, what is added is not; whether the whole still makes a table is checked behind here, as of any
//! declaration.

use crate::error::{SqlError, SqlResult};
use crate::parser::{Change, ColumnKind, CreateTable, Element, Position};
use datafusion_sql::sqlparser::ast::Ident;

/// The declaration after a change.
pub(crate) fn altered(declared: &CreateTable, change: &Change) -> SqlResult<CreateTable> {
    let mut table = declared.clone();
    match change {
        Change::Rename(name) => table.name = name.clone(),
        Change::RenameColumn(from, to) => rename(&mut table, from, to)?,
        Change::Set(options) => {
            table.options.retain(|old| options.iter().all(|new| new.0 != old.0));
            table.options.extend(options.iter().cloned());
        }
        Change::Reset(keys) => {
            if let Some((_, place)) = keys.iter().find(|(key, _)| key == "connector") {
                return Err(SqlError::new("a table is nothing without its connector").at(*place));
            }
            table.options.retain(|old| keys.iter().all(|(key, _)| *key != old.0));
        }
        Change::Add(elements) => elements.iter().try_for_each(|element| add(&mut table, element))?,
        Change::Modify(elements) => elements.iter().try_for_each(|element| modify(&mut table, element))?,
        Change::Drop(columns) => columns.iter().try_for_each(|column| drop_column(&mut table, column))?,
        Change::DropKey(place) => {
            if table.primary_key.is_empty() {
                return Err(SqlError::new(format!("\"{}\" has no PRIMARY KEY", table.name.value)).at(*place));
            }
            table.primary_key.clear();
        }
        Change::DropWatermark(place) => {
            if table.watermark.take().is_none() {
                return Err(SqlError::new(format!("\"{}\" has no WATERMARK", table.name.value)).at(*place));
            }
        }
        Change::Query(_) => return Err(SqlError::new(format!("\"{}\" is a table", table.name.value)).at(table.name.span)),
    }
    Ok(table)
}

/// Where a column is.
fn at(table: &CreateTable, column: &Ident) -> SqlResult<usize> {
    table.columns.iter().position(|known| known.name.value == column.value).ok_or_else(|| {
        SqlError::new(format!("column {:?} not found in {}", column.value, table.name.value))
            .at(column.span)
            .nearest(&column.value, table.columns.iter().map(|known| known.name.value.as_str()))
    })
}

fn is_new(table: &CreateTable, column: &Ident) -> SqlResult<()> {
    match at(table, column) {
        Ok(_) => Err(SqlError::new(format!("column {:?} is in \"{}\" already", column.value, table.name.value)).at(column.span)),
        Err(_) => Ok(()),
    }
}

/// What is computed from a column, the watermark too.
fn is_used(table: &CreateTable, column: &Ident) -> SqlResult<()> {
    let names = |text: String| {
        let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
        words.any(|word| word == column.value)
    };
    let computed = table.columns.iter().find(|other| {
        let ColumnKind::Computed(expr) = &other.kind else { return false };
        other.name.value != column.value && names(expr.to_string())
    });
    let used = match (computed, &table.watermark) {
        (Some(other), _) => format!("column {:?} is computed from it", other.name.value),
        (None, Some(watermark)) if watermark.column.value == column.value || names(watermark.expr.to_string()) => {
            "the WATERMARK goes by it".to_string()
        }
        _ => return Ok(()),
    };
    Err(SqlError::new(format!("column {:?} is in use: {used}", column.value)).at(column.span).help("change that first"))
}

fn rename(table: &mut CreateTable, from: &Ident, to: &Ident) -> SqlResult<()> {
    let place = at(table, from)?;
    is_new(table, to)?;
    is_used(table, from)?;
    table.columns[place].name = to.clone();
    let named = table.primary_key.iter_mut().chain(&mut table.partitioned_by);
    named.filter(|name| name.value == from.value).for_each(|name| name.clone_from(to));
    Ok(())
}

fn add(table: &mut CreateTable, element: &Element) -> SqlResult<()> {
    match element {
        Element::Column(column, position) => {
            is_new(table, &column.name)?;
            let place = place(table, position)?.unwrap_or(table.columns.len());
            table.columns.insert(place, column.clone());
        }
        Element::Watermark(watermark) => {
            if table.watermark.is_some() {
                let is = format!("\"{}\" has a WATERMARK already", table.name.value);
                return Err(SqlError::new(is).at(watermark.span).help("ALTER TABLE ... MODIFY WATERMARK FOR ..."));
            }
            table.watermark = Some(watermark.as_ref().clone());
        }
        Element::PrimaryKey(columns, place) => {
            if !table.primary_key.is_empty() {
                let is = format!("\"{}\" has a PRIMARY KEY already", table.name.value);
                return Err(SqlError::new(is).at(*place).help("ALTER TABLE ... MODIFY PRIMARY KEY (..) NOT ENFORCED"));
            }
            table.primary_key.clone_from(columns);
        }
    }
    Ok(())
}

fn modify(table: &mut CreateTable, element: &Element) -> SqlResult<()> {
    match element {
        Element::Column(column, position) => {
            let old = at(table, &column.name)?;
            table.columns.remove(old);
            let place = place(table, position)?.unwrap_or(old);
            table.columns.insert(place, column.clone());
        }
        Element::Watermark(watermark) => {
            if table.watermark.replace(watermark.as_ref().clone()).is_none() {
                let is = format!("\"{}\" has no WATERMARK", table.name.value);
                return Err(SqlError::new(is).at(watermark.span).help("ALTER TABLE ... ADD WATERMARK FOR ..."));
            }
        }
        Element::PrimaryKey(columns, place) => {
            if table.primary_key.is_empty() {
                let is = format!("\"{}\" has no PRIMARY KEY", table.name.value);
                return Err(SqlError::new(is).at(*place).help("ALTER TABLE ... ADD PRIMARY KEY (..) NOT ENFORCED"));
            }
            table.primary_key.clone_from(columns);
        }
    }
    Ok(())
}

/// Where a column is put; none if that is not said.
fn place(table: &CreateTable, position: &Position) -> SqlResult<Option<usize>> {
    Ok(match position {
        Position::Unsaid => None,
        Position::First => Some(0),
        Position::After(column) => Some(at(table, column)? + 1),
    })
}

fn drop_column(table: &mut CreateTable, column: &Ident) -> SqlResult<()> {
    let place = at(table, column)?;
    is_used(table, column)?;
    if table.primary_key.iter().chain(&table.partitioned_by).any(|name| name.value == column.value) {
        let is = format!("column {:?} is in use: it is of the PRIMARY KEY or PARTITIONED BY", column.value);
        return Err(SqlError::new(is).at(column.span).help("change that first"));
    }
    table.columns.remove(place);
    Ok(())
}
