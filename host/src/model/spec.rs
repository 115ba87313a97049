//! The function spec: what `whit.toml` says of one function, and the API's JSON.
//!
//! [`FunctionSpec`] is what a host keeps: how a component runs. Where the
//! component comes from (`source`, `component`, `build`) is only the business
//! of the machine that builds it: [`FunctionEntry`], [`Manifest`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::allow::AllowHost;
use super::ids::FunctionName;
use super::limits::{self, Limits};
use super::quantity::{ByteSize, Millis};
use super::route::RoutePattern;

/// Most routes of one function.
pub const ROUTES_MAX: usize = 100;
/// Most environment variables of one function.
pub const ENV_MAX: usize = 200;
/// Total size of names and values of the environment, in bytes.
pub const ENV_BYTES_MAX: usize = 64 << 10;
/// Most entries of `allow_hosts`.
pub const ALLOW_HOSTS_MAX: usize = 100;

/// How one function runs. Every field has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionSpec {
    /// Routes besides the function's own URL.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RoutePattern>,
    /// Linear memory of one instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Wall time of one invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// CPU time of one invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Millis>,
    /// Largest request body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<ByteSize>,
    /// Largest response body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body: Option<ByteSize>,
    /// Log output of one invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<ByteSize>,
    /// Invocations at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Environment variables that the guest sees.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where outgoing requests may go: `https://api.example.com`,
    /// `http://*.example.com:8080`. Nothing by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_hosts: Vec<AllowHost>,
    /// Whether responses carry `Server-Timing`. On unless turned off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_timing: Option<bool>,
}

/// The keys of [`FunctionSpec`].
pub const SPEC_KEYS: &[&str] = &[
    "routes",
    "memory",
    "timeout",
    "cpu",
    "request_body",
    "response_body",
    "logs",
    "concurrency",
    "env",
    "allow_hosts",
    "server_timing",
];

/// The keys of [`FunctionEntry`] that say where the component comes from.
pub const SOURCE_KEYS: &[&str] = &["source", "language", "engine", "component", "build"];

/// Why a spec or manifest was refused. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A key that no spec has.
    #[error("unknown key {key:?}{}", suggest(.nearest))]
    UnknownKey {
        /// Where it stood and what it was called.
        key: String,
        /// The known key closest to it, if one is close.
        nearest: Option<&'static str>,
    },
    /// A value that can not be read, or is out of bounds.
    #[error("{field}: {why}")]
    Value {
        /// The field.
        field: String,
        /// What is wrong, and what is accepted.
        why: String,
    },
    /// The document is not TOML or not JSON.
    #[error("{0}")]
    Syntax(String),
}

fn suggest(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None => format!("; known keys: {}", SPEC_KEYS.join(", ")),
    }
}

fn value_error(field: &str, why: impl Into<String>) -> SpecError {
    SpecError::Value { field: field.into(), why: why.into() }
}

