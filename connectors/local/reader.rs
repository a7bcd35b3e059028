//! The reading half: follows the commits, keeps for each split the extents still to be read, reads frames out of them.
//!
//! Reading a frame is one read of the file and one copy of its records into the batch. A commit that may not be durable yet is
//! synced on a background thread, so that the task never waits for the disk to sync.
//!
//! Invariant: a split's queue of extents begins at its position and has no gap; what a frame holds is checked before use.

use super::appender::topic_dir;
use super::entry::{Entry, Extent};
use super::frame::{NoFrame, take};
use super::history::damaged;
use super::view::{Cursor, Step, View};
use super::{Place, groups};
use crate::topics::{OnLostOffsets, SourceOptions, topic_replaced};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Poll, ReaderContext, SourceReader, SplitId, SplitState};
use waterwheel_engine::record::{Batch, RawBatch};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Commits looked at per poll, so that a long history does not hold up the task.
const COMMITS_PER_POLL: usize = 256;
/// How long to wait before looking for a new commit again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

pub(super) struct LocalReader {
    place: Place,
    options: SourceOptions,
    context: ReaderContext,
    tracks: Vec<Track>,
    /// Whose turn it is.
    turn: usize,
    cursor: Option<Cursor>,
    look_at: Duration,
    settling: Option<Receiver<Result<()>>>,
}

/// One split being read.
struct Track {
    id: SplitId,
    topic_id: String,
    position: i64,
    end: Option<i64>,
    held: bool,
    /// `Poll::Ended` was given.
    ended: bool,
    /// Next extents; the first one is cut from the front as it is read.
    extents: VecDeque<Extent>,
    /// Offset last told to the group.
    told: i64,
}

impl Track {
    fn at_end(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    fn readable(&self) -> bool {
        !self.held && !self.at_end() && !self.extents.is_empty()
    }

    fn hungry(&self) -> bool {
        !self.held && !self.at_end() && self.extents.is_empty()
    }
}

/// Reads the frames that one read of the file brings and cuts them off the extent; records with offsets in `wanted` go to the
/// batch.
pub(super) fn read_extent(place: &Place, topic: &Arc<str>, extent: &mut Extent, wanted: Range<i64>, batch: &mut RawBatch) -> Result<()> {
    let path = topic_dir(&place.root, topic, &extent.id).join(&extent.file);
    let damage =
        |at: u64, offset: i64, why: &str| damaged(&path, at as usize, why).at(format!("{topic}/{}, offset {offset}", extent.partition));
    let mut want = READ_BYTES;
    loop {
        let ask = want.min(usize::try_from(extent.len).unwrap_or(usize::MAX));
        let bytes = place.env.files.read_at(&path, extent.at, ask).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => damage(extent.at, extent.base, "a data file is missing"),
            _ => Error::from(e).at(path.display().to_string()),
        })?;
        let (mut used, mut base, mut records) = (0, extent.base, extent.records);
        let short = loop {
            if records == 0 {
                break 0;
            }
            match take(&bytes[used..]) {
                Err(NoFrame::Short(need)) => break need,
                Err(NoFrame::Damaged(why)) => return Err(damage(extent.at + used as u64, base, why)),
                Ok(frame) if frame.partition != extent.partition || u64::from(frame.count) > records || frame.count == 0 => {
                    return Err(damage(extent.at + used as u64, base, "a frame is not the one that was committed"));
                }
                Ok(frame) => {
                    let read = frame.read(topic, base, wanted.start, wanted.end, batch);
                    read.ok_or_else(|| damage(extent.at + used as u64, base, "the records of a frame do not fill it"))?;
                    used += frame.size;
                    base += i64::from(frame.count);
                    records -= u64::from(frame.count);
                }
            }
        };
        if used > 0 {
            (extent.at, extent.len, extent.base, extent.records) = (extent.at + used as u64, extent.len - used as u64, base, records);
            return Ok(());
        }
        if short as u64 > extent.len || bytes.len() < ask {
            return Err(damage(extent.at, extent.base, "a data file ends before the committed records do"));
        }
        want = short;
    }
}

