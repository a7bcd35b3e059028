//! Staged segments: an epoch's output for one lane, durable before the checkpoint completes, published after.
//!
//! Format, version 1: `WWSG` | version u16 LE | frames. A frame is length u32 LE | crc32 u32 LE | payload; the payload holds
//! records one after the other: topic, partition, timestamp, key, value, headers (lengths as u32 LE, `u32::MAX` = null).
//!
//! Invariant: a segment is read back only with the length and checksum that its [`SegmentRef`] in the manifest names; what it
//! holds is exactly what was staged, in order, with partition and timestamp fixed, so that publishing again gives equal bytes.

use crate::env::{Bug, Env, FileWriter, Files, planted};
use crate::error::{Error, Result};
use crate::record::{Batch, Epoch, RawBatch, RawRecord};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 4] = b"WWSG";
const VERSION: u16 = 1;
const HEADER: usize = 6;
/// Frames are cut at this many bytes, so that reading back needs little memory.
const FRAME_BYTES: usize = 1 << 20;

/// A sealed segment, as named in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// File name in the job's staging folder.
    pub name: String,
    /// Publish lane.
    pub lane: u32,
    /// Epoch whose output it holds.
    pub epoch: Epoch,
    /// Index of the task that wrote it.
    pub task: u32,
    /// Order within (epoch, task).
    pub sequence: u32,
    /// Bytes.
    pub len: u64,
    /// CRC-32 of the whole file.
    pub crc: u32,
    /// Records in it.
    pub records: u64,
    /// End offset of each output partition when the first record for it was staged: where a scan begins.
    pub noted_ends: Vec<(String, i32, i64)>,
}

/// Writes one segment.
pub struct SegmentWriter {
    file: Box<dyn FileWriter>,
    name: String,
    frame: Vec<u8>,
    len: u64,
    crc: crc32fast::Hasher,
    records: u64,
}

