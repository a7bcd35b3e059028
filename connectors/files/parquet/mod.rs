//! Parquet: rows in columns, read from the files of a folder and written into files that each checkpoint finishes.
//!
//! * `file`: a file as the library reads it, and which one it is.
//! * `fit`: which of a file's columns are read, and how they become those of a table.
//! * `source`: the files as splits.
//! * `stage`, `parts`: rows on their way out, and the files that they become.
//! * `state`: keyed state as a file.
//!
//! Invariant: a value that is read is the value in the file; what cannot be so is an error that names file and column.

mod file;
mod fit;
mod parts;
mod source;
mod stage;
mod state;
#[cfg(test)]
mod tests;

pub(super) use parts::ColumnParts;
pub use source::ParquetSource;
pub(super) use stage::Columns;
pub use state::StateFile;

use super::parts::file_error;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use std::path::Path;
use waterwheel_engine::error::Error;

/// How columns are compressed in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Not at all.
    Uncompressed,
    /// Quickly.
    #[default]
    Snappy,
    /// Well.
    Zstd,
}

impl Codec {
    /// By the name that Flink's option `parquet.compression` has for it.
    ///
    /// ```
    /// use waterwheel_connectors::files::parquet::Codec;
    /// assert_eq!(Codec::named("zstd"), Some(Codec::Zstd));
    /// assert_eq!(Codec::named("LZO"), None);
    /// ```
    pub fn named(name: &str) -> Option<Codec> {
        match name.to_ascii_uppercase().as_str() {
            "UNCOMPRESSED" => Some(Codec::Uncompressed),
            "SNAPPY" => Some(Codec::Snappy),
            "ZSTD" => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// How files are written: by the names of the specification, whatever Arrow calls them.
    fn properties(self) -> WriterProperties {
        let compression = match self {
            Codec::Uncompressed => Compression::UNCOMPRESSED,
            Codec::Snappy => Compression::SNAPPY,
            Codec::Zstd => Compression::ZSTD(ZstdLevel::default()),
        };
        WriterProperties::builder()
            .set_compression(compression)
            .set_coerce_types(true)
            .set_created_by(concat!("waterwheel version ", env!("CARGO_PKG_VERSION")).into())
            .build()
    }
}

/// A file that could not be written: by the file system, or by the library.
fn unwritten(path: &Path, e: ParquetError) -> Error {
    let why = match e {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(e) => return file_error(path, *e),
            Err(inner) => inner.to_string(),
        },
        other => other.to_string(),
    };
    Error::restart(format!("rows cannot be written as Parquet: {why}")).at(path.display().to_string())
}
