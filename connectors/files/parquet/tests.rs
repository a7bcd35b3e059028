//! Parquet files: what is written is read, what others write too, and what is damaged, changed or published twice does no harm.

use super::file::unread_codec;
use super::{Codec, ParquetSource};
use crate::conformance::{lane, marker, poll_all, reader_context, states, writer_context};
use crate::files::FilesSink;
use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, GzipLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, SchemaRef, TimeUnit};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use waterwheel_engine::env::Env;
use waterwheel_engine::operators::{Poll, ProgressNote, SegmentRef, Sink, SinkWriter, Source, SplitState};
use waterwheel_engine::record::{ChangeBatch, Epoch, FileRows, RawBatch, downcast};
use waterwheel_engine::time::EventTime;

const ROWS: usize = 500;

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn field(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

/// Every third row is none; the others are numbers without an order.
fn some(row: usize) -> Option<i64> {
    (row % 3 != 1).then(|| (row as i64 * 7919) % 1000 - 500)
}

fn numbers(kind: &DataType) -> ArrayRef {
    let numbers: ArrayRef = Arc::new((0..ROWS).map(some).collect::<Int64Array>());
    cast(&numbers, kind).unwrap()
}

fn nulls() -> Option<NullBuffer> {
    Some((0..ROWS).map(|row| row % 4 != 2).collect::<Vec<bool>>().into())
}

/// A column of each type that a table can have, with NULLs and nesting.
fn all_types() -> RecordBatch {
    let mut columns: Vec<(Field, ArrayRef)> = Vec::new();
    let stamps = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
    let stamps = stamps.iter().flat_map(|unit| [DataType::Timestamp(*unit, None), DataType::Timestamp(*unit, Some("UTC".into()))]);
    let plain = [
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(5, 2),
        DataType::Decimal128(18, 4),
        DataType::Decimal128(38, 10),
        DataType::Utf8,
        DataType::Boolean,
    ];
    for kind in plain.into_iter().chain(stamps) {
        columns.push((field(&format!("c {kind}"), kind.clone()), numbers(&kind)));
    }
    let days: Int32Array = (0..ROWS).map(|row| some(row).map(|n| n as i32 * 100)).collect();
    columns.push((field("day", DataType::Date32), Arc::new(days.reinterpret_cast::<arrow::datatypes::Date32Type>())));
    let times: Int32Array = (0..ROWS).map(|row| some(row).map(|n| (n as i32 + 500) * 86_000)).collect();
    columns.push((
        field("time", DataType::Time32(TimeUnit::Millisecond)),
        Arc::new(times.reinterpret_cast::<arrow::datatypes::Time32MillisecondType>()),
    ));
    let tiny: Int8Array = (0..ROWS).map(|row| some(row).map(|n| (n % 128) as i8)).collect();
    columns.push((field("tiny", DataType::Int8), Arc::new(tiny)));
    let bytes: BinaryArray = (0..ROWS).map(|row| some(row).map(|n| n.to_le_bytes())).collect();
    columns.push((field("bytes", DataType::Binary), Arc::new(bytes)));
    let members: Fields = vec![field("a", DataType::Int32), field("b", DataType::Utf8)].into();
    let row = |nulls| StructArray::new(members.clone(), vec![numbers(&DataType::Int32), numbers(&DataType::Utf8)], nulls);
    columns.push((field("row", DataType::Struct(members.clone())), Arc::new(row(nulls()))));
    let lengths = |row: usize| if row.is_multiple_of(2) { 1 } else { usize::from(row % 4 == 1) };
    let taken = |array: &dyn Array| array.slice(0, (0..ROWS).map(lengths).sum());
    let item = Arc::new(field("item", DataType::Struct(members.clone())));
    let offsets = OffsetBuffer::from_lengths((0..ROWS).map(lengths));
    let lists = ListArray::new(item.clone(), offsets.clone(), taken(&row(None)), nulls());
    columns.push((field("list", DataType::List(item)), Arc::new(lists)));
    let names: StringArray = (0..ROWS).map(|row| Some(format!("k{row:04}"))).collect();
    let entry: Fields = vec![Field::new("key", DataType::Utf8, false), field("value", DataType::Int64)].into();
    let entries = StructArray::new(entry.clone(), vec![taken(&names), taken(&numbers(&DataType::Int64))], None);
    let of_map = Arc::new(Field::new("entries", DataType::Struct(entry), false));
    let maps = MapArray::new(of_map.clone(), offsets, entries, nulls(), false);
    columns.push((field("map", DataType::Map(of_map, false)), Arc::new(maps)));
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(schema(fields), columns).unwrap()
}

/// Writes a file as somebody else would.
fn foreign(path: &Path, rows: &RecordBatch, properties: WriterProperties) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    Env::real().files.replace(path, &bytes).unwrap();
}

