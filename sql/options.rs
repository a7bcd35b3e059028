//! Connectors and the options each understands, by Flink's names.
//!
//! Invariant: an option that nobody understands is an error with the nearest name; one that is accepted has its effect, or is
//! listed here as without one.

use crate::error::{SqlError, SqlResult};
use crate::secrets::{self, holds_secret};
use datafusion_sql::sqlparser::tokenizer::Span;
use std::collections::BTreeMap;

/// What a table is a view of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connector {
    /// A Kafka topic, rows appended.
    Kafka,
    /// A Kafka topic whose newest record of a key is the row.
    UpsertKafka,
    /// A topic of the embedded log in a folder.
    Local,
    /// A topic where `--topics` points.
    Topics,
    /// Files of a folder.
    Filesystem,
    /// Rows made up.
    Datagen,
    /// Rows on the terminal.
    Print,
    /// Rows counted and forgotten.
    Blackhole,
    /// A stream of the job, which no DDL can name.
    Stream,
}

const CONNECTORS: &[(&str, Connector)] = &[
    ("kafka", Connector::Kafka),
    ("upsert-kafka", Connector::UpsertKafka),
    ("local", Connector::Local),
    ("topics", Connector::Topics),
    ("filesystem", Connector::Filesystem),
    ("datagen", Connector::Datagen),
    ("print", Connector::Print),
    ("blackhole", Connector::Blackhole),
];

const TOPIC: &[&str] = &[
    "topic",
    "format",
    "value.format",
    "key.format",
    "key.fields",
    "value.fields-include",
    "scan.startup.mode",
    "scan.startup.timestamp-millis",
    "scan.bounded.mode",
    "sink.delivery-guarantee",
    "error-policy",
];
const KAFKA: &[&str] = &["properties.bootstrap.servers", "properties.group.id", "sink.transactional-id-prefix"];
const JSON: &[&str] = &[
    "json.fail-on-missing-field",
    "json.ignore-parse-errors",
    "json.timestamp-format.standard",
    "debezium-json.schema-include",
    "debezium-json.ignore-parse-errors",
    "debezium-json.timestamp-format.standard",
];
const CSV: &[&str] = &[
    "csv.field-delimiter",
    "csv.quote-character",
    "csv.disable-quote-character",
    "csv.escape-character",
    "csv.null-literal",
    "csv.allow-comments",
    "csv.ignore-parse-errors",
];

const PARQUET: &[&str] = &["parquet.compression"];

/// Of files that are written, and of the folders that they are in.
const FOLDERS: &[&str] = &[
    "partition.default-name",
    "sink.rolling-policy.file-size",
    "sink.rolling-policy.rollover-interval",
    "sink.rolling-policy.inactivity-interval",
    "sink.rolling-policy.check-interval",
    "sink.partition-commit.trigger",
    "sink.partition-commit.delay",
    "sink.partition-commit.watermark-time-zone",
    "sink.partition-commit.policy.kind",
    "sink.partition-commit.success-file.name",
    "partition.time-extractor.kind",
    "partition.time-extractor.timestamp-pattern",
    "auto-compaction",
];

impl Connector {
    /// Its name in `WITH`.
    pub fn name(self) -> &'static str {
        CONNECTORS.iter().find(|c| c.1 == self).map_or("stream", |c| c.0)
    }

    /// Whether rows can be read from it.
    pub fn is_source(self) -> bool {
        !matches!(self, Connector::Print | Connector::Blackhole)
    }

    /// Whether rows can be written to it.
    pub fn is_sink(self) -> bool {
        !matches!(self, Connector::Datagen | Connector::Stream)
    }

    fn options(self) -> Vec<&'static str> {
        let groups: &[&[&str]] = match self {
            Connector::Kafka | Connector::UpsertKafka => &[TOPIC, KAFKA, JSON, CSV],
            Connector::Local => &[TOPIC, &["path"], JSON, CSV],
            Connector::Topics => &[TOPIC, JSON, CSV],
            Connector::Filesystem => &[&["path", "format", "source.monitor-interval", "error-policy"], FOLDERS, JSON, CSV, PARQUET],
            Connector::Datagen => &[&["rows-per-second", "number-of-rows", "scan.parallelism"]],
            Connector::Print => &[&["print-identifier"]],
            Connector::Blackhole | Connector::Stream => &[],
        };
        groups.iter().flat_map(|g| g.iter().copied()).collect()
    }

    /// `fields.<column>.<option>` of datagen.
    fn takes_fields(self) -> bool {
        self == Connector::Datagen
    }
}

