//! Credentials that are read anew when the API server refuses them.
//!
//! kube reads a token file once a minute, and runs an exec plugin when its token's time is over. A
//! token that is revoked before that would be sent on until then, and a ttl is shorter than a minute.
//! So an answer of 401 makes for new credentials, from where the configuration says that they are; the
//! next request carries them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response, StatusCode};
use kube::{
    Config,
    client::{Body, ConfigExt, middleware::AuthLayer},
};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt, util::Either};

/// An exec plugin is a process: where nothing that it says helps, it is not asked with every request.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Signs requests with what the configuration names. Clones share what they have read.
#[derive(Clone)]
pub(crate) struct Credentials(Arc<Shared>);

struct Shared {
    config: Config,
    read: Mutex<Read>,
}

struct Read {
    /// None: there is nothing to be added to a request, as with a client certificate.
    signature: Option<AuthLayer>,
    at: Instant,
}

impl Credentials {
    /// Reads them.
    ///
    /// # Errors
    /// The file, the plugin or the token is unusable.
    pub(crate) fn of(config: &Config) -> kube::Result<Self> {
        let read = Mutex::new(Read { signature: config.auth_layer()?, at: Instant::now() });
        Ok(Self(Arc::new(Shared { config: config.clone(), read })))
    }

    fn sign<S>(&self, inner: S) -> Either<<AuthLayer as Layer<S>>::Service, S> {
        let read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &read.signature {
            Some(signature) => Either::Left(signature.layer(inner)),
            None => Either::Right(inner),
        }
    }

    /// Reads them again; what cannot be read leaves those that there are.
    async fn refused(&self) {
        let shared = Arc::clone(&self.0);
        {
            let mut read = shared.read.lock().unwrap_or_else(PoisonError::into_inner);
            if read.at.elapsed() < AT_MOST_EVERY {
                return;
            }
            read.at = Instant::now();
        }
        // Whoever waits may give up meanwhile, and the next request has them all the same.
        let read_again = tokio::task::spawn_blocking(move || match shared.config.auth_layer() {
            Ok(signature) => {
                let mut read = shared.read.lock().unwrap_or_else(PoisonError::into_inner);
                read.signature = signature;
            }
            Err(error) => tracing::warn!("cannot read the credentials again: {error}"),
        });
        let _ = read_again.await;
    }
}

impl<S> Layer<S> for Credentials {
    type Service = Signing<S>;

    fn layer(&self, inner: S) -> Signing<S> {
        Signing { inner, credentials: self.clone() }
    }
}

/// A service whose requests are signed.
#[derive(Clone)]
pub(crate) struct Signing<S> {
    inner: S,
    credentials: Credentials,
}

impl<S, B> Service<Request<Body>> for Signing<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The clone that a call makes is asked.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let credentials = self.credentials.clone();
        let signed = credentials.sign(self.inner.clone());
        async move {
            let response = signed.oneshot(request).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                credentials.refused().await;
            }
            Ok(response)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::header::AUTHORIZATION;
    use kube::config::AuthInfo;

    use super::*;

    /// Asks a server that knows one token; returns its answer.
    async fn ask(credentials: &Credentials, token: &'static str) -> StatusCode {
        let server = tower::service_fn(move |request: Request<Body>| async move {
            let known = request.headers()[AUTHORIZATION] == format!("Bearer {token}");
            let code = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            Ok::<_, BoxError>(Response::builder().status(code).body(())?)
        });
        let request = Request::new(Body::empty());
        credentials.layer(server).oneshot(request).await.expect("an answer").status()
    }

    fn config(auth_info: AuthInfo) -> Config {
        let mut config = Config::new("http://localhost".parse().expect("a URL"));
        config.auth_info = auth_info;
        config
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_file_is_read_again_when_its_token_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, "old").expect("written");
        let token_file = Some(file.path().display().to_string());
        let config = config(AuthInfo { token_file, ..AuthInfo::default() });
        let credentials = Credentials::of(&config).expect("credentials");
        assert_eq!(ask(&credentials, "old").await, StatusCode::OK);
        fs::write(&file, "new").expect("written");
        tokio::time::advance(AT_MOST_EVERY).await;
        assert_eq!(ask(&credentials, "new").await, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&credentials, "new").await, StatusCode::OK);
        // A file that is gone leaves the token that was in it.
        drop(file);
        tokio::time::advance(AT_MOST_EVERY).await;
        assert_eq!(ask(&credentials, "another").await, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&credentials, "new").await, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_again_and_again_reads_once_a_second() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, "0").expect("written");
        let token_file = Some(file.path().display().to_string());
        let config = config(AuthInfo { token_file, ..AuthInfo::default() });
        let credentials = Credentials::of(&config).expect("credentials");
        fs::write(&file, "1").expect("written");
        for _ in 0..5 {
            tokio::time::advance(AT_MOST_EVERY / 10).await;
            assert_eq!(ask(&credentials, "1").await, StatusCode::UNAUTHORIZED, "read too early");
        }
        tokio::time::advance(AT_MOST_EVERY).await;
        ask(&credentials, "1").await;
        assert_eq!(ask(&credentials, "1").await, StatusCode::OK);
    }
}
