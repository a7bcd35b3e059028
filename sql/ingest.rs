//! How records of a table's source become rows: decode, compute, stamp event time.
//!
//! Invariant: a record gives one row, or one change of a row (an update is two), or one rejected record; a row without event time,
//! or with one that is in no calendar, is rejected where the table has a watermark.

use crate::catalog::{ERROR_COLUMNS, Metadata};
use crate::csv::{Csv, CsvRows};
use crate::debezium::{Debezium, Envelopes};
use crate::file_rows::{self, FileRecords};
use crate::folders::{FolderColumns, FolderReading};
use crate::json::JsonRows;
use crate::kernels::calc::Calc;
use crate::maps;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, Int64Array, StringArray, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};
use std::any::Any;
use std::sync::Arc;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{ColumnKernel, ErrorPolicy, Ingest, IngestFactory, OpenContext, shortened};
use waterwheel_engine::record::{
    Batch, BatchBox, ChangeBatch, FileRows, Origin, Origins, RawBatch, Rejected, RowKind, Rows, Timestamps, downcast, record_batch,
};
use waterwheel_engine::time::{EventTime, WatermarkGenerator};

/// How the value of a record is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// The whole value is the one column.
    Raw,
    /// One field a column, in the order of these.
    Csv(Csv, Vec<String>),
    /// What became of rows.
    Debezium(Debezium),
    /// There is no value: the source hands over the columns.
    Parquet,
}

/// How the key of a record is read that has no value: it takes the row of its key away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// An object with the columns of the key.
    Json,
    /// The text of this column.
    Raw(String),
}

/// Columns being made of values.
enum Values {
    Json(JsonRows),
    Debezium(Box<Envelopes>),
    Csv(Box<CsvRows>),
    Texts(StringBuilder),
    Bytes(BinaryBuilder),
}

/// Columns of rows, which of the records that were added each is of, and what the record says of it.
struct Made {
    columns: Vec<ArrayRef>,
    /// None where every record is a row.
    changes: Option<(Vec<usize>, Vec<RowKind>)>,
    failed: Vec<(usize, String)>,
}

impl Values {
    fn new(reading: &Reading) -> Result<Self> {
        Ok(match &reading.format {
            Format::Json => Values::Json(JsonRows::new(reading.value.clone())?),
            Format::Debezium(debezium) => Values::Debezium(Box::new(Envelopes::new(debezium, reading.value.clone())?)),
            Format::Csv(csv, names) => Values::Csv(Box::new(CsvRows::new(csv.clone(), reading.value.clone(), names)?)),
            Format::Raw if reading.value.fields().first().is_some_and(|f| *f.data_type() == DataType::Utf8) => {
                Values::Texts(StringBuilder::new())
            }
            Format::Raw => Values::Bytes(BinaryBuilder::new()),
            Format::Parquet => return Err(Error::fatal("plan bug: the source of a table in columns hands over records")),
        })
    }

    /// Adds a value; `false` where it is no record.
    fn push(&mut self, value: &[u8]) -> std::result::Result<bool, String> {
        match self {
            Values::Json(rows) => rows.push(value)?,
            Values::Debezium(rows) => rows.push(value)?,
            Values::Csv(rows) => return rows.push(value),
            Values::Texts(all) => all.append_value(std::str::from_utf8(value).map_err(|_| "the value is not UTF-8")?),
            Values::Bytes(all) => all.append_value(value),
        }
        Ok(true)
    }

    /// Adds a row of which the key is known.
    fn push_key(&mut self, format: &Key, key: &[u8]) -> std::result::Result<(), String> {
        let Values::Json(rows) = self else { return Err("the record has no value".into()) };
        match format {
            Key::Json => rows.push_key(key),
            Key::Raw(column) => {
                let text = std::str::from_utf8(key).map_err(|e| format!("the key is not UTF-8: {e}"))?;
                rows.push_key(serde_json::json!({ column: text }).to_string().as_bytes())
            }
        }
    }

