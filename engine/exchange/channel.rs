//! A bounded queue of elements between two tasks.
//!
//! Invariant: first in, first out; `bytes` is the sum over what is queued; the receiver's waker is called when an empty queue
//! fills, the sender's when a full one has room again.

use crate::record::Element;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tells the worker thread of a task that there may be work.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

struct Shared {
    queue: Mutex<VecDeque<Element>>,
    /// Outside the lock, so that asking for room costs no lock.
    bytes: AtomicUsize,
    capacity: usize,
    starved: AtomicBool,
    wake_sender: Waker,
    wake_receiver: Waker,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Element>> {
        // A panic elsewhere cannot leave a VecDeque half changed by the calls below.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending half.
pub struct Sender(Arc<Shared>);

/// The receiving half.
pub struct Receiver(Arc<Shared>);

/// A channel that has room while less than `capacity` bytes are queued.
pub fn channel(capacity: usize, wake_sender: Waker, wake_receiver: Waker) -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        bytes: AtomicUsize::new(0),
        capacity,
        starved: AtomicBool::new(false),
        wake_sender,
        wake_receiver,
    });
    (Sender(shared.clone()), Receiver(shared))
}

fn weight(element: &Element) -> usize {
    match element {
        Element::Batch(b) => b.bytes() + 64,
        _ => 0,
    }
}

impl Sender {
    /// Queues an element; never blocks and never refuses, see [`Sender::has_room`].
    pub fn send(&self, element: Element) {
        let bytes = weight(&element);
        let was_empty = {
            let mut queue = self.0.lock();
            queue.push_back(element);
            self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
            queue.len() == 1
        };
        if was_empty {
            (self.0.wake_receiver)();
        }
    }

    /// Whether less than the capacity is queued. After a `false`, the sender's waker will be called once there is room.
    pub fn has_room(&self) -> bool {
        if self.0.bytes.load(Ordering::Acquire) < self.0.capacity {
            return true;
        }
        self.0.starved.store(true, Ordering::SeqCst);
        // Looked at again after the flag is up: else a pop in between would wake nobody.
        self.0.bytes.load(Ordering::SeqCst) < self.0.capacity
    }
}

impl Receiver {
    /// The next element, if one is there.
    pub fn pop(&self) -> Option<Element> {
        let (element, left) = {
            let mut queue = self.0.lock();
            let element = queue.pop_front()?;
            let bytes = weight(&element);
            (element, self.0.bytes.fetch_sub(bytes, Ordering::SeqCst) - bytes)
        };
        if left < self.0.capacity && self.0.starved.swap(false, Ordering::SeqCst) {
            (self.0.wake_sender)();
        }
        Some(element)
    }

    /// Nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Rows;
    use crate::time::EventTime;
    use std::sync::atomic::AtomicU32;

    fn counting() -> (Arc<AtomicU32>, Waker) {
        let count = Arc::new(AtomicU32::new(0));
        let seen = count.clone();
        let wake = move || {
            seen.fetch_add(1, Ordering::Relaxed);
        };
        (count, Arc::new(wake))
    }

    #[test]
    fn full_means_wait_and_room_wakes_the_sender() {
        let (sender_woken, wake_sender) = counting();
        let (receiver_woken, wake_receiver) = counting();
        let (tx, rx) = channel(100, wake_sender, wake_receiver);
        assert!(tx.has_room());
        tx.send(Element::Batch(Rows::new(vec![0u64; 10], vec![EventTime(0); 10]).boxed()));
        tx.send(Element::End);
        assert!(!tx.has_room());
        assert_eq!(receiver_woken.load(Ordering::Relaxed), 1, "only the first fills an empty queue");
        assert!(matches!(rx.pop(), Some(Element::Batch(_))));
        assert_eq!(sender_woken.load(Ordering::Relaxed), 1);
        assert!(tx.has_room());
        assert!(matches!(rx.pop(), Some(Element::End)));
        assert!(rx.pop().is_none() && rx.is_empty());
    }
}
