//! The credential that signs requests, and when it is fetched anew.

use std::time::Duration;

use futures::FutureExt;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use jiff::Timestamp;
use kube::{
    Config,
    client::{Body, ConfigExt},
    config::ExecConfig,
};
use tokio::{
    sync::oneshot,
    task::JoinError,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tower::{BoxError, Layer, ServiceExt, util::Either};

use super::{
    error::ConnectError,
    plugin::{self, Credential, PluginError},
    redacted,
    source::Settings,
};

/// The first and the longest pause between two fetches that fail or bring what was refused; the pause
/// doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the credential of a provider is fetched: a provider does not say when its token expires.
const PROVIDER_EVERY: Duration = Duration::from_secs(300);

/// Signs requests.
pub(super) enum Signer {
    /// A credential from the description; `None` if a client certificate is enough.
    Fixed(Option<HeaderValue>),
    Fetched(Box<Fetcher>),
}

/// Fetches credentials, one at a time.
pub(super) struct Fetcher {
    how: CredentialSource,
    last: Option<Credential>,
    /// When to fetch next; `None`: when the last credential is refused.
    due: Option<Instant>,
    /// When the last fetch began.
    begun: Instant,
    /// The number of consecutive fetches that failed or brought the same credential as before.
    fruitless: u32,
    fetching: Option<Fetching>,
    /// The requests that wait for the end of the next fetch.
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone)]
enum CredentialSource {
    Plugin(Box<ExecConfig>),
    /// The methods that kube implements: a password, and the legacy auth providers.
    Kube(Box<Config>),
}

type Fetching = AbortOnDropHandle<Result<Credential, CredentialError>>;

/// Why no credential was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A method of kube has failed. Its error may quote a secret, so only a redacted text of it is kept.
    #[error("{0}")]
    Kube(String),
    #[error(transparent)]
    Task(#[from] JoinError),
}

/// What can happen to a signer by itself.
pub(super) enum SignerEvent {
    Due,
    Fetched(Result<Result<Credential, CredentialError>, JoinError>),
}

/// What an event has changed.
pub(super) enum SignerChange {
    Nothing,
    /// There is another credential.
    New,
    /// There is no credential, and the reason.
    Failed(CredentialError),
}

impl Signer {
    /// Makes a signer from the settings; nothing is fetched yet.
    pub(super) fn of(settings: &Settings) -> Result<Self, ConnectError> {
        let config = &settings.config;
        let auth = &config.auth_info;
        if let Some(token) = &settings.token {
            let authorization = plugin::bearer(token).map_err(ConnectError::Token)?;
            Ok(Self::Fixed(Some(authorization)))
        } else if auth.auth_provider.is_some() || auth.username.is_some() {
            Ok(Self::fetched(CredentialSource::Kube(Box::new(config.clone()))))
        } else if let Some(exec) = &auth.exec {
            Ok(Self::fetched(CredentialSource::Plugin(Box::new(exec.clone()))))
        } else {
            Ok(Self::Fixed(None))
        }
    }

    fn fetched(how: CredentialSource) -> Self {
        let now = Instant::now();
        Self::Fetched(Box::new(Fetcher {
            how,
            last: None,
            due: Some(now),
            begun: now,
            fruitless: 0,
            fetching: None,
            waiting: Vec::new(),
        }))
    }

    /// The header that is sent with each request; `None` before the first credential.
    pub(super) fn authorization(&self) -> Option<Option<HeaderValue>> {
        match self {
            Self::Fixed(authorization) => Some(authorization.clone()),
            Self::Fetched(fetcher) => fetcher.last.as_ref().map(|last| last.authorization.clone()),
        }
    }

    /// The credential that was fetched last.
    pub(super) fn credential(&self) -> Option<&Credential> {
        match self {
            Self::Fixed(_) => None,
            Self::Fetched(fetcher) => fetcher.last.as_ref(),
        }
    }

