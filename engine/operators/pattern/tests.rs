//! Detection against a naive enumeration of the definition, and against the examples that users of other engines know.

use super::*;
use crate::record::{Keys, Rows};
use crate::testing::{Harness, Step as Feed};
use nfa::Found;
use proptest::prelude::*;

/// Number of the row within its key, and its letter.
type Row = (u64, u8);

fn letter(letter: char) -> impl Fn(&Row, &Match<'_, Row>) -> bool + Send + Sync + 'static {
    move |row, _| char::from(row.1) == letter
}

/// Matches in `text`, a row a character, as they come: `b1 b3 c4`.
fn matches(pattern: Pattern<Row>, text: &str) -> Vec<String> {
    let show = |m: &Match<'_, Row>| m.rows().map(|(_, _, row)| format!("{}{}", char::from(row.1), row.0)).collect::<Vec<_>>().join(" ");
    let mut h = Harness::new(&detect::<u64, _, _, _>(&pattern, show, |_| ()), 1);
    let rows: Vec<Row> = text.bytes().enumerate().map(|(i, b)| (i as u64 + 1, b)).collect();
    let n = rows.len();
    let mut batch = Rows::new(rows, (0..n as i64).map(EventTime).collect());
    batch.keys = Some(Keys::encode(std::iter::repeat_n(7u64, n)));
    h.push(0, batch.boxed());
    h.end();
    h.take::<String>(0).into_iter().map(|(text, _)| text).collect()
}

#[test]
fn what_may_lie_between() {
    let begin = || Pattern::begin("a", letter('a'));
    assert_eq!(matches(begin().next("b", letter('b')), "acbb"), Vec::<String>::new());
    assert_eq!(matches(begin().followed_by("b", letter('b')), "acbb"), ["a1 b3"]);
    assert_eq!(matches(begin().followed_by_any("b", letter('b')), "acbb"), ["a1 b3", "a1 b4"]);

    let looping = |change: fn(Pattern<Row>) -> Pattern<Row>| {
        change(begin().followed_by_any("b", letter('b')).one_or_more()).followed_by("c", letter('c'))
    };
    let text = "abdbdbc";
    assert_eq!(matches(looping(Pattern::consecutive), text), ["a1 b2 c7", "a1 b4 c7", "a1 b6 c7"]);
    let relaxed = ["a1 b2 b4 b6 c7", "a1 b2 b4 c7", "a1 b2 c7", "a1 b4 b6 c7", "a1 b4 c7", "a1 b6 c7"];
    assert_eq!(matches(looping(|p| p), text), relaxed);
    let any = matches(looping(Pattern::allow_combinations), text);
    assert_eq!(any.len(), 7);
    assert!(any.contains(&"a1 b2 b6 c7".to_string()));
    assert_eq!(matches(looping(Pattern::greedy), text), ["a1 b2 b4 b6 c7", "a1 b4 b6 c7", "a1 b6 c7"]);
}

#[test]
fn where_detection_goes_on() {
    let pattern = |skip| Pattern::begin("b", letter('b')).one_or_more().next("c", letter('c')).after_match(skip);
    let (b, text) = ("b".to_string(), "bbbc");
    let all = ["b1 b2 b3 c4", "b2 b3 c4", "b3 c4"];
    assert_eq!(matches(pattern(AfterMatch::NoSkip), text), all);
    assert_eq!(matches(pattern(AfterMatch::ToNext), text), all);
    assert_eq!(matches(pattern(AfterMatch::PastLast), text), all[..1]);
    assert_eq!(matches(pattern(AfterMatch::ToFirst(b.clone())), text), all);
    assert_eq!(matches(pattern(AfterMatch::ToLast(b)), text), [all[0], all[2]]);
    let twice = Pattern::begin("a", letter('a')).times(2).after_match(AfterMatch::PastLast);
    assert_eq!(matches(twice, "aaaaa"), ["a1 a2", "a3 a4"]);
}

#[test]
fn what_must_not_come() {
    let begin = || Pattern::begin("a", letter('a'));
    assert_eq!(matches(begin().not_followed_by(letter('x')).followed_by("c", letter('c')), "abcaxc"), ["a1 c3"]);
    assert_eq!(matches(begin().not_next(letter('x')).followed_by("c", letter('c')), "axcabxc"), ["a4 c7"]);
    // Nothing until the time is over.
    let absent = begin().not_followed_by(letter('b')).within(Duration::from_millis(3));
    assert_eq!(matches(absent, "axbaxxb"), ["a4"]);
}

#[test]
fn conditions_see_what_was_taken() {
    let rising = Pattern::begin("first", |_: &Row, _: &Match<'_, Row>| true)
        .next("rising", |row, so_far| so_far.rows().next_back().is_some_and(|(.., last)| row.1 > last.1))
        .times_or_more(2)
        .next("down", |row, so_far| so_far.last("rising").is_some_and(|last| row.1 < last.1))
        .after_match(AfterMatch::PastLast);
    assert_eq!(matches(rising, "abcdaefgb"), ["a1 b2 c3 d4 a5", "e6 f7 g8 b9"]);
}

#[test]
fn patterns_that_make_no_sense_are_refused() {
    let begin = || Pattern::begin("a", letter('a'));
    let wrong = [
        (begin().next("a", letter('b')), "are named \"a\""),
        (begin().times_between(0, 2), "cannot take 0 to 2"),
        (begin().one_or_more().greedy(), "never knows when it is over"),
        (begin().not_next(letter('b')), "ends with not_next"),
        (begin().not_followed_by(letter('b')), "has no time"),
        (begin().within(Duration::ZERO), "shorter than 1 ms"),
        (begin().after_match(AfterMatch::ToLast("z".into())), "no step of it"),
    ];
    for (pattern, part) in wrong {
        let error = pattern.check().unwrap_err();
        assert!(error.report().contains(part), "{}", error.report());
    }
}

#[test]
fn a_condition_that_panics_and_too_many_partial_matches_are_bad_records() {
    let pattern = Pattern::begin("a", |row: &Row, _: &Match<'_, Row>| {
        assert!(row.1 != b'!', "bang");
        row.1 == b'a'
    });
    let pattern = pattern.next("b", letter('b')).times(2).consecutive().limit(1);
    let show = |m: &Match<'_, Row>| m.len();
    let mut h = Harness::new(&detect::<u64, _, _, _>(&pattern, show, |_| ()), 1);
    // Row "!" leaves no trace: the two "b" are consecutive.
    for (key, text) in [(1u64, "ab!b"), (2, "aab")] {
        let rows: Vec<Row> = text.bytes().enumerate().map(|(i, b)| (i as u64, b)).collect();
        let n = rows.len();
        let mut batch = Rows::new(rows, vec![EventTime(0); n]);
        batch.keys = Some(Keys::encode(std::iter::repeat_n(key, n)));
        h.push(0, batch.boxed());
    }
    assert_eq!(h.take::<usize>(0), [(3, 0)]);
    let errors: Vec<_> = h.take_rejected().into_iter().map(|r| r.error).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0], "user function panicked: bang");
    let pattern = Pattern::begin("a", letter('a')).followed_by("b", letter('b')).limit(2);
    let mut h = Harness::new(&detect::<u64, _, _, _>(&pattern, show, |_| ()), 1);
    let mut batch = Rows::new(vec![(0u64, b'a'), (1, b'a'), (2, b'a'), (3, b'b')], vec![EventTime(0); 4]);
    batch.keys = Some(Keys::encode(std::iter::repeat_n(1u64, 4)));
    h.push(0, batch.boxed());
    assert_eq!(h.take::<usize>(0).len(), 2);
    assert!(h.take_rejected()[0].error.contains("more than 2 partial matches"));
}