    fn made(&mut self, schema: &SchemaRef) -> Result<Made> {
        let mut columns = match self {
            Values::Debezium(rows) => {
                let unrolled = rows.take()?;
                return Ok(Made { columns: unrolled.columns, changes: Some((unrolled.of, unrolled.kinds)), failed: unrolled.failed });
            }
            Values::Json(rows) => rows.take()?.columns().to_vec(),
            Values::Csv(rows) => rows.take()?.columns().to_vec(),
            Values::Texts(all) => vec![Arc::new(all.finish()) as ArrayRef],
            Values::Bytes(all) => vec![Arc::new(all.finish()) as ArrayRef],
        };
        // Of raw values nothing may be wanted.
        columns.truncate(schema.fields().len());
        Ok(Made { columns, changes: None, failed: Vec::new() })
    }
}

/// What an ingest does.
pub(crate) struct Reading {
    pub(crate) format: Format,
    /// Columns of the record's value that are needed.
    pub(crate) value: SchemaRef,
    /// Metadata that is needed, behind them.
    pub(crate) metadata: Vec<Metadata>,
    /// Columns that are in the names of folders, behind those.
    pub(crate) folders: Option<FolderReading>,
    /// All together.
    pub(crate) record: SchemaRef,
    /// From these to the columns of the scan; with event time, it is the last one.
    pub(crate) calc: Calc,
    pub(crate) event_time: bool,
    /// The newest record of a key is the row.
    pub(crate) by_key: bool,
    /// How the key of a record without a value is read, which takes the row away.
    pub(crate) key: Option<Key>,
    /// Of the scan, without the event time.
    pub(crate) output: SchemaRef,
}

/// One ingest a source task.
pub(crate) fn ingest(reading: Arc<Reading>) -> IngestFactory {
    Arc::new(move |context| Box::new(TableIngest { reading: reading.clone(), context: context.clone(), values: None }))
}

/// One ingest a source task: of the records that are no rows of a table, these columns of `t$errors`.
pub(crate) fn rejects(reading: Arc<Reading>, projection: Vec<usize>, schema: SchemaRef) -> IngestFactory {
    Arc::new(move |context| {
        let table = TableIngest { reading: reading.clone(), context: context.clone(), values: None };
        Box::new(Rejects { table, projection: projection.clone(), schema: schema.clone() })
    })
}

struct Rejects {
    table: TableIngest,
    projection: Vec<usize>,
    schema: SchemaRef,
}

impl Ingest for Rejects {
    fn ingest(&mut self, batch: BatchBox, _rejected: &mut Vec<Rejected>) -> Result<BatchBox> {
        let (mut found, mut raw) = (Vec::new(), RawBatch::default());
        self.table.ingest(batch, &mut found)?;
        // An update whose two rows are both none is one record.
        found.dedup_by_key(|rejected| rejected.origin.as_ref().map(|origin| origin.record().offset));
        found.iter().filter_map(|rejected| rejected.origin.as_ref()).for_each(|origin| raw.push(origin.record()));
        let all: Vec<u32> = (0..raw.len() as u32).collect();
        let column = |&i: &usize| match ERROR_COLUMNS[i] {
            (_, Some(metadata)) => metadata_column(metadata, &raw, &all),
            ("record", _) => Ok(Arc::new(raw.records().map(|record| record.value).collect::<BinaryArray>()) as ArrayRef),
            _ => Ok(Arc::new(StringArray::from_iter_values(found.iter().map(|rejected| shortened(rejected.error.clone())))) as ArrayRef),
        };
        let columns = self.projection.iter().map(column).collect::<Result<Vec<_>>>()?;
        let columns = record_batch(self.schema.clone(), columns, raw.len())
            .map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?;
        Ok(ChangeBatch::inserts(columns, raw.times().to_vec()).boxed())
    }
}

struct TableIngest {
    reading: Arc<Reading>,
    context: OpenContext,
    /// Kept from batch to batch, with what it learned of how records look.
    values: Option<Values>,
}

