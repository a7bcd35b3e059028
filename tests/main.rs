//! The tests of Waterwheel as a whole: one fault or behaviour per module, against a real Kafka broker and real processes.
//!
//! All modules form one binary, because each test binary links RocksDB and librdkafka again. A test that kills or
//! pauses its broker has `own_broker` in its name: `script/test` leaves it out when the user brings a broker.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start processes, wait in real time and look at files; nothing here runs inside a task"
)]

mod async_calls;
mod bad_records;
#[cfg(all(feature = "sql", feature = "testing"))]
mod bad_records_sql;
mod broker;
mod broker_faults;
mod catalogue;
mod checkpoint_folder;
mod cli;
mod controls;
mod damage;
#[cfg(feature = "testing")]
mod first_start;
mod followed_files;
#[cfg(feature = "sql")]
mod golden;
mod job_changes;
#[cfg(all(feature = "sql", feature = "testing"))]
mod job_sql;
mod kafka_fetch;
mod kafka_lane;
mod kafka_source;
mod kill_embedded;
mod kill_kafka;
mod kill_moments;
mod kill_operators;
mod layers;
mod leaders;
mod licences;
mod refusals;
mod rights;
mod savepoint;
mod secrets;
mod simulated_job;
mod simulated_joins;
mod simulated_process;
#[cfg(all(feature = "sql", feature = "testing"))]
mod simulated_sql;
mod simulation;
mod sql;
mod sql_kafka;
mod sql_parquet;
mod support;
mod tidy;
#[cfg(all(feature = "sql", feature = "tls"))]
mod tls;
mod topic_faults;
mod torture;
mod zombie;
