//! The rules once more, in SQL: what a fraud is, as queries over the same payments, in a job of its own.
//!
//! Reading, leaving out what came twice, and what is usual for the customer are typed, as in [`fraud`](crate::fraud); from there on
//! it is `job.sql`. What SQL says otherwise: of a velocity alert it finds card, time and numbers, not the payments (no
//! aggregate gathers rows); a card's devices are all remembered, not the last 16; the rules are those of the start.
//!
//! Invariant: the alerts are those of the typed job.

use crate::model::{Alert, Customer, Evidence, Payment, Rule, Spending, money};
use crate::truth::{CUSTOMERS, PAYMENTS};
use waterwheel::Result;
use waterwheel::prelude::*;

/// A payment with what is usual, flat: columns.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Spent {
    id: Str,
    card: Str,
    account: Str,
    amount: i64,
    country: Str,
    device: Str,
    at: DateTime<Utc>,
    /// Allowed within five minutes.
    most_payments: i64,
    most_money: i64,
    /// Largest payment from a new device.
    device_limit: i64,
}

impl From<Spending> for Spent {
    fn from(Spending { payment: p, tier, limit }: Spending) -> Self {
        Spent {
            id: p.id,
            card: p.card,
            account: p.account,
            amount: p.amount,
            country: p.country,
            device: p.device,
            at: p.at,
            most_payments: tier.payments() as i64,
            most_money: tier.money(),
            device_limit: limit,
        }
    }
}

/// Two payments of a card, one after the other, or one that stands alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair {
    rule: Rule,
    card: Str,
    account: Str,
    device_limit: i64,
    id: Str,
    amount: i64,
    country: Str,
    device: Str,
    at: DateTime<Utc>,
    first_id: Option<Str>,
    first_amount: Option<i64>,
    first_country: Option<Str>,
    first_device: Option<Str>,
    first_at: Option<DateTime<Utc>>,
}

impl Pair {
    fn alert(self) -> Option<Alert> {
        let last = Evidence { id: self.id, amount: self.amount, country: self.country, device: self.device, at: self.at };
        let first = || {
            Some(Evidence {
                id: self.first_id.clone()?,
                amount: self.first_amount?,
                country: self.first_country.clone()?,
                device: self.first_device.clone()?,
                at: self.first_at?,
            })
        };
        let (reason, payments) = match self.rule {
            Rule::NewDevice => {
                let limit = money(self.device_limit);
                (format!("{} from the new device {} (limit {limit})", money(last.amount), last.device), vec![last])
            }
            Rule::SmallThenLarge => {
                let first = first()?;
                let seconds = (last.at - first.at).num_seconds();
                (format!("{} then {} within {seconds} s", money(first.amount), money(last.amount)), vec![first, last])
            }
            _ => {
                let first = first()?;
                let minutes = (last.at - first.at).num_minutes().max(1);
                (format!("{} then {} within {minutes} min", first.country, last.country), vec![first, last])
            }
        };
        Some(Alert { rule: self.rule, card: self.card, account: self.account, at: self.at, reason, payments })
    }
}

/// The window in which a card first did too much.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Velocity {
    /// Card.
    pub card: Str,
    /// Payments within the window.
    pub n: i64,
    /// Minor units.
    pub spent: i64,
    /// The last of them.
    pub last_at: DateTime<Utc>,
}

/// Columns of the payment itself and of the one before it.
const PAIR: &str =
    "card, account, device_limit, id, amount, country, device, at, first_id, first_amount, first_country, first_device, first_at";

/// A payment beside the one before it, of some of a card's payments.
fn beside(what: &str) -> String {
    let lag = |column: &str| format!("LAG({column}) OVER (PARTITION BY card ORDER BY at, id) AS first_{column}");
    let lags: Vec<String> = ["id", "amount", "country", "device", "at"].map(lag).into();
    format!("SELECT *, {} FROM spent WHERE {what}", lags.join(", "))
}

