//! The connection of one command to its cluster.

use std::time::Duration;

use beatkeeper::kube_client::{self, Options, Source};
use kube::Client;

use crate::{clock::ServerClock, error::Error, flags::ConnectionFlags};

/// How long the head of a response may take. A person waits for it.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);

/// A connection, and the namespace to look at.
#[derive(Clone)]
pub struct Session {
    /// The client.
    pub client: Client,
    /// The namespace of the flag, or else of the context.
    pub namespace: String,
    /// The context of the kubeconfig; `None` in a Pod.
    pub context: Option<String>,
    /// The clock of the API server.
    pub clock: ServerClock,
}

impl Session {
    /// Opens the connection that the flags choose, and asks the API server for its time.
    ///
    /// # Errors
    /// [`Error`], if the flags lead to no cluster, or the API server does not answer.
    pub async fn open(flags: &ConnectionFlags) -> Result<Self, Error> {
        if flags.act_as.is_none() && !flags.act_as_groups.is_empty() {
            return Err(Error::Usage("--as-group needs --as, the user of the group".to_owned()));
        }
        let source = Source::choose(flags.choice())?;
        let namespace = flags.namespace.clone().unwrap_or_else(|| source.namespace().to_owned());
        let context = source.context().map(str::to_owned);
        let options = Options {
            response_timeout: RESPONSE_WITHIN,
            patience: RESPONSE_WITHIN / 2,
            ..Options::of("kubectl", jiff::Timestamp::now)
        };
        let client = kube_client::connect(source, &options)?;
        let clock = ServerClock::ask(&client).await?;
        Ok(Self { client, namespace, context, clock })
    }
}
