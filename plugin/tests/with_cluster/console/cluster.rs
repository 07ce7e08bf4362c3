//! The console in a cluster, started as the chart starts it: what readers with different tokens are answered.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    browser::Page,
    page::until_shown,
    server::{Answer, Console},
};
use crate::stage::{Stage, eventually};

/// A host that the chart's variant names.
pub const HOST: &str = "beats.example.com";

/// The arguments of the rendered Deployment, with a free port and the certificates of this control plane.
fn arguments(authority: &str, set: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut helm = Command::new(root.join("scripts/helm"));
    helm.args(["template", "beatkeeper", "charts/beatkeeper", "--namespace", "beatkeeper"]);
    helm.args(["--values", "charts/beatkeeper/ci/console-values.yaml"]);
    helm.args(["--show-only", "templates/console.yaml"]).current_dir(root);
    helm.args(set.iter().flat_map(|set| ["--set", set])).stderr(Stdio::inherit());
    let rendered = String::from_utf8(helm.output().unwrap().stdout).unwrap();
    let objects =
        rendered.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    let deployment = objects.into_iter().find(|it| it["kind"] == "Deployment").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false, "it has no credentials");
    let container = &pod["containers"][0];
    assert_eq!(container["command"], json!(["/kubectl-beatkeeper"]));
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    let args = container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
    let args = args.map(|arg| match arg {
        "--listen=:8080" => "--listen=127.0.0.1:0".to_owned(),
        "--certificate-authority=/etc/kubernetes/ca.crt" => {
            format!("--certificate-authority={authority}")
        }
        other => other.to_owned(),
    });
    let args: Vec<String> = args.collect();
    assert!(args.contains(&"--listen=127.0.0.1:0".to_owned()), "{args:?}");
    args
}

/// The cluster of the kubeconfig.
fn cluster(stage: &Stage) -> Value {
    let config = fs::read_to_string(stage.plane.kubeconfig()).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    config["clusters"][0]["cluster"].clone()
}

/// The address of the API server.
pub fn server_of(stage: &Stage) -> String {
    cluster(stage)["server"].as_str().unwrap().strip_prefix("https://").unwrap().to_owned()
}

/// Starts the console with the values of the chart's variant, and these.
pub fn started(stage: &Stage, set: &[&str]) -> Console {
    started_at(stage, &server_of(stage), set)
}

/// The same with another way to the API server.
pub fn started_at(stage: &Stage, server: &str, set: &[&str]) -> Console {
    let (cluster, (host, port)) = (cluster(stage), server.rsplit_once(':').unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-beatkeeper"));
    command.args(arguments(cluster["certificate-authority"].as_str().unwrap(), set));
    // Nothing but what a Pod has.
    command.env_clear().env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    Console::listening(command)
}

/// The rules of a reader who may see everything that the page shows.
pub const ALL: [&str; 4] = [
    "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list, watch] }",
    "{ apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch] }",
    "{ apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch] }",
    "{ apiGroups: [\"\"], resources: [services, endpoints, pods, events], verbs: [get, list, watch] }",
];

/// A token for a ServiceAccount of the stage's namespace with these rights in it. It ends with the Pod, if one is named.
async fn token(stage: &Stage, rules: &[&str], pod: Option<&str>) -> String {
    let name = &stage.namespace;
    stage.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: reader }\n");
    if !rules.is_empty() {
        stage.grant(&format!("{{ kind: ServiceAccount, name: reader, namespace: {name} }}"), rules);
    }
    stage.plane.token(name, "reader", pod).await.unwrap()
}

/// Gets a path with a token.
pub fn get(console: &Console, path: &str, token: &str) -> Answer {
    console.ask_with("GET", path, HOST, &[("Authorization", &format!("Bearer {token}"))])
}

/// The path of the stream of the stage's namespace.
pub fn events(stage: &Stage) -> String {
    format!("/events?namespace={}", stage.namespace)
}

