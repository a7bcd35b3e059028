//! The URL of topics.
//!
//! Invariant: what is displayed names hosts or a folder, never the values of options (they may be secrets).

use super::Topics;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use waterwheel_engine::env::Env;
use waterwheel_engine::error::{Error, Result};

/// Where topics live.
///
/// ```
/// use waterwheel_connectors::topics::TopicsUrl;
/// let url: TopicsUrl = "kafka://one:9092,two".parse().unwrap();
/// assert_eq!(url.to_string(), "kafka://one:9092,two:9092");
/// assert!("kafak://one".parse::<TopicsUrl>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum TopicsUrl {
    /// The embedded log in a folder: `local:./data`.
    Local(PathBuf),
    /// Kafka: `kafka://host:9092,host2:9092?client.id=x`.
    Kafka {
        /// `host:port` each.
        servers: Vec<String>,
        /// Client properties; the connector knows which are allowed.
        options: BTreeMap<String, String>,
    },
}

impl TopicsUrl {
    /// The whole URL, which means the same when it is parsed again. It has the values of options, secrets too: to be handed on, never
    /// to be shown.
    pub fn in_full(&self) -> String {
        match self {
            TopicsUrl::Kafka { options, .. } if !options.is_empty() => {
                let options: Vec<String> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{self}?{}", options.join("&"))
            }
            _ => self.to_string(),
        }
    }

    /// Opens the door. Connects to nothing yet.
    ///
    /// # Errors
    /// Client properties that are refused.
    pub fn open(&self, env: &Env) -> Result<Arc<dyn Topics>> {
        match self {
            TopicsUrl::Local(folder) => Ok(Arc::new(crate::local::LocalTopics::new(env.clone(), folder.clone()))),
            TopicsUrl::Kafka { servers, options } => Ok(Arc::new(crate::kafka::KafkaTopics::new(env.clone(), servers, options)?)),
        }
    }
}

impl FromStr for TopicsUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::fatal(format!("{:?} is not a topics URL: {why}", text.split('?').next().unwrap_or_default()))
                .help("a folder:  local:./data")
                .help("Kafka:     kafka://host:9092")
        };
        if let Some(folder) = text.strip_prefix("local:") {
            let folder = folder.strip_prefix("//").unwrap_or(folder);
            return if folder.is_empty() { Err(refuse("the folder is missing")) } else { Ok(TopicsUrl::Local(folder.into())) };
        }
        let Some(rest) = text.strip_prefix("kafka://") else {
            return Err(refuse("it begins with neither local: nor kafka://"));
        };
        let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
        let servers = hosts.trim_end_matches('/').split(',').map(|host| server(host.trim())).collect::<Option<Vec<_>>>();
        let servers = servers.ok_or_else(|| refuse("a host is missing or its port is no number"))?;
        let mut options = BTreeMap::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| refuse("an option has no value"))?;
            options.insert(name.to_string(), value.to_string());
        }
        Ok(TopicsUrl::Kafka { servers, options })
    }
}

/// `host` or `host:port` or `[v6]:port`, with the port filled in.
fn server(text: &str) -> Option<String> {
    let after_host = text.rsplit_once(']').map_or(text, |(_, rest)| rest);
    match after_host.rsplit_once(':') {
        _ if text.is_empty() || text.contains(['/', ' ', '@']) => None,
        None => Some(format!("{text}:9092")),
        Some((_, port)) => {
            port.parse::<u16>().ok()?;
            (!text.starts_with(':')).then(|| text.to_string())
        }
    }
}

impl fmt::Display for TopicsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopicsUrl::Local(folder) => write!(f, "local:{}", folder.display()),
            TopicsUrl::Kafka { servers, .. } => write!(f, "kafka://{}", servers.join(",")),
        }
    }
}

impl fmt::Debug for TopicsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_parse_and_show_no_secrets() {
        for (text, shown) in [
            ("local:./data", "local:./data"),
            ("local:///var/data", "local:/var/data"),
            ("kafka://a", "kafka://a:9092"),
            ("kafka://a:1,b:2/", "kafka://a:1,b:2"),
            ("kafka://[::1]:9093", "kafka://[::1]:9093"),
            ("kafka://a?sasl.password=hunter2&x=y=z", "kafka://a:9092"),
        ] {
            let url: TopicsUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_string(), shown.to_string()));
            assert_eq!(url.in_full().parse::<TopicsUrl>().unwrap(), url);
        }
        let TopicsUrl::Kafka { options, .. } = "kafka://a?x=y=z".parse().unwrap() else { panic!("not Kafka") };
        assert_eq!(options["x"], "y=z");
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_secrets() {
        for text in ["", "./data", "local:", "kafka://", "kafka://a:x", "kafka://a,,b", "kafka://:9092", "kafka://u:p@h:1", "http://a"] {
            assert!(text.parse::<TopicsUrl>().is_err(), "{text}");
        }
        let e = "kafka://a?hunter2".parse::<TopicsUrl>().unwrap_err();
        assert!(!e.report().contains("hunter2"));
    }
}
