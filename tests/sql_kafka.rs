//! SQL between Kafka topics, as a script written for Flink: the client's properties in Java's words, a changelog by key in, an
//! updating join, a changelog by key out; killed with SIGKILL at random moments.
//!
//! What a reader of the output topic makes of it must be the query over all that was written to the inputs.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cargo::program;
use crate::support::fraud::{Chance, KILLS, Running, kill_again_and_again, rounds, text};
use crate::support::kafka;
use crate::support::kafka::client::{self, NewRecord};

const CUSTOMERS: u64 = 40;
const REGIONS: u64 = 6;
/// Rows that are new to each attempt.
const ROWS: usize = 300;

/// What was written so far.
#[derive(Default)]
struct World {
    /// Region of each customer that there is.
    customers: BTreeMap<u64, u64>,
    /// Customer and amount of each order.
    orders: Vec<(u64, u64)>,
}

impl World {
    /// Writes some more of both; customers move, leave and come back.
    fn grow(&mut self, bootstrap: &str, names: &Names, chance: &mut Chance) {
        let (mut customers, mut orders) = (Vec::new(), Vec::new());
        for _ in 0..ROWS {
            let id = chance.below(CUSTOMERS);
            if chance.below(4) > 0 {
                let amount = chance.below(1000);
                self.orders.push((id, amount));
                orders.push(NewRecord {
                    partition: Some(self.orders.len() as i32 % 3),
                    value: Some(json!({"customer": id, "amount": amount, "note": "x\"y\\"}).to_string().into_bytes()),
                    ..NewRecord::default()
                });
                continue;
            }
            let region = (chance.below(5) > 0).then(|| chance.below(REGIONS));
            let value = region.map(|r| json!({"id": id, "region": format!("r{r}")}).to_string().into_bytes());
            match region {
                Some(region) => drop(self.customers.insert(id, region)),
                None => drop(self.customers.remove(&id)),
            }
            customers.push(NewRecord { key: Some(json!({ "id": id }).to_string().into_bytes()), value, ..NewRecord::default() });
        }
        client::produce(bootstrap, &names.customers, customers);
        client::produce(bootstrap, &names.orders, orders);
    }

    /// Orders and amount by region.
    fn totals(&self) -> BTreeMap<String, (u64, u64)> {
        let mut totals = BTreeMap::new();
        for (customer, amount) in &self.orders {
            let Some(region) = self.customers.get(customer) else { continue };
            let of: &mut (u64, u64) = totals.entry(format!("r{region}")).or_default();
            *of = (of.0 + 1, of.1 + amount);
        }
        totals
    }

    /// Orders by customer, of every customer that there is.
    fn per_customer(&self) -> BTreeMap<u64, (String, u64)> {
        let count = |id: &u64| self.orders.iter().filter(|o| o.0 == *id).count() as u64;
        self.customers.iter().map(|(id, region)| (*id, (format!("r{region}"), count(id)))).collect()
    }
}

struct Names {
    customers: String,
    orders: String,
    totals: String,
    per_customer: String,
}

/// The newest value of each key that was not taken away.
fn materialised(bootstrap: &str, topic: &str) -> Vec<Value> {
    let mut rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    for record in client::read_committed_all(bootstrap, topic) {
        rows.insert(record.key.expect("a key"), record.value);
    }
    rows.into_values().flatten().map(|value| serde_json::from_slice(&value).expect("JSON")).collect()
}

