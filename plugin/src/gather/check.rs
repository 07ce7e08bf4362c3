//! Reads the facts about an installation. What may not be read becomes a fact, too.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::vocabulary::key::Key;
use futures::{future::join_all, join};
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicy,
        apps::v1::Deployment,
        authorization::v1::{
            ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
            SubjectAccessReview, SubjectAccessReviewSpec,
        },
        coordination::v1::Lease,
        flowcontrol::v1::PriorityLevelConfiguration,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{GetParams, ListParams, PostParams},
    core::Request,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;

use super::{all, lease, lease_collection, scope::Wanted};
use crate::{
    check::{
        facts::{Before, Election, Facts, Operator, Read, Unread},
        installation::VERSION_LABEL,
        rights::{self, Right},
    },
    error::{Error, Problem},
    model::lease::SeenLease,
    session::Session,
    times::between,
};

/// The name of the CustomResourceDefinition.
const CRD: &str = "serviceregistrations.beatkeeper.dev";
/// The label by which the chart's Deployment selects its Pods.
const OPERATOR_LABEL: &str = "beatkeeper.dev/operator";
/// The namespace in which docs/install.md installs the operator.
const NAMESPACE: &str = "beatkeeper";
/// How often the Lease of the election is read while it is awaited that it changes.
const OFTEN: Duration = Duration::from_millis(200);

/// Reads the facts about an installation. `namespace` is that of the operator, if it is known.
///
/// # Errors
/// [`Error::Usage`], if there are several operators and no namespace chooses one.
pub async fn facts(session: &Session, namespace: Option<&str>) -> Result<Facts, Error> {
    let client = &session.client;
    let operator = operator(client, namespace).await?;
    let known = operator.as_ref().ok().and_then(|it| it.as_ref());
    let everything = Wanted::default();
    let registrations = everything.scope.collection::<ServiceRegistration>(client);
    let leases = lease_collection(client, &everything);
    let (crd, election, lacking, policies, bindings, flows, levels, registrations, leases, stored) = join!(
        crd(client),
        election(session, known),
        lacking_of_operator(client, known),
        list::<ValidatingAdmissionPolicy>(client),
        list(client),
        list(client),
        list::<PriorityLevelConfiguration>(client),
        all::<ServiceRegistration>(&registrations),
        all::<SeenLease>(&leases),
        stored(client),
    );
    let holder = election.as_ref().ok().and_then(|it| it.as_ref()).map(|it| &*it.holder);
    let proof = proof(session, known, holder).await;
    Ok(Facts {
        crd,
        election,
        proof,
        lacking,
        policies,
        bindings,
        flows,
        levels: levels.map(|all| all.iter().map(ResourceExt::name_any).collect()),
        registrations: registrations.map(|all| all.objects).map_err(|error| unread(&error)),
        leases: leases.map(|all| counted(&all.objects)).map_err(|error| unread(&error)),
        stored,
        operator,
    })
}

/// Reads the facts about a cluster before an installation.
///
/// # Errors
/// [`Error::Usage`], if there are several operators and no namespace chooses one.
pub async fn before(session: &Session, namespace: Option<&str>) -> Result<Before, Error> {
    let client = &session.client;
    let groups = async {
        let groups = client.list_api_group_resources("admissionregistration.k8s.io/v1").await;
        let groups = groups.map_err(|error| unread(&error))?;
        Ok(groups.resources.iter().any(|it| it.kind == "ValidatingAdmissionPolicy"))
    };
    let kubernetes = async {
        let version = client.apiserver_version().await.map_err(|error| unread(&error))?;
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        Ok((number(&version.major), number(&version.minor)))
    };
    let needed = rights::needed_to_install();
    let (kubernetes, lacking, serves_policies, operator) =
        join!(kubernetes, lacking(client, &needed), groups, operator(client, namespace));
    let lacking = lacking.map(|all| all.iter().map(|it| it.resource.to_owned()).collect());
    Ok(Before { kubernetes, lacking, serves_policies, operator: operator? })
}

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
        let answer = answer.map_err(|error| unread(&error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    };
    let answers = join_all(needed.iter().map(ask)).await;
    denied(needed, answers)
}

async fn lacking_of_operator(client: &Client, operator: Option<&Operator>) -> Read<Vec<String>> {
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
        let answer = answer.map_err(|error| unread(&error))?;
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

/// Why something could not be read, on one line.
fn unread(error: &kube::Error) -> Unread {
    Unread(Problem::of(error).brief())
}

async fn crd(client: &Client) -> Read<Option<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    api.get_opt(CRD).await.map_err(|error| unread(&error))
}

async fn list<K>(client: &Client) -> Read<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    listed.map(|list| list.items).map_err(|error| unread(&error))
}

