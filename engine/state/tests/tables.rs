//! Each table kind as a subject.

use super::{GROUPS, Step, Subject, run};
use crate::record::Keys;
use crate::state::{AppendTable, MapTable, MemoryStore, OrderedTable, PointTable, SeenTable, StateStore, Table, WriteBatch};
use crate::time::EventTime;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use twox_hash::XxHash3_64;

pub(super) fn keys(names: impl ExactSizeIterator<Item = u8>) -> Keys {
    Keys::encode(names.map(|n| format!("key-{n}")))
}

pub(super) fn bytes(name: u8) -> Vec<u8> {
    keys([name].into_iter()).bytes(0, &mut [0; 8]).to_vec()
}

pub(super) fn steps<Op: Clone + std::fmt::Debug + 'static>(
    op: impl Strategy<Value = Op> + 'static,
) -> impl Strategy<Value = Vec<Step<Op>>> {
    let step = prop_oneof![
        12 => op.prop_map(Step::Do),
        2 => Just(Step::Freeze),
        4 => (1usize..5).prop_map(Step::Drain),
        1 => (1usize..2000).prop_map(Step::Evict),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..60)
}

// --- point

struct Point;

#[derive(Debug, Clone)]
enum PointOp {
    Write(u8, u16),
    /// Through `get_mut`, as a list or map state does.
    Clear(u8),
    Remove(u8),
    Look(Vec<u8>),
}

fn point_op() -> impl Strategy<Value = PointOp> {
    prop_oneof![
        (0u8..8, any::<u16>()).prop_map(|(k, v)| PointOp::Write(k, v)),
        (0u8..8).prop_map(PointOp::Clear),
        (0u8..8).prop_map(PointOp::Remove),
        proptest::collection::vec(0u8..12, 0..5).prop_map(PointOp::Look),
    ]
}

fn slots(table: &mut PointTable<String>, names: &[u8]) -> Vec<u32> {
    let mut slots = Vec::new();
    table.resolve(&keys(names.iter().copied()), &mut slots).unwrap();
    slots
}

fn point_content(table: &PointTable<String>) -> BTreeMap<Vec<u8>, String> {
    let mut out = BTreeMap::new();
    let mut last: Option<Vec<u8>> = None;
    table
        .for_each(|key, value| {
            assert!(last.as_deref().is_none_or(|last| last < key), "in key order, each once");
            last = Some(key.to_vec());
            out.insert(key.to_vec(), value.clone());
        })
        .unwrap();
    out
}

impl Subject for Point {
    type Op = PointOp;
    type Model = BTreeMap<Vec<u8>, String>;
    type Table = PointTable<String>;

    fn make() -> Self::Table {
        PointTable::new("p")
    }

    fn apply(table: &mut Self::Table, model: &mut Self::Model, op: &PointOp) {
        match op {
            PointOp::Write(k, v) => {
                let slot = slots(table, &[*k])[0];
                assert_eq!(table.insert(slot, v.to_string()), model.insert(bytes(*k), v.to_string()));
            }
            PointOp::Clear(k) => {
                let slot = slots(table, &[*k])[0];
                assert_eq!(table.update(slot, Option::take), model.remove(&bytes(*k)));
            }
            PointOp::Remove(k) => {
                let slot = slots(table, &[*k])[0];
                assert_eq!(table.remove(slot), model.remove(&bytes(*k)));
            }
            PointOp::Look(names) => {
                for (slot, name) in slots(table, names).into_iter().zip(names) {
                    assert_eq!(table.get(slot), model.get(&bytes(*name)));
                }
            }
        }
    }

    fn read(table: &mut Self::Table) -> Self::Model {
        point_content(table)
    }

    fn merge(mut a: Self::Model, b: Self::Model) -> Self::Model {
        a.extend(b);
        a
    }
}

// --- point with a time to live

struct Expiring;

const TTL: i64 = 5;

#[derive(Debug, Clone)]
enum ExpiringOp {
    Write(u8, u16, i64),
    Touch(u8, i64),
    Remove(u8),
    Watermark(i64),
}

fn expiring_op() -> impl Strategy<Value = ExpiringOp> {
    prop_oneof![
        4 => (0u8..6, any::<u16>(), 0i64..30).prop_map(|(k, v, t)| ExpiringOp::Write(k, v, t)),
        1 => (0u8..6, 0i64..30).prop_map(|(k, t)| ExpiringOp::Touch(k, t)),
        1 => (0u8..6).prop_map(ExpiringOp::Remove),
        2 => (0i64..30).prop_map(ExpiringOp::Watermark),
    ]
}