fn script(bootstrap: &str, names: &Names) -> String {
    let Names { customers, orders, totals, per_customer } = names;
    let kafka = |connector: &str, topic: &str| {
        let formats = match connector {
            "kafka" => "'format' = 'json'",
            _ => "'key.format' = 'json', 'value.format' = 'json'",
        };
        format!("'connector' = '{connector}', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{bootstrap}', {formats}")
    };
    format!(
        "SET 'pipeline.name' = '{totals}';
         CREATE TABLE orders (customer BIGINT, amount BIGINT) WITH ({orders_with}, 'scan.startup.mode' = 'earliest-offset',
             'properties.group.id' = '{totals}', 'properties.fetch.max.wait.ms' = '50', 'properties.max.poll.records' = '500');
         CREATE TABLE customers (id BIGINT, region STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ({customers_with});
         CREATE TABLE totals (region STRING, orders BIGINT, amount BIGINT, PRIMARY KEY (region) NOT ENFORCED) WITH ({totals_with});
         CREATE TABLE per_customer (id BIGINT, region STRING, orders BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ({per_customer_with});
         INSERT INTO totals SELECT c.region, COUNT(*), SUM(o.amount) FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.region;
         INSERT INTO per_customer SELECT c.id, MAX(c.region), COUNT(o.customer)
             FROM customers c LEFT JOIN orders o ON o.customer = c.id GROUP BY c.id;",
        orders_with = kafka("kafka", orders),
        customers_with = kafka("upsert-kafka", customers),
        totals_with = kafka("upsert-kafka", totals),
        per_customer_with = kafka("upsert-kafka", per_customer),
    )
}

fn compacted(bootstrap: &str, prefix: &str) -> String {
    client::new_topic_with(bootstrap, prefix, 3, &[("cleanup.policy", "compact")])
}

#[test]
fn an_updating_join_into_a_topic_by_key_is_exact_whatever_is_killed() {
    let bootstrap = kafka::shared();
    let mut chance = Chance::new(7);
    for _ in 0..rounds() {
        let names = Names {
            customers: compacted(bootstrap, "customers"),
            orders: client::new_topic(bootstrap, "orders", 3),
            totals: compacted(bootstrap, "totals"),
            per_customer: compacted(bootstrap, "per-customer"),
        };
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("job.sql"), script(bootstrap, &names)).expect("is written");
        let world = std::cell::RefCell::new((World::default(), Chance::new(8)));
        let start = |parallelism: u32| {
            let (world, chance) = &mut *world.borrow_mut();
            world.grow(bootstrap, &names, chance);
            let mut command = Command::new(program("waterwheel"));
            command.current_dir(folder.path()).args(["sql", "-f", "job.sql", "run", "--json", "--status-interval", "20ms"]);
            command.args(["--checkpoint-interval", "50ms", "--parallelism", &parallelism.to_string()]);
            Running::start(command)
        };
        kill_again_and_again(&start, KILLS, &mut chance);
        let mut last = start(2);
        let (world, _) = world.into_inner();
        let wanted: Vec<Value> =
            world.totals().iter().map(|(region, (n, sum))| json!({"region": region, "orders": n, "amount": sum})).collect();
        let counted: BTreeMap<u64, Value> =
            world.per_customer().iter().map(|(id, (region, n))| (*id, json!({"id": id, "region": region, "orders": n}))).collect();
        let mut seen = (Vec::new(), BTreeMap::new());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while seen != (wanted.clone(), counted.clone()) {
            assert!(last.runs(), "the job ended: {}", last.wait().2);
            assert!(std::time::Instant::now() < deadline, "{seen:?}\nis not\n{wanted:?}\n{counted:?}");
            let mut totals = materialised(bootstrap, &names.totals);
            totals.sort_by_key(|row| row["region"].to_string());
            let counts = materialised(bootstrap, &names.per_customer).into_iter();
            seen = (totals, counts.map(|row| (row["id"].as_u64().expect("a number"), row)).collect());
        }
        last.signal(rustix::process::Signal::INT);
        let (ended, status, errors) = last.wait();
        assert!(ended.success() && status["resumed_from"].is_u64(), "{errors}");
        assert!(errors.contains("'properties.max.poll.records' has no effect"), "{errors}");
    }
}

#[test]
fn properties_of_the_java_client_are_understood_or_refused() {
    let bootstrap = kafka::shared();
    let topic = client::new_topic(bootstrap, "properties", 1);
    client::produce(bootstrap, &topic, [NewRecord::new("k", r#"{"n": 7}"#)]);
    let folder = TempDir::new().expect("a folder");
    let query = |properties: &str| {
        let table = format!(
            "CREATE TABLE t (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json',
             'properties.bootstrap.servers' = '{bootstrap}', {properties}); SELECT n + 1 AS m FROM t;"
        );
        let mut command = Command::new(program("waterwheel"));
        command.current_dir(folder.path()).args(["sql", "--until-end", "--output", "csv", "-e", &table]);
        text(&command.output().expect("starts"))
    };
    let good = query("'properties.client.id' = 'me', 'properties.isolation.level' = 'read_committed', 'properties.fetcher' = 'librdkafka'");
    assert!(good.contains('8'), "{good}");
    for (properties, wanted) in [
        ("'properties.interceptor.classes' = 'com.example.Spy'", "names code for Java to load"),
        ("'properties.isolation.level' = 'read_uncommitted'", "only committed records"),
        ("'properties.fetch.min.byte' = '1'", "did you mean \"fetch.min.bytes\"?"),
        ("'properties.sasl.jaas.config' = 'org.Evil required password=\"hunter2\";'", "set sasl.username and sasl.password"),
    ] {
        let said = query(properties);
        assert!(said.contains(wanted) && said.contains("table t") && !said.contains("hunter2"), "{properties}: {said}");
    }
}

/// What a broker keeps beside its records, by either fetcher.
#[test]
fn metadata_of_the_log_is_there_whoever_fetches() {
    let bootstrap = kafka::shared();
    let folder = TempDir::new().expect("a folder");
    for kind in ["CreateTime", "LogAppendTime"] {
        let topic = client::new_topic_with(bootstrap, "stamped", 1, &[("message.timestamp.type", kind)]);
        client::produce(bootstrap, &topic, [NewRecord::new("k", r#"{"n": 7}"#)]);
        for fetcher in ["own", "librdkafka"] {
            let query = format!(
                "CREATE TABLE t (n BIGINT, epoch INT METADATA FROM 'leader-epoch' VIRTUAL, kind STRING METADATA FROM 'timestamp-type' VIRTUAL)
                 WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'properties.bootstrap.servers' = '{bootstrap}',
                 'properties.fetcher' = '{fetcher}'); SELECT n, epoch, kind FROM t;"
            );
            let mut command = Command::new(program("waterwheel"));
            command.current_dir(folder.path()).args(["sql", "--until-end", "--output", "json", "-e", &query]);
            let said = text(&command.output().expect("starts"));
            assert!(said.contains(&format!("{{\"n\":7,\"epoch\":0,\"kind\":\"{kind}\"}}")), "{fetcher}: {said}");
        }
    }
}