const FIELD_OPTIONS: &[&str] = &["kind", "min", "max", "length", "start", "end"];

/// A table's connector and options, checked.
#[derive(Debug, Clone)]
pub struct Options {
    /// The connector.
    pub connector: Connector,
    values: BTreeMap<String, String>,
}

impl Options {
    /// Checks what `WITH` says.
    pub(crate) fn of(given: &[(String, String, Span)], columns: &[&str]) -> SqlResult<Options> {
        let Some((_, name, place)) = given.iter().find(|o| o.0 == "connector") else {
            return Err(SqlError::new("the table has no 'connector'").help("WITH ('connector' = 'kafka', 'topic' = '...', ...)"));
        };
        let Some(&(_, connector)) = CONNECTORS.iter().find(|c| c.0 == name) else {
            return Err(SqlError::new(format!("connector '{name}' is not known")).at(*place).nearest(name, CONNECTORS.iter().map(|c| c.0)));
        };
        let known = connector.options();
        let mut values = BTreeMap::new();
        for (key, value, place) in given.iter().filter(|o| o.0 != "connector") {
            check_key(connector, &known, key, columns).map_err(|e| e.at(*place))?;
            secrets::check(key, value).map_err(|why| SqlError::new(format!("'{key}' {why}")).at(*place))?;
            check_value(key, value).map_err(|e| e.at(*place))?;
            values.insert(key.clone(), value.clone());
        }
        let options = Options { connector, values };
        let wrong = if options.format() == Some("parquet") { &["format", "value.format"][..] } else { &["parquet.compression"][..] };
        options.check_parquet().map_err(|e| e.at(place_of(given, wrong)))?;
        Ok(options)
    }

    /// Only files hold columns, and only those have a compression.
    fn check_parquet(&self) -> SqlResult<()> {
        let is_parquet = self.format() == Some("parquet");
        if is_parquet && self.connector != Connector::Filesystem {
            return Err(SqlError::unsupported(
                &format!("'format' = 'parquet' with connector '{}'", self.connector.name()),
                "a record is no file",
                "'connector' = 'filesystem', or 'format' = 'json'",
            ));
        }
        if !is_parquet && self.get("parquet.compression").is_some() {
            return Err(SqlError::new("'parquet.compression' is an option of 'format' = 'parquet'").help("leave it out"));
        }
        Ok(())
    }

    /// Of a table that was not declared.
    pub fn implied(connector: Connector, values: impl IntoIterator<Item = (&'static str, String)>) -> Options {
        Options { connector, values: values.into_iter().map(|(k, v)| (k.to_string(), v)).collect() }
    }

    /// The value of an option.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// All options.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether files go on over checkpoints, or folders are marked as complete: then the sink must know how far the rows have come.
    pub fn follows_progress(&self) -> bool {
        self.values.keys().any(|key| key.starts_with("sink.rolling-policy.") || key == "sink.partition-commit.policy.kind")
    }

    /// All options as they may be shown: what is secret is stars, unless it only says where the secret is.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(key, value)| (key, if holds_secret(key, value) { "***" } else { value }))
    }

    /// The format of the value.
    pub fn format(&self) -> Option<&str> {
        self.get("value.format").or_else(|| self.get("format"))
    }
}

