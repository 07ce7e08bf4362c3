//! Which account may beat for which instance: the chart's admission policy, under attack and in
//! normal use.

use beatkeeper_api::{ServiceRegistration, heartbeat};
use beatkeeper_cluster::{ControlPlane, Options};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicy,
    coordination::v1::Lease,
    core::v1::{Namespace, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    helm::{Helm, chart},
    own_plane,
};
use crate::support::{Shop, eventually};

/// A namespace with a registration, Pods, and ServiceAccounts that may write Leases.
struct Scene {
    shop: Shop,
    plane: &'static ControlPlane,
}

impl Scene {
    /// Creates the scene on a control plane with the chart. The chart's policy is in force when
    /// this returns.
    async fn set(values: &[&str]) -> Self {
        let plane = own_plane(Options::default()).await;
        Helm::on(plane).release("install", &chart(), values).await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        let shop = Shop::open_on(plane, "admission").await;
        shop.greeter().await;
        let scene = Self { shop, plane };
        scene
            .bind(
                &scene.shop,
                "ClusterRole",
                "beatkeeper-heartbeat",
                "default",
                &scene.shop.namespace,
            )
            .await;
        scene.account("outside").await;
        let stranger = scene.client("default", None).await;
        eventually("the policy is in force", async || {
            let lease = scene.lease("greeter.nobody", "nobody", None);
            let api: Api<Lease> = Api::namespaced(stranger.clone(), &scene.shop.namespace);
            let params = PostParams { dry_run: true, ..PostParams::default() };
            api.create(&params, &lease).await.err()
        })
        .await;
        scene
    }

    async fn account(&self, name: &str) {
        self.shop.create::<ServiceAccount>(json!({ "metadata": { "name": name } })).await;
    }

    /// Binds a role in `shop` to a ServiceAccount of any namespace.
    async fn bind(&self, shop: &Shop, kind: &str, role: &str, account: &str, of: &str) {
        shop.create::<RoleBinding>(json!({
            "metadata": { "name": format!("{role}-{account}-{of}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": of }],
        }))
        .await;
    }

    async fn client(&self, account: &str, pod: Option<&str>) -> Client {
        self.plane.client_as(&self.shop.namespace, account, pod).await.unwrap()
    }

    /// Creates a Pod, and a client with its token.
    async fn pod(&self, name: &str) -> (String, Api<Lease>) {
        let uid = self.shop.pod(name, &["10.88.0.7"], json!({})).await;
        let client = self.client("default", Some(name)).await;
        (uid, Api::namespaced(client, &self.shop.namespace))
    }

    fn lease(&self, name: &str, holder: &str, pod: Option<(&str, &str)>) -> Lease {
        let owners = pod.map(
            |(name, uid)| json!([{ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }]),
        );
        let registration = name.split_once('.').unwrap().0;
        serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": { heartbeat::REGISTRATION_LABEL: registration },
                "ownerReferences": owners,
            },
            "spec": { "holderIdentity": holder, "renewTime": heartbeat::renew_time(Timestamp::now()) },
        }))
        .unwrap()
    }
}

async fn create(api: &Api<Lease>, lease: &Lease) -> kube::Result<Lease> {
    api.create(&PostParams::default(), lease).await
}

async fn patch(api: &Api<Lease>, name: &str, patch: Value) -> kube::Result<Lease> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

async fn beat(api: &Api<Lease>, name: &str) -> kube::Result<Lease> {
    patch(api, name, heartbeat::beat_patch(Timestamp::now())).await
}

async fn delete(api: &Api<Lease>, name: &str) -> kube::Result<()> {
    api.delete(name, &DeleteParams::default()).await.map(|_| ())
}

fn label(registration: Option<&str>) -> Value {
    json!({ "metadata": { "labels": { heartbeat::REGISTRATION_LABEL: registration } } })
}

fn cordon(why: Option<&str>) -> Value {
    json!({ "metadata": { "annotations": { heartbeat::CORDONED_ANNOTATION: why } } })
}

