//! Buffers for answers, used again: a fresh one of half a megabyte costs more page faults than reading into it costs.
//!
//! Invariant: a buffer goes back once, when the last one who reads it lets go; what is kept is bounded.

use bytes::Bytes;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept for later.
const KEPT: usize = 8;
/// A larger one is not kept: a single huge record must not hold its room for ever.
const KEPT_BYTES: usize = 4 << 20;

/// Where buffers come from and go back to.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    /// An empty buffer.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// A filled buffer that will come back.
    pub(super) fn share(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Pooled { bytes, home: self.clone() })
    }
}

/// Bytes that go back to their pool.
struct Pooled {
    bytes: Vec<u8>,
    home: Arc<Pool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && bytes.capacity() <= KEPT_BYTES {
            bytes.clear();
            kept.push(bytes);
        }
    }
}
