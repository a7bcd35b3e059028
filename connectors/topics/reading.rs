//! Reading topics outside of a job: `waterwheel topic consume`, the demo's checks, tests.
//!
//! It drives a [`Source`] the way a task does, all splits in one reader, so that people see exactly what a job would read.
//!
//! Invariant: records of a partition come in offset order, each once.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::Result;
use waterwheel_engine::observe::Metrics;
use waterwheel_engine::operators::{ErrorPolicy, OpenContext, Poll, ReaderContext, Source, SourceReader, SplitId, SplitState};
use waterwheel_engine::record::{OperatorId, RawBatch, downcast};

/// An open read over topics.
pub struct Reading {
    reader: Box<dyn SourceReader>,
    open: BTreeSet<SplitId>,
    bell: Arc<Bell>,
}

/// What [`Reading::next`] brought.
#[derive(Debug)]
pub enum Next {
    /// Records of one partition.
    Records(RawBatch),
    /// Nothing came in time.
    Nothing,
    /// The place is away; it is tried again.
    Waiting(String),
    /// Every split has been read to its end.
    End,
}

#[derive(Default)]
struct Bell(Mutex<bool>, Condvar);

impl Bell {
    fn ring(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    fn wait(&self, time: Duration) {
        let rung = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) = self.1.wait_timeout_while(rung, time, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

impl Reading {
    /// Opens all splits of a source where a new job would begin.
    ///
    /// # Errors
    /// Those of the source.
    pub fn open(source: &dyn Source, env: &Env) -> Result<Self> {
        let bell = Arc::new(Bell::default());
        let waker = bell.clone();
        let context = ReaderContext {
            open: OpenContext {
                operator: OperatorId::new("reading"),
                index: 0,
                parallelism: 1,
                max_parallelism: 1,
                groups: 0..1,
                policy: ErrorPolicy::Fail,
                env: env.clone(),
                metrics: Metrics::default(),
            },
            waker: Arc::new(move || waker.ring()),
            batch_rows: 4096,
        };
        let mut reader = source.reader(context)?;
        let states: Vec<SplitState> = source.splits(true)?.into_iter().map(SplitState::fresh).collect();
        reader.assign(&states)?;
        let open = states.into_iter().map(|s| s.split.id).collect();
        Ok(Reading { reader, open, bell })
    }

    /// The next records, waiting up to `patience` for them.
    ///
    /// # Errors
    /// Those of the source.
    pub fn next(&mut self, patience: Duration) -> Result<Next> {
        let mut waited = Duration::ZERO;
        let nap = Duration::from_millis(1);
        loop {
            if self.open.is_empty() {
                return Ok(Next::End);
            }
            match self.reader.poll()? {
                Poll::Batch { batch, .. } if batch.is_empty() => {}
                Poll::Batch { batch, .. } => return Ok(Next::Records(downcast::<RawBatch>(batch))),
                Poll::Ended { split } => {
                    self.open.remove(&split);
                }
                Poll::Waiting(why) if waited >= patience => return Ok(Next::Waiting(why)),
                Poll::Empty if waited >= patience => return Ok(Next::Nothing),
                Poll::Empty | Poll::Waiting(_) => {
                    self.bell.wait(nap);
                    waited += nap;
                }
            }
        }
    }

    /// Everything up to the end of a bounded source, batch by batch.
    ///
    /// # Errors
    /// Those of the source and of `each`.
    pub fn drain(mut self, mut each: impl FnMut(RawBatch) -> Result<()>) -> Result<()> {
        loop {
            match self.next(Duration::from_secs(60))? {
                Next::Records(batch) => each(batch)?,
                Next::End => return Ok(()),
                Next::Nothing | Next::Waiting(_) => {}
            }
        }
    }
}
