//! Lines of files: each file of a folder (or each that fits a pattern) is a split, the position is a byte.
//!
//! Invariant: every line is read once, whole, without its line break; empty lines are left out. A line that is still being
//! written (no line break yet) waits when the source follows, and is the last line when it does not. A file of which all lines have
//! been read may go, and is forgotten; one that goes before is an error.

use super::listing::{Listing, gone, no_file};
use crate::formats::Csv;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Poll, ReaderContext, Source, SourceReader, Split, SplitId, SplitState};
use waterwheel_engine::record::{Batch, RawBatch};

/// How often to look for new files, in milliseconds.
const LOOK_MS: u64 = 1_000;
const READ_BYTES: usize = 256 << 10;
/// A longer line stops the job: no format here takes it.
const LINE_BYTES: usize = 64 << 20;

/// Reads lines as records ([`RawBatch`]): value = line, topic = file name, offset = byte.
///
/// ```
/// use waterwheel_connectors::files::FilesSource;
/// use waterwheel_engine::{env::Env, operators::Source};
/// let dir = tempfile::tempdir().unwrap();
/// let source = FilesSource::new(Env::real(), dir.path().join("*.jsonl"));
/// assert!(source.is_bounded());
/// assert!(source.splits(true).is_err(), "no file fits");
/// ```
#[derive(Clone)]
pub struct FilesSource {
    listing: Listing,
    follow: Option<u64>,
    header: bool,
    as_table: bool,
}

impl FilesSource {
    /// One file, all files of a folder, or those whose name fits a pattern (`folder/*.jsonl`). Names that begin with a dot or
    /// an underscore are left out of folders and patterns.
    pub fn new(env: Env, path: impl AsRef<Path>) -> Self {
        FilesSource { listing: Listing::new(env, path.as_ref()), follow: None, header: false, as_table: false }
    }

    /// Files are in folders named after values, a level for each of these columns, as
    /// [`folders`](waterwheel_engine::record::folders) makes them; the topic of a record is its file's path below the source's folder.
    #[must_use]
    pub fn in_folders(mut self, columns: Vec<String>) -> Self {
        self.listing.in_folders(columns);
        self
    }

    /// Waits for more lines and new files instead of ending. A file that is taken away is forgotten once it has been read and others are
    /// there, and then its name may come again with a new file; what was added to it since the last look goes with it.
    #[must_use]
    pub fn follow(self) -> Self {
        self.follow_every(LOOK_MS)
    }

    /// The same; looks for new files every so many milliseconds.
    #[must_use]
    pub fn follow_every(mut self, ms: u64) -> Self {
        self.follow = Some(ms.max(1));
        self
    }

    /// Read as far as the files are now before the rows that are joined with them.
    #[must_use]
    pub fn table(mut self) -> Self {
        self.as_table = true;
        self
    }

    /// The first line of each file is a header and no record.
    #[must_use]
    pub fn header(mut self) -> Self {
        self.header = true;
        self
    }

    /// Reads the header of the first file and gives the format for it; all files must have the same header.
    ///
    /// # Errors
    /// No file, no header, or headers that differ.
    pub fn csv(self) -> Result<(Self, Csv)> {
        let names = self.listing.files()?;
        let (name, others) = names.split_first().ok_or_else(|| no_file(&self.describe()))?;
        let first = self.line_at(name, 0)?;
        for other in others {
            if self.line_at(other, 0)? != first {
                return Err(Error::fatal(format!("the headers of {name} and {other} differ")).at(self
                    .listing
                    .folder
                    .display()
                    .to_string()));
            }
        }
        let text = String::from_utf8(first).map_err(|_| Error::fatal(format!("the header of {name} is not UTF-8")))?;
        let csv = Csv::new(&text).map_err(|why| Error::fatal(format!("the header of {name} is no CSV: {why}")))?;
        Ok((self.header(), csv))
    }

    /// The line that begins at a byte, with its line break.
    fn line_at(&self, name: &str, at: u64) -> Result<Vec<u8>> {
        let path = self.listing.folder.join(name);
        let mut want = 4096;
        loop {
            let bytes = self.listing.env.files.read_at(&path, at, want).map_err(|e| Error::from(e).at(path.display().to_string()))?;
            match bytes.iter().position(|&b| b == b'\n') {
                Some(end) => return Ok(bytes[..=end].to_vec()),
                None if bytes.len() < want || want > LINE_BYTES => return Ok(bytes),
                None => want *= 4,
            }
        }
    }
}

