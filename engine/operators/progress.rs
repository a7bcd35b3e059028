//! How far event time has come, as state of an operator: lateness must be decided after a restore as before it.
//!
//! At a barrier instances may have come differently far: an idle channel wakes up before or after another one's watermark. So
//! each saves its watermark with the key groups it is true of. One that takes over from several goes on from the latest, and
//! knows which keys are [`Behind`].
//!
//! Invariant: it never goes back; before the first watermark nothing is late, not even at the first instant of time.

use crate::error::{Error, Result};
use crate::record::KeyGroup;
use crate::time::EventTime;
use std::ops::Range;

/// The watermark that an operator has seen last, and the key groups that are its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    watermark: Option<EventTime>,
    groups: (KeyGroup, KeyGroup),
}

/// Key groups that had not come as far as the others, and how far they had.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behind(Vec<(Range<KeyGroup>, Option<EventTime>)>);

impl Behind {
    /// How far a key group had come; `others` is how far those had that are not behind.
    pub(crate) fn of(&self, group: KeyGroup, others: Option<EventTime>) -> Option<EventTime> {
        self.0.iter().find(|(groups, _)| groups.contains(&group)).map_or(others, |(_, watermark)| *watermark)
    }

    /// The least of all; nothing if none is behind.
    pub(crate) fn least(&self) -> Option<Option<EventTime>> {
        self.0.iter().map(|(_, watermark)| *watermark).min()
    }

    /// All have come equally far now.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Progress {
    /// Says whose progress it is: with [`Operator::open`](super::Operator::open).
    pub(crate) fn owns(&mut self, groups: &Range<KeyGroup>) {
        self.groups = (groups.start, groups.end);
    }

    /// Whether a row with this time is late: at or before the watermark.
    #[inline]
    pub(crate) fn is_late(self, time: EventTime) -> bool {
        self.watermark.is_some_and(|watermark| time <= watermark)
    }

    /// The watermark, if there was one.
    pub(crate) fn watermark(self) -> Option<EventTime> {
        self.watermark
    }

    /// Takes a watermark in; whether it is news.
    pub(crate) fn advance(&mut self, time: EventTime) -> bool {
        let news = self.watermark.is_none_or(|watermark| time > watermark);
        if news {
            self.watermark = Some(time);
        }
        news
    }

    /// For [`Operator::save`](super::Operator::save).
    pub(crate) fn save(self) -> Vec<u8> {
        postcard::to_allocvec(&(self.groups, self.watermark)).unwrap_or_default()
    }

    /// From what all former instances saved: the latest watermark of those that had key groups of ours, and who is behind it.
    ///
    /// # Errors
    /// A blob that is none of these.
    pub(crate) fn restore(&mut self, blobs: &[Vec<u8>]) -> Result<Behind> {
        let mut taken_over = Vec::new();
        for blob in blobs {
            let saved = postcard::from_bytes::<((KeyGroup, KeyGroup), Option<EventTime>)>(blob);
            let ((start, end), watermark) = saved.map_err(|_| Error::fatal("the saved watermark of an operator is damaged"))?;
            taken_over.push((start..end, watermark));
        }
        let (start, end) = self.groups;
        taken_over.retain(|(groups, _)| groups.start < end && start < groups.end);
        self.watermark = taken_over.iter().filter_map(|(_, watermark)| *watermark).max();
        taken_over.retain(|(_, watermark)| *watermark < self.watermark);
        Ok(Behind(taken_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(groups: Range<KeyGroup>, watermark: Option<i64>) -> Vec<u8> {
        let mut progress = Progress::default();
        progress.owns(&groups);
        watermark.map(|wm| progress.advance(EventTime(wm)));
        progress.save()
    }

    fn restored(blobs: &[Vec<u8>], own: Range<KeyGroup>) -> (Option<EventTime>, Behind) {
        let mut progress = Progress::default();
        progress.owns(&own);
        let behind = progress.restore(blobs).unwrap();
        (progress.watermark(), behind)
    }

    #[test]
    fn the_latest_watermark_of_those_taken_over_from_and_who_is_behind_it() {
        assert_eq!(restored(&[], 0..8).0, None);
        let blobs = [saved(0..4, Some(7)), saved(4..8, Some(-3)), saved(8..16, Some(90)), saved(16..20, None)];
        let (watermark, behind) = restored(&blobs, 2..8);
        assert_eq!(watermark, Some(EventTime(7)));
        assert_eq!((behind.of(3, watermark), behind.of(4, watermark)), (Some(EventTime(7)), Some(EventTime(-3))));
        assert_eq!(behind.least(), Some(Some(EventTime(-3))));
        let (watermark, behind) = restored(&blobs, 8..20);
        assert_eq!((watermark, behind.of(17, watermark), behind.least()), (Some(EventTime(90)), None, Some(None)));
        assert_eq!(restored(&blobs, 0..4).1.least(), None);
        assert!(Progress::default().restore(&[vec![1]]).is_err());
    }

    #[test]
    fn nothing_is_late_before_the_first_watermark() {
        let mut progress = Progress::default();
        assert!(!progress.is_late(EventTime::MIN) && progress.advance(EventTime::MIN) && progress.is_late(EventTime::MIN));
        assert!(!progress.advance(EventTime::MIN));
    }
}
