//! How the API server handles a ServiceRegistration: each rule is tested by the message that a user
//! reads.

use beatkeeper_api::{ServiceRegistration, crd};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::support::crd::install;

mod mistakes;

const GREETER: &str = "
apiVersion: beatkeeper.dev/v1alpha1
kind: ServiceRegistration
metadata: { name: greeter }
spec:
  serviceName: greeter
  ttl: 30s
  interval: 20s
  carrier: Gateway
  ports:
  - { name: grpc, port: 80, targetPort: 8080, protocol: TCP, appProtocol: kubernetes.io/h2c }
  podSelector: { matchLabels: { app: greeter } }
  instances:
  - { name: vm-1, addresses: [192.0.2.10], zone: eu-1a, ports: [{ name: grpc, port: 9001 }] }
  protection: { minReady: 2 }
";

fn dynamic(client: Client, namespace: &str, group: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, "v1alpha1", "ServiceRegistration");
    let resource = ApiResource::from_gvk_with_plural(&kind, "serviceregistrations");
    Api::namespaced_with(client, namespace, &resource)
}

/// An API for objects as a user could write them. The Rust types could not hold some of them.
async fn registrations(prefix: &str) -> Api<DynamicObject> {
    let plane = install().await;
    let namespace = plane.namespace(prefix).await.unwrap();
    dynamic(plane.admin_client().unwrap(), &namespace, beatkeeper_api::GROUP)
}

fn registration(group: &str, name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": format!("{group}/v1alpha1"),
        "kind": "ServiceRegistration",
        "metadata": { "name": name },
        "spec": spec,
    }))
    .unwrap()
}

async fn create(
    api: &Api<DynamicObject>,
    name: &str,
    spec: &Value,
) -> Result<DynamicObject, kube::Error> {
    api.create(&PostParams::default(), &registration(beatkeeper_api::GROUP, name, spec)).await
}

