//! Tidiness that no other tool checks: headers, size, left-overs, blanks at line ends, paths of somebody's machine.

use std::path::Path;

use crate::support::{cargo, rust_source};

/// The most lines of production code that a file may have; good files stay far below.
const LINE_CAP: usize = 700;

/// Left-overs of unfinished work, without the `!` so that this file does not find itself.
const LEFT_OVERS: &[&str] = &["todo", "unimplemented", "dbg"];

/// Where paths of one machine start; split so that this file does not find itself.
const MACHINE_PATHS: &[&str] = &[concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("C:\\", "Users")];

#[test]
fn every_source_file_is_tidy() {
    let files = rust_source::files(cargo::root(), &[".rs"]);
    assert!(files.len() > 10, "only {} source files: the check looks in the wrong place", files.len());
    report(&files, source_faults);
}

#[test]
fn every_text_file_is_tidy() {
    let mut files = rust_source::files(cargo::root(), &[".rs", ".toml", ".md", ".sql", ".xml", ".html", ".css"]);
    files.extend(rust_source::files(&cargo::root().join("script"), &[""]));
    files.push(cargo::root().join(".ci/run"));
    report(&files, text_faults);
}

/// Fails with every fault that `check` finds in `files`.
fn report(files: &[impl AsRef<Path>], check: fn(&str) -> Vec<String>) {
    let mut faults = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let name = path.strip_prefix(cargo::root()).unwrap_or(path).display();
        match std::fs::read_to_string(path) {
            Ok(text) => faults.extend(check(&text).into_iter().map(|fault| format!("{name}: {fault}"))),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    assert!(faults.is_empty(), "untidy:\n{}", faults.join("\n"));
}

/// What is wrong with a Rust file.
fn source_faults(source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !source.starts_with("//! ") {
        faults.push("opens without a `//!` header that states its concept".to_owned());
    }
    let code = rust_source::blank_text(source);
    let production = production_lines(source, &rust_source::blank_tests(&code));
    if production > LINE_CAP {
        faults.push(format!("{production} lines of production code, the cap is {LINE_CAP}: cut it at a concept"));
    }
    for (number, line) in code.lines().enumerate() {
        for name in LEFT_OVERS {
            let called =
                line.match_indices(&format!("{name}!")).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if called {
                faults.push(format!("line {}: `{name}!` is left over", number + 1));
            }
        }
    }
    faults
}

/// Lines that are neither blank nor inside a test module. Comments count: they are read too.
fn production_lines(source: &str, without_tests: &str) -> usize {
    let code = rust_source::blank_text(source);
    let kept = source.lines().zip(code.lines()).zip(without_tests.lines());
    kept.filter(|((source, code), kept)| !source.trim().is_empty() && (code.trim().is_empty() || !kept.trim().is_empty())).count()
}

/// What is wrong with any text file.
fn text_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            faults.push(format!("line {}: blanks at the end", number + 1));
        }
        if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(**path)) {
            faults.push(format!("line {}: `{path}` is a path of one machine", number + 1));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push("no line break at the end".to_owned());
    }
    faults
}

#[test]
fn planted_faults_are_found() {
    assert!(source_faults("//! A header.\nfn f() { /* todo!() */ my_dbg!(1); }\n").is_empty());
    assert_eq!(source_faults("fn f() {}\n").len(), 1);
    assert_eq!(source_faults(concat!("//! A header.\nfn f() { to", "do!() }\n")).len(), 1);

    let long = format!("//! A header.\n{}", "fn f() {}\n".repeat(LINE_CAP));
    assert_eq!(source_faults(&long).len(), 1);
    let tests = format!("//! A header.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(LINE_CAP));
    assert!(source_faults(&tests).is_empty());

    assert!(text_faults("a\nb\n").is_empty());
    assert_eq!(text_faults("a \nb").len(), 2);
    assert_eq!(text_faults(&format!("see {}me\n", MACHINE_PATHS[1])).len(), 1);
}
