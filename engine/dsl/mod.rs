//! The typed DSL: streams of Rust types, described by chained calls.
//!
//! [`Job`] gives sources; a [`Stream<T>`] is transformed, keyed ([`KeyedStream`]), windowed ([`WindowedStream`]), joined with
//! a [`Table`], and ends in sinks. A stream is a cheap handle: calling two methods on one stream sends its rows both ways.
//!
//! Invariant: nothing here runs. Every call adds a node to the job's logical graph; types say what may follow what, so that a
//! window without a key, for one, does not compile.

mod broadcast;
mod calls;
mod connect;
mod durations;
mod job;
mod joins;
mod keyed;
mod over;
mod pattern;
mod sink;
mod source;
mod stream;
mod table;
mod windowed;

#[cfg(test)]
mod tests;

pub use broadcast::{Broadcast, KeyedWithBroadcast};
pub use durations::{OutOfOrder, Punctuated, days, hours, millis, mins, secs};
pub use job::Job;
pub use joins::{IntervalJoin, Join, JoinWindows, JoinedWindows, Offset, RegularJoin, TemporalJoin, after, before};
pub use keyed::{KeyedStream, SortedStream};
pub use over::OverStream;
pub use sink::SinkHandle;
pub use source::{Decode, DecodeFactory, DecodeValue, Decoding, SourceStream, records};
pub use stream::Stream;
pub use table::{GroupedTable, RecordKey, Table};
pub use windowed::{Merge, WindowedStream};
