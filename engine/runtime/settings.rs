//! How a job is run.

use crate::checkpoint::{self, Places};
use std::path::PathBuf;
use std::time::Duration;

/// How a job is run. Nothing here changes a result.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of all jobs' checkpoints; the job's own is `<checkpoints>/<job>`.
    pub checkpoints: PathBuf,
    /// URL of a store in place of that folder, which then holds the lock and working files only; the job's own is `<remote>/<job>`.
    pub remote: Option<String>,
    /// What opens it, and savepoints in such stores.
    pub places: Places,
    /// Interval, timeout, pause, tolerated failures, retention.
    pub checkpoint: checkpoint::Settings,
    /// Worker threads.
    pub workers: usize,
    /// State bytes a task keeps in memory; beyond it cold entries live in the store only.
    pub memory_per_task: usize,
    /// Bytes queued between two tasks before the sender waits.
    pub channel_bytes: usize,
    /// Rows per source batch.
    pub batch_rows: usize,
    /// A failed task restarts the job from the newest checkpoint, at most this often...
    pub max_restarts: usize,
    /// ...within this time.
    pub restart_window: Duration,
    /// How long the outside may be away before the job gives up; `None` = for ever.
    pub transient_deadline: Option<Duration>,
    /// Start over with empty state.
    pub fresh: bool,
    /// Start from this savepoint.
    pub from: Option<String>,
    /// Let this process win against one that runs the same job.
    pub take_over: bool,
    /// State of operators that are gone from the job, which may be dropped, by operator id.
    pub drop_state: Vec<String>,
    /// Output published after the point of start may be published again.
    pub accept_duplicates: bool,
    /// Bytes of several epochs that may share a publish transaction.
    pub publish_bytes: u64,
}

impl Default for Settings {
    /// Checkpoints each second into `./checkpoints`, one worker, 256 MB of state a task, ten restarts in ten minutes.
    fn default() -> Self {
        Settings {
            checkpoints: PathBuf::from("checkpoints"),
            remote: None,
            places: Places::default(),
            checkpoint: checkpoint::Settings::default(),
            workers: 1,
            memory_per_task: 256 << 20,
            channel_bytes: 256 << 10,
            batch_rows: 4096,
            max_restarts: 10,
            restart_window: Duration::from_secs(600),
            transient_deadline: None,
            fresh: false,
            from: None,
            take_over: false,
            drop_state: Vec::new(),
            accept_duplicates: false,
            publish_bytes: 32 << 20,
        }
    }
}
