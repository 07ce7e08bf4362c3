//! Who may renew through a gateway, with what the cluster says of it (G6, G7).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use beatkeeper_api::GROUP;
use beatkeeper_core::{
    carriers::{
        frames::{InstanceId, Verdict},
        rights::{self, Identity, Refusal, Right},
        set::PodUid,
    },
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::{key::Key, pace::Pace},
};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use crate::controller::{api::ApiServer, cluster::Cluster, error::ApiError, liveness::Liveness};

/// What the name of each ServiceAccount begins with.
const ACCOUNT: &str = "system:serviceaccount:";
/// For how long the answer to a review counts.
pub(super) const REVIEWED_FOR: Duration = Duration::from_secs(60);
/// After which time a question that has no answer yet is asked again.
const LATER: Duration = Duration::from_millis(250);

/// Judges the instances of gateways in one scope.
pub(crate) struct Judge {
    pub(crate) api: ApiServer,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    /// The namespace of the scope; None for all namespaces.
    pub(crate) namespace: Option<String>,
}

/// A verdict, and when to judge again.
#[derive(Debug)]
pub(crate) struct Judged {
    /// None if it is not known yet.
    pub(crate) verdict: Option<Verdict>,
    /// None if the verdict stands.
    pub(crate) again_in: Option<Duration>,
    /// Why the API server gave no answer.
    pub(crate) failed: Option<ApiError>,
}

impl Judged {
    fn at_last(verdict: Verdict) -> Self {
        Self { verdict: Some(verdict), again_in: None, failed: None }
    }

    fn refused(why: String) -> Self {
        Self::at_last(Verdict::Refused(Refusal::Other(why.into())))
    }

    fn later() -> Self {
        Self { verdict: None, again_in: Some(LATER), failed: None }
    }
}

/// What a verdict needs.
pub(crate) enum Question {
    /// Nothing more.
    None(Judged),
    /// Two reviews: may this user renew this Lease of this registration?
    Review(Identity, Key, Key),
    /// A live read: does this Lease exist?
    Read(Key),
}

impl Judge {
    /// What the verdict on an instance needs; None if the instance is forgotten. Nothing is asked.
    pub(crate) fn question(&self, gateway: &PodUid, id: InstanceId) -> Option<Question> {
        let (lease, identity, known) = self.liveness.carried(|state, index| {
            let (lease, identity) = state.set.named(gateway, id)?;
            let known = index.find_carried(lease).map(|(_, origin)| {
                let registration = index.registration_of(lease).cloned();
                (rights::right(identity, lease, origin), registration)
            });
            Some((lease.clone(), identity.clone(), known))
        })??;
        if let Some(namespace) = self.namespace.as_ref().filter(|it| **it != lease.namespace) {
            return Some(Question::None(Judged::refused(format!(
                "Lease {lease} is in another namespace than {namespace}, the one that this operator watches"
            ))));
        }
        Some(match known {
            None => Question::Read(lease),
            Some((_, None)) => Question::None(Judged::later()),
            Some((Right::Refused(why), _)) => {
                Question::None(Judged::at_last(Verdict::Refused(why)))
            }
            Some((Right::NeedsReview, Some(registration))) => {
                Question::Review(identity, lease, registration)
            }
            Some((Right::Renews, Some(registration))) => {
                Question::None(self.of_pod(&identity, &lease, &registration))
            }
        })
    }

    /// The verdict on an instance whose Lease belongs to the Pod of the token. The Pod has to live: a token outlives it.
    fn of_pod(&self, identity: &Identity, lease: &Key, registration: &Key) -> Judged {
        let Some(bound) = &identity.pod else { return Judged::later() };
        let pod = self.cluster.lock().pod(&Key::new(&lease.namespace, &*bound.name));
        match pod {
            // The watch shows a new Pod within moments. The Lease of one that is gone goes soon, too.
            None => Judged::later(),
            Some(pod) if pod.uid != *bound.uid || pod.terminal => Judged::refused(format!(
                "Pod {}, which the token is bound to, has ended",
                bound.name
            )),
            Some(_) => self.allowed(registration, None),
        }
    }

    fn allowed(&self, registration: &Key, again_in: Option<Duration>) -> Judged {
        match self.cluster.lock().pace_of(registration) {
            Some(pace) => Judged { verdict: Some(Verdict::Allowed(pace)), again_in, failed: None },
            None => Judged::refused(format!(
                "there is no ServiceRegistration {registration}: create it, or correct the label of the Lease"
            )),
        }
    }

    /// The namespace of the ServiceAccount that has introduced an instance; None for other users.
    pub(super) fn tenant_of(&self, gateway: &PodUid, id: InstanceId) -> Option<String> {
        let found = self.liveness.carried(|state, _| {
            let (_, identity) = state.set.named(gateway, id)?;
            account(&identity.user).map(|(namespace, _)| namespace.to_owned())
        });
        found.flatten()
    }