#[derive(Debug, Clone, Default)]
struct ExpiringModel {
    entries: BTreeMap<Vec<u8>, (String, i64)>,
    watermark: i64,
}

impl ExpiringModel {
    fn expire(&mut self) {
        self.entries.retain(|_, (_, last)| *last + TTL > self.watermark);
    }
}

impl PartialEq for ExpiringModel {
    /// What can be seen.
    fn eq(&self, other: &Self) -> bool {
        self.entries.iter().map(|(k, (v, _))| (k, v)).eq(other.entries.iter().map(|(k, (v, _))| (k, v)))
    }
}

impl Subject for Expiring {
    type Op = ExpiringOp;
    type Model = ExpiringModel;
    type Table = PointTable<String>;

    fn make() -> Self::Table {
        PointTable::new("t").with_ttl(TTL)
    }

    fn apply(table: &mut Self::Table, model: &mut Self::Model, op: &ExpiringOp) {
        match op {
            ExpiringOp::Write(k, v, time) => {
                let slot = slots(table, &[*k])[0];
                table.insert(slot, v.to_string());
                table.touch(slot, EventTime(*time));
                let entry = model.entries.entry(bytes(*k)).or_insert_with(|| (String::new(), *time));
                *entry = (v.to_string(), entry.1.max(*time));
            }
            ExpiringOp::Touch(k, time) => {
                let slot = slots(table, &[*k])[0];
                table.touch(slot, EventTime(*time));
                if let Some(entry) = model.entries.get_mut(&bytes(*k)) {
                    entry.1 = entry.1.max(*time);
                }
            }
            ExpiringOp::Remove(k) => {
                let slot = slots(table, &[*k])[0];
                assert_eq!(table.remove(slot), model.entries.remove(&bytes(*k)).map(|entry| entry.0));
            }
            ExpiringOp::Watermark(time) => {
                model.watermark = model.watermark.max(*time);
                table.expire(EventTime(model.watermark));
            }
        }
        model.expire();
    }

    fn read(table: &mut Self::Table) -> Self::Model {
        let entries = point_content(table).into_iter().map(|(k, v)| (k, (v, 0))).collect();
        ExpiringModel { entries, watermark: 0 }
    }

    fn merge(mut a: Self::Model, b: Self::Model) -> Self::Model {
        a.entries.extend(b.entries);
        a
    }
}

// --- ordered

pub(super) struct Timers;

#[derive(Debug, Clone)]
pub(super) enum TimerOp {
    Insert(i64, u8, u8, u16),
    Remove(i64, u8, u8),
    /// Only of what is there.
    Discard(i64, u8, u8),
    Pop(i64),
}

