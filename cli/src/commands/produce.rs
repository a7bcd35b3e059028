//! `waterwheel topic produce`: lines become records.
//!
//! Invariant: a line is written as it is, without its line end; a record counts as written when the place says it is safe.

use clap::Args;
use std::io::{BufRead, IsTerminal};
use std::sync::Arc;
use waterwheel::engine::env::Env;
use waterwheel::engine::record::{Batch, RawBatch};
use waterwheel::topics::Topics;
use waterwheel::{Error, Result};

/// Records and bytes written in one go.
const BATCH: (usize, usize) = (10_000, 1_000_000);

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// Its name
    topic: String,
    /// What stands before this in a line is the key; \t is a tab [default: records have no key]
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Write to this partition instead of the key's
    #[arg(long)]
    partition: Option<i32>,
    /// A value that is this text becomes a tombstone
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
}

pub(crate) fn produce(topics: &dyn Topics, args: &ProduceArgs) -> Result<()> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!(" a record a line; Ctrl-D ends");
    }
    let (topic, clock) = (Arc::<str>::from(args.topic.as_str()), Env::real().clock);
    // A topic that is missing shall be named before the first line is read.
    topics.describe(&topic)?;
    let separator = args.key_separator.as_deref().map(|text| text.replace("\\t", "\t"));
    let mut input = input.lock();
    let (mut batch, mut line, mut written) = (RawBatch::default(), Vec::new(), 0);
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line).map_err(|e| Error::fatal("standard input cannot be read").because(e))?;
        let ended = read == 0;
        if !ended {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let (key, value) = split(text, separator.as_deref());
            let value = (args.null.as_deref().map(str::as_bytes) != Some(value)).then_some(value);
            batch.push_parts(&topic, args.partition.unwrap_or(-1), -1, clock.wall_ms(), key, value, &[]);
        }
        // A person at a terminal, or a slow pipe, wants to see each line written.
        let waits = std::io::BufRead::fill_buf(&mut input).map(<[u8]>::is_empty).unwrap_or(true) || std::io::stdin().is_terminal();
        if !batch.is_empty() && (ended || waits || batch.len() >= BATCH.0 || batch.data_len() >= BATCH.1) {
            written += batch.len();
            topics.produce(&std::mem::take(&mut batch))?;
        }
        if ended {
            eprintln!(" {written} records written to {} in {}", args.topic, topics.place());
            return Ok(());
        }
    }
}

fn split<'a>(line: &'a [u8], separator: Option<&str>) -> (Option<&'a [u8]>, &'a [u8]) {
    let Some(separator) = separator.map(str::as_bytes).filter(|s| !s.is_empty()) else { return (None, line) };
    match line.windows(separator.len()).position(|w| w == separator) {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_and_a_value_or_a_value() {
        assert_eq!(split(b"k: v: w", Some(": ")), (Some(&b"k"[..]), &b"v: w"[..]));
        assert_eq!(split(b"v", Some(":")), (None, &b"v"[..]));
        assert_eq!(split(b"k:v", None), (None, &b"k:v"[..]));
        assert_eq!(split(b":v", Some(":")), (Some(&b""[..]), &b"v"[..]));
    }
}