impl Ingest for TableIngest {
    fn ingest(&mut self, batch: BatchBox, rejected: &mut Vec<Rejected>) -> Result<BatchBox> {
        if batch.as_any().is::<FileRows>() {
            let file = downcast::<FileRows>(batch);
            let (decoded, failed) = file_rows::decode(&self.reading, &file)?;
            let records = Records::File(Box::new(FileRecords::of(file)));
            failed.into_iter().for_each(|(row, error)| self.reject(&records, row, error, rejected));
            return self.finish(&records, decoded, rejected).map(ChangeBatch::boxed);
        }
        let raw = Arc::new(raw(batch)?);
        let records = Records::Raw(raw.clone());
        let decoded = self.decode(&raw, &records, rejected)?;
        self.finish(&records, decoded, rejected).map(ChangeBatch::boxed)
    }
}

/// Records as bytes: what connectors hand over, or values that were made up.
fn raw(batch: BatchBox) -> Result<RawBatch> {
    let times: Vec<i64> = batch.times().iter().map(|t| t.0).collect();
    let any = match batch.into_any().downcast::<RawBatch>() {
        Ok(raw) => return Ok(*raw),
        Err(any) => any,
    };
    let values = any.downcast::<Rows<Vec<u8>>>().map_err(|_| Error::fatal("plan bug: the source of a table hands over typed rows"))?;
    let topic: Arc<str> = "generated".into();
    let mut raw = RawBatch::default();
    for (value, time) in values.rows.iter().zip(times) {
        raw.push_parts(&topic, 0, -1, time, None, Some(value), &[]);
    }
    Ok(raw)
}

/// What rows are of: records, or the rows of a file.
enum Records {
    Raw(Arc<RawBatch>),
    File(Box<FileRecords>),
}

impl Records {
    /// What it is that a dead letter would hold.
    fn origin(&self, row: usize) -> Origin {
        let raw = match self {
            Records::Raw(raw) => raw,
            Records::File(file) => file.raw(),
        };
        Origin::new(raw.clone(), row as u32)
    }

    fn time(&self, row: usize) -> EventTime {
        match self {
            Records::Raw(raw) => raw.times()[row],
            Records::File(file) => file.time(row),
        }
    }
}

/// Columns of records, and which records they are of.
pub(crate) struct Decoded {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) good: Vec<u32>,
    /// Where records are changes.
    pub(crate) kinds: Option<Vec<RowKind>>,
}

impl TableIngest {
    fn reject(&self, records: &Records, row: usize, error: String, rejected: &mut Vec<Rejected>) {
        let (origin, operator) = (Some(records.origin(row)), self.context.operator.clone());
        rejected.push(Rejected { origin, operator, error, time: records.time(row).0 });
    }

