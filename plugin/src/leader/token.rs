//! The token with which the leader is asked.
//!
//! The user's own token is never sent: it is good for everything that the user may do. This one is made for the question:
//! it is valid for ten minutes, and only the operator's `/explain` takes it.

use beatkeeper_api::explain::EXPLAIN_AUDIENCE;
use beatkeeper_core::vocabulary::key::Key;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};

use super::unasked::Unasked;
use crate::error::Problem;

/// How long it is valid: the shortest time that an API server takes.
const SECONDS: i64 = 600;

/// Makes a token of a ServiceAccount.
pub(super) async fn make(client: &Client, account: &Key) -> Result<String, Unasked> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![EXPLAIN_AUDIENCE.to_owned()],
            expiration_seconds: Some(SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &account.namespace);
    let made: kube::Result<TokenRequest> =
        accounts.create_subresource("token", &account.name, &PostParams::default(), &request).await;
    let failed = |problem| Unasked::Token { account: account.clone(), problem };
    let made = made.map_err(|error| {
        failed(match Problem::of(&error) {
            // The kind is there: the ServiceAccount is not.
            Problem::NoKind => Problem::Refused("there is no such ServiceAccount".to_owned()),
            problem => problem,
        })
    })?;
    let token = made.status.map(|status| status.token).filter(|token| !token.is_empty());
    token.ok_or_else(|| failed(Problem::Refused("the API server sent none".to_owned())))
}