fn groups_of(rows: usize) -> WriterProperties {
    WriterProperties::builder().set_max_row_group_row_count(Some(rows)).set_data_page_row_count_limit(7).set_write_batch_size(5).build()
}

fn read_from(source: &ParquetSource, from: Vec<SplitState>) -> RecordBatch {
    let batches: Vec<FileRows> = poll_all(source, from, &Env::real()).into_iter().map(|(_, batch)| downcast::<FileRows>(batch)).collect();
    let mut next = std::collections::BTreeMap::new();
    for batch in &batches {
        let at = next.entry(batch.path.to_string()).or_insert(batch.first);
        assert_eq!(*at, batch.first, "rows follow each other");
        *at += batch.rows.times.len() as i64;
    }
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.rows.columns.schema());
    concat_batches(&schema, batches.iter().map(|batch| &batch.rows.columns)).unwrap()
}

fn read(source: &ParquetSource) -> RecordBatch {
    read_from(source, states(source))
}

fn source(path: impl AsRef<Path>, columns: &SchemaRef) -> ParquetSource {
    ParquetSource::new(Env::real(), path, columns.clone())
}

/// Stages rows for a folder, and how far event time has come.
fn epoch(writer: &mut dyn SinkWriter, epoch: Epoch, rows: &[(&str, RecordBatch)], watermark: i64) -> Vec<SegmentRef> {
    for (folder, rows) in rows {
        let rows = ChangeBatch::inserts(rows.clone(), vec![EventTime(0); rows.num_rows()]);
        writer.write(Box::new(FileRows { path: (*folder).into(), first: 0, rows })).unwrap();
    }
    let mut note = RawBatch::default();
    ProgressNote { task: 0, tasks: 1, watermark: EventTime(watermark) }.push(&"x".into(), &mut note);
    crate::conformance::stage(writer, epoch, &note)
}

fn ids(numbers: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(numbers.collect::<Int64Array>());
    RecordBatch::try_new(schema(vec![field("id", DataType::Int64)]), vec![column]).unwrap()
}

fn id_schema() -> SchemaRef {
    ids(0..0).schema()
}

/// All ids below a folder, sorted.
fn ids_in(source: &ParquetSource) -> Vec<i64> {
    let rows = read(source);
    let mut all: Vec<i64> =
        rows.columns().first().map_or(Vec::new(), |c| c.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec());
    all.sort_unstable();
    all
}

fn visible(folder: &Path) -> Vec<String> {
    Env::real().files.list(folder).unwrap().into_iter().filter(|name| !name.starts_with('.')).collect()
}

struct Place {
    dir: tempfile::TempDir,
    env: Env,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap(), env: Env::real() }
    }
    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }
    fn staging(&self) -> PathBuf {
        self.dir.path().join("staging")
    }
    fn sink(&self, codec: Codec, file_bytes: Option<u64>) -> FilesSink {
        let sink = FilesSink::new(self.env.clone(), self.out()).parquet(codec, file_bytes);
        sink.check().unwrap();
        sink
    }
    fn writer(&self, sink: &FilesSink) -> Box<dyn SinkWriter> {
        sink.writer(writer_context(&self.env, &self.staging(), "a")).unwrap()
    }
}

#[test]
fn all_types_come_back_as_they_were_with_each_codec() {
    let all = all_types();
    for codec in [Codec::Uncompressed, Codec::Snappy, Codec::Zstd] {
        let place = Place::new();
        let sink = place.sink(codec, None);
        let segments = epoch(&mut *place.writer(&sink), 1, &[("", all.slice(0, 200)), ("", all.slice(200, ROWS - 200))], 0);
        lane(&sink, &place.env, &place.staging(), 0).publish(&marker(1), &segments).unwrap();
        assert_eq!(visible(&place.out()), ["part-line-0-0000000001-0.parquet"]);
        let found = read(&source(place.out(), &all.schema()));
        for (i, field) in all.schema().fields().iter().enumerate() {
            assert_eq!(found.column(i), all.column(i), "{}", field.name());
        }
    }
}

