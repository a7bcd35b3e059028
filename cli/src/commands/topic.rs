//! `waterwheel topic`: the part that makes, lists, describes and deletes; reading and writing have files of their own.
//!
//! Invariant: the same words for every kind of place; what is printed for people has a `--json` twin for machines.

use super::{consume, produce};
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use waterwheel::engine::env::Env;
use waterwheel::program::Size;
use waterwheel::topics::{TopicConfig, TopicInfo, Topics, TopicsUrl};
use waterwheel::{Error, Result};

#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    verb: TopicVerb,
    /// Where topics are: local:FOLDER or kafka://HOST:PORT
    #[arg(long, global = true, env = "WATERWHEEL_TOPICS", hide_env_values = true, default_value = "local:./data", value_name = "URL")]
    topics: TopicsUrl,
}

#[derive(Debug, Subcommand)]
enum TopicVerb {
    /// Make a topic
    Create(CreateArgs),
    /// List all topics
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what is known of a topic
    Describe {
        /// Its name
        topic: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a topic with all its records
    Delete {
        /// Its name
        topic: String,
    },
    /// Write records, one a line of standard input
    Produce(produce::ProduceArgs),
    /// Read records, one a line of standard output
    Consume(consume::ConsumeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name
    topic: String,
    /// Number of partitions
    #[arg(long, short, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Only the newest record of a key matters
    #[arg(long)]
    compacted: bool,
    /// Largest record: key, value and headers
    #[arg(long, value_name = "SIZE")]
    max_record: Option<Size>,
    /// Further settings by Kafka's names
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=value, e.g. retention.ms=3600000")?;
    Ok((name.to_string(), value.to_string()))
}

pub(crate) fn run(args: TopicArgs) -> Result<()> {
    let env = Env::real();
    let topics = args.topics.open(&env)?;
    match args.verb {
        TopicVerb::Create(create) => {
            let config = TopicConfig {
                partitions: create.partitions,
                compacted: create.compacted,
                max_record_bytes: create.max_record.map(|size| size.0),
                settings: create.settings.into_iter().collect::<BTreeMap<_, _>>(),
            };
            topics.create(&create.topic, &config)?;
            println!("{} is made: {} partitions in {}", create.topic, create.partitions, topics.place());
            Ok(())
        }
        TopicVerb::List { json } => list(&*topics, json),
        TopicVerb::Describe { topic, json } => describe(&topics.describe(&topic)?, json),
        TopicVerb::Delete { topic } => {
            topics.delete(&topic)?;
            println!("{topic} is deleted from {}", topics.place());
            Ok(())
        }
        TopicVerb::Produce(args) => produce::produce(&*topics, &args),
        TopicVerb::Consume(args) => consume::consume(&*topics, &args, &env),
    }
}

fn list(topics: &dyn Topics, json: bool) -> Result<()> {
    let names = topics.list()?;
    if json {
        return print_json(&names);
    }
    names.iter().for_each(|name| println!("{name}"));
    Ok(())
}

fn describe(info: &TopicInfo, json: bool) -> Result<()> {
    if json {
        return print_json(info);
    }
    let compacted = if info.compacted { ", compacted" } else { "" };
    println!(
        "{}  id {}, {} partitions{compacted}, records up to {} bytes",
        info.name,
        info.id,
        info.partitions.len(),
        info.max_record_bytes
    );
    println!("{:>10} {:>14} {:>14} {:>14}", "partition", "start", "end", "records");
    for (number, p) in info.partitions.iter().enumerate() {
        println!("{number:>10} {:>14} {:>14} {:>14}", p.start, p.end, p.end - p.start);
    }
    Ok(())
}

fn print_json<T: serde::Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::fatal("cannot be written as JSON").because(e))?;
    println!("{text}");
    Ok(())
}
