use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::AsyncWriteExt;

use super::super::{check, spec::Probe};
use super::*;

async fn serve(app: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn redirect(status: u16, location: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::LOCATION, location.to_owned())]).into_response()
}

#[tokio::test]
async fn statuses_from_200_to_399_are_success_and_others_are_named() {
    let app = Router::new().route(
        "/{status}",
        get(|request: Request| async move {
            let status = request.uri().path()[1..].parse().expect("a number");
            StatusCode::from_u16(status).expect("a status")
        }),
    );
    let address = serve(app).await;
    for (status, outcome) in [
        (200, Ok(None)),
        (204, Ok(None)),
        (302, Ok(None)),
        (304, Ok(None)),
        (399, Ok(None)),
        (400, failure("HTTP status 400")),
        (404, failure("HTTP status 404")),
        (503, failure("HTTP status 503")),
    ] {
        assert_eq!(probe(&format!("http://{address}/{status}")).await, outcome, "{status}");
    }
}

#[tokio::test]
async fn the_request_has_a_user_agent_and_ends_the_connection() {
    let server = Odd::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    assert_eq!(probe(&format!("http://{}/ready?deep=1", server.address)).await, Ok(None));
    let head = server.heads().remove(0).to_lowercase();
    let mut lines: Vec<_> = head.split_terminator("\r\n").filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.remove(0), "get /ready?deep=1 http/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", server.address);
    let agent = format!("user-agent: beatkeeper-agent/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(lines, ["accept: */*", "connection: close", &host, &agent]);
}

#[tokio::test]
async fn headers_of_the_probe_are_sent_and_replace_ours() {
    let server = Odd::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true).await;
    let yaml = format!(
        "httpGet: {{ port: {}, httpHeaders: [{{ name: Host, value: shop }}, \
         {{ name: X-A, value: '1' }}, {{ name: X-A, value: '2' }}, {{ name: User-Agent, value: me }}] }}",
        server.address.port()
    );
    let probe: Probe = serde_saphyr::from_str(&yaml).expect("a probe");
    assert!(matches!(check(&probe.check, PATIENCE).await, Ok(None)));
    let head = server.heads().remove(0).to_lowercase();
    for line in ["host: shop", "x-a: 1", "x-a: 2", "user-agent: me"] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {head}");
    }
    assert!(!head.contains("beatkeeper"), "{head}");
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed_to_their_end() {
    let app = Router::new()
        .route("/a", get(|| async { redirect(301, "b?x") }))
        .route("/b", get(|| async { redirect(307, "/down") }))
        .route("/down", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/round", get(|| async { redirect(302, "/round") }))
        .route("/multiple", get(|| async { redirect(300, "/down") }))
        .route("/empty", get(|| async { redirect(302, "") }));
    let address = serve(app).await;
    for (path, outcome) in [
        ("a", failure("HTTP status 503")),
        ("round", failure("redirected more than 10 times")),
        ("multiple", Ok(None)),
        ("empty", Ok(None)),
    ] {
        assert_eq!(probe(&format!("http://{address}/{path}")).await, outcome, "{path}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_is_a_success_with_a_warning_and_is_not_followed() {
    let (listener, other) = listen().await;
    let elsewhere = format!("http://localhost:{}/", other.port());
    let app = Router::new().route("/", get(|| async move { redirect(302, &elsewhere) }));
    let address = serve(app).await;
    let warning = "redirected to another host, localhost, which is not asked".to_owned();
    assert_eq!(probe(&format!("http://{address}")).await, Ok(Some(warning)));
    let asked = tokio::time::timeout(MOMENT, listener.accept()).await;
    assert!(asked.is_err(), "no probe came");
}

#[tokio::test]
async fn no_more_than_ten_kibibytes_are_read() {
    // The server promises a gigabyte, sends a little more than we read, and keeps the connection open.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    let long = Odd::start(format!("{head}{}", "x".repeat(11 * 1024)), false).await;
    assert_eq!(probe(&format!("http://{}", long.address)).await, Ok(None));
    let short = Odd::start(format!("{head}{}", "x".repeat(9 * 1024)), false).await;
    let outcome = probe_within(&format!("http://{}", short.address), MOMENT).await;
    assert_eq!(outcome, failure("no answer within 300ms"));
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    let broken = "the connection was closed before the whole answer had come";
    for (answer, reason) in [
        ("", broken),
        ("HTTP/1.1 200 OK\r\ncontent-le", broken),
        ("SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP/1: "),
    ] {
        let server = Odd::start(answer, true).await;
        let error = probe(&format!("http://{}", server.address)).await.expect_err(answer);
        assert!(error.starts_with(reason), "{answer:?}: {error}");
    }
    let server = Odd::start("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", true).await;
    assert!(probe(&format!("http://{}", server.address)).await.is_err(), "it broke off");
    let (_socket, address) = refusing();
    assert_eq!(probe(&format!("http://{address}")).await, failure("connection refused"));
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_does_not_answer() {
    let (_listener, address) = listen().await;
    for scheme in ["http", "https", "grpc"] {
        let outcome = probe_within(&format!("{scheme}://{address}/"), MOMENT).await;
        assert_eq!(outcome, failure("no answer within 300ms"), "{scheme}");
    }
}

#[tokio::test]
async fn https_asks_with_tls_and_takes_any_certificate() {
    let certified =
        rcgen::generate_simple_self_signed(["absent.invalid".to_owned()]).expect("a certificate");
    let key = certified.signing_key.serialize_der().try_into().expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a certificate and its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    assert_eq!(probe(&format!("https://{address}")).await, failure("HTTP status 503"));
    let text = format!("https://localhost:{}", address.port());
    assert_eq!(probe(&text).await, failure("HTTP status 503"));

    let plain = Odd::start("HTTP/1.1 400 Bad Request\r\n\r\n", true).await;
    let error = probe_within(&format!("https://{}", plain.address), MOMENT).await;
    assert!(error.is_err(), "a server without TLS");
}