/// Where the first of these options stands.
fn place_of(given: &[(String, String, Span)], keys: &[&str]) -> Span {
    given.iter().find(|(key, ..)| keys.contains(&key.as_str())).map_or(Span::empty(), |(_, _, place)| *place)
}

fn check_key(connector: Connector, known: &[&str], key: &str, columns: &[&str]) -> SqlResult<()> {
    if known.contains(&key) {
        return Ok(());
    }
    if let Some((column, option)) = key.strip_prefix("fields.").and_then(|k| k.rsplit_once('.'))
        && connector.takes_fields()
    {
        if !columns.contains(&column) {
            return Err(
                SqlError::new(format!("option '{key}': the table has no column {column:?}")).nearest(column, columns.iter().copied())
            );
        }
        if FIELD_OPTIONS.contains(&option) {
            return Ok(());
        }
    }
    // The client knows its properties.
    if key.starts_with("properties.") && matches!(connector, Connector::Kafka | Connector::UpsertKafka) {
        return Ok(());
    }
    Err(SqlError::new(format!("connector '{}' has no option '{key}'", connector.name())).nearest(key, known.iter().copied()))
}

/// A time as Flink's options have it: `10 min`, `1h`, `500 ms`, `PT1H30M`; a number alone is of milliseconds.
pub fn milliseconds(text: &str) -> Option<u64> {
    let (number, unit) = match text.trim().to_uppercase().strip_prefix('P') {
        Some(iso) => return iso_milliseconds(iso),
        None => number_and_unit(text)?,
    };
    let each = match unit.as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(each)
}

/// What follows the `P` of a duration of ISO 8601: days, then behind a `T` hours, minutes and seconds, each at most once.
fn iso_milliseconds(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('T').unwrap_or((text, ""));
    if text.is_empty() || text.ends_with('T') {
        return None;
    }
    let mut total = match days.strip_suffix('D') {
        Some(days) => days.parse::<u64>().ok()?.checked_mul(86_400_000)?,
        None if days.is_empty() => 0,
        None => return None,
    };
    let mut rest = clock;
    for (unit, each) in [('H', 3_600_000), ('M', 60_000), ('S', 1_000)] {
        let Some((number, behind)) = rest.split_once(unit) else { continue };
        let (whole, part) = number.split_once('.').filter(|_| unit == 'S').unwrap_or((number, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > 3 {
            return None;
        }
        let part = part.parse::<u64>().ok()? * 10u64.pow(3 - part.len() as u32);
        total = whole.parse::<u64>().ok()?.checked_mul(each)?.checked_add(if unit == 'S' { part } else { 0 })?.checked_add(total)?;
        rest = behind;
    }
    rest.is_empty().then_some(total)
}

/// A size as Flink's options have it, in powers of 1024: `128MB`, `64 kb`; a number alone is of bytes. Not 0.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let each = match unit.as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kibibytes" => 1 << 10,
        "m" | "mb" | "mebibytes" => 1 << 20,
        "g" | "gb" | "gibibytes" => 1 << 30,
        "t" | "tb" | "tebibytes" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(each).filter(|bytes| *bytes > 0)
}

fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim().to_lowercase()))
}

/// A name that stays in its folder and means itself.
fn is_file_name(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    !text.is_empty() && text.len() < 100 && !text.starts_with('.') && text.chars().all(plain)
}

