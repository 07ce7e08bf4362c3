//! Why the leader has not said what it knows.

use std::io;

use beatkeeper_core::vocabulary::key::Key;

use crate::{error::Problem, gather::election::ELECTION};

/// Why the leader has not said what it knows. Each text is one line, and says what is missing.
#[derive(Debug, thiserror::Error)]
pub enum Unasked {
    /// There is no Lease of an election, or none that may be read.
    #[error("no Lease {ELECTION} of an election was found; name it with --election")]
    NoElection,
    /// The Lease of the election cannot be read.
    #[error("Lease {lease} of the election cannot be read: {}", .problem.brief())]
    Lease {
        /// The Lease.
        lease: Key,
        /// Why.
        problem: Problem,
    },
    /// No replica leads.
    #[error("no replica leads, says Lease {0}")]
    NoReplica(Key),
    /// The leader does not answer such questions.
    #[error(
        "{0}, which leads, serves no explanations; the chart's value explain.enabled makes it do so"
    )]
    NotServed(String),
    /// No token can be made for the question.
    #[error("no token can be made of ServiceAccount {account}: {}", .problem.brief())]
    Token {
        /// The ServiceAccount.
        account: Key,
        /// Why.
        problem: Problem,
    },
    /// kubectl cannot be run.
    #[error("kubectl cannot be run: {0}; name an address with --operator-address")]
    Kubectl(#[source] io::Error),
    /// kubectl does not reach the Pod.
    #[error("kubectl port-forward to Pod {pod} fails: {why}")]
    Forward {
        /// The Pod.
        pod: String,
        /// What kubectl says.
        why: String,
    },
    /// There is no answer from the one with the certificate.
    #[error("no answer from the one at {at} that has the certificate in Lease {lease}: {why}")]
    NoAnswer {
        /// Where.
        at: String,
        /// The Lease.
        lease: Key,
        /// Why.
        why: String,
    },
    /// The leader refuses to say it.
    #[error("it refuses ({code}): {text}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// What it says.
        text: String,
    },
    /// The answer cannot be understood.
    #[error("this plugin does not understand the answer: {0}")]
    Strange(String),
    /// The one that answers does not lead.
    #[error("{0} answers that it does not lead; try again")]
    StandsBy(String),
    /// It takes too long.
    #[error("it does not answer in time")]
    Late,
}
