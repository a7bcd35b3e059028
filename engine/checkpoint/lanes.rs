//! One lane's publishing: in order, each epoch once, whatever dies in between.
//!
//! The marker is the truth about what is out: it is written in the same transaction as the records. It is three-valued. Of
//! our lineage: everything up to its epoch is out and nothing after it. Absent (markers expire) or of another lineage: unknown,
//! never "not published"; then the job log and, beyond it, a scan of the output decide, else a person.
//!
//! Invariant: nothing is published before the lane was fenced and the marker read after the fence; after any error both are
//! done again, by whoever still owns the job.

use super::entry::Fork;
use super::manifest::LaneId;
use crate::env::{Bug, Moment, planted, reached};
use crate::error::{Error, Result};
use crate::operators::{LaneMarker, LanePublisher, ScanOutcome, SegmentRef};
use crate::record::Epoch;
use std::collections::VecDeque;

/// Up to where a lane is to be published, and from what.
#[derive(Debug, Clone)]
pub struct LaneWork {
    /// Lineage of the epochs.
    pub lineage: String,
    /// Where that lineage forked from.
    pub parent: Option<Fork>,
    /// Publish up to this epoch.
    pub epoch: Epoch,
    /// Known to be out up to this epoch.
    pub noted: Epoch,
    /// All segments after `noted`, in (epoch, task, sequence) order.
    pub segments: Vec<SegmentRef>,
}

/// Publishes one lane. Lives on one background thread; every call may block.
pub struct LaneWorker {
    id: LaneId,
    publisher: Box<dyn LanePublisher>,
    /// Bytes that may share a transaction; one epoch always goes whole.
    cap: u64,
    lineage: String,
    parent: Option<Fork>,
    published: Epoch,
    queue: VecDeque<(Epoch, Vec<SegmentRef>)>,
    broken: bool,
}

impl LaneWorker {
    /// `cap`: bytes of several epochs that may share a transaction; what the slowest rate publishes within a quarter of the
    /// transaction's timeout.
    pub fn new(id: LaneId, publisher: Box<dyn LanePublisher>, cap: u64) -> Self {
        let (lineage, queue) = (String::new(), VecDeque::new());
        LaneWorker { id, publisher, cap, lineage, parent: None, published: 0, queue, broken: true }
    }

    /// Which lane.
    pub fn id(&self) -> &LaneId {
        &self.id
    }

    /// Newest epoch known to be out.
    pub fn published(&self) -> Epoch {
        self.published
    }

    /// Epochs waiting.
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// Shuts out older publishers.
    ///
    /// # Errors
    /// Of the publisher.
    pub fn fence(&mut self) -> Result<()> {
        self.broken = true;
        self.publisher.fence().map_err(|e| self.place(e))?;
        reached(Moment::Fenced);
        Ok(())
    }

    /// The marker. Means something only after a fence.
    ///
    /// # Errors
    /// Of the publisher.
    pub fn marker(&mut self) -> Result<Option<LaneMarker>> {
        self.publisher.marker().map_err(|e| self.place(e))
    }

    /// After a fence: finds out what is out and publishes the rest of `work`. The lane then goes on from there. `owner`
    /// fails when this attempt no longer owns the job; it is asked before the marker is called impossible.
    ///
    /// # Errors
    /// Transient: fence and settle again. Fatal: the marker contradicts the metadata, the outcome cannot be found out, or
    /// the records can never be published; nothing is skipped and the segments are kept.
    pub fn settle(&mut self, work: &LaneWork, owner: &dyn Fn() -> Result<()>) -> Result<()> {
        let marker = self.marker()?;
        let out = match &marker {
            Some(m) if m.lineage == work.lineage || planted(Bug::IgnoreLineage) => {
                if m.epoch > work.epoch || m.epoch < work.noted {
                    owner()?;
                    return Err(self.impossible(m, work));
                }
                m.epoch
            }
            _ => self.find_out(work)?,
        };
        let out = match () {
            () if planted(Bug::IgnoreMarker) => work.noted,
            () if planted(Bug::TrustTheLog) => work.epoch,
            () => out + u64::from(planted(Bug::MarkerOffByOne)),
        };
        let done = !planted(Bug::IgnoreMarker) && marker.is_some_and(|m| m.lineage == work.lineage && m.epoch == work.epoch);
        (self.lineage, self.parent) = (work.lineage.clone(), work.parent.clone());
        if !done {
            let epochs = by_epoch(work.segments.iter().filter(|s| s.epoch > out), work.epoch);
            for (epoch, segments) in together(epochs, self.cap) {
                self.publish(epoch, &segments)?;
            }
        }
        self.published = work.epoch;
        self.broken = false;
        Ok(())
    }

