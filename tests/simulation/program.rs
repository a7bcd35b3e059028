//! The simulator as a program: seeds, workloads and scenarios by name; `--bug` leaves a rule out and looks for it.
//!
//! Invariant: the same arguments print the same figures, but for times.
#![allow(clippy::disallowed_methods, reason = "a program of its own: it measures in real time")]

#[path = "mod.rs"]
mod simulation;

use clap::Parser;
use simulation::fault::Scenario;
use simulation::workloads;
use simulation::world::{Options, Report, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;
use waterwheel::engine::env::Bug;

/// Runs whole jobs in one thread under a seed, with faults, and checks what they commit.
#[derive(Parser)]
struct Args {
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Only this workload; without it each seed picks one.
    #[arg(long)]
    workload: Option<String>,
    /// Which faults there are: all, quiet, process, disk, broker, zombie, savepoint.
    #[arg(long, default_value = "all")]
    scenario: String,
    /// Rows of input per run.
    #[arg(long, default_value_t = 2_000)]
    rows: usize,
    /// Leave this rule out and say which seed notices first; "all" for a table of all rules.
    #[arg(long)]
    bug: Option<String>,
    /// Run each seed once instead of twice; twice checks that it takes the same steps.
    #[arg(long)]
    once: bool,
    /// Say on stderr what happens.
    #[arg(long)]
    log: bool,
    /// Do not stop at the first violation.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.log {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).without_time().init();
    }
    let Some(scenario) = Scenario::ALL.into_iter().find(|s| s.name() == args.scenario) else {
        eprintln!("there is no scenario {}", args.scenario);
        return ExitCode::from(2);
    };
    let workload = match &args.workload {
        None => None,
        Some(name) => match workloads::Workload::named(name) {
            Some(workload) => Some(workload.name),
            None => {
                eprintln!("there is no workload {name}: {}", workloads::ALL.iter().map(|w| w.name).collect::<Vec<_>>().join(", "));
                return ExitCode::from(2);
            }
        },
    };
    let options = Options { workload, scenario, rows: args.rows, ..Options::new(args.seed) };
    match args.bug.as_deref() {
        None => clean(&args, options),
        Some("all") => bugs(&args, options, Bug::ALL),
        Some(name) => match Bug::ALL.iter().find(|b| format!("{b:?}") == name) {
            Some(bug) => bugs(&args, options, &[*bug]),
            None => {
                eprintln!("there is no bug {name}: {:?}", Bug::ALL);
                ExitCode::from(2)
            }
        },
    }
}

/// Seeds that must all be right.
fn clean(args: &Args, options: Options) -> ExitCode {
    let begun = Instant::now();
    let mut total = Total::default();
    for seed in args.seed..args.seed + args.seeds {
        let options = Options { seed, ..options };
        let report = run(&options);
        let again = (!args.once).then(|| run(&options));
        if again.is_some_and(|again| again.trace != report.trace) {
            println!("seed {seed}, {}: took other steps the second time", report.workload);
            total.violations += 1;
        }
        if let Some(why) = &report.violation {
            println!("seed {seed}, {}: {why}", report.workload);
            println!("    faults: {:?}", report.faults);
            total.violations += 1;
        }
        total.add(&report);
        if total.violations > 0 && !args.keep_going {
            break;
        }
    }
    println!("{}", total.summary());
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds());
    let runs = if args.once { total.runs } else { 2 * total.runs };
    println!("{runs} runs in {wall:.1} s of time and {cpu:.1} s of CPU: {:.0} runs a core-minute", 60.0 * runs as f64 / cpu.max(0.001));
    if total.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Seconds that this thread was on a CPU.
fn cpu_seconds() -> f64 {
    let nanoseconds =
        std::fs::read_to_string("/proc/thread-self/schedstat").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.unwrap_or_default() / 1e9
}

/// Rules left out: which seed notices?
fn bugs(args: &Args, options: Options, bugs: &[Bug]) -> ExitCode {
    let seeds = if args.seeds > 1 { args.seeds } else { 2_000 };
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = 0;
    for &bug in bugs {
        let found = (args.seed..args.seed + seeds).find_map(|seed| {
            let options = Options { seed, ..options };
            let report = run(&Options { bug: Some(bug), ..options });
            // It must be the bug that is found.
            report.violation.filter(|_| run(&options).violation.is_none()).map(|why| (seed, report.workload, why))
        });
        let name = format!("{bug:?}");
        match found {
            Some((seed, workload, why)) => {
                let why: String = why.lines().next().unwrap_or_default().chars().take(100).collect();
                println!("{name:<28} seed {seed:>5}  {workload:<12} {why}");
            }
            None => {
                missed += 1;
                println!("{name:<28} NOT FOUND in {seeds} seeds");
            }
        }
    }
    println!("{} of {} planted bugs found", bugs.len() - missed, bugs.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Total {
    runs: u64,
    violations: u64,
    checkpoints: u64,
    tasks: u64,
    starts: u64,
    strikes: u64,
    faults: BTreeMap<&'static str, u64>,
    workloads: BTreeMap<&'static str, u64>,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.checkpoints += report.checkpoints;
        self.tasks += u64::from(report.tasks);
        self.starts += u64::from(report.starts);
        self.strikes += u64::from(report.strikes);
        *self.workloads.entry(report.workload).or_default() += 1;
        for (fault, n) in &report.faults {
            *self.faults.entry(fault).or_default() += n;
        }
    }

    fn summary(&self) -> String {
        let mean = |n: u64| n as f64 / self.runs.max(1) as f64;
        let faults: u64 = self.faults.values().sum();
        let list = |map: &BTreeMap<&str, u64>| map.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ");
        format!(
            "{} seeds, {} violations\nworkloads: {}\nfaults met: {}\nper run: {:.1} checkpoints, {:.1} faults, {:.1} calls that met one, {:.1} starts, parallelism {:.1}",
            self.runs,
            self.violations,
            list(&self.workloads),
            list(&self.faults),
            mean(self.checkpoints),
            mean(self.strikes),
            mean(faults),
            mean(self.starts),
            mean(self.tasks)
        )
    }
}
