//! The publishing half of a lane on the embedded log.
//!
//! Invariant: a publish is one commit that holds records and marker, made only while this publisher owns the lane. So after a
//! fence the marker tells exactly what is out, and nothing is ever pending.

use super::Place;
use super::appender::{Session, Transaction};
use super::book::Book;
use super::entry::{Entry, LaneCommit};
use super::view::{Cursor, Step};
use std::collections::BTreeSet;
use waterwheel_engine::env::{Bug, Moment, planted, reached};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{LaneMarker, LanePublisher, PublisherContext, ScanOutcome, SegmentReader, SegmentRef};

/// One lane's publisher.
pub(super) struct LocalPublisher {
    place: Place,
    context: PublisherContext,
    lane: String,
    owned: Option<(u64, Session)>,
}

/// Refuses when a lane has another owner than generation `mine`.
pub(super) fn check_owner(book: &Book, lane: &str, mine: u64) -> Result<()> {
    let now = book.lanes.get(lane).map_or(0, |l| l.generation);
    if now == mine {
        return Ok(());
    }
    Err(Error::fatal(format!("lane {lane} was taken over by a newer run of this job (generation {now}, this run has {mine})"))
        .help("only one run of a job can publish; this one published nothing more and stops"))
}

impl LocalPublisher {
    pub(super) fn new(place: Place, context: PublisherContext) -> Self {
        LocalPublisher { place, lane: context.lane_name(), context, owned: None }
    }

    fn owned(&mut self) -> Result<(u64, &mut Session)> {
        match &mut self.owned {
            Some((generation, session)) => Ok((*generation, session)),
            None => Err(Error::restart(format!("lane {} must be fenced first", self.lane))),
        }
    }

    fn publish_as(
        place: &Place,
        context: &PublisherContext,
        session: &mut Session,
        commit: &LaneCommit,
        segments: &[SegmentRef],
    ) -> Result<()> {
        session.view.catch_up()?;
        check_owner(session.view.book(), &commit.lane, commit.generation)?;
        let last = session.view.book().lanes.get(&commit.lane).and_then(|l| l.marker.as_ref());
        if last.is_some_and(|last| last.lineage == commit.marker.lineage && last.epoch >= commit.marker.epoch) {
            return Err(Error::fatal(format!("lane {} was asked to publish epoch {} again", commit.lane, commit.marker.epoch))
                .at(place.url())
                .help("this is a bug: please report it; nothing was published twice"));
        }
        let mut transaction = Transaction::default();
        for segment in segments {
            let mut reader = SegmentReader::open(&context.env, &context.staging, segment)?;
            while let Some(batch) = reader.next_batch()? {
                batch.records().try_for_each(|record| session.add(&mut transaction, record))?;
            }
        }
        let extents = session.finish(transaction)?;
        if !segments.is_empty() {
            reached(Moment::Delivered);
        }
        session.commit_lane(commit, &extents)
    }
}

impl LanePublisher for LocalPublisher {
    fn fence(&mut self) -> Result<()> {
        self.owned = None;
        let mut session = Session::open(&self.place)?;
        let known = session.view.book().lanes.get(&self.lane).map(|l| l.generation);
        if let Some(generation) = known.filter(|_| planted(Bug::SkipFence)) {
            self.owned = Some((generation, session));
            return Ok(());
        }
        let owner = self.place.env.fresh_id();
        let mut mine = 0;
        session.view.commit(|book| {
            mine = book.lanes.get(&self.lane).map_or(0, |l| l.generation) + 1;
            Ok(Entry::Fence { lane: self.lane.clone(), generation: mine, owner: owner.clone() })
        })?;
        self.owned = Some((mine, session));
        Ok(())
    }

    fn marker(&mut self) -> Result<Option<LaneMarker>> {
        let lane = self.lane.clone();
        let (generation, session) = self.owned()?;
        session.view.catch_up()?;
        check_owner(session.view.book(), &lane, generation)?;
        Ok(session.view.book().lanes.get(&lane).and_then(|l| l.marker.clone()))
    }

    fn scan(&mut self, segments: &[SegmentRef]) -> Result<ScanOutcome> {
        let wanted: BTreeSet<(&str, u32)> = segments.iter().filter(|s| s.records > 0).map(|s| (s.name.as_str(), s.crc)).collect();
        let mut missing = wanted.clone();
        let mut cursor = Cursor::at(self.place.history(), 0);
        loop {
            match cursor.step()? {
                Step::Entry(_, Entry::Append { lane: Some(commit), .. }) => {
                    missing.retain(|(name, crc)| !commit.segments.iter().any(|(n, c)| n == name && c == crc));
                }
                Step::Entry(..) => {}
                Step::Unsettled => {
                    self.place.history().settle()?;
                    cursor.settled();
                }
                Step::End if missing.len() == wanted.len() => return Ok(ScanOutcome::Absent),
                Step::End if missing.is_empty() => return Ok(ScanOutcome::Present),
                Step::End => return Ok(ScanOutcome::Unknown),
            }
        }
    }

    fn publish(&mut self, marker: &LaneMarker, segments: &[SegmentRef]) -> Result<()> {
        let Some((generation, mut session)) = self.owned.take() else { return self.owned().map(drop) };
        let segment_names = segments.iter().map(|s| (s.name.clone(), s.crc)).collect();
        let commit = LaneCommit { lane: self.lane.clone(), generation, marker: marker.clone(), segments: segment_names };
        Self::publish_as(&self.place, &self.context, &mut session, &commit, segments)
            .map_err(|e| e.at(format!("lane {}, epoch {}", self.lane, marker.epoch)))?;
        self.owned = Some((generation, session));
        Ok(())
    }
}
