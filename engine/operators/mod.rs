//! Operators: what a task does to the elements that flow through it.
//!
//! The contract, in prose. A task calls, from one thread:
//! 1. [`Operator::open`] once, before anything else; with restored state already in its tables ([`Operator::tables`] are
//!    opened by the task right after) and then [`Operator::restore`] with the small blobs of the former instances.
//! 2. [`Operator::on_batch`] for each batch, in order. Inputs are numbered as the plan connects them.
//! 3. [`Operator::on_input_watermark`] for each input's own watermark, where there are several inputs; then
//!    [`Operator::on_watermark`] when the merged watermark has grown. The task forwards the watermark downstream **after**
//!    `on_watermark` returns, so whatever fires there leaves before it.
//! 4. [`Operator::on_time`] when the wall time that it asked for has come, and after rows came while it
//!    [holds](Operator::holds) some back.
//! 5. At a barrier: [`Operator::before_barrier`] (emit what must not wait), then freeze of its tables and
//!    [`Operator::save`]; then the barrier goes on downstream.
//! 6. [`Operator::on_end`] when every input has ended, after `on_watermark(EventTime::MAX)`.
//! 7. [`Operator::close`] once, also after an error elsewhere.
//!
//! What an operator must not do: block, read a clock, open a file, start a thread, iterate a hash table into its output. Same
//! calls, same state: same output. An error it returns stops the task; a row that fails goes to [`Output::reject`].
//!
//! A task is a tree of operators: outputs of one call are pushed to the children at once, with no queue between. Operators
//! with several inputs are always the head of a task, because only the gate merges inputs.

mod aggregate;
mod aging;
mod async_options;
mod bootstrap;
mod broadcast;
mod by_clock;
mod by_column;
mod call;
mod columnar;
mod crossing;
mod dead_letter;
mod dedup;
mod either;
mod filter;
mod flat_map;
mod group;
mod guarded;
mod ingest;
mod inspect;
mod join_table;
pub mod joins;
mod key_by;
mod late;
mod map;
mod map_async;
mod note_progress;
mod output;
pub mod over;
mod over_changes;
mod pattern;
mod process;
mod process_folding;
mod process_state;
mod progress;
mod ranked;
mod reject;
mod sink;
mod sink_operator;
mod sort;
mod source;
mod source_task;
mod split;
mod staging;
pub mod tables;
mod to_raw;
mod touched;
mod ttl;
mod union;

pub use crate::exchange::EdgeSender;
pub use aggregate::{aggregate, reduce};
pub use async_options::AsyncOptions;
pub use broadcast::{BroadcastInput, BroadcastState, process_with};
pub use by_clock::by_clock;
pub use by_column::by_column;
pub use columnar::{ColumnKernel, ColumnKernelFactory, KeyKernel, RowError, columns, key_columns};
pub use crossing::{RowDecoder, RowDecoderFactory, RowEncoder, RowEncoderFactory, to_columns, to_rows};
pub use dead_letter::{HEADER_ERROR, HEADER_OFFSET, HEADER_OPERATOR, HEADER_PARTITION, HEADER_TOPIC, dead_letters};
pub use dedup::dedup_by;
pub use either::{Either, either, timed_either};
pub use filter::filter;
pub use flat_map::{filter_map, flat_map};
pub use group::{GroupKernel, Grouping, check_description, group};
pub(crate) use guarded::{guarded, run_rows};
pub use guarded::{guarded_call, refuse};
pub use ingest::{Ingest, IngestFactory};
pub use inspect::inspect;
pub use join_table::{STREAM_INPUT, TABLE_INPUT, join_table, left_join_table};
pub use key_by::key_by;
pub use late::late_rows;
pub use map::{map, try_map};
pub use map_async::{lookup_async, map_async};
pub use note_progress::{ProgressNote, note_progress};
pub use output::{Node, Output, Port, Target, Targets};
pub use over_changes::{ChangesKernel, OrderedRow, Reach, over_changes};
pub use pattern::{AfterMatch, Contiguity, Match, Pattern, TIMED_OUT_PORT, Verdict, detect, try_detect};
pub use process::{ProcessContext, ProcessFunction, ProcessOpen, SideOutput, process};
pub use process_folding::{AggregatingState, ReducingState};
pub use process_state::{ListState, MapState, Timer, ValueState};
pub(crate) use progress::{Behind, Progress};
pub use ranked::{RankKernel, Ranking, ranked};
pub use reject::{ErrorPolicy, shortened};
pub use sink::{Guarantee, LaneMarker, LanePublisher, PublisherContext, ScanOutcome, Sink, SinkWriter, WriterContext};
pub use sink_operator::SinkOperator;
pub use sort::{LATE_PORT, sort_by_time};
pub use source::{Poll, ReaderContext, Source, SourceReader, Split, SplitId, SplitState};
pub use source_task::{Aligned, Alignment, SourceStep, SourceTask};
pub use split::split;
pub use staging::{SegmentReader, SegmentRef, SegmentWriter};
pub use to_raw::to_raw;
pub use ttl::Ttl;
pub use union::union;