impl Source for FilesSource {
    fn describe(&self) -> String {
        format!("lines of {}", self.listing.describe())
    }

    fn is_bounded(&self) -> bool {
        self.follow.is_none()
    }

    fn splits(&self, first: bool) -> Result<Vec<Split>> {
        let names = self.listing.files()?;
        if first && names.is_empty() && self.follow.is_none() {
            return Err(no_file(&self.describe()));
        }
        let mut splits = Vec::with_capacity(names.len());
        for name in names {
            let path = self.listing.folder.join(&name);
            let len = match self.listing.env.files.len(&path) {
                // Taken away since the folder was looked at.
                Err(e) if e.kind() == ErrorKind::NotFound && self.follow.is_some() => continue,
                len => len.map_err(|e| Error::from(e).at(path.display().to_string()))? as i64,
            };
            let start = if self.header { self.line_at(&name, 0)?.len() as i64 } else { 0 };
            let id = SplitId { name: name.as_str().into(), partition: 0 };
            splits.push(Split {
                id,
                start,
                end: self.follow.is_none().then_some(len),
                bootstrap_end: self.as_table.then_some(len),
                topic_id: None,
            });
        }
        Ok(splits)
    }

    fn gone(&self, missing: &[SplitId]) -> Result<BTreeSet<SplitId>> {
        self.listing.gone(missing)
    }

    fn discovery_ms(&self) -> Option<u64> {
        self.follow
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Reader { source: self.clone(), context, tracks: Vec::new(), turn: 0 }))
    }
}

struct Reader {
    source: FilesSource,
    context: ReaderContext,
    tracks: Vec<Track>,
    turn: usize,
}

struct Track {
    id: SplitId,
    position: u64,
    end: Option<u64>,
    held: bool,
    ended: bool,
    /// At the last look there was nothing behind the position.
    all_read: bool,
}

impl Reader {
    /// Bytes from the position on and how many of them are whole lines; `None` when there is no whole line.
    fn lines(&mut self, at: usize) -> Result<Option<(Vec<u8>, usize)>> {
        let path = self.source.listing.folder.join(&*self.tracks[at].id.name);
        let mut want = READ_BYTES;
        loop {
            let track = &self.tracks[at];
            let room = track.end.map_or(want as u64, |end| end.saturating_sub(track.position)).min(want as u64) as usize;
            let bytes = self.source.listing.env.files.read_at(&path, track.position, room);
            let bytes = match bytes {
                Err(e) if e.kind() == ErrorKind::NotFound && track.all_read => return Ok(None),
                Err(e) if e.kind() == ErrorKind::NotFound => return Err(gone(&track.id.name, format!("byte {}", track.position))),
                bytes => bytes.map_err(|e| Error::from(e).at(path.display().to_string()))?,
            };
            if bytes.len() < room {
                self.refuse_shrunk(at)?;
            }
            self.tracks[at].all_read = bytes.is_empty();
            let track = &self.tracks[at];
            let last = track.end.is_some_and(|end| track.position + bytes.len() as u64 >= end);
            match bytes.iter().rposition(|&b| b == b'\n') {
                _ if last => {
                    let all = bytes.len();
                    return Ok(Some((bytes, all)));
                }
                Some(end) => return Ok(Some((bytes, end + 1))),
                None if bytes.len() < want => return Ok(None),
                None if want > LINE_BYTES => return Err(self.too_long(at)),
                None => want *= 4,
            }
        }
    }

    /// The next lines of a split as a batch.
    fn read(&mut self, at: usize) -> Result<Option<Poll>> {
        let Some((bytes, whole)) = self.lines(at)? else { return Ok(None) };
        let track = &mut self.tracks[at];
        let mut batch = RawBatch::with_capacity(whole / 64, whole);
        let mut position = track.position;
        for line in bytes[..whole].split_inclusive(|&b| b == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if !text.is_empty() {
                batch.push_parts(&track.id.name, 0, position as i64, -1, None, Some(text), &[]);
            }
            position += line.len() as u64;
            if batch.len() >= self.context.batch_rows {
                break;
            }
        }
        track.position = position;
        Ok(Some(Poll::Batch { split: track.id.clone(), batch: Box::new(batch), next: position as i64 }))
    }

