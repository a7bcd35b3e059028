//! Options whose values are secrets, and values that stand in the environment: `${env:NAME}`.
//!
//! Invariant: a reference is kept and shown as it was written. What it stands for is looked up when its table is connected, and is in
//! no text that is shown or kept.

use crate::parser::{Change, Statement, StatementKind};
use datafusion_sql::sqlparser::tokenizer::Span;

/// Begins a reference; a brace ends it.
const BEGIN: &str = "${env:";

/// Parts of the names of secrets, mistyped ones too.
const SECRET_PARTS: &[&str] = &["pass", "pasw", "pwd", "jaas", ".key", ".pem", "secret", "secert", "token", "credential"];

/// Whether an option is one of secrets: its value, unless it only refers to one, must never be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.starts_with("properties.") && SECRET_PARTS.iter().any(|part| key.contains(part))
}

/// Whether a value must neither be shown nor kept: that of a secret, unless each part of it that may be one stands in the environment.
///
/// ```
/// use waterwheel_sql::secrets::holds_secret;
/// assert!(holds_secret("properties.sasl.password", "hunter2"));
/// assert!(!holds_secret("properties.sasl.password", "${env:KAFKA_PASSWORD}"));
/// assert!(!holds_secret("properties.client.id", "me"));
/// ```
pub fn holds_secret(key: &str, value: &str) -> bool {
    is_secret(key) && !is_reference(value) && !(key.to_ascii_lowercase().ends_with("jaas.config") && is_of_references(value))
}

/// A value with what stands in the environment, of which `variable` knows the variables.
///
/// ```
/// use waterwheel_sql::secrets::resolved;
/// let variable = |name: &str| (name == "HOST").then(|| "one".to_string());
/// assert_eq!(resolved("${env:HOST}:9092", variable).unwrap(), "one:9092");
/// assert!(resolved("${env:PORT}", variable).unwrap_err().contains("PORT"));
/// ```
///
/// # Errors
/// What is wrong with the value, as the end of a sentence that begins with its option: a variable that is not set.
pub fn resolved(value: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut whole = String::with_capacity(value.len());
    for part in parts(value)? {
        match part {
            Part::Text(text) => whole.push_str(text),
            Part::Variable(name) => match variable(name) {
                Some(text) => whole.push_str(&text),
                None => return Err(format!("names the variable {name} of the environment, which is not set")),
            },
        }
    }
    Ok(whole)
}

/// The first option with a secret in a declaration that catalogs keep, and where it stands.
pub fn in_declaration(statement: &Statement) -> Option<(&str, Span)> {
    let own = match &statement.kind {
        StatementKind::CreateTable(table) if !table.temporary => &table.options[..],
        StatementKind::CreateView { temporary: false, .. } => &[],
        StatementKind::Alter(alter) => match &alter.change {
            Change::Set(options) => &options[..],
            _ => &[],
        },
        _ => return None,
    };
    let hinted = statement.hints.tables.iter().flat_map(|table| &table.options);
    own.iter().chain(hinted).find(|(key, value, _)| holds_secret(key, value)).map(|(key, _, place)| (key.as_str(), *place))
}

/// Refuses references that are none, and those in options that do not look them up.
pub(crate) fn check(key: &str, value: &str) -> Result<(), String> {
    match parts(value)? {
        parts if parts.len() > 1 && !key.starts_with("properties.") => {
            Err(format!("names the environment ({BEGIN}..}}), which only properties.* do"))
        }
        _ => Ok(()),
    }
}

enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

fn parts(value: &str) -> Result<Vec<Part<'_>>, String> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let (mut parts, mut rest) = (Vec::new(), value);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let Some((name, behind)) = after.split_once('}').filter(|(name, _)| is_name(name)) else {
            return Err(format!("has a {BEGIN} that is no {BEGIN}NAME}}"));
        };
        parts.extend([Part::Text(before), Part::Variable(name)]);
        rest = behind;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// Whether a value is one variable of the environment and nothing else.
fn is_reference(value: &str) -> bool {
    matches!(parts(value).as_deref(), Ok([Part::Text(""), Part::Variable(_), Part::Text("")]))
}

/// Whether each quoted value of a JAAS configuration but the user's name is a reference, and none stands without quotes.
fn is_of_references(jaas: &str) -> bool {
    let pieces: Vec<&str> = jaas.split('"').collect();
    let is_plain = |text: &str| text.trim_end().strip_suffix('=').unwrap_or(text).bytes().all(|b| b != b'=' && b != b'\'');
    pieces.len() % 2 == 1
        && pieces.iter().step_by(2).all(|text| is_plain(text))
        && pieces.chunks_exact(2).all(|pair| pair[0].trim_end().ends_with("username=") || is_reference(pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_no_secret_only_where_the_environment_holds_all_of_it() {
        let jaas = |user: &str, password: &str| format!("org.x.PlainLoginModule required username={user} password={password};");
        for value in ["", "hunter2", "x${env:P}", "${env:P}x", "${env:}", "${ENV:P}", "${env:P"] {
            assert!(holds_secret("properties.sasl.password", value), "{value}");
            let config = jaas("\"me\"", &format!("\"{value}\""));
            assert!(holds_secret("properties.sasl.jaas.config", &config), "{config}");
        }
        for config in [jaas("\"me\"", "hunter2"), jaas("\"me\"", "'hunter2'"), jaas("'me'", "'${env:P}'"), jaas("\"${env:P}\"", "\"x")] {
            assert!(holds_secret("properties.sasl.jaas.config", &config), "{config}");
        }
        for config in [jaas("\"me\"", "\"${env:P}\""), jaas("\"${env:U}\"", "\"${env:P}\"")] {
            assert!(!holds_secret("properties.sasl.jaas.config", &config), "{config}");
        }
        assert!(!holds_secret("properties.ssl.key.password", "${env:P_1}"));
    }

    #[test]
    fn references_are_looked_up_wherever_they_stand() {
        let variable = |name: &str| Some(format!("<{name}>"));
        for (value, whole) in [("", ""), ("$x{env:A}", "$x{env:A}"), ("${env:A}", "<A>"), ("a${env:A}b${env:B_2}", "a<A>b<B_2>")] {
            assert_eq!(resolved(value, variable).as_deref(), Ok(whole));
        }
        assert!(resolved("${env:A B}", variable).is_err());
        assert!(check("properties.client.id", "${env:A}").is_ok() && check("path", "a}b").is_ok());
        assert!(check("path", "${env:A}").is_err() && check("properties.client.id", "${env:").is_err());
    }
}