#[test]
fn a_restart_at_any_row_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let all = types_of_parquet().slice(0, 60);
    foreign(&dir.path().join("a.parquet"), &all, groups_of(16));
    let source = source(dir.path(), &all.schema());
    for position in 0..=60 {
        let mut from = states(&source);
        from[0].position = position;
        let found = read_from(&source, from);
        assert_eq!(found.num_rows() as i64, 60 - position);
        if position < 60 {
            assert_eq!(found, all.slice(position as usize, 60 - position as usize), "from {position}");
        }
    }
}

/// Those of all types that other writers have, too: times in whole seconds are numbers to them.
fn types_of_parquet() -> RecordBatch {
    let all = all_types();
    let known = |i: &usize| !matches!(all.column(*i).data_type(), DataType::Timestamp(TimeUnit::Second, _));
    all.project(&(0..all.num_columns()).filter(known).collect::<Vec<_>>()).unwrap()
}

/// Dictionaries, several row groups, other types of the same values, another order, more and less.
#[test]
fn columns_of_other_writers_are_known_by_their_names_and_widened() {
    let dir = tempfile::tempdir().unwrap();
    let texts: DictionaryArray<Int32Type> =
        (0..ROWS).map(|row| some(row).map(|n| ["x", "y", "z"][n.unsigned_abs() as usize % 3])).collect();
    let large: LargeStringArray = (0..ROWS).map(|row| some(row).map(|n| n.to_string())).collect();
    let members: Fields = vec![field("b", DataType::Int16), field("a", DataType::Utf8), field("c", DataType::Boolean)].into();
    let row = StructArray::new(members, vec![numbers(&DataType::Int16), numbers(&DataType::Utf8), numbers(&DataType::Boolean)], nulls());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("more", numbers(&DataType::Int32)),
        ("text", Arc::new(texts.clone())),
        ("large", Arc::new(large)),
        ("row", Arc::new(row)),
        ("n", numbers(&DataType::Int32)),
        ("price", numbers(&DataType::Decimal128(7, 1))),
        ("at", numbers(&DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())))),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    foreign(&dir.path().join("a.parquet"), &rows, groups_of(100));
    let wanted_row: Fields = vec![field("a", DataType::Utf8), field("b", DataType::Int64), field("none", DataType::Float64)].into();
    let wanted = schema(vec![
        field("n", DataType::Int64),
        field("missing", DataType::Utf8),
        field("text", DataType::Utf8),
        field("large", DataType::Utf8),
        field("price", DataType::Decimal128(10, 2)),
        field("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field("row", DataType::Struct(wanted_row.clone())),
    ]);
    let found = read(&source(dir.path(), &wanted));
    assert_eq!(found.column(0), &numbers(&DataType::Int64));
    assert_eq!(found.column(1).null_count(), ROWS);
    assert_eq!(found.column(2), &cast(&texts, &DataType::Utf8).unwrap());
    assert_eq!(found.column(3), &numbers(&DataType::Utf8));
    assert_eq!(found.column(4), &numbers(&DataType::Decimal128(10, 2)));
    let millis = numbers(&DataType::Timestamp(TimeUnit::Millisecond, None));
    assert_eq!(found.column(5), &cast(&millis, &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap());
    let none = new_null_array(&DataType::Float64, ROWS);
    let row = StructArray::new(wanted_row, vec![numbers(&DataType::Utf8), numbers(&DataType::Int64), none], nulls());
    assert_eq!(found.column(6).as_struct(), &row);
}

#[test]
fn only_wanted_columns_are_read_and_rows_without_any_are_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    foreign(&path, &all_types(), groups_of(100));
    let none = poll_all(&source(&path, &schema(Vec::new())), states(&source(&path, &schema(Vec::new()))), &Env::real());
    let rows: usize = none.into_iter().map(|(_, batch)| downcast::<FileRows>(batch).rows.columns.num_rows()).sum();
    assert_eq!(rows, ROWS);
    // Bytes of other columns may be anything.
    let wanted = schema(vec![field("c Int64", DataType::Int64)]);
    let from = states(&source(&path, &wanted));
    let mut bytes = Env::real().files.read(&path).unwrap();
    let file = super::file::File::open(&Env::real(), &path).unwrap().unwrap();
    for group in file.metadata.metadata().row_groups() {
        for column in group.columns().iter().filter(|column| column.column_path().string() != "c Int64") {
            let (at, len) = column.byte_range();
            bytes[at as usize..(at + len) as usize].fill(0xFF);
        }
    }
    Env::real().files.replace(&path, &bytes).unwrap();
    assert_eq!(read_from(&source(&path, &wanted), from).column(0), &numbers(&DataType::Int64));
}

