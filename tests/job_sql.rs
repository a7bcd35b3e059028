//! Typed streams and SQL in one job, under crashes on the simulated machine.

use std::collections::BTreeMap;
use waterwheel::prelude::*;
use waterwheel::testing::TestJob;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payment {
    card: String,
    amount: i64,
    at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Total {
    card: String,
    payments: u32,
    total: Option<i64>,
    window_end: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Running {
    card: String,
    total: i64,
}

/// Of a minute.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Minute {
    payments: u32,
}

impl Merge for Minute {
    fn merge(&mut self, later: &Self) {
        self.payments += later.payments;
    }
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_442_000 + second, 0).expect("a date")
}

fn payment(card: &str, amount: i64, second: i64) -> Payment {
    Payment { card: card.into(), amount, at: at(second) }
}

/// Windows in SQL between typed operators; running totals as changes; what the changes add up to as a table again.
fn totals(job: &Job) -> waterwheel::Result<()> {
    let payments = job.topic("payments").json::<Payment>().on_error(DeadLetter).event_time(|p| p.at, OutOfOrder::by(secs(1)));
    job.table("payments", &payments.filter(|p| p.amount != 0))?.event_time("at")?;
    job.sql("CREATE VIEW large AS SELECT * FROM payments WHERE amount > 10")?;
    job.sql(
        "SELECT card, COUNT(*) AS payments, SUM(amount) AS total, window_end
         FROM TABLE(TUMBLE(TABLE large, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY card, window_start, window_end",
    )?
    .id("per-minute")
    .to_stream::<Total>()?
    .key_by(|t| t.card.clone())
    .window(Tumbling::of(mins(1)))
    .aggregate(Minute::default, |minute, t: &Total| minute.payments += t.payments)
    .id("typed-again")
    .to_topic("minutes")
    .id("minutes");
    let changes = job.sql("SELECT card, SUM(amount) AS total FROM payments GROUP BY card")?.id("running").to_changelog::<Running>()?;
    changes.to_topic("changes").id("changes");
    job.changing_table("running", &changes)?;
    job.sql(
        "CREATE TABLE summary (card STRING, total BIGINT, PRIMARY KEY (card) NOT ENFORCED)
             WITH ('connector' = 'topics', 'topic' = 'summary', 'format' = 'json', 'key.format' = 'raw');
         INSERT INTO summary SELECT card, SUM(total) AS total FROM running GROUP BY card",
    )?;
    Ok(())
}

#[test]
fn typed_streams_and_sql_are_one_job_across_crashes() {
    for seed in 1..=3 {
        let mut test = TestJob::with_seed("totals", seed, 2, totals);
        test.topic("payments", 1);
        test.send("payments", [payment("a", 20, 0), payment("b", 30, 1), payment("a", 0, 2), payment("a", 5, 3)]);
        test.send_text("payments", ["{\"card\":\"broken\"}"]);
        test.settle();
        test.crash();
        test.send("payments", [payment("a", 22, 59), payment("b", 40, 61), payment("a", 100, 130)]);
        test.run(40 * seed as usize);
        test.crash();
        test.finish();
        let mut minutes: Vec<u32> = test.read::<Minute>("minutes").into_iter().map(|m| m.payments).collect();
        minutes.sort_unstable();
        assert_eq!(minutes, [1, 1, 1, 2], "seed {seed}");
        let mut sums: BTreeMap<(String, i64), i64> = BTreeMap::new();
        for change in test.read::<Change<Running>>("changes") {
            *sums.entry((change.row.card, change.row.total)).or_default() += change.kind.weight();
        }
        sums.retain(|_, weight| *weight != 0);
        assert_eq!(sums, [(("a".to_string(), 147), 1), (("b".into(), 70), 1)].into(), "seed {seed}");
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("bytes")).expect("text");
        let summary: BTreeMap<String, String> =
            test.records("summary").into_iter().filter(|(_, v)| v.is_some()).map(|(k, v)| (text(k), text(v))).collect();
        let of = |card: &str, total| (card.to_string(), format!("{{\"card\":\"{card}\",\"total\":{total}}}"));
        assert_eq!(summary, [of("a", 147), of("b", 70)].into(), "seed {seed}");
        assert_eq!(test.records("payments.dead-letter").len(), 1);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sides {
    left: i64,
    right: i64,
    name: String,
}

/// Columns of one type in another order: of a type and of an INSERT with a list they go by their names, of an INSERT without by their
/// places, and what does not fit there is refused.
#[test]
fn columns_go_by_their_names() {
    let draw = |job: &Job| -> waterwheel::Result<()> {
        job.sql(
            "CREATE TABLE t (a BIGINT, b BIGINT, s STRING) WITH ('connector' = 'topics', 'topic' = 't', 'format' = 'json');
             CREATE TABLE listed (name STRING, `left` BIGINT, `right` BIGINT) WITH ('connector' = 'topics', 'topic' = 'listed', 'format' = 'json');
             CREATE TABLE placed (`right` BIGINT, name STRING, `left` BIGINT) WITH ('connector' = 'topics', 'topic' = 'placed', 'format' = 'json');
             INSERT INTO listed (`right`, `left`, name) SELECT b, a, s FROM t;
             INSERT INTO placed SELECT b, s, a FROM t",
        )?;
        let typed = job.sql("SELECT s AS name, b AS `right`, a AS `left` FROM t")?.id("typed").to_stream::<Sides>()?;
        typed.to_topic("typed").id("typed-out");
        Ok(())
    };
    let mut test = TestJob::new("names", draw);
    test.send_text("t", [r#"{"s":"x","b":2,"a":1}"#, r#"{"a":3,"s":"y","b":4}"#]);
    test.finish();
    let sides = |left, right, name: &str| Sides { left, right, name: name.into() };
    for topic in ["listed", "placed", "typed"] {
        let mut rows = test.read::<Sides>(topic);
        rows.sort_by_key(|row| row.left);
        assert_eq!(rows, [sides(1, 2, "x"), sides(3, 4, "y")], "{topic}");
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Other {
    name: String,
}

/// What a job says that is wrong.
fn refused(draw: impl Fn(&Job, SourceStream<Payment>) -> waterwheel::Result<()> + Send + Sync + 'static) -> String {
    let topics = "local:nowhere".parse::<waterwheel::topics::TopicsUrl>().expect("a URL");
    let job = Job::new("refused", topics.open(&waterwheel::engine::env::Env::real()).expect("opens"));
    let payments = job.topic("payments").json::<Payment>();
    draw(&job, payments).expect_err("is refused").report()
}

#[test]
fn what_does_not_fit_is_refused_while_the_job_is_described() {
    let running = |job: &Job, payments: SourceStream<Payment>| -> waterwheel::Result<()> {
        job.table("payments", &payments)?;
        job.sql("SELECT card, SUM(amount) AS total FROM payments GROUP BY card")?.to_stream::<Running>().map(drop)
    };
    assert!(refused(running).contains("to_changelog"), "{}", refused(running));
    let other = |job: &Job, payments: SourceStream<Payment>| -> waterwheel::Result<()> {
        job.table("payments", &payments)?;
        job.sql("SELECT card AS nam FROM payments")?.to_stream::<Other>().map(drop)
    };
    assert!(refused(other).contains("no column \"name\"") && refused(other).contains("nam"), "{}", refused(other));
    let twice = |job: &Job, payments: SourceStream<Payment>| -> waterwheel::Result<()> {
        job.table("payments", &payments)?;
        job.table("payments", &payments).map(drop)
    };
    assert!(refused(twice).contains("is there already"), "{}", refused(twice));
    let text = |job: &Job, payments: SourceStream<Payment>| -> waterwheel::Result<()> {
        job.table("payments", &payments)?.event_time("card").map(drop)
    };
    assert!(refused(text).contains("STRING"), "{}", refused(text));
    let first = |job: &Job, payments: SourceStream<Payment>| -> waterwheel::Result<()> {
        job.table("payments", &payments)?;
        job.sql("SELECT card AS name FROM payments LIMIT 3")?.to_stream::<Other>().map(drop)
    };
    assert!(refused(first).contains("LIMIT"), "{}", refused(first));
    let nothing = |job: &Job, _: SourceStream<Payment>| -> waterwheel::Result<()> {
        job.sql("SET 'pipeline.name' = 'x'")?.to_stream::<Other>().map(drop)
    };
    assert!(refused(nothing).contains("no query"), "{}", refused(nothing));
}
