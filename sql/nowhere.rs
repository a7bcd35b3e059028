//! A sink for plans that are looked at and not run.
//!
//! Invariant: it takes everything and keeps nothing.

use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Guarantee, LanePublisher, PublisherContext, SegmentRef, Sink, SinkWriter, WriterContext};
use waterwheel_engine::record::{BatchBox, Epoch};

/// See the module.
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    fn describe(&self) -> String {
        "shown".into()
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
        Ok(Box::new(Nowhere))
    }
    fn lane(&self, _: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Err(Error::fatal("it has no publish lanes"))
    }
}

impl SinkWriter for Nowhere {
    fn ready(&mut self) -> Result<bool> {
        Ok(true)
    }
    fn write(&mut self, _: BatchBox) -> Result<()> {
        Ok(())
    }
    fn prepare(&mut self, _: Epoch) -> Result<()> {
        Ok(())
    }
    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        Ok(Some(Vec::new()))
    }
}
