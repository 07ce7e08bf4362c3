//! The rights of the operator, of a workload, and of a person who installs.

use beatkeeper_core::vocabulary::key::Key;

use super::{
    facts::{Facts, Operator, Read},
    id::Check,
    verdict::Verdict,
};

/// A right: a verb, a group, a resource, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// The verb.
    pub verb: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The resource, with its subresource behind a slash.
    pub resource: &'static str,
    /// The name, if the right is for one object.
    pub name: Option<String>,
    /// The namespace; `None` for all, or for what has none.
    pub namespace: Option<String>,
}

type Rule = (&'static str, &'static str, &'static [&'static str]);

/// What the operator needs where it watches: the rules of the chart, without what only OpenShift knows.
pub const WATCHED: [Rule; 9] = [
    ("coordination.k8s.io", "leases", &["get", "list", "watch", "patch", "delete"]),
    ("beatkeeper.dev", "serviceregistrations", &["list", "watch"]),
    ("beatkeeper.dev", "serviceregistrations/status", &["get", "patch"]),
    ("beatkeeper.dev", "serviceregistrations", &["cordon"]),
    ("discovery.k8s.io", "endpointslices", &["get", "list", "watch", "create", "update", "delete"]),
    ("", "endpoints", &["get", "list", "watch", "create", "update", "delete"]),
    ("", "services", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "pods", &["list", "watch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

/// What it needs to watch all namespaces.
const EVERYWHERE: [Rule; 1] = [("", "nodes", &["list", "watch"])];

/// What it needs in its own namespace: the probe, and the creation of the election's Lease.
const OWN: [Rule; 1] = [("coordination.k8s.io", "leases", &["create"])];

/// What it needs in the whole cluster to ask about tokens, for guarded metrics and for explanations.
const TOKENS: [Rule; 1] = [("authentication.k8s.io", "tokenreviews", &["create"])];

/// What it needs in the whole cluster to ask what a user may do: one that reads metrics or explanations, or one that
/// beats through a gateway.
const REVIEWS: [Rule; 1] = [("authorization.k8s.io", "subjectaccessreviews", &["create"])];

/// What it needs in its own namespace to find gateways.
const GATEWAYS: [Rule; 1] = [("coordination.k8s.io", "leases", &["get", "list", "watch"])];

/// What an instance needs.
const WORKLOAD: [Rule; 2] = [
    ("coordination.k8s.io", "leases", &["create", "get", "patch", "delete"]),
    ("beatkeeper.dev", "serviceregistrations", &["get"]),
];

/// What a person needs who installs the chart, apart from what is in a namespace.
const INSTALL: [Rule; 7] = [
    ("apiextensions.k8s.io", "customresourcedefinitions", &["create"]),
    ("rbac.authorization.k8s.io", "clusterroles", &["create"]),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &["create"]),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", &["create"]),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", &["create"]),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", &["create"]),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", &["create"]),
];

fn all(rules: &[Rule], namespace: Option<&str>) -> Vec<Right> {
    let right = |(group, resource, verbs): &Rule| {
        let (group, resource) = (*group, *resource);
        verbs.iter().map(move |verb| Right {
            verb,
            group,
            resource,
            name: None,
            namespace: namespace.map(str::to_owned),
        })
    };
    rules.iter().flat_map(right).collect()
}

/// The rights that an operator needs.
pub fn needed_by(operator: &Operator) -> Vec<Right> {
    let own = Some(&*operator.key.namespace);
    let watched = operator.watched();
    let mut rights = match &*watched {
        [] => [all(&WATCHED, None), all(&EVERYWHERE, None)].concat(),
        some => some.iter().flat_map(|it| all(&WATCHED, Some(it))).collect(),
    };
    rights.extend(all(&OWN, own));
    let guards = operator.explains() || operator.args.iter().any(|arg| arg == "--metrics-secure");
    if guards {
        rights.extend(all(&TOKENS, None));
    }
    if guards || operator.uses_gateways() {
        rights.extend(all(&REVIEWS, None));
    }
    // Without a namespace to watch, it has this right everywhere.
    if operator.uses_gateways() && !watched.is_empty() {
        rights.extend(all(&GATEWAYS, own));
    }
    let probes = if watched.is_empty() { own.into_iter().collect() } else { watched };
    for namespace in probes {
        rights.extend(all(
            &[("coordination.k8s.io", "leases", &["create", "patch"])],
            Some(namespace),
        ));
    }
    if let Some(election) = operator.election() {
        let rule: Rule = ("coordination.k8s.io", "leases", &["get", "list", "watch", "patch"]);
        let named = all(&[rule], Some(&election.namespace)).into_iter();
        rights.extend(named.map(|right| Right { name: Some(election.name.clone()), ..right }));
    }
    rights
}

/// The rights that a user needs who asks the leader: the Lease of the election, a token of `account`, and, unless an
/// address is known, a forwarded port.
pub fn needed_to_ask(election: &Key, account: &Key, forwards: bool) -> Vec<Right> {
    let rule = |rule: Rule, at: &Key| -> Vec<Right> {
        let name = Some(at.name.clone());
        let all = all(&[rule], Some(&at.namespace)).into_iter();
        all.map(|right| Right { name: name.clone(), ..right }).collect()
    };
    let mut rights = rule(("coordination.k8s.io", "leases", &["get"]), election);
    rights.extend(rule(("", "serviceaccounts/token", &["create"]), account));
    if forwards {
        let way: [Rule; 2] = [("", "pods", &["get"]), ("", "pods/portforward", &["create"])];
        rights.extend(all(&way, Some(&election.namespace)));
    }
    rights
}

/// The rights that an instance needs.
pub fn needed_by_workload(namespace: &str) -> Vec<Right> {
    all(&WORKLOAD, Some(namespace))
}

/// The rights that a person needs who installs the chart.
pub fn needed_to_install() -> Vec<Right> {
    all(&INSTALL, None)
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verb, resource, name, namespace, group: _ } = self;
        write!(f, "{verb} {resource}")?;
        if let Some(name) = name {
            write!(f, " {name}")?;
        }
        match namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// The verdict on the rights of the operator.
pub fn of_operator(facts: &Facts) -> Vec<Verdict> {
    let check = Check::OperatorRights;
    vec![match (&facts.operator, &facts.lacking) {
        (Ok(None), _) => Verdict::skipped(check, Check::Operator),
        (Err(why), _) | (_, Err(why)) => Verdict::unknown(check, why),
        (Ok(Some(_)), Ok(lacking)) if lacking.is_empty() => Verdict::fine(check, ""),
        (Ok(Some(operator)), Ok(lacking)) => Verdict::failed(
            check,
            format!("ServiceAccount {} may not {}", operator.account, some_of(lacking)),
            "Restore its roles and bindings with helm upgrade, or have an administrator apply templates/rbac.yaml",
        ),
    }]
}

/// The verdict on the rights of a workload: what it may not do.
pub fn of_workload(user: &str, namespace: &str, lacking: &Read<Vec<String>>) -> Verdict {
    let check = Check::WorkloadRights;
    match lacking {
        Err(why) => Verdict::unknown(check, why),
        Ok(lacking) if lacking.is_empty() => Verdict::fine(check, user),
        Ok(lacking) => Verdict::failed(
            check,
            format!("{user} may not {}", some_of(lacking)),
            format!(
                "Bind ClusterRole beatkeeper-heartbeat in namespace {namespace}, or beatkeeper-register for instances outside the cluster"
            ),
        ),
    }
}

/// The first rights of a list, and how many others there are.
fn some_of(rights: &[String]) -> String {
    crate::model::finding::named(rights.iter().map(String::as_str))
}
