//! Stable operator ids: given by the user, else derived from kind and position.
//!
//! Invariant: ids of a job are unique; a derived id depends only on the nodes of the same kind without an id before it, so
//! giving one operator an id, or adding an operator of another kind, renames no other.

use super::logical::LogicalGraph;
use crate::error::{Error, Result};
use crate::record::OperatorId;
use std::collections::BTreeSet;

/// Longest id; ids become parts of file names, metric labels and transactional ids.
const MAX_LEN: usize = 100;

/// One id per node, in the order of the nodes.
pub(super) fn assign_ids(graph: &LogicalGraph) -> Result<Vec<OperatorId>> {
    let mut taken = BTreeSet::new();
    for id in graph.nodes().iter().filter_map(|n| n.id.as_deref()) {
        check_id(id)?;
        if !taken.insert(id.to_string()) {
            return Err(Error::fatal(format!("two operators have the id {id:?}")).help("state is found by id: give each its own"));
        }
    }
    let given = |n: &super::LogicalNode| n.id.as_deref().map(OperatorId::new);
    Ok(graph.nodes().iter().map(|n| given(n).unwrap_or_else(|| derive(n, &mut taken))).collect())
}

/// `source-payments` where there is a subject, `window-1` else; counts up until it is free.
fn derive(node: &super::LogicalNode, taken: &mut BTreeSet<String>) -> OperatorId {
    let stem = match &node.subject {
        Some(subject) => format!("{}-{}", node.kind, clean(subject)),
        None => node.kind.to_string(),
    };
    let mut id = if node.subject.is_some() { stem.clone() } else { format!("{stem}-1") };
    let mut n = 1;
    while taken.contains(&id) {
        n += 1;
        id = format!("{stem}-{n}");
    }
    taken.insert(id.clone());
    OperatorId::new(id)
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn clean(subject: &str) -> String {
    subject.chars().take(MAX_LEN - 20).map(|c| if allowed(c) { c } else { '-' }).collect()
}

fn check_id(id: &str) -> Result<()> {
    let ok = !id.is_empty() && id.len() <= MAX_LEN && id.chars().all(allowed) && !id.starts_with('.');
    if ok {
        return Ok(());
    }
    Err(Error::fatal(format!("{id:?} cannot be an operator id"))
        .help(format!("1 to {MAX_LEN} letters, digits, '-', '_' and '.', not a '.' first")))
}
