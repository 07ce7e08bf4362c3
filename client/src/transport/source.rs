//! The source that describes the connection to the API server. It is read again and again.
//!
//! Certificates, keys and tokens are replaced while a process runs: by a kubelet, a secret store, a cron job,
//! or an administrator who rotates a cluster's CA as Kubernetes documents it. The description is read as a
//! whole: the kubeconfig with its embedded data, and every file that it names. An incomplete read, for
//! example while a file is being written, changes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use beatkeeper_api::text::plain_error_chain;
use futures::FutureExt;
use http::HeaderValue;
use kube::{
    Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use super::{
    error::{ConnectError, NoConfiguration, NoSource},
    plugin::Credential,
    proxy::Proxy,
    redacted,
    route::Route,
};

/// The source of the description. Clones share it.
#[derive(Clone)]
pub struct Source {
    origin: Arc<Origin>,
    namespace: String,
    act_as: Arc<ActAs>,
}

/// What a user chooses on a command line, in kubectl's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The kubeconfig; `None` for the files of $KUBECONFIG, or else ~/.kube/config.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; `None` for its current one.
    pub context: Option<String>,
    /// The user and the groups that requests are sent for.
    pub act_as: ActAs,
}

/// The user and groups that requests impersonate, if not those of the credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActAs {
    /// The name of the user.
    pub user: Option<String>,
    /// The groups of the user.
    pub groups: Vec<String>,
}

enum Origin {
    /// The files of $KUBECONFIG, or else ~/.kube/config. The context is fixed at the start: a user who
    /// chooses another context for the next kubectl does not move a running process to another cluster.
    Kubeconfig { file: Option<PathBuf>, context: String },
    /// The files that a kubelet mounts into each Pod.
    Pod,
    /// A configuration of the caller; the files that it names are read again.
    Given(Box<Config>),
}

impl Source {
    /// Finds the source: a kubeconfig, or else the ServiceAccount of a Pod.
    ///
    /// # Errors
    /// There is neither.
    pub fn infer() -> Result<Self, NoConfiguration> {
        Self::infer_from(None)
    }

    pub(super) fn infer_from(file: Option<PathBuf>) -> Result<Self, NoConfiguration> {
        let outside = match Self::kubeconfig(file) {
            Ok(source) => return Ok(source),
            Err(error) => error,
        };
        match Config::incluster() {
            Ok(config) => Ok(Self::at(Origin::Pod, config.default_namespace)),
            Err(inside) => Err(NoConfiguration {
                kubeconfig: redacted::kubeconfig(&outside),
                pod: redacted::in_cluster(&inside),
            }),
        }
    }

    /// Finds the source that a user has chosen. A named kubeconfig or context is used, or refused: the ServiceAccount
    /// of a Pod would reach another cluster than the user meant.
    ///
    /// # Errors
    /// What was chosen cannot be used; or nothing was chosen, and there is neither a kubeconfig nor a ServiceAccount.
    pub fn choose(choice: Choice) -> Result<Self, NoSource> {
        let Choice { kubeconfig: file, context, act_as } = choice;
        let source = if file.is_none() && context.is_none() {
            Self::infer()?
        } else {
            let chosen = Self::in_context(file, context.as_deref());
            chosen.map_err(|error| NoSource::Chosen(redacted::kubeconfig(&error)))?
        };
        Ok(Self { act_as: Arc::new(act_as), ..source })
    }

    /// Makes the source of a kubeconfig: of the given file alone, or as kubectl finds it.
    pub(super) fn kubeconfig(file: Option<PathBuf>) -> Result<Self, KubeconfigError> {
        Self::in_context(file, None)
    }

    fn in_context(file: Option<PathBuf>, context: Option<&str>) -> Result<Self, KubeconfigError> {
        let (context, config, _) = kubeconfig(file.as_deref(), context)?;
        Ok(Self::at(Origin::Kubeconfig { file, context }, config.default_namespace))
    }

    fn at(origin: Origin, namespace: String) -> Self {
        Self { origin: Arc::new(origin), namespace, act_as: Arc::default() }
    }

    /// The name of the context, if the source is a kubeconfig.
    pub fn context(&self) -> Option<&str> {
        match &*self.origin {
            Origin::Kubeconfig { context, .. } => Some(context),
            Origin::Pod | Origin::Given(_) => None,
        }
    }

