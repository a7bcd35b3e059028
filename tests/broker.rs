//! The broker of the tests is a real one: transactions hide and show records, its data survives SIGKILL, it can be paused.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};

use crate::support::kafka::client::{self, NewRecord, Record};
use crate::support::kafka::{self, Broker};

const LIMIT: Duration = Duration::from_secs(30);

fn transactional(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = client::config(bootstrap).set("transactional.id", id).create().expect("client settings");
    producer.init_transactions(LIMIT).expect("init");
    producer
}

fn values(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(record.value.as_deref().unwrap_or_default()).expect("UTF-8")).collect()
}

#[test]
fn an_aborted_transaction_stays_invisible_and_a_committed_one_shows() {
    let bootstrap = kafka::shared();
    let topic = client::new_topic(bootstrap, "transactions", 2);
    let row = |partition, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("k", value) };
    let producer = transactional(bootstrap, &topic);

    producer.begin_transaction().expect("begin");
    client::send(&producer, &topic, [row(0, "aborted"), row(1, "aborted")]);
    producer.flush(LIMIT).expect("flush");
    producer.abort_transaction(LIMIT).expect("abort");
    assert!(client::read_committed_all(bootstrap, &topic).is_empty());
    assert_eq!(client::read_uncommitted_all(bootstrap, &topic).len(), 2, "the aborted records are in the log");

    producer.begin_transaction().expect("begin");
    client::send(&producer, &topic, [row(1, "c"), row(0, "a"), row(0, "b")]);
    producer.flush(LIMIT).expect("flush");
    producer.commit_transaction(LIMIT).expect("commit");
    assert_eq!(values(&client::read_committed_all(bootstrap, &topic)), ["a", "b", "c"]);
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    let bootstrap = kafka::shared();
    let topic = client::new_topic(bootstrap, "round-trip", 3);
    let written = NewRecord {
        partition: Some(2),
        key: None,
        value: Some(vec![0, 255]),
        headers: vec![("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None)],
        timestamp: Some(86_400_000),
    };
    let tombstone = NewRecord { partition: Some(2), key: Some(b"k".to_vec()), timestamp: Some(5), ..NewRecord::default() };
    client::produce(bootstrap, &topic, [written.clone(), tombstone]);

    let read = client::read_committed_all(bootstrap, &topic);
    let expected = [
        Record { partition: 2, offset: 0, key: None, value: written.value, headers: written.headers, timestamp: written.timestamp },
        Record { partition: 2, offset: 1, key: Some(b"k".to_vec()), value: None, headers: vec![], timestamp: Some(5) },
    ];
    assert_eq!(read, expected);
}

#[test]
fn own_broker_keeps_its_records_through_kill_and_pause() {
    let mut broker = Broker::start();
    let bootstrap = broker.bootstrap();
    let topic = client::new_topic(&bootstrap, "survivor", 1);
    client::produce(&bootstrap, &topic, (0..100).map(|n| NewRecord::new("k", n.to_string())));
    let before = client::read_committed_all(&bootstrap, &topic);
    assert_eq!(before.len(), 100);

    broker.kill9();
    assert!(!client::answers(&bootstrap), "a killed broker answers nobody");
    broker.restart();
    assert_eq!(client::read_committed_all(&bootstrap, &topic), before);

    broker.sigstop();
    assert!(!client::answers(&bootstrap), "a paused broker answers nobody");
    broker.sigcont();
    client::wait_until("the paused broker to answer again", || client::answers(&bootstrap));
    client::produce(&bootstrap, &topic, [NewRecord::new("k", "100")]);
    assert_eq!(client::read_committed_all(&bootstrap, &topic).len(), 101);
}