impl LocalReader {
    pub(super) fn new(place: Place, options: SourceOptions, context: ReaderContext) -> Self {
        LocalReader { place, options, context, tracks: Vec::new(), turn: 0, cursor: None, look_at: Duration::ZERO, settling: None }
    }

    /// The position to read from, given what the log holds.
    fn checked_position(&self, state: &SplitState, end: i64) -> Result<i64> {
        let id = &state.split.id;
        match (self.options.on_lost_offsets, state.position) {
            (_, position) if (0..=end).contains(&position) => Ok(position),
            (OnLostOffsets::Earliest, _) => Ok(0),
            (OnLostOffsets::Latest, _) => Ok(end),
            (OnLostOffsets::Fail, position) => Err(Error::fatal(format!("offset {position} of {id} is gone: the log holds 0..{end}"))
                .at(self.place.url())
                .help("start at the oldest record and accept the difference:  run --on-lost-offsets earliest")
                .help("or restore an older state:  run --from ./savepoint")),
        }
    }

    /// Where a cursor sees every extent beyond the positions: the newest folded file that begins before all of them.
    fn first_commit(&self) -> Result<u64> {
        let history = self.place.history();
        let mut newest = history.listing()?.newest_chunk;
        while let Some(chunk) = newest {
            let before = history.before(chunk)?.ok_or_else(|| history.hole(chunk * super::history::CHUNK))?;
            let early = |t: &Track| before.end(&t.id.name, &t.topic_id, t.id.partition).is_none_or(|end| end <= t.position);
            if self.tracks.iter().all(early) {
                return Ok(chunk * super::history::CHUNK);
            }
            newest = chunk.checked_sub(1);
        }
        Ok(0)
    }

    fn read(&mut self, at: usize) -> Result<Poll> {
        let track = &mut self.tracks[at];
        let mut batch = RawBatch::with_capacity(self.context.batch_rows.min(4096), READ_BYTES);
        let wanted = track.position..track.end.unwrap_or(i64::MAX);
        while let Some(extent) = track.extents.front_mut() {
            read_extent(&self.place, &track.id.name, extent, wanted.clone(), &mut batch)?;
            let reached = extent.base;
            if extent.records == 0 {
                track.extents.pop_front();
            }
            if batch.data_len() >= READ_BYTES || batch.len() >= self.context.batch_rows || reached >= wanted.end {
                break;
            }
        }
        if let Some(last) = batch.len().checked_sub(1) {
            track.position = batch.record(last).offset + 1;
        }
        Ok(Poll::Batch { split: track.id.clone(), batch: Box::new(batch), next: track.position })
    }

