//! PATTERN: variables with their quantifiers, one behind the other.
//!
//! Invariant: what is read here means in the engine's patterns what it means in Flink: rows of a match lie side by side, a greedy
//! variable takes every row that it can, and `?` leaves both ways open. What Flink refuses is refused.

use crate::error::{SqlError, SqlResult};
use datafusion_sql::sqlparser::ast::{AfterMatchSkip, Ident, MatchRecognizePattern, MatchRecognizeSymbol, RepetitionQuantifier};
use waterwheel_engine::operators::AfterMatch;

/// A variable and how many rows it takes.
#[derive(Debug, Clone)]
pub(crate) struct PatternStep {
    pub(crate) name: Ident,
    pub(crate) optional: bool,
    /// At least 1.
    pub(crate) min: u32,
    pub(crate) max: Option<u32>,
    pub(crate) greedy: bool,
}

fn refuse<T>(what: &str, why: &str, instead: &str) -> SqlResult<T> {
    Err(SqlError::unsupported(what, why, instead))
}

/// The variables of a pattern, in order.
pub(super) fn steps(pattern: &MatchRecognizePattern) -> SqlResult<Vec<PatternStep>> {
    let mut steps = Vec::new();
    add(pattern, &mut steps)?;
    for (i, step) in steps.iter().enumerate() {
        if steps[..i].iter().any(|other| other.name.value == step.name.value) {
            let what = format!("the variable {} twice in a PATTERN", step.name);
            return Err(SqlError::unsupported(&what, "its rows would be told apart by nothing", "two variables").at(step.name.span));
        }
    }
    if steps.iter().all(|step| step.optional) {
        return refuse(&format!("PATTERN ({pattern})"), "it could be of no rows", "a variable that takes one");
    }
    if let Some(last) = steps.last().filter(|step| step.greedy) {
        return Err(SqlError::unsupported(
            &format!("PATTERN ({pattern})"),
            "its last variable is greedy, so that it never knows when it is over",
            "a further variable behind it, or a reluctant quantifier: A+?",
        )
        .at(last.name.span));
    }
    Ok(steps)
}

fn add(pattern: &MatchRecognizePattern, steps: &mut Vec<PatternStep>) -> SqlResult<()> {
    match pattern {
        MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(name)) => {
            steps.push(PatternStep { name: name.clone(), optional: false, min: 1, max: Some(1), greedy: false });
            Ok(())
        }
        MatchRecognizePattern::Concat(parts) => parts.iter().try_for_each(|part| add(part, steps)),
        MatchRecognizePattern::Group(inner) => add(inner, steps),
        MatchRecognizePattern::Repetition(inner, RepetitionQuantifier::AtMostOne) => match &**inner {
            MatchRecognizePattern::Repetition(of, quantifier) => add_repeated(pattern, of, quantifier, true, steps),
            of => add_repeated(pattern, of, &RepetitionQuantifier::AtMostOne, false, steps),
        },
        MatchRecognizePattern::Repetition(of, quantifier) => add_repeated(pattern, of, quantifier, false, steps),
        MatchRecognizePattern::Symbol(_) => refuse(&format!("{pattern} in PATTERN"), "a stream has no first and no last row", ""),
        MatchRecognizePattern::Alternation(_) => refuse(
            &format!("PATTERN ({pattern})"),
            "Flink does not know alternatives",
            "a variable with OR in its DEFINE, or UNION ALL of two queries",
        ),
        MatchRecognizePattern::Permute(_) => refuse("PERMUTE in PATTERN", "Flink does not know it", "UNION ALL of one query an order"),
        MatchRecognizePattern::Exclude(_) => {
            refuse(&format!("{pattern} in PATTERN"), "it is for ALL ROWS PER MATCH", "leave its rows out of MEASURES")
        }
    }
}

fn add_repeated(
    whole: &MatchRecognizePattern,
    of: &MatchRecognizePattern,
    quantifier: &RepetitionQuantifier,
    reluctant: bool,
    steps: &mut Vec<PatternStep>,
) -> SqlResult<()> {
    let mut of = of;
    while let MatchRecognizePattern::Group(inner) = of {
        of = inner;
    }
    let MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(name)) = of else {
        return refuse(&format!("the quantifier of {whole}"), "it is of one variable, as in Flink", "quantifiers of single variables");
    };
    let (least, most) = match *quantifier {
        RepetitionQuantifier::ZeroOrMore => (0, None),
        RepetitionQuantifier::OneOrMore => (1, None),
        RepetitionQuantifier::AtMostOne => (0, Some(1)),
        RepetitionQuantifier::Exactly(n) => (n, Some(n)),
        RepetitionQuantifier::AtLeast(n) => (n, None),
        RepetitionQuantifier::AtMost(m) => (0, Some(m)),
        RepetitionQuantifier::Range(n, m) => (n, Some(m)),
    };
    if most.is_some_and(|most| most < least.max(1)) {
        return Err(SqlError::new(format!("{whole} takes no rows")).at(name.span).help("A{2,4} takes two to four"));
    }
    let at_most_one = (least, most) == (0, Some(1));
    if at_most_one && reluctant {
        return Err(SqlError::unsupported(&whole.to_string(), "Flink does not know it", "? leaves both ways open anyway").at(name.span));
    }
    let greedy = !reluctant && !at_most_one && most != Some(least);
    steps.push(PatternStep { name: name.clone(), optional: least == 0, min: least.max(1), max: most, greedy });
    Ok(())
}

/// Where the next match starts.
pub(super) fn skip(after: Option<&AfterMatchSkip>, steps: &[PatternStep]) -> SqlResult<AfterMatch> {
    let (name, first) = match after {
        None | Some(AfterMatchSkip::ToNextRow) => return Ok(AfterMatch::ToNext),
        Some(AfterMatchSkip::PastLastRow) => return Ok(AfterMatch::PastLast),
        Some(AfterMatchSkip::ToFirst(name)) => (name, true),
        Some(AfterMatchSkip::ToLast(name)) => (name, false),
    };
    let Some(at) = steps.iter().position(|step| step.name.value == name.value) else {
        let names = steps.iter().map(|step| step.name.value.as_str());
        return Err(SqlError::new(format!("{name} is no variable of the PATTERN")).at(name.span).nearest(&name.value, names));
    };
    let what = format!("AFTER MATCH SKIP TO {} {name}", if first { "FIRST" } else { "LAST" });
    if steps[at].optional {
        return Err(SqlError::unsupported(&what, "it may have no row", "a variable that takes one").at(name.span));
    }
    let is_first_row = at == 0 && (first || steps[at].max == Some(1));
    if is_first_row {
        let why = "the next match would start where this one did, for ever";
        return Err(SqlError::unsupported(&what, why, "AFTER MATCH SKIP TO NEXT ROW").at(name.span));
    }
    Ok(if first { AfterMatch::ToFirst(name.value.clone()) } else { AfterMatch::ToLast(name.value.clone()) })
}
