//! What is accepted, and likely not what was meant.

use std::collections::BTreeMap;

use beatkeeper_api::duration;
use beatkeeper_core::objects::registration::TargetPort;

use super::{mistake::Mistake, registration::Read};

/// All advice about one registration.
pub fn of(read: &Read) -> Vec<Mistake> {
    let parts = [pace(read), joining(read), min_ready(read), ports(read), addresses(read)];
    parts.into_iter().flatten().collect()
}

/// A ttl should outlast two lost beats.
fn pace(read: &Read) -> Vec<Mistake> {
    let (ttl, interval) = (read.registration.ttl, read.registration.interval);
    let lost = match () {
        () if !read.registration.problems.is_empty() => return Vec::new(),
        () if ttl < interval * 2 => "one beat that is",
        () if ttl < interval * 3 => "two beats that are",
        () => return Vec::new(),
    };
    let what = format!(
        "ttl {} is less than three times the interval {}: {lost} lost can prune a living instance",
        duration::format(ttl),
        duration::format(interval),
    );
    let remedy = format!(
        "Let the interval be a third of ttl, such as interval: {}",
        duration::format(ttl / 3)
    );
    vec![Mistake::advice(read.field("interval"), what, remedy)]
}

/// Somebody should be able to join.
fn joining(read: &Read) -> Vec<Mistake> {
    if read.object.spec.pod_selector.is_some() || !read.registration.declared.is_empty() {
        return Vec::new();
    }
    let what = "no Pod may join, and no instance is declared: only outside instances that name their own addresses \
                can be published";
    let remedy = "Add podSelector, such as {matchLabels: {app: greeter}}, or instances";
    vec![Mistake::advice(read.root.field("spec"), what, remedy)]
}

/// The protection should be neither out of reach nor complete.
fn min_ready(read: &Read) -> Vec<Mistake> {
    let (wanted, declared) = (read.registration.min_ready, read.registration.declared.len());
    if wanted == 0 || read.object.spec.pod_selector.is_some() || declared == 0 {
        return Vec::new();
    }
    let what = match wanted {
        wanted if wanted > declared => format!(
            "minReady {wanted} cannot be met by {declared} declared instances: no silent instance is ever pruned"
        ),
        wanted if wanted == declared => {
            format!(
                "minReady {wanted} is the number of declared instances: no silent one is ever pruned"
            )
        }
        _ => return Vec::new(),
    };
    let remedy = match declared {
        1 => "Leave protection out".to_owned(),
        declared => format!("Let it be less, such as {}", declared - 1),
    };
    vec![Mistake::advice(read.field("protection").field("minReady"), what, remedy)]
}

/// The ports of instances outside the cluster.
fn ports(read: &Read) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (n, instance) in read.object.spec.instances.iter().enumerate() {
        let path = read.field("instances").index(n);
        for (m, own) in instance.ports.iter().enumerate() {
            if !read.registration.ports.iter().any(|port| port.name == own.name) {
                let what =
                    format!("the registration has no port {:?}, so this has no effect", own.name);
                let names: Vec<&str> =
                    read.registration.ports.iter().map(|port| &*port.name).collect();
                let remedy = format!("Name one of its ports: {:?}", names);
                let path = path.field("ports").index(m).field("name");
                mistakes.push(Mistake::advice(path, what, remedy));
            }
        }
        for port in &read.registration.ports {
            let is_own = instance.ports.iter().any(|own| own.name == port.name);
            if let (TargetPort::Name(target), false) = (&port.target, is_own) {
                let what = format!(
                    "targetPort {target} is the name of a container port, which {} does not declare: the operator rejects it",
                    instance.name
                );
                let remedy = format!("Add ports: [{{name: {:?}, port: 8080}}] to it", port.name);
                mistakes.push(Mistake::error(path.clone(), what, remedy));
            }
        }
    }
    mistakes
}

