//! How a running job shows itself: a block that lives on a terminal, plain lines elsewhere, JSON lines for machines.
//!
//! Invariant: people's output goes to standard error and JSON lines to standard output, so that pipes carry one or the other;
//! colour only on a terminal without NO_COLOR. The block is erased before anything else is printed.

use super::progress::Progress;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use waterwheel_engine::observe::{human_bytes, human_duration};

/// How to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Rewritten in place.
    Live {
        /// With colour.
        colour: bool,
    },
    /// A line now and then.
    Plain,
    /// A JSON object a line.
    Json,
}

impl Style {
    /// JSON when asked for; else live on a terminal, plain elsewhere.
    pub(super) fn of_terminal(json: bool) -> Style {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        match std::io::stderr().is_terminal() {
            _ if json => Style::Json,
            true => Style::Live { colour: !no_colour },
            false => Style::Plain,
        }
    }

    /// How often to show.
    pub(super) fn every(self) -> Duration {
        match self {
            Style::Live { .. } => Duration::from_millis(250),
            Style::Json => Duration::from_millis(500),
            Style::Plain => Duration::from_secs(10),
        }
    }
}

/// Where status and log lines meet, so that neither writes over the other.
#[derive(Clone, Default)]
pub(super) struct Screen(Arc<Mutex<usize>>);

impl Screen {
    /// Shows the job.
    pub(super) fn show(&self, style: Style, progress: &Progress) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match style {
            Style::Json => {
                if let Ok(line) = serde_json::to_string(progress) {
                    let mut out = std::io::stdout().lock();
                    // Whoever read this has gone away: the job goes on.
                    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
                }
            }
            Style::Plain => eprintln!("{}", line(progress)),
            Style::Live { colour } => {
                let block = block(progress, colour);
                eprint!("{}{block}", erase(*lines));
                *lines = block.lines().count();
            }
        }
    }

    /// Takes the block away.
    pub(super) fn clear(&self) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        eprint!("{}", erase(*lines));
        *lines = 0;
    }
}

/// Log lines go above the block.
impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.clear();
        std::io::stderr().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// One line for a log.
pub fn line(p: &Progress) -> String {
    let mut text = format!("{} {} · {}", p.job, p.phase, flow(p));
    for extra in [checkpoint(p), incidents(p)] {
        let _ = write!(text, "   {extra}");
    }
    for who in troubles(p) {
        let _ = write!(text, "   {who}");
    }
    text
}

fn block(p: &Progress, colour: bool) -> String {
    let (bold, dim, red, off) = if colour { ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m") } else { ("", "", "", "") };
    let mut text = format!(" {bold}{}{off} · {} · {} tasks · {}\n", p.job, p.phase, p.tasks, running_for(p));
    let _ = writeln!(text, " {}", flow(p));
    let _ = writeln!(text, " {}   {}", checkpoint(p), incidents(p));
    if let Some((operator, share)) = &p.busiest {
        let held = p.held_back.as_ref().map_or(String::new(), |(who, by, share)| format!(" · {who} waits {} for {by}", percent(*share)));
        let _ = writeln!(text, " {dim}busiest {operator} {}{held}{off}", percent(*share));
    }
    for trouble in troubles(p) {
        let _ = writeln!(text, " {red}{trouble}{off}");
    }
    text
}

fn running_for(p: &Progress) -> String {
    human_duration(Duration::from_secs(p.seconds as u64))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `in 184 210/s   out 212/s   watermark −5 s`.
fn flow(p: &Progress) -> String {
    format!("in {}/s   out {}/s   {}", grouped(p.in_per_second as u64), grouped(p.out_per_second as u64), watermark(p))
}

fn watermark(p: &Progress) -> String {
    match (p.watermark_ms, p.watermark_lag_ms) {
        // Far from now the job reads the past: then the time itself tells more than the distance.
        (Some(ms), Some(lag)) if !(0..86_400_000).contains(&lag) => match chrono::DateTime::from_timestamp_millis(ms) {
            Some(at) => format!("watermark {}", at.format("%Y-%m-%d %H:%M:%S")),
            None => "watermark out of range".into(),
        },
        (_, Some(lag)) => format!(
            "watermark −{}",
            human_duration(Duration::from_millis(if lag < 10_000 { lag as u64 } else { lag as u64 / 1_000 * 1_000 }))
        ),
        _ if p.phase == "finished" => "everything read".into(),
        _ => "no watermark yet".into(),
    }
}

fn checkpoint(p: &Progress) -> String {
    match (p.checkpoint, p.checkpoint_age_ms) {
        (Some(n), Some(age)) => format!("checkpoint #{n} {:.1} s ago, {}", age as f64 / 1e3, human_bytes(p.checkpoint_bytes)),
        _ => "no checkpoint yet".into(),
    }
}

fn incidents(p: &Progress) -> String {
    let mut text = format!("late {}   dead-lettered {}   restarts {}", grouped(p.late), grouped(p.dead_lettered), p.restarts);
    for (name, n) in [("dropped", p.dropped), ("failed checkpoints", p.failed_checkpoints)] {
        if n > 0 {
            let _ = write!(text, "   {name} {}", grouped(n));
        }
    }
    text
}

fn troubles(p: &Progress) -> Vec<String> {
    let waiting = p.waiting.iter().map(|(who, why)| format!("{who} waits: {why}"));
    p.reason.iter().map(|why| format!("restarting: {why}")).chain(waiting).collect()
}

/// `184 210`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress {
            job: "fraud".into(),
            phase: "running",
            seconds: 61.2,
            tasks: 8,
            in_per_second: 184_210.4,
            out_per_second: 212.0,
            watermark_ms: Some(1),
            watermark_lag_ms: Some(5_000),
            checkpoint: Some(14),
            checkpoint_age_ms: Some(400),
            checkpoint_bytes: 38_000_000,
            late: 31,
            dead_lettered: 12,
            ..Progress::default()
        }
    }

    #[test]
    fn a_line_says_what_matters() {
        let expected = "fraud running · in 184 210/s   out 212/s   watermark −5s   checkpoint #14 0.4 s ago, 38 MB   late 31   dead-lettered 12   restarts 0";
        assert_eq!(line(&progress()), expected);
    }

    #[test]
    fn the_block_names_who_is_slow_and_who_waits() {
        let mut p = progress();
        p.busiest = Some(("window".into(), 0.97));
        p.held_back = Some(("source-payments".into(), "window".into(), 0.6));
        p.waiting.insert("source-payments/0".into(), "broker away".into());
        let plain = block(&p, false);
        assert!(plain.contains("busiest window 97 % · source-payments waits 60 % for window"), "{plain}");
        assert!(plain.contains("source-payments/0 waits: broker away"));
        assert!(!plain.contains('\x1b'), "no colour unless asked for");
        assert!(block(&p, true).contains('\x1b'));
    }

    #[test]
    fn the_past_is_shown_as_a_time() {
        let p = Progress { watermark_ms: Some(1_772_442_000_000), watermark_lag_ms: Some(90_000_000_000), ..progress() };
        assert_eq!(watermark(&p), "watermark 2026-03-02 09:00:00");
        assert_eq!(watermark(&Progress::default()), "no watermark yet");
    }
}