/// The job; alerts go to `{to}`, those of velocity to `{to}-velocity`.
pub fn fraud_in_sql(job: &Job, to: &str) -> Result<()> {
    let payments = job
        .topic(PAYMENTS)
        .json::<Payment>()
        .on_error(DeadLetter)
        .event_time(|p| p.at, OutOfOrder::by(secs(5)))
        .times_within(crate::plausible())
        .max_ahead(mins(10))
        .dedup_by(|p| p.id.clone(), hours(1))
        .id("dedup");
    let customers = job.topic(CUSTOMERS).json::<Customer>().table(|c| c.account.clone());
    let spent = payments.join_table(&customers, |p| p.account.clone(), Spending::of).id("customers").map(Spent::from);
    job.table("spent", &spent)?.event_time("at")?;

    // A trial counts until the next large payment: of small and large ones, the one right before.
    let small_then_large = format!(
        "SELECT 'small-then-large' AS rule, {PAIR} FROM ({}) WHERE amount >= 50000 AND first_amount <= 200 AND at <= first_at + INTERVAL '60' SECOND",
        beside("amount <= 200 OR amount >= 50000"),
    );
    let two_countries = format!(
        "SELECT 'two-countries' AS rule, {PAIR} FROM ({}) WHERE country <> first_country AND at <= first_at + INTERVAL '10' MINUTE",
        beside("amount > 0"),
    );
    // The first payment with this device, but not the first of the card.
    let new_device = format!(
        "SELECT 'new-device' AS rule, {PAIR} FROM (
             SELECT *, LAG(id) OVER (PARTITION BY card, device ORDER BY at, id) AS same_device FROM ({}))
         WHERE same_device IS NULL AND first_id IS NOT NULL AND amount > device_limit",
        beside("amount > 0"),
    );
    for (name, query) in [("small-then-large", small_then_large), ("two-countries", two_countries), ("new-device", new_device)] {
        let pairs = job.sql(&query)?.id(name).to_stream::<Pair>()?;
        pairs.filter_map(Pair::alert).to_topic(to).key(|alert| alert.card.to_string()).id(&format!("{name}-alerts"));
    }

    // The first window of a run of windows, ten seconds apart, in which it was too much.
    job.sql(
        "CREATE VIEW too_much AS SELECT card, window_time, COUNT(*) AS n, SUM(amount) AS spent, MAX(at) AS last_at
             FROM TABLE(HOP(TABLE spent, DESCRIPTOR(at), INTERVAL '10' SECOND, INTERVAL '5' MINUTE))
             GROUP BY card, window_start, window_end, window_time
             HAVING COUNT(*) > MAX(most_payments) OR SUM(amount) > MAX(most_money)",
    )?;
    job.sql(
        "SELECT card, n, spent, last_at FROM (
             SELECT *, LAG(window_time) OVER (PARTITION BY card ORDER BY window_time) AS earlier FROM too_much)
         WHERE earlier IS NULL OR window_time > earlier + INTERVAL '10' SECOND",
    )?
    .id("velocity")
    .to_stream::<Velocity>()?
    .to_topic(&format!("{to}-velocity"))
    .key(|v| v.card.to_string())
    .id("velocity-alerts");
    Ok(())
}

mod tests {
    use super::*;
    use crate::simulated::job_of;
    use crate::truth::{self, ALERTS};
    use std::sync::Arc;
    use waterwheel::engine::runtime::Outcome;
    use waterwheel::engine::testing::SimMachine;
    use waterwheel::program::Draw;
    use waterwheel::topics::Topics;

    fn read<T: for<'de> Deserialize<'de>>(topics: &dyn Topics, topic: &str) -> Vec<T> {
        let mut rows = Vec::new();
        let each = |_: Option<&[u8]>, value: Option<&[u8]>| {
            rows.push(serde_json::from_slice(value.unwrap()).unwrap());
            Ok(())
        };
        truth::read(topics, topic, each).unwrap();
        rows
    }

    /// What a job commits, killed so often while it runs.
    fn run(seed: u64, kills: usize, draw: Draw) -> Arc<dyn Topics> {
        let machine = SimMachine::new(seed);
        let (mut job, topics) = job_of(&machine, draw);
        for _ in 0..kills {
            assert_eq!(job.run(300 + machine.choose(1_000)).unwrap(), None, "the kill comes too late");
            job.crash();
            job.start().unwrap();
        }
        assert_eq!(job.run(5_000_000).unwrap_or_else(|e| panic!("{}", e.report())), Some(Outcome::Finished), "{}", job.describe());
        topics
    }

    #[test]
    fn the_twin_finds_the_same_frauds_whatever_happens() {
        let typed = run(1, 0, Arc::new(crate::fraud));
        let all: Vec<Alert> = read(&*typed, ALERTS);
        let sorted = |mut alerts: Vec<Alert>| {
            alerts.sort_by_key(|a| (a.card.clone(), a.at, a.rule));
            alerts
        };
        let (windows, pairs): (Vec<Alert>, Vec<Alert>) = all.into_iter().partition(|a| a.rule == Rule::Velocity);
        let pairs = sorted(pairs);
        let of = |a: Alert| {
            let (n, spent) = (a.payments.len() as i64, a.payments.iter().map(|p| p.amount).sum());
            Velocity { card: a.card, n, spent, last_at: a.at }
        };
        let mut windows: Vec<Velocity> = windows.into_iter().map(of).collect();
        windows.sort();
        assert!(windows.len() >= 18 && pairs.len() >= 27, "{} and {}", windows.len(), pairs.len());
        for (seed, kills) in [(1, 0), (2, 3)] {
            let twin = run(seed, kills, Arc::new(|job: &Job| fraud_in_sql(job, "found")));
            assert_eq!(sorted(read(&*twin, "found")), pairs, "seed {seed}");
            let mut found: Vec<Velocity> = read(&*twin, "found-velocity");
            found.sort();
            assert_eq!(found, windows, "seed {seed}");
        }
    }
}
