//! The arrows of the house: a module of the engine imports strictly lower levels, and crates that must not meet do not.
//!
//! The table below is the one of ARCHITECTURE.md. Tests inside a module may use what they like.

use std::path::Path;

use serde_json::Value;

use crate::support::{cargo, rust_source};

/// The modules of the engine and their rank; a module may import a strictly lower rank. Within level 0 the order is
/// time, record, env, observe. Equal ranks never import each other.
const RANKS: &[(&str, u8)] = &[
    ("error", 0),
    ("time", 1),
    ("record", 2),
    ("env", 3),
    ("observe", 4),
    ("state", 10),
    ("exchange", 10),
    ("operators", 20),
    ("windowing", 30),
    ("graph", 40),
    ("dsl", 50),
    ("checkpoint", 50),
    ("runtime", 60),
    ("testing", 70),
];

/// Arrows that the ranks would allow and the design does not: (from, to, reason).
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("checkpoint", "graph", "a checkpoint knows operator ids and files, not plans"),
    ("checkpoint", "windowing", "a checkpoint knows operator ids and files, not operators"),
    ("checkpoint", "operators", "a checkpoint knows operator ids and files, not operators"),
    ("runtime", "dsl", "the runtime runs physical graphs, whoever drew them"),
];

/// Arrows against the ranks that are accepted: (from, to, reason).
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("checkpoint", "operators", "contracts only: what sources, sinks and lanes hand over to be remembered")];

/// Names at the root of the engine that belong to no level.
const ROOT_NAMES: &[&str] = &["Error", "Result"];

/// Crates of the workspace and the only other crates of it that they may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("waterwheel-engine", &[]),
    ("waterwheel-connectors", &["waterwheel-engine"]),
    ("waterwheel-sql", &["waterwheel-engine"]),
    ("waterwheel-cluster", &["waterwheel-engine"]),
];

/// One import that breaks the order.
#[derive(Debug, PartialEq)]
struct Violation {
    line: usize,
    from: String,
    to: String,
    reason: String,
}

#[test]
fn engine_modules_import_only_lower_levels() {
    let engine = cargo::root().join("engine");
    let mut used = vec![false; EXCEPTIONS.len()];
    let mut broken = Vec::new();
    let mut seen = 0;
    for path in rust_source::files(&engine, &[".rs"]) {
        let relative = path.strip_prefix(&engine).expect("below engine/");
        let Some(module) = module_path(relative) else { continue };
        seen += 1;
        let source = std::fs::read_to_string(&path).expect("a UTF-8 source file");
        for violation in violations(&module, &source) {
            let (from, to) = (violation.from.as_str(), violation.to.as_str());
            match EXCEPTIONS.iter().position(|&(f, t, _)| (f, t) == (from, to)) {
                Some(exception) => used[exception] = true,
                None => {
                    broken.push(format!("engine/{}:{}: `{from}` imports `{to}`: {}", relative.display(), violation.line, violation.reason))
                }
            }
        }
    }
    assert!(seen > 0, "no module of the engine was found: the check looks in the wrong place");
    assert!(broken.is_empty(), "arrows against the layers:\n{}", broken.join("\n"));
    let unused: Vec<_> = EXCEPTIONS.iter().zip(used).filter(|(_, used)| !used).collect();
    assert!(unused.is_empty(), "exceptions without a use, remove them: {unused:?}");
}

#[test]
fn crates_depend_only_on_what_they_may() {
    let packages = cargo::metadata()["packages"].as_array().expect("packages");
    let mine: Vec<&Value> = packages.iter().filter(|package| package["source"].is_null()).collect();
    let names: Vec<&str> = mine.iter().filter_map(|package| package["name"].as_str()).collect();
    assert!(names.contains(&"waterwheel-engine"), "the engine is not in {names:?}");
    for (name, allowed) in CRATES {
        let Some(package) = mine.iter().find(|package| package["name"] == *name) else { continue };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name");
            let production = dependency["kind"] != "dev";
            assert!(
                !production || !names.contains(&to) || allowed.contains(&to),
                "{name} depends on {to}; of this workspace it may depend on {allowed:?} only"
            );
        }
    }
}

/// The module of a file below engine/: `state/hot.rs` is `[state, hot]`. Nothing for the crate root and for files that
/// hold tests only.
fn module_path(relative: &Path) -> Option<Vec<String>> {
    let mut parts: Vec<String> = relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.iter().any(|part| part == "tests") || parts == ["lib"] {
        return None;
    }
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    Some(parts)
}

