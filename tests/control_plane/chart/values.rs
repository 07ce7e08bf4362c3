//! Every value has an effect, and unknown values are refused. No cluster is needed.

use std::fs;

use serde_json::{Value, json};

use super::helm::{Helm, chart, variants};

/// The names of maps with keys that the user chooses: labels, annotations, namespaces, and values
/// that charts share.
const FREE: [&str; 12] = [
    "global",
    "labels",
    "annotations",
    "commonLabels",
    "podLabels",
    "podAnnotations",
    "deploymentAnnotations",
    "additionalRuleLabels",
    "additionalRuleAnnotations",
    "outsideRanges",
    "requests",
    "limits",
];
/// Further maps of this kind. They are passed to the API server, which checks them.
const PASSED_ON: [&str; 6] = [
    "/nodeSelector",
    "/gateway/nodeSelector",
    "/console/nodeSelector",
    "/podSecurityContext/seccompProfile",
    "/securityContext/capabilities",
    "/metrics/secure/tlsConfig",
];

fn read(name: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(chart().join(name)).unwrap()).unwrap()
}

/// Collects each value that is not a map with values of its own, and each such map, by JSON
/// pointer.
fn walk(values: &Value, path: &str, leaves: &mut Vec<String>, maps: &mut Vec<String>) {
    match values {
        Value::Object(map) if path.is_empty() || !map.is_empty() => {
            maps.push(path.to_owned());
            map.iter().for_each(|(key, value)| walk(value, &format!("{path}/{key}"), leaves, maps));
        }
        Value::Object(_) => {
            maps.push(path.to_owned());
            leaves.push(path.to_owned());
        }
        _ => leaves.push(path.to_owned()),
    }
}

fn default_values() -> (Vec<String>, Vec<String>) {
    let (mut leaves, mut maps) = (Vec::new(), Vec::new());
    walk(&read("values.yaml"), "", &mut leaves, &mut maps);
    (leaves, maps)
}

/// The values without one value, which then has its default.
fn without(values: &Value, path: &str) -> Value {
    let mut values = values.clone();
    let (parent, key) = path.rsplit_once('/').unwrap();
    values.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    values
}

const ALERTS: &str = "/metrics/prometheusRule/alerts";

/// Another value of the same type that the schema of an alert accepts.
fn changed(value: &mut Value) {
    match value {
        Value::Object(map) if map.is_empty() => *value = json!({ "team": "night" }),
        Value::Object(map) => map.values_mut().for_each(changed),
        Value::Number(number) => *value = json!(2.0 * number.as_f64().unwrap()),
        Value::String(text) => *value = json!(format!("1{text}")),
        _ => panic!("no other value than {value} is known"),
    }
}

/// The values that set each setting of each alert to another value than the default.
fn every_alert_changed() -> Value {
    let mut alerts = read("values.yaml").pointer(ALERTS).unwrap().clone();
    changed(&mut alerts);
    let rule = json!({
        "enabled": true, "selector": "job=\"x\"", "gatewaySelector": "job=\"y\"", "alerts": alerts,
    });
    let gateway = json!({ "enabled": true, "certificate": { "certManager": { "enabled": true } } });
    json!({ "metrics": { "prometheusRule": rule }, "gateway": gateway })
}

