//! An agent whose registration says `carrier: Gateway`, with `beatkeeper gateway` as a process.

use std::time::{Duration, Instant};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use super::{agent::Agent, no_instance_has_left};
use crate::support::{
    Operator, TestNamespace, eventually,
    gateway::{Certificates, Gateway},
};

const LEASE: &str = "greeter.vm-1";

/// A namespace with a gateway of no operator, and the token of an agent.
struct World {
    ns: TestNamespace,
    certificates: Certificates,
    gateway: Gateway,
    token: tempfile::NamedTempFile,
}

impl World {
    async fn new(name: &str, carrier: &str) -> Self {
        let ns = TestNamespace::new(name).await;
        let spec = json!({
            "ttl": "3s", "interval": "500ms", "carrier": carrier, "ports": [{ "port": 80 }],
        });
        ns.create::<ServiceRegistration>(
            json!({ "metadata": { "name": "greeter" }, "spec": spec }),
        )
        .await;
        let certificates = Certificates::new();
        let flags = ["--drain-timeout=100ms", "--leader-elect-lease-duration=100ms"];
        let gateway = Gateway::start(&ns, &certificates, ("edge-0", "edge-uid"), &flags);
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), ns.token("beatkeeper", None).await).unwrap();
        Self { ns, certificates, gateway, token }
    }

    async fn agent(&self) -> Agent {
        let gateway = format!("--gateway=https://{}", self.gateway.address("beats").await);
        let ca = self.certificates.of("beats").join("ca.crt");
        let ca = format!("--gateway-ca-file={}", ca.display());
        let token = format!("--gateway-token-file={}", self.token.path().display());
        let instance = ["--instance=vm-1", "--address=192.0.2.11"];
        let flags = [&instance[..], &[&gateway, &ca, &token]].concat();
        Agent::start_with(&self.ns, &flags)
    }

    /// How often the gateway has answered a beat with 503.
    async fn unavailable(&self) -> Option<u64> {
        let admin = self.gateway.address("admin").await;
        let page = crate::support::http::get(&admin, "/metrics").await?.body;
        let name = r#"beatkeeper_gateway_beats_total{result="unavailable"} "#;
        page.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_an_operator_is_tried_again_and_again_and_the_lease_is_renewed_meanwhile()
{
    let world = World::new("carried-alone", "Gateway").await;
    let agent = world.agent().await;
    agent.says("beating as vm-1 for").await;
    agent.says("no gateway has accepted a beat for").await;
    let first = eventually("the gateway was asked", async || {
        world.unavailable().await.filter(|count| *count > 0)
    })
    .await;
    eventually("it is asked again", async || {
        world.unavailable().await.filter(|count| *count >= first + 3)
    })
    .await;
    let version =
        async || world.ns.lease(LEASE).await.and_then(|lease| lease.metadata.resource_version);
    let before = version().await.unwrap();
    eventually("the Lease is renewed", async || version().await.filter(|now| *now != before)).await;
    assert!(!agent.said().contains("gateway now"), "{}", agent.said());
    assert!(world.gateway.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_not_asked_while_the_registration_says_lease() {
    let world = World::new("carried-not", "Lease").await;
    let agent = world.agent().await;
    agent.says("beating as vm-1 for").await;
    let version =
        async || world.ns.lease(LEASE).await.and_then(|lease| lease.metadata.resource_version);
    let (began, before) = (Instant::now(), version().await.unwrap());
    eventually("some beats", async || {
        (version().await? != before && began.elapsed() > Duration::from_secs(2)).then_some(())
    })
    .await;
    assert_eq!(world.unavailable().await.unwrap_or_default(), 0);
    assert!(!agent.said().contains("gateway"), "{}", agent.said());
    assert!(world.gateway.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_gateway_cannot_be_used_ends_with_the_name_of_the_setting() {
    let ns = TestNamespace::new("carried-wrong").await;
    let instance = ["--instance=vm-1", "--address=192.0.2.11"];
    for (flags, says) in [
        (&["--gateway=https://127.0.0.1:1"][..], "needs --gateway-ca-file"),
        (&["--gateway=http://127.0.0.1:1"], "write it as https://HOST:PORT"),
        (
            &["--gateway-token-file=/x"],
            "--gateway-token-file ($BEATKEEPER_GATEWAY_TOKEN_FILE) has no effect without --gateway (",
        ),
    ] {
        let mut agent = Agent::start_with(&ns, &[&instance[..], flags].concat());
        assert_ne!(agent.exit_code().await, Some(0));
        assert!(agent.said().contains(says), "{}", agent.said());
    }
    // A file that is not there yet keeps no instance from renewing its Lease.
    let spec = json!({
        "ttl": "3s", "interval": "500ms", "carrier": "Gateway", "ports": [{ "port": 80 }],
    });
    ns.create::<ServiceRegistration>(json!({ "metadata": { "name": "greeter" }, "spec": spec }))
        .await;
    let flags = ["--gateway=https://127.0.0.1:1", "--gateway-ca-file=/no/ca.crt"];
    let agent = Agent::start_with(&ns, &[&instance[..], &flags].concat());
    agent.says("beating as vm-1 for").await;
    agent.says("--gateway-ca-file ($BEATKEEPER_GATEWAY_CA_FILE): cannot read /no/ca.crt").await;
    agent.says("renewing the Lease until a gateway accepts one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_changes_the_way_of_its_beats_and_back_and_its_instance_never_leaves() {
    let ns = TestNamespace::new("carried").await;
    let certificates = Certificates::new();
    let folder = format!("--gateway-cert-dir={}", certificates.of("operator").display());
    let flags = [
        &folder,
        "--leader-elect",
        "--leader-elect-lease-duration=3s",
        "--leader-elect-renew-deadline=2s",
        "--cluster-network=203.0.113.0/24",
    ];
    let _operator = Operator::start_in_pod("first", &ns.plane.kubeconfig(), &ns.name, &flags);
    let edge = ns.pod("edge-0", &["192.0.2.1"], json!({})).await;
    let flags = ["--drain-timeout=100ms", "--leader-elect-lease-duration=3s"];
    let gateway = Gateway::start(&ns, &certificates, ("edge-0", &edge), &flags);
    let mut spec = TestNamespace::usual_spec();
    // The ttl leaves time to change the way on a busy machine.
    (spec["ttl"], spec["interval"], spec["carrier"]) = ("8s".into(), "1s".into(), "Lease".into());
    ns.register("greeter", spec).await;

    let uid = ns.pod("greeter-0", &["10.1.0.1"], json!({})).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    let text = ns.token("beatkeeper", Some(("greeter-0", &uid))).await;
    std::fs::write(token.path(), text).unwrap();
    let gateway_flag = format!("--gateway=https://{}", gateway.address("beats").await);
    let ca = format!("--gateway-ca-file={}", certificates.of("beats").join("ca.crt").display());
    let token = format!("--gateway-token-file={}", token.path().display());
    let agent =
        Agent::start_with(&ns, &["--pod=greeter-0", "--verbose", &gateway_flag, &ca, &token]);
    agent.says("beating as greeter-0 for").await;
    ns.published_as_ready("greeter", &["10.1.0.1"]).await;
    let observer = ns.observe_all().await;

    let carrier = async |carrier: &str| {
        let patch = json!({ "spec": { "carrier": carrier } });
        ns.patch::<ServiceRegistration>("greeter", patch).await;
    };
    carrier("Gateway").await;
    agent.says("beating through a gateway now").await;
    let version = async || {
        let lease = ns.api::<Lease>().get("greeter.greeter-0").await.unwrap();
        lease.metadata.resource_version.unwrap()
    };
    let before = version().await;
    // They take two ttls.
    eventually("sixteen beats are accepted", async || {
        (agent.said().matches("accepted by a gateway in").count() >= 16).then_some(())
    })
    .await;
    assert_eq!(version().await, before, "no beat was a write to the Lease");

    carrier("Lease").await;
    // While a gateway accepts the beats, the registration is read only every five minutes.
    assert!(gateway.stop().await);
    agent.says("beating by renewing the Lease now").await;
    let back = version().await;
    eventually("the Lease is renewed", async || (version().await != back).then_some(())).await;
    // Longer than the ttl.
    tokio::time::sleep(Duration::from_secs(10)).await;
    ns.published_as_ready("greeter", &["10.1.0.1"]).await;
    no_instance_has_left(&observer, 1);
}
