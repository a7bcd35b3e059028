//! What a topic is: its identity (KIP-516), its partitions, what this user may do with it.
//!
//! rdkafka has no binding for DescribeTopics, so it is called here; nothing else knows of it.
//!
//! Invariant: every native object made here is freed here, on every path.
#![expect(unsafe_code, reason = "rdkafka has no binding for DescribeTopics; each block says why it is sound")]

use super::client::{ASK, Client, coded, tidy};
use rdkafka::bindings as ffi;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::time::Duration;
use waterwheel_engine::error::{Error, Result};

/// How long to wait for an answer before looking at what else was told, in milliseconds.
const SLICE_MS: i32 = 250;
/// So many of them go by before what one broker says of us is taken for all.
const SLICES_FOR_OTHERS: i32 = 2;

/// One topic, as the broker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// Identity; `None` from brokers before 2.8.
    pub(super) id: Option<String>,
    pub(super) partitions: u32,
    /// What the user may do; `None` when the broker does not say.
    pub(super) rights: Option<Rights>,
}

/// What the user may do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// Describes topics; the code where one cannot be.
///
/// # Errors
/// The broker is away, or the user may not ask.
pub(super) fn describe(client: &Client, topics: &[String], place: &str) -> Result<BTreeMap<String, Result<Description, Code>>> {
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names = topics.iter().map(|t| CString::new(t.as_str())).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|_| Error::fatal("the name of a topic holds a zero byte").at(place.to_string()))?;
    let doing = format!("describing {}", topics.join(","));
    let event = ask(client, &names).map_err(|code| client.context().denied(&doing, place).unwrap_or_else(|| coded(code, &doing, place)))?;
    // SAFETY: the event is of this type (it was asked for on a queue of its own) and outlives what is read from it.
    unsafe {
        let result = ffi::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        let mut count = 0;
        let list = ffi::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        Ok((0..count).map(|i| one(*list.add(i))).collect())
    }
}

/// Frees a native object when dropped.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(raw: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Self, Code> {
        NonNull::new(raw).map(|p| Owned(p, free)).ok_or(Code::CriticalSystemResource)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the matching constructor and is freed once.
        unsafe { (self.1)(self.0.as_ptr()) }
    }
}

fn ask(client: &Client, names: &[CString]) -> Result<Owned<ffi::rd_kafka_event_t>, Code> {
    let rk = client.client().native_ptr();
    let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
    let timeout = ASK.as_millis() as i32;
    let mut why = [0 as c_char; 256];
    // SAFETY: `rk` lives over the whole function; every object is freed by its `Owned`, the event's queue after the event is
    // taken off it; `pointers` and `names` outlive the collection, which copies them.
    unsafe {
        let queue = Owned::new(ffi::rd_kafka_queue_new(rk), ffi::rd_kafka_queue_destroy)?;
        let options = ffi::rd_kafka_AdminOptions_new(rk, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Owned::new(options, ffi::rd_kafka_AdminOptions_destroy)?;
        ffi::rd_kafka_AdminOptions_set_request_timeout(options.0.as_ptr(), timeout, why.as_mut_ptr(), why.len());
        let refused = ffi::rd_kafka_AdminOptions_set_include_authorized_operations(options.0.as_ptr(), 1);
        if !refused.is_null() {
            ffi::rd_kafka_error_destroy(refused);
        }
        let topics = ffi::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let topics = Owned::new(topics, ffi::rd_kafka_TopicCollection_destroy)?;
        ffi::rd_kafka_DescribeTopics(rk, topics.0.as_ptr(), options.0.as_ptr(), queue.0.as_ptr());
        let mut event = ptr::null_mut();
        for slice in 0..timeout / SLICE_MS + 4 {
            event = ffi::rd_kafka_queue_poll(queue.0.as_ptr(), SLICE_MS);
            if !event.is_null() {
                break;
            }
            // Nobody answers a user who is not let in; what was told on the side says so. Another broker may answer yet.
            tidy(client);
            if client.context().is_denied() && slice >= SLICES_FOR_OTHERS {
                return Err(Code::Authentication);
            }
            // The request waits for one broker, which may be gone for long: newer metadata names another one.
            if slice % SLICES_FOR_OTHERS == SLICES_FOR_OTHERS - 1 {
                let topic = names.first().and_then(|name| name.to_str().ok());
                let _ = client.fetch_metadata(topic, Duration::from_millis(SLICE_MS as u64));
            }
        }
        if event.is_null() {
            return Err(Code::OperationTimedOut);
        }
        let event = Owned::new(event, ffi::rd_kafka_event_destroy)?;
        match Code::from(ffi::rd_kafka_event_error(event.0.as_ptr())) {
            Code::NoError => {
                client.context().calm();
                Ok(event)
            }
            code => Err(code),
        }
    }
}

/// # Safety
/// `topic` is a valid description.
unsafe fn one(topic: *const ffi::rd_kafka_TopicDescription_t) -> (String, Result<Description, Code>) {
    // SAFETY: as the function's contract; texts and lists belong to the description and are copied at once. Operations are
    // read as numbers, since a newer broker may name some that the binding's enum does not have.
    unsafe {
        let name = CStr::from_ptr(ffi::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = ffi::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() { Code::NoError } else { Code::from(ffi::rd_kafka_error_code(error)) };
        if code != Code::NoError {
            return (name, Err(code));
        }
        let mut partitions = 0;
        ffi::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let mut count = 0;
        let operations = ffi::rd_kafka_TopicDescription_authorized_operations(topic, &mut count).cast::<i32>();
        let may = |operation: ffi::rd_kafka_AclOperation_t| (0..count).any(|i| *operations.add(i) == operation as i32);
        let rights = (!ptr::eq(operations, ptr::null()) && count > 0).then(|| Rights {
            read: may(ffi::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ),
            write: may(ffi::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE),
        });
        let id = ffi::rd_kafka_TopicDescription_topic_id(topic);
        let known =
            !id.is_null() && (ffi::rd_kafka_Uuid_most_significant_bits(id) != 0 || ffi::rd_kafka_Uuid_least_significant_bits(id) != 0);
        let id = known.then(|| CStr::from_ptr(ffi::rd_kafka_Uuid_base64str(id)).to_string_lossy().into_owned());
        (name, Ok(Description { id, partitions: partitions as u32, rights }))
    }
}
