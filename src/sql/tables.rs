//! Tables and the connectors behind them.
//!
//! Invariant: an option has the effect that its name says, or the table is refused.

use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use waterwheel_connectors::blackhole::Blackhole;
use waterwheel_connectors::files::parquet::{Codec, ParquetSource};
use waterwheel_connectors::files::{Commit, FilesSink, FilesSource, Ripe, Rolling};
use waterwheel_connectors::generator::{Generator, Random};
use waterwheel_connectors::kafka::{JavaProperty, java_property};
use waterwheel_connectors::print::Print;
use waterwheel_connectors::topics::{End, Next, Reading, SinkOptions, SourceOptions, Start, Topics, TopicsUrl};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::graph::{ReadAs, SinkRef, SourceFactory, TopicRequest, TopicSinks};
use waterwheel_engine::operators::{Guarantee, Sink, Source};
use waterwheel_sql::Connectors;
use waterwheel_sql::arrow::datatypes::SchemaRef;
use waterwheel_sql::catalog::Table;
use waterwheel_sql::options::{Connector, Options, bytes, milliseconds};
use waterwheel_sql::parser::type_name;
use waterwheel_sql::secrets::resolved;

/// Of files that go on over checkpoints, as Flink has them: when they are finished unless told otherwise.
const FILE_BYTES: u64 = 128 << 20;
const ROLLOVER_MS: u64 = 30 * 60_000;
/// Records of a topic that are looked at for its columns.
const SAMPLE: usize = 1000;
/// How long to wait for them.
const PATIENCE: Duration = Duration::from_millis(300);

type Place = (String, BTreeMap<String, String>);

/// The tables of a place.
#[derive(Clone)]
pub struct Tables {
    topics: Arc<dyn Topics>,
    env: Env,
    until_end: bool,
    /// Places that tables name themselves, by URL and client properties.
    opened: Arc<Mutex<BTreeMap<Place, Arc<dyn Topics>>>>,
}

impl Tables {
    /// Of these topics. With `until_end` every source that has no end of its own ends at what is there when it is started.
    pub fn new(topics: Arc<dyn Topics>, env: Env, until_end: bool) -> Self {
        Tables { topics, env, until_end, opened: Arc::default() }
    }

    /// The same, ending or not.
    #[must_use]
    pub fn until_end(&self, until_end: bool) -> Self {
        Tables { until_end, ..self.clone() }
    }

    /// Where the topic of a table is: the place that it names itself, or that of the job.
    fn place(&self, table: &Table) -> Result<Arc<dyn Topics>> {
        Ok(self.own_place(table)?.unwrap_or_else(|| self.topics.clone()))
    }

