//! A file as the library reads it: pieces on demand, its footer, and which file it is.
//!
//! Whatever the bytes are, reading ends in rows or in an error: the library is not trusted to never panic on a damaged file.
//!
//! Invariant: a file with another footer is another file; trouble of the disk is told apart from damage.

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use ::parquet::basic::{Compression, ConvertedType, LogicalType, Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::schema::types::ColumnDescriptor;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use bytes::Bytes;
use std::io::{ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use waterwheel_engine::env::{Env, Files};
use waterwheel_engine::error::{Error, Result};

/// Bytes read at a time where nobody says how many.
const PIECE_BYTES: usize = 8 << 10;
const MAGIC: &[u8; 4] = b"PAR1";
/// At the end of a file: the length of its footer, and the magic.
const TAIL_BYTES: u64 = 8;

/// Which file it is, and how many rows it has: a text that a checkpoint keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) rows: i64,
    bytes: u64,
    footer: u32,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows, {} bytes, footer {:08x}", self.rows, self.bytes, self.footer)
    }
}

/// The number of rows in the text of an identity.
pub(super) fn rows_of(identity: &str) -> Option<i64> {
    identity.split_once(" rows, ")?.0.parse().ok()
}

/// The file system's answers as the library asks for them.
#[derive(Clone)]
pub(super) struct Pieces {
    files: Arc<dyn Files>,
    path: PathBuf,
    len: u64,
    /// What the file system said last that was no bytes: the library keeps its text alone.
    trouble: Arc<Mutex<Option<std::io::Error>>>,
}

impl Pieces {
    fn read_at(&self, at: u64, want: usize) -> std::result::Result<Vec<u8>, ParquetError> {
        self.files.read_at(&self.path, at, want).map_err(|e| {
            let text = ParquetError::General(e.to_string());
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            text
        })
    }
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Pieces {
    type T = Reading;

    fn get_read(&self, start: u64) -> std::result::Result<Reading, ParquetError> {
        Ok(Reading { pieces: self.clone(), at: start, piece: Vec::new(), taken: 0 })
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        // A damaged length must not become an allocation.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("it names {length} bytes at {start}, and has {}", self.len)));
        }
        let bytes = self.read_at(start, length)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("it has become shorter: {} of {length} bytes at {start}", bytes.len())));
        }
        Ok(bytes.into())
    }
}

/// Bytes one after the other.
pub(super) struct Reading {
    pieces: Pieces,
    at: u64,
    piece: Vec<u8>,
    taken: usize,
}

impl Read for Reading {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.taken == self.piece.len() {
            self.piece = self.pieces.read_at(self.at, PIECE_BYTES).map_err(std::io::Error::other)?;
            (self.at, self.taken) = (self.at + self.piece.len() as u64, 0);
        }
        let n = out.len().min(self.piece.len() - self.taken);
        out[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

/// A file whose footer has been read.
#[derive(Clone)]
pub(super) struct File {
    pub(super) pieces: Pieces,
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) identity: Identity,
}

impl File {
    /// Reads the footer; nothing where the file has none yet: it is being written.
    ///
    /// # Errors
    /// Of the file system, or a footer that is damaged.
    pub(super) fn open(env: &Env, path: &Path) -> Result<Option<File>> {
        let files = env.files.clone();
        let len = files.len(path).map_err(|e| Error::from(e).at(path.display().to_string()))?;
        let pieces = Pieces { files, path: path.to_path_buf(), len, trouble: Arc::default() };
        let Some(footer) = pieces.footer()? else { return Ok(None) };
        let metadata = pieces.guard(|| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let metadata = ArrowReaderMetadata::load(&pieces, options)?;
            readable(metadata)
        })?;
        let rows = metadata.metadata().file_metadata().num_rows();
        let counted: i64 = metadata.metadata().row_groups().iter().map(|group| group.num_rows()).sum();
        if rows < 0 || counted != rows || metadata.metadata().row_groups().iter().any(|group| group.num_rows() < 0) {
            return Err(pieces.damaged(format!("its row groups have {counted} rows, and it says {rows}")));
        }
        Ok(Some(File { identity: Identity { rows, bytes: len, footer }, pieces, metadata }))
    }

