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
    failure::GrpcFailure,
    outcome::{Outcome, USER_AGENT},
    text,
};

/// The maximum size of an answer, in bytes. The answer to a check has two bytes.
const ANSWER_MAX: usize = 10 * 1024;

pub(super) async fn check(grpc: &Grpc) -> Outcome {
    let stream = connect::connect(&grpc.target).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| GrpcFailure::not_http2(&error))?;
    let service = tower::service_fn(move |mut request: Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        async move { sender.send_request(request).await }
    });
    let origin: Uri = format!("http://{}", grpc.target)
        .parse()
        .map_err(|_| GrpcFailure::NoName(grpc.target.to_string()))?;
    let mut client =
        HealthClient::with_origin(service, origin).max_decoding_message_size(ANSWER_MAX);
    let request = HealthCheckRequest { service: grpc.service.clone() };
    match connect::alongside(connection, client.check(request)).await {
        Ok(answer) => judge(answer.into_inner().status)?,
        Err(status) => return Err(explain(&status, &grpc.service).into()),
    }
    Ok(None)
}

fn judge(status: i32) -> Result<(), GrpcFailure> {
    match ServingStatus::try_from(status) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(other) => Err(GrpcFailure::NotServing(other.as_str_name())),
        Err(_) => Err(GrpcFailure::UnknownStatus(status)),
    }
}

fn explain(status: &Status, service: &str) -> GrpcFailure {
    // This status does not come from the server, but from the connection.
    if let Some(source) = status.source() {
        return GrpcFailure::not_http2(source);
    }
    match status.code() {
        Code::Unimplemented => GrpcFailure::NoHealthProtocol,
        Code::NotFound if service.is_empty() => GrpcFailure::NoHealthOfItsOwn,
        Code::NotFound => GrpcFailure::UnknownService(service.to_owned()),
        code => GrpcFailure::Status { code, message: text::line(status.message()) },
    }
}