    fn own_place(&self, table: &Table) -> Result<Option<Arc<dyn Topics>>> {
        let properties = client_properties(table)?;
        let servers = property(table, "properties.bootstrap.servers")?;
        let mut url: TopicsUrl = match (table.options.connector, servers, table.options.get("path")) {
            (Connector::Kafka | Connector::UpsertKafka, Some(servers), _) => format!("kafka://{servers}").parse()?,
            (Connector::Local, _, Some(path)) => TopicsUrl::Local(path.into()),
            (Connector::Local, _, None) => return Err(missing(table, "path")),
            _ if properties.is_empty() => return Ok(None),
            _ => {
                return Err(missing(table, "properties.bootstrap.servers")
                    .help("properties of the client that --topics points to stand in its URL: kafka://host:9092?client.id=x"));
            }
        };
        if let TopicsUrl::Kafka { options, .. } = &mut url {
            options.clone_from(&properties);
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (url.to_string(), properties);
        if let Some(topics) = opened.get(&place) {
            return Ok(Some(topics.clone()));
        }
        let topics: Arc<dyn Topics> = url.open(&self.env).map_err(|e| e.help(format!("it is a property of table {}", table.name)))?;
        opened.insert(place, topics.clone());
        Ok(Some(topics))
    }

    fn files_sink(&self, table: &Table) -> Result<FilesSink> {
        let options = &table.options;
        let path = options.get("path").ok_or_else(|| missing(table, "path"))?;
        let mut sink = FilesSink::new(self.env.clone(), path.strip_prefix("file://").unwrap_or(path));
        let file_bytes = options.get("sink.rolling-policy.file-size").and_then(bytes);
        sink = match options.format() {
            Some("parquet") => sink.parquet(options.get("parquet.compression").and_then(Codec::named).unwrap_or_default(), file_bytes),
            Some("csv") => sink.ending("csv").several_lines(),
            Some("json") => sink.several_lines(),
            _ => sink,
        };
        if !table.partitioned_by.is_empty() {
            sink = sink.in_folders();
        }
        // Each checkpoint finishes its Parquet files, so that no age or idleness is left to be looked at.
        if options.format() != Some("parquet") && options.iter().any(|(key, _)| key.starts_with("sink.rolling-policy.")) {
            let time = |key: &str| options.get(key).and_then(milliseconds).unwrap_or(ROLLOVER_MS);
            sink = sink.rolling(Rolling {
                bytes: file_bytes.unwrap_or(FILE_BYTES),
                age_ms: time("sink.rolling-policy.rollover-interval"),
                idle_ms: time("sink.rolling-policy.inactivity-interval"),
            });
        }
        if options.get("sink.partition-commit.policy.kind").is_some() {
            let by_time = options.get("sink.partition-commit.trigger") == Some("partition-time");
            sink = sink.commit(Commit {
                ripe: if by_time { Ripe::EventTime } else { Ripe::Clock },
                delay_ms: options.get("sink.partition-commit.delay").and_then(milliseconds).unwrap_or(0),
                file: options.get("sink.partition-commit.success-file.name").unwrap_or("_SUCCESS").to_string(),
            });
        }
        Ok(sink)
    }

    fn files_source(&self, table: &Table, columns: &SchemaRef) -> Result<SourceFactory> {
        let path = table.options.get("path").ok_or_else(|| missing(table, "path"))?;
        let path = path.strip_prefix("file://").unwrap_or(path);
        let folders: Vec<String> = table.partitioned_by.iter().map(|&i| table.schema.field(i).name().clone()).collect();
        let every = table.options.get("source.monitor-interval").and_then(milliseconds).filter(|_| !self.until_end);
        if table.options.format() == Some("parquet") {
            let mut files = ParquetSource::new(self.env.clone(), path, columns.clone()).naming(type_name);
            if !folders.is_empty() {
                files = files.in_folders(folders);
            }
            if let Some(ms) = every {
                files = files.follow_every(ms);
            }
            return Ok(Box::new(move |read_as| Ok(Arc::new(if read_as == ReadAs::Table { files.clone().table() } else { files.clone() }))));
        }
        let mut files = FilesSource::new(self.env.clone(), path);
        if !folders.is_empty() {
            files = files.in_folders(folders);
        }
        if let Some(ms) = every {
            files = files.follow_every(ms);
        }
        Ok(Box::new(move |read_as| Ok(Arc::new(if read_as == ReadAs::Table { files.clone().table() } else { files.clone() }))))
    }

    fn source_options(&self, table: &Table) -> Result<SourceOptions> {
        let options = &table.options;
        let mut source = SourceOptions::new(topic(table)?);
        source.start = match options.get("scan.startup.mode") {
            None | Some("earliest-offset") => Start::Earliest,
            Some("latest-offset") => Start::Latest,
            Some("timestamp") => Start::Timestamp(number(table, "scan.startup.timestamp-millis")?),
            Some(_) => Start::GroupOffsets(property(table, "properties.group.id")?.ok_or_else(|| missing(table, "properties.group.id"))?),
        };
        let bounded = options.get("scan.bounded.mode") == Some("latest-offset");
        if bounded || (self.until_end && source.start != Start::Latest) {
            source.end = End::Latest;
        }
        source.group = property(table, "properties.group.id")?;
        Ok(source)
    }
}

/// The client's properties of a table, in this project's words. Those without effect are named once, when the table is opened.
fn client_properties(table: &Table) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    let given = table.options.iter().filter_map(|(key, _)| Some((key, key.strip_prefix("properties.")?)));
    for (key, name) in given.filter(|(_, name)| !["bootstrap.servers", "group.id"].contains(name)) {
        let Some(value) = property(table, key)? else { continue };
        match java_property(name, &value).map_err(|e| e.help(format!("it is a property of table {}", table.name)))? {
            JavaProperty::Set(pairs) => properties.extend(pairs),
            JavaProperty::NoEffect(why) => tracing::warn!("table {}: 'properties.{name}' has no effect: {why}", table.name),
        }
    }
    Ok(properties)
}

