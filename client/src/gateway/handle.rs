//! The connection to gateways, as heartbeat loops use it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use beatkeeper_api::beats::BeatLease;
use futures::FutureExt;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    sync::{OnceCell, mpsc, oneshot},
    task::spawn_blocking,
};
use tokio_util::task::AbortOnDropHandle;

pub use super::endpoints::CarriedBeat;
use super::{
    endpoints::{Deadlines, Endpoints, Outcome, shuffled},
    lane::{self, Carry, Waiting},
    refusal::Refusal,
    settings::{GatewayNames, GatewaySettings, GatewayUrl, TOKEN_FILE},
};
use crate::{
    failure::Cause,
    timeout::within,
    transport::{ConnectError, Resolver},
};

/// Why no connection to gateways can be made. The texts call the settings by their [`GatewayNames`].
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No URL is given.
    #[error("{0} names no gateway: write it as https://HOST:PORT")]
    NoUrl(&'static str),
    /// No CA is given.
    #[error(
        "{} needs {}, the file with the CA of the gateways: no other CA is trusted",
        .0.gateway,
        .0.ca_file
    )]
    NoCa(GatewayNames),
    /// A CA or a token is given, and no URL.
    #[error("{given} has no effect without {gateway}: name the gateway, or leave the file out")]
    NoGateway {
        /// The setting that is given.
        given: &'static str,
        /// The setting that is missing.
        gateway: &'static str,
    },
    /// The file of the CA cannot be read.
    #[error("{setting}: cannot read {file}: {source}")]
    Ca {
        /// The setting with the file.
        setting: &'static str,
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The file of the CA has no certificate.
    #[error("{setting}: there is no certificate in {file}, which has to be in PEM format")]
    NoCertificate {
        /// The setting with the file.
        setting: &'static str,
        /// The file.
        file: String,
    },
    /// The file of the token cannot be read.
    #[error(
        "{setting}: cannot read {file}: {source}; mount a projected token with the audience beatkeeper there"
    )]
    Token {
        /// The setting with the file.
        setting: &'static str,
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The file of the token is empty.
    #[error("{setting}: {file} is empty")]
    NoToken {
        /// The setting with the file.
        setting: &'static str,
        /// The file.
        file: String,
    },
    /// Anything else in these files cannot be used.
    #[error("{setting}: {source}")]
    Connect {
        /// The setting of the gateways.
        setting: &'static str,
        /// Why not.
        source: ConnectError,
    },
}

impl GatewaySettings {
    /// Puts the settings together, as they were given or left out. No URL: there is no gateway. An error calls them by
    /// `names`.
    ///
    /// # Errors
    /// [`GatewayError`]: one of them is missing.
    pub fn of(
        urls: Vec<GatewayUrl>,
        ca_file: Option<PathBuf>,
        token_file: Option<PathBuf>,
        names: GatewayNames,
    ) -> Result<Option<Self>, GatewayError> {
        let alone = |given| GatewayError::NoGateway { given, gateway: names.gateway };
        match (urls.is_empty(), ca_file, token_file) {
            (true, Some(_), _) => Err(alone(names.ca_file)),
            (true, None, Some(_)) => Err(alone(names.token_file)),
            (true, None, None) => Ok(None),
            (false, None, _) => Err(GatewayError::NoCa(names)),
            (false, Some(ca_file), token_file) => {
                let token_file = token_file.unwrap_or_else(|| PathBuf::from(TOKEN_FILE));
                Ok(Some(Self { urls, ca_file, token_file, names }))
            }
        }
    }
}

/// The connection to gateways. Clones share it: one for all instances of a process.
#[derive(Clone)]
pub struct Gateway {
    /// For instances whose last beat was accepted.
    steady: mpsc::UnboundedSender<Waiting>,
    /// For all others.
    doubtful: mpsc::UnboundedSender<Waiting>,
    _lanes: Arc<[AbortOnDropHandle<()>; 2]>,
}

impl Gateway {
    /// Reads the files; nothing is sent yet. It runs on the current tokio runtime. A file that cannot be used yet is read
    /// again for each beat, and the beat is not accepted until then. So a token that is mounted late, or by mistake not at
    /// all, keeps no instance from renewing its Lease.
    ///
    /// # Errors
    /// [`GatewayError::NoUrl`].
    pub fn open(settings: &GatewaySettings, user_agent: &str) -> Result<Self, GatewayError> {
        Self::open_with(settings, user_agent, shuffled())
    }

