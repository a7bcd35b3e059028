//! Following the commits: a [`Cursor`] steps through them, a [`View`] adds them up and commits on top.
//!
//! Invariant: a cursor gives commits in order, without holes, each once, and only durable ones. A view commits only on the
//! state of **all** commits before.

use super::book::Book;
use super::entry::Entry;
use super::history::{CHUNK, Found, History};
use std::collections::VecDeque;
use waterwheel_engine::error::{Error, Result};

/// A position among the commits.
pub(super) struct Cursor {
    history: History,
    next: u64,
    /// Commits from `next` on that were read already; those of a folded file, or one that waits to be durable.
    ahead: VecDeque<Entry>,
    /// Commits below this number are durable.
    settled: u64,
}

/// What a step brought.
pub(super) enum Step {
    /// The commit of this number.
    Entry(u64, Entry),
    /// The next commit is there and may not be durable yet: sync the folder, call [`Cursor::settled`].
    Unsettled,
    /// Nothing more for now.
    End,
}

impl Cursor {
    /// Before the commit `next`.
    pub(super) fn at(history: History, next: u64) -> Self {
        Cursor { history, next, ahead: VecDeque::new(), settled: 0 }
    }

    /// The next commit.
    pub(super) fn step(&mut self) -> Result<Step> {
        if self.ahead.is_empty() {
            match self.history.read(self.next)? {
                Found::Nothing => return Ok(Step::End),
                Found::Single(entry) => self.ahead.push_back(entry),
                Found::Folded(chunk) => {
                    self.ahead.extend(chunk.entries.into_iter().skip((self.next % CHUNK) as usize));
                    self.settled = (self.next / CHUNK + 1) * CHUNK;
                }
            }
        }
        if self.next >= self.settled {
            if !self.history.is_settled(self.next) {
                return Ok(Step::Unsettled);
            }
            self.settled = self.next + 1;
        }
        let entry = self.ahead.pop_front().expect("read above");
        self.next += 1;
        Ok(Step::Entry(self.next - 1, entry))
    }

    /// The folder was synced after `step` said `Unsettled`.
    pub(super) fn settled(&mut self) {
        self.settled = self.settled.max(self.next + 1);
    }
}

/// The state of the log, and the way to change it.
pub(super) struct View {
    history: History,
    cursor: Cursor,
    book: Book,
    /// Folded files known to be complete.
    folded: u64,
    folders_made: bool,
}

impl View {
    /// Reads the newest folded file and what came after.
    ///
    /// # Errors
    /// Damage is fatal.
    pub(super) fn open(history: History) -> Result<Self> {
        let listing = history.listing()?;
        let (mut book, mut next) = (Book::default(), 0);
        if let Some(newest) = listing.newest_chunk {
            let chunk = history.chunk(newest)?.ok_or_else(|| history.hole(newest * CHUNK))?;
            book = chunk.before;
            next = newest * CHUNK;
        }
        let cursor = Cursor::at(history.clone(), next);
        let folded = listing.newest_chunk.map_or(0, |c| c + 1);
        let mut view = View { history, cursor, book, folded, folders_made: false };
        view.catch_up()?;
        match listing.newest_single {
            Some(newest) if newest >= view.cursor.next => Err(view.history.hole(view.cursor.next)),
            _ => Ok(view),
        }
    }

    /// The state as of the last look.
    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Reads on to the end; waits for the disk where a commit is not yet durable.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        while !self.look()? {
            self.history.settle()?;
            self.cursor.settled();
        }
        Ok(())
    }

    /// Reads on without waiting for the disk; `false` when a commit that may not be durable stopped it.
    pub(super) fn look(&mut self) -> Result<bool> {
        loop {
            match self.cursor.step()? {
                Step::Entry(seq, entry) => self.book.apply(&entry).map_err(|why| self.history.contradiction(seq, &why))?,
                Step::Unsettled => return Ok(false),
                Step::End => return Ok(true),
            }
        }
    }

    /// Commits what `decide` makes of the newest state. It is asked again whenever another process was faster.
    ///
    /// # Errors
    /// Those of `decide`: nothing was committed. Those of the disk: the outcome is open until the view has caught up.
    pub(super) fn commit(&mut self, mut decide: impl FnMut(&Book) -> Result<Entry>) -> Result<()> {
        if !self.folders_made {
            self.history.make_folders()?;
            self.folders_made = true;
        }
        loop {
            self.catch_up()?;
            let entry = decide(&self.book)?;
            let mut after = self.book.clone();
            after.apply(&entry).map_err(|why| Error::fatal(format!("refused to commit a contradiction: {why}")))?;
            if self.history.link(self.cursor.next, &entry)? {
                self.history.settle()?;
                self.book = after;
                self.cursor = Cursor { settled: self.cursor.next + 1, ..Cursor::at(self.history.clone(), self.cursor.next + 1) };
                self.fold_full_chunks();
                return Ok(());
            }
        }
    }

    /// The commit is safe already, so trouble here is told and tried again after the next one.
    fn fold_full_chunks(&mut self) {
        while (self.folded + 1) * CHUNK <= self.cursor.next {
            if let Err(e) = self.history.fold(self.folded) {
                tracing::warn!(error = %e, "commits of the embedded log could not be folded; will try again");
                return;
            }
            self.folded += 1;
        }
    }
}