/// The value of a client's property, with what of it stands in the environment.
fn property(table: &Table, key: &str) -> Result<Option<String>> {
    let Some(value) = table.options.get(key) else { return Ok(None) };
    let whole = resolved(value, |name| std::env::var(name).ok());
    let place = |why| Error::fatal(format!("table {}: '{key}' {why}", table.name)).help("export it before the command is started");
    whole.map(Some).map_err(place)
}

fn missing(table: &Table, option: &str) -> Error {
    Error::fatal(format!("table {} has no '{option}'", table.name)).help(format!("WITH (..., '{option}' = '...')"))
}

fn topic(table: &Table) -> Result<&str> {
    table.options.get("topic").ok_or_else(|| missing(table, "topic"))
}

fn number<N: std::str::FromStr>(table: &Table, option: &str) -> Result<N> {
    let text = table.options.get(option).ok_or_else(|| missing(table, option))?;
    text.parse().map_err(|_| Error::fatal(format!("table {}: '{option}' is a number, not '{text}'", table.name)))
}

impl Connectors for Tables {
    fn source(&self, table: &Table, columns: &SchemaRef) -> Result<SourceFactory> {
        let source: Arc<dyn Source> = match table.options.connector {
            Connector::Filesystem => return self.files_source(table, columns),
            Connector::Datagen => Arc::new(datagen(table)?),
            _ => self.place(table)?.source(self.source_options(table)?)?,
        };
        Ok(Box::new(move |_| Ok(source.clone())))
    }

    fn sink(&self, table: &Table) -> Result<SinkRef> {
        let options = &table.options;
        let guarantee = match options.get("sink.delivery-guarantee") {
            Some("at-least-once") => Guarantee::AtLeastOnce,
            _ => Guarantee::ExactlyOnce,
        };
        let compacted = !table.primary_key.is_empty();
        Ok(match options.connector {
            Connector::Print => {
                let print = Print::stdout();
                SinkRef::Ready(Arc::new(match options.get("print-identifier") {
                    Some(name) => print.prefix(&format!("{name}>")),
                    None => print,
                }))
            }
            Connector::Blackhole => SinkRef::Ready(Arc::new(Blackhole::default())),
            Connector::Filesystem => SinkRef::Ready(Arc::new(self.files_sink(table)?)),
            Connector::Topics => SinkRef::Topic(TopicRequest { guarantee, compacted, ..TopicRequest::new(topic(table)?) }),
            Connector::Kafka | Connector::UpsertKafka | Connector::Local => {
                let sink = SinkOptions {
                    compacted,
                    ..SinkOptions::new(topic(table)?).guarantee(guarantee).create(waterwheel_engine::graph::NEW_TOPIC_PARTITIONS)
                };
                SinkRef::Ready(self.place(table)?.sink(sink)?)
            }
            Connector::Stream => return Err(Error::fatal("a stream of the job is only read")),
            Connector::Datagen => return Err(Error::fatal("rows are made up, not written, by 'datagen'")),
        })
    }

    fn dead_letters(&self, table: &Table, topic: &str) -> Result<SinkRef> {
        let request = TopicRequest::dead_letters(topic);
        Ok(match self.own_place(table)? {
            Some(topics) => SinkRef::Ready(sink_at(&*topics, &request)?),
            None => SinkRef::Topic(request),
        })
    }

