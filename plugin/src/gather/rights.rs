//! Which rights a user has, as the API server says.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

use crate::check::{
    facts::{Operator, Read, Unread},
    rights::{self, Right},
};

/// What the user of this connection lacks of some rights.
///
/// # Errors
/// [`Unread`], if the API server does not say it.
pub async fn lacking(client: &Client, needed: &[Right]) -> Read<Vec<Right>> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let ask = async |right: &Right| {
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes(right)),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| Unread::of(&error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    };
    let answers = join_all(needed.iter().map(ask)).await;
    denied(needed, answers)
}

/// What the operator's ServiceAccount lacks.
///
/// # Errors
/// [`Unread`], if the API server does not say it.
pub async fn lacking_of_operator(
    client: &Client,
    operator: Option<&Operator>,
) -> Read<Vec<String>> {
    let Some(operator) = operator else { return Ok(Vec::new()) };
    let needed = rights::needed_by(operator);
    let (namespace, account) = (&operator.key.namespace, &operator.account);
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let ask = async |right: &Right| {
        let spec = SubjectAccessReviewSpec {
            user: Some(user.clone()),
            groups: Some(groups.to_vec()),
            resource_attributes: Some(attributes(right)),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| Unread::of(&error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    };
    let answers = join_all(needed.iter().map(ask)).await;
    Ok(denied(&needed, answers)?.iter().map(ToString::to_string).collect())
}

fn denied(needed: &[Right], answers: Vec<Read<bool>>) -> Read<Vec<Right>> {
    let mut denied = Vec::new();
    for (right, allowed) in needed.iter().zip(answers) {
        if !allowed? {
            denied.push(right.clone());
        }
    }
    Ok(denied)
}

fn attributes(right: &Right) -> ResourceAttributes {
    let Right { verb, group, resource, name, namespace } = right;
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (*resource, None),
    };
    ResourceAttributes {
        verb: Some((*verb).to_owned()),
        group: Some((*group).to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        name: name.clone(),
        namespace: namespace.clone(),
        ..ResourceAttributes::default()
    }
}
