//! Why a command failed. Each error names the object and says what to do.

use std::{io, net::SocketAddr, process::ExitCode};

use beatkeeper_api::{
    heartbeat::REGISTRATION_LABEL,
    text::{error_chain, plain, plain_error_chain},
};
use beatkeeper_client::transport::{ConnectError, NoSource};

use crate::change::obstacle::Obstacle;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no kubeconfig, context or ServiceAccount.
    #[error(
        "there is no way to a cluster: {0}\n\
         Name a kubeconfig with --kubeconfig or KUBECONFIG, and one of its contexts with --context."
    )]
    NoSource(#[from] NoSource),
    /// The connection cannot be made of what the kubeconfig says.
    #[error("{0}\nCorrect the kubeconfig, or name another one with --kubeconfig.")]
    Connect(#[from] ConnectError),
    /// A request failed.
    #[error("cannot {doing}: {problem}")]
    Request {
        /// What was being done, to which object.
        doing: String,
        /// What is wrong, and what to do.
        problem: Problem,
    },
    /// The API server refuses a write because a right is missing.
    #[error("cannot {doing}: {message}\nThis needs {right}. docs/kubectl.md has a role with that.")]
    Forbidden {
        /// What was being done, to which object.
        doing: String,
        /// What the API server, or an admission policy, says.
        message: String,
        /// The right that is needed.
        right: String,
    },
    /// What is published could not be compared with what would be.
    #[error(transparent)]
    NotCompared(Box<Error>),
    /// A change is not made.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    /// There is no registration of this name.
    #[error("there is no ServiceRegistration {name} in namespace {namespace}{}", listed(others))]
    NoRegistration {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The registrations that the namespace has.
        others: Vec<String>,
    },
    /// No Pod of the operator runs in the namespace.
    #[error(
        "no Pod with the label beatkeeper.dev/operator runs in namespace {namespace}\n\
         Name the namespace of the operator with -n."
    )]
    NoOperatorPod {
        /// The namespace.
        namespace: String,
    },
    /// kubectl cannot be run.
    #[error("cannot run kubectl: {0}\nPut it on the PATH, or type what --print prints.")]
    Kubectl(#[source] io::Error),
    /// The registration has no instance of this name.
    #[error("there is no instance {instance} of ServiceRegistration {registration}\n{hint}")]
    NoInstance {
        /// Namespace and name of the registration.
        registration: String,
        /// The name of the instance.
        instance: String,
        /// What there is instead.
        hint: String,
    },
    /// A Lease that was named is not there, or is no heartbeat.
    #[error(
        "there is no heartbeat Lease {lease} in namespace {namespace}\n\
         A heartbeat is named REGISTRATION.INSTANCE, and has the label {REGISTRATION_LABEL}."
    )]
    NoHeartbeat {
        /// The namespace.
        namespace: String,
        /// The name of the Lease.
        lease: String,
    },
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error(
        "cannot read {name}: {cause}\nName files or folders that exist, or - for standard input."
    )]
    File {
        /// The name of the file or folder.
        name: String,
        /// Why.
        cause: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    /// The console cannot listen.
    #[error("cannot listen on {at}: {cause}\nChoose another port with --port.")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The support bundle cannot be written. Then it is not there.
    #[error("cannot write the support bundle: {0}\nName another place with --output.")]
    Bundle(#[source] io::Error),
    /// The user has ended the command before it was done.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The console in a cluster cannot listen.
    #[error("cannot listen on {at}: {cause}\nName another address with --listen.")]
    Serve {
        /// Where.
        at: String,
        /// Why.
        cause: io::Error,
    },
    /// The program cannot start what it needs.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
}

impl Error {
    /// An error of a request. `doing` says what was being done, such as `list Leases in namespace shop`.
    pub fn of_request(doing: impl Into<String>, error: &kube::Error) -> Self {
        Self::Request { doing: doing.into(), problem: Problem::of(error) }
    }

    /// An error of a write. `right` is the right that may be missing.
    pub fn of_write(doing: impl Into<String>, right: String, error: &kube::Error) -> Self {
        let doing = doing.into();
        match Problem::of(error) {
            Problem::Forbidden(message) => Self::Forbidden { doing, message, right },
            // The object itself is gone, and not its kind.
            Problem::NoKind => Self::Request {
                doing,
                problem: Problem::Refused(plain(&error.to_string()).into_owned()),
            },
            problem => Self::Request { doing, problem },
        }
    }

    /// Whether it is not known if the API server has done what it was asked for.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Request { problem: Problem::NoAnswer(_), .. })
    }

    /// The exit code: 2 for a command line that makes no sense and for a comparison that failed, and 1 for all else.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::NotCompared(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Why the API server has not done what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// 401.
    #[error(
        "the API server does not accept the credentials\n\
         Log in again, or choose another context with --context."
    )]
    Unknown,
    /// 403. The message of the API server names the user, the verb and the resource.
    #[error(
        "{0}\nAsk for a role with the verbs get, list and watch for it; docs/kubectl.md has one."
    )]
    Forbidden(String),
    /// 404 for a whole kind.
    #[error(
        "this cluster does not know this kind\n\
         Install Beatkeeper with its Helm chart, or choose another cluster with --context."
    )]
    NoKind,
    /// Any other answer.
    #[error("{0}")]
    Refused(String),
    /// There was no answer.
    #[error("{0}\nCheck the network, and the server of the context (--context, --kubeconfig).")]
    NoAnswer(String),
}

impl Problem {
    /// What an error of a list, a read or a watch says.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Unknown,
                403 => Self::Forbidden(plain(&status.message).into_owned()),
                404 => Self::NoKind,
                _ => Self::Refused(plain(&status.message).into_owned()),
            },
            kube::Error::Service(error) => {
                Self::NoAnswer(plain(&without_lead(error.as_ref())).into_owned())
            }
            other => Self::NoAnswer(plain_error_chain(other)),
        }
    }

    /// The problem on one line, without the remedy.
    pub fn brief(&self) -> String {
        let text = self.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    }
}

/// The text of a connection's error without what its libraries put before the cause.
fn without_lead(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error_chain(error);
    text.strip_prefix("client error (Connect): ").map_or_else(|| text.clone(), str::to_owned)
}

/// The most names that an error lists.
const NAMED: usize = 8;

fn listed(names: &[String]) -> String {
    match names {
        [] => "; it has none\nLook in all namespaces with: kubectl beatkeeper get -A".to_owned(),
        names => {
            let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = if names.len() > NAMED { ", …" } else { "" };
            format!("\nIt has: {first}{more}")
        }
    }
}

/// How a command that did not fail has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Well,
    /// Something was found that needs attention.
    Found,
}

impl Outcome {
    /// The exit code: 0 or 1.
    pub fn code(self) -> ExitCode {
        match self {
            Self::Well => ExitCode::SUCCESS,
            Self::Found => ExitCode::FAILURE,
        }
    }
}