    fn infer(&self, name: &str) -> Result<Option<Table>> {
        let source = self.topics.source(SourceOptions::new(name).end(End::Latest))?;
        let mut reading = Reading::open(&*source, &self.env)?;
        let mut sample: Vec<Vec<u8>> = Vec::new();
        while sample.len() < SAMPLE {
            match reading.next(PATIENCE)? {
                Next::Records(batch) => {
                    sample.extend(batch.records().filter_map(|r| r.value).take(SAMPLE - sample.len()).map(<[u8]>::to_vec))
                }
                Next::Nothing | Next::End => break,
                Next::Waiting(why) => return Err(Error::transient(why)),
            }
        }
        let schema = waterwheel_sql::infer(sample.iter().map(Vec::as_slice)).map_err(|why| {
            Error::fatal(format!("topic {name} has no columns to be seen: {why}"))
                .help(format!("declare it:  CREATE TABLE `{name}` (...) WITH (...)"))
        })?;
        let options = Options::implied(Connector::Topics, [("topic", name.to_string()), ("format", "json".to_string())]);
        let how = format!("columns inferred from {} records (\\d {name} shows them; CREATE TABLE fixes them)", sample.len());
        Ok(Some(Table::implied(name, schema, options, Some(how))))
    }

    fn names(&self) -> Result<Vec<String>> {
        self.topics.list()
    }

    fn topics(&self) -> &dyn TopicSinks {
        self
    }
}

/// Topics by name become sinks at the place.
impl TopicSinks for Tables {
    fn sink(&self, request: &TopicRequest) -> Result<Arc<dyn Sink>> {
        sink_at(&*self.topics, request)
    }
}

fn sink_at(topics: &dyn Topics, request: &TopicRequest) -> Result<Arc<dyn Sink>> {
    let options = SinkOptions::new(&request.topic).guarantee(request.guarantee);
    let &TopicRequest { create_partitions, compacted, max_record_bytes, .. } = request;
    topics.sink(SinkOptions { create_partitions, compacted, max_record_bytes, ..options })
}

/// Rows of random values, as JSON; row n is always the same.
fn datagen(table: &Table) -> Result<Generator<Vec<u8>>> {
    let mut makers = Vec::new();
    for field in table.record.fields() {
        makers.push((field.name().clone(), maker(table, field.name(), &type_name(field.data_type()))?));
    }
    let rate: u64 = table.options.get("rows-per-second").map_or(Ok(10_000), |_| number(table, "rows-per-second"))?;
    let rows: Option<u64> = table.options.get("number-of-rows").map(|_| number(table, "number-of-rows")).transpose()?;
    let seed = 0x5EED;
    let row = move |split: u32, n: u64| {
        let mut random = Random::of(seed, split, n);
        let members: Map<String, Value> = makers.iter().map(|(name, make)| (name.clone(), make(n, &mut random))).collect();
        serde_json::to_vec(&Value::Object(members)).ok()
    };
    let generator = Generator::new(&table.name, 1, row).rate(rate.max(1));
    Ok(match rows {
        Some(rows) => generator.count(rows),
        None => generator,
    })
}

type Maker = Box<dyn Fn(u64, &mut Random) -> Value + Send + Sync>;

