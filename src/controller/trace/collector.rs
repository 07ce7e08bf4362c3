//! Sends traces to an OpenTelemetry collector.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use beatkeeper_client::transport::{ConnectError, HttpService, Source};
use http::{Request, Response, Uri, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use kube::{Config, client::Body};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    resource::EnvResourceDetector,
    trace::{SpanData, SpanExporter as _},
};
use rustls::pki_types::{CertificateDer, pem, pem::PemObject};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    args::TraceSettings,
    queue::{Traces, Waiting},
};
use crate::controller::{clock::Clock, metrics::process::Metrics};

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// At its end, the process waits at most this long for the traces that wait.
const LAST_TRACES_WITHIN: Duration = Duration::from_secs(2);
/// A request has about this many spans at most.
const MOST_SPANS: usize = 512;
/// An answer is short. More of it is not read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Traces cannot be sent as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The certificates cannot be read.
    #[error("cannot read the file of --otlp-certificate: {0}")]
    Certificate(#[from] pem::Error),
    /// The connection cannot be made as the settings say.
    #[error("cannot send traces: {0}")]
    Connect(#[from] ConnectError),
    /// A variable of OpenTelemetry cannot be used.
    #[error("cannot send traces: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// A collector. Nothing is sent yet.
pub struct Collector {
    exporter: SpanExporter,
}

impl Collector {
    /// Connects as the settings say, with the TLS of the operator. Each part of the identity that OpenTelemetry's
    /// variables do not give is that of this process. `identity` is the one that no other process has.
    ///
    /// # Errors
    /// [`CollectorError`].
    pub(crate) fn open(
        settings: &TraceSettings,
        user_agent: &str,
        identity: &str,
    ) -> Result<Self, CollectorError> {
        let mut config = Config::new(server(&settings.url));
        if let Some(file) = &settings.certificate {
            let all = CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>()?;
            config.root_cert = Some(all.iter().map(|certificate| certificate.to_vec()).collect());
        }
        let client = Client {
            service: HttpService::open(&Source::from(config), user_agent)?,
            server: settings.url.authority().map(|it| it.host().to_owned()).unwrap_or_default(),
            fails: AtomicBool::new(false),
        };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(settings.url.to_string())
            .build()?;
        exporter.set_resource(&resource(identity));
        Ok(Self { exporter })
    }

    /// Returns the traces that this collector gets, and the task that sends them until `ended` is cancelled. Then the
    /// task sends those that wait, and ends.
    pub(in crate::controller) fn traces(
        self,
        clock: Clock,
        metrics: &Arc<Metrics>,
        ended: CancellationToken,
    ) -> (Traces, impl Future<Output = ()> + Send + use<>) {
        let (traces, waiting) = Traces::on(clock, metrics.clone());
        let metrics = metrics.clone();
        let sending = async move {
            // What a collector does not take in this time is lost with the process.
            let too_late = async {
                ended.cancelled().await;
                tokio::time::sleep(LAST_TRACES_WITHIN).await;
            };
            tokio::select! {
                () = self.send(waiting, &metrics, &ended) => {}
                () = too_late => {}
            }
        };
        (traces, sending)
    }

    async fn send(&self, mut waiting: Waiting, metrics: &Metrics, ended: &CancellationToken) {
        loop {
            let next = match ended.run_until_cancelled(waiting.recv()).await {
                Some(next) => next,
                None => {
                    waiting.close();
                    waiting.recv().await
                }
            };
            let Some(spans) = next else { return };
            self.send_batch(spans, &mut waiting, metrics).await;
        }
    }

    async fn send_batch(&self, mut spans: Vec<SpanData>, more: &mut Waiting, metrics: &Metrics) {
        while spans.len() < MOST_SPANS
            && let Ok(next) = more.try_recv()
        {
            spans.extend(next);
        }
        let count = spans.len();
        // The client has logged why.
        if self.exporter.export(spans).await.is_err() {
            metrics.spans_dropped(count);
        }
    }
}

/// The URL without its path, which each request has.
fn server(url: &Uri) -> Uri {
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

/// Who sends the traces.
fn resource(identity: &str) -> Resource {
    let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let known = [("k8s.pod.name", "POD_NAME"), ("k8s.namespace.name", "POD_NAMESPACE")];
    let known = known.into_iter().filter_map(|(key, name)| Some(KeyValue::new(key, given(name)?)));
    let builder = Resource::builder_empty()
        .with_service_name("beatkeeper")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", identity.to_owned()))
        .with_attributes(known)
        .with_detector(Box::new(EnvResourceDetector::new()));
    match given("OTEL_SERVICE_NAME") {
        Some(name) => builder.with_service_name(name).build(),
        None => builder.build(),
    }
}

/// Sends the requests of the exporter, over the connections of the operator's own client.
struct Client {
    service: HttpService,
    /// The host, without what a URL may say of users.
    server: String,
    /// Whether the last request failed. Only the first failure in a row is logged.
    fails: AtomicBool,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("no answer within {TIMEOUT:?}")]
    Late,
}

impl Client {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = request.map(|body| Body::from(body.to_vec()));
        let answer = async {
            let (head, body) = self.service.clone().oneshot(request).await?.into_parts();
            let body = Limited::new(body, LONGEST_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(RequestError::Late.into()),
        }
    }

    fn log(&self, result: &Result<Response<Bytes>, HttpError>) {
        let why = match result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
            Err(error) => Some(beatkeeper_api::text::plain_error_chain(error.as_ref())),
        };
        let collector = &self.server;
        match (why, self.fails.load(Relaxed)) {
            (Some(why), false) => {
                tracing::warn!(collector, %why, "cannot send traces; they are dropped until it takes them");
            }
            (None, true) => tracing::info!(collector, "sending traces again"),
            _ => {}
        }
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'answer>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'a: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let result = self.exchange(request).await;
            self.log(&result);
            let fails = !result.as_ref().is_ok_and(|response| response.status().is_success());
            self.fails.store(fails, Relaxed);
            result
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use beatkeeper_core::vocabulary::key::Key;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request, and returns its first line.
    async fn answer_one(listener: TcpListener) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut piece) = (Vec::new(), [0; 4096]);
        // The body is shorter than the buffer, and comes with the head or right after it.
        while !read.windows(10).any(|it| it == b"beatkeeper") {
            let count = stream.read(&mut piece).await.unwrap();
            assert_ne!(count, 0, "it broke off");
            read.extend(&piece[..count]);
        }
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&read).lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn what_waits_when_the_process_ends_is_sent_before_it_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let settings = TraceSettings { url: url.parse().unwrap(), certificate: None };
        let collector = Collector::open(&settings, "test", "replica-0").unwrap();
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new(clock, false));
        let ended = CancellationToken::new();
        let (traces, sending) = collector.traces(clock, &metrics, ended.clone());
        let trace = traces.begin();
        trace.held(1, true);
        traces.end(&trace, &Key::new("shop", "greeter"));
        // Before anything was sent.
        ended.cancel();
        let answered = tokio::time::timeout(TIMEOUT, answer_one(listener));
        let (request, ()) = tokio::join!(answered, sending);
        assert_eq!(request.expect("a request in time"), "POST /v1/traces HTTP/1.1");
        assert!(metrics.text().contains("beatkeeper_trace_spans_dropped_total 0\n"));
    }
}
