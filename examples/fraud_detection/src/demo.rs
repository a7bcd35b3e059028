//! The demo: the job as a process of its own, killed in the middle and started again, and the count at the end.
//!
//! Invariant: all that is shown is read from committed topics, or said by the job itself; nothing is made up.

use crate::commands::ScenarioArgs;
use crate::generate::{Target, generate};
use crate::model::{Alert, thousands};
use crate::truth::{ALERTS, Verdict, verify};
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use waterwheel::engine::env::Env;
use waterwheel::engine::observe::human_bytes;
use waterwheel::program::{JobSettings, newest_checkpoint};
use waterwheel::topics::{Next, Reading, SourceOptions, Topics, TopicsUrl};
use waterwheel::{Error, Result};

/// Alerts shown a second; more cannot be read.
const ALERTS_A_SECOND: usize = 6;
/// The part of all frauds after which the process is killed.
const KILL_AFTER: f64 = 0.4;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where everything goes; emptied first
    #[arg(long, default_value = "./demo-data")]
    folder: PathBuf,
    /// Tasks per operator
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    parallelism: u32,
    /// Let the process live
    #[arg(long)]
    no_kill: bool,
    #[command(flatten)]
    scenario: ScenarioArgs,
}

/// What the job says of itself: a line of `run --json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    records_in: u64,
    in_per_second: f64,
    out_per_second: f64,
    watermark_ms: Option<i64>,
    checkpoint: Option<u64>,
    checkpoint_age_ms: Option<u64>,
    checkpoint_bytes: u64,
    resumed_from: Option<u64>,
    recovery_ms: u64,
    late: u64,
    dead_lettered: u64,
    restarts: u64,
}

/// The job's process.
struct Process {
    child: Child,
    status: Arc<Mutex<Status>>,
    begun: Instant,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "the demo is a program around the job")]
    fn start(args: &DemoArgs, settings: &JobSettings) -> Result<Process> {
        let failed = |e| Error::fatal("the job's process does not start").because(e);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["run", "--until-end", "--json", "--status-interval", "100ms", "--topics", &settings.topics.to_string()]);
        command.arg("--checkpoints").arg(&settings.run.checkpoints).args(["--parallelism", &args.parallelism.to_string()]);
        // A quiet bank: a batch of the usual size would hold minutes of its day.
        command.args(["--batch-rows", "1024", "--checkpoint-interval", "500ms"]);
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let status: Arc<Mutex<Status>> = Arc::default();
        if let Some(out) = child.stdout.take() {
            let status = status.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
                    if let Ok(said) = serde_json::from_str(&line) {
                        *status.lock().unwrap_or_else(PoisonError::into_inner) = said;
                    }
                }
            });
        }
        Ok(Process { child, status, begun })
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|e| Error::fatal("the job's process is lost").because(e))
    }

    /// SIGKILL: nothing of it runs on, nothing is tidied up.
    fn kill(mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|e| Error::fatal("the job's process is lost").because(e))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // When the demo fails, the job does not outlive it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shows it all; `false` when the result is not exactly what was planted.
#[expect(clippy::disallowed_methods, reason = "the demo is a program around the job")]
pub fn run(args: DemoArgs) -> Result<bool> {
    let begun = Instant::now();
    let env = Env::real();
    let url = TopicsUrl::Local(args.folder.join("topics"));
    let settings = JobSettings::at(url.clone(), args.folder.join("checkpoints"));
    let scenario = args.scenario.scenario();
    empty(&env, &args.folder)?;
    let topics = url.open(&env)?;
    println!(" {}", generate(&Target::new(&*topics, &url, 4), &scenario)?);
    println!(
        " waterwheel · fraud detection · topics {url} · {} tasks an operator · exactly-once · checkpoint every 500 ms\n",
        args.parallelism
    );
    let frauds: u64 = scenario.frauds.iter().sum();
    let mut show = Show::open(&*topics, &env, (frauds as f64 * KILL_AFTER) as usize)?;
    let mut process = Process::start(&args, &settings)?;
    if !args.no_kill && show.watch(&mut process, true)? {
        process = kill_and_resume(process, &args, &settings, &env)?;
        show.watch(&mut process, false)?;
    } else if args.no_kill {
        show.watch(&mut process, false)?;
    }
    let verdict = verify(&*topics)?;
    println!("\n{verdict}\n");
    println!(" {}", conclusion(&verdict, begun.elapsed()));
    println!("\n Next: the plan        cargo run -q -p fraud_detection -- explain");
    println!("       on Kafka        cargo run -q -p fraud_detection -- generate --topics kafka://localhost:9092");
    println!("                       cargo run -q -p fraud_detection -- run --topics kafka://localhost:9092");
    println!("       read a topic    cargo run -q -p waterwheel-cli -- topic consume alerts --topics {url} -n 3");
    Ok(verdict.is_exact())
}

fn conclusion(verdict: &Verdict, time: Duration) -> String {
    let lost: usize = verdict.rules.iter().map(|r| r.planted - r.found).sum();
    let false_alerts: usize = verdict.rules.iter().map(|r| r.false_alerts).sum();
    let judged = if verdict.is_exact() { "exact" } else { "NOT EXACT" };
    format!("{judged}: {lost} alerts lost, {false_alerts} doubled or false; {:.0} s in all", time.as_secs_f64())
}

