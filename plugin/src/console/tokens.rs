//! Readers that bring a token each.
//!
//! The console itself may read nothing. What a reader is shown is read with the token of the reader's request, so the API
//! server decides what it is. The console asks only for the kinds that the page shows, and for nothing that a request
//! names except for a namespace, a registration and an instance.
//!
//! A token is kept as long as the stream or the answer that it was sent for.

use std::{
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use beatkeeper::kube_client::{self, Options};
use beatkeeper_core::vocabulary::key::Key;
use futures::{StreamExt, future, stream::BoxStream};
use http::{HeaderMap, StatusCode, Uri};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, Config, api::PostParams};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};

use super::{
    bearer::Token,
    feed::{Bounds, Feed},
    operator::Source,
    places::{Place, Places, Reader},
    refused::Refused,
};
use crate::{
    clock::ServerClock,
    error::Error,
    gather::{
        self, events,
        scope::{Scope, Wanted},
    },
    model::{
        assemble,
        why::{self, leader::Leader},
    },
    render::why::{WhyReport, report},
    session::Session,
};

/// How long the head of a response of the API server may take.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);
/// How long a request may wait until it is tried.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many tokens are tried at the same time.
const AT_ONCE: usize = 8;
/// How many arguments are read at the same time.
const ARGUMENTS: usize = 8;

/// The API server, without credentials.
#[derive(Debug, Clone)]
pub struct ApiServer {
    /// Its URL.
    pub url: Uri,
    /// The file with the certificates that its own must be signed by. It is read again when it changes.
    pub authority: PathBuf,
}

impl ApiServer {
    /// A client with a token, or without any.
    ///
    /// # Errors
    /// [`Error::Connect`], if the certificates cannot be read.
    pub fn client(&self, token: Option<&Token>) -> Result<Client, Error> {
        let mut config = Config::new(self.url.clone());
        config.root_cert_file = Some(self.authority.clone());
        if let Some(token) = token {
            let described = serde_json::from_value(json!({ "token": token.secret() }));
            config.auth_info = described.expect("a token describes credentials");
        }
        let options = Options {
            response_timeout: RESPONSE_WITHIN,
            patience: RESPONSE_WITHIN / 2,
            ..Options::of("console", jiff::Timestamp::now)
        };
        Ok(kube_client::connect(config, &options)?)
    }
}

/// What readers may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many streams there may be at the same time.
    pub readers: usize,
    /// How many of them one reader may have.
    pub of_one_reader: usize,
    /// How many arguments are read at the same time for one reader.
    pub arguments_of_one_reader: usize,
    /// How many objects a stream may be about.
    pub objects: usize,
    /// How long a stream lasts. The page then asks for a new one.
    pub lifetime: Duration,
    /// How often the API server is asked whether it still accepts the token of a stream.
    pub check: Duration,
}

/// Readers that bring a token each.
pub struct Tokens {
    api_server: ApiServer,
    source: Source,
    limits: Limits,
    attempts: Semaphore,
    places: Arc<Places>,
    arguments: Arc<Places>,
    /// Makes a number of a token from which the token cannot be found.
    hasher: RandomState,
}

/// What a stream keeps until it ends.
struct Kept {
    _feed: Feed,
    _place: Place,
}

impl Tokens {
    /// Readers, none of which reads yet.
    pub fn new(api_server: ApiServer, source: Source, limits: Limits) -> Self {
        let places = Places::new(limits.readers, limits.of_one_reader);
        let arguments = Places::new(ARGUMENTS, limits.arguments_of_one_reader);
        let (attempts, hasher) = (Semaphore::new(AT_ONCE), RandomState::new());
        Self { api_server, source, limits, attempts, places, arguments, hasher }
    }

