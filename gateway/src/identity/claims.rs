//! What a token of a ServiceAccount says, and whether it is for this gateway now.

use beatkeeper_core::carriers::rights::{BoundPod, Identity};
use serde::Deserialize;

use crate::identity::ports::{NotVerified, Verified};

/// A token may be from a clock that is ahead by so many seconds. The API server grants the same.
const AHEAD: i64 = 60;

/// The claims that count.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    #[serde(default)]
    pod: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

impl Audience {
    fn holds(&self, wanted: &str) -> bool {
        match self {
            Self::One(name) => name == wanted,
            Self::Many(names) => names.iter().any(|name| name == wanted),
        }
    }

    fn text(self) -> String {
        match self {
            Self::One(name) => name,
            Self::Many(names) => names.join(", "),
        }
    }
}

/// What a token has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The issuer that the cluster publishes: the first `--service-account-issuer` of its API server. It is read again
    /// together with the keys.
    pub issuer: String,
    /// Issuers that are accepted besides, with the same keys.
    pub besides: Vec<String>,
    /// The audience.
    pub audience: String,
}

impl Claims {
    /// The issuer that the token names.
    pub(super) fn issuer(&self) -> &str {
        &self.iss
    }

    /// Who the token is of. Its signature and its issuer were verified; `now` is in seconds since 1970.
    pub(super) fn check(self, audience: &str, now: i64) -> Result<Verified, NotVerified> {
        let Self { iss: _, sub, aud, exp, nbf, kubernetes } = self;
        if !aud.holds(audience) {
            let (found, expected) = (aud.text(), audience.to_owned());
            return Err(NotVerified::Audience { found, expected });
        }
        if now >= exp {
            return Err(NotVerified::Expired);
        }
        if nbf.is_some_and(|nbf| nbf > now.saturating_add(AHEAD)) {
            return Err(NotVerified::NotYet);
        }
        let Kubernetes { namespace, serviceaccount, pod } = kubernetes;
        let user = format!("system:serviceaccount:{namespace}:{}", serviceaccount.name);
        if sub != user || serviceaccount.uid.is_empty() {
            return Err(NotVerified::NoServiceAccountToken);
        }
        let pod = pod.map(|Named { name, uid }| BoundPod { name: name.into(), uid: uid.into() });
        if pod.as_ref().is_some_and(|pod| pod.name.is_empty() || pod.uid.is_empty()) {
            return Err(NotVerified::NoServiceAccountToken);
        }
        Ok(Verified { identity: Identity { user: user.into(), pod }, expires: exp })
    }
}
