//! `waterwheel topic consume`: records become lines.
//!
//! Invariant: only committed records are shown, those of a partition in their order; reading changes nothing, neither offsets
//! of groups nor the topic.

use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use waterwheel::engine::env::Env;
use waterwheel::engine::record::RawRecord;
use waterwheel::topics::{End, Next, Reading, SourceOptions, Start, Topics};
use waterwheel::{Error, Result};

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// A name, several by comma, or a pattern (payments-*)
    topic: String,
    /// Where to begin: earliest, latest, or milliseconds since 1970
    #[arg(long, default_value = "earliest", value_parser = start)]
    from: Start,
    /// Wait for what comes; else end with what is there now
    #[arg(long, short)]
    follow: bool,
    /// End after so many records
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u64>,
    /// Put the key and this text before the value; \t is a tab
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Key, value, headers, partition, offset and time, as a JSON object a line
    #[arg(long)]
    json: bool,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => text.parse().map(Start::Timestamp).map_err(|_| "it is earliest, latest, or milliseconds since 1970".into()),
    }
}

pub(crate) fn consume(topics: &dyn Topics, args: &ConsumeArgs, env: &Env) -> Result<()> {
    let end = if args.follow || args.from == Start::Latest { End::Never } else { End::Latest };
    let source = topics.source(SourceOptions::new(&args.topic).start(args.from.clone()).end(end))?;
    let mut reading = Reading::open(&*source, env)?;
    let separator = args.key_separator.as_deref().map(|text| text.replace("\\t", "\t"));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut said = None;
    while left > 0 {
        match reading.next(Duration::from_secs(1))? {
            Next::Records(batch) => {
                said = None;
                for record in batch.records().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                    left -= 1;
                    if !printed(print(&mut out, &record, args.json, separator.as_deref()))? {
                        return Ok(());
                    }
                }
                if !printed(out.flush())? {
                    return Ok(());
                }
            }
            Next::Waiting(why) if said.as_ref() != Some(&why) => {
                eprintln!(" waiting: {why}");
                said = Some(why);
            }
            Next::Nothing | Next::Waiting(_) => {}
            Next::End => return Ok(()),
        }
    }
    Ok(())
}

/// `false` when nobody reads any more (`| head`), which is no failure.
fn printed(result: std::io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::fatal("standard output cannot be written").because(e)),
    }
}

fn print(out: &mut impl Write, record: &RawRecord<'_>, as_json: bool, separator: Option<&str>) -> std::io::Result<()> {
    if as_json {
        return writeln!(out, "{}", object(record));
    }
    if let Some(separator) = separator {
        out.write_all(record.key.unwrap_or_default())?;
        out.write_all(separator.as_bytes())?;
    }
    out.write_all(record.value.unwrap_or(b"null"))?;
    out.write_all(b"\n")
}

/// Values that are JSON stay so; others become text, with what is not UTF-8 replaced.
fn object(record: &RawRecord<'_>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = record.value.map(|v| serde_json::from_slice(v).unwrap_or_else(|_| Value::String(text(v))));
    let headers: Vec<Value> = record.headers().map(|(name, value)| json!([name, value.map(text)])).collect();
    json!({
        "topic": &**record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": record.key.map(text),
        "value": value,
        "headers": headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use waterwheel::engine::record::RawBatch;

    fn shown(key: Option<&[u8]>, value: Option<&[u8]>, json: bool, separator: Option<&str>) -> String {
        let topic: Arc<str> = "t".into();
        let mut headers = Vec::new();
        RawBatch::encode_header(&mut headers, "h", Some(b"1"));
        let mut batch = RawBatch::default();
        batch.push_parts(&topic, 2, 7, 11, key, value, &headers);
        let mut out = Vec::new();
        print(&mut out, &batch.record(0), json, separator).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn records_become_lines() {
        assert_eq!(shown(Some(b"k"), Some(b"v"), false, None), "v\n");
        assert_eq!(shown(Some(b"k"), Some(b"v"), false, Some(": ")), "k: v\n");
        assert_eq!(shown(None, None, false, Some(": ")), ": null\n");
    }

    #[test]
    fn json_keeps_nothing_back() {
        let line: Value = serde_json::from_str(&shown(Some(b"k"), Some(b"{\"a\":1}"), true, None)).unwrap();
        let expected =
            json!({"topic": "t", "partition": 2, "offset": 7, "timestamp": 11, "key": "k", "value": {"a": 1}, "headers": [["h", "1"]]});
        assert_eq!(line, expected);
        let line: Value = serde_json::from_str(&shown(None, Some(b"\xFF"), true, None)).unwrap();
        assert_eq!((&line["key"], &line["value"]), (&Value::Null, &json!("\u{FFFD}")));
    }

    #[test]
    fn where_to_begin() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("12"), Ok(Start::Timestamp(12)));
        assert!(start("yesterday").is_err());
    }
}
