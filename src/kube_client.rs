//! The client for the API server: kube's client on a connector of our own.
//!
//! The connector is `beatkeeper_client::transport`, which the instances use as well. It follows certificates, tokens
//! and the kubeconfig when they change. This module adds what an operator needs:
//!
//! * `throttle`: it waits when the API server asks for it, for at most [`Options::patience`].
//! * A [`gate::Gate`], which is optional. It limits the number of concurrent calls, orders them by urgency and counts
//!   them.
//!
//! ## Timeouts
//! [`kube::Config`] has three timeouts. They are used by kube's own builder, but not by a custom connector. Here
//! `connect_timeout` (30 s by default) limits the TCP handshake. `read_timeout` and `write_timeout` are **not** used: a
//! read timeout counts idle time, and would end a quiet watch. Instead, [`Options::response_timeout`] limits the wait
//! for the *head* of every response, including the TLS handshake. The head of a watch comes at once, and its body may
//! then take as long as it likes. A caller that reads a body that has to end limits the whole call with [`within`].

pub mod gate;
pub mod list;
pub mod observe;
pub mod request;
mod split;
pub mod throttle;

use std::time::Duration;

use beatkeeper_client::transport::HttpService;
pub use beatkeeper_client::{
    timeout::{TimedOut, within},
    transport::{ConnectError, Source},
};
use http::{Request, Response};
use hyper::body::Bytes;
use jiff::Timestamp;
use kube::{Client, client::Body};
use tower::{BoxError, Service, ServiceBuilder, retry::RetryLayer};

use gate::Gate;
use throttle::Patience;

/// How to talk to the API server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sent as `User-Agent`, such as `beatkeeper-controller/0.1.0`. It identifies Beatkeeper in the audit log.
    pub user_agent: String,
    /// Maximum time until the head of a response arrives, also for a watch. Default: 30 s.
    pub response_timeout: Duration,
    /// Maximum total time for which a request waits and is sent again, if the API server answers that it is overloaded
    /// (429, or 503 with Retry-After). It has to be shorter than the caller's own timeout, so that the caller learns of
    /// the 429 and not of a timeout. Default: 0, so that the caller decides.
    pub patience: Duration,
    /// The wall clock, by which a Retry-After with a date is read.
    pub wall: fn() -> Timestamp,
}

impl Options {
    /// The defaults for a part of Beatkeeper, and this wall clock. The part `controller` becomes
    /// `beatkeeper-controller/0.1.0`.
    pub fn of(part: &str, wall: fn() -> Timestamp) -> Self {
        Self {
            user_agent: format!("beatkeeper-{part}/{}", env!("CARGO_PKG_VERSION")),
            response_timeout: Duration::from_secs(30),
            patience: Duration::ZERO,
            wall,
        }
    }
}

/// Makes a client without a gate. See [`connect_through`].
///
/// # Errors
/// [`ConnectError`], if the configuration cannot be used.
pub fn connect(source: impl Into<Source>, options: &Options) -> Result<Client, ConnectError> {
    connect_through(None, source, options)
}

/// Makes a client on the current tokio runtime. Nothing is sent yet.
///
/// # Errors
/// [`ConnectError`], if the configuration from the source cannot be used.
pub fn connect_through(
    gate: Option<Gate>,
    source: impl Into<Source>,
    options: &Options,
) -> Result<Client, ConnectError> {
    let source = source.into();
    let service = HttpService::open(&source, &options.user_agent)?;
    Ok(through(gate, service, source.namespace(), options))
}

