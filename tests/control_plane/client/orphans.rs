//! The agent as the first process of a container: any process that has lost its parent becomes its
//! child.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::support::{TestNamespace, eventually, operator::spawn_from_keeper};

/// The children of a process that have ended and for which it has not waited.
fn zombies(parent: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {parent} "))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_given_orphans_reaps_them_and_passes_the_commands_exit_code_on() {
    let ns = TestNamespace::new("orphans").await;
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    // Twenty processes that outlive their parents, and one that a probe leaves behind.
    let script = format!(
        "for n in $(seq 20); do (sh -c 'echo >> {place}/ended' &); done; \
         until [ -e {place}/end ]; do sleep 0.05; done; exit 7"
    );
    // The probe ends when the child has left the probe's process group. Otherwise the child would
    // be killed with the group.
    let probe = format!(
        "exec:sh -c '(setsid sh -c \"touch {place}/left; sleep 0.1; echo >> {place}/probed\" &); \
         until [ -e {place}/left ]; do sleep 0.01; done'"
    );
    // The process becomes a subreaper like the first process of a container. This does not need
    // root.
    let first = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); \
                 os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command
        .args(["-c", first, env!("CARGO_BIN_EXE_beatkeeper"), "agent", "exec"])
        .args(["--registration=greeter", "--namespace", &ns.name, "--instance=vm-1"])
        .args(["--address=192.0.2.1", "--probe", &probe, "--", "sh", "-c", &script])
        .env_remove("POD_NAME")
        .env("KUBECONFIG", ns.plane.kubeconfig())
        .stdin(Stdio::null());
    let mut agent = spawn_from_keeper(command);
    let lines = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        text.lines().count()
    };
    eventually("orphans have ended", async || {
        (lines("ended") >= 20 && lines("probed") >= 1).then_some(())
    })
    .await;
    eventually("none is left", async || zombies(agent.id()).is_empty().then_some(())).await;
    fs::write(folder.path().join("end"), "").unwrap();
    let ended = eventually("it ends", async || agent.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(7));
}
