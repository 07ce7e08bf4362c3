//! Which account may beat for which instance: the chart's admission policy, under attack and in
//! normal use.

mod fixture;

use beatkeeper_api::{ServiceRegistration, heartbeat};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicy, coordination::v1::Lease,
    core::v1::Namespace, rbac::v1::Role,
};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use self::fixture::{PolicyFixture, beat, cordon, create, delete, label, patch, refused};
use super::helm::Helm;
use crate::support::{TestNamespace, eventually};

/// Two Pods with their tokens: `mine`, and another one.
struct Pods {
    fixture: PolicyFixture,
    uid: String,
    api: Api<Lease>,
    other_uid: String,
    other: Api<Lease>,
}

impl Pods {
    async fn new() -> Self {
        let fixture = PolicyFixture::new(&[]).await;
        let (uid, api) = fixture.pod("mine").await;
        let (other_uid, other) = fixture.pod("other").await;
        Self { fixture, uid, api, other_uid, other }
    }

    /// The Lease of Pod `mine`, as it should be.
    fn lease(&self) -> Lease {
        self.fixture.lease("greeter.mine", "mine", Some(("mine", &self.uid)))
    }

    /// A Lease of an outside instance under the name of Pod `mine`.
    fn outside(&self) -> Lease {
        let mut outside = self.fixture.lease("greeter.mine", "mine", None);
        outside.metadata.annotations =
            Some([(heartbeat::ADDRESSES_ANNOTATION.to_owned(), "192.0.2.1".to_owned())].into());
        outside
    }

    /// It creates, renews, changes and deletes its Lease.
    async fn uses_its_lease(&self) {
        create(&self.api, &self.lease()).await.unwrap();
        create(
            &self.other,
            &self.fixture.lease("greeter.other", "other", Some(("other", &self.other_uid))),
        )
        .await
        .unwrap();
        beat(&self.api, "greeter.mine").await.unwrap();
        let failing =
            json!({ "metadata": { "annotations": { heartbeat::HEALTH_ANNOTATION: "Failing" } } });
        patch(&self.api, "greeter.mine", failing).await.unwrap();
        delete(&self.api, "greeter.mine").await.unwrap();
        create(&self.api, &self.lease()).await.unwrap();
    }

    /// It beats for no other instance, and with no other identity.
    async fn beats_for_no_other(&self) {
        let own = "Pod mine may beat only as greeter.mine";
        let foreign = self.fixture.lease("greeter.new", "new", Some(("mine", &self.uid)));
        let mut probe = self.lease();
        probe.metadata.name = Some("probe.beatkeeper.dev.mine".to_owned());
        let of_a_probe =
            (heartbeat::REGISTRATION_LABEL.to_owned(), "probe.beatkeeper.dev".to_owned());
        probe.metadata.labels = Some([of_a_probe].into());
        let probe = create(&self.api, &probe).await;
        refused("a probe of the operator", probe, "may beat only as");
        refused("a name of another", create(&self.api, &foreign).await, own);
        refused("a beat for another", beat(&self.api, "greeter.other").await, own);
        refused("deleting another's", delete(&self.api, "greeter.other").await, own);
        let all = self.api.delete_collection(&DeleteParams::default(), &Default::default()).await;
        assert!(all.is_err(), "RBAC does not allow it");
        delete(&self.api, "greeter.mine").await.unwrap();
        let holder = self.fixture.lease("greeter.mine", "other", Some(("mine", &self.uid)));
        refused(
            "another holder",
            create(&self.api, &holder).await,
            "holderIdentity of Lease greeter.mine must be mine",
        );
        let must_own = "must have one owner reference: apiVersion v1, kind Pod, name mine";
        let another_pod =
            self.fixture.lease("greeter.mine", "mine", Some(("other", &self.other_uid)));
        refused("another Pod's address", create(&self.api, &another_pod).await, must_own);
        let wrong_uid = self.fixture.lease("greeter.mine", "mine", Some(("mine", &self.other_uid)));
        refused("another Pod's uid", create(&self.api, &wrong_uid).await, must_own);
        let outside = self.outside();
        refused("an address of its own choice", create(&self.api, &outside).await, must_own);
        create(&self.api, &self.lease()).await.unwrap();
        let orphaned = json!({ "metadata": { "ownerReferences": null } });
        refused("leaving its Pod", patch(&self.api, "greeter.mine", orphaned).await, must_own);
        let holder = json!({ "spec": { "holderIdentity": "other" } });
        refused(
            "changing the holder",
            patch(&self.api, "greeter.mine", holder).await,
            "holderIdentity",
        );
    }

