//! Parquet files as splits: the position is the number of a row.
//!
//! A task reads its files in turn, a batch of each, as long as there are few; of many it has some open at a time. The footer of
//! a file says which one it is: the checkpoint keeps that, and it is looked at again when the file has been read, and before a
//! checkpoint counts that was made in the middle of it. A file that has been read may go, and is forgotten.
//!
//! Invariant: each row is read once, from the file that was there when its split was found.

use super::super::listing::{Listing, gone, no_file};
use super::file::{File, Pieces, rows_of, unread_codec};
use super::fit::{Fit, Misfit, Naming, leaves};
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use arrow::array::RecordBatchReader;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Poll, ReaderContext, Source, SourceReader, Split, SplitId, SplitState};
use waterwheel_engine::record::{ChangeBatch, FileRows};
use waterwheel_engine::time::EventTime;

/// Files that a task has open at a time.
const OPEN_FILES: usize = 16;
/// The time of rows of which nobody has said one.
const NO_TIME: EventTime = EventTime(-1);

/// Reads some columns of files as [`FileRows`]: those of a table, by name, widened where that is exact.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use waterwheel_connectors::files::parquet::ParquetSource;
/// use waterwheel_engine::{env::Env, operators::Source};
/// let dir = tempfile::tempdir().unwrap();
/// let columns = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
/// let source = ParquetSource::new(Env::real(), dir.path().join("*.parquet"), columns);
/// assert!(source.is_bounded());
/// assert!(source.splits(true).is_err(), "no file fits");
/// ```
#[derive(Clone)]
pub struct ParquetSource {
    listing: Listing,
    wanted: SchemaRef,
    made: SchemaRef,
    naming: Naming,
    follow: Option<u64>,
    as_table: bool,
    shared: Arc<Mutex<Shared>>,
}

/// What the description and its readers know together.
#[derive(Default)]
struct Shared {
    /// Files whose footers have been looked at, with their lengths then.
    known: BTreeMap<String, (u64, i64, String)>,
    /// Files being read.
    read: BTreeMap<String, File>,
    /// Files that have no footer yet, and were said to have none.
    unfinished: Vec<String>,
}

impl ParquetSource {
    /// One file, all files of a folder, or those whose name fits a pattern; these columns of them. A column that may not be NULL
    /// must be in each file, and what to do with a row in which it is NULL is up to who takes the rows.
    pub fn new(env: Env, path: impl AsRef<Path>, columns: SchemaRef) -> Self {
        let open: Vec<Field> = columns.fields().iter().map(|field| Field::clone(field).with_nullable(true)).collect();
        ParquetSource {
            listing: Listing::new(env, path.as_ref()),
            made: Arc::new(Schema::new(open)),
            wanted: columns,
            naming: |kind: &DataType| kind.to_string(),
            follow: None,
            as_table: false,
            shared: Arc::default(),
        }
    }

    /// Files are in folders named after values, as [`folders`](waterwheel_engine::record::folders) makes them.
    #[must_use]
    pub fn in_folders(mut self, columns: Vec<String>) -> Self {
        self.listing.in_folders(columns);
        self
    }

    /// How types are called in messages; as Arrow has them unless said.
    #[must_use]
    pub fn naming(mut self, naming: fn(&DataType) -> String) -> Self {
        self.naming = naming;
        self
    }

    /// Waits for new files instead of ending, and looks for them every so many milliseconds. A file that has no footer yet is one
    /// that is still being written.
    #[must_use]
    pub fn follow_every(mut self, ms: u64) -> Self {
        self.follow = Some(ms.max(1));
        self
    }

    /// Read as far as the files are now before the rows that are joined with them.
    #[must_use]
    pub fn table(mut self) -> Self {
        self.as_table = true;
        self.shared = Arc::default();
        self
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.listing.folder.join(name)
    }

    /// A file that can be read into the table.
    fn open(&self, name: &str) -> Result<Option<File>> {
        let Some(file) = File::open(&self.listing.env, &self.path(name))? else { return Ok(None) };
        let fields = file.metadata.schema().fields();
        let place = |misfit: Misfit| Error::fatal(misfit.why).at(file.pieces.path().display().to_string()).help(misfit.help);
        Fit::of(fields, self.wanted.fields(), &self.made, self.naming).map_err(place)?;
        let read = leaves(fields, self.wanted.fields());
        let groups = file.metadata.metadata().row_groups();
        let unread = |&leaf: &usize| groups.iter().find_map(|group| unread_codec(group.columns().get(leaf)?.compression()));
        if let Some(codec) = read.iter().find_map(unread) {
            return Err(Error::fatal(format!("the file is compressed by {codec}, which is not read"))
                .at(file.pieces.path().display().to_string())
                .help("write it with SNAPPY, ZSTD or without compression"));
        }
        Ok(Some(file))
    }

