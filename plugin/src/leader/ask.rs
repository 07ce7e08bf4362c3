//! Asks the leader.

use std::time::Duration;

use beatkeeper_api::{
    explain::{EXPLAIN_VERSION, Explanation, explain_path},
    text::plain,
};
use beatkeeper_core::vocabulary::key::Key;
use tokio::time::timeout;

use super::{flags::LeaderFlags, line::Line, unasked::Unasked};
use crate::{
    error::Problem,
    flags::ConnectionFlags,
    gather::election::{self, Elected, Election},
    session::Session,
};

/// How long everything may take.
const WITHIN: Duration = Duration::from_secs(15);

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
        explain(&open(session, connection, flags, registration).await?, registration, instance)
            .await
    };
    timeout(WITHIN, asked).await.unwrap_or(Err(Unasked::Late))
}

/// Opens a way to the leader, for questions about this registration.
pub(super) async fn open(
    session: &Session,
    connection: &ConnectionFlags,
    flags: &LeaderFlags,
    registration: &Key,
) -> Result<Line, Unasked> {
    let elected = elected(session, flags, registration).await?;
    let account = flags.account(&elected.lease, registration);
    Line::open(session, connection, &elected, &account, flags.operator_address.as_deref()).await
}

/// Asks about an instance over an open way.
pub(super) async fn explain(
    line: &Line,
    registration: &Key,
    instance: &str,
) -> Result<Explanation, Unasked> {
    let path = explain_path(&registration.namespace, &registration.name, instance);
    let (code, body) = line.put(&path).await?;
    read(code, &body)
}

/// Asks the leader whether it answers. The registration need not exist.
///
/// # Errors
/// [`Unasked`].
pub async fn answers(
    session: &Session,
    connection: &ConnectionFlags,
    elected: &Elected,
    account: &Key,
    address: Option<&str>,
    registration: &Key,
) -> Result<(), Unasked> {
    let path = explain_path(&registration.namespace, &registration.name, "any");
    let asked = async {
        Line::open(session, connection, elected, account, address).await?.put(&path).await
    };
    match timeout(WITHIN, asked).await.unwrap_or(Err(Unasked::Late))? {
        // The user may ask, and there is no such registration.
        (404, _) => Ok(()),
        (code, body) => read(code, &body).map(drop),
    }
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
