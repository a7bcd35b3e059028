//! The start of an attempt: from "the process runs" to "tasks may run".
//!
//! Order, and why: verify what will be restored, so that a damaged checkpoint, or one that does not fit the plan, is refused
//! before anything moves; claim the log, so that an older coordinator can complete nothing more; verify again if it completed one
//! meanwhile; fence **all** lanes, so that it
//! can publish nothing more; make sure that the claim still stands (the last to fence wins, and it may be an old attempt that
//! was slow); then settle each lane under the lineage of the newest checkpoint; only then fork to a new lineage, if asked to,
//! and write its first marker.
//!
//! Invariant: when [`begin`] returns, everything up to the newest checkpoint is in the committed output once, the log says
//! so, and every lane's marker is of the present lineage. It may be called again after any error that is transient.

use super::entry::{CheckpointRef, Fork, JobHistory, LogEntry, Published, Start};
use super::lanes::{LaneWork, LaneWorker};
use super::layout::load_manifest;
use super::log::JobLog;
use super::manifest::{Manifest, SinkLanes};
use super::places::bring_segment;
use super::savepoint;
use super::storage::CheckpointStorage;
use crate::env::{Bug, planted};
use crate::error::{Error, Kind, Result};
use crate::operators::LaneMarker;
use crate::record::Epoch;
use std::path::PathBuf;
use std::sync::Arc;

/// What is to be started.
#[derive(Debug, Clone)]
pub struct BeginOptions {
    /// Job name.
    pub job: String,
    /// Instances of the widest operator.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u16,
    /// Lanes of the plan's exactly-once sinks.
    pub lanes: Vec<SinkLanes>,
    /// Name of the lineage that begins if one does: a fresh identity, the same when `begin` is called again.
    pub lineage: String,
    /// From where.
    pub from: From,
    /// Output that was published after the point of start may be published again.
    pub accept_duplicates: bool,
    /// Local folder into which segments are brought before they are published, where the store is not that folder.
    pub bring_to: Option<PathBuf>,
}

/// From where a person wants to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The newest checkpoint; for a new job, empty state.
    Newest,
    /// Empty state, whatever folder and topics know.
    Fresh,
    /// The savepoint in this folder.
    Savepoint(String),
    /// The retained checkpoint of this epoch (the newest one of that number): a fall-back.
    Checkpoint(Epoch),
}

/// What the attempt starts with.
pub struct Begin {
    /// The job so far, this attempt included.
    pub history: JobHistory,
    /// What to restore, and the store that its files are in; `None` = empty state.
    pub restore: Option<(Manifest, Arc<dyn CheckpointStorage>)>,
}

/// Verifies what is to be restored: that it fits the plan, and every file of it. Called with the same manifest again, it may
/// answer from memory.
pub type Verify<'a> = &'a mut dyn FnMut(&Manifest, &Arc<dyn CheckpointStorage>) -> Result<()>;

/// Opens the store in a savepoint's folder.
pub type OpenSavepoint<'a> = &'a dyn Fn(&str) -> Result<Arc<dyn CheckpointStorage>>;

/// Claims the job, settles its output, and says what to restore. `lanes` has every lane of the plan's exactly-once sinks.
///
/// # Errors
/// Transient: call again after a pause, with the same arguments. Fatal: the reason and what a person can do.
pub fn begin(
    log: &mut JobLog,
    storage: &Arc<dyn CheckpointStorage>,
    lanes: &mut [LaneWorker],
    options: &BeginOptions,
    open: OpenSavepoint<'_>,
    verify: Verify<'_>,
) -> Result<Begin> {
    let mut beginning = Beginning { log, storage, lanes, options, open };
    beginning.verify(verify)?;
    beginning.claim()?;
    beginning.verify(verify)?;
    beginning.fence()?;
    beginning.settle_newest()?;
    beginning.fork()?;
    Ok(Begin { history: beginning.history()?.clone(), restore: beginning.restore()? })
}

struct Beginning<'a> {
    log: &'a mut JobLog,
    storage: &'a Arc<dyn CheckpointStorage>,
    lanes: &'a mut [LaneWorker],
    options: &'a BeginOptions,
    open: OpenSavepoint<'a>,
}

