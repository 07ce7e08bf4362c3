//! Whether the leader explains instances to this user.

use beatkeeper_core::vocabulary::key::Key;

use super::{
    election::{self, Elected},
    rights::lacking,
};
use crate::{
    check::{
        facts::{Explained, Operator, Read, Unread},
        rights,
    },
    flags::ConnectionFlags,
    leader::{ask, flags::account_of},
    session::Session,
};

/// What is asked about need not exist.
const ANY: &str = "check";

/// Asks the leader, as `why` does. `address` is where it answers, if the user knows that.
pub async fn explained(
    session: &Session,
    connection: &ConnectionFlags,
    operator: Option<&Operator>,
    address: Option<&str>,
) -> Read<Explained> {
    let elects = operator.filter(|it| it.explains());
    let Some((operator, lease)) = elects.and_then(|it| Some((it, it.election()?))) else {
        return Err(Unread("the operator explains nothing".to_owned()));
    };
    let account = account_of(&lease);
    let needed = rights::needed_to_ask(&lease, &account, address.is_none());
    if let Some(right) = lacking(&session.client, &needed).await?.first() {
        return Err(Unread(format!("you may not {right}")));
    }
    let object = election::read(&session.client, &lease).await;
    let object = object.map_err(|error| Unread::of(&error))?;
    let elected = Elected::read(lease.clone(), &object);
    if elected.endpoint.is_none() {
        return Ok(Explained::Unannounced(lease));
    }
    // The account may get registrations in the namespaces that the operator watches.
    let watched = operator.watched();
    let namespace = watched.first().copied().unwrap_or(&operator.key.namespace);
    let any = Key::new(namespace, ANY);
    let answers = ask::answers(session, connection, &elected, &account, address, &any).await;
    Ok(match answers {
        Ok(()) => Explained::Answers(account),
        Err(why) => Explained::Silent(why.to_string()),
    })
}