    fn decode(&mut self, raw: &RawBatch, records: &Records, rejected: &mut Vec<Rejected>) -> Result<Decoded> {
        let mut good = Vec::with_capacity(raw.len());
        let mut values = match self.values.take() {
            Some(values) => values,
            None => Values::new(&self.reading)?,
        };
        let mut kinds = self.reading.key.as_ref().map(|_| Vec::new());
        let mut folders = self.reading.folders.as_ref().map(FolderReading::columns).transpose()?;
        for (i, record) in raw.records().enumerate() {
            if let Some(Err(error)) = folders.as_mut().map(|folders| folders.push(record.topic)) {
                self.reject(records, i, error, rejected);
                continue;
            }
            let read = match (record.value, &self.reading.key) {
                (Some(value), _) => values.push(value),
                // Debezium writes one behind each deletion, for the compaction of the topic.
                (None, None) if matches!(self.reading.format, Format::Debezium(_)) => Ok(false),
                (None, None) => Err("the record has no value (a tombstone)".to_string()),
                (None, Some(format)) => match record.key {
                    Some(key) => values.push_key(format, key).map(|()| true),
                    None => Err("the record has neither key nor value".to_string()),
                },
            };
            if let (Some(folders), false) = (&mut folders, read == Ok(true)) {
                folders.pop();
            }
            match read {
                Ok(true) => {
                    good.push(i as u32);
                    if let Some(kinds) = &mut kinds {
                        kinds.push(if record.value.is_some() { RowKind::Insert } else { RowKind::Delete });
                    }
                }
                Ok(false) => {}
                Err(error) => self.reject(records, i, error, rejected),
            }
        }
        let Made { mut columns, changes, failed } = values.made(&self.reading.value)?;
        self.values = Some(values);
        for (record, error) in failed {
            self.reject(records, good[record] as usize, error, rejected);
        }
        if let Some((of, changes)) = changes {
            good = of.into_iter().map(|record| good[record]).collect();
            kinds = Some(changes);
            rejected.sort_by_key(|r| r.origin.as_ref().map(|origin| origin.record().offset));
        }
        for metadata in &self.reading.metadata {
            columns.push(metadata_column(*metadata, raw, &good)?);
        }
        columns.extend(folders.map(FolderColumns::finish).transpose()?.into_iter().flatten());
        Ok(Decoded { columns, good, kinds })
    }

    fn finish(&self, records: &Records, decoded: Decoded, rejected: &mut Vec<Rejected>) -> Result<ChangeBatch> {
        let Decoded { columns, good, kinds } = decoded;
        let columns = record_batch(self.reading.record.clone(), columns, good.len())
            .map_err(|e| Error::fatal("plan bug: the record's columns differ from the plan's").because(e))?;
        let mut batch = ChangeBatch::inserts(columns, good.iter().map(|&i| records.time(i as usize)).collect());
        batch.kinds = kinds;
        let mut failed = Vec::new();
        let mut computed = self.reading.calc.clone().apply(&batch, &mut failed)?;
        let failures = failed.len();
        // Which record each row is of.
        let mut skip = failed.iter().map(|(row, _)| *row).peekable();
        let kept = (0..good.len()).filter(|row| skip.next_if_eq(row).is_none()).map(|row| good[row]).collect::<Vec<u32>>();
        for (row, error) in failed {
            self.reject(records, good[row] as usize, error, rejected);
        }
        if self.context.policy == ErrorPolicy::DeadLetter {
            computed.origins = Some(Origins(kept.iter().map(|&i| records.origin(i as usize)).collect()));
        }
        if self.reading.event_time {
            computed = self.stamp(records, &kept, computed, rejected)?;
        }
        if failures > 0 || self.reading.event_time {
            // Dead letters leave in the order of their records.
            rejected.sort_by_key(|r| r.origin.as_ref().map(|origin| origin.record().offset));
        }
        Ok(computed)
    }

    /// Takes the event time from the last column.
    fn stamp(&self, records: &Records, of: &[u32], mut batch: ChangeBatch, rejected: &mut Vec<Rejected>) -> Result<ChangeBatch> {
        let mut columns = batch.columns.columns().to_vec();
        let times = columns.pop().ok_or_else(|| Error::fatal("plan bug: no column with the event time"))?;
        let times =
            times.as_primitive_opt::<TimestampMillisecondType>().ok_or_else(|| Error::fatal("plan bug: event time of another type"))?;
        let rows = batch.times.len();
        batch.times = times.values().iter().map(|&time| EventTime(time)).collect();
        // Whatever is still known of a row that goes: it is gone since its record says so.
        let goes = |batch: &ChangeBatch, row: usize| self.reading.by_key && batch.kind(row).weight() < 0;
        for row in (0..rows).filter(|&row| goes(&batch, row)).collect::<Vec<_>>() {
            batch.times[row] = records.time(of[row] as usize);
        }
        let batch = batch.with_columns(
            record_batch(self.reading.output.clone(), columns, rows)
                .map_err(|e| Error::fatal("plan bug: columns of another type").because(e))?,
        );
        let is_sound = |row: usize| times.is_valid(row) && EventTime::CALENDAR.contains(&EventTime(times.value(row)));
        if (0..rows).all(is_sound) {
            return Ok(batch);
        }
        let mut kept = Vec::with_capacity(rows);
        for (row, &record) in of.iter().enumerate() {
            if is_sound(row) || (goes(&batch, row) && batch.times[row].0 >= 0) {
                kept.push(row as u32);
            } else if times.is_valid(row) {
                self.reject(records, record as usize, format!("the event time {} is out of range", times.value(row)), rejected);
            } else {
                self.reject(records, record as usize, "the event time is NULL".into(), rejected);
            }
        }
        batch.gather(&kept)
    }
}

