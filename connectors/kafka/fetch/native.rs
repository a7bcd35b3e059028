//! The one place where records come out of librdkafka: per-partition queues, drained in batches.
//!
//! librdkafka's cost is per message; `rd_kafka_consume_batch_queue` halves it against polling one by one. Each partition has
//! its own queue (forwarding off), so one that is not drained stops prefetching by itself and holds nobody else up.
//!
//! Invariants: a queue is freed before its consumer (it holds the consumer); the waker outlives every call that librdkafka
//! may make to it (the callback is taken off first); a message is freed exactly once, after its bytes were handed out.
#![expect(unsafe_code, reason = "rdkafka has no batch call on partition queues; each block says why it is sound")]

use super::super::client::Client;
use super::{Fetched, Record, Wake};
use rdkafka::bindings as ffi;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use waterwheel_engine::record::{Logged, RawBatch, Timestamps};

/// The queue of one assigned partition.
pub(in super::super) struct PartitionQueue {
    queue: NonNull<ffi::rd_kafka_queue_t>,
    /// Boxed: librdkafka keeps its address.
    _wake: Box<Wake>,
    /// Reused by every call.
    messages: Vec<*mut ffi::rd_kafka_message_t>,
    headers: Vec<u8>,
    /// Last field: freed after the queue.
    _consumer: Arc<Client>,
}

// SAFETY: librdkafka's handles may be used from any thread; `messages` is empty between calls.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Takes the partition's queue off the consumer's own. Before the partition is assigned, so that nothing gets past it.
    /// `None` when librdkafka has no such queue (an invalid name).
    pub(in super::super) fn open(consumer: &Arc<Client>, topic: &str, partition: i32, wake: Wake) -> Option<Self> {
        let name = CString::new(topic).ok()?;
        let wake = Box::new(wake);
        // SAFETY: the client lives as long as `consumer`; `name` lives over the call; the result is ours to free.
        let queue = NonNull::new(unsafe { ffi::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition) })?;
        // SAFETY: `queue` is valid; the address of `*wake` stays the same and valid until `drop` takes the callback off.
        unsafe {
            ffi::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            ffi::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(woken), ptr::from_ref::<Wake>(&wake).cast_mut().cast::<c_void>());
        }
        Some(PartitionQueue { queue, _wake: wake, messages: Vec::new(), headers: Vec::new(), _consumer: consumer.clone() })
    }

    /// Hands out up to `limit` things that are there already; never waits. Gives how many.
    pub(in super::super) fn take(&mut self, limit: usize, mut each: impl FnMut(Fetched<'_>)) -> usize {
        self.messages.clear();
        self.messages.reserve(limit);
        // SAFETY: the buffer has room for `limit` pointers, and librdkafka writes no more than that.
        let count = unsafe { ffi::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.messages.as_mut_ptr(), limit) };
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: that many pointers were written.
        unsafe { self.messages.set_len(count) };
        for message in self.messages.drain(..) {
            // SAFETY: a message from this queue is valid until destroyed, which happens once, here, after its last use.
            unsafe {
                each(view(&*message, message, &mut self.headers));
                ffi::rd_kafka_message_destroy(message);
            }
        }
        count
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: after the callback is off librdkafka calls it no more (both happen under the queue's lock); the queue is
        // ours and freed once, before the consumer, which is a field of this.
        unsafe {
            ffi::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            ffi::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

unsafe extern "C" fn woken(_: *mut ffi::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: `open` gave the address of a `Wake` that lives until the callback is taken off.
    let wake = unsafe { &*wake.cast::<Wake>() };
    wake();
}

/// # Safety
/// `raw` is the address of `message`, which stays valid while the result is used.
unsafe fn view<'a>(message: &'a ffi::rd_kafka_message_t, raw: *mut ffi::rd_kafka_message_t, headers: &'a mut Vec<u8>) -> Fetched<'a> {
    if message.err == ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
        return Fetched::End(message.offset);
    }
    if message.err != ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: the text belongs to the message and is read at once.
        let text = unsafe { text(ffi::rd_kafka_message_errstr(raw)) };
        return Fetched::Failed(Code::from(message.err), text);
    }
    let mut kind = ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    headers.clear();
    // SAFETY: as the function's contract; the ranges are those that the message names.
    unsafe {
        let timestamp = ffi::rd_kafka_message_timestamp(raw, &mut kind);
        let timestamps = match kind {
            ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => Timestamps::Created,
            ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => Timestamps::Appended,
            ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => Timestamps::None,
        };
        let epoch = ffi::rd_kafka_message_leader_epoch(raw);
        encode_headers(raw, headers);
        Fetched::Record(Record {
            offset: message.offset,
            timestamp,
            key: bytes(message.key, message.key_len),
            value: bytes(message.payload, message.len),
            headers,
            logged: Logged { leader_epoch: (epoch >= 0).then_some(epoch), timestamps },
            lender: None,
        })
    }
}

/// # Safety
/// `raw` is a valid message.
unsafe fn encode_headers(raw: *const ffi::rd_kafka_message_t, out: &mut Vec<u8>) {
    let mut list = ptr::null_mut();
    // SAFETY: the list belongs to the message; an error means that there is none.
    if unsafe { ffi::rd_kafka_message_headers(raw, &mut list) } != ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return;
    }
    for i in 0.. {
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `list` is valid; beyond the last header the call gives an error and writes nothing.
        let got = unsafe { ffi::rd_kafka_header_get_all(list, i, &mut name, &mut value, &mut len) };
        if got != ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        // SAFETY: name and value belong to the list and are copied at once.
        let (name, value) = unsafe { (CStr::from_ptr(name).to_string_lossy(), bytes(value.cast_mut(), len)) };
        RawBatch::encode_header(out, &name, value);
    }
}

/// Null stays `None`, empty becomes `Some(&[])`.
///
/// # Safety
/// `data` is null or points to `len` bytes that live as long as the result.
unsafe fn bytes<'a>(data: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as the function's contract.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

/// # Safety
/// `text` is null or a C string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the function's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
