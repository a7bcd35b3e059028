//! The verb `run`.
//!
//! Invariant: whatever ends the job, the block on the terminal is taken away, the reason is said once, and the exit code tells
//! it to a script.

use super::args::RunArgs;
use super::launch::{Draw, draw_job, runner};
use super::progress::Watcher;
use super::requests::Inbox;
use super::settings::{JobSettings, Options};
use super::status::{Screen, Style};
use super::{FAILED, INTERRUPTED, REFUSED, USAGE, fail, prometheus, sleep};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Kind, Result};
use waterwheel_engine::observe::human_duration;
use waterwheel_engine::runtime::{JobControl, JobRunner, Outcome, Phase};

/// How often savepoint requests are looked for.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(name: &str, args: Box<RunArgs>, mut settings: JobSettings, options: &Options, draw: Draw, env: &Env) -> ExitCode {
    settings.until_end = args.until_end;
    let r = &mut settings.run;
    r.from = args.from.as_ref().map(|path| path.to_string_lossy().into_owned());
    (r.fresh, r.take_over, r.accept_duplicates) = (args.fresh, args.take_over, args.accept_duplicates);
    r.drop_state.clone_from(&args.drop_state);
    let style = Style::of_terminal(args.json);
    let screen = Screen::default();
    log_to(&screen);
    let prepared = prepare(name, &settings, options, draw, env, &screen, style);
    let (runner, watcher) = match prepared {
        Ok(prepared) => prepared,
        Err(e) => return fail(&e, REFUSED),
    };
    if let Err(e) = on_signals(runner.control(), env) {
        return fail(&e, USAGE);
    }
    let inbox = Inbox::new(env, &settings.run.checkpoints.join(name), runner.control(), runner.metrics());
    let every = args.status_interval.map_or(style.every(), |span| span.0);
    let over = Arc::new(AtomicBool::new(false));
    let shown = show(Show { watcher, inbox, screen, style, every, over: over.clone() });
    let outcome = runner.run();
    over.store(true, Ordering::Release);
    // The thread only prints; should it have failed, the outcome is still said.
    let _ = shown.join();
    conclude(name, style, &runner, outcome)
}

/// Connects what surrounds the job: metrics, and a heading for people.
fn prepare(
    name: &str,
    settings: &JobSettings,
    options: &Options,
    draw: Draw,
    env: &Env,
    screen: &Screen,
    style: Style,
) -> Result<(JobRunner, Watcher)> {
    let plan = draw_job(name, settings, &draw, env)?.plan()?;
    let runner = runner(name, settings, draw, env.clone())?;
    if let Some(addr) = options.metrics {
        let bound = prometheus::serve(addr, name, runner.metrics(), Watcher::new(&runner, &plan, env))?;
        tracing::info!("metrics at http://{bound}/metrics");
    }
    if style != Style::Json {
        screen.clear();
        let interval = human_duration(settings.run.checkpoint.interval);
        eprintln!(
            " {name} · topics {} · state {} · parallelism {} · checkpoint every {interval}",
            settings.topics,
            settings.state_place(name),
            settings.parallelism,
        );
    }
    let watcher = Watcher::new(&runner, &plan, env);
    Ok((runner, watcher))
}

/// The first Ctrl-C or SIGTERM stops, the second ends at once. What comes within half a second of the first is the first
/// again: a shell and `timeout` send a signal both to the process and to its group.
fn on_signals(control: JobControl, env: &Env) -> Result<()> {
    let clock = env.clock.clone();
    let mut first: Option<Duration> = None;
    ctrlc::set_handler(move || {
        let now = clock.monotonic();
        let first = *first.get_or_insert(now);
        if now.saturating_sub(first) < Duration::from_millis(500) {
            control.stop();
        } else {
            control.kill();
        }
    })
    .map_err(|e| Error::fatal("signals cannot be caught").because(e))
}

struct Show {
    watcher: Watcher,
    inbox: Inbox,
    screen: Screen,
    style: Style,
    every: Duration,
    over: Arc<AtomicBool>,
}

#[expect(clippy::disallowed_methods, reason = "the program around a job, not the job: it only looks and prints")]
fn show(mut show: Show) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let step = show.every.min(LOOK).max(Duration::from_millis(10));
        let mut since = Duration::ZERO;
        while !show.over.load(Ordering::Acquire) {
            show.inbox.look();
            if since >= show.every {
                since = Duration::ZERO;
                show.screen.show(show.style, &show.watcher.look());
            }
            sleep(step);
            since += step;
        }
        show.inbox.look();
        match show.style {
            Style::Live { .. } => show.screen.clear(),
            // A job that never ran has nothing to show but its error.
            Style::Plain if show.watcher.look().phase == "recovering" => {}
            Style::Json | Style::Plain => show.screen.show(show.style, &show.watcher.look()),
        }
    })
}

fn conclude(name: &str, style: Style, runner: &JobRunner, outcome: Result<Outcome>) -> ExitCode {
    let status = runner.status().get();
    let say = |text: String| {
        if style != Style::Json {
            eprintln!(" {text}");
        }
    };
    let newest = status.checkpoint.or(status.resumed_from).map_or(String::new(), |n| format!(" at checkpoint {n}"));
    match outcome {
        Ok(Outcome::Finished) => {
            say(format!("{name} is finished{newest}: everything is worked off and published"));
            ExitCode::SUCCESS
        }
        Ok(Outcome::Stopped) => {
            say(format!("{name} stopped{newest}; run it again and it goes on exactly there"));
            ExitCode::SUCCESS
        }
        Ok(Outcome::Killed) => {
            say(format!("{name} ended at once; the next run goes back to the newest checkpoint"));
            ExitCode::from(INTERRUPTED)
        }
        Err(e) => {
            let refused = e.kind() == Kind::Fatal && status.phase == Phase::Recovering && status.restarts == 0;
            fail(&e, if refused { REFUSED } else { FAILED })
        }
    }
}

/// Log lines of the engine and of the user, above the block; `WATERWHEEL_LOG=debug` shows more.
fn log_to(screen: &Screen) {
    let filter = EnvFilter::try_from_env("WATERWHEEL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let screen = screen.clone();
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false).with_writer(move || screen.clone());
    // A program that has set up its own log keeps it.
    let _ = logger.try_init();
}
