//! Asks the leader.

use std::time::Duration;

use beatkeeper_api::{
    explain::{EXPLAIN_VERSION, Explanation, explain_path},
    text::{plain, plain_error_chain},
};
use beatkeeper_core::vocabulary::key::Key;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Limited};
use kube::{Client, Config, client::Body};
use tokio::time::{sleep, timeout};

use super::{flags::LeaderFlags, token, unasked::Unasked, way::Way};
use crate::{
    error::Problem,
    flags::ConnectionFlags,
    gather::election::{self, Elected, Election},
    session::Session,
};

/// How long everything may take.
const WITHIN: Duration = Duration::from_secs(15);
/// How often, and after which pause, the question is sent again.
const RETRIES: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How much of an answer is read. The leader's have less than a hundredth of it.
const ANSWER_MAX: usize = 1 << 20;
/// The name in the leader's certificate, wherever it is reached.
const NAME: &str = "localhost";

/// Asks the leader what it knows of an instance.
///
/// # Errors
/// [`Unasked`].
pub async fn ask(
    session: &Session,
    connection: &ConnectionFlags,
    flags: &LeaderFlags,
    registration: &Key,
    instance: &str,
) -> Result<Explanation, Unasked> {
    let asked = async {
        let elected = elected(session, flags, registration).await?;
        let account = flags.account(&elected.lease, registration);
        let Some(endpoint) = elected.endpoint.clone() else {
            return Err(Unasked::NotServed(elected.holder));
        };
        let token = token::make(&session.client, &account).await?;
        let way = match &flags.operator_address {
            Some(address) => Way::direct(address),
            None => Way::forwarded(connection, &elected, endpoint.port).await?,
        };
        let client = only(&way.address, endpoint.certificate.0).map_err(|why| {
            Unasked::NoAnswer { at: way.address.clone(), lease: elected.lease.clone(), why }
        })?;
        let path = explain_path(&registration.namespace, &registration.name, instance);
        let answer = patiently(&client, &path, &token).await;
        let (code, body) = answer.map_err(|why| Unasked::NoAnswer {
            at: way.address.clone(),
            lease: elected.lease.clone(),
            why,
        })?;
        read(code, &body)
    };
    timeout(WITHIN, asked).await.unwrap_or(Err(Unasked::Late))
}

/// What the Lease of the election says.
async fn elected(
    session: &Session,
    flags: &LeaderFlags,
    registration: &Key,
) -> Result<Elected, Unasked> {
    let client = &session.client;
    let lease = match &flags.election {
        Some(Election(key)) => key.clone(),
        None => election::find(client, Some(&registration.namespace))
            .await
            .ok_or(Unasked::NoElection)?,
    };
    match election::read(client, &lease).await {
        Ok(object) => match Elected::read(lease, &object) {
            none if none.holder.is_empty() => Err(Unasked::NoReplica(none.lease)),
            elected => Ok(elected),
        },
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let problem = Problem::Refused("there is none of this name".to_owned());
            Err(Unasked::Lease { lease, problem })
        }
        Err(error) => Err(Unasked::Lease { lease, problem: Problem::of(&error) }),
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

/// Sends the question again while the leader asks to come back later: each token is a new one to it, and it has only so
/// many reviewed.
async fn patiently(client: &Client, path: &str, token: &str) -> Result<(u16, Vec<u8>), String> {
    let mut answer = send(client, path, token).await;
    for _ in 0..RETRIES {
        if !matches!(answer, Ok((429, _))) {
            break;
        }
        sleep(PAUSE).await;
        answer = send(client, path, token).await;
    }
    answer
}

/// Sends the question. Returns the status and the body.
async fn send(client: &Client, path: &str, token: &str) -> Result<(u16, Vec<u8>), String> {
    let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    let answer: Response<Body> =
        client.send(request).await.map_err(|error| plain_error_chain(&error))?;
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| plain(&error.to_string()).into_owned())?;
    Ok((code, body.to_bytes().to_vec()))
}

/// Reads an answer.
fn read(code: u16, body: &[u8]) -> Result<Explanation, Unasked> {
    if code != 200 {
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().unwrap_or_default();
        return Err(Unasked::Refused { code, text: plain(line).into_owned() });
    }
    let strange = |why: String| Unasked::Strange(plain(&why).into_owned());
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| strange(error.to_string()))?;
    let version = value["apiVersion"].as_str().unwrap_or_default();
    if version != EXPLAIN_VERSION {
        return Err(strange(format!("it is of version {version:?}, and not {EXPLAIN_VERSION}")));
    }
    let explanation: Explanation =
        serde_json::from_value(value).map_err(|error| strange(error.to_string()))?;
    let explanation = printable(explanation);
    match explanation.replica.leads {
        true => Ok(explanation),
        false => Err(Unasked::StandsBy(explanation.replica.name)),
    }
}

/// The same, with texts that others wrote made fit to be printed.
fn printable(mut told: Explanation) -> Explanation {
    let make = |text: &mut String| *text = plain(text).into_owned();
    make(&mut told.replica.name);
    if let Some(decision) = &mut told.decision {
        [&mut decision.state, &mut decision.reason, &mut decision.message]
            .into_iter()
            .for_each(make);
    }
    told.proof.message.iter_mut().for_each(make);
    told.outage.iter_mut().flat_map(|outage| &mut outage.namespace).for_each(make);
    told
}

#[cfg(test)]
mod tests {
    use beatkeeper_api::explain::ExplainReplica;
    use serde_json::json;

    use super::*;

    fn answer(leads: bool) -> serde_json::Value {
        let name = "beatkeeper-0".to_owned();
        let replica = ExplainReplica { name, leads, term: None, term_began: None };
        json!(Explanation::of("shop", "greeter", "vm-1", replica, 0))
    }

    fn told(code: u16, body: &serde_json::Value) -> String {
        match read(code, body.to_string().as_bytes()) {
            Ok(explanation) => format!("explained by {}", explanation.replica.name),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn only_an_answer_of_the_leader_in_the_known_version_counts() {
        assert_eq!(told(200, &answer(true)), "explained by beatkeeper-0");
        assert!(told(200, &answer(false)).contains("it does not lead"));
        let mut newer = answer(true);
        newer["apiVersion"] = "explain.beatkeeper.dev/v2".into();
        assert!(told(200, &newer).contains("of version \"explain.beatkeeper.dev/v2\""));
        newer["apiVersion"] = EXPLAIN_VERSION.into();
        newer["further"] = json!({ "field": 1 });
        assert_eq!(told(200, &newer), "explained by beatkeeper-0");
        assert_eq!(told(403, &json!("no")), "it refuses (403): \"no\"");
        assert!(told(200, &json!([])).contains("does not understand"));
    }
}