pub(super) fn timer_op() -> impl Strategy<Value = TimerOp> {
    let time = prop_oneof![8 => -5i64..10, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
    prop_oneof![
        4 => (time.clone(), 0u8..4, 0u8..3, any::<u16>()).prop_map(|(t, k, g, v)| TimerOp::Insert(t, k, g, v)),
        2 => (time.clone(), 0u8..4, 0u8..3).prop_map(|(t, k, g)| TimerOp::Remove(t, k, g)),
        2 => (time.clone(), 0u8..4, 0u8..3).prop_map(|(t, k, g)| TimerOp::Discard(t, k, g)),
        1 => time.prop_map(TimerOp::Pop),
    ]
}

/// The first is NULL's, which is the beginning of all others.
fn timer_key(n: u8) -> Vec<u8> {
    if n == 0 { Vec::new() } else { bytes(n) }
}

pub(super) type TimerModel = BTreeMap<(i64, Vec<u8>, Vec<u8>), u16>;

fn tag(n: u8) -> Vec<u8> {
    vec![b't'; n as usize]
}

impl Subject for Timers {
    type Op = TimerOp;
    type Model = TimerModel;
    type Table = OrderedTable<u16>;

    fn make() -> Self::Table {
        OrderedTable::new("o")
    }

    fn apply(table: &mut Self::Table, model: &mut TimerModel, op: &TimerOp) {
        match op {
            TimerOp::Insert(time, k, g, v) => {
                let key = timer_key(*k);
                table.insert(EventTime(*time), &key, &tag(*g), *v);
                model.insert((*time, key, tag(*g)), *v);
            }
            TimerOp::Remove(time, k, g) => {
                let removed = table.remove(EventTime(*time), &timer_key(*k), &tag(*g)).unwrap();
                assert_eq!(removed, model.remove(&(*time, timer_key(*k), tag(*g))));
            }
            TimerOp::Discard(time, k, g) => {
                if model.remove(&(*time, timer_key(*k), tag(*g))).is_some() {
                    table.discard(EventTime(*time), &timer_key(*k), &tag(*g));
                }
            }
            TimerOp::Pop(watermark) => {
                let due: TimerModel = model.extract_if(.., |(time, ..), _| time <= watermark).collect();
                let mut popped = Vec::new();
                while let Some(next) = table.pop_due(EventTime(*watermark)).unwrap() {
                    popped.push(((next.time.0, next.key, next.tag), next.value));
                }
                assert_eq!(popped, due.into_iter().collect::<Vec<_>>());
            }
        }
    }

    fn read(table: &mut Self::Table) -> TimerModel {
        let mut out = TimerModel::new();
        let see = |time: EventTime, key: &[u8], tag: &[u8], value: &u16| {
            let name = (time.0, key.to_vec(), tag.to_vec());
            assert!(out.last_key_value().is_none_or(|(last, _)| *last < name), "in order, each once");
            out.insert(name, *value);
        };
        table.for_each(see).unwrap();
        out
    }

    fn merge(mut a: TimerModel, b: TimerModel) -> TimerModel {
        a.extend(b);
        a
    }
}

// --- seen

struct Ids;

#[derive(Debug, Clone)]
enum SeenOp {
    /// Rows of one batch: id and time.
    See(Vec<(u8, i64)>),
    Expire(i64),
}

fn seen_op() -> impl Strategy<Value = SeenOp> {
    prop_oneof![
        4 => proptest::collection::vec((0u8..12, -40i64..160), 1..6).prop_map(SeenOp::See),
        1 => (-40i64..160).prop_map(SeenOp::Expire),
    ]
}

const SEEN_TTL: i64 = 64;

#[derive(Debug, Clone)]
struct SeenModel {
    ids: BTreeMap<u8, i64>,
    watermark: i64,
}

impl Default for SeenModel {
    fn default() -> Self {
        SeenModel { ids: BTreeMap::new(), watermark: i64::MIN }
    }
}

impl PartialEq for SeenModel {
    fn eq(&self, other: &Self) -> bool {
        self.ids == other.ids
    }
}

impl Subject for Ids {
    type Op = SeenOp;
    type Model = SeenModel;
    type Table = SeenTable;

    fn make() -> SeenTable {
        SeenTable::new("ids", SEEN_TTL)
    }

    fn apply(table: &mut SeenTable, model: &mut SeenModel, op: &SeenOp) {
        match op {
            SeenOp::See(rows) => {
                let ids = keys(rows.iter().map(|row| row.0));
                table.resolve(&ids).unwrap();
                for (row, (id, time)) in rows.iter().enumerate() {
                    let remembered = model.ids.get(id).copied();
                    assert_eq!(table.get(&ids, row).map(|t| t.0), remembered);
                    if remembered.is_none_or(|first| *time >= first + SEEN_TTL) {
                        table.insert(&ids, row, EventTime(*time));
                        if time + SEEN_TTL > model.watermark {
                            model.ids.insert(*id, *time);
                        }
                    }
                }
            }
            SeenOp::Expire(watermark) => {
                model.watermark = model.watermark.max(*watermark);
                let watermark = model.watermark;
                model.ids.retain(|_, time| *time + SEEN_TTL > watermark);
                table.expire(EventTime(watermark));
            }
        }
    }

    fn read(table: &mut SeenTable) -> SeenModel {
        let all: Vec<u8> = (0..12).collect();
        let ids = keys(all.iter().copied());
        table.resolve(&ids).unwrap();
        let found = all.iter().filter_map(|&id| Some((id, table.get(&ids, id as usize)?.0)));
        SeenModel { ids: found.collect(), ..SeenModel::default() }
    }

    fn merge(mut a: SeenModel, b: SeenModel) -> SeenModel {
        a.ids.extend(b.ids);
        a
    }
}

// --- map

struct Maps;

#[derive(Debug, Clone)]
enum MapOp {
    Insert(u8, u8, u16),
    Remove(u8, u8),
    Look(Vec<u8>),
}

fn map_op() -> impl Strategy<Value = MapOp> {
    prop_oneof![
        4 => (0u8..4, 0u8..4, any::<u16>()).prop_map(|(k, e, v)| MapOp::Insert(k, e, v)),
        2 => (0u8..4, 0u8..4).prop_map(|(k, e)| MapOp::Remove(k, e)),
        1 => proptest::collection::vec(0u8..8, 0..3).prop_map(MapOp::Look),
    ]
}

impl Subject for Maps {
    type Op = MapOp;
    type Model = BTreeMap<(u8, Vec<u8>), String>;
    type Table = MapTable<String>;

    fn make() -> Self::Table {
        MapTable::new("m")
    }

    fn apply(table: &mut Self::Table, model: &mut Self::Model, op: &MapOp) {
        let mut slots = Vec::new();
        let name = |e: u8| vec![e; usize::from(e)];
        match op {
            MapOp::Insert(k, e, v) => {
                table.resolve(&keys([*k].into_iter()), &mut slots).unwrap();
                let old = model.insert((*k, name(*e)), v.to_string());
                assert_eq!(table.get(slots[0], &name(*e)), old.as_ref());
                assert_eq!(table.insert(slots[0], &name(*e), v.to_string()), old);
            }
            MapOp::Remove(k, e) => {
                table.resolve(&keys([*k].into_iter()), &mut slots).unwrap();
                assert_eq!(table.remove(slots[0], &name(*e)), model.remove(&(*k, name(*e))));
            }
            MapOp::Look(names) => table.resolve(&keys(names.iter().copied()), &mut slots).unwrap(),
        }
    }

    fn read(table: &mut Self::Table) -> Self::Model {
        let mut out = BTreeMap::new();
        for name in 0..8 {
            let key = bytes(name);
            if let Some(slot) = table.find(&key, XxHash3_64::oneshot(&key)).unwrap() {
                let entries: Vec<_> = table.entries(slot).map(|(entry, value)| (entry.to_vec(), value.clone())).collect();
                assert!(entries.is_sorted());
                out.extend(entries.into_iter().map(|(entry, value)| ((name, entry), value)));
            }
        }
        assert_eq!(table.len(), out.len());
        out
    }

    fn merge(mut a: Self::Model, b: Self::Model) -> Self::Model {
        a.extend(b);
        a
    }
}

// --- append

struct Rows;

#[derive(Debug, Clone)]
enum RowOp {
    /// Side, key, time, row; not before the floor.
    Append(usize, u8, i64, Vec<u8>),
    /// Rows up to a time have their turn: those of side 0 are kept, those of side 1 released.
    Turn(i64),
    /// Kept rows of a side up to a time are over.
    Over(usize, i64),
    /// The first kept row of a side and key is marked.
    Mark(usize, u8, u8),
    Look(Vec<u8>),
}

fn row_op() -> impl Strategy<Value = RowOp> {
    let row = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        8 => (0usize..2, 0u8..4, 0i64..30, row).prop_map(|(s, k, t, row)| RowOp::Append(s, k, t, row)),
        3 => (0i64..30).prop_map(RowOp::Turn),
        2 => (0usize..2, 0i64..30).prop_map(|(s, t)| RowOp::Over(s, t)),
        2 => (0usize..2, 0u8..4, 0u8..3).prop_map(|(s, k, m)| RowOp::Mark(s, k, m)),
        1 => proptest::collection::vec(0u8..6, 0..3).prop_map(RowOp::Look),
    ]
}

