//! What kubectl shows of a registration, and what it waits for.

use std::process::Stdio;

use beatkeeper_api::ServiceRegistration;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::support::TestNamespace;

impl TestNamespace {
    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::from(self.plane.kubectl());
        command.args(["--namespace", &self.name]).args(args).stdin(Stdio::null());
        command
    }

    /// The output of kubectl. Panics if it fails.
    async fn kubectl_says(&self, args: &[&str]) -> String {
        let output = self.kubectl(args).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts `kubectl wait` for a condition of the registration greeter.
    fn waits_for(&self, condition: &str, seconds: u32) -> Child {
        let condition = format!("--for=condition={condition}");
        let timeout = format!("--timeout={seconds}s");
        let mut command = self.kubectl(&["wait", &condition, &timeout, "sreg/greeter"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    /// Whether `kubectl wait` sees a condition within a second.
    async fn has(&self, condition: &str) -> bool {
        self.waits_for(condition, 1).wait().await.unwrap().success()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_for_a_new_registration_until_an_operator_has_published_it() {
    let ns = TestNamespace::new("kubectl-wait").await;
    ns.greeter().await;
    assert!(!ns.has("Ready").await, "no operator runs");
    let waiting = ns.waits_for("Ready", 60);
    let operator = ns.operator();
    let output = waiting.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Neither is an edit taken for published.
    operator.suspend();
    ns.patch::<ServiceRegistration>("greeter", json!({ "spec": { "ttl": "4s" } })).await;
    assert!(!ns.has("Ready").await, "the operator does not know the present spec");
    operator.resume();
    assert!(ns.waits_for("Ready", 60).wait().await.unwrap().success());
    assert!(!ns.has("Available").await, "no instance is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_for_no_dry_run_and_does_not_take_it_for_published() {
    let ns = TestNamespace::new("kubectl-dry").await;
    ns.greeter().await;
    let _operator = ns.operator_with(&["--dry-run"]);
    assert!(ns.waits_for("Ready", 60).wait().await.unwrap().success());
    let beats = ns.beats("greeter");
    beats.create(&beats.outside("vm-1", "192.0.2.1")).await;
    ns.instance("greeter", "vm-1", "Ready", "Beating").await;
    assert!(!ns.has("Available").await, "nothing is published");
    let row = ns.kubectl_says(&["get", "sreg", "greeter", "--no-headers"]).await;
    assert!(row.contains(" DryRun "), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_a_registration_that_no_operator_has_looked_at_as_pending() {
    let ns = TestNamespace::new("kubectl-new").await;
    ns.greeter().await;
    let row = ns.kubectl_says(&["get", "sreg", "--no-headers"]).await;
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..7], ["greeter", "0", "0", "0", "3s", "1s", "Pending"], "{row}");
    let described = ns.kubectl_says(&["describe", "sreg", "greeter"]).await;
    for line in
        ["Message:               waiting for the operator", "Events:                    <none>"]
    {
        assert!(described.contains(line), "{line}\n{described}");
    }
}