#[tokio::test]
async fn a_token_for_one_namespace_sees_that_one_only() {
    let mut own = Stage::new("served-own").await;
    let other = Stage::without_operator("served-other").await;
    own.register("greeter", "");
    other.register("secret", "");
    own.agent("vm-1", "192.0.2.11");
    let token = token(&own, &ALL, None).await;
    let console = started(&own, &[]);
    let told = console.told(&events(&own), HOST, &token, "it is ready", |it| {
        it["row"]["counts"] == json!([["Ready", 1]])
    });
    assert_eq!(told[0]["shared"], true, "{:?}", told[0]);
    let key = format!("{}/greeter", own.namespace);
    assert!(told.iter().all(|it| it["key"].is_null() || it["key"] == key.as_str()), "{told:?}");
    let path = format!("/why/{}/greeter/vm-1", own.namespace);
    let why: Value = serde_json::from_str(&get(&console, &path, &token).body).unwrap();
    assert_eq!((&why["well"], &why["instance"]["state"]), (&true.into(), &"Ready".into()));
    // The other namespace, and all of them.
    for path in [events(&other), "/events".to_owned()] {
        let told = console.told(&path, HOST, &token, "it is told which right is missing", |it| {
            it["failing"].as_array().is_some_and(|failing| failing.len() == 6)
        });
        let text = json!(told).to_string();
        assert!(text.contains("cannot list resource \\\"serviceregistrations\\\""), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let path = format!("/why/{}/secret/vm-1", other.namespace);
    let refused = get(&console, &path, &token);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains("cannot get resource \"serviceregistrations\""), "{refused:?}");
}

#[tokio::test]
async fn without_a_token_that_the_api_server_accepts_nothing_of_the_cluster_is_told() {
    let stage = Stage::without_operator("served-401").await;
    stage.register("greeter", "");
    let console = started(&stage, &[]);
    let why = format!("/why/{}/greeter/vm-1", stage.namespace);
    for path in [events(&stage), "/events".to_owned(), why] {
        let none = console.ask("GET", &path, HOST);
        assert_eq!(none.status, 401, "{none:?}");
        assert!(none.has("www-authenticate", "Bearer"), "{none:?}");
        assert!(none.body.contains("needs your token"), "{none:?}");
        let bad = get(&console, &path, "eyJhbGciOiJSUzI1NiJ9.e30.AAAA");
        assert_eq!(bad.status, 401, "{bad:?}");
        assert!(bad.body.contains("does not accept the token"), "{bad:?}");
    }
    let cookie = console.ask_with("GET", "/events", HOST, &[("Cookie", "token=abc")]);
    assert_eq!(cookie.status, 401, "{cookie:?}");
    assert!(!cookie.head.to_lowercase().contains("set-cookie"), "{cookie:?}");
    assert_eq!(console.ask("GET", "/", HOST).status, 200, "the page itself is no secret");
}

#[tokio::test]
async fn only_a_get_of_a_known_path_at_a_known_host_is_answered() {
    let stage = Stage::without_operator("served-gate").await;
    let token = token(&stage, &ALL, None).await;
    let console = started(&stage, &[]);
    for method in ["POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"] {
        let bearer = format!("Bearer {token}");
        let refused = console.ask_with(method, "/events", HOST, &[("Authorization", &bearer)]);
        assert_eq!(refused.status, 405, "{method}: {refused:?}");
        assert!(refused.has("allow", "GET"), "{refused:?}");
    }
    for path in [
        "/api/v1/namespaces/default/secrets",
        "/apis/coordination.k8s.io/v1/leases",
        "/events/",
        "/why",
        "/why/a/b/c/d",
        "/why/..%2F..%2Fsecrets/b/c",
        "/why/a/b%2Fstatus/c",
        "//events",
        "/metrics",
        "/nothing.js",
    ] {
        let refused = get(&console, path, &token);
        assert_eq!(refused.status, 404, "{path}: {refused:?}");
    }
    assert_eq!(get(&console, "/events?namespace=..%2Fsecrets", &token).status, 400);
    for host in ["evil.example", "evil.example:8080", "10.0.0.1", ""] {
        assert_eq!(console.ask("GET", "/", host).status, 421, "{host}");
    }
    for host in ["beats.example.com", "BEATS.internal:8443", "localhost", "127.0.0.1:1"] {
        assert_eq!(console.ask("GET", "/healthz", host).status, 200, "{host}");
    }
    let page = console.ask("GET", "/", HOST);
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy"));
    assert!(policy.unwrap().contains("default-src 'none'"), "{page:?}");
    assert!(!policy.unwrap().contains("unsafe"), "{page:?}");
}

#[tokio::test]
async fn headers_of_a_reader_that_ask_for_the_rights_of_others_are_not_passed_on() {
    let stage = Stage::without_operator("served-acts").await;
    stage.register("greeter", "");
    let token = token(&stage, &[], None).await;
    let console = started(&stage, &[]);
    let path = format!("/why/{}/greeter/vm-1", stage.namespace);
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", &*bearer),
        ("Impersonate-User", "admin"),
        ("Impersonate-Group", "system:masters"),
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
    ];
    let refused = console.ask_with("GET", &path, HOST, &headers);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains(&format!("{}:reader", stage.namespace)), "{refused:?}");
}