/// Time, row and mark.
type ModelRow = (i64, Vec<u8>, u8);

/// By side and key, by time and arrival. Rows up to `turn` are kept, the others wait.
#[derive(Debug, Clone)]
struct RowModel {
    rows: BTreeMap<(usize, u8), Vec<ModelRow>>,
    turn: i64,
}

impl Default for RowModel {
    fn default() -> Self {
        RowModel { rows: BTreeMap::new(), turn: i64::MIN }
    }
}

impl PartialEq for RowModel {
    fn eq(&self, other: &Self) -> bool {
        self.rows.iter().filter(|r| !r.1.is_empty()).eq(other.rows.iter().filter(|r| !r.1.is_empty()))
    }
}

fn key_of(table: &AppendTable, slot: u32) -> u8 {
    let name = table.index().key_bytes(slot, &mut [0; 8]).to_vec();
    (0..8).find(|k| bytes(*k) == name).unwrap()
}

impl Subject for Rows {
    type Op = RowOp;
    type Model = RowModel;
    type Table = AppendTable;

    fn make() -> AppendTable {
        AppendTable::new("a", 2, "bytes")
    }

    fn apply(table: &mut AppendTable, model: &mut RowModel, op: &RowOp) {
        // As an operator does after a restore; else there is nothing to keep.
        table.keep_until(EventTime(model.turn), |_, _, _| true);
        let mut slots = Vec::new();
        match op {
            RowOp::Append(side, k, time, row) => {
                table.resolve(&keys([*k].into_iter()), &mut slots);
                if *time > model.turn {
                    table.append(*side, slots[0], EventTime(*time), row);
                    let rows = model.rows.entry((*side, *k)).or_default();
                    rows.push((*time, row.clone(), 0));
                    rows.sort_by_key(|row| row.0);
                }
            }
            RowOp::Turn(until) => {
                let (mut due, mut got, mut expect) = (Vec::new(), Vec::new(), Vec::new());
                while let Some(time) = table.take_due(EventTime(*until), &mut due) {
                    for w in due.clone() {
                        let row = table.bytes_of(w.row).unwrap().into_owned();
                        got.push((time.0, key_of(table, w.slot), table.side(w.row), row.clone()));
                        if table.side(w.row) == 0 { table.keep(w.row) } else { table.release(w.row).unwrap() }
                    }
                }
                let turn = model.turn;
                for ((side, k), rows) in &mut model.rows {
                    let due = rows.iter().filter(|row| row.0 > turn && row.0 <= *until);
                    expect.extend(due.map(|row| (row.0, *k, *side, row.1.clone())));
                    rows.retain(|row| row.0 <= turn || row.0 > *until || *side == 0);
                }
                expect.sort_by_key(|e| (e.0, e.1, e.2));
                assert_eq!(got, expect);
                model.turn = turn.max(*until);
                table.set_floor(1, EventTime(model.turn).plus_ms(1));
            }
            RowOp::Over(side, until) => {
                let mut last = i64::MIN;
                while let Some(row) = table.take_over(*side, EventTime(*until)) {
                    assert!(table.time(row).0 >= last && table.time(row).0 <= *until);
                    last = table.time(row).0;
                    table.release(row).unwrap();
                }
                let until = model.turn.min(*until);
                model.rows.iter_mut().filter(|((s, _), _)| s == side).for_each(|(_, rows)| rows.retain(|row| row.0 > until));
                table.set_floor(*side, EventTime(until).plus_ms(1));
            }
            RowOp::Mark(side, k, mark) => {
                table.resolve(&keys([*k].into_iter()), &mut slots);
                let kept = model.rows.get_mut(&(*side, *k)).and_then(|rows| rows.iter_mut().find(|row| row.0 <= model.turn));
                assert_eq!(table.first(*side, slots[0]).is_some(), kept.is_some());
                if let (Some(row), Some(kept)) = (table.first(*side, slots[0]), kept) {
                    table.set_mark(row, *mark).unwrap();
                    kept.2 = *mark;
                }
            }
            RowOp::Look(names) => table.resolve(&keys(names.iter().copied()), &mut slots),
        }
    }