/// The errors that a user reads, as `field: message`. The API server's note that some rules were
/// not checked is left out.
fn told(error: kube::Error) -> Vec<String> {
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!(status.reason, "Invalid", "{status:?}");
    let causes = status.details.as_ref().unwrap().causes.iter();
    causes
        .filter(|cause| !cause.message.contains("some validation rules were not checked"))
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

/// Checks that each error in the answer was expected, and that each expected error is in the
/// answer.
fn assert_told(mistake: &str, error: kube::Error, expected: &[&str]) {
    let told = told(error);
    assert_eq!(told.len(), expected.len(), "{mistake}: {told:#?}");
    for part in expected {
        let words: Vec<&str> = part.split(" … ").collect();
        let fits = |line: &String| words.iter().all(|word| line.contains(word));
        assert!(told.iter().any(fits), "{mistake}: {part:?} is not in {told:#?}");
    }
}

#[tokio::test]
async fn each_mistake_is_refused_with_the_field_and_the_remedy() {
    let api = registrations("mistakes").await;
    for (mistake, spec, expected) in mistakes::in_specs() {
        match create(&api, "greeter", &spec).await {
            Ok(_) => panic!("{mistake}: accepted"),
            Err(error) => assert_told(mistake, error, expected),
        }
    }
}

#[tokio::test]
async fn a_registration_name_is_a_dns_label() {
    let api = registrations("names").await;
    let spec = json!({ "ports": [{ "port": 80 }] });
    let rule = "metadata.name must have at most 63 characters and no dots, such as greeter";
    for (mistake, name) in [("too long", "a".repeat(64)), ("a dot", "greeter.shop".to_owned())] {
        assert_told(mistake, create(&api, &name, &spec).await.unwrap_err(), &[rule]);
    }
    let error = create(&api, "Greeter", &spec).await.unwrap_err();
    assert_told("upper case", error, &["metadata.name: … a lowercase RFC 1123 subdomain"]);
    create(&api, &"a".repeat(63), &spec).await.unwrap();
}

#[tokio::test]
async fn the_service_name_cannot_be_changed() {
    let api = registrations("immutable").await;
    let ports = json!([{ "port": 80 }]);
    create(&api, "named", &json!({ "ports": ports, "serviceName": "shop" })).await.unwrap();
    create(&api, "plain", &json!({ "ports": ports })).await.unwrap();
    for (mistake, name, patch, expected) in [
        (
            "changed",
            "named",
            json!("other"),
            "was shop: create a second ServiceRegistration for other",
        ),
        (
            "removed",
            "named",
            Value::Null,
            "was shop: create a second ServiceRegistration for named",
        ),
        (
            "added",
            "plain",
            json!("other"),
            "was plain: create a second ServiceRegistration for other",
        ),
    ] {
        let patch = Patch::Merge(json!({ "spec": { "serviceName": patch } }));
        let error = api.patch(name, &PatchParams::default(), &patch).await.unwrap_err();
        let expected = format!("spec.serviceName: … serviceName is immutable and {expected}");
        assert_told(mistake, error, &[&expected]);
    }
    // Writing the default explicitly is not a change.
    let same = Patch::Merge(json!({ "spec": { "serviceName": "plain" } }));
    api.patch("plain", &PatchParams::default(), &same).await.unwrap();
}

#[tokio::test]
async fn the_whole_example_is_accepted_and_read_back_by_the_types() {
    let api = registrations("example").await;
    let whole: DynamicObject = serde_saphyr::from_str(GREETER).unwrap();
    let made = api.create(&PostParams::default(), &whole).await.unwrap();
    assert_eq!(made.data["spec"], whole.data["spec"]);
    let typed: ServiceRegistration = made.try_parse().unwrap();
    assert_eq!(typed.spec.instances[0].ports[0].port, 9001);
    assert_eq!(serde_json::to_value(&typed.spec).unwrap(), whole.data["spec"]);
}

#[tokio::test]
async fn a_registration_with_a_port_alone_gets_the_defaults() {
    let api = registrations("minimal").await;
    let made = create(&api, "greeter", &json!({ "ports": [{ "port": 80 }] })).await.unwrap();
    assert_eq!(
        made.data["spec"],
        json!({
            "ttl": "90s",
            "interval": "30s",
            "carrier": "Lease",
            "ports": [{ "name": "", "port": 80, "protocol": "TCP" }],
        })
    );
    let declared = json!({
        "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 80, "protocol": "UDP" }],
        "instances": (0..1000).map(|number| json!({
            "name": format!("vm-{number}"), "addresses": ["192.0.2.1", "2001:db8::1"],
        })).collect::<Vec<_>>(),
        "protection": {},
    });
    let made = create(&api, "largest", &declared).await.unwrap();
    assert_eq!(made.data["spec"]["protection"], json!({ "minReady": 0 }));
}

#[tokio::test]
async fn kubectl_shows_the_columns_and_explains_the_units() {
    let plane = install().await;
    let namespace = plane.namespace("columns").await.unwrap();
    let api = dynamic(plane.admin_client().unwrap(), &namespace, beatkeeper_api::GROUP);
    create(&api, "greeter", &json!({ "ports": [{ "port": 80 }], "serviceName": "shop" }))
        .await
        .unwrap();
    let status = Patch::Merge(json!({ "status": {
        "ready": 2, "expired": 1, "held": 0, "total": 3, "lastChangeTime": "2020-01-01T00:00:00Z",
        "conditions": [
            { "type": "Available", "status": "True", "reason": "Other", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z" },
            { "type": "Ready", "status": "True", "reason": "Published", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z" },
        ],
    } }));
    api.patch_status("greeter", &PatchParams::default(), &status).await.unwrap();
    let kubectl = |arguments: &[&str]| {
        let output = plane.kubectl().args(["-n", &namespace]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let words = |line: Option<&str>| line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ");

    let wide = kubectl(&["get", "sreg", "-o", "wide"]);
    let mut lines = wide.lines();
    assert_eq!(
        words(lines.next()),
        "NAME READY EXPIRED HELD TTL INTERVAL STATUS AGE SERVICE TOTAL LAST CHANGE"
    );
    let row = words(lines.next());
    assert!(row.starts_with("greeter 2 1 0 90s 30s Published "), "{row}");
    assert!(row.contains(" shop 3 "), "{row}");
    for query in
        [&["get", "beatkeeper"][..], &["get", "sreg", "--field-selector", "spec.serviceName=shop"]]
    {
        let list = kubectl(query);
        let header = words(list.lines().next());
        assert_eq!(header, "NAME READY EXPIRED HELD TTL INTERVAL STATUS AGE");
        assert_eq!(list.lines().count(), 2, "{list}");
    }
    let explained = words(Some(&kubectl(&["explain", "serviceregistration.spec.ttl"])));
    assert!(explained.contains("such as 30s, 1500ms or 1h30m; from 1s to 24h. Default: 90s."));
}

#[tokio::test]
async fn two_managers_merge_their_ports_by_name() {
    let api = registrations("apply").await;
    for (manager, name, port) in [("one", "http", 80), ("two", "metrics", 9090)] {
        let spec = json!({ "ports": [{ "name": name, "port": port }] });
        let patch = registration(beatkeeper_api::GROUP, "greeter", &spec);
        let parameters = PatchParams::apply(manager);
        api.patch("greeter", &parameters, &Patch::Apply(&patch)).await.unwrap();
    }
    let ports = &api.get("greeter").await.unwrap().data["spec"]["ports"];
    assert_eq!(
        *ports,
        json!([
            { "name": "http", "port": 80, "protocol": "TCP" },
            { "name": "metrics", "port": 9090, "protocol": "TCP" },
        ])
    );
}

/// Removes the rules and bounds, which gives a CRD from before they existed.
fn without_rules(value: &mut Value) {
    if let Value::Object(values) = value {
        for key in
            ["x-kubernetes-validations", "minimum", "maximum", "maxLength", "maxItems", "enum"]
        {
            values.remove(key);
        }
        values.values_mut().for_each(without_rules);
    } else if let Value::Array(values) = value {
        values.iter_mut().for_each(without_rules);
    }
}

#[tokio::test]
async fn a_status_can_be_written_on_an_object_from_before_the_rules() {
    let plane = install().await;
    let namespace = plane.namespace("ratchet").await.unwrap();
    // A separate API group, because the other tests share the real one.
    let group = format!("{namespace}.example.com");
    let mut strict = crd();
    strict.metadata.name = Some(format!("serviceregistrations.{group}"));
    strict.spec.group.clone_from(&group);
    strict.spec.names.categories = None;
    strict.spec.names.short_names = None;
    let mut lenient = serde_json::to_value(&strict).unwrap();
    without_rules(&mut lenient["spec"]["versions"]);
    let lenient: CustomResourceDefinition = serde_json::from_value(lenient).unwrap();
    plane.declare(&lenient).await.unwrap();
    let api = dynamic(plane.admin_client().unwrap(), &namespace, &group);
    let old = json!({
        "ttl": "1d", "interval": "2d",
        "ports": [{ "port": 0, "protocol": "tcp" }],
        "instances": [{ "name": "A", "addresses": ["127.0.0.1"] }],
    });
    api.create(&PostParams::default(), &registration(&group, "old.one", &old)).await.unwrap();
    let bounds = json!({ "ttl": "30s", "interval": "40s", "ports": [{ "port": 80 }] });
    api.create(&PostParams::default(), &registration(&group, "order", &bounds)).await.unwrap();

    plane.declare(&strict).await.unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    while api.create(&dry, &registration(&group, "new", &old)).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    // Unchanged specs, list elements and names are not validated again.
    let parameters = PatchParams::default();
    for name in ["old.one", "order"] {
        let status = Patch::Merge(json!({ "status": { "ready": 1 } }));
        let written = api.patch_status(name, &parameters, &status).await.unwrap();
        assert_eq!(written.data["status"]["ready"], 1, "{name}");
        let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
        api.patch(name, &parameters, &label).await.unwrap();
    }
    // A rule about the whole spec applies again when anything in the spec changes.
    let protection = Patch::Merge(json!({ "spec": { "protection": { "minReady": 1 } } }));
    let error = api.patch("order", &parameters, &protection).await.unwrap_err();
    assert_told("order", error, &["interval 40s must be shorter than ttl 30s"]);
    // Rules about one unchanged field do not apply. The controller therefore meets such objects for
    // as long as they exist.
    api.patch("old.one", &parameters, &protection).await.unwrap();
}