fn maker(table: &Table, column: &str, kind: &str) -> Result<Maker> {
    let key = |option: &str| format!("fields.{column}.{option}");
    let given = |option: &str, default: i64| -> Result<i64> {
        let key = key(option);
        table.options.get(&key).map_or(Ok(default), |_| number(table, &key))
    };
    let sequence = table.options.get(&key("kind")) == Some("sequence");
    let limits = match kind {
        "TINYINT" => (i64::from(i8::MIN), i64::from(i8::MAX)),
        "SMALLINT" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        "INT" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        "BIGINT" => (i64::MIN, i64::MAX),
        _ => (0, 100),
    };
    let (low, high) = (given("min", limits.0)?, given("max", limits.1)?);
    if low > high {
        return Err(Error::fatal(format!("table {}: '{}' is above '{}'", table.name, key("min"), key("max"))));
    }
    let start = given("start", 0)?;
    let between = move |random: &mut Random| {
        let span = (i128::from(high) - i128::from(low) + 1) as u128;
        let drawn = if span > u128::from(u64::MAX) { random.next_u64() } else { random.below(span as u64) };
        low.wrapping_add(drawn as i64)
    };
    let length = given("length", 20)?.clamp(0, 1 << 16) as usize;
    Ok(match kind {
        "TINYINT" | "SMALLINT" | "INT" | "BIGINT" if sequence => Box::new(move |n, _| Value::from(start.wrapping_add(n as i64))),
        "TINYINT" | "SMALLINT" | "INT" | "BIGINT" => Box::new(move |_, random| Value::from(between(random))),
        "BOOLEAN" => Box::new(|_, random| Value::from(random.below(2) == 1)),
        "DOUBLE" | "FLOAT" => Box::new(move |_, random| {
            let part = random.below(1 << 20) as f64 / f64::from(1 << 20);
            Number::from_f64(low as f64 + part * (high as f64 - low as f64)).map_or(Value::Null, Value::Number)
        }),
        "STRING" => {
            Box::new(move |_, random| Value::from((0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect::<String>()))
        }
        k if k.starts_with("DECIMAL") => Box::new(move |_, random| Value::from(between(random))),
        // A row a millisecond, from the beginning of 2026.
        k if k.starts_with("TIMESTAMP") => Box::new(|n, _| {
            let at = chrono::DateTime::from_timestamp_millis(1_767_225_600_000i64.saturating_add(n as i64)).unwrap_or_default();
            Value::from(at.format("%Y-%m-%d %H:%M:%S%.3f").to_string())
        }),
        other => return Err(Error::fatal(format!("table {}: 'datagen' makes no {other} (column {column})", table.name))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use waterwheel_sql::Session;
    use waterwheel_sql::catalog::Entry;

    /// The job's topics are in a folder.
    fn table(with: &str) -> (Tables, Arc<Table>) {
        let topics = TopicsUrl::Local("data".into()).open(&Env::real()).expect("opens");
        let tables = Tables::new(topics, Env::real(), true);
        let mut session = Session::new(Arc::new(waterwheel_sql::NoConnectors));
        session.run("test", &format!("CREATE TABLE t (n BIGINT) WITH ('topic' = 't', 'format' = 'json', {with})")).expect("declares");
        let Some(Entry::Table(table)) = session.catalog().get("t") else { panic!("no table") };
        (tables, table.clone())
    }

    #[test]
    fn dead_letters_go_to_the_place_of_their_table() {
        let place = |with: &str| {
            let (tables, table) = table(with);
            match tables.dead_letters(&table, "t.dead-letter").unwrap_or_else(|e| panic!("{with}: {}", e.report())) {
                SinkRef::Ready(sink) => sink.describe(),
                SinkRef::Topic(request) => format!("{} of the job", request.topic),
            }
        };
        let kafka = place("'connector' = 'kafka', 'properties.bootstrap.servers' = 'elsewhere:9092', 'properties.client.id' = 'me'");
        assert!(kafka.contains("t.dead-letter") && kafka.contains("elsewhere:9092"), "{kafka}");
        let local = place("'connector' = 'local', 'path' = 'elsewhere'");
        assert!(local.contains("t.dead-letter") && local.contains("elsewhere"), "{local}");
        assert_eq!(place("'connector' = 'kafka'"), "t.dead-letter of the job");
        assert_eq!(place("'connector' = 'topics'"), "t.dead-letter of the job");
    }

    #[test]
    fn what_stands_in_the_environment_is_looked_up_or_missed_by_name() {
        let (_, set) = table("'connector' = 'kafka', 'properties.client.id' = '${env:PATH}', 'properties.group.id' = 'g'");
        let properties = client_properties(&set).expect("is set");
        assert_eq!(properties.get("client.id"), std::env::var("PATH").ok().as_ref());
        let (tables, unset) =
            table("'connector' = 'kafka', 'properties.bootstrap.servers' = 'a:1', 'properties.sasl.password' = '${env:NO_SUCH_VARIABLE}'");
        let report = tables.place(&unset).err().expect("is not set").report();
        assert!(report.contains("table t: 'properties.sasl.password'") && report.contains("NO_SUCH_VARIABLE"), "{report}");
    }
}