    /// Follows the commits until a split has something to read; whether it is worth asking again at once.
    fn follow(&mut self) -> Result<()> {
        let now = self.context.open.env.clock.monotonic();
        if now < self.look_at || !self.is_settled()? {
            return Ok(());
        }
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        for _ in 0..COMMITS_PER_POLL {
            match cursor.step()? {
                Step::End => {
                    self.look_at = now + LOOK_AGAIN;
                    return Ok(());
                }
                Step::Unsettled => {
                    self.settle();
                    return Ok(());
                }
                Step::Entry(_, entry) => {
                    if take_entry(&mut self.tracks, entry)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        let (done, settling) = channel();
        self.settling = Some(settling);
        let (history, waker) = (self.place.history(), self.context.waker.clone());
        let open = &self.context.open;
        let job = move || {
            let _ = done.send(history.settle());
            waker();
        };
        open.env.background.run(&format!("settle {}/{}", open.operator, open.index), Box::new(job));
    }

    fn is_settled(&mut self) -> Result<bool> {
        let Some(settling) = &self.settling else { return Ok(true) };
        match settling.try_recv() {
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Err(Error::restart("syncing the folder of commits broke off")),
            Ok(result) => result?,
        }
        self.settling = None;
        if let Some(cursor) = &mut self.cursor {
            cursor.settled();
        }
        Ok(true)
    }
}

/// Queues what a commit means for the splits; whether it brought something to read.
fn take_entry(tracks: &mut [Track], entry: Entry) -> Result<bool> {
    let mut brought = false;
    match entry {
        Entry::Append { extents, .. } => {
            for extent in extents {
                let track = tracks.iter_mut().find(|t| t.topic_id == extent.id && t.id.partition == extent.partition);
                let Some(track) = track.filter(|t| extent.end() > t.position) else { continue };
                let next = track.extents.back().map_or(track.position, Extent::end);
                // The first one may begin before the position; all others begin where the one before ends.
                if extent.base > next || (extent.base < next && !track.extents.is_empty()) {
                    return Err(Error::fatal(format!(
                        "the log is damaged: records {next}..{} of {} are in no commit",
                        extent.base, track.id
                    )));
                }
                track.extents.push_back(extent);
                brought = true;
            }
        }
        Entry::Delete { id, .. } => {
            if let Some(track) = tracks.iter().find(|t| t.topic_id == id) {
                return Err(topic_replaced(&track.id.name, track.id.partition));
            }
        }
        Entry::Create { .. } | Entry::Fence { .. } => {}
    }
    Ok(brought)
}

impl SourceReader for LocalReader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        let view = View::open(self.place.history()).map_err(|e| e.at(self.place.url()))?;
        for state in splits {
            let id = &state.split.id;
            let topic = view.book().topics.get(&*id.name).ok_or_else(|| topic_replaced(&id.name, id.partition))?;
            if state.split.topic_id.as_ref().is_some_and(|expected| *expected != topic.id) {
                return Err(topic_replaced(&id.name, id.partition));
            }
            let end = view.book().end(&id.name, &topic.id, id.partition);
            let end = end.ok_or_else(|| Error::fatal(format!("{id} does not exist: the topic has {} partitions", topic.ends.len())))?;
            self.tracks.push(Track {
                id: id.clone(),
                topic_id: topic.id.clone(),
                position: self.checked_position(state, end)?,
                end: state.split.end,
                held: false,
                ended: state.ended,
                extents: VecDeque::new(),
                told: -1,
            });
        }
        // Read the commits again from where the earliest split needs them; the queues are rebuilt from the positions.
        self.tracks.iter_mut().for_each(|t| t.extents.clear());
        self.settling = None;
        self.look_at = Duration::ZERO;
        self.cursor = Some(Cursor::at(self.place.history(), self.first_commit()?));
        Ok(())
    }

    fn poll(&mut self) -> Result<Poll> {
        if let Some(track) = self.tracks.iter_mut().find(|t| !t.ended && t.at_end()) {
            track.ended = true;
            return Ok(Poll::Ended { split: track.id.clone() });
        }
        if self.tracks.iter().any(Track::hungry) {
            self.follow()?;
        }
        let n = self.tracks.len();
        let Some(at) = (0..n).map(|i| (self.turn + i) % n).find(|&i| self.tracks[i].readable()) else {
            return Ok(Poll::Empty);
        };
        self.turn = (at + 1) % n;
        self.read(at)
    }

    fn hold_back(&mut self, split: &SplitId, hold: bool) {
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == *split) {
            track.held = hold;
        }
    }

    fn committed(&mut self, positions: &[(SplitId, i64)]) {
        let Some(group) = self.options.group.clone() else { return };
        let mut news = Vec::new();
        for (id, offset) in positions {
            if let Some(track) = self.tracks.iter_mut().find(|t| t.id == *id && t.told != *offset) {
                track.told = *offset;
                news.push((id.clone(), track.topic_id.clone(), *offset));
            }
        }
        let place = self.place.clone();
        let job = move || {
            for (id, topic_id, offset) in news {
                if let Err(e) = groups::commit(&place, &group, &id, &topic_id, offset) {
                    tracing::warn!(error = %e, split = %id, "the group's offset could not be noted; only lag tools miss it");
                }
            }
        };
        let open = &self.context.open;
        open.env.background.run(&format!("groups {}/{}", open.operator, open.index), Box::new(job));
    }
}