    /// The default namespace of the source.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the content can change later: a given configuration without files never does.
    pub(super) fn changes(&self) -> bool {
        match &*self.origin {
            Origin::Kubeconfig { .. } | Origin::Pod => true,
            Origin::Given(config) => {
                let auth = &config.auth_info;
                config.root_cert_file.is_some()
                    || [&auth.token_file, &auth.client_certificate, &auth.client_key]
                        .into_iter()
                        .any(Option::is_some)
            }
        }
    }

    /// Reads the whole source. This reads files, so it must not run on a thread that must not block.
    pub(super) fn read(&self, user_agent: &HeaderValue) -> Result<Settings, ConnectError> {
        let (mut config, proxy) = match &*self.origin {
            Origin::Kubeconfig { file, context } => {
                let read = kubeconfig(file.as_deref(), Some(context));
                let (_, config, named) =
                    read.map_err(|error| ConnectError::Unreadable(redacted::kubeconfig(&error)))?;
                let proxy = match named {
                    Some(url) => Some(Proxy::named(&url)?),
                    None => Proxy::of_environment(&config.cluster_url, variable)?,
                };
                (config, proxy)
            }
            Origin::Pod => {
                let config = Config::incluster();
                let unreadable = |error| ConnectError::Unreadable(redacted::in_cluster(&error));
                (config.map_err(unreadable)?, None)
            }
            Origin::Given(config) => (config.as_ref().clone(), given_proxy(config)?),
        };
        if let Some(file) = config.root_cert_file.take() {
            config.root_cert = Some(certificates(&file)?);
        }
        if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConnectError::Unreadable(
                "there is no certificate in the CA bundle".into(),
            ));
        }
        let ActAs { user, groups } = &*self.act_as;
        if user.is_some() {
            config.auth_info.impersonate.clone_from(user);
            config.auth_info.impersonate_groups = Some(groups.clone());
        }
        config.proxy_url = None;
        config.headers.retain(|(header, _)| *header != http::header::USER_AGENT);
        config.headers.push((http::header::USER_AGENT, user_agent.clone()));
        Settings::of(config, proxy)
    }
}

impl From<Config> for Source {
    fn from(config: Config) -> Self {
        let namespace = config.default_namespace.clone();
        Self::at(Origin::Given(Box::new(config)), namespace)
    }
}

/// The result of one read.
pub(super) struct Settings {
    pub config: Config,
    pub proxy: Option<Proxy>,
    /// The token in the description, if there is one.
    pub token: Option<String>,
    /// The fingerprint of everything that determines how connections are made. A change causes new
    /// connections.
    pub route: Fingerprint,
    /// The fingerprint of everything that determines how requests are signed.
    pub signature: Fingerprint,
}

/// Equal if nothing has changed. It holds secrets: it is compared, and never shown.
#[derive(PartialEq)]
pub(super) struct Fingerprint {
    /// Compared as a value: the order in which a map is written is arbitrary.
    described: Value,
    files: Vec<Vec<u8>>,
}

impl Settings {
    fn of(config: Config, proxy: Option<Proxy>) -> Result<Self, ConnectError> {
        let auth = &config.auth_info;
        let described = serde_json::to_value(auth).map_err(unreadable)?;
        let token = token(auth, &described)?;
        let certificate = contents(auth.client_certificate.as_ref())?;
        let key = contents(auth.client_key.as_ref())?;
        let via = proxy.as_ref().map(|proxy| proxy.uri.to_string()).unwrap_or_default();
        let password = proxy.as_ref().and_then(|proxy| proxy.authorization.clone());
        let mut route = vec![
            config.cluster_url.to_string().into_bytes(),
            config.tls_server_name.clone().unwrap_or_default().into_bytes(),
            vec![u8::from(config.accept_invalid_certs), u8::from(config.root_cert.is_some())],
            certificate,
            key,
            via.into_bytes(),
            password.map(|password| password.as_bytes().to_vec()).unwrap_or_default(),
        ];
        route.extend(config.root_cert.iter().flatten().cloned());
        let route = Fingerprint { described: described.clone(), files: route };
        let token_file = token.clone().unwrap_or_default().into_bytes();
        let signature = Fingerprint { described, files: vec![token_file] };
        Ok(Self { proxy, token, route, signature, config })
    }
}