/// What Hive and Flink write for a timestamp, and a text of a fixed set.
#[test]
fn old_timestamps_and_enums_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let kind = "message m { optional int96 at; required binary kind (ENUM); }";
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(parse_message_type(kind).unwrap()), properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    // 1970-01-01 00:00:01.5 and 0001-01-01: a Julian day and nanoseconds of it.
    let stamp = |day: u32, nanos: u64| {
        let mut value = Int96::new();
        value.set_data(nanos as u32, (nanos >> 32) as u32, day);
        value
    };
    let values = [stamp(2_440_588, 1_500_000_000), stamp(1_721_426, 0)];
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&values, Some(&[1, 0, 1]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts: Vec<ByteArray> = ["a", "b", "c"].map(ByteArray::from).to_vec();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    Env::real().files.replace(&path, &bytes).unwrap();
    let wanted = schema(vec![field("at", DataType::Timestamp(TimeUnit::Millisecond, None)), field("kind", DataType::Utf8)]);
    let found = read(&source(&path, &wanted));
    let stamps: TimestampMillisecondArray = vec![Some(1_500), None, Some(-62_135_596_800_000)].into();
    assert_eq!(found.column(0).as_ref(), &stamps as &dyn Array);
    assert_eq!(found.column(1).as_ref(), &StringArray::from(vec!["a", "b", "c"]) as &dyn Array);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    foreign(&path, &ids(0..3), groups_of(2));
    let refused = |fields: Vec<Field>| source(&path, &schema(fields)).splits(true).unwrap_err().report();
    let why = refused(vec![field("id", DataType::Utf8)]);
    assert!(why.starts_with("column \"id\" is Int64 in the file and Utf8 in the table\n"), "{why}");
    assert!(why.contains("a.parquet") && why.contains("help: declare it  id Int64"), "{why}");
    let why = refused(vec![Field::new("other", DataType::Utf8, false)]);
    assert!(why.contains("the file has no column \"other\", which is NOT NULL") && why.contains("a.parquet"), "{why}");
    assert!(source(dir.path().join("*.nothing"), &id_schema()).splits(true).unwrap_err().report().contains("no file fits"));
    assert_eq!(unread_codec(Compression::GZIP(GzipLevel::default())), Some("GZIP"));
    assert_eq!(unread_codec(Compression::LZ4_RAW), Some("LZ4"));
}

/// A byte is another, or bytes are missing: rows or an error with the path, and never a panic.
#[test]
fn damage_is_an_error_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let (path, files) = (dir.path().join("a.parquet"), Env::real().files);
    let all = types_of_parquet().slice(0, 9);
    foreign(&path, &all, groups_of(4));
    let whole = files.read(&path).unwrap();
    let attempt = |bytes: &[u8]| {
        files.create(&path).and_then(|mut file| file.write_all(bytes)).unwrap();
        let source = source(&path, &all.schema());
        let from = source.splits(true)?.into_iter().map(SplitState::fresh);
        let mut reader = source.reader(reader_context(&Env::real()))?;
        reader.assign(&from.collect::<Vec<_>>())?;
        while !matches!(reader.poll()?, Poll::Ended { .. }) {}
        Ok::<_, waterwheel_engine::error::Error>(())
    };
    attempt(&whole).unwrap();
    for keep in (0..whole.len()).step_by(97) {
        let why = attempt(&whole[..keep]).unwrap_err().report();
        assert!(why.contains("a.parquet") && why.contains("help:"), "{keep} bytes: {why}");
    }
    let mut found = 0;
    for at in (0..whole.len()).step_by(29) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        if let Err(e) = attempt(&bytes) {
            assert!(e.report().contains("a.parquet"), "byte {at}: {}", e.report());
            found += 1;
        }
    }
    assert!(found > 100, "{found}");
}