    /// Kept rows first: they are the older ones.
    fn read(table: &mut AppendTable) -> RowModel {
        let mut rows: BTreeMap<(usize, u8), Vec<_>> = BTreeMap::new();
        let listed = |row| (table.time(row).0, table.bytes_of(row).unwrap().into_owned(), table.mark(row));
        for name in 0..8 {
            let key = bytes(name);
            let Some(slot) = table.index().find(&key, XxHash3_64::oneshot(&key)) else { continue };
            for side in 0..2 {
                let kept = std::iter::successors(table.first(side, slot), |&row| table.after(row));
                rows.entry((side, name)).or_default().extend(kept.map(listed));
            }
        }
        let mut waiting = Vec::new();
        table.waiting_within(EventTime::MIN, EventTime::MAX, &mut waiting);
        for w in waiting {
            rows.entry((table.side(w.row), key_of(table, w.slot))).or_default().push(listed(w.row));
        }
        assert_eq!(table.len(), rows.values().map(Vec::len).sum::<usize>());
        RowModel { rows, turn: i64::MIN }
    }

    fn merge(mut a: RowModel, b: RowModel) -> RowModel {
        for (name, rows) in b.rows {
            a.rows.entry(name).or_default().extend(rows);
        }
        a
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn point_table_is_a_map(script in steps(point_op())) {
        run::<Point>(&script);
    }

    #[test]
    fn time_to_live_is_exact(script in steps(expiring_op())) {
        run::<Expiring>(&script);
    }

    #[test]
    fn ordered_table_is_a_sorted_map(script in steps(timer_op())) {
        run::<Timers>(&script);
    }

    #[test]
    fn seen_table_is_a_map_that_forgets(script in steps(seen_op())) {
        run::<Ids>(&script);
    }

    #[test]
    fn map_table_is_a_map_of_maps(script in steps(map_op())) {
        run::<Maps>(&script);
    }

    #[test]
    fn append_table_is_a_list_by_time_of_each_side_and_key(script in steps(row_op())) {
        run::<Rows>(&script);
    }
}

/// Another time to live cuts time into other buckets: what was seen is put into those.
#[test]
fn a_changed_time_to_live_keeps_what_was_seen() {
    let store = Arc::new(MemoryStore::default());
    let ids = keys(0..12);
    let times = |id: usize| EventTime(100 + 7 * id as i64);
    for (round, ttl) in [64, 640, 64].into_iter().enumerate() {
        let mut table = SeenTable::new("ids", ttl);
        super::open(&mut table, &store, 0..GROUPS, round > 0, false);
        table.resolve(&ids).unwrap();
        for row in 0..12 {
            assert_eq!(table.get(&ids, row), (round > 0).then(|| times(row)));
            if round == 0 {
                table.insert(&ids, row, times(row));
            }
        }
        table.freeze(1);
        let mut batch = WriteBatch::default();
        while !table.drain(&mut batch, 3).unwrap() {}
        store.write(&batch).unwrap();
        table.drained(1);
    }
}

#[test]
fn a_tiny_budget_keeps_everything_reachable() {
    let mut table = PointTable::<String>::new("p");
    let store = Arc::new(MemoryStore::default());
    super::open(&mut table, &store, 0..GROUPS, false, false);
    let mut slots = Vec::new();
    for round in 0..3u64 {
        for start in (0..10_000u64).step_by(100) {
            table.resolve(&Keys::encode((0..100u32).map(|i| start + u64::from(i))), &mut slots).unwrap();
            for (&slot, key) in slots.iter().zip(start..) {
                let expected = (round > 0).then(|| format!("{key} in round {}", round - 1));
                assert_eq!(table.insert(slot, format!("{key} in round {round}")), expected);
            }
            if table.bytes() > 64 << 10 {
                table.evict(table.bytes() - (32 << 10)).unwrap();
                assert!(table.bytes() <= 33 << 10, "{} bytes are left", table.bytes());
            }
        }
    }
    assert!(table.index().len() < 1_000, "most keys are on disk only");
}

/// Rows that have no room in memory are on disk, drained or not; what is known of them stays. So it is after a restore.
#[test]
fn rows_leave_memory_and_come_back() {
    let store = Arc::new(MemoryStore::default());
    let mut table = AppendTable::new("a", 1, "bytes");
    super::open(&mut table, &store, 0..GROUPS, false, false);
    let mut slots = Vec::new();
    for n in 0..1000u32 {
        table.resolve(&keys([(n % 8) as u8].into_iter()), &mut slots);
        table.append(0, slots[0], EventTime(n.into()), &[n as u8; 100]);
    }
    assert!(table.bytes() - table.pinned_bytes() >= 100_000);
    table.evict(usize::MAX).unwrap();
    assert_eq!(table.bytes(), table.pinned_bytes(), "no row's bytes are left");
    table.freeze(1);
    let mut batch = WriteBatch::default();
    while !table.drain(&mut batch, 3).unwrap() {}
    store.write(&batch).unwrap();

    let mut table = AppendTable::new("a", 1, "bytes");
    super::open(&mut table, &store, 0..GROUPS, true, false);
    assert!(table.bytes() - table.pinned_bytes() < 1000, "a restore leaves most of them on disk");
    let mut due = Vec::new();
    for n in 0..1000u32 {
        let time = table.take_due(EventTime(i64::MAX), &mut due).unwrap();
        assert_eq!((time, &table.bytes_of(due[0].row).unwrap()[..]), (EventTime(n.into()), &[n as u8; 100][..]));
        table.release(due[0].row).unwrap();
    }
    assert!(table.is_empty());
}
