//! The SDK and the agent beside such objects: they start, beat, query and end.

use std::{process::Stdio, time::Duration};

use beatkeeper_client::{Change, Discovery, Running, Service};
use futures::StreamExt;
use tokio::process::{Child, Command};

use super::*;

fn agent(ns: &TestNamespace, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beatkeeper"));
    command
        .arg("agent")
        .args(arguments)
        .args(["--registration=greeter", "--namespace", &ns.name])
        .env_remove("POD_NAME")
        .env("KUBECONFIG", ns.plane.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Starts an agent in the Pod.
fn agent_of_web(ns: &TestNamespace) -> Child {
    let arguments = ["run", "--pod=web", "--interval=200ms", "--on-stop=keep"];
    agent(ns, &arguments).spawn().unwrap()
}

async fn service(ns: &TestNamespace) -> Running {
    let service = Service::builder("greeter")
        .namespace(&ns.name)
        .pod("")
        .instance("vm-1")
        .address("192.0.2.1".parse().unwrap())
        .register_interval(Duration::from_millis(200))
        .config(ns.plane.admin_config("strange-test").unwrap())
        .handle_signal(false);
    service.build().unwrap().start().await.unwrap()
}

/// Waits until the Lease is renewed.
async fn beats(ns: &TestNamespace, lease: &str) {
    let path = format!("{LEASES}/namespaces/{}/leases/{lease}", ns.name);
    let mut seen = BTreeSet::new();
    eventually(&format!("{lease} is renewed"), async || {
        let request = Request::get(format!("/{path}")).body(Vec::new()).unwrap();
        let lease = ns.client.request_text(request).await.ok()?;
        let lease: Value = serde_json::from_str(&lease).unwrap();
        let fields = lease["metadata"]["managedFields"].as_array().unwrap();
        let strange = fields.iter().any(|entry| entry["time"] == "9999-12-31T23:59:59Z");
        seen.insert((strange, lease["spec"]["renewTime"].as_str()?.to_owned()));
        (seen.iter().filter(|(strange, _)| *strange).count() >= 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_and_the_agent_start_and_beat_beside_objects_that_no_type_can_hold() {
    let fixture = Fixture::on_own_plane("strange-clients", Options::default()).await;
    let ns = &fixture.ns;
    ns.pod("web", &["10.88.0.7"], json!({})).await;
    ns.make_strange("api/v1", "pods/web").await;
    ns.make_strange(REGISTRATIONS, "serviceregistrations/greeter").await;
    let mut running = service(ns).await;
    let mut web = agent_of_web(ns);
    ns.eventually_has(&["10.88.0.7", "192.0.2.1"]).await;

    // From here on the answer to each beat is such an object.
    let before = running.stats();
    for lease in ["greeter.vm-1", "greeter.web"] {
        ns.make_strange(LEASES, &format!("leases/{lease}")).await;
        beats(ns, lease).await;
    }
    // A beat also fails if its answer is late on a busy machine, but not each of them.
    let after = running.stats();
    let (accepted, failed) = (after.beats - before.beats, after.failed - before.failed);
    assert!(failed < accepted, "{failed} have failed, {accepted} were accepted");

    for slice in ns.raw_slices().await {
        let name = slice["metadata"]["name"].as_str().unwrap();
        ns.make_strange(SLICES, &format!("endpointslices/{name}")).await;
    }
    let config = ns.plane.admin_config("strange-test").unwrap();
    let discovery = Discovery::with_config(config, Some(ns.name.clone())).unwrap();
    assert_eq!(discovery.resolve("greeter").await.unwrap().len(), 2);
    let mut changes = discovery.watch("greeter").await.unwrap();
    for _ in 0..2 {
        let change = changes.next().await.unwrap();
        assert!(matches!(change, Change::Created(_)), "{change:?}");
    }
    for arguments in [&["status"][..], &["heartbeat", "--instance=vm-1"]] {
        let output = agent(ns, arguments).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }

    // One process finds its Lease in this form, and another deletes such a Lease.
    web.kill().await.unwrap();
    web = agent_of_web(ns);
    beats(ns, "greeter.web").await;
    running.stop().await.unwrap();
    running = service(ns).await;
    ns.eventually_has(&["10.88.0.7", "192.0.2.1"]).await;
    running.stop().await.unwrap();
    ns.eventually_has(&["10.88.0.7"]).await;
    web.kill().await.unwrap();
}