    fn refuse_shrunk(&self, at: usize) -> Result<()> {
        let track = &self.tracks[at];
        let len = match self.source.listing.env.files.len(&self.source.listing.folder.join(&*track.id.name)) {
            // It was there a moment ago; the next look says what that means.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            len => len?,
        };
        if len >= track.end.unwrap_or(track.position) {
            return Ok(());
        }
        Err(Error::fatal(format!("file {} became shorter: {len} bytes", track.id.name))
            .at(format!("byte {}", track.position))
            .help("files being read may only grow; put new content into new files"))
    }

    fn too_long(&self, at: usize) -> Error {
        let track = &self.tracks[at];
        Error::fatal(format!("a line of {} is longer than {LINE_BYTES} bytes", track.id.name)).at(format!("byte {}", track.position))
    }
}

impl SourceReader for Reader {
    fn assign(&mut self, splits: &[SplitState]) -> Result<()> {
        self.tracks.extend(splits.iter().map(|state| Track {
            id: state.split.id.clone(),
            position: u64::try_from(state.position).unwrap_or(0),
            end: state.split.end.and_then(|e| u64::try_from(e).ok()),
            held: false,
            ended: state.ended,
            all_read: state.all_read,
        }));
        Ok(())
    }

    fn poll(&mut self) -> Result<Poll> {
        if let Some(track) = self.tracks.iter_mut().find(|t| !t.ended && t.end.is_some_and(|end| t.position >= end)) {
            track.ended = true;
            return Ok(Poll::Ended { split: track.id.clone() });
        }
        let (n, turn) = (self.tracks.len(), self.turn);
        for at in (0..n).map(|i| (turn + i) % n) {
            if self.tracks[at].held || self.tracks[at].ended {
                continue;
            }
            if let Some(poll) = self.read(at)? {
                self.turn = (at + 1) % n;
                return Ok(poll);
            }
        }
        Ok(Poll::Empty)
    }