#[test]
fn a_file_that_is_another_one_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    foreign(&path, &ids(0..3000), groups_of(500));
    let source = source(&path, &id_schema());
    let old = states(&source);
    let mut reader = source.reader(reader_context(&Env::real())).unwrap();
    reader.assign(&old).unwrap();
    assert!(matches!(reader.poll().unwrap(), Poll::Batch { next: 1000, .. }));
    source.confirm().unwrap();
    foreign(&path, &ids(1..3001), groups_of(500));
    assert!(source.confirm().unwrap_err().report().contains("is not the one that was being read"));
    let why = (0..9).find_map(|_| reader.poll().err()).expect("it is noticed at its end").report();
    assert!(why.contains("a.parquet"), "{why}");
    let mut next = source.reader(reader_context(&Env::real())).unwrap();
    let refused = next.assign(&old).and_then(|()| next.poll().map(drop)).unwrap_err().report();
    assert!(refused.contains("is not the one") && refused.contains("a.parquet"), "{refused}");
    // One that has been read may go.
    let mut read = old.clone();
    read[0].position = 3000;
    Env::real().files.remove(&path).unwrap();
    let mut last = source.clone().table().reader(reader_context(&Env::real())).unwrap();
    last.assign(&read).unwrap();
    assert!(matches!(last.poll().unwrap(), Poll::Ended { .. }));
}

#[test]
fn files_that_are_not_whole_yet_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (env, path) = (Env::real(), dir.path().join("b.parquet"));
    foreign(&dir.path().join("a.parquet"), &ids(0..3), groups_of(500));
    foreign(&path, &ids(3..5), groups_of(500));
    let whole = env.files.read(&path).unwrap();
    env.files.replace(&path, &whole[..40]).unwrap();
    assert!(source(dir.path(), &id_schema()).splits(true).unwrap_err().report().contains("b.parquet"));
    let source = source(dir.path(), &id_schema()).follow_every(10);
    assert!(!source.is_bounded());
    assert_eq!(source.splits(true).unwrap().len(), 1);
    env.files.replace(&path, &whole).unwrap();
    assert_eq!(ids_in(&source), [0, 1, 2, 3, 4]);
}

#[test]
fn many_files_are_read_a_few_at_a_time_and_one_held_back_stands_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..40 {
        foreign(&dir.path().join(format!("{i:02}.parquet")), &ids(i * 1500..(i + 1) * 1500), groups_of(500));
    }
    let source = source(dir.path(), &id_schema());
    assert_eq!(ids_in(&source), (0..60_000).collect::<Vec<_>>());
    let splits = states(&source);
    let mut reader = source.reader(reader_context(&Env::real())).unwrap();
    reader.assign(&splits).unwrap();
    let (mut rows, mut ended) = (0, 0);
    // Each is held back after its first batch until all have had one.
    while ended < 40 {
        match reader.poll().unwrap() {
            Poll::Batch { split, batch, .. } => {
                rows += batch.len();
                if rows <= 40_000 {
                    reader.hold_back(&split, true);
                }
                if rows == 40_000 {
                    splits.iter().for_each(|state| reader.hold_back(&state.split.id, false));
                }
            }
            Poll::Ended { .. } => ended += 1,
            _ => panic!("nothing is left to wait for at {rows} rows"),
        }
    }
    assert_eq!(rows, 60_000);
}

#[test]
fn an_epoch_is_published_once_whatever_broke_off() {
    let place = Place::new();
    let (env, staging, out) = (place.env.clone(), place.staging(), place.out());
    let sink = place.sink(Codec::Snappy, None);
    let mut writer = place.writer(&sink);
    let one = epoch(&mut *writer, 1, &[("", ids(0..1000))], 0);
    let two = epoch(&mut *writer, 2, &[("", ids(1000..1500)), ("", ids(1500..2000))], 0);
    // Staged, and the job dies: nothing is seen. Its files come when the next owner publishes.
    drop(lane(&sink, &env, &staging, 0));
    assert_eq!(visible(&out), [] as [&str; 0]);
    let mut first = lane(&sink, &env, &staging, 0);
    // A former attempt left half a file under the same hidden name.
    env.files.replace(&out.join(".part-line-0-0000000001-0.parquet.2"), b"PAR1 and no more").unwrap();
    first.publish(&marker(1), &one).unwrap();
    assert_eq!(ids_in(&source(&out, &id_schema())), (0..1000).collect::<Vec<_>>());
    let before = env.files.read(&out.join("part-line-0-0000000001-0.parquet")).unwrap();
    let both: Vec<SegmentRef> = one.iter().chain(&two).cloned().collect();
    let mut second = lane(&sink, &env, &staging, 0);
    assert!(first.publish(&marker(2), &two).is_err(), "fenced");
    second.publish(&marker(2), &both).unwrap();
    assert_eq!(env.files.read(&out.join("part-line-0-0000000001-0.parquet")).unwrap(), before);
    assert_eq!(ids_in(&source(&out, &id_schema())), (0..2000).collect::<Vec<_>>());
    // It died after the replacement of the lane's file, before the names.
    let name = "part-line-0-0000000002-0.parquet";
    let hidden = format!(".{name}.3");
    env.files.rename(&out.join(name), &out.join(&hidden)).unwrap();
    drop(lane(&sink, &env, &staging, 0));
    assert_eq!(visible(&out), ["part-line-0-0000000001-0.parquet", name]);
    assert_eq!(ids_in(&source(&out, &id_schema())), (0..2000).collect::<Vec<_>>());
}