/// Checks that the policy refused the request with these words.
#[track_caller]
fn refused<T: std::fmt::Debug>(what: &str, result: kube::Result<T>, words: &str) {
    let kube::Error::Api(status) = result.expect_err(what) else { panic!("{what}") };
    println!("{what}: {}", status.message);
    assert_eq!(status.code, 403, "{what}: {}", status.message);
    assert!(status.message.contains("ValidatingAdmissionPolicy"), "{what}: {}", status.message);
    assert!(status.message.contains(words), "{what}: {}", status.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_beats_for_its_own_pod_only() {
    let scene = Scene::set(&[]).await;
    let shop = &scene.shop;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(shop.client.clone());
    for name in ["beatkeeper-heartbeats", "beatkeeper-advice", "beatkeeper-cordons"] {
        let status = eventually("the policy is type-checked", async || {
            policies.get(name).await.unwrap().status.filter(|it| it.observed_generation.is_some())
        })
        .await;
        let warnings = status.type_checking.and_then(|it| it.expression_warnings);
        assert_eq!(warnings.unwrap_or_default(), [], "{name}");
    }
    let (uid, api) = scene.pod("mine").await;
    let (other_uid, other) = scene.pod("other").await;

    // Normal use.
    create(&api, &scene.lease("greeter.mine", "mine", Some(("mine", &uid)))).await.unwrap();
    create(&other, &scene.lease("greeter.other", "other", Some(("other", &other_uid))))
        .await
        .unwrap();
    beat(&api, "greeter.mine").await.unwrap();
    let failing =
        json!({ "metadata": { "annotations": { heartbeat::HEALTH_ANNOTATION: "Failing" } } });
    patch(&api, "greeter.mine", failing).await.unwrap();
    delete(&api, "greeter.mine").await.unwrap();
    create(&api, &scene.lease("greeter.mine", "mine", Some(("mine", &uid)))).await.unwrap();

    // Beats for other instances.
    let own = "Pod mine may beat only as greeter.mine";
    let foreign = scene.lease("greeter.new", "new", Some(("mine", &uid)));
    let mut probe = scene.lease("greeter.mine", "mine", Some(("mine", &uid)));
    probe.metadata.name = Some("probe.beatkeeper.dev.mine".to_owned());
    let of_a_probe = (heartbeat::REGISTRATION_LABEL.to_owned(), "probe.beatkeeper.dev".to_owned());
    probe.metadata.labels = Some([of_a_probe].into());
    let probe = create(&api, &probe).await;
    refused("a probe of the operator", probe, "may beat only as");
    refused("a name of another", create(&api, &foreign).await, own);
    refused("a beat for another", beat(&api, "greeter.other").await, own);
    refused("deleting another's", delete(&api, "greeter.other").await, own);
    let all = api.delete_collection(&DeleteParams::default(), &Default::default()).await;
    assert!(all.is_err(), "RBAC does not allow it");
    delete(&api, "greeter.mine").await.unwrap();
    let holder = scene.lease("greeter.mine", "other", Some(("mine", &uid)));
    refused(
        "another holder",
        create(&api, &holder).await,
        "holderIdentity of Lease greeter.mine must be mine",
    );
    let must_own = "must have one owner reference: apiVersion v1, kind Pod, name mine";
    let another_pod = scene.lease("greeter.mine", "mine", Some(("other", &other_uid)));
    refused("another Pod's address", create(&api, &another_pod).await, must_own);
    let wrong_uid = scene.lease("greeter.mine", "mine", Some(("mine", &other_uid)));
    refused("another Pod's uid", create(&api, &wrong_uid).await, must_own);
    let mut outside = scene.lease("greeter.mine", "mine", None);
    outside.metadata.annotations =
        Some([(heartbeat::ADDRESSES_ANNOTATION.to_owned(), "192.0.2.1".to_owned())].into());
    refused("an address of its own choice", create(&api, &outside).await, must_own);
    create(&api, &scene.lease("greeter.mine", "mine", Some(("mine", &uid)))).await.unwrap();
    let orphaned = json!({ "metadata": { "ownerReferences": null } });
    refused("leaving its Pod", patch(&api, "greeter.mine", orphaned).await, must_own);
    let holder = json!({ "spec": { "holderIdentity": "other" } });
    refused("changing the holder", patch(&api, "greeter.mine", holder).await, "holderIdentity");

    // Labels.
    let fixed = "the label beatkeeper.dev/registration of Lease";
    refused("relabelling", patch(&api, "greeter.mine", label(Some("else"))).await, fixed);
    refused("stripping the label", patch(&api, "greeter.mine", label(None)).await, fixed);
    let mut plain = scene.lease("greeter.plain", "plain", None);
    plain.metadata.labels = None;
    create(&shop.api(), &plain).await.unwrap();
    refused(
        "labelling a foreign Lease",
        patch(&api, "greeter.plain", label(Some("greeter"))).await,
        fixed,
    );
    // The policy does not restrict Leases that are no heartbeats.
    beat(&api, "greeter.plain").await.unwrap();

    // Cordons.
    patch(&shop.api(), "greeter.mine", cordon(Some("bad disk"))).await.unwrap();
    beat(&api, "greeter.mine").await.unwrap();
    let cordoned = "Lease greeter.mine is cordoned: bad disk";
    refused("un-cordoning itself", patch(&api, "greeter.mine", cordon(None)).await, cordoned);
    refused("another reason", patch(&api, "greeter.mine", cordon(Some("fine"))).await, cordoned);
    refused("deleting the cordon", delete(&api, "greeter.mine").await, cordoned);
    // The API server drops a message with a line break, or of more than 5 kB.
    let long = "see the ticket ".repeat(400);
    let lines = format!("bad disk\nof the old kind\r\n{long}");
    patch(&shop.api(), "greeter.mine", cordon(Some(&lines))).await.unwrap();
    let cordoned = "Lease greeter.mine is cordoned: bad disk of the old kind";
    refused("ending a cordon of several lines", delete(&api, "greeter.mine").await, cordoned);
    patch(&shop.api(), "greeter.mine", cordon(None)).await.unwrap();
    patch(&api, "greeter.mine", cordon(Some("taking myself out"))).await.unwrap();

    // Users that are not Pods of this namespace.
    let loose: Api<Lease> = Api::namespaced(scene.client("default", None).await, &shop.namespace);
    let no_pod = "writes it with no token of a Pod in namespace";
    refused("a token of no Pod", beat(&loose, "greeter.mine").await, no_pod);
    let elsewhere = Shop::open_on(scene.plane, "elsewhere").await;
    elsewhere.pod("mine", &["10.88.0.9"], json!({})).await;
    scene.bind(shop, "ClusterRole", "beatkeeper-heartbeat", "default", &elsewhere.namespace).await;
    let namesake =
        scene.plane.client_as(&elsewhere.namespace, "default", Some("mine")).await.unwrap();
    let namesake: Api<Lease> = Api::namespaced(namesake, &shop.namespace);
    refused("a namesake from elsewhere", beat(&namesake, "greeter.mine").await, no_pod);
    scene.account("editor").await;
    scene.bind(shop, "ClusterRole", "edit", "editor", &shop.namespace).await;
    let editor: Api<Lease> = Api::namespaced(scene.client("editor", None).await, &shop.namespace);
    refused("an editor", create(&editor, &outside).await, "bind ClusterRole beatkeeper-register");
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_administrators_and_those_with_the_right_to_register_pass() {
    let scene = Scene::set(&[]).await;
    let shop = &scene.shop;
    // Outside instances of the named registrations.
    shop.create::<Role>(json!({ "metadata": { "name": "register" }, "rules": [
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "patch", "delete"] },
        { "apiGroups": ["beatkeeper.dev"], "resources": ["serviceregistrations"], "resourceNames": ["greeter"],
          "verbs": ["get", "register"] },
    ]}))
    .await;
    scene.bind(shop, "Role", "register", "outside", &shop.namespace).await;
    let outside: Api<Lease> = Api::namespaced(scene.client("outside", None).await, &shop.namespace);
    create(&outside, &scene.lease("greeter.vm-1", "vm-1", None)).await.unwrap();
    beat(&outside, "greeter.vm-1").await.unwrap();
    let of_another = create(&outside, &scene.lease("depot.vm-1", "vm-1", None)).await;
    refused("another registration", of_another, "ServiceRegistration depot");
    refused(
        "relabelling",
        patch(&outside, "greeter.vm-1", label(Some("depot"))).await,
        "cannot be changed",
    );
    patch(&shop.api(), "greeter.vm-1", cordon(Some("bad disk"))).await.unwrap();
    refused(
        "un-cordoning itself",
        patch(&outside, "greeter.vm-1", cordon(None)).await,
        "is cordoned",
    );
    refused("deleting the cordon", delete(&outside, "greeter.vm-1").await, "is cordoned");
    // The ClusterRole for this purpose.
    let ready_made = scene.lease("greeter.vm-2", "vm-2", None);
    scene.account("gateway").await;
    let gateway: Api<Lease> = Api::namespaced(scene.client("gateway", None).await, &shop.namespace);
    scene.bind(shop, "ClusterRole", "beatkeeper-register", "gateway", &shop.namespace).await;
    eventually("the role is in force", async || create(&gateway, &ready_made).await.ok()).await;
    delete(&gateway, "greeter.vm-2").await.unwrap();

    // An administrator of the namespace.
    scene.account("boss").await;
    scene.bind(shop, "ClusterRole", "admin", "boss", &shop.namespace).await;
    let boss: Api<Lease> = Api::namespaced(scene.client("boss", None).await, &shop.namespace);
    eventually("the aggregated role is in force", async || {
        patch(&boss, "greeter.vm-1", cordon(None)).await.ok()
    })
    .await;
    patch(&boss, "greeter.vm-1", label(Some("depot"))).await.unwrap();
    delete(&boss, "greeter.vm-1").await.unwrap();

    // A Pod that is created again under its name finds the Lease of the earlier Pod.
    let (uid, api) = scene.pod("pod-0").await;
    create(&api, &scene.lease("greeter.pod-0", "pod-0", Some(("pod-0", "of-the-earlier-one"))))
        .await
        .unwrap_err();
    create(&shop.api(), &scene.lease("greeter.pod-0", "pod-0", Some(("pod-0", &uid))))
        .await
        .unwrap();
    delete(&api, "greeter.pod-0").await.unwrap();

    // The agent as a sidecar.
    agent(&scene, "pod-0", &["register"]).await;
    let lease = shop.lease("greeter.pod-0").await.expect("the agent's Lease");
    assert_eq!(lease.metadata.owner_references.unwrap()[0].uid, uid);
    agent(&scene, "pod-0", &["drain"]).await;
    agent(&scene, "pod-0", &["deregister"]).await;
    assert_eq!(shop.lease("greeter.pod-0").await, None);

    // The garbage collector, and the deletion of a namespace.
    create(&api, &scene.lease("greeter.pod-0", "pod-0", Some(("pod-0", &uid)))).await.unwrap();
    shop.delete_pod("pod-0", 0).await;
    eventually("the garbage collector takes the Lease", async || {
        shop.lease("greeter.pod-0").await.is_none().then_some(())
    })
    .await;
    create(&outside, &scene.lease("greeter.vm-3", "vm-3", None)).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(shop.client.clone());
    namespaces.delete(&shop.namespace, &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || {
        namespaces.get_opt(&shop.namespace).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Runs a command of the agent with the token of a Pod.
async fn agent(scene: &Scene, pod: &str, command: &[&str]) {
    let token = scene.plane.token(&scene.shop.namespace, "default", Some(pod)).await.unwrap();
    let text = std::fs::read_to_string(scene.plane.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({ "token": token });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, config.to_string()).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_beatkeeper"))
        .arg("agent")
        .args(command)
        .args(["--registration=greeter", "--namespace", &scene.shop.namespace])
        .env("KUBECONFIG", file.path())
        .env("POD_NAME", pod)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_asked_for_a_pod_needs_the_permission_to_beat_and_a_short_ttl_is_warned_of() {
    let scene = Scene::set(&["--set", "admissionPolicy.requireBeatPermission=true"]).await;
    let shop = &scene.shop;
    let (uid, api) = scene.pod("mine").await;
    let lease = scene.lease("greeter.mine", "mine", Some(("mine", &uid)));
    let words = "needs the permission \"beat\" for ServiceRegistration greeter";
    refused("without the permission", create(&api, &lease).await, words);
    shop.create::<Role>(json!({ "metadata": { "name": "beat" }, "rules": [
        { "apiGroups": ["beatkeeper.dev"], "resources": ["serviceregistrations"], "resourceNames": ["greeter"],
          "verbs": ["beat"] },
    ]}))
    .await;
    scene.bind(shop, "Role", "beat", "default", &shop.namespace).await;
    eventually("it may beat", async || create(&api, &lease).await.ok()).await;
    beat(&api, "greeter.mine").await.unwrap();

    let registration = |ttl: &str| {
        json!({
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
            "metadata": { "name": "hasty", "namespace": shop.namespace },
            "spec": { "ttl": ttl, "interval": "20s", "ports": [{ "port": 80 , "targetPort": 8080 }] },
        })
        .to_string()
    };
    let helm = Helm::on(scene.plane);
    let said = helm.kubectl(&["apply", "-f", "-"], &registration("30s")).await.unwrap();
    assert!(said.contains("Warning: "), "{said}");
    assert!(said.contains("ttl 30s is less than twice the interval 20s"), "{said}");
    assert!(shop.api::<ServiceRegistration>().get_opt("hasty").await.unwrap().is_some());
    let said = helm.kubectl(&["apply", "-f", "-"], &registration("40s")).await.unwrap();
    assert!(!said.contains("Warning"), "{said}");
}
