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
    ConnectError,
    plugin::{self, Credential},
    redacted,
    source::Settings,
};

/// The first and the longest pause between two fetches that fail or bring what was refused; the pause
/// doubles.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(30);
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
    how: How,
    last: Option<Credential>,
    /// When to fetch next; `None`: when the last credential is refused.
    due: Option<Instant>,
    /// When the last fetch began.
    begun: Instant,
    /// The number of consecutive fetches that failed or brought the same credential as before.
    in_vain: u32,
    fetching: Option<Fetching>,
    /// The requests that wait for the end of the next fetch.
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone)]
enum How {
    Plugin(Box<ExecConfig>),
    /// The methods that kube implements: a password, and the legacy auth providers.
    Kube(Box<Config>),
}

type Fetching = AbortOnDropHandle<Result<Credential, String>>;

/// What can happen while no request is refused.
pub(super) enum News {
    Due,
    Fetched(Result<Result<Credential, String>, JoinError>),
}

/// The result of a piece of news.
pub(super) enum Outcome {
    Nothing,
    /// There is another credential.
    New,
    /// There is no credential, and the reason.
    Failed(String),
}

impl Signer {
    /// Makes a signer from the settings; nothing is fetched yet.
    pub(super) fn of(settings: &Settings) -> Result<Self, ConnectError> {
        let config = &settings.config;
        let auth = &config.auth_info;
        if let Some(token) = &settings.token {
            let authorization = plugin::bearer(token).map_err(ConnectError::Unreadable)?;
            Ok(Self::Fixed(Some(authorization)))
        } else if auth.auth_provider.is_some() || auth.username.is_some() {
            Ok(Self::fetched(How::Kube(Box::new(config.clone()))))
        } else if let Some(exec) = &auth.exec {
            Ok(Self::fetched(How::Plugin(Box::new(exec.clone()))))
        } else {
            Ok(Self::Fixed(None))
        }
    }

    fn fetched(how: How) -> Self {
        let now = Instant::now();
        Self::Fetched(Box::new(Fetcher {
            how,
            last: None,
            due: Some(now),
            begun: now,
            in_vain: 0,
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
            let earliest = fetcher.begun + again_in(fetcher.in_vain);
            fetcher.due = Some(fetcher.due.map_or(earliest, |due| due.min(earliest)));
        }
        None
    }

    /// Waits for the next thing that happens.
    pub(super) async fn news(&mut self) -> News {
        let Self::Fetched(fetcher) = self else { return std::future::pending().await };
        match (&mut fetcher.fetching, fetcher.due) {
            (Some(fetching), _) => News::Fetched(fetching.await),
            (None, Some(due)) => {
                sleep_until(due).await;
                News::Due
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// Handles a piece of news.
    pub(super) fn take(&mut self, news: News) -> Outcome {
        let Self::Fetched(fetcher) = self else { return Outcome::Nothing };
        match news {
            News::Due => {
                fetcher.begun = Instant::now();
                fetcher.due = None;
                let fetch = tokio::spawn(fetcher.how.clone().fetch());
                fetcher.fetching = Some(AbortOnDropHandle::new(fetch));
                Outcome::Nothing
            }
            News::Fetched(fetched) => {
                fetcher.fetching = None;
                let outcome = fetcher.fetched(fetched.unwrap_or_else(|end| Err(end.to_string())));
                for one in fetcher.waiting.drain(..) {
                    let _ = one.send(());
                }
                outcome
            }
        }
    }
}

impl Fetcher {
    fn fetched(&mut self, fetched: Result<Credential, String>) -> Outcome {
        match fetched {
            Ok(credential) => {
                let same = self.last.as_ref().is_some_and(|last| {
                    credential.identity.is_none() && last.authorization == credential.authorization
                });
                self.in_vain = if same { self.in_vain + 1 } else { 0 };
                let pause = credential.expires.map(|expires| {
                    let lifetime = expires.duration_since(Timestamp::now());
                    let lifetime = Duration::try_from(lifetime).unwrap_or_default();
                    plugin::fetch_in(lifetime, self.begun.elapsed(), rand::random())
                });
                self.due = pause.map(|pause| Instant::now() + pause.max(again_in(self.in_vain)));
                self.last = Some(credential);
                Outcome::New
            }
            Err(why) => {
                self.in_vain += 1;
                let pause = again_in(self.in_vain).mul_f64(0.75 + rand::random::<f64>() / 2.0);
                self.due = Some(Instant::now() + pause);
                Outcome::Failed(why)
            }
        }
    }
}

/// The pause before the next fetch: one second at first, doubling up to 30 s while fetches do not help.
fn again_in(in_vain: u32) -> Duration {
    AGAIN_FIRST.saturating_mul(1 << in_vain.min(5)).min(AGAIN_LAST)
}

impl How {
    async fn fetch(self) -> Result<Credential, String> {
        match self {
            Self::Plugin(exec) => plugin::run(*exec).await.map_err(|error| error.to_string()),
            Self::Kube(config) => {
                ask_kube(*config).await.map_err(|error| redacted::credential(error.as_ref()))
            }
        }
    }
}

/// Lets kube sign a request that is not sent anywhere.
async fn ask_kube(config: Config) -> Result<Credential, BoxError> {
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
