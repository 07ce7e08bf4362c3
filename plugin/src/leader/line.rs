//! An open way to the leader with a token for questions.

use std::time::Duration;

use beatkeeper_api::text::{plain, plain_error_chain};
use beatkeeper_core::vocabulary::key::Key;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Limited};
use kube::{Client, Config, client::Body};
use tokio::time::sleep;

use super::{token, unasked::Unasked, way::Way};
use crate::{flags::ConnectionFlags, gather::election::Elected, session::Session};

/// How often, and after which pause, the question is sent again.
const RETRIES: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How much of an answer is read. The leader's have less than a hundredth of it.
const ANSWER_MAX: usize = 1 << 20;
/// The name in the leader's certificate, wherever it is reached.
const NAME: &str = "localhost";

/// An open way to the leader.
pub(super) struct Line {
    way: Way,
    client: Client,
    token: String,
    lease: Key,
}

impl Line {
    /// Makes a token of this ServiceAccount, and opens a way to the leader: to this address, or else to its Pod.
    pub(super) async fn open(
        session: &Session,
        connection: &ConnectionFlags,
        elected: &Elected,
        account: &Key,
        address: Option<&str>,
    ) -> Result<Self, Unasked> {
        let Some(endpoint) = elected.endpoint.clone() else {
            return Err(Unasked::NotServed(elected.holder.clone()));
        };
        let token = token::make(&session.client, account).await?;
        let way = match address {
            Some(address) => Way::direct(address),
            None => Way::forwarded(connection, elected, endpoint.port).await?,
        };
        let lease = elected.lease.clone();
        match only(&way.address, endpoint.certificate.0) {
            Ok(client) => Ok(Self { way, client, token, lease }),
            Err(why) => Err(Unasked::NoAnswer { at: way.address, lease, why }),
        }
    }

    /// Sends a question again while the leader asks to come back later: each token is a new one to it, and it has only so
    /// many reviewed. Returns the status and the body of the answer.
    pub(super) async fn put(&self, path: &str) -> Result<(u16, Vec<u8>), Unasked> {
        let mut answer = self.send(path).await;
        for _ in 0..RETRIES {
            if !matches!(answer, Ok((429, _))) {
                break;
            }
            sleep(PAUSE).await;
            answer = self.send(path).await;
        }
        answer.map_err(|why| Unasked::NoAnswer {
            at: self.way.address.clone(),
            lease: self.lease.clone(),
            why,
        })
    }

    async fn send(&self, path: &str) -> Result<(u16, Vec<u8>), String> {
        let bearer = format!("Bearer {}", self.token);
        let request = Request::get(path).header(header::AUTHORIZATION, bearer);
        let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        let answer: Response<Body> =
            self.client.send(request).await.map_err(|error| plain_error_chain(&error))?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| plain(&error.to_string()).into_owned())?;
        Ok((code, body.to_bytes().to_vec()))
    }
}

/// A client that talks only to the one with this certificate.
fn only(address: &str, certificate: Vec<u8>) -> Result<Client, String> {
    let url = format!("https://{address}").parse();
    let mut config = Config::new(url.map_err(|error: http::uri::InvalidUri| error.to_string())?);
    config.root_cert = Some(vec![certificate]);
    config.tls_server_name = Some(NAME.to_owned());
    // A refusal is an answer, too.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| plain_error_chain(&error))
}