use crate::env::Env;
use crate::error::Result;
use crate::observe::Metrics;
use crate::record::{BatchBox, Element, Epoch, KeyGroup, OperatorId};
use crate::state::Table;
use crate::time::EventTime;
use std::ops::Range;
use std::sync::Arc;

/// Makes one instance of an operator per task.
pub type OperatorFactory = Arc<dyn Fn() -> Box<dyn Operator> + Send + Sync>;

/// One operator instance. See the [module](self) for who calls what, when.
pub trait Operator: Send {
    /// Rows of one input, in order.
    ///
    /// # Errors
    /// Stops the task; never for the sake of a single row, see [`Output::reject`].
    fn on_batch(&mut self, input: usize, batch: BatchBox, out: &mut Output<'_>) -> Result<()>;

    /// Called once before anything else.
    ///
    /// # Errors
    /// The job does not start.
    fn open(&mut self, _context: &OpenContext) -> Result<()> {
        Ok(())
    }

    /// Its keyed tables, always the same ones in the same order.
    fn tables(&mut self) -> Vec<&mut dyn Table> {
        Vec::new()
    }

    /// The merged watermark has grown to `time`; the task forwards it afterwards.
    ///
    /// # Errors
    /// Stops the task.
    fn on_watermark(&mut self, _time: EventTime, _out: &mut Output<'_>) -> Result<()> {
        Ok(())
    }

    /// The watermark of one input has grown.
    fn on_input_watermark(&mut self, _input: usize, _time: EventTime) {}

    /// Which input must be read before others: `Some(i)` = take nothing but from input `i` now (a table that is still being
    /// read in for the first time). The gate asks before each element.
    fn only_input(&self) -> Option<usize> {
        None
    }

    /// Wall time has reached what the last call asked for; returns when to be called next, if ever. Called once at start with
    /// the time of the start; now and then earlier than asked for (for the sake of another operator of the task), and with an
    /// earlier time than before when the clock was set back.
    ///
    /// # Errors
    /// Stops the task.
    fn on_time(&mut self, _wall_ms: i64, _out: &mut Output<'_>) -> Result<Option<i64>> {
        Ok(None)
    }

    /// Asked before a watermark, idleness or the end goes on downstream. `true`: rows that came before it are still inside, and
    /// the operator sends it on itself, with [`Output::forward`], when they have left.
    fn hold(&mut self, _signal: Signal) -> bool {
        false
    }

    /// Whether rows are inside whose results are still to leave without another row or watermark. The last barrier of a
    /// finished input waits for them; others do not: such rows are state.
    fn holds(&self) -> bool {
        false
    }

    /// A barrier is about to pass: emit what belongs to this epoch.
    ///
    /// # Errors
    /// Stops the task.
    fn before_barrier(&mut self, _epoch: Epoch, _out: &mut Output<'_>) -> Result<()> {
        Ok(())
    }

    /// Small state that is not keyed, as of now; goes into the manifest whole. Keep it below some kilobytes.
    fn save(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The blobs that all former instances saved (rescale: any number of them).
    ///
    /// # Errors
    /// Damaged or incompatible; the job does not start.
    fn restore(&mut self, _blobs: &[Vec<u8>]) -> Result<()> {
        Ok(())
    }

    /// Whether it can take more now; a sink that cannot holds its task back. The task asks before each step.
    ///
    /// # Errors
    /// What went wrong with earlier rows; stops the task.
    fn ready(&mut self) -> Result<bool> {
        Ok(true)
    }

    /// After a barrier, asked until it answers `Some`: the epoch's staged output is safe in these segments. Rows of the next
    /// epoch may have come in between.
    ///
    /// # Errors
    /// The epoch fails, the task restarts.
    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        Ok(Some(Vec::new()))
    }

    /// Every input has ended.
    ///
    /// # Errors
    /// Stops the task.
    fn on_end(&mut self, _out: &mut Output<'_>) -> Result<()> {
        Ok(())
    }

    /// The task ends.
    fn close(&mut self) {}
}

/// What follows rows downstream and must not overtake them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Event time has come so far.
    Watermark(EventTime),
    /// The input holds no watermark back for now.
    Idle,
    /// The input is complete.
    End,
}

impl From<Signal> for Element {
    fn from(signal: Signal) -> Element {
        match signal {
            Signal::Watermark(time) => Element::Watermark(time),
            Signal::Idle => Element::Idle,
            Signal::End => Element::End,
        }
    }
}

/// What an operator, a source or a sink instance gets at start.
#[derive(Clone)]
pub struct OpenContext {
    /// Its stable id.
    pub operator: OperatorId,
    /// Its 0-based index among `parallelism` instances.
    pub index: u32,
    /// Number of instances.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u16,
    /// Key groups this instance owns.
    pub groups: Range<KeyGroup>,
    /// What happens to a row that fails here.
    pub policy: ErrorPolicy,
    /// Clocks and the rest, for what is not on the record path.
    pub env: Env,
    /// Where to register metrics.
    pub metrics: Metrics,
}

#[cfg(test)]
mod tests;
