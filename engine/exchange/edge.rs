//! Routes what leaves a task over the channels to the tasks below.
//!
//! Invariant: rows of one key always go to the task that owns its key group, in order; watermarks, barriers, idleness and end
//! go to every channel, after the rows that precede them.

use super::{EdgeSender, Sender};
use crate::env::{Bug, planted};
use crate::record::{BatchBox, Element, key_group, task_of};
use serde::{Deserialize, Serialize};

/// How rows choose their task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Routing {
    /// To the task of the same index; parallelism must be equal.
    Forward,
    /// By the key's group; the batch must carry keys.
    KeyGroup,
    /// Batch by batch in turn.
    Rebalance,
    /// Every row to every task.
    Broadcast,
}

/// One outgoing edge of one task.
pub struct Edge {
    senders: Vec<Sender>,
    routing: Routing,
    max_parallelism: u16,
    next: usize,
    targets: Vec<u32>,
}

impl Edge {
    /// `senders[i]` leads to task `i`; with [`Routing::Forward`] there is just the one of the same index.
    pub fn new(senders: Vec<Sender>, routing: Routing, max_parallelism: u16) -> Self {
        assert!(!senders.is_empty(), "an edge leads somewhere");
        Edge { senders, routing, max_parallelism, next: 0, targets: Vec::new() }
    }

    fn send_by_key(&mut self, batch: BatchBox) {
        let parallelism = self.senders.len() as u32;
        let Some(keys) = batch.keys() else { panic!("plan bug: a batch of {} without keys on a keyed edge", batch.type_name()) };
        self.targets.clear();
        let by_hash = planted(Bug::RouteByHash);
        let group = |h: u64| if by_hash { h as u16 % self.max_parallelism } else { key_group(h, self.max_parallelism) };
        self.targets.extend(keys.hashes().iter().map(|&h| task_of(group(h), parallelism, self.max_parallelism)));
        for (sender, part) in self.senders.iter().zip(batch.scatter(&self.targets, parallelism as usize)) {
            if !part.is_empty() {
                sender.send(Element::Batch(part));
            }
        }
    }

    fn broadcast(&self, batch: &BatchBox) {
        for sender in &self.senders {
            sender.send(Element::Batch(batch.clone_batch()));
        }
    }
}

impl EdgeSender for Edge {
    fn send(&mut self, element: Element) {
        match element {
            Element::Batch(batch) if self.senders.len() == 1 => self.senders[0].send(Element::Batch(batch)),
            Element::Batch(batch) => match self.routing {
                Routing::KeyGroup => self.send_by_key(batch),
                Routing::Broadcast => self.broadcast(&batch),
                Routing::Rebalance | Routing::Forward => {
                    self.next = (self.next + 1) % self.senders.len();
                    self.senders[self.next].send(Element::Batch(batch));
                }
            },
            Element::Watermark(t) if planted(Bug::WatermarkToOne) => self.senders[0].send(Element::Watermark(t)),
            Element::Watermark(t) => self.senders.iter().for_each(|s| s.send(Element::Watermark(t))),
            Element::Idle => self.senders.iter().for_each(|s| s.send(Element::Idle)),
            Element::Barrier(b) => self.senders.iter().for_each(|s| s.send(Element::Barrier(b))),
            Element::End => self.senders.iter().for_each(|s| s.send(Element::End)),
        }
    }

    fn has_room(&self) -> bool {
        // No short cut: each full channel must learn that somebody waits, or its waker stays silent.
        let mut room = true;
        for sender in &self.senders {
            room &= sender.has_room();
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Receiver, channel};
    use super::*;
    use crate::record::{Keys, Rows, downcast, key_groups_of};
    use crate::time::EventTime;
    use std::sync::Arc;

    fn edge(n: usize, routing: Routing) -> (Edge, Vec<Receiver>) {
        let (tx, rx) = (0..n).map(|_| channel(1 << 20, Arc::new(|| ()), Arc::new(|| ()))).unzip();
        (Edge::new(tx, routing, 128), rx)
    }

    #[test]
    fn each_row_goes_to_the_owner_of_its_group() {
        let (mut edge, rx) = edge(3, Routing::KeyGroup);
        let mut rows = Rows::new((0..100u64).collect(), vec![EventTime(0); 100]);
        rows.keys = Some(Keys::encode((0..100u64).collect::<Vec<_>>().into_iter()));
        edge.send(Element::Batch(rows.boxed()));
        let mut seen = 0;
        for (task, rx) in rx.iter().enumerate() {
            let Some(Element::Batch(b)) = rx.pop() else { panic!("100 keys reach every task") };
            let rows: Rows<u64> = downcast(b);
            seen += rows.rows.len();
            for &h in rows.keys.as_ref().unwrap().hashes() {
                assert!(key_groups_of(task as u32, 3, 128).contains(&key_group(h, 128)));
            }
        }
        assert_eq!(seen, 100);
    }

    #[test]
    fn watermarks_reach_everybody() {
        let (mut edge, rx) = edge(2, Routing::Rebalance);
        edge.send(Element::Watermark(EventTime(5)));
        assert!(rx.iter().all(|r| matches!(r.pop(), Some(Element::Watermark(EventTime(5))))));
    }
}
