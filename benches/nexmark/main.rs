//! What do the queries of the Nexmark benchmark cost, from JSON in one topic into nothing?
//!
//! The events are made once, into the embedded log or Kafka; then every query runs in a process of its own, exactly once with
//! a checkpoint each ten seconds and one task an operator, until it has read them all. Of each: events, CPU time (user and
//! system, all threads), thousands of events per CPU-second, wall time, peak resident memory, bytes of the last checkpoints;
//! or why it cannot be run.
//!
//! ```text
//! script/bench nexmark                                 1 M events, the embedded log, all queries
//! script/bench nexmark --events 10000000 --kafka q0 q5
//! script/bench nexmark --kafka --memory 512 q20         with so many MB for a task's state, the rest on disk
//! script/bench nexmark --kafka --write                 from topic to topic: q1 q5 q8 q17 q20
//! ```
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it starts processes and reads its arguments")]

mod generator;
mod query;

use generator::Events;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use waterwheel::engine::env::Env;
use waterwheel::engine::error::{Error, Result};
use waterwheel::engine::record::RawBatch;
use waterwheel::topics::{TopicConfig, Topics, TopicsUrl};
use waterwheel_benches::kafka;
use waterwheel_benches::meter::{Target, figure};

const SEED: u64 = 20_240_101;
/// What the largest of the queries may take, MB.
const MEMORY: usize = 2048;
/// Records handed over at once.
const CHUNK: u64 = 20_000;

struct Options {
    events: u64,
    partitions: u32,
    kafka: bool,
    /// Results go into a topic of the same place.
    write: bool,
    /// For the state of a task; what is beyond it goes to disk. MB.
    memory: usize,
    queries: Vec<String>,
}

fn options(args: impl Iterator<Item = String>) -> std::result::Result<Options, String> {
    let mut options = Options { events: 1_000_000, partitions: 1, kafka: false, write: false, memory: MEMORY, queries: Vec::new() };
    let mut args = args.filter(|a| a != "--bench");
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("{arg} takes a number"));
        match arg.as_str() {
            "--events" => options.events = number()?,
            "--partitions" => options.partitions = number()? as u32,
            "--memory" => options.memory = number()? as usize,
            "--kafka" => options.kafka = true,
            "--write" => options.write = true,
            name if query::QUERIES.iter().any(|q| q.name == name) => options.queries.push(name.to_string()),
            other => {
                return Err(format!(
                    "{other} is no option and no query; there are --events N, --partitions N, --memory MB, --kafka, --write, q0 to q23"
                ));
            }
        }
    }
    let all = query::QUERIES.iter().map(|q| q.name);
    if options.write
        && let Some(name) = options.queries.iter().find(|name| !query::WRITTEN.contains(&name.as_str()))
    {
        return Err(format!("{name} is not among those that are written to a topic: {}", query::WRITTEN.join(", ")));
    }
    if options.queries.is_empty() {
        options.queries = all.filter(|name| !options.write || query::WRITTEN.contains(name)).map(String::from).collect();
    }
    Ok(options)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.as_slice() {
        [first, url, topic, name, memory, target @ ..] if first == "--one" => {
            let memory = memory.parse().unwrap_or(MEMORY) << 20;
            query::run(url, topic, name, memory, target.first().map(String::as_str))
        }
        _ => match options(args.iter().cloned()) {
            Ok(options) => all(&options),
            Err(why) => Err(Error::fatal(why)),
        },
    };
    if let Err(error) = done {
        eprintln!("{}", error.report());
        std::process::exit(1);
    }
}

/// Makes the events, then runs each query in a process of its own: its memory and CPU time are its alone.
fn all(options: &Options) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("waterwheel-nexmark-").tempdir().map_err(|e| Error::fatal("no folder").because(e))?;
    let (url, topic) = match options.kafka {
        true => (format!("kafka://{}", kafka::broker()), kafka::new_topic("nexmark", options.partitions as i32)),
        false => (format!("local:{}", folder.path().display()), "nexmark".to_string()),
    };
    let topics = url.parse::<TopicsUrl>()?.open(&Env::real())?;
    let create = |name: &str| topics.create(name, &TopicConfig::partitions(options.partitions));
    if !options.kafka {
        create(&topic)?;
    }
    let bytes = fill(&*topics, &topic, options)?;
    println!("{} events, {} bytes each, {}", options.events, bytes / options.events.max(1), topics.place());
    println!("{:<6} {:>10} {:>8} {:>10} {:>8} {:>8} {:>10}", "query", "events", "CPU s", "K/CPU s", "wall s", "RSS MB", "state MB");
    for name in &options.queries {
        let program = std::env::current_exe().map_err(|e| Error::fatal("this program has no path").because(e))?;
        let target = options.write.then(|| format!("{topic}-{name}"));
        target.as_deref().map(create).transpose()?;
        let child = Command::new(program)
            .args(["--one", &url, &topic, name, &options.memory.to_string()])
            .args(target)
            .stdout(Stdio::piped())
            .output()
            .map_err(|e| Error::fatal("a query's process cannot be started").because(e))?;
        let text = String::from_utf8_lossy(&child.stdout);
        let Some(line) = text.lines().find_map(|l| l.strip_prefix("result\t")).filter(|_| child.status.success()) else {
            println!("{name:<6} failed:\n{}", String::from_utf8_lossy(&child.stderr));
            continue;
        };
        show(name, options, line);
    }
    Ok(())
}

/// A line of the table, and the figures for `script/bench`.
fn show(name: &str, options: &Options, line: &str) {
    let events = options.events;
    let fields: Vec<&str> = line.split('\t').collect();
    let [cpu, wall, rss, state] = fields[..] else {
        println!("{name:<6} {line}");
        return;
    };
    let [cpu, wall, rss, state] = [cpu, wall, rss, state].map(|f| f.parse::<f64>().unwrap_or(f64::NAN));
    let rate = events as f64 / 1e3 / cpu;
    println!("{name:<6} {events:>10} {cpu:>8.2} {rate:>10.0} {wall:>8.2} {:>8.0} {:>10.1}", rss / 1e6, state / 1e6);
    // Targets are for results that go nowhere.
    let target = query::QUERIES.iter().find(|q| q.name == name && !options.write).map_or(0, |q| q.wanted);
    figure(
        &format!("nexmark {name}{}", if options.write { " into a topic" } else { "" }),
        rate,
        "K events per CPU-second",
        if target > 0 { Target::AtLeast(target as f64) } else { Target::None },
    );
    let _ = std::io::stdout().flush();
}

/// Writes the events; how many bytes they are.
fn fill(topics: &dyn Topics, topic: &str, options: &Options) -> Result<u64> {
    let (name, events): (Arc<str>, _) = (topic.into(), Events { seed: SEED });
    let (mut bytes, mut value) = (0, Vec::new());
    for first in (0..options.events).step_by(CHUNK as usize) {
        let mut batch = RawBatch::default();
        for n in first..options.events.min(first + CHUNK) {
            value.clear();
            events.write(n, &mut value);
            bytes += value.len() as u64;
            batch.push_parts(&name, (n % u64::from(options.partitions)) as i32, -1, 1_704_067_200_000, None, Some(&value), &[]);
        }
        topics.produce(&batch)?;
    }
    Ok(bytes)
}
