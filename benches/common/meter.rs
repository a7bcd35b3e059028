//! CPU time, memory, and how a figure is printed.
//!
//! Invariant: one line a figure, tab-separated, starting with `figure`: `script/bench` makes its table of them.
#![expect(clippy::disallowed_methods, reason = "a bench is no part of a job: it reads the machine itself")]

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::{Duration, Instant};

/// CPU time of this process so far: user and system, all threads.
pub fn cpu() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

fn duration(t: Timespec) -> Duration {
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

/// CPU time of this thread so far.
pub fn thread_cpu() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

/// What some work took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// CPU time of the whole process.
    pub cpu: Duration,
    /// Wall time.
    pub wall: Duration,
}

/// Does some work and says what it took.
pub fn spent<R>(work: impl FnOnce() -> R) -> (Spent, R) {
    let (cpu_before, start) = (cpu(), Instant::now());
    let result = work();
    (Spent { cpu: cpu().saturating_sub(cpu_before), wall: start.elapsed() }, result)
}

/// CPU time of all child processes that have ended and were waited for.
///
/// # Panics
/// Without `/proc`.
pub fn cpu_of_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("benches run on Linux");
    // After the name, which may hold blanks: state is field 3 of `man proc_pid_stat`, cutime and cstime are 16 and 17.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[13..15].iter().filter_map(|f| f.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10) // USER_HZ is 100 on every Linux
}

/// Resident bytes of this process.
///
/// # Panics
/// Without `/proc`.
pub fn rss() -> u64 {
    status("VmRSS:")
}

/// The most resident bytes this process has had.
///
/// # Panics
/// Without `/proc`.
pub fn peak_rss() -> u64 {
    status("VmHWM:")
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("benches run on Linux");
    let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What a figure shall be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// Below this.
    Below(f64),
    /// Printed for its own sake.
    None,
}

/// Prints a figure with its unit and target.
pub fn figure(name: &str, value: f64, unit: &str, target: Target) {
    let (wanted, verdict) = match target {
        Target::AtLeast(t) => (format!(">= {t}"), if value >= t { "met" } else { "MISSED" }),
        Target::Below(t) => (format!("< {t}"), if value < t { "met" } else { "MISSED" }),
        Target::None => (String::from("-"), "-"),
    };
    println!("figure\t{name}\t{}\t{unit}\t{wanted}\t{verdict}", rounded(value));
}

/// Millions of events per second.
pub fn millions(events: u64, time: Duration) -> f64 {
    events as f64 / 1e6 / time.as_secs_f64().max(1e-9)
}

/// Three digits that matter.
fn rounded(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// The value below which a share of the samples lies, by nearest rank. `samples` are sorted by the call.
///
/// # Panics
/// Without samples.
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let rank = (samples.len() as f64 * share).ceil() as usize;
    samples[rank.clamp(1, samples.len()) - 1]
}

/// Measures `work` under criterion in CPU time and prints its rate as a figure: `events` pass in each call.
pub fn throughput(name: &str, events: u64, target: Target, mut work: impl FnMut()) {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    let (mut calls, mut cpu) = (0, Duration::ZERO);
    let mut group = criterion.benchmark_group(name);
    group.throughput(criterion::Throughput::Elements(events)).sample_size(10).measurement_time(Duration::from_secs(8));
    group.bench_function("cpu_time", |bencher| {
        bencher.iter_custom(|n| {
            let (took, ()) = spent(|| (0..n).for_each(|_| work()));
            calls += n;
            cpu += took.cpu;
            took.cpu
        });
    });
    group.finish();
    figure(name, millions(events * calls, cpu), "M rows per CPU-second", target);
}