    /// The label cannot be changed, and no other Lease becomes a heartbeat.
    async fn keeps_the_label(&self) {
        let fixed = "the label beatkeeper.dev/registration of Lease";
        refused("relabelling", patch(&self.api, "greeter.mine", label(Some("else"))).await, fixed);
        refused("stripping the label", patch(&self.api, "greeter.mine", label(None)).await, fixed);
        let mut plain = self.fixture.lease("greeter.plain", "plain", None);
        plain.metadata.labels = None;
        create(&self.fixture.ns.api(), &plain).await.unwrap();
        refused(
            "labelling a foreign Lease",
            patch(&self.api, "greeter.plain", label(Some("greeter"))).await,
            fixed,
        );
        // The policy does not restrict Leases that are no heartbeats.
        beat(&self.api, "greeter.plain").await.unwrap();
    }

    /// Its Pod can neither end nor change a cordon.
    async fn ends_no_cordon(&self) {
        patch(&self.fixture.ns.api(), "greeter.mine", cordon(Some("bad disk"))).await.unwrap();
        beat(&self.api, "greeter.mine").await.unwrap();
        let cordoned = "Lease greeter.mine is cordoned: bad disk";
        refused(
            "un-cordoning itself",
            patch(&self.api, "greeter.mine", cordon(None)).await,
            cordoned,
        );
        refused(
            "another reason",
            patch(&self.api, "greeter.mine", cordon(Some("fine"))).await,
            cordoned,
        );
        refused("deleting the cordon", delete(&self.api, "greeter.mine").await, cordoned);
        // The API server drops a message with a line break, or of more than 5 kB.
        let long = "see the ticket ".repeat(400);
        let lines = format!("bad disk\nof the old kind\r\n{long}");
        patch(&self.fixture.ns.api(), "greeter.mine", cordon(Some(&lines))).await.unwrap();
        let cordoned = "Lease greeter.mine is cordoned: bad disk of the old kind";
        refused(
            "ending a cordon of several lines",
            delete(&self.api, "greeter.mine").await,
            cordoned,
        );
        patch(&self.fixture.ns.api(), "greeter.mine", cordon(None)).await.unwrap();
        patch(&self.api, "greeter.mine", cordon(Some("taking myself out"))).await.unwrap();
    }