#[tokio::test]
async fn a_token_that_is_accepted_no_more_ends_its_stream() {
    let stage = Stage::without_operator("served-ends").await;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: session }\nspec:\n  serviceAccountName: reader\n  \
               containers: [{ name: app, image: app }]\n";
    stage.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: { name: reader }\n");
    stage.apply(pod);
    let token = token(&stage, &ALL, Some("session")).await;
    let console = started(&stage, &[]);
    let stream = console.open(&events(&stage), HOST, &token);
    stage.kubectl(&["delete", "pod", "session", "--grace-period=0", "--force"]);
    // It would go on for half an hour, and panics where it goes on for a minute.
    let told = stream.until_its_end();
    assert_eq!(told[0]["kind"], "hello", "{told:?}");
    assert_eq!(get(&console, &events(&stage), &token).status, 401);
}

#[tokio::test]
async fn a_stream_ends_after_its_lifetime_and_a_reader_beyond_the_bound_waits_for_a_place() {
    let stage = Stage::without_operator("served-bounds").await;
    let token = token(&stage, &ALL, None).await;
    let console = started(&stage, &["console.maxReaders=1", "console.streamLifetime=3s"]);
    // On a busy machine a stream may end before the next request.
    let (first, full) = eventually("the only place is taken", || {
        let first = console.first(&events(&stage), HOST, &token)?;
        let full = get(&console, &events(&stage), &token);
        if full.status == 503 { Ok((first, full)) } else { Err(format!("{full:?}")) }
    });
    assert!(full.has("retry-after", "10"), "{full:?}");
    first.until_its_end();
    eventually("there is a place again", || {
        let told = console.first(&events(&stage), HOST, &token);
        told.map_err(|answer| format!("{answer:?}"))
    });
}

#[tokio::test]
async fn a_stream_about_more_objects_than_are_allowed_ends_and_says_so() {
    let stage = Stage::without_operator("served-many").await;
    (0..4).for_each(|n| stage.register(&format!("greeter-{n}"), ""));
    let token = token(&stage, &ALL, None).await;
    let console = started(&stage, &["console.maxObjects=3"]);
    let told = console.open(&events(&stage), HOST, &token).until_its_end();
    let last = told.last().unwrap();
    assert_eq!(last["kind"], "end", "{told:?}");
    assert!(last["why"].as_str().unwrap().contains("more than 3 objects"), "{last}");
}

#[tokio::test]
async fn a_reader_pastes_a_token_into_the_page_and_sees_a_death() {
    let Some(mut page) = Page::open("the console in a cluster") else { return };
    let mut stage = Stage::new("served-page").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    let token = token(&stage, &ALL, None).await;
    let console = started(&stage, &[]);
    let url = format!("http://{}/", console.host);
    page.look(390, 800, "light", "no-preference");
    page.visit(&url);
    page.until("it asks for a token", "!document.querySelector('#token-field').hidden");
    let connection = "document.querySelector('#connection').innerText";
    page.until("so does its head", &format!("{connection}.includes('needs a token')"));
    assert_eq!(page.axe(), [""; 0], "with the form");
    let fits = page.value("document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(fits, true, "nothing is wider than the page");
    let submit = |page: &mut Page, token: &str, namespace: &str| {
        page.value(&format!(
            "token.value = '{token}'; namespace.value = '{namespace}'; \
             document.querySelector('#access button').click()"
        ));
    };
    submit(&mut page, "wrong", "");
    let why = "document.querySelector('#token-why').innerText";
    page.until("the token is refused", &format!("{why}.includes('does not accept')"));
    submit(&mut page, &token, "");
    let trouble = "document.querySelector('#trouble').innerText";
    let missing = "cannot list resource \"serviceregistrations\"";
    page.until("the missing right is named", &format!("{trouble}.includes('{missing}')"));
    submit(&mut page, "", &stage.namespace);
    until_shown(&mut page, "vm-1", "Ready");
    page.until("the page is live", &format!("{connection}.includes('live')"));
    assert_eq!(page.value("document.querySelector('#token-field').hidden"), true);
    page.value("document.querySelector('[data-name=\"vm-2\"]').click()");
    page.until("the argument is shown", "document.querySelectorAll('.steps li').length > 5");
    stage.kill("vm-1");
    until_shown(&mut page, "vm-1", "Expired");
    let kept = "JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }, location.href])";
    let kept = page.value(kept);
    assert_eq!(kept, format!("[\"\",{{}},{{}},\"{url}?namespace={}\"]", stage.namespace));
}
