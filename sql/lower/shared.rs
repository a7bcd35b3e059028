//! What a statement asks for in several places is done once: tables are read, equal aggregates computed.
//!
//! Views over one topic of several kinds of events are the common case: each record is fetched and decoded once, for all of
//! them, and every place takes its columns of it.
//!
//! Invariant: what a place sees is what it would see of a source of its own; tables that are read in first, and those of which
//! the newest record of a key is the row, have one. Equal plans have equal rows, so who takes them does not matter.

use super::members::Members;
use super::{Lowered, Lowering, column_expr, nullable};
use crate::catalog::PlannedTable;
use crate::error::SqlResult;
use arrow::datatypes::Schema;
use datafusion_common::DFSchema;
use datafusion_expr::{LogicalPlan, TableScan};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What all places of a statement read of a table.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// How many there are.
    pub(super) places: usize,
    /// Columns of the table.
    pub(super) columns: BTreeSet<usize>,
    pub(super) members: Members,
    /// The source, once it is there, with those columns.
    pub(super) source: Option<Lowered>,
}

/// An aggregate that is lowered, and what was asked of it and of the tables below.
pub(super) struct Once {
    plan: LogicalPlan,
    asked: Asked,
    lowered: Lowered,
}

#[derive(PartialEq, Eq)]
struct Asked {
    only_new: bool,
    as_versions: bool,
    read_in_first: bool,
}

impl Lowering<'_> {
    /// The stream of a plan: that of an equal one, if there is one, else as `lower` makes it.
    pub(super) fn once(
        &mut self,
        plan: &LogicalPlan,
        only_new: bool,
        lower: impl FnOnce(&mut Self) -> SqlResult<Lowered>,
    ) -> SqlResult<Lowered> {
        let asked = Asked { only_new, as_versions: self.as_versions, read_in_first: self.read_in_first };
        if let Some(once) = self.aggregates.iter().find(|once| once.asked == asked && once.plan == *plan) {
            return Ok(once.lowered.clone());
        }
        let lowered = lower(self)?;
        // Others may read it.
        self.calcs.remove(&lowered.node);
        self.aggregates.push(Once { plan: plan.clone(), asked, lowered: lowered.clone() });
        Ok(lowered)
    }

    /// Notes what a plan reads of each table.
    pub(super) fn note_tables(&mut self, plan: &LogicalPlan) {
        self.note_below(plan, None);
    }

    fn note_below(&mut self, plan: &LogicalPlan, members: Option<Members>) {
        match plan {
            LogicalPlan::TableScan(scan) => self.note_table(scan, &members.unwrap_or_default()),
            LogicalPlan::Filter(filter) => self.note_below(&filter.input, members),
            LogicalPlan::Projection(projection) => self.note_below(&projection.input, Members::below(projection)),
            other => other.inputs().into_iter().for_each(|input| self.note_below(input, None)),
        }
    }

    fn note_table(&mut self, scan: &TableScan, members: &Members) {
        let Some(PlannedTable(table)) = scan.source.downcast_ref::<PlannedTable>() else { return };
        let shared = self.shared.entry(table.name.clone()).or_default();
        shared.places += 1;
        for i in scan.projection.clone().unwrap_or_else(|| (0..table.schema.fields().len()).collect()) {
            shared.columns.insert(i);
            shared.members.merge(&members.of(table.schema.field(i).name()));
        }
    }

    /// The columns of one place, of the source of all.
    pub(super) fn take_columns(&mut self, source: &Lowered, of: &[usize], wanted: &[usize]) -> SqlResult<Lowered> {
        if of == wanted {
            return Ok(source.clone());
        }
        let at: Vec<usize> = wanted.iter().filter_map(|column| of.iter().position(|c| c == column)).collect();
        let exprs: Vec<_> = at.iter().map(|&i| column_expr(&source.schema, i)).collect();
        let fields = at.iter().map(|&i| (source.schema.qualified_field(i).0.cloned(), source.schema.fields()[i].clone())).collect();
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(crate::error::SqlError::of_planner)?;
        let batch = Arc::new(Schema::new(schema.fields().iter().map(|f| nullable(f)).collect::<Vec<_>>()));
        let node = self.calc(source, None, Some(&exprs), batch, "project")?;
        let rowtimes = (0..at.len()).filter(|&i| source.rowtimes.contains(&at[i])).collect();
        Ok(Lowered { rowtimes, ..Lowered::plain(node, Arc::new(schema), false) })
    }
}
