//! A chain of operators driven by hand: no task, no thread, no channel, so that the figure is that of the operators.
//!
//! Invariant: elements go in as a task pushes them; what comes out is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use waterwheel::engine::env::Env;
use waterwheel::engine::error::Result;
use waterwheel::engine::observe::Metrics;
use waterwheel::engine::operators::{ErrorPolicy, Node, OpenContext, Operator, OperatorFactory, Output, Target, Targets};
use waterwheel::engine::record::{BatchBox, OperatorId};
use waterwheel::engine::state::{MemoryStore, TableContext};

/// Key groups of everything here.
pub const KEY_GROUPS: u16 = 128;

/// Counts the rows that arrive.
pub struct Count(pub Arc<AtomicU64>);

impl Operator for Count {
    fn on_batch(&mut self, _input: usize, batch: BatchBox, _out: &mut Output<'_>) -> Result<()> {
        self.0.fetch_add(std::hint::black_box(batch).len() as u64, Relaxed);
        Ok(())
    }
}

/// The context of the only instance of an operator.
pub fn context(id: &str) -> OpenContext {
    OpenContext {
        operator: OperatorId::new(id),
        index: 0,
        parallelism: 1,
        max_parallelism: KEY_GROUPS,
        groups: 0..KEY_GROUPS,
        policy: ErrorPolicy::Fail,
        env: Env::real(),
        metrics: Metrics::default(),
    }
}

/// An opened chain, and the count of rows that have left it.
///
/// # Panics
/// When an operator does not open.
pub fn chain(operators: &[OperatorFactory]) -> (Node, Arc<AtomicU64>) {
    let out = Arc::new(AtomicU64::new(0));
    let last = context("count");
    let targets = Targets::new(&last, Vec::new(), Vec::new());
    let mut node = Node { operator: Box::new(Count(out.clone())), context: last, targets };
    for (at, make) in operators.iter().enumerate().rev() {
        let context = context(&format!("operator-{at}"));
        let targets = Targets::new(&context, vec![vec![Target::Node(Box::new(node))]], Vec::new());
        node = Node { operator: make(), context, targets };
    }
    open(&mut node).expect("the operators open");
    (node, out)
}

fn open(node: &mut Node) -> Result<()> {
    let store = Arc::new(MemoryStore::default());
    node.visit(&mut |node| {
        node.operator.open(&node.context)?;
        let context = TableContext {
            operator: node.context.operator.as_str().to_string(),
            store: store.clone(),
            groups: 0..KEY_GROUPS,
            max_parallelism: KEY_GROUPS,
        };
        node.operator.tables().into_iter().try_for_each(|table| table.open(&context, false))
    })
}
