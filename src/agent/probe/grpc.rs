//! `grpc`: asks `grpc.health.v1.Health/Check`, without TLS.

use std::error::Error;

use http::{HeaderValue, Request, Uri, header};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::spec::Grpc;
use super::{
    connect,
    outcome::{Outcome, USER_AGENT},
    text,
};

/// The maximum size of an answer, in bytes. The answer to a check has two bytes.
const ANSWER_MAX: usize = 10 * 1024;

pub(super) async fn check(grpc: &Grpc) -> Outcome {
    let stream = connect::connect(&grpc.target).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| not_http2(&error))?;
    let service = tower::service_fn(move |mut request: Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        async move { sender.send_request(request).await }
    });
    let origin: Uri = format!("http://{}", grpc.target)
        .parse()
        .map_err(|_| format!("no server can have the name {}", grpc.target))?;
    let mut client =
        HealthClient::with_origin(service, origin).max_decoding_message_size(ANSWER_MAX);
    let request = HealthCheckRequest { service: grpc.service.clone() };
    match connect::alongside(connection, client.check(request)).await {
        Ok(answer) => judge(answer.into_inner().status),
        Err(status) => Err(explain(&status, &grpc.service)),
    }
}

fn judge(status: i32) -> Outcome {
    match ServingStatus::try_from(status) {
        Ok(ServingStatus::Serving) => Ok(None),
        Ok(other) => Err(format!("answered {}", other.as_str_name())),
        Err(_) => Err(format!("answered {status}, which is no status of the health protocol")),
    }
}

fn explain(status: &Status, service: &str) -> String {
    // This status does not come from the server, but from the connection.
    if let Some(source) = status.source() {
        return not_http2(source);
    }
    match status.code() {
        Code::Unimplemented => {
            "the server does not speak the health protocol (grpc.health.v1.Health)".to_owned()
        }
        Code::NotFound if service.is_empty() => {
            "the server has no health of its own: name a service of it".to_owned()
        }
        Code::NotFound => format!("the server knows no service {service:?}"),
        code => match text::line(status.message()).as_str() {
            "" => format!("gRPC status {code:?}"),
            message => format!("gRPC status {code:?}: {message}"),
        },
    }
}

fn not_http2(error: &(dyn Error + 'static)) -> String {
    format!("no answer in HTTP/2: {}", text::chain(error))
}
