//! How far event time has come, as state of an operator: lateness must be decided after a restore as before it.
//!
//! Invariant: it never goes back; before the first watermark nothing is late, not even at the first instant of time.

use crate::error::{Error, Result};
use crate::time::EventTime;

/// The watermark that an operator has seen last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress(Option<EventTime>);

impl Progress {
    /// Whether a row with this time is late: at or before the watermark.
    #[inline]
    pub(crate) fn is_late(self, time: EventTime) -> bool {
        self.0.is_some_and(|watermark| time <= watermark)
    }

    /// The watermark, if there was one.
    pub(crate) fn watermark(self) -> Option<EventTime> {
        self.0
    }

    /// Takes a watermark in; whether it is news.
    pub(crate) fn advance(&mut self, time: EventTime) -> bool {
        let news = self.0.is_none_or(|watermark| time > watermark);
        if news {
            self.0 = Some(time);
        }
        news
    }

    /// For [`Operator::save`](super::Operator::save).
    pub(crate) fn save(self) -> Vec<u8> {
        self.0.map_or_else(Vec::new, |watermark| watermark.0.to_be_bytes().to_vec())
    }

    /// From what all former instances saved. The smallest counts; at an aligned barrier all have seen the same watermark.
    ///
    /// # Errors
    /// A blob that is none of these.
    pub(crate) fn restore(blobs: &[Vec<u8>]) -> Result<Progress> {
        let mut least = None;
        for (i, blob) in blobs.iter().enumerate() {
            let saved = match <[u8; 8]>::try_from(&blob[..]) {
                Ok(bytes) => Some(EventTime(i64::from_be_bytes(bytes))),
                Err(_) if blob.is_empty() => None,
                Err(_) => return Err(Error::fatal("the saved watermark of an operator is damaged")),
            };
            least = if i == 0 { saved } else { least.min(saved) };
        }
        Ok(Progress(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_watermark_is_restored_and_none_is_smaller_than_any() {
        let at = |ms: i64| ms.to_be_bytes().to_vec();
        assert_eq!(Progress::restore(&[]).unwrap().0, None);
        assert_eq!(Progress::restore(&[at(7), at(-3)]).unwrap().0, Some(EventTime(-3)));
        assert_eq!(Progress::restore(&[at(7), Vec::new()]).unwrap().0, None);
        assert!(Progress::restore(&[vec![1]]).is_err());
        let mut progress = Progress::default();
        assert!(!progress.is_late(EventTime::MIN) && progress.advance(EventTime::MIN) && progress.is_late(EventTime::MIN));
        assert!(!progress.advance(EventTime::MIN));
    }
}
