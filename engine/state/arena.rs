//! Bytes of rows in chunks, for tables whose rows come and go: no allocation a row, and memory goes back when rows do.
//!
//! Invariant: a span is valid until it is freed or moved. A chunk without rows is gone at once; one in which little is left
//! is thin, and its owner moves the rest, so that a few rows that stay for years hold no more than their own bytes.

/// Bytes of a chunk; a longer row has one of its own.
const CHUNK: usize = if cfg!(test) { 64 } else { 64 << 10 };

/// Where a row's bytes are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    chunk: u32,
    at: u32,
    len: u32,
}

#[derive(Default)]
struct Chunk {
    data: Vec<u8>,
    /// Rows that were put here, also those that have left.
    rows: Vec<u32>,
    live_rows: u32,
    live_bytes: usize,
}

/// See the module's header. Rows are known by a number of their owner's.
#[derive(Default)]
pub(super) struct RowArena {
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    /// The chunk that is being filled; `None` before the first row.
    current: Option<u32>,
    bytes: usize,
}

impl RowArena {
    /// Copies a row's bytes in.
    pub(super) fn push(&mut self, row: u32, bytes: &[u8]) -> Span {
        assert!(bytes.len() < u32::MAX as usize, "a row of 4 GiB");
        let at = match self.current {
            // Rows may be empty: their number is bounded too.
            Some(at) if self.chunks[at as usize].data.len() + bytes.len() <= CHUNK && self.chunks[at as usize].rows.len() < CHUNK / 4 => at,
            _ => self.open(),
        };
        let chunk = &mut self.chunks[at as usize];
        let span = Span { chunk: at, at: chunk.data.len() as u32, len: bytes.len() as u32 };
        let before = chunk.data.capacity();
        chunk.data.extend_from_slice(bytes);
        self.bytes += chunk.data.capacity() - before;
        chunk.rows.push(row);
        chunk.live_rows += 1;
        chunk.live_bytes += bytes.len();
        span
    }

    /// The bytes of a row.
    #[inline]
    pub(super) fn get(&self, span: Span) -> &[u8] {
        &self.chunks[span.chunk as usize].data[span.at as usize..(span.at + span.len) as usize]
    }

    /// Gives a row's bytes up. When its chunk has become thin: the rows that may still be in it, to be pushed again by their
    /// owner if [`is_in`](RowArena::is_in) says so, with [`thinned`](RowArena::thinned) at the end.
    pub(super) fn free(&mut self, span: Span) -> Option<Thin> {
        let chunk = &mut self.chunks[span.chunk as usize];
        chunk.live_rows -= 1;
        chunk.live_bytes -= span.len as usize;
        let sealed = self.current != Some(span.chunk);
        if chunk.live_rows == 0 && sealed {
            self.close(span.chunk);
            return None;
        }
        let thin = sealed && chunk.live_rows > 0 && chunk.live_bytes < CHUNK / 8 && chunk.live_rows as usize * 8 < chunk.rows.len();
        thin.then(|| Thin { chunk: span.chunk, rows: std::mem::take(&mut self.chunks[span.chunk as usize].rows) })
    }

    /// Whether a row that is still there has its bytes in this chunk.
    pub(super) fn is_in(span: Span, thin: &Thin) -> bool {
        span.chunk == thin.chunk
    }

    /// Every row that was in the chunk has been pushed again.
    pub(super) fn thinned(&mut self, thin: &Thin) {
        self.close(thin.chunk);
    }

    /// Bytes held, free space in chunks included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn open(&mut self) -> u32 {
        // What was current is sealed; if all of it has left meanwhile, nobody else would close it.
        if let Some(old) = self.current.take()
            && self.chunks[old as usize].live_rows == 0
        {
            self.close(old);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            (self.chunks.len() - 1) as u32
        });
        self.chunks[at as usize].data.reserve(CHUNK);
        self.bytes += self.chunks[at as usize].data.capacity();
        self.current = Some(at);
        at
    }

    fn close(&mut self, at: u32) {
        self.bytes -= self.chunks[at as usize].data.capacity();
        self.chunks[at as usize] = Chunk::default();
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
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn rows_come_back_as_they_were_and_memory_follows_them(script in proptest::collection::vec((0u32..40, 0usize..30), 0..300)) {
            let (mut arena, mut model) = (RowArena::default(), BTreeMap::<u32, (Span, Vec<u8>)>::new());
            for (row, len) in script {
                if let Some((span, _)) = model.remove(&row) {
                    if let Some(thin) = arena.free(span) {
                        for &row in &thin.rows {
                            if let Some((span, _)) = model.get_mut(&row) && RowArena::is_in(*span, &thin) {
                                let bytes = arena.get(*span).to_vec();
                                *span = arena.push(row, &bytes);
                            }
                        }
                        arena.thinned(&thin);
                    }
                } else {
                    let bytes = vec![row as u8; len];
                    model.insert(row, (arena.push(row, &bytes), bytes));
                }
                for (span, bytes) in model.values() {
                    prop_assert_eq!(arena.get(*span), &bytes[..]);
                }
                let open = arena.chunks.iter().filter(|c| c.live_rows > 0).count();
                prop_assert!(open <= 2 + model.len(), "{} chunks for {} rows", open, model.len());
                let held: usize = arena.chunks.iter().map(|c| c.data.capacity()).sum();
                prop_assert_eq!(arena.bytes(), held);
            }
        }
    }
}