    /// Handles a credential that the API server does not accept: another one is fetched, and the request is
    /// notified when the fetch ends. Returns the sender of the request if nothing has to be fetched.
    pub(super) fn refused(
        &mut self,
        what: Option<&HeaderValue>,
        done: oneshot::Sender<()>,
    ) -> Option<oneshot::Sender<()>> {
        let Self::Fetched(fetcher) = self else { return Some(done) };
        match &fetcher.last {
            // There is another credential already.
            Some(last) if last.authorization.as_ref() != what => return Some(done),
            _ => fetcher.waiting.push(done),
        }
        if fetcher.fetching.is_none() {
            let earliest = fetcher.begun + retry_in(fetcher.fruitless);
            fetcher.due = Some(fetcher.due.map_or(earliest, |due| due.min(earliest)));
        }
        None
    }

    /// Waits for the next thing that happens.
    pub(super) async fn event(&mut self) -> SignerEvent {
        let Self::Fetched(fetcher) = self else { return std::future::pending().await };
        match (&mut fetcher.fetching, fetcher.due) {
            (Some(fetching), _) => SignerEvent::Fetched(fetching.await),
            (None, Some(due)) => {
                sleep_until(due).await;
                SignerEvent::Due
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// Handles an event.
    pub(super) fn handle(&mut self, event: SignerEvent) -> SignerChange {
        let Self::Fetched(fetcher) = self else { return SignerChange::Nothing };
        match event {
            SignerEvent::Due => {
                fetcher.begun = Instant::now();
                fetcher.due = None;
                let fetch = tokio::spawn(fetcher.how.clone().fetch());
                fetcher.fetching = Some(AbortOnDropHandle::new(fetch));
                SignerChange::Nothing
            }
            SignerEvent::Fetched(fetched) => {
                fetcher.fetching = None;
                let change = fetcher.fetched(fetched.unwrap_or_else(|end| Err(end.into())));
                for one in fetcher.waiting.drain(..) {
                    let _ = one.send(());
                }
                change
            }
        }
    }
}

impl Fetcher {
    fn fetched(&mut self, fetched: Result<Credential, CredentialError>) -> SignerChange {
        match fetched {
            Ok(credential) => {
                let same = self.last.as_ref().is_some_and(|last| {
                    credential.identity.is_none() && last.authorization == credential.authorization
                });
                self.fruitless = if same { self.fruitless + 1 } else { 0 };
                let pause = credential.expires.map(|expires| {
                    let lifetime = expires.duration_since(Timestamp::now());
                    let lifetime = Duration::try_from(lifetime).unwrap_or_default();
                    plugin::fetch_in(lifetime, self.begun.elapsed(), rand::random())
                });
                self.due = pause.map(|pause| Instant::now() + pause.max(retry_in(self.fruitless)));
                self.last = Some(credential);
                SignerChange::New
            }
            Err(why) => {
                self.fruitless += 1;
                let pause = retry_in(self.fruitless).mul_f64(0.75 + rand::random::<f64>() / 2.0);
                self.due = Some(Instant::now() + pause);
                SignerChange::Failed(why)
            }
        }
    }
}

/// The pause before the next fetch: one second at first, doubling up to 30 s while fetches do not help.
fn retry_in(fruitless: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << fruitless.min(5)).min(RETRY_MAX)
}

impl CredentialSource {
    async fn fetch(self) -> Result<Credential, CredentialError> {
        match self {
            Self::Plugin(exec) => Ok(plugin::run(*exec).await?),
            Self::Kube(config) => kube_credential(*config)
                .await
                .map_err(|error| CredentialError::Kube(redacted::credential(error.as_ref()))),
        }
    }
}

/// Lets kube sign a request that is not sent anywhere.
async fn kube_credential(config: Config) -> Result<Credential, BoxError> {
    let expires = config.auth_info.auth_provider.as_ref().map(|_| {
        // The next fetch comes after three quarters of this lifetime.
        Timestamp::now() + PROVIDER_EVERY * 4 / 3
    });
    // A provider may be a program, so this call may block.
    let signing = tokio::task::spawn_blocking(move || config.auth_layer()).await??;
    let nowhere = tower::service_fn(|request: Request<Body>| async move {
        Ok::<_, BoxError>(Response::new(request.headers().get(AUTHORIZATION).cloned()))
    });
    let signed = match signing {
        Some(signing) => Either::Left(signing.layer(nowhere)),
        None => Either::Right(nowhere),
    };
    let authorization = signed.oneshot(Request::new(Body::empty())).boxed().await?.into_body();
    Ok(Credential { authorization, identity: None, expires })
}