/// Looks for the operator: in its namespace, or in all; where that is not allowed, in the usual one.
async fn operator(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Read<Option<Operator>>, Error> {
    let found = match namespace {
        Some(namespace) => deployments(Api::namespaced(client.clone(), namespace)).await,
        None => match deployments(Api::all(client.clone())).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                deployments(Api::namespaced(client.clone(), NAMESPACE)).await
            }
            found => found,
        },
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return Ok(Err(unread(&error))),
    };
    let names: Vec<String> = found.iter().map(|it| it.key.to_string()).collect();
    if names.len() > 1 {
        let names = names.join(", ");
        return Err(Error::Usage(format!(
            "there are several operators; choose one with -n: {names}"
        )));
    }
    Ok(Ok(found.into_iter().next()))
}

async fn deployments(api: Api<Deployment>) -> kube::Result<Vec<Operator>> {
    let all = api.list(&ListParams::default()).await?.items;
    Ok(all.iter().filter_map(as_operator).collect())
}

fn as_operator(deployment: &Deployment) -> Option<Operator> {
    let spec = deployment.spec.as_ref()?;
    spec.selector.match_labels.as_ref()?.get(OPERATOR_LABEL)?;
    let pod = spec.template.spec.as_ref()?;
    let container = pod.containers.first()?;
    let status = deployment.status.as_ref();
    Some(Operator {
        key: Key::of(&deployment.metadata),
        account: pod.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        wanted: spec.replicas.unwrap_or(1),
        available: status.and_then(|it| it.available_replicas).unwrap_or(0),
        args: container.args.clone().unwrap_or_default(),
        image: container.image.clone().unwrap_or_default(),
        version: deployment.labels().get(VERSION_LABEL).cloned(),
    })
}

/// Reads the Lease of the election, again and again until it changes, or its duration has passed. No clock is compared.
async fn election(session: &Session, operator: Option<&Operator>) -> Read<Option<Election>> {
    let Some(key) = operator.and_then(Operator::election) else { return Ok(None) };
    let mut first: Option<String> = None;
    let begun = session.clock.now();
    loop {
        let path = Lease::url_path(&(), Some(&key.namespace));
        let request = Request::new(path).get(&key.name, &GetParams::default());
        let request = request.map_err(|error| Unread(error.to_string()))?;
        let lease = match session.client.request::<Value>(request).await {
            Ok(lease) => lease,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(unread(&error)),
        };
        let text = |field: &str| lease["spec"][field].as_str().unwrap_or_default().to_owned();
        let (holder, renewed) = (text("holderIdentity"), text("renewTime"));
        let renews = *first.get_or_insert_with(|| renewed.clone()) != renewed;
        let seconds = lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(5);
        let has_passed = between(begun, session.clock.now()) > Duration::from_secs(seconds.min(60));
        if renews || holder.is_empty() || has_passed {
            let holder = beatkeeper_api::text::plain(&holder).into_owned();
            return Ok(Some(Election { holder, renews }));
        }
        sleep(OFTEN).await;
    }
}

/// How long ago the leader renewed its probe. That lies in its own namespace, or in those that it watches.
async fn proof(
    session: &Session,
    operator: Option<&Operator>,
    holder: Option<&str>,
) -> Read<Option<Duration>> {
    let (Some(operator), Some(holder)) = (operator, holder) else { return Ok(None) };
    let name = format!("beatkeeper-probe-{holder}");
    let mut oldest = None;
    let namespaces = match operator.watched() {
        none if none.is_empty() => vec![&*operator.key.namespace],
        some => some,
    };
    for namespace in namespaces {
        let found = lease(&session.client, namespace, &name).await;
        let beat = found.map_err(|error| unread(&error))?.and_then(|lease| lease.beat);
        let age = beat.map(|beat| between(beat.at, session.clock.now()));
        oldest = oldest.max(age);
    }
    Ok(oldest)
}

fn counted(leases: &[SeenLease]) -> BTreeMap<Key, usize> {
    let mut counts = BTreeMap::new();
    for lease in leases {
        if let Some(registration) = &lease.heartbeat.registration {
            let key = Key::new(&*lease.key.namespace, &**registration);
            *counts.entry(key).or_insert(0) += 1;
        }
    }
    counts
}

/// The size of the largest store that the API server tells of in its metrics.
async fn stored(client: &Client) -> Read<Option<u64>> {
    let request = http::Request::get("/metrics").body(Vec::new());
    let request = request.map_err(|error| Unread(error.to_string()))?;
    let text = client.request_text(request).await.map_err(|error| unread(&error))?;
    let sizes = text.lines().filter(|line| line.starts_with("apiserver_storage_size_bytes"));
    let sizes = sizes.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(sizes.map(|size| size as u64).max())
}
