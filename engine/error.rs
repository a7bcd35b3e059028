//! One error shape everywhere: cause, place, remedy.
//!
//! Invariant: an error that reaches a person names what happened, where, and what to do about it. Its [`Kind`] decides
//! what the runtime does: wait, restart from the newest checkpoint, or stop.

use std::fmt;

/// The result type of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the runtime does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The outside is away for now (broker, disk full, object store): retried in place with backoff, visibly, up to a deadline.
    Transient,
    /// A task failed (a panic in user code under policy `fail`, an unclear outcome): the job restarts from the newest checkpoint.
    Restart,
    /// Nobody but a person can mend it (bad settings, damaged state, lost offsets, fenced): the job stops.
    Fatal,
}

/// Cause, place, remedy. Built with the functions named after the kinds, then [`at`](Error::at) and [`help`](Error::help).
///
/// ```
/// use waterwheel_engine::error::Error;
/// let e = Error::fatal("offsets 0..1200 of payments/3 are gone (retention); the checkpoint needs 800")
///     .at("job fraud, source payments, checkpoint 41")
///     .help("start at the oldest record and accept the gap:  run --on-lost-offsets earliest");
/// assert!(e.to_string().starts_with("offsets 0..1200"));
/// assert!(e.report().contains("help: start at"));
/// ```
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    cause: String,
    places: Vec<String>,
    helps: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a given kind.
    pub fn new(kind: Kind, cause: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, cause: cause.into(), places: Vec::new(), helps: Vec::new(), source: None }))
    }

    /// The outside is away for now; retry.
    pub fn transient(cause: impl Into<String>) -> Self {
        Self::new(Kind::Transient, cause)
    }

    /// The task is lost; restart from the newest checkpoint.
    pub fn restart(cause: impl Into<String>) -> Self {
        Self::new(Kind::Restart, cause)
    }

    /// Only a person can mend it; stop.
    pub fn fatal(cause: impl Into<String>) -> Self {
        Self::new(Kind::Fatal, cause)
    }

    /// Adds a place: innermost first, so that callers append the wider one as the error travels up. The same one twice in a
    /// row counts once.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        let place = place.into();
        if self.0.places.last() != Some(&place) {
            self.0.places.push(place);
        }
        self
    }

    /// Adds a remedy: one thing the reader can do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.helps.push(help.into());
        self
    }

    /// The same trouble in a wider light: another kind, and what was being done before the cause. Places and remedies stay.
    #[must_use]
    pub fn turned(mut self, kind: Kind, doing: &str) -> Self {
        self.0.kind = kind;
        self.0.cause = format!("{doing}: {}", self.0.cause);
        self
    }

    /// Keeps the error below for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the runtime does about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The places, innermost first.
    pub fn places(&self) -> &[String] {
        &self.0.places
    }

    /// The remedies.
    pub fn helps(&self) -> &[String] {
        &self.0.helps
    }

    /// The text a terminal shows below `error: `: the cause, then a line of places, then the remedies.
    pub fn report(&self) -> String {
        let mut text = self.0.cause.clone();
        if let Some(source) = &self.0.source {
            text.push_str(&format!(": {source}"));
        }
        if !self.0.places.is_empty() {
            text.push_str("\n  ");
            text.push_str(&self.0.places.join(", "));
        }
        for (i, help) in self.0.helps.iter().enumerate() {
            text.push_str(if i == 0 { "\n  help: " } else { "\n        " });
            text.push_str(help);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.cause)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as _)
    }
}

impl From<std::io::Error> for Error {
    /// No space and interrupted calls pass by themselves; other IO errors cost the task.
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match e.kind() {
            K::StorageFull | K::Interrupted | K::TimedOut | K::WouldBlock => Kind::Transient,
            K::PermissionDenied | K::ReadOnlyFilesystem | K::NotADirectory => Kind::Fatal,
            _ => Kind::Restart,
        };
        let forbidden = matches!(e.kind(), K::PermissionDenied | K::ReadOnlyFilesystem);
        let error = Error::new(kind, "file operation failed").because(e);
        if forbidden {
            return error.help("let the user that runs the job read and write there, and start it again: it goes on where it was");
        }
        error
    }
}
