//! What went wrong, in words of the engine, and without secrets.
//!
//! Invariant: an answer of a server may repeat what it was sent; no value of a credential's variable leaves in a message.

use waterwheel_engine::error::Error;

/// Variables whose values are in no message.
const SECRETS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// An error of the store, at a place.
pub(super) fn failed(doing: &str, place: &str, e: &object_store::Error) -> Error {
    use object_store::Error as E;
    match e {
        // Answers to refused requests repeat the key and what was signed: nothing of them is shown.
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Error::fatal(format!("the object store refuses access: {doing}"))
            .at(place)
            .help("check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION")
            .help("the rights needed on the bucket are those to get, put, list and delete objects"),
        E::NotFound { .. } => Error::fatal(format!("the object store has no such bucket: {doing}"))
            .at(place)
            .help("make the bucket; the folder in it need not be there"),
        E::NotImplemented { .. } | E::NotSupported { .. } => {
            Error::fatal(format!("the object store cannot do this: {doing}: {}", shown(e))).at(place)
        }
        _ => Error::transient(format!("the object store is away: {doing}: {}", shown(e))).at(place),
    }
}

/// The text of an error on one line, without secrets.
fn shown(e: &object_store::Error) -> String {
    let secrets = SECRETS.iter().filter_map(|name| std::env::var(name).ok());
    hide(e.to_string().split_whitespace().collect::<Vec<_>>().join(" "), secrets)
}

fn hide(text: String, secrets: impl Iterator<Item = String>) -> String {
    secrets.filter(|secret| !secret.is_empty()).fold(text, |text, secret| text.replace(&secret, "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_in_no_message() {
        let text = "<AWSAccessKeyId>AKIA7</AWSAccessKeyId> token tok+en/1".to_string();
        let shown = hide(text, ["AKIA7".to_string(), String::new(), "tok+en/1".to_string()].into_iter());
        assert_eq!(shown, "<AWSAccessKeyId>***</AWSAccessKeyId> token ***");
        let refused = object_store::Error::PermissionDenied { path: "p".into(), source: "StringToSign of AKIA7".into() };
        let report = failed("reading", "s3://b", &refused).report();
        assert!(!report.contains("AKIA7") && report.contains("AWS_ACCESS_KEY_ID"), "{report}");
    }
}