    /// Whether the file of this path is still this one; also not when it has gone.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn is_still(&self) -> Result<bool> {
        let now = self.pieces.files.len(&self.pieces.path);
        let len = match now {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            len => len.map_err(|e| Error::from(e).at(self.pieces.path.display().to_string()))?,
        };
        if len != self.identity.bytes {
            return Ok(false);
        }
        Ok(self.pieces.footer()? == Some(self.identity.footer))
    }
}

impl Pieces {
    /// The checksum of the footer; nothing where there is none.
    fn footer(&self) -> Result<Option<u32>> {
        let read = |at: u64, len: u64| {
            let bytes = self.files.read_at(&self.path, at, usize::try_from(len).unwrap_or(usize::MAX));
            bytes.map_err(|e| Error::from(e).at(self.path.display().to_string()))
        };
        let Some(tail_at) = self.len.checked_sub(TAIL_BYTES) else { return Ok(None) };
        let tail = read(tail_at, TAIL_BYTES)?;
        let Some((len, rest)) = tail.split_first_chunk::<4>() else { return Ok(None) };
        if rest != MAGIC {
            return Ok(None);
        }
        let Some(at) = tail_at.checked_sub(u64::from(u32::from_le_bytes(*len))) else {
            return Err(self.damaged("its footer would begin before the file"));
        };
        Ok(Some(crc32fast::hash(&read(at, self.len - at)?)))
    }

    /// Does something of the library's; a panic on the way is damage like another.
    ///
    /// # Errors
    /// With the file's path: trouble of the file system, or damage.
    pub(super) fn guard<T, E: std::fmt::Display>(&self, act: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
        let done = catch_unwind(AssertUnwindSafe(act));
        let why = match done {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(why)) => why.to_string(),
            Err(_) => "its bytes make no sense".to_string(),
        };
        match self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(e) => Err(Error::from(e).at(self.path.display().to_string())),
            None => Err(self.damaged(why)),
        }
    }

    pub(super) fn damaged(&self, why: impl std::fmt::Display) -> Error {
        Error::fatal(format!("the file cannot be read as Parquet: {why}"))
            .at(self.path.display().to_string())
            .help("put a whole file in its place, or take it away")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// With the types that tables know, where the library knows several for what is in the file: texts of a fixed set are texts, and
/// the old timestamps of 96 bits have microseconds, which hold all their years.
fn readable(metadata: ArrowReaderMetadata) -> std::result::Result<ArrowReaderMetadata, ParquetError> {
    let columns = metadata.parquet_schema().columns().to_vec();
    let mut leaves = columns.iter();
    let fields: Vec<FieldRef> = metadata.schema().fields().iter().map(|field| hinted(field, &mut leaves)).collect();
    if fields == metadata.schema().fields().to_vec() {
        return Ok(metadata);
    }
    let schema = Schema::new_with_metadata(fields, metadata.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
}

fn hinted<'a>(field: &FieldRef, leaves: &mut impl Iterator<Item = &'a Arc<ColumnDescriptor>>) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| hinted(field, leaves)).collect()),
        DataType::List(item) => DataType::List(hinted(item, leaves)),
        DataType::Map(entries, sorted) => DataType::Map(hinted(entries, leaves), *sorted),
        other => match leaves.next() {
            Some(leaf) if leaf.physical_type() == Type::INT96 => DataType::Timestamp(TimeUnit::Microsecond, None),
            Some(leaf) if is_enum(leaf) && *other == DataType::Binary => DataType::Utf8,
            _ => other.clone(),
        },
    };
    if kind == *field.data_type() { field.clone() } else { Arc::new(Field::clone(field).with_data_type(kind)) }
}

fn is_enum(leaf: &ColumnDescriptor) -> bool {
    leaf.converted_type() == ConvertedType::ENUM || matches!(leaf.logical_type_ref(), Some(LogicalType::Enum))
}

/// The name of a codec that is not read here; nothing of those that are.
pub(super) fn unread_codec(codec: Compression) -> Option<&'static str> {
    match codec {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) => None,
        Compression::GZIP(_) => Some("GZIP"),
        Compression::LZO => Some("LZO"),
        Compression::BROTLI(_) => Some("BROTLI"),
        Compression::LZ4 | Compression::LZ4_RAW => Some("LZ4"),
    }
}
