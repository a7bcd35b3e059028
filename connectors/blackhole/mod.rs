//! A sink that counts and forgets: for measuring what comes before it.
//!
//! Invariant: it takes any kind of batch and never makes anyone wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Guarantee, LanePublisher, PublisherContext, SegmentRef, Sink, SinkWriter, WriterContext};
use waterwheel_engine::record::{BatchBox, Epoch};

/// Counts rows.
///
/// ```
/// use waterwheel_connectors::blackhole::Blackhole;
/// let sink = Blackhole::default();
/// assert_eq!(sink.rows(), 0);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Blackhole {
    rows: Arc<AtomicU64>,
}

impl Blackhole {
    /// Rows taken so far by all tasks; rows written again after a restart count again.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }
}

impl Sink for Blackhole {
    fn describe(&self) -> String {
        "blackhole".into()
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
        Err(Error::fatal("a blackhole has no publish lanes"))
    }
}

impl SinkWriter for Blackhole {
    fn ready(&mut self) -> Result<bool> {
        Ok(true)
    }
    fn write(&mut self, batch: BatchBox) -> Result<()> {
        self.rows.fetch_add(batch.len() as u64, Relaxed);
        Ok(())
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
    use crate::conformance::writer_context;
    use waterwheel_engine::env::Env;
    use waterwheel_engine::record::Rows;
    use waterwheel_engine::time::EventTime;

    #[test]
    fn counts_over_all_writers() {
        let sink = Blackhole::default();
        for attempt in ["a", "b"] {
            let mut writer = sink.writer(writer_context(&Env::real(), std::path::Path::new("unused"), attempt)).unwrap();
            writer.write(Rows::new(vec![1, 2], vec![EventTime(0); 2]).boxed()).unwrap();
        }
        assert_eq!(sink.rows(), 4);
    }
}
