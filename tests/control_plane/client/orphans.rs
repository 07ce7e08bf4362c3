//! The agent as the first process of a container: whatever has lost its parent becomes its child.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::support::{Shop, eventually, operator::spawn_from_keeper};

/// The children of a process that have ended, and that it has not waited for.
fn zombies(parent: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {parent} "))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_given_orphans_reaps_them_and_passes_the_commands_exit_code_on() {
    let shop = Shop::open("orphans").await;
    shop.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    // Twenty that outlive their parents, and one as a probe leaves it.
    let script = format!(
        "for n in $(seq 20); do (sh -c 'echo >> {place}/ended' &); done; \
         until [ -e {place}/end ]; do sleep 0.05; done; exit 7"
    );
    // The probe ends once that has left its process group, with which it would be killed.
    let probe = format!(
        "exec:sh -c '(setsid sh -c \"touch {place}/left; sleep 0.1; echo >> {place}/probed\" &); \
         until [ -e {place}/left ]; do sleep 0.01; done'"
    );
    // As a container's first process is: not needing root.
    let first = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); \
                 os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command
        .args(["-c", first, env!("CARGO_BIN_EXE_beatkeeper"), "agent", "exec"])
        .args(["--registration=greeter", "--namespace", &shop.namespace, "--instance=vm-1"])
        .args(["--address=192.0.2.1", "--probe", &probe, "--", "sh", "-c", &script])
        .env_remove("POD_NAME")
        .env("KUBECONFIG", shop.plane.kubeconfig())
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