async fn render(values: &Value) -> Result<String, String> {
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    fs::write(&file, values.to_string()).unwrap();
    let (chart, file) = (chart(), file.path().to_str().unwrap().to_owned());
    let args = ["template", "try", chart.to_str().unwrap(), "--namespace", "try", "-f", &file];
    Helm::offline().try_run(&args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_changes_what_is_rendered() {
    let written = variants().into_iter().map(|(name, _)| read(&format!("ci/{name}")));
    let variants: Vec<Value> = written.chain([every_alert_changed()]).collect();
    let mut rendered = Vec::new();
    for values in &variants {
        rendered.push(render(values).await.unwrap());
    }
    let (mut unset, mut ignored) = (Vec::new(), Vec::new());
    for leaf in default_values().0 {
        let all = variants.iter().zip(&rendered);
        let mut set = all.filter(|(values, _)| values.pointer(&leaf).is_some()).peekable();
        if set.peek().is_none() {
            unset.push(leaf);
            continue;
        }
        let mut used = false;
        for (values, with) in set {
            used = render(&without(values, &leaf)).await.ok().as_ref() != Some(with);
            if used {
                break;
            }
        }
        if !used {
            ignored.push(leaf);
        }
    }
    assert_eq!(unset, [""; 0], "set by no variant in ci/");
    assert_eq!(ignored, [""; 0], "accepted, and ignored");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_value_is_refused_by_its_name_at_every_level() {
    let free = |map: &str| {
        let name = map.rsplit('/').next().unwrap_or_default();
        FREE.contains(&name) || PASSED_ON.contains(&map)
    };
    for map in default_values().1.into_iter().filter(|map| !free(map)) {
        let mistyped = map
            .rsplit('/')
            .filter(|key| !key.is_empty())
            .fold(json!({ "mistyped": true }), |inner, key| json!({ key: inner }));
        let why = render(&mistyped).await.expect_err(&map);
        assert!(why.contains("'mistyped'"), "{map}: {why}");
    }
    // The items of lists do not have defaults.
    for (path, item) in [
        ("imagePullSecrets", json!({ "name": "a", "mistyped": 1 })),
        ("extraEnv", json!({ "name": "A", "mistyped": "1" })),
        ("tolerations", json!({ "mistyped": "a" })),
        ("hostAliases", json!({ "ip": "192.0.2.1", "hostnames": [], "mistyped": "a" })),
        ("topologySpreadConstraints", json!({ "mistyped": 1 })),
    ] {
        let why = render(&json!({ path: [item] })).await.expect_err(path);
        assert!(why.contains("'mistyped'"), "{path}: {why}");
    }
    for list in ["metricsFrom", "gatewayFrom", "egress"] {
        let values = json!({ "networkPolicy": { list: [{ "mistyped": 1 }] } });
        let why = render(&values).await.expect_err(list);
        assert!(why.contains("'mistyped'"), "{list}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_global_is_honoured_where_it_names_what_this_chart_has() {
    let global = json!({
        "imageRegistry": "mirror.example.com:5000",
        "imagePullSecrets": ["by-name", { "name": "by-object" }],
        "storageClass": "of another chart",
    });
    let own = json!([{ "name": "own" }, { "name": "by-name" }]);
    for (repository, image) in [
        ("ghcr.io/beatkeeper/beatkeeper", "mirror.example.com:5000/beatkeeper/beatkeeper:edge"),
        ("localhost/keeper", "mirror.example.com:5000/keeper:edge"),
        ("team/keeper", "mirror.example.com:5000/team/keeper:edge"),
    ] {
        let values = json!({
            "global": global, "imagePullSecrets": own,
            "image": { "repository": repository, "tag": "edge" },
        });
        let rendered = render(&values).await.unwrap();
        let images: Vec<&str> =
            rendered.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        assert_eq!(images, vec![format!("{image:?}"); 2], "the operator's, and the test's");
        let secrets = ["by-name", "by-object", "own"].map(|name| format!("- name: {name}"));
        let in_order: Vec<&str> = rendered
            .lines()
            .map(str::trim)
            .filter(|line| secrets.iter().any(|secret| secret == line))
            .collect();
        assert_eq!(in_order, [secrets.clone(), secrets].concat(), "each once");
    }
    let why = render(&json!({ "global": { "imagePullSecrets": "one" } })).await.unwrap_err();
    assert!(why.contains("/global/imagePullSecrets"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_accepted_and_have_no_effect_is_refused() {
    for (values, words) in [
        (
            json!({ "admissionPolicy": { "enabled": false, "requireBeatPermission": true } }),
            "admissionPolicy.requireBeatPermission needs admissionPolicy.enabled",
        ),
        (
            json!({ "watchNamespaces": ["shop"], "outsideRanges": { "depot": ["192.0.2.0/24"] } }),
            "outsideRanges names the namespace depot, which is not in watchNamespaces",
        ),
        (json!({ "fullnameOverride": "k".repeat(53) }), "/fullnameOverride"),
        (
            json!({ "podLabels": { "beatkeeper.dev/operator": "another" } }),
            "podLabels must not set beatkeeper.dev/operator",
        ),
    ] {
        let why = render(&values).await.expect_err(words);
        assert!(why.contains(words), "{why}");
    }
}
