//! The page of real bugs names tests, workloads, faults and planted bugs; each of them must be there.
//!
//! Invariant: a row of `docs/bug-catalogue.md` names something that fails if its bug is ours, or says why it cannot be.

use std::fs;

use crate::support::{cargo, rust_source};

const PAGE: &str = "docs/bug-catalogue.md";
/// Rows of the page.
const ROWS: usize = 71;
/// How the third cell of a row begins whose bug there can be none of.
const CANNOT_BE: &str = "Cannot be here";

/// The cells of each row.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let numbered = |line: &&str| line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    page.lines().filter(numbered).map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a source file has this in its code, comments and texts aside.
fn has(path: &str, what: &str) -> bool {
    fs::read_to_string(cargo::root().join(path)).is_ok_and(|text| rust_source::blank_text(&text).contains(what))
}

/// Whether a reference is one, and what it refers to is there; `None` where it is a word like others.
fn is_there(reference: &str) -> Option<bool> {
    if let Some((path, test)) = reference.split_once("::").filter(|(path, _)| path.ends_with(".rs")) {
        return Some(has(path, &format!("fn {test}(")));
    }
    let (kind, name) = reference.split_once(':')?;
    match kind {
        "bug" => Some(has("engine/env/planted.rs", &format!("    {name},"))),
        "fault" => Some(has("tests/simulation/fault.rs", &format!("    {name},"))),
        "torture" => Some(has("tests/torture/fault.rs", &format!("    {name},"))),
        "workload" => {
            let files = rust_source::files(&cargo::root().join("tests/simulation/workloads"), &[".rs"]);
            let named = format!("name: \"{name}\"");
            Some(files.iter().any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(&named))))
        }
        _ => None,
    }
}

/// What is wrong with a page.
fn faults(page: &str) -> Vec<String> {
    let rows = rows(page);
    let mut faults = Vec::new();
    let numbers: Vec<String> = rows.iter().map(|row| row[0].to_string()).collect();
    let expected: Vec<String> = (1..=ROWS).map(|n| n.to_string()).collect();
    if numbers != expected {
        faults.push(format!("its rows are not 1 to {ROWS}: {numbers:?}"));
    }
    for row in &rows {
        let [number, what, holds, tests] = row[..] else {
            faults.push(format!("row {} has {} cells", row[0], row.len()));
            continue;
        };
        if what.is_empty() || holds.is_empty() {
            faults.push(format!("row {number} says nothing"));
        }
        let references: Vec<(&str, bool)> = quoted(tests).filter_map(|word| Some((word, is_there(word)?))).collect();
        if references.is_empty() && !holds.starts_with(CANNOT_BE) {
            faults.push(format!("row {number} names no test"));
        }
        faults.extend(references.iter().filter(|(_, there)| !there).map(|(word, _)| format!("row {number}: {word} is not there")));
        let missing = quoted(holds).filter(|word| word.ends_with(".rs") && !cargo::root().join(word).exists());
        faults.extend(missing.map(|path| format!("row {number}: {path} is not there")));
    }
    faults
}

#[test]
fn every_row_names_what_would_fail() {
    let page = fs::read_to_string(cargo::root().join(PAGE)).expect("the page is there");
    let faults = faults(&page);
    assert!(faults.is_empty(), "{PAGE}:\n{}", faults.join("\n"));
}

#[test]
fn what_is_not_there_is_found() {
    let page = |row: &str| (1..=ROWS).map(|n| if n == 7 { row.to_string() } else { good(n) }).collect::<Vec<_>>().join("\n");
    fn good(n: usize) -> String {
        format!(
            "| {n} | What. | Holds, `tests/catalogue.rs`. | `tests/catalogue.rs::what_is_not_there_is_found`, `bug:SkipFence`, `workload:count` |"
        )
    }
    assert_eq!(faults(&page(&good(7))), [""; 0]);
    for (row, fault) in [
        ("| 7 | What. | Holds. | `tests/catalogue.rs::nothing_of_that_name` |", "nothing_of_that_name is not there"),
        ("| 7 | What. | Holds. | `tests/nowhere.rs::source` |", "nowhere.rs::source is not there"),
        ("| 7 | What. | Holds. | `bug:SkipFences` |", "bug:SkipFences is not there"),
        ("| 7 | What. | Holds. | `fault:Kil` |", "fault:Kil is not there"),
        ("| 7 | What. | Holds. | `workload:coun` |", "workload:coun is not there"),
        ("| 7 | What. | Holds. | `torture:Kill` |", "torture:Kill is not there"),
        ("| 7 | What. | Holds. | by reading |", "names no test"),
        ("| 7 | What. | Holds, `engine/nowhere.rs`. | `bug:SkipFence` |", "engine/nowhere.rs is not there"),
        ("| 7 | What. |  | `bug:SkipFence` |", "says nothing"),
        ("| 7 | What. | Holds. |", "cells"),
    ] {
        let found = faults(&page(row));
        assert!(found.len() == 1 && found[0].contains(fault), "{row}: {found:?}");
    }
    assert_eq!(faults(&page("| 7 | What. | Cannot be here: why. | - |")), [""; 0]);
    assert!(faults(&page("")).iter().any(|fault| fault.contains("rows are not")));
}
