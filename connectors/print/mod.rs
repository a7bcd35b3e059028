//! Results on the terminal, one line a record, at once: for people, not for exactness.
//!
//! Invariant: a line is written whole; whoever closes the pipe (`| head`) stops the job with a clear error, not a panic.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use waterwheel_engine::error::{Error, Result};
use waterwheel_engine::operators::{Guarantee, LanePublisher, PublisherContext, SegmentRef, Sink, SinkWriter, WriterContext};
use waterwheel_engine::record::{BatchBox, Epoch, RawBatch, downcast};

/// Prints each record's value; takes [`RawBatch`]es.
///
/// ```
/// use waterwheel_connectors::print::Print;
/// let to_terminal = Print::stdout();
/// let with_name = Print::stdout().prefix("alerts");
/// ```
#[derive(Clone)]
pub struct Print {
    out: Arc<Mutex<dyn Write + Send>>,
    prefix: String,
}

impl Print {
    /// To standard output.
    pub fn stdout() -> Self {
        Print::to(std::io::stdout())
    }

    /// To any writer.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Print { out: Arc::new(Mutex::new(out)), prefix: String::new() }
    }

    /// Puts a name before each line.
    #[must_use]
    pub fn prefix(mut self, name: &str) -> Self {
        self.prefix = format!("{name} ");
        self
    }
}

impl Sink for Print {
    fn describe(&self) -> String {
        "print".into()
    }
    fn guarantee(&self) -> Guarantee {
        Guarantee::None
    }
    fn lanes(&self) -> u32 {
        0
    }
    fn check(&self) -> Result<()> {
        Ok(())
    }
    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }
    fn lane(&self, _: PublisherContext) -> Result<Box<dyn LanePublisher>> {
        Err(Error::fatal("print has no publish lanes"))
    }
}

impl SinkWriter for Print {
    fn ready(&mut self) -> Result<bool> {
        Ok(true)
    }

    fn write(&mut self, batch: BatchBox) -> Result<()> {
        let batch = downcast::<RawBatch>(batch);
        let mut text = Vec::with_capacity(batch.data_len() + 16);
        for record in batch.records() {
            text.extend_from_slice(self.prefix.as_bytes());
            match record.value {
                Some(value) => printable(&String::from_utf8_lossy(value), &mut text),
                None => text.extend_from_slice("(removed)".as_bytes()),
            }
            text.push(b'\n');
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let printed = out.write_all(&text).and_then(|()| out.flush());
        printed.map_err(|e| Error::fatal("results could not be printed").because(e).help("keep the reader of the pipe open"))
    }

    fn prepare(&mut self, _: Epoch) -> Result<()> {
        Ok(())
    }

    fn prepared(&mut self) -> Result<Option<Vec<SegmentRef>>> {
        Ok(Some(Vec::new()))
    }
}

/// Control characters are escaped: data must not steer the terminal, nor break the line.
fn printable(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            out.extend(c.escape_default().map(|c| c as u8));
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);
    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_line_a_record_and_no_control_characters() {
        let page = Page::default();
        let mut batch = RawBatch::default();
        for value in [Some(&b"a\xc3\xa4"[..]), Some(b"x\x1b[2J\ny\xff"), None] {
            batch.push_parts(&"t".into(), 0, -1, 0, None, value, &[]);
        }
        Print::to(page.clone()).prefix("alerts").write(Box::new(batch)).unwrap();
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "alerts aä\nalerts x\\u{1b}[2J\\ny\u{fffd}\nalerts (removed)\n");
    }
}