/// The known key nearest to `key`, if it is near enough to be a slip.
fn nearest(key: &str, known: &[&[&'static str]]) -> Option<&'static str> {
    known
        .iter()
        .flat_map(|keys| keys.iter())
        .map(|candidate| (strsim::jaro_winkler(key, candidate), *candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

impl FunctionSpec {
    /// Reads a spec from JSON and checks it.
    ///
    /// # Errors
    /// Names the first unknown key, unreadable value or exceeded bound.
    pub fn from_json(text: &[u8]) -> Result<Self, SpecError> {
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| SpecError::Syntax(error.to_string()))?;
        let serde_json::Value::Object(fields) = value else {
            return Err(SpecError::Syntax("a spec is a JSON object".into()));
        };
        let mut spec = Self::default();
        for (key, value) in fields {
            if !SPEC_KEYS.contains(&key.as_str()) {
                let nearest = nearest(&key, &[SPEC_KEYS]);
                return Err(SpecError::UnknownKey { key, nearest });
            }
            // One field at a time: the error can name it.
            let single = serde_json::Value::Object([(key.clone(), value)].into_iter().collect());
            let parsed: Self = serde_json::from_value(single)
                .map_err(|error| value_error(&key, error.to_string()))?;
            spec.take_field(&key, parsed);
        }
        spec.validate()?;
        Ok(spec)
    }

    fn take_field(&mut self, key: &str, parsed: Self) {
        match key {
            "routes" => self.routes = parsed.routes,
            "memory" => self.memory = parsed.memory,
            "timeout" => self.timeout = parsed.timeout,
            "cpu" => self.cpu = parsed.cpu,
            "request_body" => self.request_body = parsed.request_body,
            "response_body" => self.response_body = parsed.response_body,
            "logs" => self.logs = parsed.logs,
            "concurrency" => self.concurrency = parsed.concurrency,
            "env" => self.env = parsed.env,
            "allow_hosts" => self.allow_hosts = parsed.allow_hosts,
            _ => self.server_timing = parsed.server_timing,
        }
    }

    /// The limits that this spec asks for, defaults filled in.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            timeout_ms: self.timeout.map_or(default.timeout_ms, |time| time.0),
            cpu_ms: self.cpu.map_or(default.cpu_ms, |time| time.0),
            memory_bytes_max: self.memory.map_or(default.memory_bytes_max, |size| size.0),
            request_body_bytes_max: self
                .request_body
                .map_or(default.request_body_bytes_max, |size| size.0),
            response_body_bytes_max: self
                .response_body
                .map_or(default.response_body_bytes_max, |size| size.0),
            log_bytes_max: self.logs.map_or(default.log_bytes_max, |size| size.0),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            queue_wait_ms: default.queue_wait_ms,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the first field that is out of bounds, and the bound.
    pub fn validate(&self) -> Result<(), SpecError> {
        let size = |field, value: Option<ByteSize>, max: u64| match value {
            Some(ByteSize(bytes)) if bytes > max => {
                Err(value_error(field, format!("at most {}", ByteSize(max))))
            }
            _ => Ok(()),
        };
        let time = |field, value: Option<Millis>| match value {
            Some(Millis(0)) => Err(value_error(field, "must be more than 0")),
            Some(Millis(ms)) if ms > limits::TIMEOUT_MS_MAX => {
                Err(value_error(field, format!("at most {}", Millis(limits::TIMEOUT_MS_MAX))))
            }
            _ => Ok(()),
        };
        time("timeout", self.timeout)?;
        time("cpu", self.cpu)?;
        size("memory", self.memory, limits::MEMORY_BYTES_MAX)?;
        size("request_body", self.request_body, limits::BODY_BYTES_MAX)?;
        size("response_body", self.response_body, limits::BODY_BYTES_MAX)?;
        size("logs", self.logs, limits::LOG_BYTES_MAX)?;
        if self.concurrency.is_some_and(|count| !(1..=limits::CONCURRENCY_MAX).contains(&count)) {
            let why = format!("between 1 and {}", limits::CONCURRENCY_MAX);
            return Err(value_error("concurrency", why));
        }
        self.validate_routes()?;
        self.validate_env()?;
        if self.allow_hosts.len() > ALLOW_HOSTS_MAX {
            return Err(value_error("allow_hosts", format!("at most {ALLOW_HOSTS_MAX} entries")));
        }
        Ok(())
    }

    fn validate_routes(&self) -> Result<(), SpecError> {
        if self.routes.len() > ROUTES_MAX {
            return Err(value_error("routes", format!("at most {ROUTES_MAX} routes")));
        }
        let mut seen = BTreeMap::new();
        for route in &self.routes {
            if let Some(other) = seen.insert(route.key(), route) {
                let why = format!("\"{route}\" and \"{other}\" match the same requests");
                return Err(value_error("routes", why));
            }
        }
        Ok(())
    }

    fn validate_env(&self) -> Result<(), SpecError> {
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.env.len() > ENV_MAX || bytes > ENV_BYTES_MAX {
            let why = format!("at most {ENV_MAX} variables and {ENV_BYTES_MAX} bytes together");
            return Err(value_error("env", why));
        }
        for (name, value) in &self.env {
            let named = !name.is_empty()
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !named || value.contains('\0') {
                let why = format!("{name:?} is not a variable: use letters, digits and '_'");
                return Err(value_error("env", why));
            }
        }
        Ok(())
    }
}

/// One function of a `whit.toml`: where its component comes from, and its spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionEntry {
    /// Folder or file with the source, relative to the manifest.
    pub source: Option<String>,
    /// Language of the source; detected where absent.
    pub language: Option<String>,
    /// What runs it, if it is JavaScript: `quickjs` or `starlingmonkey`.
    pub engine: Option<String>,
    /// The built component, relative to the manifest.
    pub component: Option<String>,
    /// Command that leaves `component`, instead of the built-in recipe.
    pub build: Option<String>,
    /// How it runs.
    pub spec: FunctionSpec,
}

/// A whole `whit.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The functions, by name.
    pub functions: BTreeMap<FunctionName, FunctionEntry>,
}

impl Manifest {
    /// Reads and checks a `whit.toml`.
    ///
    /// # Errors
    /// Names the first key or value that is wrong, and where it stands.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let document: toml::Table =
            text.parse().map_err(|error: toml::de::Error| SpecError::Syntax(error.to_string()))?;
        let mut manifest = Self::default();
        for (key, value) in document {
            let (true, toml::Value::Table(functions)) = (key == "functions", value) else {
                let nearest = nearest(&key, &[&["functions"]]);
                return Err(SpecError::UnknownKey { key, nearest });
            };
            for (name, value) in functions {
                let field = format!("functions.{name}");
                let toml::Value::Table(fields) = value else {
                    return Err(value_error(&field, "must be a table, [functions.NAME]"));
                };
                let name = name
                    .parse::<FunctionName>()
                    .map_err(|error| value_error(&field, error.to_string()))?;
                manifest.functions.insert(name, FunctionEntry::from_table(&field, fields)?);
            }
        }
        Ok(manifest)
    }
}

impl FunctionEntry {
    fn from_table(place: &str, fields: toml::Table) -> Result<Self, SpecError> {
        let mut entry = Self::default();
        let mut spec = serde_json::Map::new();
        for (key, value) in fields {
            let slot = match key.as_str() {
                "source" => &mut entry.source,
                "language" => &mut entry.language,
                "engine" => &mut entry.engine,
                "component" => &mut entry.component,
                "build" => &mut entry.build,
                known if SPEC_KEYS.contains(&known) => {
                    let value = serde_json::to_value(value)
                        .map_err(|error| value_error(&key, error.to_string()))?;
                    spec.insert(key, value);
                    continue;
                }
                _ => {
                    let nearest = nearest(&key, &[SPEC_KEYS, SOURCE_KEYS]);
                    return Err(SpecError::UnknownKey { key: format!("{place}.{key}"), nearest });
                }
            };
            let toml::Value::String(text) = value else {
                return Err(value_error(&format!("{place}.{key}"), "must be text"));
            };
            *slot = Some(text);
        }
        let json = serde_json::Value::Object(spec).to_string();
        entry.spec = FunctionSpec::from_json(json.as_bytes()).map_err(|error| match error {
            SpecError::Value { field, why } => value_error(&format!("{place}.{field}"), why),
            other => other,
        })?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_as_documented() {
        let manifest = Manifest::from_toml(
            r#"
            [functions.resize]
            source = "resize"
            routes = ["POST /resize/{width}"]
            memory = "256MiB"
            timeout = "10s"
            cpu = "2s"
            concurrency = 50
            env = { QUALITY = "80" }
            allow_hosts = ["https://images.example.com"]
            "#,
        )
        .unwrap();
        let entry = &manifest.functions["resize"];
        assert_eq!(entry.source.as_deref(), Some("resize"));
        let limits = entry.spec.limits();
        assert_eq!(limits.memory_bytes_max, 256 << 20);
        assert_eq!((limits.timeout_ms, limits.cpu_ms, limits.concurrency), (10_000, 2000, 50));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("[functions.a]\nmemroy = '1MiB'", "did you mean \"memory\"?"),
            ("[functions.a]\nsourc = 'x'", "did you mean \"source\"?"),
            ("[function.a]", "did you mean \"functions\"?"),
            ("[functions.A]", "invalid function name"),
            ("[functions.a]\nmemory = '1MB'", "functions.a.memory: invalid size"),
            ("[functions.a]\nmemory = '5GiB'", "at most 4GiB"),
            ("[functions.a]\ntimeout = '0s'", "more than 0"),
            ("[functions.a]\nroutes = ['/{x}', '/{y}']", "match the same requests"),
            ("[functions.a]\nenv = { '1X' = '' }", "not a variable"),
            ("[functions.a]\nconcurrency = 0", "between 1 and"),
            (
                "[functions.a]\nallow_hosts = ['example.com']",
                "functions.a.allow_hosts: invalid entry \"example.com\": it must begin with",
            ),
            ("[functions.a", "TOML parse error"),
        ] {
            let error = Manifest::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