    fn hold_back(&mut self, split: &SplitId, hold: bool) {
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == *split) {
            track.held = hold;
        }
    }

    fn all_read(&self) -> BTreeSet<SplitId> {
        self.tracks.iter().filter(|t| t.all_read && t.end.is_none()).map(|t| t.id.clone()).collect()
    }

    fn forget(&mut self, gone: &BTreeSet<SplitId>) {
        self.tracks.retain(|t| !gone.contains(&t.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{poll_all, reader_context, states};
    use waterwheel_engine::record::downcast;

    fn lines(source: &FilesSource, from: Vec<SplitState>) -> Vec<(String, i64, String)> {
        let batches = poll_all(source, from, &Env::real());
        let rows = batches.into_iter().flat_map(|(_, b)| {
            let batch = downcast::<RawBatch>(b);
            let text = |v: &[u8]| String::from_utf8(v.to_vec()).unwrap();
            batch.records().map(|r| (r.topic.to_string(), r.offset, text(r.value.unwrap()))).collect::<Vec<_>>()
        });
        rows.collect()
    }

    #[test]
    fn lines_of_all_fitting_files_and_a_restart_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        for (name, text) in [("a.jsonl", "1\n\n22\r\n333"), ("b.jsonl", "4\n"), ("c.txt", "5\n"), (".d.jsonl", "6\n")] {
            env.files.replace(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        let source = FilesSource::new(env, dir.path().join("*.jsonl"));
        let all = lines(&source, states(&source));
        let expected = [("a.jsonl", 0, "1"), ("a.jsonl", 3, "22"), ("a.jsonl", 7, "333"), ("b.jsonl", 0, "4")];
        assert_eq!(all.iter().map(|(f, o, l)| (f.as_str(), *o, l.as_str())).collect::<Vec<_>>(), expected);
        let mut middle = states(&source);
        middle[0].position = 3;
        assert_eq!(lines(&source, middle).len(), 3);
    }

    #[test]
    fn lines_longer_than_a_read_come_whole() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let long = "x".repeat(READ_BYTES * 3);
        env.files.replace(&dir.path().join("a"), format!("{long}\nshort\n").as_bytes()).unwrap();
        let source = FilesSource::new(env, dir.path().join("a"));
        let all = lines(&source, states(&source));
        assert_eq!((all[0].2.len(), all[1].2.as_str()), (long.len(), "short"));
    }

    #[test]
    fn a_following_source_waits_for_the_end_of_a_line_and_a_shrunk_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let path = dir.path().join("a");
        env.files.replace(&path, b"one\ntw").unwrap();
        let source = FilesSource::new(env.clone(), &path).follow();
        let mut reader = source.reader(reader_context(&env)).unwrap();
        reader.assign(&states(&source)).unwrap();
        assert!(matches!(reader.poll().unwrap(), Poll::Batch { next: 4, .. }));
        assert!(matches!(reader.poll().unwrap(), Poll::Empty));
        env.files.replace(&path, b"one\ntwo\n").unwrap();
        assert!(matches!(reader.poll().unwrap(), Poll::Batch { next: 8, .. }));
        env.files.replace(&path, b"on").unwrap();
        assert!(reader.poll().is_err());
    }

    #[test]
    fn a_followed_file_may_go_once_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        for (name, text) in [("a", "one\n"), ("b", "two\nhal")] {
            env.files.replace(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        let source = FilesSource::new(env.clone(), dir.path()).follow();
        let mut reader = source.reader(reader_context(&env)).unwrap();
        reader.assign(&states(&source)).unwrap();
        let read = |reader: &mut Box<dyn SourceReader>| {
            std::iter::from_fn(|| match reader.poll().unwrap() {
                Poll::Batch { split, .. } => Some(split.name.to_string()),
                _ => None,
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(read(&mut reader), ["a", "b"]);
        let names = |splits: &BTreeSet<SplitId>| splits.iter().map(|s| s.name.to_string()).collect::<Vec<_>>();
        let all_read = reader.all_read();
        assert_eq!(names(&all_read), ["a"], "of b there is half a line");
        env.files.remove(&dir.path().join("a")).unwrap();
        let missing: Vec<SplitId> = all_read.iter().cloned().collect();
        assert_eq!(source.gone(&missing).unwrap(), all_read);
        assert!(read(&mut reader).is_empty(), "nothing is missing");
        reader.forget(&all_read);
        assert!(reader.all_read().is_empty());
        assert!(read(&mut reader).is_empty());
        env.files.remove(&dir.path().join("b")).unwrap();
        let report = reader.poll().err().unwrap().report();
        assert!(report.contains("file b is gone") && report.contains("byte 4") && report.contains("put it back"), "{report}");
        assert_eq!(source.gone(&missing).unwrap(), BTreeSet::new(), "an empty folder may be a disk that is not mounted");
    }

    #[test]
    fn files_of_folders_are_splits_by_their_path() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        for (folder, text) in [("a=1/b=x%2F", "one\n"), ("a=1/b=y", "two\n"), ("a=2/b=", "three\n")] {
            env.files.create_dir_all(&dir.path().join(folder)).unwrap();
            env.files.replace(&dir.path().join(folder).join("part"), text.as_bytes()).unwrap();
        }
        env.files.replace(&dir.path().join("a=1/b=y/_SUCCESS"), b"").unwrap();
        env.files.create_dir_all(&dir.path().join(".lanes")).unwrap();
        let source = FilesSource::new(env.clone(), dir.path()).in_folders(vec!["a".into(), "b".into()]);
        let all = lines(&source, states(&source));
        let all: Vec<(&str, &str)> = all.iter().map(|(name, _, line)| (name.as_str(), line.as_str())).collect();
        assert_eq!(all, [("a=1/b=x%2F/part", "one"), ("a=1/b=y/part", "two"), ("a=2/b=/part", "three")]);
        env.files.create_dir_all(&dir.path().join("a=2/c=1")).unwrap();
        assert!(source.splits(true).unwrap_err().report().contains("a=2/c=1 is no folder of column b"));
    }

    #[test]
    fn csv_takes_the_header_from_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        env.files.replace(&dir.path().join("a.csv"), b"n,name\n1,x\n").unwrap();
        env.files.replace(&dir.path().join("b.csv"), b"n,name\n2,y\n").unwrap();
        let (source, _) = FilesSource::new(env.clone(), dir.path()).csv().unwrap();
        assert_eq!(lines(&source, states(&source)).iter().map(|r| r.2.as_str()).collect::<Vec<_>>(), ["1,x", "2,y"]);
        env.files.replace(&dir.path().join("c.csv"), b"name,n\n").unwrap();
        assert!(FilesSource::new(env, dir.path()).csv().is_err());
    }
}