/// The definition, with loops: every choice of rows, each condition looked at from the rows between.
struct Naive<'a> {
    nfa: &'a Nfa,
    /// Time and row.
    rows: &'a [(i64, Row)],
    fits: &'a dyn Fn(usize, u64, &[Taken]) -> bool,
    /// Position, rows, and what it is.
    events: Vec<((u64, u8), Found)>,
}

/// A way on from a partial match.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Again,
    To(usize),
}

impl Naive<'_> {
    fn last(taken: &[Taken]) -> (u64, usize, u32) {
        let (row, step) = taken[taken.len() - 1];
        (row, usize::from(step), taken.iter().filter(|t| t.1 == step).count() as u32)
    }

    fn complete(&self, taken: &[Taken]) -> bool {
        let (_, step, count) = Self::last(taken);
        count >= self.nfa.steps[step].min && self.nfa.steps[step + 1..].iter().all(|s| s.optional)
    }

    fn ways(&self, taken: &[Taken]) -> Vec<Way> {
        let (_, step, count) = Self::last(taken);
        let mut ways = Vec::new();
        if self.nfa.steps[step].max.is_none_or(|max| count < max) {
            ways.push(Way::Again);
        }
        if count >= self.nfa.steps[step].min {
            for target in step + 1..self.nfa.steps.len() {
                ways.push(Way::To(target));
                if !self.nfa.steps[target].optional {
                    break;
                }
            }
        }
        ways
    }

    fn end_time(&self, taken: &[Taken]) -> i64 {
        self.nfa.within_ms.map_or(i64::MAX, |within| self.rows[taken[0].0 as usize].0 + within)
    }

    /// Whether the way is still open when the rows after the last one up to (not including) `until` have come.
    fn is_open(&self, taken: &[Taken], way: Way, until: u64) -> bool {
        let (last, step, _) = Self::last(taken);
        let between = last + 1..until;
        let target = if let Way::To(target) = way { target } else { step };
        let of = &self.nfa.steps[target];
        let contiguity = if way == Way::Again { of.inner } else { of.link };
        let passes = match contiguity {
            Contiguity::Strict => between.is_empty(),
            Contiguity::Relaxed => !between.clone().any(|x| (self.fits)(of.fits, x, taken)),
            Contiguity::Any => true,
        };
        let skipped = if way == Way::Again { &[] } else { &self.nfa.steps[step + 1..=target] };
        let not_next = skipped.iter().flat_map(|s| &s.not_next).any(|n| !between.is_empty() && (self.fits)(*n, last + 1, taken));
        let not_between = skipped.iter().flat_map(|s| &s.not_between).any(|n| between.clone().any(|x| (self.fits)(*n, x, taken)));
        passes && !not_next && !not_between && !self.greedy_takes(taken, way, between)
    }

    /// Whether a greedy step before `way` takes one of the rows.
    fn greedy_takes(&self, taken: &[Taken], way: Way, mut rows: std::ops::Range<u64>) -> bool {
        let (_, step, _) = Self::last(taken);
        let before: Vec<Way> = self.ways(taken).into_iter().take_while(|w| *w != way).collect();
        rows.any(|x| before.iter().any(|w| self.nfa.steps[if let Way::To(t) = w { *t } else { step }].greedy && self.takes(taken, *w, x)))
    }

    fn takes(&self, taken: &[Taken], way: Way, x: u64) -> bool {
        let (last, step, _) = Self::last(taken);
        let target = if let Way::To(target) = way { target } else { step };
        let skipped = if way == Way::Again { &[] } else { &self.nfa.steps[step + 1..=target] };
        self.rows[x as usize].0 < self.end_time(taken)
            && self.is_open(taken, way, x)
            && !(x == last + 1 && skipped.iter().flat_map(|s| &s.not_next).any(|n| (self.fits)(*n, x, taken)))
            && !self.greedy_takes(taken, way, x..x + 1)
            && (self.fits)(self.nfa.steps[target].fits, x, taken)
    }

    fn explore(&mut self, taken: Vec<Taken>) {
        let (last, step, _) = Self::last(&taken);
        let (ways, n) = (self.ways(&taken), self.rows.len() as u64);
        if self.nfa.ending.is_empty() && self.complete(&taken) {
            self.events.push(((last, 1), Found::Match(taken.clone())));
        }
        for x in last + 1..n {
            for way in &ways {
                if self.takes(&taken, *way, x) {
                    let target = if let Way::To(target) = way { *target } else { step };
                    self.explore([&taken[..], &[(x, target as u16)]].concat());
                }
            }
        }
        if self.nfa.within_ms.is_none() {
            return;
        }
        let over = (0..n).find(|x| self.rows[*x as usize].0 >= self.end_time(&taken)).unwrap_or(n);
        let ended = !self.nfa.ending.is_empty()
            && self.complete(&taken)
            && !self.nfa.ending.iter().any(|not| (last + 1..over).any(|x| (self.fits)(*not, x, &taken)));
        if ended {
            self.events.push(((over, 0), Found::Match(taken)));
        } else if !self.complete(&taken) && ways.iter().any(|way| self.is_open(&taken, *way, over)) {
            self.events.push(((over, 0), Found::TimedOut(taken)));
        }
    }

    /// All that comes of every row that a match may start with, in order.
    fn explore_all(&mut self) {
        for x in 0..self.rows.len() as u64 {
            for (target, step) in self.nfa.steps.iter().enumerate() {
                let fits = (self.fits)(step.fits, x, &[]);
                if fits {
                    self.explore(vec![(x, target as u16)]);
                }
                if !step.optional || (fits && step.greedy) {
                    break;
                }
            }
        }
        self.events.sort_by(|a, b| (a.0, taken(&a.1)).cmp(&(b.0, taken(&b.1))));
    }

    /// The row that the next match may start with.
    fn skips_to(&self, rows: &[Taken]) -> u64 {
        let start = rows[0].0;
        let of = |name: &str| rows.iter().filter(|t| self.nfa.steps[usize::from(t.1)].name == name).map(|t| t.0).collect::<Vec<_>>();
        match &self.nfa.skip {
            AfterMatch::NoSkip => start,
            AfterMatch::ToNext => start + 1,
            AfterMatch::PastLast => rows[rows.len() - 1].0 + 1,
            AfterMatch::ToFirst(name) => of(name).first().copied().unwrap_or(start),
            AfterMatch::ToLast(name) => of(name).last().copied().unwrap_or(start),
        }
    }

    fn run(mut self) -> Vec<Found> {
        self.explore_all();
        let mut skips: Vec<std::ops::Range<u64>> = Vec::new();
        let mut found = Vec::new();
        for (_, event) in std::mem::take(&mut self.events) {
            let start = taken(&event)[0].0;
            if skips.iter().any(|skip| skip.contains(&start)) {
                continue;
            }
            if let Found::Match(rows) = &event {
                skips.push(start..self.skips_to(rows));
            }
            found.push(event);
        }
        found
    }

    /// As MATCH_RECOGNIZE reads: the first match of the first row, then on from where it skips to.
    fn by_start(mut self) -> Vec<Found> {
        self.explore_all();
        let (mut found, mut start) = (Vec::new(), 0);
        while start < self.rows.len() as u64 {
            let first = self.events.iter().find(|(_, event)| matches!(event, Found::Match(rows) if rows[0].0 == start));
            start = match first {
                Some((_, event)) => {
                    found.push(Found::Match(taken(event).to_vec()));
                    self.skips_to(taken(event)).max(start + 1)
                }
                None => start + 1,
            };
        }
        found
    }
}