    /// Rows and identity of a file, from its footer unless known; nothing where it is still being written.
    fn look(&self, name: &str) -> Result<Option<(i64, String)>> {
        let path = self.path(name);
        let len = match self.listing.env.files.len(&path) {
            // Taken away since the folder was looked at.
            Err(e) if e.kind() == ErrorKind::NotFound && self.follow.is_some() => return Ok(None),
            len => len.map_err(|e| Error::from(e).at(path.display().to_string()))?,
        };
        if let Some((_, rows, identity)) = self.shared().known.get(name).filter(|known| known.0 == len) {
            return Ok(Some((*rows, identity.clone())));
        }
        let Some(file) = self.open(name)? else {
            return if self.follow.is_some() { self.wait_for(name) } else { Err(no_footer(&path)) };
        };
        let (rows, identity) = (file.identity.rows, file.identity.to_string());
        self.shared().known.insert(name.to_string(), (len, rows, identity.clone()));
        Ok(Some((rows, identity)))
    }

    /// Says once that a file is not whole yet.
    fn wait_for(&self, name: &str) -> Result<Option<(i64, String)>> {
        let mut shared = self.shared();
        if !shared.unfinished.iter().any(|said| said == name) {
            tracing::warn!("{} is not read before it has the footer of a Parquet file", self.path(name).display());
            shared.unfinished.push(name.to_string());
        }
        Ok(None)
    }
}

fn no_footer(path: &Path) -> Error {
    Error::fatal("the file cannot be read as Parquet: it does not end with a footer")
        .at(path.display().to_string())
        .help("put a whole file in its place, or take it away")
}

fn changed(path: &Path) -> Error {
    Error::fatal("the file is not the one that was being read: its footer is another, or it has gone")
        .at(path.display().to_string())
        .help("put the old file back; new content goes into new files")
}

impl Source for ParquetSource {
    fn describe(&self) -> String {
        format!("rows of Parquet files {}", self.listing.describe())
    }

    fn is_bounded(&self) -> bool {
        self.follow.is_none()
    }

    fn splits(&self, first: bool) -> Result<Vec<Split>> {
        let names = self.listing.files()?;
        if first && names.is_empty() && self.follow.is_none() {
            return Err(no_file(&self.describe()));
        }
        let there: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let mut shared = self.shared();
        shared.known.retain(|name, _| there.contains(name.as_str()));
        shared.unfinished.retain(|name| there.contains(name.as_str()));
        drop(shared);
        let mut splits = Vec::with_capacity(names.len());
        for name in names {
            let Some((rows, identity)) = self.look(&name)? else { continue };
            splits.push(Split {
                id: SplitId { name: name.as_str().into(), partition: 0 },
                start: 0,
                end: Some(rows),
                bootstrap_end: self.as_table.then_some(rows),
                topic_id: Some(identity),
            });
        }
        Ok(splits)
    }

    /// Files that are being read are still the same.
    fn confirm(&self) -> Result<()> {
        let read: Vec<File> = self.shared().read.values().cloned().collect();
        read.iter().try_for_each(|file| if file.is_still()? { Ok(()) } else { Err(changed(file.pieces.path())) })
    }

    fn gone(&self, missing: &[SplitId]) -> Result<BTreeSet<SplitId>> {
        self.listing.gone(missing)
    }

    fn discovery_ms(&self) -> Option<u64> {
        self.follow
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Reader { source: self.clone(), batch_rows: context.batch_rows, tracks: Vec::new(), turn: 0 }))
    }
}

struct Reader {
    source: ParquetSource,
    batch_rows: usize,
    tracks: Vec<Track>,
    turn: usize,
}

struct Track {
    id: SplitId,
    identity: String,
    position: i64,
    end: i64,
    held: bool,
    ended: bool,
    open: Option<Open>,
}

/// A file in the middle of being read.
struct Open {
    reader: ParquetRecordBatchReader,
    fit: Fit,
    pieces: Pieces,
}

impl Track {
    fn of(state: &SplitState) -> Result<Track> {
        let identity = state.split.topic_id.clone().unwrap_or_default();
        let rows = rows_of(&identity).ok_or_else(|| Error::fatal(format!("{} was no Parquet file before", state.split.id.name)))?;
        let end = state.split.end.map_or(rows, |end| end.min(rows));
        Ok(Track { id: state.split.id.clone(), identity, position: state.position, end, held: false, ended: state.ended, open: None })
    }
}