    /// Other users, and Pods of other namespaces, are refused.
    async fn is_no_other_user(&self) {
        let ns = &self.fixture.ns;
        let loose: Api<Lease> =
            Api::namespaced(self.fixture.client("default", None).await, &ns.name);
        let no_pod = "writes it with no token of a Pod in namespace";
        refused("a token of no Pod", beat(&loose, "greeter.mine").await, no_pod);
        let elsewhere = TestNamespace::new_on(self.fixture.plane, "elsewhere").await;
        elsewhere.pod("mine", &["10.88.0.9"], json!({})).await;
        self.fixture
            .bind(ns, "ClusterRole", "beatkeeper-heartbeat", "default", &elsewhere.name)
            .await;
        let namesake =
            self.fixture.plane.client_as(&elsewhere.name, "default", Some("mine")).await.unwrap();
        let namesake: Api<Lease> = Api::namespaced(namesake, &ns.name);
        refused("a namesake from elsewhere", beat(&namesake, "greeter.mine").await, no_pod);
        self.fixture.account("editor").await;
        self.fixture.bind(ns, "ClusterRole", "edit", "editor", &ns.name).await;
        let editor: Api<Lease> =
            Api::namespaced(self.fixture.client("editor", None).await, &ns.name);
        refused(
            "an editor",
            create(&editor, &self.outside()).await,
            "bind ClusterRole beatkeeper-register",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_beats_for_its_own_pod_only() {
    let pods = Pods::new().await;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(pods.fixture.ns.client.clone());
    for name in ["beatkeeper-heartbeats", "beatkeeper-advice", "beatkeeper-cordons"] {
        let status = eventually("the policy is type-checked", async || {
            policies.get(name).await.unwrap().status.filter(|it| it.observed_generation.is_some())
        })
        .await;
        let warnings = status.type_checking.and_then(|it| it.expression_warnings);
        assert_eq!(warnings.unwrap_or_default(), [], "{name}");
    }
    pods.uses_its_lease().await;
    pods.beats_for_no_other().await;
    pods.keeps_the_label().await;
    pods.ends_no_cordon().await;
    pods.is_no_other_user().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_administrators_and_those_with_the_right_to_register_pass() {
    let fixture = PolicyFixture::new(&[]).await;
    let ns = &fixture.ns;
    // Outside instances of the named registrations.
    ns.create::<Role>(json!({ "metadata": { "name": "register" }, "rules": [
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "patch", "delete"] },
        { "apiGroups": ["beatkeeper.dev"], "resources": ["serviceregistrations"], "resourceNames": ["greeter"],
          "verbs": ["get", "register"] },
    ]}))
    .await;
    fixture.bind(ns, "Role", "register", "outside", &ns.name).await;
    let outside: Api<Lease> = Api::namespaced(fixture.client("outside", None).await, &ns.name);
    create(&outside, &fixture.lease("greeter.vm-1", "vm-1", None)).await.unwrap();
    beat(&outside, "greeter.vm-1").await.unwrap();
    let of_another = create(&outside, &fixture.lease("depot.vm-1", "vm-1", None)).await;
    refused("another registration", of_another, "ServiceRegistration depot");
    refused(
        "relabelling",
        patch(&outside, "greeter.vm-1", label(Some("depot"))).await,
        "cannot be changed",
    );
    patch(&ns.api(), "greeter.vm-1", cordon(Some("bad disk"))).await.unwrap();
    refused(
        "un-cordoning itself",
        patch(&outside, "greeter.vm-1", cordon(None)).await,
        "is cordoned",
    );
    refused("deleting the cordon", delete(&outside, "greeter.vm-1").await, "is cordoned");
    // The ClusterRole for this purpose.
    let ready_made = fixture.lease("greeter.vm-2", "vm-2", None);
    fixture.account("gateway").await;
    let gateway: Api<Lease> = Api::namespaced(fixture.client("gateway", None).await, &ns.name);
    fixture.bind(ns, "ClusterRole", "beatkeeper-register", "gateway", &ns.name).await;
    eventually("the role is in force", async || create(&gateway, &ready_made).await.ok()).await;
    delete(&gateway, "greeter.vm-2").await.unwrap();

    // An administrator of the namespace.
    fixture.account("boss").await;
    fixture.bind(ns, "ClusterRole", "admin", "boss", &ns.name).await;
    let boss: Api<Lease> = Api::namespaced(fixture.client("boss", None).await, &ns.name);
    eventually("the aggregated role is in force", async || {
        patch(&boss, "greeter.vm-1", cordon(None)).await.ok()
    })
    .await;
    patch(&boss, "greeter.vm-1", label(Some("depot"))).await.unwrap();
    delete(&boss, "greeter.vm-1").await.unwrap();

    // A Pod that is created again under its name finds the Lease of the earlier Pod.
    let (uid, api) = fixture.pod("pod-0").await;
    create(&api, &fixture.lease("greeter.pod-0", "pod-0", Some(("pod-0", "of-the-earlier-one"))))
        .await
        .unwrap_err();
    create(&ns.api(), &fixture.lease("greeter.pod-0", "pod-0", Some(("pod-0", &uid))))
        .await
        .unwrap();
    delete(&api, "greeter.pod-0").await.unwrap();

    // The agent as a sidecar.
    agent(&fixture, "pod-0", &["register"]).await;
    let lease = ns.lease("greeter.pod-0").await.expect("the agent's Lease");
    assert_eq!(lease.metadata.owner_references.unwrap()[0].uid, uid);
    agent(&fixture, "pod-0", &["drain"]).await;
    agent(&fixture, "pod-0", &["deregister"]).await;
    assert_eq!(ns.lease("greeter.pod-0").await, None);

    collectors_pass(&fixture, &api, &uid, &outside).await;
}

/// The garbage collector and the deletion of a namespace delete Leases.
async fn collectors_pass(
    fixture: &PolicyFixture,
    api: &Api<Lease>,
    uid: &str,
    outside: &Api<Lease>,
) {
    let ns = &fixture.ns;
    create(api, &fixture.lease("greeter.pod-0", "pod-0", Some(("pod-0", uid)))).await.unwrap();
    ns.delete_pod("pod-0", 0).await;
    eventually("the garbage collector takes the Lease", async || {
        ns.lease("greeter.pod-0").await.is_none().then_some(())
    })
    .await;
    create(outside, &fixture.lease("greeter.vm-3", "vm-3", None)).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(ns.client.clone());
    namespaces.delete(&ns.name, &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || {
        namespaces.get_opt(&ns.name).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Runs a command of the agent with the token of a Pod.
async fn agent(fixture: &PolicyFixture, pod: &str, command: &[&str]) {
    let token = fixture.plane.token(&fixture.ns.name, "default", Some(pod)).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, fixture.plane.kubeconfig_with(&token, None).unwrap()).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_beatkeeper"))
        .arg("agent")
        .args(command)
        .args(["--registration=greeter", "--namespace", &fixture.ns.name])
        .env("KUBECONFIG", file.path())
        .env("POD_NAME", pod)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_asked_for_a_pod_needs_the_permission_to_beat_and_a_short_ttl_is_warned_of() {
    let fixture =
        PolicyFixture::new(&["--set", "admissionPolicy.requireBeatPermission=true"]).await;
    let ns = &fixture.ns;
    let (uid, api) = fixture.pod("mine").await;
    let lease = fixture.lease("greeter.mine", "mine", Some(("mine", &uid)));
    let words = "needs the permission \"beat\" for ServiceRegistration greeter";
    refused("without the permission", create(&api, &lease).await, words);
    ns.create::<Role>(json!({ "metadata": { "name": "beat" }, "rules": [
        { "apiGroups": ["beatkeeper.dev"], "resources": ["serviceregistrations"], "resourceNames": ["greeter"],
          "verbs": ["beat"] },
    ]}))
    .await;
    fixture.bind(ns, "Role", "beat", "default", &ns.name).await;
    eventually("it may beat", async || create(&api, &lease).await.ok()).await;
    beat(&api, "greeter.mine").await.unwrap();

    let registration = |ttl: &str| {
        json!({
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
            "metadata": { "name": "hasty", "namespace": ns.name },
            "spec": { "ttl": ttl, "interval": "20s", "ports": [{ "port": 80 , "targetPort": 8080 }] },
        })
        .to_string()
    };
    let helm = Helm::on(fixture.plane);
    let said = helm.kubectl(&["apply", "-f", "-"], &registration("30s")).await.unwrap();
    assert!(said.contains("Warning: "), "{said}");
    assert!(said.contains("ttl 30s is less than twice the interval 20s"), "{said}");
    assert!(ns.api::<ServiceRegistration>().get_opt("hasty").await.unwrap().is_some());
    let said = helm.kubectl(&["apply", "-f", "-"], &registration("40s")).await.unwrap();
    assert!(!said.contains("Warning"), "{said}");
}
