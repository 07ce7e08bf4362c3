//! The resources of an agent: its binary, memory, CPU time and writes.

use std::{collections::BTreeMap, fmt::Write, fs, time::Duration};

use super::{address, agent::Agent};
use crate::support::{TestNamespace, chaos::turn, eventually};

const SETTLE: Duration = Duration::from_secs(20);
const WATCHED: Duration = Duration::from_secs(60);

/// The configuration of an agent with `count` instances.
fn settings(count: usize) -> String {
    let mut text = "registration: greeter\ninstances:\n".to_owned();
    for n in 1..=count {
        let _ = writeln!(text, "- {{ instance: vm-{n}, addresses: [{}] }}", address(n));
    }
    text
}

async fn of_so_many(count: usize) {
    let plane = turn().await;
    let ns = TestNamespace::new_on(*plane, "footprint").await;
    let mut spec = TestNamespace::usual_spec();
    (spec["ttl"], spec["interval"]) = ("30s".into(), "10s".into());
    ns.register("greeter", spec).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), settings(count)).unwrap();
    let agent = Agent::start_with(&ns, &["--config", file.path().to_str().unwrap()]);
    let last = format!("greeter.vm-{count}");
    eventually("the last one is registered", async || ns.lease(&last).await).await;
    tokio::time::sleep(SETTLE).await;

    let (before, mark) = (agent.used(), ns.plane.audit_mark().await.unwrap());
    tokio::time::sleep(WATCHED).await;
    let after = agent.used();
    let mut writes = BTreeMap::<String, usize>::new();
    for entry in ns.plane.audit_since(mark).await.unwrap() {
        if entry.user_agent.starts_with("beatkeeper-agent/") {
            *writes.entry(format!("{} {}", entry.verb, entry.resource)).or_default() += 1;
        }
    }
    let binary = fs::metadata(env!("CARGO_BIN_EXE_beatkeeper")).unwrap().len();
    println!(
        "\n{count} instances in one agent, ttl 30s, interval 10s, {WATCHED:?}: \
         CPU {:?}, memory {} MB, writes {writes:?}; binary {:.1} MB",
        after.cpu - before.cpu,
        after.resident / 1024,
        binary as f64 / 1e6,
    );
    let beats = writes.get("patch leases").copied().unwrap_or_default();
    let due = count * 6;
    assert!(beats >= due * 8 / 10 && beats <= due * 12 / 10 + 1, "{beats} beats of {due}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make bench-agent"]
async fn an_agent_with_one_instance() {
    of_so_many(1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make bench-agent"]
async fn an_agent_with_a_thousand_instances() {
    of_so_many(1000).await;
}
