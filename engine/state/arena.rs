//! Bytes of rows in chunks, for tables whose rows come and go: no allocation a row, and memory goes back when rows do.
//!
//! Invariant: a span is valid until it is freed or moved. A chunk without rows is gone at once; one in which little is left
//! is thin, and its owner moves the rest, so that a few rows that stay for years hold no more than their own bytes. One that is on disk costs no memory, and stays as it is.

use super::chunks::{Chunks, Scratch};
use crate::error::Result;
use std::borrow::Cow;

/// Bytes of a chunk; a longer row has one of its own.
const CHUNK: usize = if cfg!(test) { 64 } else { 64 << 10 };

/// Where a row's bytes are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    chunk: u32,
    at: u32,
    len: u32,
}

/// What is known of a chunk.
#[derive(Default)]
struct Use {
    /// Rows that were put here, also those that have left.
    rows: Vec<u32>,
    live_rows: u32,
    live_bytes: usize,
}

/// See the module's header. Rows are known by a number of their owner's.
#[derive(Default)]
pub(super) struct RowArena {
    chunks: Chunks,
    /// By chunk.
    uses: Vec<Use>,
    free: Vec<u32>,
    /// The chunk that is being filled, if one is.
    current: Option<usize>,
}

impl RowArena {
    /// Copies a row's bytes in.
    pub(super) fn push(&mut self, row: u32, bytes: &[u8]) -> Span {
        assert!(bytes.len() < u32::MAX as usize, "a row of 4 GiB");
        let at = match self.current {
            // Rows may be empty: their number is bounded too.
            Some(at) if self.chunks.len(at) + bytes.len() <= CHUNK && self.uses[at].rows.len() < CHUNK / 4 => at,
            _ => self.open(),
        };
        let span = Span { chunk: at as u32, at: self.chunks.len(at) as u32, len: bytes.len() as u32 };
        self.chunks.extend(at, bytes);
        let chunk = &mut self.uses[at];
        chunk.rows.push(row);
        chunk.live_rows += 1;
        chunk.live_bytes += bytes.len();
        span
    }

    /// The bytes of a row.
    ///
    /// # Errors
    /// Of the disk.
    #[inline]
    pub(super) fn get(&self, span: Span) -> Result<Cow<'_, [u8]>> {
        self.chunks.get(span.chunk as usize, span.at as usize..(span.at + span.len) as usize)
    }

    /// Gives a row's bytes up. When its chunk is in memory and has become thin: the rows that may still be in it, to be [moved](RowArena::move_row)
    /// by their owner if [`is_in`](RowArena::is_in) says so, with [`thinned`](RowArena::thinned) at the end.
    pub(super) fn free(&mut self, span: Span) -> Option<Thin> {
        let at = span.chunk as usize;
        let is_held = self.chunks.in_memory(at).is_some();
        let chunk = &mut self.uses[at];
        chunk.live_rows -= 1;
        chunk.live_bytes -= span.len as usize;
        let sealed = self.current != Some(at);
        if chunk.live_rows == 0 && sealed {
            self.close(span.chunk);
            return None;
        }
        let thin =
            is_held && sealed && chunk.live_rows > 0 && chunk.live_bytes < CHUNK / 8 && chunk.live_rows as usize * 8 < chunk.rows.len();
        thin.then(|| Thin { chunk: span.chunk, rows: std::mem::take(&mut chunk.rows) })
    }

    /// Whether a row that is still there has its bytes in this chunk.
    pub(super) fn is_in(span: Span, thin: &Thin) -> bool {
        span.chunk == thin.chunk
    }

    /// Pushes a row of a thin chunk again.
    pub(super) fn move_row(&mut self, row: u32, span: Span) -> Span {
        let chunk = self.chunks.in_memory(span.chunk as usize).unwrap_or_else(|| unreachable!("a chunk that is thinned is in memory"));
        let bytes = chunk[span.at as usize..(span.at + span.len) as usize].to_vec();
        self.push(row, &bytes)
    }

    /// Every row that was in the chunk has been pushed again.
    pub(super) fn thinned(&mut self, thin: &Thin) {
        self.close(thin.chunk);
    }

    /// Bytes held in memory, free space in chunks included.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.bytes()
    }

    /// Lets go of about `target` bytes.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn evict(&mut self, target: usize, scratch: &Scratch) -> Result<()> {
        self.drop_empty();
        self.chunks.evict(target, &mut self.current, scratch)
    }

    /// If all has left the chunk that is being filled, nobody else would close it once it is full.
    fn drop_empty(&mut self) {
        if let Some(old) = self.current.take_if(|at| self.uses[*at].live_rows == 0) {
            self.close(old as u32);
        }
    }

    fn open(&mut self) -> usize {
        self.drop_empty();
        let at = self.free.pop().unwrap_or_else(|| {
            self.uses.push(Use::default());
            self.chunks.add() as u32
        });
        self.chunks.open(at as usize, CHUNK);
        self.current = Some(at as usize);
        at as usize
    }

    fn close(&mut self, at: u32) {
        self.chunks.close(at as usize);
        self.uses[at as usize] = Use::default();
        self.free.push(at);
    }
}