impl Settings {
    /// Makes the route for connections; a client certificate may come from a plugin.
    pub(super) fn route(&self, credential: Option<&Credential>) -> Result<Route, ConnectError> {
        Route::of(&self.config, self.proxy.as_ref(), credential)
    }
}

/// Returns the token of the description, unless another method signs. A token in a file takes precedence over
/// an inline one, as in client-go.
fn token(auth: &AuthInfo, described: &Value) -> Result<Option<String>, ConnectError> {
    let signed_otherwise =
        auth.auth_provider.is_some() || (auth.username.is_some() && auth.password.is_some());
    if signed_otherwise {
        return Ok(None);
    }
    let Some(file) = &auth.token_file else {
        // kube's type hides the token, so it is read from the raw description.
        let token = described.get("token").and_then(Value::as_str).map(str::trim);
        return Ok(token.filter(|token| !token.is_empty()).map(str::to_owned));
    };
    let content = String::from_utf8(contents(Some(file))?).map_err(unreadable)?;
    match content.trim() {
        "" => Err(ConnectError::Unreadable(format!("{} is empty", redacted::path(file)))),
        token => Ok(Some(token.to_owned())),
    }
}

fn contents(file: Option<&String>) -> Result<Vec<u8>, ConnectError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let failed = |error| ConnectError::Unreadable(format!("{}: {error}", redacted::path(file)));
    fs::read(file).map_err(failed)
}

fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, ConnectError> {
    let failed = |why: String| {
        let file = redacted::path(&file.to_string_lossy());
        ConnectError::Unreadable(format!("{file}: {why}"))
    };
    let content = fs::read(file).map_err(|error| failed(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&content)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>();
    certificates.map_err(|error| failed(redacted::pem(&error)))
}

/// Returns the requested or else the current context, its content, and the proxy that it names.
fn kubeconfig(
    file: Option<&Path>,
    context: Option<&str>,
) -> Result<(String, Config, Option<String>), KubeconfigError> {
    let mut kubeconfig = file.map_or_else(Kubeconfig::read, Kubeconfig::read_from)?;
    let context = context.or(kubeconfig.current_context.as_deref()).map(str::to_owned);
    let context = context.ok_or(KubeconfigError::CurrentContextNotSet)?;
    let cluster = kubeconfig
        .contexts
        .iter()
        .find(|named| named.name == context)
        .and_then(|named| Some(named.context.as_ref()?.cluster.clone()));
    let mut proxy = None;
    for named in &mut kubeconfig.clusters {
        let here = Some(&named.name) == cluster.as_ref();
        if let Some(cluster) = &mut named.cluster {
            let its = cluster.proxy_url.take().filter(|url| !url.trim().is_empty());
            if here && proxy.is_none() {
                proxy = its;
            }
            // Otherwise kube would read the environment, without its exceptions, and fail if it is malformed.
            cluster.proxy_url = Some("http://asked.otherwise.invalid".to_owned());
        }
    }
    let options = KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
    let mut config = ready_now(Config::from_custom_kubeconfig(kubeconfig, &options))?;
    if let Some(exec) = &mut config.auth_info.exec
        && let Some(cluster) = &mut exec.cluster
    {
        cluster.proxy_url.clone_from(&proxy);
    }
    config.apply_debug_overrides();
    Ok((context, config, proxy))
}

/// Returns the proxy of a configuration of the caller. kube takes a proxy from the environment without
/// checking the exceptions, and only the URL shows this.
fn given_proxy(config: &Config) -> Result<Option<Proxy>, ConnectError> {
    let Some(url) = &config.proxy_url else { return Ok(None) };
    let of_environment = ["HTTPS_PROXY", "https_proxy"]
        .iter()
        .filter_map(|name| variable(name)?.parse::<http::Uri>().ok())
        .any(|its| its == *url);
    if of_environment {
        return Ok(Proxy::of_environment(&config.cluster_url, variable)?);
    }
    Ok(Some(Proxy::named(&url.to_string())?))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn unreadable(error: impl std::error::Error) -> ConnectError {
    ConnectError::Unreadable(plain_error_chain(&error))
}

/// Returns the result of a future that is async only by its signature.
fn ready_now<T>(ready: impl Future<Output = T>) -> T {
    ready.now_or_never().expect("kube reads a configuration without waiting")
}
