//! `httpGet`: a GET over a separate connection; 2xx and 3xx are success.
//!
//! Redirects are followed as the kubelet follows them: on the same host, at most ten in a row. A redirect to
//! another host is a success with a warning, and no request is sent to that host.

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::redirect::{Redirect, redirect};
use super::spec::{Http, Scheme, Url};
use super::{
    connect,
    failure::ProbeFailure,
    outcome::{Outcome, USER_AGENT},
    tls,
};

/// The maximum size of an answer that is read, in bytes.
const BODY_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;

struct Answer {
    status: StatusCode,
    location: Option<HeaderValue>,
}

pub(super) async fn check(http: &Http) -> Outcome {
    let mut url = http.url.clone();
    let mut headers = http.headers.clone();
    for _ in 0..=REDIRECTS_MAX {
        let Answer { status, location } = get(&url, &headers).await?;
        let location = match location {
            Some(location) if follows(status) && !location.is_empty() => location,
            _ if status.is_success() || status.is_redirection() => return Ok(None),
            _ => return Err(ProbeFailure::HttpStatus(status.as_u16())),
        };
        let location = String::from_utf8_lossy(location.as_bytes());
        match redirect(&url, &location)? {
            Redirect::Elsewhere(host) => {
                return Ok(Some(format!("redirected to another host, {host}, which is not asked")));
            }
            Redirect::Here { url: next, absolute } => {
                // An absolute URL has its own Host. With a path, the configured Host header stays.
                if absolute {
                    headers.remove(header::HOST);
                }
                url = next;
            }
        }
    }
    Err(ProbeFailure::TooManyRedirects(REDIRECTS_MAX))
}

/// Whether the status is a redirect with a Location. The Location of other 3xx statuses has another meaning.
fn follows(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

async fn get(url: &Url, headers: &HeaderMap) -> Result<Answer, ProbeFailure> {
    let stream = connect::connect(&url.target).await?;
    match url.scheme {
        Scheme::Http => exchange(stream, request(url, headers)).await,
        Scheme::Https => {
            exchange(tls::wrap(stream, &url.target.host).await?, request(url, headers)).await
        }
    }
}

fn request(url: &Url, headers: &HeaderMap) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.path.clone().into();
    *request.headers_mut() = headers.clone();
    let ours = [
        (header::HOST, url.target.to_string()),
        (header::USER_AGENT, USER_AGENT.to_owned()),
        (header::ACCEPT, "*/*".to_owned()),
        (header::CONNECTION, "close".to_owned()),
    ];
    for (name, value) in ours {
        if let Ok(value) = HeaderValue::from_str(&value) {
            request.headers_mut().entry(name).or_insert(value);
        }
    }
    request
}

/// Sends the request and reads the answer, or the beginning of a long one.
async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let location = answer.headers().get(header::LOCATION).cloned();
        read(answer.into_body()).await?;
        Ok(Answer { status, location })
    };
    connect::alongside(connection, exchange).await
}

/// Reads the body: an answer that breaks off is a failure, whatever its status is.
async fn read(mut body: Incoming) -> Result<(), hyper::Error> {
    let mut left = BODY_MAX;
    while let Some(frame) = body.frame().await {
        let length = frame?.data_ref().map_or(0, Bytes::len);
        left = match left.checked_sub(length) {
            Some(left) => left,
            None => break,
        };
    }
    Ok(())
}
