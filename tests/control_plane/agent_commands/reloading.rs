//! What the agent tells systemd about a reload.

use rustix::process::Signal;
use tokio::{net::UnixDatagram, time::timeout};

use super::{PATIENCE, exit_code, signal, text, write};
use crate::support::TestNamespace;

/// The messages that a service manager receives.
struct Manager(UnixDatagram);

impl Manager {
    async fn hears(&self) -> String {
        let mut buffer = [0; 256];
        let length = timeout(PATIENCE, self.0.recv(&mut buffer)).await.unwrap().unwrap();
        text(&buffer[..length]).trim().to_owned()
    }

    async fn hears_of_a_reload(&self) {
        let heard = self.hears().await;
        let at = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(at.is_some_and(|at| at.parse::<u64>().is_ok()), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_of_a_reload_and_that_it_is_done_when_the_reloaded_have_beaten() {
    let ns = TestNamespace::new("agent-reloading").await;
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let one = "instances:\n- { registration: greeter, instance: vm-1, addresses: [192.0.2.1] }\n";
    let config = write(folder.path(), "agent.yaml", one);
    let mut command = ns.agent_command("run", &["--config", &config]);
    command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC");
    let mut agent = command.spawn().unwrap();
    assert_eq!(manager.hears().await, "READY=1");

    // No beat of the second instance can be accepted yet.
    let two = "- { registration: later, instance: vm-2, addresses: [192.0.2.2] }\n";
    write(folder.path(), "agent.yaml", &format!("{one}{two}"));
    signal(&agent, Signal::HUP);
    manager.hears_of_a_reload().await;
    ns.register("later", TestNamespace::usual_spec()).await;
    assert_eq!(manager.hears().await, "READY=1");
    assert!(ns.lease("later.vm-2").await.is_some(), "it is said to be ready before it has beaten");

    // An unusable configuration changes nothing, and the reload is complete.
    write(folder.path(), "agent.yaml", "instances: [{ instance: VM_1 }]");
    signal(&agent, Signal::HUP);
    manager.hears_of_a_reload().await;
    assert_eq!(manager.hears().await, "READY=1");
    signal(&agent, Signal::TERM);
    assert_eq!(manager.hears().await, "STOPPING=1");
    assert_eq!(exit_code(&mut agent).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_reloaded_while_it_starts_is_ready_when_all_that_is_set_by_then_have_beaten()
 {
    let ns = TestNamespace::new("agent-reloaded-start").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    // No such registration will ever exist.
    let wrong = "instances:\n- { registration: wrong, instance: vm-1, addresses: [192.0.2.1] }\n";
    let config = write(folder.path(), "agent.yaml", wrong);
    let mut command = ns.agent_command("run", &["--config", &config]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID");
    let mut agent = command.spawn().unwrap();
    assert_eq!(manager.hears().await, "WATCHDOG=1", "it runs, and listens");
    ns.greeter().await;
    write(folder.path(), "agent.yaml", &wrong.replace("wrong", "greeter"));
    signal(&agent, Signal::HUP);
    let is_ready = async { while manager.hears().await != "READY=1" {} };
    timeout(PATIENCE, is_ready).await.expect("it is ready");
    assert!(ns.lease("greeter.vm-1").await.is_some());
    signal(&agent, Signal::TERM);
    assert_eq!(exit_code(&mut agent).await, Some(0));
}