/// All imports of `source`, the file of `module`, that break the order.
fn violations(module: &[String], source: &str) -> Vec<Violation> {
    let code = rust_source::blank_tests(&rust_source::blank_text(source));
    let from = module[0].as_str();
    let mut found = Vec::new();
    for (at, to) in root_names(&code, module.len()) {
        let Some(reason) = objection(from, &to) else { continue };
        let line = code[..at].matches('\n').count() + 1;
        found.push(Violation { line, from: from.to_owned(), to, reason });
    }
    found
}

/// Why `from` may not import `to`, or nothing if it may.
fn objection(from: &str, to: &str) -> Option<String> {
    let rank = |module: &str| RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank);
    if from == to || ROOT_NAMES.contains(&to) {
        return None;
    }
    if let Some((.., reason)) = FORBIDDEN.iter().find(|&&(f, t, _)| (f, t) == (from, to)) {
        return Some((*reason).to_owned());
    }
    match (rank(from), rank(to)) {
        (None, _) => Some(format!("`{from}` has no rank yet: give it one in tests/layers.rs")),
        (_, None) => Some(format!("`{to}` is no module with a rank: import it from the module where it lives")),
        (Some(from), Some(to)) if to < from => None,
        _ => Some("a module imports strictly lower levels".to_owned()),
    }
}

/// Every name that `code` takes from the crate root, with its position: through `crate::` or through as many `super::`
/// as lead there from a module at `depth`. Groups (`crate::{a::B, c}`) name several. Macros (`crate::m!`) have no level.
fn root_names(code: &str, depth: usize) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", to_root.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            let inside_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if inside_word || code[..at].ends_with("super::") {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// The first path segments after a prefix: one name, or those of a group at its top level.
fn first_names(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return leading_name(rest).into_iter().collect();
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth > 0 => {}
            ',' | '}' => {
                names.extend(leading_name(group[start..i].trim_start()));
                start = i + 1;
            }
            _ => {}
        }
        if c == '}' && start == i + 1 {
            break;
        }
    }
    names
}

/// The identifier that `text` starts with, unless it is a macro's.
fn leading_name(text: &str) -> Option<String> {
    if text.starts_with('*') {
        return Some("*".to_owned());
    }
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let is_macro = text[name.len()..].starts_with('!');
    (!name.is_empty() && !is_macro && name != "self").then_some(name)
}

/// The modules that the planted `source` of `module` may not import, in order of appearance.
fn planted(module: &str, source: &str) -> Vec<String> {
    let module: Vec<String> = module.split("::").map(str::to_owned).collect();
    violations(&module, source).into_iter().map(|violation| violation.to).collect()
}

#[test]
fn a_planted_upward_arrow_is_found() {
    let found = violations(&["state".to_owned()], "//! x\nuse crate::record::Key;\nuse crate::runtime::Task;\n");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].line, found[0].to.as_str()), (3, "runtime"));

    assert_eq!(planted("state", "use crate::exchange::Gate;"), ["exchange"]);
    assert_eq!(planted("exchange", "fn f(s: &crate::state::Table) {}"), ["state"]);
    assert_eq!(planted("time", "use crate::{error::E, record::{A, env}, env::{Clock, dsl::B}, graph};"), ["record", "env", "graph"]);
    assert_eq!(planted("state::hot", "use super::super::dsl::Stream;"), ["dsl"]);
    assert_eq!(planted("checkpoint", "use crate::operators::Sink;"), ["operators"]);
    assert_eq!(planted("runtime", "use crate::dsl::Stream;"), ["dsl"]);
    assert_eq!(planted("dsl", "use crate::checkpoint::Manifest;"), ["checkpoint"]);
    assert_eq!(planted("record", "use crate::Rows;"), ["Rows"]);
    assert_eq!(planted("record", "use crate::*;"), ["*"]);
    assert_eq!(planted("gadgets", "use crate::record::Key;"), ["record"]);
}

#[test]
fn what_the_design_allows_is_not_found() {
    assert!(planted("runtime", "use crate::{checkpoint::Job, graph::Plan, Error};\nuse super::runtime;").is_empty());
    assert!(planted("env", "use crate::error::Error; use crate::time::EventTime; use self::files::File;").is_empty());
    assert!(planted("state::hot", "use super::Table; use super::super::state::Key; fn f() { crate::check!(1) }").is_empty());
    assert!(planted("state", "// crate::runtime\nconst A: &str = \"crate::dsl\"; use my_crate::dsl;").is_empty());
    assert!(planted("state", "#[cfg(test)]\nmod tests { use crate::testing::Harness; }").is_empty());
}
