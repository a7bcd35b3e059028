//! Small helpers for expressions over columns that have no table.
//!
//! Invariant: names made here are unique in their batch.

use datafusion_common::{Column, TableReference};
use datafusion_expr::expr::Expr;

/// The column of that name.
pub(super) fn named(name: &str) -> Expr {
    Expr::Column(Column::new(None::<TableReference>, name))
}