    /// The registration of an instance that was introduced.
    pub(super) fn registration_of(&self, gateway: &PodUid, id: InstanceId) -> Option<Key> {
        let found = self.liveness.carried(|state, index| {
            let (lease, _) = state.set.named(gateway, id)?;
            index.registration_of(lease).cloned()
        });
        found.flatten()
    }

    /// The registrations that have another pace than their instances were told, with the pace. One that is gone is not among them: it
    /// may be on its way back, and a refused instance would lose beats.
    pub(super) fn edited_since(&self, told: &BTreeMap<Key, Pace>) -> Vec<(Key, Pace)> {
        let cluster = self.cluster.lock();
        let edited = told.iter().filter_map(|(registration, told)| {
            let pace = cluster.pace_of(registration).filter(|pace| pace != told)?;
            Some((registration.clone(), pace))
        });
        edited.collect()
    }

    /// The instances of a registration that may renew.
    pub(super) fn instances_of(&self, registration: &Key) -> Vec<(PodUid, InstanceId)> {
        let found = self.liveness.carried(|state, index| {
            let of_registration = |lease| index.registration_of(lease) == Some(registration);
            let introduced = state.set.allowed().filter(|(_, _, lease)| of_registration(*lease));
            introduced.map(|(gateway, id, _)| (gateway.clone(), id)).collect()
        });
        found.unwrap_or_default()
    }

    /// Answers a question. Client required.
    pub(crate) async fn answer(&self, question: Question) -> Judged {
        let answer = match question {
            Question::None(judged) => Ok(judged),
            Question::Review(identity, lease, registration) => {
                self.review(&identity, &lease, &registration).await
            }
            Question::Read(lease) => self.read(&lease).await,
        };
        answer.unwrap_or_else(|error| {
            tracing::debug!(%error, "an instance of a gateway cannot be judged, and waits");
            Judged { failed: Some(error), ..Judged::later() }
        })
    }

    /// A Lease that the watch does not show. It is unknown only if a live read says so (G6).
    async fn read(&self, lease: &Key) -> Result<Judged, ApiError> {
        let leases = Api::<HeartbeatLease>::namespaced(self.api.client.clone(), &lease.namespace);
        let doing = || format!("read Lease {lease}");
        match self.api.read(doing, leases.get(&lease.name)).await {
            Ok(found) if Heartbeat::read(&found).registration.is_none() => {
                Ok(Judged::refused(format!(
                    "Lease {lease} has no label {}, so it is no heartbeat: create it anew with the label",
                    beatkeeper_api::heartbeat::REGISTRATION_LABEL
                )))
            }
            // The watch will show it.
            Ok(_) => Ok(Judged::later()),
            Err(error) if error.is_absent() => Ok(Judged::at_last(Verdict::Unknown)),
            Err(error) => Err(error),
        }
    }

    /// Whether a user may renew the Lease of an outside instance: what the API server would ask of a beat, and what the
    /// admission policy asks.
    async fn review(
        &self,
        identity: &Identity,
        lease: &Key,
        registration: &Key,
    ) -> Result<Judged, ApiError> {
        let patch = attributes("coordination.k8s.io", "leases", lease, "patch");
        let register = attributes(GROUP, "serviceregistrations", registration, "register");
        for attributes in [patch, register] {
            let verb = attributes.verb.clone().unwrap_or_default();
            if !self.may(identity, attributes).await? {
                let user = identity.user.clone();
                let lacks =
                    Refusal::LacksRight { user, verb: verb.into(), lease: lease.name.clone() };
                return Ok(Judged::at_last(Verdict::Refused(lacks)));
            }
        }
        Ok(self.allowed(registration, Some(REVIEWED_FOR)))
    }

    async fn may(
        &self,
        identity: &Identity,
        attributes: ResourceAttributes,
    ) -> Result<bool, ApiError> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(identity.user.to_string()),
                groups: Some(groups(&identity.user)),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.api.client.clone());
        let doing = || format!("create a SubjectAccessReview for {}", identity.user);
        let answer = self.api.read(doing, api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

fn attributes(group: &str, resource: &str, object: &Key, verb: &str) -> ResourceAttributes {
    ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        namespace: Some(object.namespace.clone()),
        name: Some(object.name.clone()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    }
}

/// The namespace and the name of a ServiceAccount.
fn account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(ACCOUNT)?.split_once(':')
}

/// The groups that the API server gives to a user of this name. A token that a gateway verifies by the published keys
/// tells no others.
fn groups(user: &str) -> Vec<String> {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) = account(user) {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_has_the_groups_that_the_api_server_gives_it() {
        let all = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:shop"];
        assert_eq!(groups("system:serviceaccount:shop:vm"), all);
        assert_eq!(groups("alice"), all[..1]);
    }
}
