//! A probe in a file: the kubelet's fields, before they are checked.

use std::fmt::Display;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Deserializer, de::Error};

use super::spec::{
    Check, DEFAULT_HOST, Exec, Grpc, Http, Probe, Problem, Refused, Scheme, Target, Timing, Url,
};
use super::text;

/// The kubelet uses 32-bit integers.
const SECONDS_MAX: i64 = i32::MAX as i64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<GrpcAction>,
    exec: Option<ExecAction>,
    initial_delay_seconds: Option<i64>,
    timeout_seconds: Option<i64>,
    period_seconds: Option<i64>,
    success_threshold: Option<i64>,
    failure_threshold: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGet {
    path: Option<String>,
    port: Option<IntOrString>,
    host: Option<String>,
    scheme: Option<String>,
    http_headers: Option<Vec<HttpHeader>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpHeader {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpSocket {
    port: Option<IntOrString>,
    host: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcAction {
    port: Option<IntOrString>,
    host: Option<String>,
    service: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecAction {
    command: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Fields::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

impl TryFrom<Fields> for Probe {
    type Error = Refused;

    fn try_from(fields: Fields) -> Result<Self, Refused> {
        let timing = timing(&fields)?;
        let Fields { http_get, tcp_socket, grpc, exec, .. } = fields;
        let checks = [
            http_get.map(|action| http(action).map(Check::Http)),
            tcp_socket.map(|TcpSocket { port, host }| {
                target("probe.tcpSocket", host, port).map(Check::Tcp)
            }),
            grpc.map(|GrpcAction { port, host, service }| {
                let target = target("probe.grpc", host, port)?;
                Ok(Check::Grpc(Grpc { target, service: service.unwrap_or_default() }))
            }),
            exec.map(|action| {
                words_of(action.command.unwrap_or_default())
                    .map(Check::Exec)
                    .map_err(at("probe.exec.command"))
            }),
        ];
        let mut checks = checks.into_iter().flatten();
        match (checks.next(), checks.next()) {
            (Some(check), None) => Ok(Self { check: check?, timing }),
            (None, _) => Err(at("probe")(Problem(
                "says nothing to check: choose one of httpGet, tcpSocket, grpc and exec".to_owned(),
            ))),
            (Some(_), Some(_)) => Err(at("probe")(Problem(
                "checks more than one thing: choose one of httpGet, tcpSocket, grpc and exec"
                    .to_owned(),
            ))),
        }
    }
}

fn timing(fields: &Fields) -> Result<Timing, Refused> {
    let default = Timing::default();
    let number = |field: &str, value: Option<i64>, least: i64| match value {
        Some(value) if !(least..=SECONDS_MAX).contains(&value) => {
            Err(at(format!("probe.{field}"))(Problem(format!(
                "{value} is out of range: choose {least} to {SECONDS_MAX}, or leave it out"
            ))))
        }
        value => Ok(value.and_then(|value| u32::try_from(value).ok())),
    };
    let seconds = |field, value, least, default| {
        let number = number(field, value, least)?;
        Ok::<_, Refused>(number.map_or(default, |number| Duration::from_secs(number.into())))
    };
    let count =
        |field, value, default| Ok::<_, Refused>(number(field, value, 1)?.unwrap_or(default));
    Ok(Timing {
        initial_delay: seconds(
            "initialDelaySeconds",
            fields.initial_delay_seconds,
            0,
            default.initial_delay,
        )?,
        timeout: seconds("timeoutSeconds", fields.timeout_seconds, 1, default.timeout)?,
        period: seconds("periodSeconds", fields.period_seconds, 1, default.period)?,
        success_threshold: count(
            "successThreshold",
            fields.success_threshold,
            default.success_threshold,
        )?,
        failure_threshold: count(
            "failureThreshold",
            fields.failure_threshold,
            default.failure_threshold,
        )?,
    })
}

fn http(action: HttpGet) -> Result<Http, Refused> {
    let scheme = match action.scheme.as_deref() {
        None | Some("HTTP") => Scheme::Http,
        Some("HTTPS") => Scheme::Https,
        Some(other) => {
            let problem = Problem(format!("{} is no scheme: choose HTTP or HTTPS", quote(other)));
            return Err(at("probe.httpGet.scheme")(problem));
        }
    };
    let target = target("probe.httpGet", action.host, action.port)?;
    let path = action.path.unwrap_or_default();
    let path = path_of(&path).map_err(at("probe.httpGet.path"))?;
    let mut headers = HeaderMap::new();
    for (index, HttpHeader { name, value }) in action.http_headers.into_iter().flatten().enumerate()
    {
        let field = |part| at(format!("probe.httpGet.httpHeaders[{index}].{part}"));
        let name = header_name(&name).map_err(field("name"))?;
        let value = HeaderValue::from_str(&value).map_err(|_| {
            field("value")(Problem("has control characters: leave them out".to_owned()))
        })?;
        headers.append(name, value);
    }
    Ok(Http { url: Url { scheme, target, path }, headers })
}

fn header_name(name: &str) -> Result<HeaderName, Problem> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        Problem(format!("{} is no name of a header: choose one such as X-Probe", quote(name)))
    })?;
    // Headers that describe the length of a message or the lifetime of a connection must not be set by a
    // user.
    let ours = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
    ];
    if ours.contains(&parsed) {
        return Err(Problem(format!("{parsed} is set by the connection: leave it out")));
    }
    Ok(parsed)
}

fn target(field: &str, host: Option<String>, port: Option<IntOrString>) -> Result<Target, Refused> {
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let port = match port {
        Some(IntOrString::Int(number)) => port_of(number),
        Some(IntOrString::String(name)) => port_of(quote(&name)),
        None => Err(Problem("is missing: choose 1 to 65535".to_owned())),
    };
    Ok(Target {
        host: host_of(&host).map_err(at(format!("{field}.host")))?,
        port: port.map_err(at(format!("{field}.port")))?,
    })
}

/// Parses a port from any value that displays as a number.
pub(super) fn port_of(written: impl Display) -> Result<u16, Problem> {
    let written = written.to_string();
    let digits = written.bytes().all(|byte| byte.is_ascii_digit());
    match written.parse() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => Err(Problem(format!("{written} is not a port: choose 1 to 65535"))),
    }
}