impl Beginning<'_> {
    fn history(&self) -> Result<&JobHistory> {
        self.log.history().ok_or_else(|| Error::fatal("the job log is empty after the job was created"))
    }

    fn verify(&self, verify: Verify<'_>) -> Result<()> {
        if let Some(history) = self.log.history() {
            check_same_job(history, self.options)?;
        }
        match self.restore()? {
            Some((manifest, from)) => verify(&manifest, &from),
            None => Ok(()),
        }
    }

    /// Makes sure that the job exists, and that the log is ours.
    fn claim(&mut self) -> Result<()> {
        if self.log.history().is_none() {
            self.create()?;
        }
        if self.history()?.attempt == self.log.attempt() {
            return Ok(());
        }
        let (attempt, options) = (self.log.attempt().to_string(), self.options);
        self.log.claim(|history| {
            let history = history.ok_or_else(|| Error::fatal("the job log was emptied while the job started"))?;
            check_same_job(history, options)?;
            let (lineage, lanes) = (history.lineage.clone(), options.lanes.clone());
            Ok(LogEntry::AttemptStarted { attempt: attempt.clone(), parallelism: options.parallelism, lineage, lanes })
        })?;
        Ok(())
    }

    /// A job is new only if neither its folder nor its output knows it.
    fn create(&mut self) -> Result<()> {
        let start = self.wanted(None)?.unwrap_or(Start::Fresh);
        self.each_lane(|lane, _| lane.fence())?;
        let mut markers = Vec::new();
        for lane in self.lanes.iter_mut() {
            markers.push((lane.id().clone(), lane.marker()?));
        }
        match start.parent() {
            Some(point) => {
                for (lane, marker) in &markers {
                    self.check_not_beyond(&lane.to_string(), marker.as_ref(), &point)?;
                }
            }
            None if self.options.from == From::Fresh => {}
            None => {
                if let Some((lane, Some(marker))) = markers.iter().find(|(_, m)| m.is_some()) {
                    return Err(Error::fatal(format!("job {} is not new: its output holds a marker, but its checkpoint folder is empty", self.options.job))
                        .at(format!("lane {lane}: lineage {}, epoch {}; folder {}", marker.lineage, marker.epoch, self.storage.describe()))
                        .help("name the folder with its checkpoints: --checkpoints <folder>; or start over, which writes its output again: run --fresh"));
                }
            }
        }
        let options = self.options;
        let entry = LogEntry::JobCreated {
            job: options.job.clone(),
            lanes: options.lanes.clone(),
            max_parallelism: options.max_parallelism,
            lineage: options.lineage.clone(),
            start,
        };
        Ok(self.log.append(&entry)?)
    }

    /// Does the same with every lane, side by side: each waits for the outside. Says what went wrong with the first one.
    fn each_lane(&mut self, act: impl Fn(&mut LaneWorker, usize) -> Result<()> + Sync) -> Result<()> {
        let mut outcomes: Vec<Result<()>> = self.lanes.iter().map(|_| Ok(())).collect();
        let jobs = self.lanes.iter_mut().zip(&mut outcomes).enumerate().map(|(at, (lane, outcome))| {
            let act = &act;
            Box::new(move || *outcome = act(lane, at)) as Box<dyn FnOnce() + Send>
        });
        self.log.env().background.together(jobs.collect());
        outcomes.into_iter().collect()
    }

    fn fence(&mut self) -> Result<()> {
        self.each_lane(|lane, _| lane.fence())?;
        // "Read the newest manifest again": since our claim nobody could write one, unless somebody claimed after us.
        Ok(self.log.watch().still_ours()?)
    }

    /// Publishes what the newest checkpoint of the present lineage left unpublished, and notes it.
    fn settle_newest(&mut self) -> Result<()> {
        let history = self.history()?.clone();
        let newest = history.newest().map(|newest| load_manifest(&**self.storage, newest)).transpose();
        let (manifest, damaged) = match newest {
            Ok(manifest) => (manifest, false),
            Err(e) if e.kind() != Kind::Fatal || !self.forks() => return Err(e),
            // The newest one is damaged and a person falls back: then the one chosen is settled instead.
            Err(_) => match self.wanted(Some(&history))? {
                Some(Start::Checkpoint { checkpoint }) if checkpoint.lineage == history.lineage => {
                    (Some(load_manifest(&**self.storage, &checkpoint)?), true)
                }
                _ => return Ok(()),
            },
        };
        self.settle(&history, manifest.as_ref(), damaged && self.options.accept_duplicates)?;
        let epoch = manifest.map_or(0, |m| m.epoch);
        let note = |lane: &LaneWorker| Published { lane: lane.id().clone(), lineage: history.lineage.clone(), epoch };
        let published: Vec<_> = self.lanes.iter().filter(|l| history.published(l.id()) < epoch).map(note).collect();
        if !published.is_empty() {
            self.log.append(&LogEntry::Published { published })?;
        }
        Ok(())
    }

    /// Settles every lane under one manifest; `pass_by` leaves those alone that are beyond it, as a person has accepted.
    fn settle(&mut self, history: &JobHistory, manifest: Option<&Manifest>, pass_by: bool) -> Result<()> {
        let noted = |lane: &_| {
            let stored = manifest.and_then(|m| m.published.iter().find(|p| p.lane == *lane)).map_or(0, |p| p.epoch);
            stored.max(history.published(lane))
        };
        if let Some(segment) = manifest.into_iter().flat_map(Manifest::segments).find(|s| {
            let lane = s.lane();
            s.segment.epoch > noted(&lane) && !self.lanes.iter().any(|l| *l.id() == lane)
        }) {
            return Err(Error::fatal(format!(
                "sink {} is not in the plan, but its output of epoch {} is not published yet",
                segment.sink, segment.segment.epoch
            ))
            .help("run the former version once more and stop it gracefully; then start this one"));
        }
        let work = |lane: &LaneWorker| {
            let noted = noted(lane.id());
            LaneWork {
                lineage: manifest.map_or(&history.lineage, |m| &m.lineage).clone(),
                parent: manifest.map_or_else(|| history.start.parent(), |m| m.parent.clone()),
                epoch: manifest.map_or(0, |m| m.epoch),
                noted,
                segments: manifest.filter(|_| !planted(Bug::SkipSettle)).map_or_else(Vec::new, |m| m.segments_after(lane.id(), noted)),
            }
        };
        let works: Vec<LaneWork> = self.lanes.iter().map(work).collect();
        let (watch, storage, options) = (self.log.watch(), self.storage, self.options);
        self.each_lane(|lane, at| {
            let work = &works[at];
            if let Some(staging) = &options.bring_to {
                work.segments.iter().try_for_each(|segment| bring_segment(&**storage, staging, segment))?;
            }
            let beyond = |m: LaneMarker| m.lineage == work.lineage && m.epoch > work.epoch;
            if !(pass_by && lane.marker()?.is_some_and(beyond)) {
                lane.settle(work, &|| Ok(watch.still_ours()?))?;
            }
            Ok(())
        })
    }

    /// Whether a fork is asked for and not in the log yet.
    fn forks(&self) -> bool {
        self.options.from != From::Newest && self.log.history().is_some_and(|h| h.lineage != self.options.lineage)
    }

    fn fork(&mut self) -> Result<()> {
        if !self.forks() {
            return Ok(());
        }
        let history = self.history()?.clone();
        let start = self.wanted(Some(&history))?.unwrap_or(Start::Fresh);
        if let Some(point) = start.parent() {
            for i in 0..self.lanes.len() {
                let marker = self.lanes[i].marker()?;
                self.check_not_beyond(&self.lanes[i].id().to_string(), marker.as_ref(), &point)?;
            }
        }
        self.log.append(&LogEntry::Forked { lineage: self.options.lineage.clone(), start })?;
        // Epoch 0 of the new lineage: from here a missing marker can only mean that it has expired.
        let history = self.history()?.clone();
        self.settle(&history, None, false)
    }

    /// The start that a person asked for.
    fn wanted(&self, history: Option<&JobHistory>) -> Result<Option<Start>> {
        match &self.options.from {
            From::Newest => Ok(None),
            From::Fresh => Ok(Some(Start::Fresh)),
            From::Savepoint(path) => {
                let (manifest, crc) = savepoint::open(&*(self.open)(path)?)?;
                let point = Fork { lineage: manifest.lineage, epoch: manifest.epoch };
                Ok(Some(Start::Savepoint { path: path.clone(), point, crc }))
            }
            From::Checkpoint(epoch) => {
                let retained = history.map_or(&[][..], |h| &h.retained);
                let found = retained.iter().rfind(|c| c.epoch == *epoch).cloned();
                let epochs: Vec<_> = retained.iter().map(|c| c.epoch.to_string()).collect();
                let checkpoint = found.ok_or_else(|| {
                    Error::fatal(format!("there is no checkpoint {epoch}")).help(format!("retained are: {}", epochs.join(", ")))
                })?;
                load_manifest(&**self.storage, &checkpoint)?;
                Ok(Some(Start::Checkpoint { checkpoint }))
            }
        }
    }

    /// Starting at `point` must not repeat what is out, nor skip what is not.
    fn check_not_beyond(&self, lane: &str, marker: Option<&LaneMarker>, point: &Fork) -> Result<()> {
        let Some(marker) = marker else { return Ok(()) };
        let same = marker.lineage == point.lineage && marker.epoch == point.epoch;
        let untouched_fork = marker.epoch == 0 && marker.parent == Some((point.lineage.clone(), point.epoch));
        if same || untouched_fork || self.options.accept_duplicates {
            return Ok(());
        }
        Err(Error::fatal(format!(
            "what is published does not end where this start begins: the topics are at epoch {} of lineage {}, the start is at epoch {} of lineage {}",
            marker.epoch, marker.lineage, point.epoch, point.lineage
        ))
        .at(format!("lane {lane}"))
        .help("go on from the newest checkpoint: run without --from")
        .help("or accept that output after the start comes twice: --accept-duplicates"))
    }

    /// What this start restores, also before it is in the log.
    fn restore(&self) -> Result<Option<(Manifest, Arc<dyn CheckpointStorage>)>> {
        let load = |c: &CheckpointRef| Ok(Some((load_manifest(&**self.storage, c)?, self.storage.clone())));
        let history = self.log.history();
        let start = match history {
            Some(history) if !self.forks() => match history.newest() {
                Some(newest) => return load(newest),
                None => history.start.clone(),
            },
            _ => self.wanted(history)?.unwrap_or(Start::Fresh),
        };
        match &start {
            Start::Fresh => Ok(None),
            Start::Checkpoint { checkpoint } => load(checkpoint),
            Start::Savepoint { path, point, crc } => {
                let storage = (self.open)(path)?;
                let (manifest, found) = savepoint::open(&*storage)?;
                if found != *crc {
                    return Err(Error::fatal(format!("the savepoint in {path} is not the one that this job started from"))
                        .at(format!("lineage {}, epoch {}", point.lineage, point.epoch))
                        .help("bring that savepoint back, or start from this one: run --from <path>"));
                }
                Ok(Some((manifest, storage)))
            }
        }
    }
}

/// What a job can never change is as it was.
fn check_same_job(history: &JobHistory, options: &BeginOptions) -> Result<()> {
    let other = |what: String, help: &str| Err(Error::fatal(what).at(format!("job {}", options.job)).help(help));
    let as_before = "set it back to what it was; or start over with empty state: run --fresh in another folder";
    if history.job != options.job {
        return other(
            format!("this checkpoint folder is of job {}", history.job),
            "name the folder with this job's checkpoints: --checkpoints <folder>",
        );
    }
    if history.max_parallelism != options.max_parallelism {
        let (was, is) = (history.max_parallelism, options.max_parallelism);
        return other(format!("max_parallelism was {was} when the job was created and cannot become {is}"), as_before);
    }
    for is in &options.lanes {
        if let Some(was) = history.lanes.iter().find(|was| was.sink == is.sink && was.lanes != is.lanes) {
            let what = format!("sink {} has {} lanes since the job was created and cannot have {}", is.sink, was.lanes, is.lanes);
            return other(what, as_before);
        }
    }
    Ok(())
}
