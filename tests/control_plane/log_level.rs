//! The log level of a running operator can be changed.

use crate::support::{Operator, TestNamespace, eventually, operator::log_level};

impl TestNamespace {
    /// Registers a name, and waits until the operator has written the status.
    async fn reports(&self, name: &str) {
        self.register(name, Self::usual_spec()).await;
        self.condition(name, "Ready", "True", "Published").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_operator_logs_in_detail_for_as_long_as_it_is_told_to() {
    let ns = TestNamespace::new("log-level").await;
    let kubeconfig = ns.plane.kubeconfig();
    let operator = Operator::start_saying("info", None, &kubeconfig, &ns.name, &[]);
    let changed = async |level: &str, times: usize| {
        let line = format!("the log level was changed by a signal level={level}");
        eventually(&format!("the operator logs: {line}"), async || {
            let log = operator.logged();
            (log.matches(&line).count() == times).then_some(log)
        })
        .await
    };
    ns.reports("first").await;
    operator.change_log_level("debug").unwrap();
    let log = changed("Debug", 1).await;
    assert!(!log.contains("DEBUG"), "{log}");

    ns.reports("second").await;
    operator.change_log_level("configured").unwrap();
    let before = changed("Configured", 1).await;
    let detail = format!("writing the status registration={}/second", ns.name);
    assert!(before.contains(&detail), "{before}");

    ns.reports("third").await;
    operator.change_log_level("configured").unwrap();
    let log = changed("Configured", 2).await;
    assert!(!log[before.len()..].contains("DEBUG"), "{log}");
    assert!(operator.stop().await);
}

#[test]
fn a_process_that_is_no_operator_gets_no_signal() {
    let why = log_level("debug", std::process::id()).unwrap_err();
    assert!(why.contains("is not `beatkeeper controller`"), "{why}");
    let why = log_level("debug", 0).unwrap_err();
    assert!(why.contains("0 is not in 1.."), "{why}");
}
