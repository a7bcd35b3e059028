//! The verbs of this program beside those that every job has: `generate`, `verify`, `rule`, `demo`.
//!
//! Invariant: exit code 0 only when everything is exactly as planted.

use crate::demo::{self, DemoArgs};
use crate::generate::{Target, generate, set_rule};
use crate::limits::Setting;
use crate::model::Rule;
use crate::scenario::Scenario;
use crate::truth::verify;
use clap::{Args, Command, FromArgMatches};
use std::process::ExitCode;
use waterwheel::engine::env::Env;
use waterwheel::program::{FAILED, Program, USAGE, fail};
use waterwheel::topics::TopicsUrl;
use waterwheel::{Job, Result};

/// How much is generated.
#[derive(Debug, Clone, Args)]
pub struct ScenarioArgs {
    /// Decides everything that is left open
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Everyday payments [default: 400000]
    #[arg(long)]
    pub payments: Option<u64>,
    /// Cards that make them
    #[arg(long, default_value_t = 20_000)]
    pub cards: u64,
    /// Everyday payments per second of event time
    #[arg(long, default_value_t = 60)]
    pub per_second: u64,
    /// So many times as much of everything: payments, frauds, duplicates, late and broken records
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// Leave the broken record of 10 MB out
    #[arg(long)]
    pub no_giant: bool,
}

impl ScenarioArgs {
    /// As a scenario.
    pub fn scenario(&self) -> Scenario {
        let ScenarioArgs { seed, payments, cards, per_second, scale, no_giant } = *self;
        let scaled = Scenario { seed, cards, per_second, giant: !no_giant, ..Scenario::default() }.scaled(scale);
        Scenario { payments: payments.unwrap_or(scaled.payments), ..scaled }
    }
}

#[derive(Debug, Args)]
struct Place {
    /// Where topics are: local:FOLDER or kafka://HOST:PORT
    #[arg(long, env = "WATERWHEEL_TOPICS", hide_env_values = true, default_value = "local:./data", value_name = "URL")]
    topics: TopicsUrl,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// Partitions of each topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
}

#[derive(Debug, Args)]
struct RuleArgs {
    #[command(flatten)]
    place: Place,
    /// Which rule
    #[arg(value_parser = ["small-then-large", "two-countries", "new-device"])]
    rule: String,
    /// The rule finds nothing
    #[arg(long)]
    off: bool,
    /// small-then-large: a payment up to this is small, in cents
    #[arg(long)]
    small: Option<u32>,
    /// small-then-large: a payment from this on is large, in cents
    #[arg(long)]
    large: Option<u32>,
    /// small-then-large, two-countries: payments at most so many seconds apart
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=86_400))]
    within: Option<u32>,
    /// As if nothing had ever been set
    #[arg(long, conflicts_with_all = ["off", "small", "large", "within"])]
    default: bool,
}

/// The job as a program, with its own verbs.
pub fn program(name: &str, draw: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> Program {
    let generate_about = "Make the topics and fill them with payments, frauds among them";
    let verify_about = "Compare what was found with what was planted; exit code 0 only if it is exactly that";
    Program::new(name, draw)
        .about("Finds frauds in a stream of card payments")
        .verb(verb::<GenerateArgs>("generate", generate_about), with(run_generate))
        .verb(verb::<Place>("verify", verify_about), with(run_verify))
        .verb(verb::<RuleArgs>("rule", "Set the thresholds of a rule, also while the job runs"), with(run_rule))
        .verb(verb::<DemoArgs>("demo", "Show it all: generate, run, kill, resume, verify"), with(demo::run))
}

/// A verb and its arguments. What it is about comes last: arguments that were taken in from elsewhere bring words of their own.
fn verb<A: Args>(name: &'static str, about: &'static str) -> Command {
    A::augment_args(Command::new(name)).about(about)
}

/// Parses the verb's own arguments, runs it, and turns the outcome into an exit code.
fn with<A: FromArgMatches>(run: impl Fn(A) -> Result<bool>) -> impl Fn(&clap::ArgMatches) -> ExitCode {
    move |matches| {
        let args = match A::from_arg_matches(matches) {
            Ok(args) => args,
            Err(e) => {
                eprintln!("{e}");
                return ExitCode::from(USAGE);
            }
        };
        match run(args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(FAILED),
            Err(e) => fail(&e, FAILED),
        }
    }
}

fn run_generate(args: GenerateArgs) -> Result<bool> {
    let url = &args.place.topics;
    let topics = url.open(&Env::real())?;
    println!("{}", generate(&Target::new(&*topics, url, args.partitions), &args.scenario.scenario())?);
    Ok(true)
}

fn run_rule(args: RuleArgs) -> Result<bool> {
    let env = Env::real();
    let topics = args.place.topics.open(&env)?;
    let rule = match args.rule.as_str() {
        "small-then-large" => Rule::SmallThenLarge,
        "two-countries" => Rule::TwoCountries,
        _ => Rule::NewDevice,
    };
    let setting = Setting { off: args.off, small: args.small, large: args.large, within_s: args.within, ..Setting::of(rule) };
    set_rule(&*topics, rule, Some(&setting).filter(|_| !args.default), env.clock.wall_ms())?;
    Ok(true)
}

fn run_verify(place: Place) -> Result<bool> {
    let topics = place.topics.open(&Env::real())?;
    let verdict = verify(&*topics)?;
    println!("{verdict}");
    Ok(verdict.is_exact())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_says_what_it_does_and_not_what_its_arguments_are() {
        assert_eq!(verb::<GenerateArgs>("generate", "Fill topics").get_about().map(ToString::to_string), Some("Fill topics".into()));
    }
}
