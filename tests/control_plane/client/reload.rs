//! An agent is restarted or reconfigured while the instance keeps serving.

use kube::ResourceExt;
use rustix::process::Signal;

use super::{address, agent::Agent, no_instance_has_left};
use crate::support::{ServiceObserver, TestNamespace, eventually, observer::set};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_restarts_and_keeps_its_lease_interrupts_no_publication() {
    let ns = TestNamespace::new("kept").await;
    let _operator = ns.operator();
    // A busy machine may take a while to start the agent again.
    let mut spec = TestNamespace::usual_spec();
    spec["ttl"] = "30s".into();
    ns.register("greeter", spec).await;
    let address = address(1).to_string();
    let common = ["--instance=vm-1", "--address", &address, "--probe=exec:true"];
    let keeps = [&common[..], &["--on-stop=keep", "--drain-delay=5s"]].concat();
    let mut agent = Agent::start_with(&ns, &keeps);
    ns.published_as_ready("greeter", &[&address]).await;
    let observer = ns.observe_all().await;
    for (signal, next) in
        [(Signal::TERM, &keeps[..]), (Signal::TERM, &common[..]), (Signal::USR1, &keeps[..])]
    {
        agent.signal(signal);
        assert_eq!(agent.exit_code().await, Some(0), "{}", agent.said());
        assert!(agent.said().contains("the Leases stay"));
        agent = Agent::start_with(&ns, next);
        agent.says("with the Lease of its earlier life").await;
    }
    no_instance_has_left(&observer, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settings_file_that_takes_for_ever_to_be_read_stops_no_beat() {
    let ns = TestNamespace::new("reload-hangs").await;
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.yaml");
    std::fs::write(&config, "appVersion: '1'").unwrap();
    let flags = ["--instance=vm-1", "--address=192.0.2.1", "--config", config.to_str().unwrap()];
    let mut agent = Agent::start_with(&ns, &flags);
    agent.says("beating as").await;
    std::fs::remove_file(&config).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&config).status().unwrap().success());
    agent.signal(Signal::HUP);
    // The open succeeds when the agent reads the file. Then no data arrives.
    let open = move || std::fs::File::options().write(true).open(config).unwrap();
    let silent = tokio::task::spawn_blocking(open).await.unwrap();
    let token = async || ns.lease("greeter.vm-1").await.unwrap().spec.unwrap().renew_time;
    for _ in 0..3 {
        let last = token().await;
        eventually("it beats on", async || (token().await != last).then_some(())).await;
    }
    agent.signal(Signal::TERM);
    assert_eq!(agent.exit_code().await, Some(0), "{}", agent.said());
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_touches_only_what_has_changed_and_a_bad_file_changes_nothing() {
    let ns = TestNamespace::new("reload").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.yaml");
    let write = |text: &str| std::fs::write(&config, text).unwrap();
    let of = |version: &str, instances: &[usize]| {
        let instance = |n: &usize| {
            let version =
                if *n == 1 { format!(", appVersion: '{version}'") } else { String::new() };
            format!("- {{ instance: vm-{n}, addresses: [{}]{version} }}\n", address(*n))
        };
        format!("instances:\n{}", instances.iter().map(instance).collect::<String>())
    };
    write(&of("1", &[1, 2, 4]));
    let agent = Agent::start_with(&ns, &["--config", config.to_str().unwrap()]);
    let [one, two, three, four] = [1, 2, 3, 4].map(|n| address(n).to_string());
    ns.published_as_ready("greeter", &[&one, &two, &four]).await;
    let untouched = ns.lease("greeter.vm-4").await.unwrap().spec.unwrap().lease_transitions;
    let service = ServiceObserver::of(&ns, "greeter").await;

    write(&of("2", &[1, 3, 4]));
    agent.signal(Signal::HUP);
    agent.says("reloaded: 1 added, 1 changed, 1 removed").await;
    ns.published_as_ready("greeter", &[&one, &three, &four]).await;
    eventually("the new version is in the Lease", async || {
        let lease = ns.lease("greeter.vm-1").await?;
        (lease.annotations()["beatkeeper.dev/version"] == "2").then_some(())
    })
    .await;
    service.never_missed(&set(&[&one, &four]));

    write("instances: [{ instance: VM_1 }]");
    agent.signal(Signal::HUP);
    agent.says("not reloaded, all stays as it was: instances[0]: ").await;
    write(&format!("healthBindAddress: 127.0.0.1:0\n{}", of("2", &[1, 3, 4])));
    agent.signal(Signal::HUP);
    agent.says("healthBindAddress cannot be reloaded").await;
    agent.says("reloaded: 0 added, 0 changed, 0 removed").await;
    let token = async || ns.lease("greeter.vm-1").await.unwrap().spec.unwrap().renew_time;
    let last = token().await;
    eventually("it beats on", async || (token().await != last).then_some(())).await;
    service.never_missed(&set(&[&one, &four]));
    let now = ns.lease("greeter.vm-4").await.unwrap().spec.unwrap().lease_transitions;
    assert_eq!(now, untouched, "it was claimed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_file_says_that_there_is_nothing_to_reload() {
    let ns = TestNamespace::new("no-file").await;
    ns.greeter().await;
    let agent = Agent::start(&ns, "vm-1", "192.0.2.1");
    agent.says("beating as").await;
    agent.signal(Signal::HUP);
    agent.says("nothing to reload").await;
}
