//! Ends of a stream other than topics: the terminal, and nowhere.
//!
//! Invariant: these promise nothing: what was printed before a failure may be printed again.

use crate::topic::json;
use serde::Serialize;
use waterwheel_connectors::blackhole::Blackhole;
use waterwheel_connectors::print::Print;
use waterwheel_engine::dsl::{SinkHandle, Stream};
use waterwheel_engine::record::Data;

/// Ends of a stream that keep nothing.
pub trait ToOutputs<T> {
    /// Prints each row as a line of JSON.
    ///
    /// ```
    /// # use waterwheel::prelude::*;
    /// # fn example(alerts: Stream<String>) {
    /// alerts.to_print();
    /// # }
    /// ```
    fn to_print(&self) -> SinkHandle
    where
        T: Serialize;

    /// Counts rows and forgets them: for measuring what comes before.
    fn to_blackhole(&self) -> SinkHandle;
}

impl<T: Data> ToOutputs<T> for Stream<T> {
    fn to_print(&self) -> SinkHandle
    where
        T: Serialize,
    {
        self.to_record_sink("print", Print::stdout(), json("print".into(), None))
    }

    fn to_blackhole(&self) -> SinkHandle {
        self.to_sink("blackhole", Blackhole::default())
    }
}