/// Two instances at one address and port: only one of them is published.
fn addresses(read: &Read) -> Vec<Mistake> {
    let mut owners: BTreeMap<(&str, u16), &str> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (n, instance) in read.object.spec.instances.iter().enumerate() {
        for (m, address) in instance.addresses.iter().enumerate() {
            let mut others = Vec::new();
            for port in &read.registration.ports {
                let own = instance.ports.iter().find(|own| own.name == port.name);
                let number = match (own, &port.target) {
                    (Some(own), _) => u16::try_from(own.port).unwrap_or_default(),
                    (None, TargetPort::Number(number)) => *number,
                    (None, TargetPort::Name(_)) => continue,
                };
                let owner = *owners.entry((address, number)).or_insert(&instance.name);
                if owner != instance.name && !others.contains(&(owner, number)) {
                    others.push((owner, number));
                }
            }
            let path = read.field("instances").index(n).field("addresses").index(m);
            mistakes.extend(others.into_iter().map(|(owner, number)| {
                let what = format!(
                    "{} has address {address} and port {number}, as {owner} has: only one of them is published",
                    instance.name
                );
                Mistake::advice(path.clone(), what, "Give it its own address, or its own port")
            }));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::lint::{Source, lint, mistake::Level};

    const FINE: &str =
        "  ttl: 30s\n  interval: 10s\n  ports: [{ name: http, port: 80, targetPort: 8080 }]\n";

    /// What is said of a spec, as `level field: what`.
    fn said(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut spec = json!({
            "ttl": "30s", "interval": "10s", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            "instances": [
                { "name": "vm-1", "addresses": ["192.0.2.11"] }, { "name": "vm-2", "addresses": ["192.0.2.12"] },
            ],
        });
        change(&mut spec);
        let object = json!({
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
            "metadata": { "name": "greeter" }, "spec": spec,
        });
        let source = Source { name: "a.yaml".to_owned(), text: object.to_string() };
        let report = lint(&[source], "default", None);
        let line = |it: &super::super::finding::Finding| {
            format!("{} {}: {}", it.level.as_str(), it.field, it.what)
        };
        report.findings.iter().map(line).collect()
    }

    #[test]
    fn a_good_registration_gets_no_advice() {
        assert_eq!(said(|_| {}), [""; 0]);
        assert_eq!(said(|spec| spec["protection"] = json!({ "minReady": 1 })), [""; 0]);
    }

    #[test]
    fn a_ttl_that_few_lost_beats_exhaust_is_told() {
        let told = said(|spec| spec["interval"] = json!("20s"));
        assert_eq!(
            told,
            [
                "advice spec.interval: ttl 30s is less than three times the interval 20s: one beat that is lost can prune a living instance"
            ]
        );
        let told = said(|spec| spec["interval"] = json!("11s"));
        assert!(told[0].contains("two beats that are lost"), "{told:?}");
    }

    #[test]
    fn a_pace_that_is_refused_anyway_gets_no_advice_besides() {
        let told = said(|spec| spec["interval"] = json!("40s"));
        assert!(!told.is_empty() && told.iter().all(|it| it.starts_with("error ")), "{told:?}");
    }

    #[test]
    fn a_protection_that_keeps_every_silent_instance_is_told() {
        for (wanted, word) in [(2, "is the number of"), (3, "cannot be met by 2")] {
            let told = said(|spec| spec["protection"] = json!({ "minReady": wanted }));
            assert!(told[0].starts_with("advice spec.protection.minReady: "), "{told:?}");
            assert!(told.len() == 1 && told[0].contains(word), "{told:?}");
        }
        let told = said(|spec| {
            spec["protection"] = json!({ "minReady": 3 });
            spec["podSelector"] = json!({});
        });
        assert_eq!(told, [""; 0], "Pods may join");
    }

    #[test]
    fn a_registration_that_nobody_can_join_is_told() {
        let told = said(|spec| spec["instances"] = json!([]));
        assert!(told[0].starts_with("advice spec: no Pod may join"), "{told:?}");
    }

    #[test]
    fn a_port_that_an_instance_cannot_have_is_told() {
        let told = said(|spec| spec["ports"][0]["targetPort"] = json!("http"));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("error spec.instances[0]: targetPort http"), "{told:?}");
        let own = json!([{ "name": "http", "port": 8081 }]);
        let told = said(|spec| {
            spec["ports"][0]["targetPort"] = json!("http");
            spec["instances"][1]["ports"] = own;
        });
        assert_eq!(told.len(), 1, "vm-2 names its port: {told:?}");
        let told =
            said(|spec| spec["instances"][0]["ports"] = json!([{ "name": "grpc", "port": 9 }]));
        assert!(told[0].starts_with("advice spec.instances[0].ports[0].name: "), "{told:?}");
    }

    #[test]
    fn two_instances_at_one_endpoint_are_told_unless_their_ports_differ() {
        let told = said(|spec| spec["instances"][1]["addresses"] = json!(["192.0.2.11"]));
        assert_eq!(
            told,
            [
                "advice spec.instances[1].addresses[0]: vm-2 has address 192.0.2.11 and port 8080, as vm-1 has: only one of them is published"
            ]
        );
        let told = said(|spec| {
            spec["instances"][1]["addresses"] = json!(["192.0.2.11"]);
            spec["instances"][1]["ports"] = json!([{ "name": "http", "port": 8081 }]);
        });
        assert_eq!(told, [""; 0]);
        let told = said(|spec| {
            spec["instances"][1]["addresses"] = json!(["192.0.2.11"]);
            spec["ports"] = json!([
                { "name": "http", "port": 80, "targetPort": 8080 }, { "name": "web", "port": 81, "targetPort": 8080 },
            ]);
        });
        assert_eq!(told.len(), 1, "once for both ports: {told:?}");
    }

    #[test]
    fn the_remedy_for_a_protection_depends_on_the_number_of_instances() {
        let remedy = |count: usize| {
            let instance = |n: usize| json!({ "name": format!("vm-{n}"), "addresses": [format!("192.0.2.{n}")] });
            let spec = json!({
                "ttl": "30s", "interval": "10s", "ports": [{ "port": 80 }],
                "instances": (1..=count).map(instance).collect::<Vec<_>>(),
                "protection": { "minReady": count },
            });
            let object = json!({
                "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
                "metadata": { "name": "greeter" }, "spec": spec,
            });
            let source = Source { name: "a.yaml".to_owned(), text: object.to_string() };
            lint(&[source], "default", None).findings[0].remedy.clone()
        };
        assert_eq!(remedy(1), "Leave protection out");
        assert_eq!(remedy(3), "Let it be less, such as 2");
    }

    #[test]
    fn registrations_that_meet_are_told() {
        let one = |name: &str, more: &str| {
            format!(
                "apiVersion: beatkeeper.dev/v1alpha1\nkind: ServiceRegistration\nmetadata: {{ name: {name} }}\nspec:\n{FINE}  podSelector: {{}}\n{more}---\n"
            )
        };
        let text = one("a", "") + &one("b", "  serviceName: a\n") + &one("a", "");
        let report = lint(&[Source { name: "a.yaml".to_owned(), text }], "shop", None);
        let told: Vec<(Level, usize, &str)> =
            report.findings.iter().map(|it| (it.level, it.line, &*it.what)).collect();
        assert_eq!(report.registrations, 3);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].2.contains("Service shop/a is that of registration a, too"), "{told:?}");
        assert!(told[1].2.contains("there is a registration shop/a before"), "{told:?}");
        let elsewhere = one("a", "").replace("name: a }", "name: a, namespace: field }");
        let text = one("a", "") + &elsewhere;
        let report = lint(&[Source { name: "a.yaml".to_owned(), text }], "shop", None);
        assert_eq!(report.findings.len(), 0, "they are in two namespaces");
    }
}