impl Reader {
    /// The next rows of a file.
    fn read(&mut self, at: usize) -> Result<Poll> {
        if self.tracks[at].open.is_none() {
            self.open(at)?;
        }
        let track = &mut self.tracks[at];
        let Some(open) = &mut track.open else { return Ok(Poll::Empty) };
        let Open { reader, fit, pieces } = open;
        let read = pieces.guard(|| reader.next().transpose())?;
        let Some(read) = read else {
            return Err(pieces.damaged(format!("it ends at row {}, and says that it has {}", track.position, track.end)));
        };
        let first = track.position;
        let misfit =
            |why| Error::fatal(why).at(format!("{}, rows {first} to {}", pieces.path().display(), first + read.num_rows() as i64 - 1));
        let rows = fit.apply(&read).map_err(misfit)?;
        let count = rows.num_rows();
        track.position += count as i64;
        if count == 0 || track.position > track.end {
            return Err(pieces.damaged(format!("it has another number of rows than {}, which it says", track.end)));
        }
        let rows = ChangeBatch::inserts(rows, vec![NO_TIME; count]);
        let batch = FileRows { path: track.id.name.clone(), first, rows };
        Ok(Poll::Batch { split: track.id.clone(), batch: Box::new(batch), next: track.position })
    }

    fn open(&mut self, at: usize) -> Result<()> {
        let (track, source) = (&self.tracks[at], &self.source);
        let path = source.path(&track.id.name);
        if !source.listing.is_there(&track.id.name)? {
            return Err(gone(&track.id.name, format!("row {}", track.position)));
        }
        let file = source.open(&track.id.name)?.ok_or_else(|| no_footer(&path))?;
        if file.identity.to_string() != track.identity {
            return Err(changed(&path));
        }
        let position = usize::try_from(track.position).map_err(|_| Error::fatal("a position before the first row"))?;
        let reader = file.pieces.guard(|| start(&file, source, position, self.batch_rows))?;
        let misfit = |misfit: Misfit| file.pieces.damaged(misfit.why);
        let fit = Fit::of(reader.schema().fields(), source.wanted.fields(), &source.made, source.naming).map_err(misfit)?;
        let pieces = file.pieces.clone();
        source.shared().read.insert(track.id.name.to_string(), file);
        self.tracks[at].open = Some(Open { reader, fit, pieces });
        Ok(())
    }

    /// A file has been read: it was the same to its end.
    fn close(&mut self, at: usize) -> Result<()> {
        let track = &mut self.tracks[at];
        track.ended = true;
        track.open = None;
        match self.source.shared().read.remove(&*track.id.name) {
            Some(file) if !file.is_still()? => Err(changed(file.pieces.path())),
            _ => Ok(()),
        }
    }

    /// Whether there is room for another file: one that is held back makes some.
    fn has_room(&mut self) -> bool {
        if self.tracks.iter().filter(|t| t.open.is_some()).count() < OPEN_FILES {
            return true;
        }
        match self.tracks.iter_mut().find(|t| t.held && t.open.is_some()) {
            Some(held) => {
                held.open = None;
                true
            }
            None => false,
        }
    }
}

/// Goes on at a row; row groups before it are not looked at.
fn start(
    file: &File,
    source: &ParquetSource,
    position: usize,
    batch_rows: usize,
) -> std::result::Result<ParquetRecordBatchReader, ::parquet::errors::ParquetError> {
    let groups = file.metadata.metadata().row_groups();
    let (mut before, mut first) = (0, 0);
    while let Some(group) = groups.get(first).filter(|group| before + group.num_rows() as usize <= position) {
        before += group.num_rows() as usize;
        first += 1;
    }
    let read = leaves(file.metadata.schema().fields(), source.wanted.fields());
    let mask = ProjectionMask::leaves(file.metadata.parquet_schema(), read);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.pieces.clone(), file.metadata.clone())
        .with_projection(mask)
        .with_row_groups((first..groups.len()).collect())
        .with_batch_size(batch_rows);
    // Also an offset of 0 would make it go by selections of rows.
    if position > before { reader.with_offset(position - before).build() } else { reader.build() }
}

impl SourceReader for Reader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        for state in splits {
            self.tracks.push(Track::of(state)?);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Poll> {
        if let Some(at) = self.tracks.iter().position(|t| !t.ended && t.position >= t.end) {
            self.close(at)?;
            return Ok(Poll::Ended { split: self.tracks[at].id.clone() });
        }
        let (n, turn) = (self.tracks.len(), self.turn);
        for at in (0..n).map(|i| (turn + i) % n) {
            if self.tracks[at].held || self.tracks[at].ended || (self.tracks[at].open.is_none() && !self.has_room()) {
                continue;
            }
            let poll = self.read(at)?;
            self.turn = (at + 1) % n;
            return Ok(poll);
        }
        Ok(Poll::Empty)
    }

    fn hold_back(&mut self, split: &SplitId, hold: bool) {
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == *split) {
            track.held = hold;
        }
    }

    fn forget(&mut self, gone: &BTreeSet<SplitId>) {
        self.tracks.retain(|t| !gone.contains(&t.id));
    }
}
