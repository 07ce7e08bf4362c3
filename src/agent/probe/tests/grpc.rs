use ::http::{Request, Response, StatusCode};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::*;

/// A health server with `up` serving, `down` not, and `odd` unknown even to itself.
async fn server() -> SocketAddr {
    let reporter = HealthReporter::new();
    reporter.set_service_status("up", ServingStatus::Serving).await;
    reporter.set_service_status("down", ServingStatus::NotServing).await;
    reporter.set_service_status("odd", ServingStatus::Unknown).await;
    let service = HealthServer::new(HealthService::from_health_reporter(reporter));
    serve(service).await
}

async fn serve<S>(service: S) -> SocketAddr
where
    S: tower::Service<
            Request<hyper::body::Incoming>,
            Response = Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

#[tokio::test]
async fn only_serving_is_success() {
    let address = server().await;
    for (service, outcome) in [
        ("", Ok(None)),
        ("up", Ok(None)),
        ("down", failure("answered NOT_SERVING")),
        ("odd", failure("answered UNKNOWN")),
        ("none", failure("the server knows no service \"none\"")),
    ] {
        let check = format!("grpc://{address}/{service}");
        assert_eq!(probe(&check).await, outcome, "{service}");
    }
}

#[tokio::test]
async fn a_server_without_the_health_protocol_is_told_from_one_that_is_no_grpc_server() {
    let reason = "the server does not speak the health protocol (grpc.health.v1.Health)";
    let of_grpc = || tonic::Status::unimplemented("").into_http();
    let of_http = || {
        let mut answer = Response::new(tonic::body::Body::empty());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        answer
    };
    for answer in [of_grpc as fn() -> Response<tonic::body::Body>, of_http] {
        let service = tower::service_fn(move |_: Request<hyper::body::Incoming>| async move {
            Ok::<_, std::convert::Infallible>(answer())
        });
        let address = serve(service).await;
        assert_eq!(probe(&format!("grpc://{address}")).await, failure(reason));
    }

    let http1 = Odd::start("HTTP/1.1 400 Bad Request\r\n\r\n", true).await;
    let error = probe(&format!("grpc://{}", http1.address)).await.expect_err("HTTP/1");
    assert!(error.starts_with("no answer in HTTP/2: "), "{error}");

    let (_socket, address) = refusing();
    assert_eq!(probe(&format!("grpc://{address}")).await, failure("connection refused"));
}
