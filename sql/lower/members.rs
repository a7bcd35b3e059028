//! Which members of a table's rows a query looks at: no other is read from a record.
//!
//! Invariant: a row that somebody looks at as a whole is read as a whole.

use super::Lowering;
use arrow::datatypes::{DataType, Field};
use datafusion_common::ScalarValue;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::expr::{Expr, ScalarFunction};
use datafusion_expr::{LogicalPlan, Projection};
use std::collections::{BTreeMap, BTreeSet};

/// By column: the members that are looked at; none = the whole row.
#[derive(Debug, Clone, Default)]
pub(super) struct Members(BTreeMap<String, Option<BTreeSet<String>>>);

/// The column and the name, if an expression is a member of a column.
fn member(expr: &Expr) -> Option<(&str, &str)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    match args.as_slice() {
        [Expr::Column(column), Expr::Literal(ScalarValue::Utf8(Some(name)), _), ..] if func.name() == "get_field" => {
            Some((&column.name, name))
        }
        _ => None,
    }
}

impl Members {
    /// Notes what an expression looks at.
    pub(super) fn add(&mut self, expr: &Expr) {
        let looked = expr.apply(|part| {
            if let Some((column, name)) = member(part) {
                if let Some(names) = self.0.entry(column.to_string()).or_insert_with(|| Some(BTreeSet::new())) {
                    names.insert(name.to_string());
                }
                return Ok(TreeNodeRecursion::Jump);
            }
            if let Expr::Column(column) = part {
                self.0.insert(column.name.clone(), None);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(looked.is_ok(), "the closure does not fail");
    }

    /// Notes all of what others have noted.
    pub(super) fn merge(&mut self, other: &Members) {
        for (column, names) in &other.0 {
            match (self.0.entry(column.clone()).or_insert_with(|| Some(BTreeSet::new())), names) {
                (Some(own), Some(names)) => own.extend(names.iter().cloned()),
                (whole, _) => *whole = None,
            }
        }
    }

    /// What is looked at of one column: all of it, where nothing is known.
    pub(super) fn of(&self, column: &str) -> Members {
        Members(BTreeMap::from([(column.to_string(), self.0.get(column).cloned().flatten())]))
    }

    /// A column with the members only that are looked at.
    pub(super) fn pruned(&self, field: &Field) -> Field {
        match (field.data_type(), self.0.get(field.name())) {
            (DataType::Struct(fields), Some(Some(names))) => {
                let kept: Vec<_> = fields.iter().filter(|f| names.contains(f.name())).cloned().collect();
                field.clone().with_data_type(DataType::Struct(kept.into()))
            }
            _ => field.clone(),
        }
    }
}

impl Members {
    /// What a projection and the filters below it look at of the scan below these, if there is one.
    pub(super) fn below(projection: &Projection) -> Option<Members> {
        let mut members = Members::default();
        let mut plan = &*projection.input;
        while let LogicalPlan::Filter(filter) = plan {
            members.add(&filter.predicate);
            plan = &filter.input;
        }
        projection.expr.iter().for_each(|e| members.add(e));
        matches!(plan, LogicalPlan::TableScan(_)).then_some(members)
    }
}

impl Lowering<'_> {
    /// Notes what is looked at of the scan below a projection for when it is lowered.
    pub(super) fn note_members(&mut self, projection: &Projection) {
        if let Some(members) = Members::below(projection) {
            self.members = Some(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_looked_at_is_kept() {
        let row = DataType::Struct(["a", "b", "c"].map(|n| Field::new(n, DataType::Int64, true)).to_vec().into());
        let field = Field::new("r", row, true);
        let mut members = Members::default();
        let names = |m: &Members| match m.pruned(&field).data_type() {
            DataType::Struct(fields) => fields.iter().map(|f| f.name().clone()).collect::<String>(),
            other => other.to_string(),
        };
        assert_eq!(names(&members), "abc", "nothing is known of it");
        members.0.insert("r".into(), Some(BTreeSet::from(["c".to_string()])));
        assert_eq!(names(&members), "c");
        let mut other = Members::default();
        other.0.insert("r".into(), Some(BTreeSet::from(["a".to_string()])));
        members.merge(&other);
        assert_eq!(names(&members), "ac");
        members.merge(&Members::default().of("r"));
        assert_eq!(names(&members), "abc");
    }
}