    /// The outcome is unknown: up to which epoch is everything out?
    fn find_out(&mut self, work: &LaneWork) -> Result<Epoch> {
        let mut out = work.noted;
        let mut first_absent = None;
        if planted(Bug::AbsentMeansNo) {
            return Ok(out);
        }
        for (epoch, segments) in by_epoch(work.segments.iter().filter(|s| s.epoch > work.noted), 0) {
            let found = self.publisher.scan(&segments).map_err(|e| self.place(e))?;
            match (found, first_absent) {
                (ScanOutcome::Present, None) => out = epoch,
                (ScanOutcome::Absent, _) => first_absent = first_absent.or(Some(epoch)),
                // Epochs go out in order: one that is out after one that is not was misread.
                (ScanOutcome::Present, Some(_)) | (ScanOutcome::Unknown, _) => {
                    return Err(Error::fatal(format!(
                        "nobody can tell whether output of epoch {epoch} was published: the lane's marker is gone and the output topic does not say"
                    ))
                    .at(format!("lane {}, lineage {}", self.id, work.lineage))
                    .help("look whether the topic holds it; then start from a savepoint, or accept a repetition: run --from <path> --accept-duplicates"));
                }
            }
        }
        Ok(out)
    }

    /// Epoch `epoch` is complete; its segments (also those of abandoned epochs before it) are to be published.
    pub fn push(&mut self, epoch: Epoch, segments: Vec<SegmentRef>) {
        debug_assert!(self.queue.back().is_none_or(|(last, _)| *last < epoch), "epochs complete in order");
        self.queue.push_back((epoch, segments));
    }

    /// Publishes what waits, as many epochs at once as the cap allows; the newest epoch that is out by then, `None` when
    /// nothing waits. After a transient error call it again (with a pause): it fences, asks `owner`, reads the marker and
    /// goes on.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn step(&mut self, owner: &dyn Fn() -> Result<()>) -> Result<Option<Epoch>> {
        let Some((last, _)) = self.queue.back() else { return Ok(None) };
        if self.broken {
            let work = LaneWork {
                lineage: self.lineage.clone(),
                parent: self.parent.clone(),
                epoch: *last,
                noted: self.published,
                segments: self.queue.iter().flat_map(|(_, s)| s).cloned().collect(),
            };
            // Asked before, so that a replaced attempt does not fence its successor; and after, because it may have been
            // replaced in between: then what it knows is old.
            owner()?;
            self.fence()?;
            owner()?;
            self.settle(&work, owner)?;
            self.queue.clear();
        } else {
            let epochs: Vec<_> = self.queue.iter().cloned().collect();
            let Some((epoch, segments)) = together(epochs, self.cap).into_iter().next() else { return Ok(None) };
            self.publish(epoch, &segments)?;
            self.published = epoch;
            self.queue.retain(|(e, _)| *e > epoch);
        }
        Ok(Some(self.published))
    }

    fn publish(&mut self, epoch: Epoch, segments: &[SegmentRef]) -> Result<()> {
        let parent = self.parent.as_ref().map(|p| (p.lineage.clone(), p.epoch));
        let marker = LaneMarker { lineage: self.lineage.clone(), epoch, parent };
        // Until it has worked: unknown.
        self.broken = !planted(Bug::KeepClient);
        self.publisher.publish(&marker, segments).map_err(|e| self.place(e).at(format!("epoch {epoch}")))?;
        if !segments.is_empty() {
            reached(Moment::Committed);
        }
        self.broken = false;
        Ok(())
    }

    fn impossible(&self, marker: &LaneMarker, work: &LaneWork) -> Error {
        let (what, known) = if marker.epoch > work.epoch { ("beyond", work.epoch) } else { ("behind", work.noted) };
        Error::fatal(format!(
            "the output says that epoch {} was published, which is {what} epoch {known} of the job's own metadata",
            marker.epoch
        ))
        .at(format!("lane {}, lineage {}", self.id, work.lineage))
        .help("metadata or output was lost or replaced by an older copy: bring the newest checkpoint folder back, or start from a savepoint: run --from <path>")
    }

    fn place(&self, e: Error) -> Error {
        e.at(format!("lane {}", self.id))
    }
}

/// Segments grouped by their epoch; with `last` > 0 the list ends with that epoch, empty if it has no segments.
fn by_epoch<'a>(segments: impl Iterator<Item = &'a SegmentRef>, last: Epoch) -> Vec<(Epoch, Vec<SegmentRef>)> {
    let mut epochs: Vec<(Epoch, Vec<SegmentRef>)> = Vec::new();
    for segment in segments {
        match epochs.last_mut() {
            Some((epoch, group)) if *epoch == segment.epoch => group.push(segment.clone()),
            _ => epochs.push((segment.epoch, vec![segment.clone()])),
        }
    }
    if epochs.last().is_none_or(|(epoch, _)| *epoch < last) {
        epochs.push((last, Vec::new()));
    }
    epochs
}

/// Joins neighbouring epochs up to `cap` bytes; each group is named after its last epoch.
fn together(epochs: Vec<(Epoch, Vec<SegmentRef>)>, cap: u64) -> Vec<(Epoch, Vec<SegmentRef>)> {
    let bytes = |segments: &[SegmentRef]| segments.iter().map(|s| s.len).sum::<u64>();
    let mut groups: Vec<(Epoch, Vec<SegmentRef>)> = Vec::new();
    for (epoch, segments) in epochs {
        match groups.last_mut() {
            Some((name, group)) if bytes(group) + bytes(&segments) <= cap => {
                *name = epoch;
                group.extend(segments);
            }
            _ => groups.push((epoch, segments)),
        }
    }
    groups
}