    /// What a reader is told of a scope: all that is known, and then each change.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn stream(
        &self,
        headers: &HeaderMap,
        scope: Scope,
    ) -> Result<BoxStream<'static, Arc<str>>, Refused> {
        let (session, reader) = self.accepted(headers).await?;
        let place = self.places.take(&reader).map_err(Refused::of_places)?;
        let wanted = Wanted { scope, ..Wanted::default() };
        let bounds = Bounds { shared: true, objects: Some(self.limits.objects) };
        let feed = Feed::start(&session, &wanted, self.source.clone(), bounds).await;
        let feed = feed.map_err(|error| Refused::of(&error))?;
        let subscription = feed.subscribe().await.ok_or(Refused::NoAnswer)?;
        let end = Box::pin(ended(session.client, self.limits));
        let kept = Kept { _feed: feed, _place: place };
        let messages = subscription.messages().take_until(end);
        Ok(messages
            .map(move |message| {
                let _ = &kept;
                message
            })
            .boxed())
    }

    /// The argument about an instance. It is read anew: another replica may hold the stream of the page.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn why(
        &self,
        headers: &HeaderMap,
        key: &Key,
        instance: &str,
    ) -> Result<WhyReport, Refused> {
        let (session, reader) = self.accepted(headers).await?;
        let _place = self.arguments.take(&reader).map_err(Refused::of_arguments)?;
        let scope = Scope::Namespace(key.namespace.clone());
        let wanted = Wanted { scope, name: Some(key.name.clone()), labels: None };
        let (store, events) =
            future::join(gather::gather(&session, &wanted), events::of(&session.client, key)).await;
        let store = store.map_err(|error| Refused::of(&error))?;
        let object = store.registrations.values().next().ok_or(Refused::NoInstance)?;
        let now = session.clock.now();
        let view = assemble::registration(&store, object, now);
        // Without the right to read events, the argument lacks its history alone.
        let events = events.unwrap_or_default();
        let argument = why::why(&store, &view, instance, &events, Leader::NotWanted, now);
        let found = argument.as_ref().zip(view.instance(instance));
        let (argument, found) = found.ok_or(Refused::NoInstance)?;
        Ok(report(&view, found, argument, now))
    }

    /// The connection and the name of a reader whose token is accepted. Places are for these alone.
    async fn accepted(&self, headers: &HeaderMap) -> Result<(Session, Reader), Refused> {
        let attempt = timeout(PATIENCE, self.attempts.acquire()).await;
        let Ok(Ok(_attempt)) = attempt else { return Err(Refused::Busy) };
        let session = self.session(headers).await?;
        let reader = self.reader(headers, &session.client).await?;
        Ok((session, reader))
    }

    /// Who sends a request: the user that the API server takes its token for. A user may have many tokens. Where users may
    /// not ask who they are, each token counts as a reader.
    async fn reader(&self, headers: &HeaderMap, client: &Client) -> Result<Reader, Refused> {
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let asked = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
        let user = match asked {
            Ok(review) => review.status.and_then(|it| it.user_info?.username),
            Err(kube::Error::Api(status)) if status.code == 401 => return Err(Refused::Token),
            Err(kube::Error::Api(_)) => None,
            Err(_) => return Err(Refused::NoAnswer),
        };
        let token = Token::of(headers).ok_or(Refused::NoToken)?;
        Ok(match user {
            Some(user) => format!("user {user}"),
            None => format!("token {}", self.hasher.hash_one(token.secret())),
        })
    }

    /// A connection with the token of a request that the API server accepts.
    async fn session(&self, headers: &HeaderMap) -> Result<Session, Refused> {
        let token = Token::of(headers).ok_or(Refused::NoToken)?;
        let client = self.api_server.client(Some(&token)).map_err(|_| Refused::NoAnswer)?;
        let (clock, status) =
            ServerClock::ask_and_see(&client).await.map_err(|_| Refused::NoAnswer)?;
        match status {
            StatusCode::UNAUTHORIZED => Err(Refused::Token),
            _ => Ok(Session { client, namespace: String::new(), context: None, clock }),
        }
    }
}

/// Returns when the stream has lasted long enough, or the API server does not accept its token any more. The API server
/// itself does not end a watch for that.
async fn ended(client: Client, limits: Limits) {
    let end = Instant::now() + limits.lifetime;
    loop {
        let next = Instant::now() + limits.check;
        sleep_until(next.min(end)).await;
        if next >= end {
            return;
        }
        let asked = ServerClock::ask_and_see(&client).await;
        if asked.is_ok_and(|(_, status)| status == StatusCode::UNAUTHORIZED) {
            return;
        }
    }
}
