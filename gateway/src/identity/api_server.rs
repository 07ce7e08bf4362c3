//! Asks the API server for the published keys, and for reviews of tokens.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_core::carriers::rights::{BoundPod, Identity};
use futures::{FutureExt, future::LocalBoxFuture};
use http::Request;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use serde::Deserialize;
use tokio::time::timeout;

use crate::identity::ports::{AskFailed, KeySource, TokenReviewer};

/// How long the API server may take.
const WITHIN: Duration = Duration::from_secs(5);
const KEYS: &str = "/openid/v1/jwks";
const DISCOVERY: &str = "/.well-known/openid-configuration";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The API server. It publishes its keys to those in the group `system:serviceaccounts`, by the ClusterRole
/// `system:service-account-issuer-discovery`. Reviews need the permission to create `tokenreviews`.
#[derive(Clone)]
pub struct ApiServer(Client);

impl ApiServer {
    /// Asks by this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    async fn get(&self, path: &str) -> Result<String, AskFailed> {
        let request = Request::get(path).body(Vec::new())?;
        let answer = timeout(WITHIN, self.0.request_text(request)).await;
        Ok(answer.map_err(|_| AskFailed::Late)??)
    }

    async fn discovered_issuer(&self) -> Result<String, AskFailed> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
        }
        let Discovery { issuer } = serde_json::from_str(&self.get(DISCOVERY).await?)?;
        Ok(issuer)
    }

    async fn token_review(
        &self,
        token: &str,
        audience: &str,
    ) -> Result<Option<Identity>, AskFailed> {
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        };
        let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
        let api: Api<TokenReview> = Api::all(self.0.clone());
        let parameters = PostParams::default();
        let answer = timeout(WITHIN, api.create(&parameters, &review)).await;
        let status = answer.map_err(|_| AskFailed::Late)??.status.unwrap_or_default();
        let confirmed =
            status.audiences.unwrap_or_default().iter().any(|confirmed| confirmed == audience);
        let good = status.authenticated == Some(true) && confirmed;
        Ok(status.user.filter(|_| good).and_then(identity))
    }
}

/// Who a reviewed token is of. Only those of ServiceAccounts have a namespace.
fn identity(user: UserInfo) -> Option<Identity> {
    let name = user.username.filter(|name| !name.is_empty())?;
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default();
    let first = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
    let pod = match (first(POD_NAME), first(POD_UID)) {
        (Some(name), Some(uid)) => Some(BoundPod { name: name.into(), uid: uid.into() }),
        _ => None,
    };
    Some(Identity { user: name.into(), pod })
}

impl KeySource for ApiServer {
    fn keys(&self) -> LocalBoxFuture<'_, Result<String, AskFailed>> {
        self.get(KEYS).boxed_local()
    }

    fn issuer(&self) -> LocalBoxFuture<'_, Result<String, AskFailed>> {
        self.discovered_issuer().boxed_local()
    }
}

impl TokenReviewer for ApiServer {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> LocalBoxFuture<'a, Result<Option<Identity>, AskFailed>> {
        self.token_review(token, audience).boxed_local()
    }
}