/// Options with few values.
fn check_value(key: &str, value: &str) -> SqlResult<()> {
    let wrong = |what: &str| SqlError::new(format!("'{key}' is {what}, not '{value}'"));
    let one_of = |known: &[&str]| {
        if known.contains(&value) {
            return Ok(());
        }
        Err(SqlError::new(format!("'{key}' is {}, not '{value}'", known.join(" or "))).nearest(value, known.iter().copied()))
    };
    match key {
        "format" | "value.format" => one_of(&["json", "raw", "csv", "debezium-json", "parquet"]),
        "debezium-json.schema-include" | "debezium-json.ignore-parse-errors" => one_of(&["true", "false"]),
        "debezium-json.timestamp-format.standard" => one_of(&["SQL", "ISO-8601"]),
        "key.format" => one_of(&["json", "raw"]),
        "scan.startup.mode" => one_of(&["earliest-offset", "latest-offset", "timestamp", "group-offsets"]),
        "scan.bounded.mode" => one_of(&["unbounded", "latest-offset"]),
        "sink.delivery-guarantee" => one_of(&["exactly-once", "at-least-once"]),
        "value.fields-include" => one_of(&["ALL"]),
        "error-policy" => one_of(&["fail", "drop", "dead-letter"]),
        "json.fail-on-missing-field" if value != "false" => {
            Err(SqlError::unsupported("json.fail-on-missing-field", "a missing field is NULL", "declare the column NOT NULL"))
        }
        "json.ignore-parse-errors" if value != "false" => Err(SqlError::unsupported(
            "json.ignore-parse-errors",
            "it makes NULLs of what could not be read",
            "'error-policy' = 'drop' or 'dead-letter'",
        )),
        "parquet.compression" => {
            const CODECS: [&str; 3] = ["SNAPPY", "ZSTD", "UNCOMPRESSED"];
            if CODECS.iter().any(|codec| codec.eq_ignore_ascii_case(value)) {
                return Ok(());
            }
            Err(wrong(&CODECS.join(" or ")).nearest(&value.to_uppercase(), CODECS))
        }
        "source.monitor-interval" => milliseconds(value).filter(|ms| *ms > 0).map(drop).ok_or_else(|| wrong("a time such as 10 s")),
        "csv.disable-quote-character" | "csv.allow-comments" => one_of(&["true", "false"]),
        "csv.ignore-parse-errors" if value != "false" => Err(SqlError::unsupported(
            "csv.ignore-parse-errors",
            "it makes NULLs of what could not be read",
            "'error-policy' = 'drop' or 'dead-letter'",
        )),
        "json.timestamp-format.standard" => one_of(&["SQL", "ISO-8601"]),
        "sink.rolling-policy.file-size" => bytes(value).map(drop).ok_or_else(|| wrong("a size such as 128MB")),
        "sink.rolling-policy.rollover-interval"
        | "sink.rolling-policy.inactivity-interval"
        | "sink.rolling-policy.check-interval"
        | "sink.partition-commit.delay" => milliseconds(value).map(drop).ok_or_else(|| wrong("a time such as 10 min")),
        "sink.partition-commit.trigger" => one_of(&["process-time", "partition-time"]),
        "sink.partition-commit.watermark-time-zone" => one_of(&["UTC"]),
        "partition.time-extractor.kind" => one_of(&["default"]),
        "auto-compaction" => one_of(&["false"]),
        "sink.partition-commit.policy.kind" if value != "success-file" => Err(SqlError::unsupported(
            &format!("'{key}' = '{value}'"),
            "a folder is marked by a file; there is no catalog outside and no class to call",
            "'sink.partition-commit.policy.kind' = 'success-file'",
        )),
        "sink.partition-commit.success-file.name" | "partition.default-name" if !is_file_name(value) => Err(wrong("the name of a file")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_of_flinks_words() {
        let known = [("10 min", 600_000), ("1h", 3_600_000), ("500 ms", 500), ("7", 7), ("2 days", 172_800_000), (" 3 Sec ", 3_000)];
        let iso =
            [("PT10M", 600_000), ("P1DT2H", 93_600_000), ("pt1.5s", 1_500), ("PT0.001S", 1), ("P2D", 172_800_000), ("PT1H30M", 5_400_000)];
        for (text, ms) in known.into_iter().chain(iso) {
            assert_eq!(milliseconds(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "soon",
            "10 minits",
            "-1 s",
            "1.5 h",
            "P",
            "PT",
            "P1",
            "PT1",
            "PT1M1H",
            "PT1.5M",
            "P1M",
            "PT1.0001S",
            "99999999999999999999 d",
        ] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
