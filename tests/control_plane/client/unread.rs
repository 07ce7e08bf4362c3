//! Nothing reads what the agent prints: its pipe is full.

use std::{
    io::pipe,
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::{
    io::ioctl_fionread,
    process::{Pid, Signal, kill_process},
};

use super::{address, fleet, no_instance_has_left};
use crate::support::{TestNamespace, eventually, operator::spawn_from_keeper};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_unread_output_beats_on_and_ends_in_time() {
    for action in ["run", "exec"] {
        let ns = TestNamespace::new("unread").await;
        let _operator = ns.operator();
        ns.greeter().await;
        let address = address(1).to_string();
        let (reader, writer) = pipe().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_beatkeeper"));
        command
            .args(["agent", action, "--registration=greeter", "--namespace", &ns.name])
            .args(["--instance=vm-1", "--address", &address, "--verbose"])
            .env_remove("POD_NAME")
            .env("KUBECONFIG", ns.plane.kubeconfig())
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer.try_clone().unwrap());
        if action == "exec" {
            command.args(["--", "sleep", "600"]);
        }
        let mut agent = spawn_from_keeper(command);
        ns.published_as_ready("greeter", &[&address]).await;
        let observer = ns.observe_all().await;
        // Another process writes to the same pipe, as the wrapped command may do.
        let mut noise = Command::new("yes").stdout(writer).stderr(Stdio::null()).spawn().unwrap();
        eventually("the pipe is full", async || {
            (ioctl_fionread(&reader).unwrap() >= 60_000).then_some(())
        })
        .await;
        let token = async || {
            let spec = ns.lease("greeter.vm-1").await.unwrap().spec.unwrap();
            spec.renew_time.unwrap().0
        };
        // This takes longer than a ttl. Each beat prints a line that cannot be written.
        for _ in 0..6 {
            let last = token().await;
            eventually("it beats", async || (token().await > last).then_some(())).await;
        }
        no_instance_has_left(&observer, 1);
        kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
        eventually("it ends", async || agent.try_wait().unwrap()).await;
        assert_eq!(ns.lease("greeter.vm-1").await, None, "it has deregistered");
        noise.kill().unwrap();
        noise.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_events_that_never_returns_stops_no_beat() {
    let ns = TestNamespace::new("handler").await;
    ns.greeter().await;
    let config = ns.plane.admin_config("client-test").unwrap();
    let (service, _) = fleet::start_with(&ns, 1, config, |service| {
        service.report(Arc::new(|_| {
            loop {
                std::thread::park();
            }
        }))
    })
    .await;
    let token = async || {
        let spec = ns.lease("greeter.vm-1").await.unwrap().spec.unwrap();
        spec.renew_time.unwrap().0
    };
    for _ in 0..5 {
        let last = token().await;
        eventually("it beats", async || (token().await > last).then_some(())).await;
    }
    service.stop().await.unwrap();
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}