/// Makes a client of a service that takes the requests. `namespace` is the default namespace of the client.
pub fn through<S, B>(
    gate: Option<Gate>,
    api_server: S,
    namespace: impl Into<String>,
    options: &Options,
) -> Client
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = ServiceBuilder::new()
        // The order matters: a request that waits because of throttling occupies no place in the gate.
        .layer(RetryLayer::new(Patience::of(options.patience, options.wall)))
        .option_layer(gate)
        // This timeout ends with the head of the response, because the body is not part of the future.
        .timeout(options.response_timeout)
        .service(api_server);
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_client::transport::tcp;
    use kube::Config;
    use std::io;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn options_of(part: &str) -> Options {
        Options::of(part, || Timestamp::UNIX_EPOCH)
    }

    fn config(url: &str) -> Config {
        Config::new(url.parse().expect("a URL"))
    }

    /// Answers every connection with `head` and then keeps the connection open. Returns the first request.
    async fn server(head: &'static str) -> io::Result<(String, tokio::task::JoinHandle<String>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let request = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.expect("a request");
            stream.write_all(head.as_bytes()).await.expect("an answer");
            request.truncate(length);
            tokio::spawn(async move {
                let _open = (listener, stream);
                std::future::pending::<()>().await;
            });
            String::from_utf8(request).expect("text")
        });
        Ok((url, request))
    }

    #[tokio::test]
    async fn a_request_names_its_sender_and_asks_for_no_compression() {
        let (url, request) =
            server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.expect("a server");
        let client = connect(config(&url), &options_of("agent")).expect("a client");
        client.apiserver_version().await.expect("an answer");
        let request = request.await.expect("a request").to_lowercase();
        let agent = concat!("user-agent: beatkeeper-agent/", env!("CARGO_PKG_VERSION"), "\r\n");
        assert!(request.contains(agent), "{request}");
        assert!(!request.contains("accept-encoding: gzip"), "{request}");
    }

    #[tokio::test]
    async fn a_response_without_a_head_ends_in_time() {
        let (url, _request) = server("").await.expect("a server");
        let options =
            Options { response_timeout: Duration::from_millis(50), ..options_of("agent") };
        let client = connect(config(&url), &options).expect("a client");
        let outcome = within(Duration::from_secs(5), client.apiserver_version()).await;
        let error = outcome.expect("an end").expect_err("no answer").to_string();
        assert!(error.contains("timed out"), "{error}");
    }

    /// Answers requests with these heads in order, each on its own connection and with an empty object. Returns the
    /// requests and when each of them arrived.
    async fn script(
        heads: &'static [&'static str],
    ) -> io::Result<(String, tokio::task::JoinHandle<Vec<(String, tokio::time::Instant)>>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let requests = tokio::spawn(async move {
            let mut requests = Vec::new();
            for head in heads {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.expect("a request");
                request.truncate(length);
                let request = String::from_utf8(request).expect("text");
                requests.push((request, tokio::time::Instant::now()));
                let answer = format!(
                    "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
                );
                stream.write_all(answer.as_bytes()).await.expect("an answer");
            }
            requests
        });
        Ok((url, requests))
    }

    fn patient(seconds: u64) -> Options {
        Options { patience: Duration::from_secs(seconds), ..options_of("controller") }
    }

    fn write() -> http::Request<Vec<u8>> {
        let request = http::Request::put("/apis/x/v1/namespaces/a/things/b");
        request.header("x-trace", "7").body(b"{\"a\":1}".to_vec()).expect("a request")
    }

    #[tokio::test]
    async fn a_request_that_was_sent_away_comes_again_as_it_was_when_it_was_told_to() {
        let heads = &["429 Too Many\r\nretry-after: 1", "503 Not Now\r\nretry-after: 0", "200 OK"];
        let (url, requests) = script(heads).await.expect("a server");
        let client = connect(config(&url), &patient(4)).expect("a client");
        client.request::<serde_json::Value>(write()).await.expect("the third answer");
        let requests = requests.await.expect("requests");
        assert!(requests[0].0.contains("x-trace: 7"), "{}", requests[0].0);
        assert!(requests[0].0.ends_with("{\"a\":1}"), "{}", requests[0].0);
        assert!(requests.iter().all(|(request, _)| *request == requests[0].0), "{requests:?}");
        assert!(requests[1].1 - requests[0].1 >= Duration::from_secs(1), "{requests:?}");
    }

    #[tokio::test]
    async fn a_retry_after_beyond_the_limit_returns_the_429_at_once() {
        let heads = &["429 Too Many\r\nretry-after: 30"];
        let (url, requests) = script(heads).await.expect("a server");
        let client = connect(config(&url), &patient(4)).expect("a client");
        let error = client.request::<serde_json::Value>(write()).await.expect_err("refused");
        assert!(matches!(&error, kube::Error::Api(_)), "{error:?}");
        assert_eq!(requests.await.expect("requests").len(), 1);
    }

    #[tokio::test]
    async fn without_patience_the_caller_decides() {
        let (url, requests) = script(&["429 Too Many\r\nretry-after: 0"]).await.expect("a server");
        let client = connect(config(&url), &options_of("agent")).expect("a client");
        client.request::<serde_json::Value>(write()).await.expect_err("refused");
        assert_eq!(requests.await.expect("requests").len(), 1);
    }

    #[tokio::test]
    async fn a_watch_that_was_sent_away_comes_again() {
        let heads = &["429 Too Many\r\nretry-after: 0", "200 OK"];
        let (url, requests) = script(heads).await.expect("a server");
        let client = connect(config(&url), &patient(4)).expect("a client");
        let watch = http::Request::get("/api/v1/pods?watch=true").body(Vec::new());
        let events = client.request_events::<serde_json::Value>(watch.expect("a request")).await;
        assert!(events.is_ok(), "{:?}", events.err());
        assert_eq!(requests.await.expect("requests").len(), 2);
    }

    #[tokio::test]
    async fn a_token_that_was_replaced_in_its_file_is_sent_with_the_request_that_was_refused() {
        let (url, requests) = script(&["200 OK", "401 No", "200 OK"]).await.expect("a server");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "old").expect("written");
        let mut config = config(&url);
        config.auth_info.token_file = Some(file.path().display().to_string());
        let client = connect(config, &options_of("controller")).expect("a client");
        client.request::<serde_json::Value>(write()).await.expect("an answer");
        std::fs::write(&file, "new").expect("written");
        client.request::<serde_json::Value>(write()).await.expect("the second answer");
        let requests = requests.await.expect("requests");
        for ((request, _), token) in requests.iter().zip(["old", "old", "new"]) {
            assert!(request.contains(&format!("authorization: Bearer {token}")), "{request}");
            assert!(request.ends_with("{\"a\":1}"), "{request}");
        }
    }

    #[tokio::test]
    async fn a_connection_sends_small_requests_at_once() {
        let (url, _request) = server("").await.expect("a server");
        let uri = config(&url).cluster_url;
        let connection = tower::ServiceExt::oneshot(tcp(&config(&url)), uri).await;
        assert!(connection.expect("a connection").inner().nodelay().expect("a TCP socket"));
    }

    #[tokio::test]
    async fn a_body_that_goes_on_is_not_cut_by_the_response_timeout() {
        let (url, _request) = server("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .expect("a server");
        // The head is within the timeout on a busy machine, too.
        let options = Options { response_timeout: Duration::from_secs(1), ..options_of("agent") };
        let client = connect(config(&url), &options).expect("a client");
        let limit = Duration::from_secs(2);
        let body = within(limit, client.apiserver_version()).await;
        assert_eq!(body.err(), Some(TimedOut(limit)));
    }

    #[tokio::test]
    async fn a_proxy_that_cannot_be_used_is_refused_and_its_password_kept_secret() {
        let mut config = config("https://127.0.0.1:1");
        config.proxy_url = Some("socks5://user:secret@proxy.example:1080".parse().expect("a URL"));
        let error = connect(config, &options_of("agent")).err().expect("refused").to_string();
        assert!(
            error.contains("the proxy in proxy-url of the kubeconfig cannot be used"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
}