    pub(super) fn open_with(
        settings: &GatewaySettings,
        user_agent: &str,
        resolver: Resolver,
    ) -> Result<Self, GatewayError> {
        if settings.urls.is_empty() {
            return Err(GatewayError::NoUrl(settings.names.gateway));
        }
        let (settings, user_agent) = (settings.clone(), user_agent.to_owned());
        let mut known = Known { settings, user_agent, resolver, endpoints: OnceCell::new() };
        match known.open() {
            Ok(endpoints) => known.endpoints = OnceCell::new_with(Some(endpoints)),
            // The agent prints what this target says.
            Err(error) => {
                tracing::warn!(target: "beatkeeper_client::transport", "{error}; it is read again for each beat");
            }
        }
        let known = Arc::new(known);
        let carry: Carry =
            Arc::new(move |leases, deadlines| send(Arc::clone(&known), leases, deadlines).boxed());
        Ok(Self::over(&carry))
    }

    /// A gateway that answers as a test says.
    #[cfg(test)]
    pub(crate) fn fake(
        answer: impl Fn(&BeatLease) -> Result<CarriedBeat, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let carry: Carry = Arc::new(move |leases, _| {
            std::future::ready(leases.iter().map(&answer).collect()).boxed()
        });
        Self::over(&carry)
    }

    fn over(carry: &Carry) -> Self {
        let open = || {
            let (sender, queue) = mpsc::unbounded_channel();
            let lane = tokio::spawn(lane::run(Arc::clone(carry), queue));
            (sender, AbortOnDropHandle::new(lane))
        };
        let ((steady, one), (doubtful, other)) = (open(), open());
        Self { steady, doubtful, _lanes: Arc::new([one, other]) }
    }

    /// Beats for the instance with this Lease. `steady` says whether its last beat here was accepted.
    ///
    /// # Errors
    /// [`Refusal`]. After a timeout it is unknown whether the beat was accepted.
    pub async fn beat(
        &self,
        lease: BeatLease,
        steady: bool,
        limit: Duration,
    ) -> Result<CarriedBeat, Refusal> {
        let (answer, answered) = oneshot::channel();
        let lane = if steady { &self.steady } else { &self.doubtful };
        let ended = || Refusal::found(Cause::Other, "the connection to the gateway has ended");
        lane.send(Waiting { lease, limit, answer }).map_err(|_| ended())?;
        let outcome: Result<Outcome, _> = match within(limit, answered).await {
            Ok(outcome) => outcome,
            Err(error) => return Err(Refusal::timeout(error)),
        };
        outcome.unwrap_or_else(|_| Err(ended()))
    }
}

/// What is known of the gateways.
struct Known {
    settings: GatewaySettings,
    user_agent: String,
    resolver: Resolver,
    /// Set once the files could be read.
    endpoints: OnceCell<Endpoints>,
}

impl Known {
    /// Reads the files. So it must not run where no thread may block.
    fn open(&self) -> Result<Endpoints, GatewayError> {
        check(&self.settings)?;
        let setting = self.settings.names.gateway;
        Endpoints::open(&self.settings, &self.user_agent, Arc::clone(&self.resolver))
            .map_err(|source| GatewayError::Connect { setting, source })
    }
}

/// Sends beats, if the files can be read by now.
async fn send(known: Arc<Known>, leases: Vec<BeatLease>, deadlines: Deadlines) -> Vec<Outcome> {
    let open = || {
        let known = Arc::clone(&known);
        async move {
            match spawn_blocking(move || known.open()).await {
                Ok(opened) => {
                    opened.map_err(|error| Refusal::found(Cause::Other, error.to_string()))
                }
                Err(_) => Err(Refusal::found(Cause::Panicked, "the files were not read")),
            }
        }
    };
    match known.endpoints.get_or_try_init(open).await {
        Ok(endpoints) => endpoints.send(&leases, deadlines).await,
        Err(refusal) => vec![Err(refusal); leases.len()],
    }
}

/// Reads each file once, so that an error names the setting.
fn check(settings: &GatewaySettings) -> Result<(), GatewayError> {
    let name = |file: &Path| file.display().to_string();
    let (setting, file) = (settings.names.ca_file, name(&settings.ca_file));
    match std::fs::read(&settings.ca_file) {
        Ok(ca) if CertificateDer::pem_slice_iter(&ca).any(|certificate| certificate.is_ok()) => {}
        Ok(_) => return Err(GatewayError::NoCertificate { setting, file }),
        Err(source) => return Err(GatewayError::Ca { setting, file, source }),
    }
    let (setting, file) = (settings.names.token_file, name(&settings.token_file));
    match std::fs::read_to_string(&settings.token_file) {
        Ok(token) if !token.trim().is_empty() => Ok(()),
        Ok(_) => Err(GatewayError::NoToken { setting, file }),
        Err(source) => Err(GatewayError::Token { setting, file, source }),
    }
}