/// Removes what an earlier demo left; refuses a folder that is something else.
fn empty(env: &Env, folder: &Path) -> Result<()> {
    if !env.files.exists(folder)? {
        return Ok(());
    }
    let foreign = env.files.list(folder)?.into_iter().find(|name| name != "topics" && name != "checkpoints");
    if let Some(name) = foreign {
        return Err(
            Error::fatal(format!("{} holds {name}, which no demo has made", folder.display())).help("name another folder: --folder")
        );
    }
    Ok(env.files.remove_dir_all(folder)?)
}

fn kill_and_resume(process: Process, args: &DemoArgs, settings: &JobSettings, env: &Env) -> Result<Process> {
    let last = process.status();
    println!("\n ── killing the process with SIGKILL, in the middle of everything ──");
    process.kill()?;
    let newest = newest_checkpoint(env, crate::NAME, settings)?;
    let splits = newest.iter().flat_map(|m| &m.tasks).flat_map(|t| &t.operators).flat_map(|o| &o.splits);
    let kept: i64 = splits.map(|s| s.position - s.split.start).sum();
    let again = last.records_in.saturating_sub(kept.unsigned_abs());
    let mut process = Process::start(args, settings)?;
    let status = loop {
        let status = process.status();
        if status.resumed_from.is_some() && status.phase != "recovering" || process.ended()?.is_some() {
            break status;
        }
        pause();
    };
    let from = status.resumed_from.map_or("the beginning".into(), |n| format!("checkpoint {n}"));
    println!(" resumed from {from} in {:.2} s, about {} records read again\n", status.recovery_ms as f64 / 1e3, thousands(again));
    Ok(process)
}

#[expect(clippy::disallowed_methods, reason = "the demo is a program around the job")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// What is on the screen.
struct Show {
    alerts: Reading,
    seen: usize,
    kill_at: usize,
    shown: usize,
    since: Instant,
}

impl Show {
    #[expect(clippy::disallowed_methods, reason = "the demo is a program around the job")]
    fn open(topics: &dyn Topics, env: &Env, kill_at: usize) -> Result<Show> {
        let alerts = Reading::open(&*topics.source(SourceOptions::new(ALERTS))?, env)?;
        Ok(Show { alerts, seen: 0, kill_at, shown: 0, since: Instant::now() })
    }

    /// Shows alerts and how the job fares until it ends, or (`true`) until enough is found to kill it.
    fn watch(&mut self, process: &mut Process, until_kill: bool) -> Result<bool> {
        loop {
            let ended = process.ended()?;
            let more = self.alerts(process)?;
            self.each_second(&process.status());
            if until_kill && self.seen >= self.kill_at && ended.is_none() {
                return Ok(true);
            }
            match ended {
                Some(status) if status.success() && !more => return Ok(false),
                Some(status) if !status.success() => {
                    return Err(Error::fatal(format!("the job ended with {status}")).help("its own message is above"));
                }
                _ => {}
            }
        }
    }

    /// The alerts that were committed meanwhile.
    fn alerts(&mut self, process: &Process) -> Result<bool> {
        let Next::Records(batch) = self.alerts.next(Duration::from_millis(50))? else { return Ok(false) };
        for record in batch.records() {
            let Ok(alert) = serde_json::from_slice::<Alert>(record.value.unwrap_or_default()) else { continue };
            if self.seen == 0 {
                println!(" first alert {:.2} s after the start of the process", process.begun.elapsed().as_secs_f64());
            }
            self.seen += 1;
            if self.shown < ALERTS_A_SECOND {
                println!(" {}  ALERT {:16} card {}…  {}", alert.at.format("%H:%M:%S"), alert.rule, &alert.card[..4], alert.reason);
            }
            self.shown += 1;
        }
        Ok(true)
    }

    #[expect(clippy::disallowed_methods, reason = "the demo is a program around the job")]
    fn each_second(&mut self, status: &Status) {
        if self.since.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.since = Instant::now();
        if self.shown > ALERTS_A_SECOND {
            println!("           … and {} more", self.shown - ALERTS_A_SECOND);
        }
        self.shown = 0;
        if status.phase == "running" {
            println!(" {}", line(status));
        }
    }
}

fn line(s: &Status) -> String {
    let clock = s.watermark_ms.and_then(DateTime::<Utc>::from_timestamp_millis).map_or("–".into(), |t| t.format("%H:%M:%S").to_string());
    let checkpoint = match (s.checkpoint, s.checkpoint_age_ms) {
        (Some(n), Some(age)) => format!("checkpoint #{n} {:.1} s ago, {}", age as f64 / 1e3, human_bytes(s.checkpoint_bytes)),
        _ => "no checkpoint yet".into(),
    };
    let (read, written) = (thousands(s.in_per_second as u64), thousands(s.out_per_second as u64));
    let (late, dead, restarts) = (thousands(s.late), thousands(s.dead_lettered), s.restarts);
    format!("in {read}/s   out {written}/s   watermark {clock}   {checkpoint}   late {late}   dead-lettered {dead}   restarts {restarts}")
}