fn taken(found: &Found) -> &[Taken] {
    let (Found::Match(taken) | Found::TimedOut(taken)) = found;
    taken
}

/// Condition, optional, least and how many more rows, greedy, inner and outer contiguity, not next, not between.
type StepSpec = (u8, bool, u32, Option<u32>, bool, u8, u8, Option<u8>, Option<u8>);

#[derive(Debug, Clone)]
struct Spec {
    steps: Vec<StepSpec>,
    ending: Option<u8>,
    within: Option<u64>,
    skip: u8,
    earliest: bool,
}

fn contiguity(n: u8) -> Contiguity {
    [Contiguity::Strict, Contiguity::Relaxed, Contiguity::Any][usize::from(n)]
}

/// Condition 3: not below the row taken last. Others: that letter.
fn condition(n: u8) -> impl Fn(&Row, &Match<'_, Row>) -> bool + Send + Sync + 'static {
    move |row, so_far| match n {
        3 => so_far.rows().next_back().is_none_or(|(.., last)| row.1 >= last.1),
        n => row.1 == n,
    }
}

fn build(spec: &Spec) -> Pattern<Row> {
    let mut pattern: Option<Pattern<Row>> = None;
    let last = spec.steps.len() - 1;
    for (i, (fits, optional, min, max, greedy, inner, link, not_next, not_between)) in spec.steps.iter().cloned().enumerate() {
        let name = format!("s{i}");
        let step = match pattern {
            None => Pattern::begin(&name, condition(fits)),
            Some(mut before) => {
                if let Some(not) = not_next {
                    before = before.not_next(condition(not));
                }
                if let Some(not) = not_between {
                    before = before.not_followed_by(condition(not));
                }
                before.step(&name, contiguity(link), condition(fits))
            }
        };
        pattern = Some(step.last(|s| {
            (s.optional, s.min, s.max, s.greedy) = (optional, min, max.map(|more| min + more), greedy && i < last);
            s.inner = contiguity(inner);
        }));
    }
    let mut pattern = pattern.expect("a step").after_match(match spec.skip {
        0 => AfterMatch::NoSkip,
        1 => AfterMatch::ToNext,
        2 => AfterMatch::PastLast,
        3 => AfterMatch::ToFirst("s1".into()),
        _ => AfterMatch::ToLast("s0".into()),
    });
    if spec.steps.len() == 1 && spec.skip == 3 {
        pattern = pattern.after_match(AfterMatch::NoSkip);
    }
    if spec.earliest {
        pattern = pattern.earliest_start_first();
    }
    if let Some(within) = spec.within {
        pattern = pattern.within(Duration::from_millis(within));
        if let Some(not) = spec.ending {
            pattern = pattern.not_followed_by(condition(not));
        }
    }
    pattern
}

fn specs() -> impl Strategy<Value = Spec> {
    let not = || proptest::option::weighted(0.2, 0u8..3);
    let step = (0u8..4, any::<bool>(), 1u32..3, proptest::option::of(0u32..2), any::<bool>(), 0u8..3, 0u8..3, not(), not());
    (
        proptest::collection::vec(step, 1..4),
        proptest::option::weighted(0.3, 0u8..3),
        proptest::option::weighted(0.7, 1u64..9),
        0u8..5,
        any::<bool>(),
    )
        .prop_map(|(steps, ending, within, skip, earliest)| Spec { steps, ending, within, skip, earliest })
}

type Shown = Vec<(String, u64)>;

fn show(m: &Match<'_, (u64, Row)>) -> (u64, Shown) {
    let rows: Vec<_> = m.rows().map(|(step, _, row)| (step.to_string(), row.1.0)).collect();
    (m.rows().next().map_or(0, |(.., row)| row.0), rows)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    /// Two keys at once, in every mode, with watermarks in between.
    #[test]
    fn detection_is_the_definition(spec in specs(), script in proptest::collection::vec((0u64..2, 0i64..3, 0u8..3, any::<bool>()), 0..12)) {
        let pattern = build(&spec);
        let nfa = pattern.nfa().unwrap();
        let (mut time, mut feed) = (0, Vec::new());
        let mut by_key: [Vec<(i64, Row)>; 2] = Default::default();
        for (key, later, letter, watermark) in script {
            time += later;
            let rows = &mut by_key[key as usize];
            let row: Row = (rows.len() as u64, letter);
            rows.push((time, row));
            let mut batch = Rows::new(vec![(key, row)], vec![EventTime(time)]);
            batch.keys = Some(Keys::encode(std::iter::once(key)));
            feed.push(Feed::rows(batch));
            if watermark {
                feed.push(Feed::watermark(time - 1));
            }
        }
        feed.push(Feed::End);
        // The same pattern over rows that know their key.
        let keyed = Pattern::<(u64, Row)> {
            steps: pattern.steps.clone(),
            conditions: pattern.conditions.iter().map(|c| {
                let c = c.clone();
                let wrapped: Condition<(u64, Row)> = Arc::new(move |row: &(u64, Row), so_far: &Match<'_, (u64, Row)>| {
                    let rows: Vec<KeptRow<Row>> = so_far.rows.iter().map(|r| (r.0, r.1, r.2.1)).collect();
                    c(&row.1, &Match { steps: so_far.steps, taken: so_far.taken, rows: &rows })
                });
                wrapped
            }).collect(),
            not_next: pattern.not_next.clone(),
            not_between: pattern.not_between.clone(),
            within: pattern.within,
            after_match: pattern.after_match.clone(),
            earliest_start_first: pattern.earliest_start_first,
            meaning: String::new(),
            limit: 100_000,
            problem: None,
        };
        let factory = detect::<u64, _, _, _>(&keyed, show, show);
        let got = Harness::in_every_mode(&factory, 1, &feed, |h| {
            assert!(h.take_rejected().is_empty());
            let mut of = |port| {
                let mut by_key: [Vec<Shown>; 2] = Default::default();
                for ((key, rows), _) in h.take::<(u64, Shown)>(port) {
                    by_key[key as usize].push(rows);
                }
                by_key
            };
            (of(0), of(TIMED_OUT_PORT))
        });
        for (key, rows) in by_key.iter().enumerate().take(2) {
            let kept: Vec<KeptRow<Row>> = rows.iter().enumerate().map(|(i, (time, row))| (i as u64, *time, *row)).collect();
            let fits = |condition: usize, x: u64, taken: &[Taken]| {
                (pattern.conditions[condition])(&rows[x as usize].1, &Match { steps: &nfa.steps, taken, rows: &kept }).unwrap()
            };
            let naive = Naive { nfa: &nfa, rows, fits: &fits, events: Vec::new() };
            let (mut matches, mut late): (Vec<Shown>, Vec<Shown>) = Default::default();
            for found in if spec.earliest { naive.by_start() } else { naive.run() } {
                let shown = taken(&found).iter().map(|(row, step)| (format!("s{step}"), *row)).collect();
                if matches!(found, Found::Match(_)) { matches.push(shown) } else { late.push(shown) }
            }
            prop_assert_eq!(&got.0[key], &matches, "matches of key {}", key);
            // What a match skips that waits itself is not said by the definition.
            prop_assert!(spec.earliest || got.1[key] == late, "timed out, key {}: {:?} for {:?}", key, got.1[key], late);
        }
    }
}

