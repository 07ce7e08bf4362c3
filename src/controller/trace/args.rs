//! The flags of tracing. Their variables are those of OpenTelemetry.

use std::{path::PathBuf, str::FromStr};

use http::{Uri, uri::InvalidUri};

/// The path to which a collector gets traces, as OTLP over HTTP has it.
const PATH: &str = "/v1/traces";

/// The flags.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Send a trace of each reconciliation that prunes, holds or fails to this OpenTelemetry collector, by OTLP over
    /// HTTP: a URL such as http://collector.monitoring:4318, to which /v1/traces is added. Default: no traces.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Endpoint>,

    /// The same with a URL to which nothing is added. It has precedence.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    pub otlp_traces_endpoint: Option<Endpoint>,

    /// A file in PEM format with the authorities that vouch for a collector at an https URL. It is read at the start.
    /// Default: the authorities of the system.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_certificate: Option<PathBuf>,
}

/// A URL of a collector, or none if it is set to the empty text, as templates often do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Option<Urls>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Urls {
    /// As it was given.
    whole: Uri,
    /// With the path for traces.
    with_path: Uri,
}

/// Why a text is no URL of a collector.
#[derive(Debug, thiserror::Error)]
pub enum ParseEndpointError {
    /// It is no URL.
    #[error(transparent)]
    Url(#[from] InvalidUri),
    /// It is a URL of something else.
    #[error(
        "it does not begin with http:// or https:// and a host; write for example http://collector:4318"
    )]
    Incomplete,
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let url: Uri = text.parse()?;
        match (url.scheme_str(), url.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => {
                let with_path =
                    format!("{}{PATH}", url.to_string().trim_end_matches('/')).parse()?;
                Ok(Self(Some(Urls { whole: url, with_path })))
            }
            _ => Err(ParseEndpointError::Incomplete),
        }
    }
}

/// Where traces are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// The URL, with its path.
    pub url: Uri,
    /// The file with the authorities that vouch for the collector; None for those of the system.
    pub certificate: Option<PathBuf>,
}

impl TraceArgs {
    /// Where traces are sent; None if they are not.
    pub(crate) fn settings(self) -> Option<TraceSettings> {
        let given = |endpoint: Option<Endpoint>| endpoint.and_then(|Endpoint(urls)| urls);
        let whole = given(self.otlp_traces_endpoint).map(|urls| urls.whole);
        let url = whole.or_else(|| given(self.otlp_endpoint).map(|urls| urls.with_path))?;
        let certificate = self.otlp_certificate.filter(|file| !file.as_os_str().is_empty());
        Some(TraceSettings { url, certificate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str, whole: &str) -> Option<String> {
        let endpoint = |text: &str| Some(text.parse().expect("a URL"));
        let args = TraceArgs {
            otlp_endpoint: endpoint(base),
            otlp_traces_endpoint: endpoint(whole),
            otlp_certificate: Some(PathBuf::new()),
        };
        let settings = args.settings()?;
        assert_eq!(settings.certificate, None);
        Some(settings.url.to_string())
    }

    #[test]
    fn the_base_gets_the_path_of_otlp_and_the_whole_url_stays_and_has_precedence() {
        let with_path = Some("http://collector:4318/v1/traces".to_owned());
        assert_eq!(url("http://collector:4318", ""), with_path);
        assert_eq!(url("http://collector:4318/", ""), with_path);
        let below = Some("https://collector/otlp/v1/traces".to_owned());
        assert_eq!(url("https://collector/otlp", ""), below);
        let whole = Some("http://other:4318/traces".to_owned());
        assert_eq!(url("http://collector:4318", "http://other:4318/traces"), whole);
        assert_eq!(url("", ""), None);
    }

    #[test]
    fn what_is_no_url_of_a_collector_is_refused() {
        for text in ["collector:4318", "grpc://collector:4317", "/v1/traces", "http://", "a b"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
