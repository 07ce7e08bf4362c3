//! The short text of a check, for flags and environment variables.

use std::fmt;
use std::str::FromStr;

use http::HeaderMap;

use super::fields::{host_of, path_of, port_of, quote, words_of};
use super::spec::{Check, DEFAULT_HOST, Grpc, Http, Problem, Scheme, Target, Url};

impl FromStr for Check {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if let Some(command) = text.strip_prefix("exec:") {
            let words = shlex::split(command).ok_or_else(|| {
                Problem(format!("{} has a quote that does not end: close it", quote(text)))
            })?;
            return words_of(words).map(Self::Exec);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(unknown(text));
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        match scheme {
            "http" => http(Scheme::Http, authority, path),
            "https" => http(Scheme::Https, authority, path),
            "tcp" if matches!(path, "" | "/") => target(authority).map(Self::Tcp),
            "tcp" => Err(Problem(format!(
                "{} is more than tcp can ask for: end it after the port",
                quote(text)
            ))),
            "grpc" => {
                let target = target(authority)?;
                let service = path.strip_prefix('/').unwrap_or(path).to_owned();
                Ok(Self::Grpc(Grpc { target, service }))
            }
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> Problem {
    Problem(format!(
        "{} is not a probe: choose http://:8080/healthz, https://:8443/, tcp://:5432, \
         grpc://:9000/service or exec:COMMAND",
        quote(text)
    ))
}

fn http(scheme: Scheme, authority: &str, path: &str) -> Result<Check, Problem> {
    let target = target(authority)?;
    let path = path_of(path)?;
    Ok(Check::Http(Http { url: Url { scheme, target, path }, headers: HeaderMap::new() }))
}

/// `host:port`, `[::1]:port` or `:port`.
fn target(authority: &str) -> Result<Target, Problem> {
    let Some((host, port)) = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'))
    else {
        return Err(Problem(format!(
            "{} has no port: write one behind a colon, such as :8080",
            quote(authority)
        )));
    };
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match (inner, host) {
        (_, "") => DEFAULT_HOST,
        (Some(inner), _) if inner.contains(':') => inner,
        (None, host) if !host.contains(':') => host,
        _ => {
            return Err(Problem(format!(
                "{} is ambiguous: write an IPv6 address in brackets, such as [::1]:8080",
                quote(authority)
            )));
        }
    };
    // An empty port, or one with a blank in it, is quoted so that it is visible in the error.
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = if is_number { port_of(port)? } else { port_of(quote(port))? };
    Ok(Target { host: host_of(host)?, port })
}

/// Displays the short text, which leaves headers out.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(http) => write!(f, "{}", http.url),
            Self::Tcp(target) => write!(f, "tcp://{target}"),
            Self::Grpc(Grpc { target, service }) => write!(f, "grpc://{target}/{service}"),
            Self::Exec(exec) => {
                let words = std::iter::once(&exec.program).chain(&exec.args).map(String::as_str);
                // A word that cannot be quoted contains a NUL, which the parser refuses.
                write!(f, "exec:{}", shlex::try_join(words).map_err(|_| fmt::Error)?)
            }
        }
    }
}
