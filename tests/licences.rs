//! Every dependency that any build could contain has a licence that the project accepts.
//!
//! Licences are SPDX expressions: of `A OR B` one side must be accepted, of `A AND B` both.

use serde_json::Value;

use crate::support::cargo;

/// Licences that ask for no more than their text beside the program.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Accepted for one package only: (package, licence, reason).
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

#[test]
fn every_dependency_has_an_accepted_licence() {
    let packages = cargo::metadata()["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "only {} packages: the check looks in the wrong place", packages.len());
    let built = built_here();
    let refused: Vec<String> = packages.iter().filter(|package| built.contains(&&package["id"])).filter_map(objection).collect();
    assert!(refused.is_empty(), "licences that are not accepted:\n{}", refused.join("\n"));
    for (name, ..) in EXCEPTIONS {
        let present = packages.iter().any(|package| package["name"] == *name);
        assert!(present, "the exception for {name} has no use: remove it");
    }
}

/// The ids of the packages that this platform builds; `cargo metadata` may list others.
fn built_here() -> Vec<&'static Value> {
    let nodes = cargo::metadata()["resolve"]["nodes"].as_array().expect("a resolved graph");
    nodes.iter().map(|node| &node["id"]).collect()
}

/// Why `package` is refused, or nothing if it is accepted.
fn objection(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let version = package["version"].as_str().unwrap_or_default();
    let Some(expression) = package["license"].as_str() else {
        return Some(format!("{name} {version}: names no licence"));
    };
    let extra: Vec<&str> = EXCEPTIONS.iter().filter(|(package, ..)| *package == name).map(|(_, licence, _)| *licence).collect();
    let accepted = |licence: &str| ACCEPTED.contains(&licence) || extra.contains(&licence);
    match evaluate(expression, &accepted) {
        Ok(true) => None,
        Ok(false) => Some(format!("{name} {version}: {expression}")),
        Err(reason) => Some(format!("{name} {version}: `{expression}` is no SPDX expression: {reason}")),
    }
}

/// Evaluates an SPDX expression, `accepted` telling the value of a licence (with its exception, if it has one).
fn evaluate(expression: &str, accepted: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    // "MIT/Apache-2.0" is how cargo wrote OR before it knew SPDX.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, accepted };
    let value = parser.any()?;
    match parser.words {
        [] => Ok(value),
        [rest, ..] => Err(format!("unexpected `{rest}`")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    accepted: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    /// `all (OR all)*`
    fn any(&mut self) -> Result<bool, String> {
        let mut value = self.all()?;
        while self.take("OR") {
            value |= self.all()?;
        }
        Ok(value)
    }

    /// `one (AND one)*`
    fn all(&mut self) -> Result<bool, String> {
        let mut value = self.one()?;
        while self.take("AND") {
            value &= self.one()?;
        }
        Ok(value)
    }

    /// `( any )`, or a licence with or without an exception
    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let value = self.any()?;
            return if self.take(")") { Ok(value) } else { Err("a `)` is missing".to_owned()) };
        }
        match self.words {
            [licence, "WITH", exception, rest @ ..] => {
                self.words = rest;
                Ok((self.accepted)(&format!("{licence} WITH {exception}")))
            }
            [licence, rest @ ..] if !["AND", "OR", "WITH", ")"].contains(licence) => {
                self.words = rest;
                Ok((self.accepted)(licence))
            }
            _ => Err("a licence is missing".to_owned()),
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }
}

#[test]
fn expressions_are_evaluated() {
    let value = |expression| evaluate(expression, &|licence| ACCEPTED.contains(&licence));
    for accepted in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0-only OR MIT",
        "(MIT OR GPL-3.0-only) AND Unicode-3.0",
        "GPL-2.0-only OR Apache-2.0 WITH LLVM-exception",
    ] {
        assert_eq!(value(accepted), Ok(true), "{accepted}");
    }
    for refused in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "GPL-3.0-only OR MIT AND MPL-2.0", "MIT WITH X"] {
        assert_eq!(value(refused), Ok(false), "{refused}");
    }
    for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND MIT"] {
        assert!(value(broken).is_err(), "{broken}");
    }
}

#[test]
fn a_planted_package_is_refused() {
    let package = |licence: Value| serde_json::json!({ "name": "planted", "version": "1.0.0", "license": licence });
    assert_eq!(objection(&package("MIT".into())), None);
    assert_eq!(objection(&package("AGPL-3.0-only".into())).as_deref(), Some("planted 1.0.0: AGPL-3.0-only"));
    assert!(objection(&package(Value::Null)).is_some());
}