/// A chunk with little left in it.
pub(super) struct Thin {
    chunk: u32,
    /// Rows that were put there at some time; some are gone, and a number may come twice.
    pub(super) rows: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SimMachine;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    proptest! {
        #[test]
        fn rows_come_back_as_they_were_and_memory_follows_them(
            script in proptest::collection::vec((0u32..40, 0usize..30, 0u8..8), 0..300),
            evicts in any::<bool>(),
        ) {
            let files = SimMachine::new(1).env().files;
            let scratch = Scratch::new(&files, Path::new("rows"));
            let (mut arena, mut model) = (RowArena::default(), BTreeMap::<u32, (Span, Vec<u8>)>::new());
            for (row, len, evict) in script {
                if let Some((span, _)) = model.remove(&row) {
                    if let Some(thin) = arena.free(span) {
                        for &row in &thin.rows {
                            if let Some((span, _)) = model.get_mut(&row) && RowArena::is_in(*span, &thin) {
                                *span = arena.move_row(row, *span);
                            }
                        }
                        arena.thinned(&thin);
                    }
                } else {
                    let bytes = vec![row as u8; len];
                    model.insert(row, (arena.push(row, &bytes), bytes));
                }
                if evicts && evict == 0 {
                    arena.evict(usize::MAX, &scratch).unwrap();
                    prop_assert_eq!(arena.bytes(), 0, "all is on disk");
                }
                for (span, bytes) in model.values().filter(|_| evict < 4) {
                    prop_assert_eq!(&arena.get(*span).unwrap()[..], &bytes[..]);
                }
                let open = arena.uses.iter().filter(|c| c.live_rows > 0).count();
                prop_assert!(open <= 2 + model.len(), "{} chunks for {} rows", open, model.len());
                let held: usize = (0..arena.chunks.count()).filter_map(|at| arena.chunks.in_memory(at)).map(<[u8]>::len).sum();
                prop_assert!(held <= arena.bytes() && arena.bytes() <= CHUNK * arena.chunks.count());
                if model.is_empty() && files.exists(Path::new("rows")).unwrap() {
                    prop_assert!(files.list(Path::new("rows")).unwrap().len() <= 1, "files go with their rows");
                }
            }
        }
    }

    #[test]
    fn rows_that_were_changed_on_disk_are_an_error() {
        let files = SimMachine::new(1).env().files;
        let (scratch, mut arena) = (Scratch::new(&files, Path::new("rows")), RowArena::default());
        let spans: Vec<Span> = (0..20).map(|row| arena.push(row, &[row as u8; 10])).collect();
        arena.evict(usize::MAX, &scratch).unwrap();
        let path = Path::new("rows").join(&files.list(Path::new("rows")).unwrap()[0]);
        let mut bytes = files.read(&path).unwrap();
        bytes.iter_mut().step_by(5).for_each(|byte| *byte ^= 1);
        files.create(&path).unwrap().write_all(&bytes).unwrap();
        let error = arena.get(spans[0]).unwrap_err().to_string();
        assert!(error.contains("not what was written"), "{error}");
        files.remove(&path).unwrap();
        assert!(arena.get(spans[1]).is_err());
    }
}
