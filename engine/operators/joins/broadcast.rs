//! Broadcast join: a stream with a small table that every task holds whole, so that the stream is not dealt out by key.
//!
//! Input 0 is the stream, as it comes; input 1 the table's changes, which reach every task. The table is read in first.
//!
//! Invariant: a row meets the table as it is when the row comes, in whatever task; rows keep their order and their task.

use crate::error::Result;
use crate::operators::bootstrap::Bootstrap;
use crate::operators::guarded::{Columns, guarded};
use crate::operators::{Operator, OperatorFactory, Output, TABLE_INPUT};
use crate::record::{BatchBox, Data, Key, Rows, downcast};
use crate::state::{BroadcastTable, StateValue, Table};
use crate::time::EventTime;
use std::marker::PhantomData;
use std::sync::Arc;

/// A row becomes `join(row, entry of key(row))`, or is left out. One for which a function panics is rejected.
pub fn broadcast_join<K: Key, T: Data, V: Data + StateValue, R: Data>(
    key: impl Fn(&T) -> K + Send + Sync + 'static,
    join: impl Fn(T, Option<&V>) -> Option<R> + Send + Sync + 'static,
) -> OperatorFactory {
    let functions = Arc::new((key, join));
    Arc::new(move || {
        Box::new(BroadcastJoin {
            functions: functions.clone(),
            table: BroadcastTable::<K, V>::new("table"),
            bootstrap: Bootstrap::default(),
            types: PhantomData::<fn(T) -> R>,
        })
    })
}

struct BroadcastJoin<F, G, K, T, V, R> {
    functions: Arc<(F, G)>,
    table: BroadcastTable<K, V>,
    bootstrap: Bootstrap,
    types: PhantomData<fn(T) -> R>,
}

impl<F, G, K, T, V, R> Operator for BroadcastJoin<F, G, K, T, V, R>
where
    K: Key,
    T: Data,
    V: Data + StateValue,
    R: Data,
    F: Fn(&T) -> K + Send + Sync + 'static,
    G: Fn(T, Option<&V>) -> Option<R> + Send + Sync + 'static,
{
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        vec![&mut self.table]
    }

    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()> {
        if input == TABLE_INPUT {
            for (key, value) in downcast::<Rows<(K, Option<V>)>>(batch).rows {
                self.table.change(key, value);
            }
            return Ok(());
        }
        let (rows, columns) = Columns::of(downcast::<Rows<T>>(batch));
        let n = rows.len();
        let mut rows = rows.into_iter();
        let (key, join) = &*self.functions;
        // Results, and for each the row it came from.
        let mut results: (Vec<R>, Vec<u32>) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let each = |(joined, from): &mut (Vec<R>, Vec<u32>), i: usize| {
            if let Some(row) = rows.next() {
                let entry = self.table.get(&key(&row));
                if let Some(result) = join(row, entry) {
                    joined.push(result);
                    from.push(i as u32);
                }
            }
            Ok(())
        };
        guarded(n, &mut results, each, |_, i, error| columns.reject(i, error, out))?;
        out.emit(columns.gather(results.0, &results.1).boxed())
    }

    fn on_input_watermark(&mut self, input: usize, time: EventTime) {
        self.bootstrap.on_input_watermark(input, time);
    }

    fn only_input(&self) -> Option<usize> {
        self.bootstrap.only_input()
    }

    fn save(&mut self) -> Vec<u8> {
        self.bootstrap.save()
    }

    fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<()> {
        self.bootstrap = Bootstrap::restore(blobs)?;
        Ok(())
    }
}