impl SegmentWriter {
    /// Opens a new file `dir/name`.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(env: &Env, dir: &Path, name: String) -> Result<Self> {
        let path = dir.join(&name);
        let file = env.files.create(&path).map_err(|e| Error::from(e).at(format!("segment {}", path.display())))?;
        let mut writer = SegmentWriter { file, name, frame: Vec::new(), len: 0, crc: crc32fast::Hasher::new(), records: 0 };
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        writer.put(&header)?;
        Ok(writer)
    }

    /// Appends a record. Its partition must be chosen (not -1).
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&mut self, record: RawRecord<'_>) -> Result<()> {
        debug_assert!(record.partition >= 0, "the partition is fixed at staging");
        let out = &mut self.frame;
        put_bytes(out, Some(record.topic.as_bytes()));
        out.extend_from_slice(&record.partition.to_le_bytes());
        out.extend_from_slice(&record.timestamp.to_le_bytes());
        put_bytes(out, record.key);
        put_bytes(out, record.value);
        put_bytes(out, Some(record.header_bytes()));
        self.records += 1;
        if self.frame.len() >= FRAME_BYTES { self.cut() } else { Ok(()) }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.len + self.frame.len() as u64
    }

    /// Writes out what is buffered; the sync of [`seal`](Self::seal) then has less to do.
    ///
    /// # Errors
    /// Of the file system.
    pub fn cut(&mut self) -> Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = std::mem::take(&mut self.frame);
        let mut head = (frame.len() as u32).to_le_bytes().to_vec();
        head.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
        self.put(&head)?;
        self.put(&frame)?;
        self.frame = frame;
        self.frame.clear();
        Ok(())
    }

    /// Writes the rest and makes the file durable. Blocks on the disk: call it in the background. The caller makes the
    /// folder's names durable once for all segments of the epoch.
    ///
    /// # Errors
    /// Of the file system; the content is then unknown and the segment must not be used.
    pub fn seal(mut self, lane: u32, epoch: Epoch, task: u32, sequence: u32, noted_ends: Vec<(String, i32, i64)>) -> Result<SegmentRef> {
        if !planted(Bug::ForgetLastFrame) {
            self.cut()?;
        }
        if !planted(Bug::AckBeforeSync) {
            self.file.sync().map_err(|e| Error::from(e).at(format!("segment {}", self.name)))?;
        }
        Ok(SegmentRef {
            name: self.name,
            lane,
            epoch,
            task,
            sequence,
            len: self.len,
            crc: self.crc.finalize(),
            records: self.records,
            noted_ends,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::from(e).at(format!("segment {}", self.name)))?;
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a sealed segment frame by frame.
pub struct SegmentReader {
    files: Arc<dyn Files>,
    path: PathBuf,
    at: u64,
    len: u64,
}

impl SegmentReader {
    /// Opens and verifies the whole file against its reference **before** anything of it is used.
    ///
    /// # Errors
    /// Fatal when it is missing, cut or damaged.
    pub fn open(env: &Env, dir: &Path, segment: &SegmentRef) -> Result<Self> {
        let path = dir.join(&segment.name);
        let damaged = |what: String| {
            Error::fatal(format!("staged segment {}: {what}", segment.name))
                .at(format!("epoch {}, lane {}", segment.epoch, segment.lane))
                .help("restore from an older checkpoint or a savepoint: run --from <path>")
        };
        let len = match env.files.len(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(damaged("is missing".into())),
            len => len.map_err(|e| Error::from(e).at(format!("segment {}", path.display())))?,
        };
        if len != segment.len {
            return Err(damaged(format!("has {len} bytes, the checkpoint says {}", segment.len)));
        }
        let mut crc = crc32fast::Hasher::new();
        let mut at = 0;
        while at < len {
            let bytes = env.files.read_at(&path, at, FRAME_BYTES)?;
            if bytes.is_empty() {
                return Err(damaged("ends early".into()));
            }
            at += bytes.len() as u64;
            crc.update(&bytes);
        }
        if crc.finalize() != segment.crc {
            return Err(damaged("checksum does not hold".into()));
        }
        let header = env.files.read_at(&path, 0, HEADER)?;
        if header.get(..4) != Some(MAGIC) || header.get(4..6) != Some(&VERSION.to_le_bytes()) {
            return Err(damaged("is not a segment of version 1".into()));
        }
        Ok(SegmentReader { files: env.files.clone(), path, at: HEADER as u64, len })
    }

    /// The records of the next frame; `None` at the end.
    ///
    /// # Errors
    /// Of the file system, or a frame that is damaged.
    pub fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        if self.at >= self.len {
            return Ok(None);
        }
        let damaged = || Error::fatal(format!("segment {} is damaged inside", self.path.display()));
        let head = self.files.read_at(&self.path, self.at, 8)?;
        let (len, crc) = match head.split_first_chunk::<4>() {
            Some((len, crc)) => (u32::from_le_bytes(*len), u32::from_le_bytes(crc.try_into().map_err(|_| damaged())?)),
            None => return Err(damaged()),
        };
        let frame = self.files.read_at(&self.path, self.at + 8, len as usize)?;
        if frame.len() != len as usize || crc32fast::hash(&frame) != crc {
            return Err(damaged());
        }
        self.at += 8 + u64::from(len);
        decode_frame(&frame).ok_or_else(damaged).map(Some)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.extend_from_slice(&u32::MAX.to_le_bytes()),
        Some(b) => {
            out.extend_from_slice(&(b.len() as u32).to_le_bytes());
            out.extend_from_slice(b);
        }
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (len, r) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len);
    if len == u32::MAX {
        *rest = r;
        return Some(None);
    }
    let (bytes, r) = r.split_at_checked(len as usize)?;
    *rest = r;
    Some(Some(bytes))
}

fn decode_frame(frame: &[u8]) -> Option<RawBatch> {
    let mut batch = RawBatch::with_capacity(64, frame.len());
    let mut rest = frame;
    let mut topic: Arc<str> = "".into();
    while !rest.is_empty() {
        let name = std::str::from_utf8(take_bytes(&mut rest)??).ok()?;
        if &*topic != name {
            topic = name.into();
        }
        let (partition, r) = rest.split_first_chunk::<4>()?;
        let (timestamp, r) = r.split_first_chunk::<8>()?;
        rest = r;
        let key = take_bytes(&mut rest)?;
        let value = take_bytes(&mut rest)?;
        let headers = take_bytes(&mut rest)??;
        batch.push_parts(&topic, i32::from_le_bytes(*partition), -1, i64::from_le_bytes(*timestamp), key, value, headers);
    }
    (!batch.is_empty()).then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::testing::{DiskFault, SimMachine};

    fn staged(dir: &Path, n: i64) -> SegmentRef {
        staged_in(&Env::real(), dir, n)
    }

    fn staged_in(env: &Env, dir: &Path, n: i64) -> SegmentRef {
        let topic: Arc<str> = "out".into();
        let mut w = SegmentWriter::create(env, dir, "s-1".into()).unwrap();
        for i in 0..n {
            let mut b = RawBatch::default();
            b.push_parts(&topic, 1, -1, i, None, Some(format!("v{i}").as_bytes()), &[]);
            w.write(b.record(0)).unwrap();
        }
        w.seal(0, 7, 2, 0, vec![]).unwrap()
    }

    #[test]
    fn what_was_staged_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let segment = staged(dir.path(), 3);
        assert_eq!(segment.records, 3);
        let mut reader = SegmentReader::open(&Env::real(), dir.path(), &segment).unwrap();
        let batch = reader.next_batch().unwrap().unwrap();
        assert_eq!(batch.record(2).value, Some(&b"v2"[..]));
        assert_eq!(batch.record(2).timestamp, 2);
        assert!(reader.next_batch().unwrap().is_none());
    }

    #[test]
    fn any_flipped_bit_or_cut_is_found_before_use() {
        let dir = tempfile::tempdir().unwrap();
        let segment = staged(dir.path(), 3);
        let env = Env::real();
        let path = dir.path().join("s-1");
        let whole = env.files.read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            env.files.replace(&path, &bad).unwrap();
            assert!(SegmentReader::open(&env, dir.path(), &segment).is_err(), "flip at {at}");
        }
        env.files.replace(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(SegmentReader::open(&env, dir.path(), &segment).is_err());
    }

    /// It was taken for damage, and the job stopped for good.
    #[test]
    fn a_disk_that_fails_for_a_moment_is_no_damage() {
        let machine = SimMachine::new(1);
        let (env, dir) = (machine.env(), Path::new("staging"));
        env.files.create_dir_all(dir).unwrap();
        let segment = staged_in(&env, dir, 3);
        machine.arm(0, DiskFault::Error);
        assert_ne!(SegmentReader::open(&env, dir, &segment).err().unwrap().kind(), Kind::Fatal);
        assert!(SegmentReader::open(&env, dir, &segment).is_ok());
    }
}