pub(crate) fn metadata_column(metadata: Metadata, raw: &RawBatch, good: &[u32]) -> Result<ArrayRef> {
    let records = good.iter().map(|&i| raw.record(i as usize));
    let logged = || good.iter().map(|&i| raw.logged(i as usize));
    Ok(match metadata {
        Metadata::Topic => Arc::new(StringArray::from_iter_values(records.map(|r| r.topic.to_string()))),
        Metadata::Partition => Arc::new(records.map(|r| Some(r.partition)).collect::<Int32Array>()),
        Metadata::Offset => Arc::new(records.map(|r| Some(r.offset)).collect::<Int64Array>()),
        Metadata::Timestamp => {
            let stamps = records.map(|r| Some(r.timestamp)).collect::<Int64Array>();
            Arc::new(stamps.reinterpret_cast::<TimestampMillisecondType>().with_timezone("UTC"))
        }
        Metadata::Key => Arc::new(records.map(|r| r.key).collect::<BinaryArray>()),
        Metadata::LeaderEpoch => Arc::new(logged().map(|logged| logged?.leader_epoch).collect::<Int32Array>()),
        Metadata::TimestampType => Arc::new(logged().map(|logged| logged.map(|l| timestamp_type(l.timestamps))).collect::<StringArray>()),
        Metadata::Headers => {
            let (mut names, mut values, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
            for record in records {
                let before = names.len();
                for (name, value) in record.headers() {
                    names.push(name);
                    values.push(value);
                }
                lengths.push(names.len() - before);
            }
            let values = Arc::new(values.into_iter().collect::<BinaryArray>());
            let maps = maps::build(&metadata.data_type(), Arc::new(StringArray::from(names)), values, &lengths, None);
            Arc::new(maps.map_err(|e| Error::restart("headers cannot be put into a column").because(e))?)
        }
    })
}

/// As the Java client calls it.
fn timestamp_type(timestamps: Timestamps) -> &'static str {
    match timestamps {
        Timestamps::None => "NoTimestampType",
        Timestamps::Created => "CreateTime",
        Timestamps::Appended => "LogAppendTime",
    }
}

/// Flink's watermark: the highest time seen less the delay, that instant included.
pub(crate) struct Delayed {
    delay_ms: i64,
    highest: Option<EventTime>,
}

impl Delayed {
    pub(crate) fn new(delay_ms: i64) -> Self {
        Delayed { delay_ms, highest: None }
    }
}

impl WatermarkGenerator for Delayed {
    fn observe(&mut self, times: &[EventTime]) {
        self.highest = self.highest.max(times.iter().copied().max());
    }

    /// The time at which a row goes says nothing of the times of those that come.
    fn observe_rows(&mut self, rows: &dyn Any, times: &[EventTime]) {
        match rows.downcast_ref::<ChangeBatch>().and_then(|changes| changes.kinds.as_ref()) {
            Some(kinds) => {
                let comes = times.iter().zip(kinds).filter(|(_, kind)| kind.is_addition()).map(|(time, _)| *time);
                self.highest = self.highest.max(comes.max());
            }
            None => self.observe(times),
        }
    }

    fn watermark(&self) -> EventTime {
        self.highest.map_or(EventTime::MIN, |t| t.minus_ms(self.delay_ms))
    }
}