#[test]
fn folders_have_their_rows_however_many_there_are() {
    let place = Place::new();
    let sink = place.sink(Codec::Snappy, None).in_folders();
    let mut writer = place.writer(&sink);
    let names: Vec<String> = (0..100).map(|i| format!("k={i}")).collect();
    let rows =
        |turn: i64| names.iter().enumerate().map(move |(i, name)| (name.as_str(), ids(turn * 100 + i as i64..turn * 100 + i as i64 + 1)));
    let all: Vec<(&str, RecordBatch)> = rows(0).chain(rows(1)).collect();
    let segments = epoch(&mut *writer, 1, &all, 0);
    lane(&sink, &place.env, &place.staging(), 0).publish(&marker(1), &segments).unwrap();
    let source = source(place.out(), &id_schema()).in_folders(vec!["k".into()]);
    assert_eq!(ids_in(&source), (0..200).collect::<Vec<_>>());
    let batches = poll_all(&source, states(&source), &place.env).into_iter().map(|(_, batch)| downcast::<FileRows>(batch));
    for batch in batches {
        let of: i64 = batch.path.strip_prefix("k=").unwrap().split('/').next().unwrap().parse().unwrap();
        assert!(batch.rows.columns.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().iter().all(|id| id % 100 == of));
    }
    let mut up = place.writer(&sink);
    let rows = ChangeBatch::inserts(ids(0..1), vec![EventTime(0)]);
    assert!(up.write(Box::new(FileRows { path: "k=1/..".into(), first: 0, rows })).is_err());
}

#[test]
fn a_file_is_finished_when_it_is_large_and_large_batches_are_cut() {
    let place = Place::new();
    let sink = place.sink(Codec::Uncompressed, Some(20_000));
    let mut writer = place.writer(&sink);
    let rows: Vec<(&str, RecordBatch)> = (0..20).map(|i| ("", ids(i * 1000..(i + 1) * 1000))).collect();
    let segments = epoch(&mut *writer, 1, &rows, 0);
    lane(&sink, &place.env, &place.staging(), 0).publish(&marker(1), &segments).unwrap();
    let names = visible(&place.out());
    assert!((4..=12).contains(&names.len()), "{names:?}");
    assert_eq!(ids_in(&source(place.out(), &id_schema())), (0..20_000).collect::<Vec<_>>());
    // 16 MB at once.
    let segments = epoch(&mut *writer, 2, &[("", ids(20_000..2_020_000))], 0);
    assert!(segments[0].records > 3, "{}", segments[0].records);
    let mut second = lane(&sink, &place.env, &place.staging(), 0);
    second.publish(&marker(2), &segments).unwrap();
    assert_eq!(ids_in(&source(place.out(), &id_schema())).len(), 2_020_000);
}

#[test]
fn what_was_staged_in_another_format_is_not_published() {
    let place = Place::new();
    let columns = place.sink(Codec::Snappy, None);
    let lines = FilesSink::new(place.env.clone(), place.out());
    let segments = epoch(&mut *place.writer(&columns), 1, &[("", ids(0..3))], 0);
    let refused = lane(&lines, &place.env, &place.staging(), 0).publish(&marker(1), &segments).unwrap_err();
    assert!(refused.report().contains("another format"), "{}", refused.report());
    assert_eq!(visible(&place.out()), [] as [&str; 0]);
}