/// Checks a name or an IP address. It refuses only characters that a URL cannot contain or that would change
/// its meaning. Whether the name exists is for the probe to find out.
pub(super) fn host_of(text: &str) -> Result<String, Problem> {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = (1..=253).contains(&text.len()) && text.bytes().all(name);
    if is_name || text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(Problem(format!(
        "{} is not a host: choose a name or an IP address, such as {DEFAULT_HOST}",
        quote(text)
    )))
}

/// Parses a path with its query, both in their encoded form. The leading slash may be missing, as for the
/// kubelet.
pub(super) fn path_of(text: &str) -> Result<PathAndQuery, Problem> {
    let slash = if text.starts_with('/') { "" } else { "/" };
    match format!("{slash}{text}").parse() {
        // The parser would drop a fragment, but a user who writes one expects it to matter.
        Ok(path) if !text.contains('#') && text.is_ascii() => Ok(path),
        _ => Err(Problem(format!(
            "{} is not a path: encode what no URL may hold, as in /is%20ready",
            quote(text)
        ))),
    }
}

/// Makes a command from its words.
pub(super) fn words_of(words: Vec<String>) -> Result<Exec, Problem> {
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Problem("has a NUL character: leave it out".to_owned()));
    }
    let mut words = words.into_iter();
    match words.next() {
        Some(program) if !program.is_empty() => Ok(Exec { program, args: words.collect() }),
        _ => Err(Problem("names no program: choose one such as pg_isready".to_owned())),
    }
}

/// The part of a value that an error repeats.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", text::cut(text, 64))
}

fn at(field: impl Into<String>) -> impl FnOnce(Problem) -> Refused {
    let field = field.into();
    move |problem| Refused { field, problem }
}