#[test]
fn the_earliest_start_is_first() {
    // From a letter to the same in upper case.
    let pair = |skip| {
        Pattern::begin("open", |row: &Row, _: &Match<'_, Row>| row.1.is_ascii_lowercase())
            .next("between", |_: &Row, _: &Match<'_, Row>| true)
            .one_or_more()
            .consecutive()
            .optional()
            .next("close", |row: &Row, so_far: &Match<'_, Row>| {
                so_far.first("open").is_some_and(|open| open.1.to_ascii_uppercase() == row.1)
            })
            .after_match(skip)
    };
    let (outer, inner) = ("a1 b2 B3 A4", "b2 B3");
    assert_eq!(matches(pair(AfterMatch::PastLast), "abBA"), [inner, outer]);
    assert_eq!(matches(pair(AfterMatch::PastLast).earliest_start_first(), "abBA"), [outer]);
    assert_eq!(matches(pair(AfterMatch::ToNext).earliest_start_first(), "abBA"), [outer, inner]);
    assert_eq!(matches(pair(AfterMatch::NoSkip).earliest_start_first(), "abBABA"), [outer, inner]);
    // That the outer one comes to nothing is known when its time is over, or when the input ends.
    assert_eq!(matches(pair(AfterMatch::PastLast).earliest_start_first(), "abBcC"), [inner, "c4 C5"]);
    let timed = pair(AfterMatch::PastLast).within(Duration::from_millis(3)).earliest_start_first();
    assert_eq!(matches(timed, "abBAcC"), [inner, "c5 C6"]);
}

#[test]
fn conditions_may_fail() {
    let pattern =
        Pattern::begin("a", |row: &Row, _: &Match<'_, Row>| if row.1 == b'!' { Err("no letter".to_string()) } else { Ok(row.1 == b'a') })
            .next("b", letter('b'));
    let mut h = Harness::new(
        &try_detect::<u64, _, _, ()>(&pattern, |m| if m.len() == 2 { Err("too long".into()) } else { Ok(0u8) }, |_| Ok(())),
        1,
    );
    let mut batch = Rows::new(vec![(0u64, b'a'), (1, b'!'), (2, b'b')], vec![EventTime(0); 3]);
    batch.keys = Some(Keys::encode(std::iter::repeat_n(1u64, 3)));
    h.push(0, batch.boxed());
    let errors: Vec<_> = h.take_rejected().into_iter().map(|r| r.error).collect();
    // The row that failed left no trace: the two around it are a match, which fails itself.
    assert_eq!(errors, ["no letter", "too long"]);
}

#[test]
fn a_pattern_with_a_time_keeps_nothing_longer() {
    let pattern = Pattern::begin("a", letter('a')).followed_by("b", letter('b')).within(Duration::from_millis(10));
    let factory = detect::<u64, _, _, _>(&pattern, |m| m.len(), |m| m.len());
    let mut h = Harness::new(&factory, 1);
    let empty = h.state_bytes();
    for t in 0..100i64 {
        let mut batch = Rows::new(vec![(0u64, b'a'); 20], vec![EventTime(t); 20]);
        batch.keys = Some(Keys::encode((0..20u64).map(|k| k + 20 * t as u64).collect::<Vec<_>>().into_iter()));
        h.push(0, batch.boxed());
        h.watermark(EventTime(t));
        h.snapshot_and_restore(1 + t as u32 % 3);
    }
    assert!(h.state_bytes() > empty);
    h.watermark(EventTime(200));
    h.snapshot_and_restore(1);
    assert_eq!(h.take::<usize>(TIMED_OUT_PORT).len(), 2000);
    assert!(h.state_bytes() <= empty, "{} of {empty} bytes", h.state_bytes());
}
