//! Why a probe fails.

use std::error::Error;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use beatkeeper_api::duration;
use beatkeeper_client::panics::Panic;

use super::text;

/// Why one probe has failed. The message becomes the note of the instance.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    /// No TCP connection could be made.
    #[error("{}", of_connection(.0))]
    NoConnection(#[source] io::Error),
    /// The host cannot be the name of a TLS server.
    #[error("no TLS server can have the name {0:?}")]
    NoTlsName(String),
    /// The TLS handshake failed.
    #[error("no TLS connection: {}", text::chain(.0))]
    NoTls(#[source] io::Error),
    /// The exchange over HTTP/1 failed.
    #[error("{}", of_exchange(.0))]
    NoAnswer(#[from] hyper::Error),
    /// The server answered with this HTTP status.
    #[error("HTTP status {0}")]
    HttpStatus(u16),
    /// The server redirected again and again.
    #[error("redirected more than {0} times")]
    TooManyRedirects(usize),
    /// The server redirected to this text, which is no URL.
    #[error("redirected to {0}, which leads nowhere")]
    RedirectedNowhere(String),
    /// A gRPC health check failed.
    #[error(transparent)]
    Grpc(#[from] GrpcFailure),
    /// The command could not be started.
    #[error("cannot start: {0}")]
    NotStarted(#[source] io::Error),
    /// The end of the command was missed.
    #[error("its end was missed: {0}")]
    EndMissed(#[source] io::Error),
    /// The command ended without success.
    #[error("{}", of_command(*.status, .output))]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The first line of its output; it may be empty.
        output: String,
    },
    /// A server did not answer in time.
    #[error("no answer within {}", duration::format(*.0))]
    Unanswered(Duration),
    /// A command did not end in time.
    #[error("not ended within {}", duration::format(*.0))]
    NotEnded(Duration),
    /// The code of the probe panicked.
    #[error(transparent)]
    Panicked(#[from] Panic),
}

/// Why a gRPC health check has failed.
#[derive(Debug, thiserror::Error)]
pub enum GrpcFailure {
    /// The connection does not work, or the server does not speak HTTP/2. The text is the error with its causes.
    #[error("no answer in HTTP/2: {0}")]
    NotHttp2(String),
    /// The target cannot be part of a URL.
    #[error("no server can have the name {0}")]
    NoName(String),
    /// The server answered with another status than SERVING.
    #[error("answered {0}")]
    NotServing(&'static str),
    /// The server answered with a number that the protocol does not have.
    #[error("answered {0}, which is no status of the health protocol")]
    UnknownStatus(i32),
    /// The server does not implement the protocol.
    #[error("the server does not speak the health protocol (grpc.health.v1.Health)")]
    NoHealthProtocol,
    /// The server has only the health of its services.
    #[error("the server has no health of its own: name a service of it")]
    NoHealthOfItsOwn,
    /// The server does not know the service.
    #[error("the server knows no service {0:?}")]
    UnknownService(String),
    /// The server answered with another gRPC status.
    #[error("gRPC status {code:?}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Status {
        /// The code.
        code: tonic::Code,
        /// The first line of its message; it may be empty.
        message: String,
    },
}

impl GrpcFailure {
    /// The connection failed because of this error.
    pub(super) fn not_http2(error: &(dyn Error + 'static)) -> Self {
        Self::NotHttp2(text::chain(error))
    }
}

/// The usual messages for common errors of connections.
fn of_connection(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => format!("no connection: {error}"),
    }
}

fn of_exchange(error: &hyper::Error) -> String {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::ConnectionReset
        {
            return of_connection(error);
        }
        cause = inner.source();
    }
    if error.is_incomplete_message() {
        "the connection was closed before the whole answer had come".to_owned()
    } else if error.is_parse() {
        format!("the answer is not HTTP/1: {}", text::chain(error))
    } else {
        text::chain(error)
    }
}

fn of_command(status: ExitStatus, output: &str) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    if output.is_empty() { how } else { format!("{how}: {output}") }
}
