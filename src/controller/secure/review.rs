//! Asks the API server whose token a token is, and what that user may do.

use std::time::Duration;

use beatkeeper_api::GROUP;
use beatkeeper_client::timeout::{TimedOut, within};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{
        NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
    },
};
use kube::{Api, Client, api::PostParams};

use beatkeeper_core::vocabulary::key::Key;

use super::decisions::{Access, Verdict};

/// How long each of the two questions may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The API server has not answered a question.
#[derive(Debug, thiserror::Error)]
pub(in crate::controller) enum ReviewFailed {
    #[error("cannot create a TokenReview: {0}")]
    Token(#[source] kube::Error),
    #[error("cannot create a SubjectAccessReview: {0}")]
    Access(#[source] kube::Error),
    #[error(transparent)]
    Late(#[from] TimedOut),
}

/// What knows whether a token is good for something.
pub(in crate::controller) trait Reviewer: Send + Sync + 'static {
    fn review(
        &self,
        token: &str,
        access: &Access,
    ) -> impl Future<Output = Result<Verdict, ReviewFailed>> + Send;
}

/// The API server.
pub(in crate::controller) struct ApiServer {
    client: Client,
}

impl ApiServer {
    /// This client must not wait if it is told to come back later: the scrape would wait, too.
    pub(in crate::controller) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The user of a token; `None` if it is not valid here. Without an audience, the API server takes only tokens that
    /// are meant for itself.
    async fn user(
        &self,
        token: &str,
        audience: Option<&str>,
    ) -> Result<Option<UserInfo>, ReviewFailed> {
        let audiences = audience.map(|audience| vec![audience.to_owned()]);
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences },
            ..TokenReview::default()
        };
        let (api, params) = (Api::<TokenReview>::all(self.client.clone()), PostParams::default());
        let answer = within(ANSWER_WITHIN, api.create(&params, &review)).await?;
        let status = answer.map_err(ReviewFailed::Token)?.status.unwrap_or_default();
        // An API server whose authenticator knows no audiences does not confirm one.
        let is_meant = audience.is_none_or(|audience| {
            status.audiences.iter().flatten().any(|confirmed| confirmed == audience)
        });
        Ok(status.user.filter(|_| status.authenticated == Some(true) && is_meant))
    }

    async fn may(&self, user: UserInfo, access: &Access) -> Result<bool, ReviewFailed> {
        let UserInfo { extra, groups, uid, username } = user;
        let get = Some("get".to_owned());
        let (path, object) = match access {
            Access::Metrics => {
                let path = Some("/metrics".to_owned());
                (Some(NonResourceAttributes { path, verb: get }), None)
            }
            Access::Registration(Key { namespace, name }) => {
                let object = ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    resource: Some("serviceregistrations".to_owned()),
                    namespace: Some(namespace.clone()),
                    name: Some(name.clone()),
                    verb: get,
                    ..ResourceAttributes::default()
                };
                (None, Some(object))
            }
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                extra,
                groups,
                uid,
                user: username,
                non_resource_attributes: path,
                resource_attributes: object,
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = within(ANSWER_WITHIN, api.create(&PostParams::default(), &review)).await?;
        Ok(answer.map_err(ReviewFailed::Access)?.status.is_some_and(|status| status.allowed))
    }
}

impl Reviewer for ApiServer {
    async fn review(&self, token: &str, access: &Access) -> Result<Verdict, ReviewFailed> {
        let Some(user) = self.user(token, access.audience()).await? else {
            return Ok(Verdict::Unauthenticated);
        };
        let name = user.username.clone().unwrap_or_default();
        Ok(match self.may(user, access).await? {
            true => Verdict::Allowed,
            false => Verdict::Forbidden { user: name },
        })
    }
}
