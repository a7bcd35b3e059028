//! How many rows per CPU-second pass from one task to another on another thread, dealt out by key group?
//!
//! The sender keys rows and deals each batch out over two channels; the receiver's thread takes both through gates. The
//! figure counts the CPU time of both threads.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;
use waterwheel::engine::exchange::{Edge, Gate, Gated, Receiver, Routing, Waker, channel};
use waterwheel::engine::operators::{Node, Target as To, Targets, key_by};
use waterwheel::engine::record::{Element, Rows};
use waterwheel::engine::time::EventTime;
use waterwheel_benches::meter::{Target, throughput};
use waterwheel_benches::node::{KEY_GROUPS, context};

const BATCH: usize = 4096;
const BATCHES: usize = 256;
const CHANNEL_BYTES: usize = 1 << 20;

#[derive(Clone)]
struct Payment {
    card: u64,
    amount: u64,
}

/// Wakes whichever thread has put itself into the cell.
fn waker(thread: &Arc<OnceLock<Thread>>) -> Waker {
    let thread = thread.clone();
    Arc::new(move || {
        if let Some(thread) = thread.get() {
            thread.unpark();
        }
    })
}

fn wait() {
    // The time-out covers the moment before a thread is in its cell.
    thread::park_timeout(Duration::from_millis(1));
}

fn send(node: &mut Node, batch: &Rows<Payment>) {
    for _ in 0..BATCHES {
        while !node.targets.has_room() {
            wait();
        }
        node.push(0, Element::Batch(batch.clone().boxed())).expect("rows leave");
    }
    node.push(0, Element::End).expect("the end leaves");
}

fn receive(receivers: Vec<Receiver>) -> usize {
    let mut gates: Vec<Gate> = receivers.into_iter().map(|r| Gate::new(vec![(0, r)])).collect();
    let (mut rows, mut ended) = (0, 0);
    while ended < gates.len() {
        let mut moved = false;
        for gate in &mut gates {
            while let Some(event) = gate.poll(None) {
                moved = true;
                match event {
                    Gated::Batch(_, batch) => rows += std::hint::black_box(batch.0).len(),
                    Gated::End => ended += 1,
                    _ => {}
                }
            }
        }
        if !moved && ended < gates.len() {
            wait();
        }
    }
    rows
}

fn pass(batch: &Rows<Payment>) {
    let (sender, receiver) = (Arc::<OnceLock<Thread>>::default(), Arc::<OnceLock<Thread>>::default());
    let (tx, rx): (Vec<_>, Vec<_>) = (0..2).map(|_| channel(CHANNEL_BYTES, waker(&sender), waker(&receiver))).unzip();
    let edge = Box::new(Edge::new(tx, Routing::KeyGroup, KEY_GROUPS));
    let context = context("key_by");
    let targets = Targets::new(&context, vec![vec![To::Edge(edge)]], Vec::new());
    let mut node = Node { operator: key_by(|p: &Payment| p.card)(), context, targets };
    let rows = thread::scope(|scope| {
        scope.spawn(|| {
            let _ = sender.set(thread::current());
            send(&mut node, batch);
        });
        let received = scope.spawn(|| {
            let _ = receiver.set(thread::current());
            receive(rx)
        });
        received.join().expect("the receiver does not panic")
    });
    assert_eq!(rows, BATCH * BATCHES, "every row arrives");
}

fn main() {
    let rows = (0..BATCH as u64).map(|n| Payment { card: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), amount: n }).collect::<Vec<_>>();
    assert!(rows.iter().map(|p| p.amount).sum::<u64>() > 0);
    let batch = Rows::new(rows, vec![EventTime(0); BATCH]);
    throughput("exchange", (BATCH * BATCHES) as u64, Target::AtLeast(10.0), || pass(&batch));
}
