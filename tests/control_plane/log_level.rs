//! The log level of a running operator can be changed.

use rustix::process::Signal;

use crate::support::{Operator, TestNamespace, eventually, operator::log_level};

impl TestNamespace {
    /// Registers a name, and waits until the operator has written the status.
    async fn reports(&self, name: &str) {
        self.register(name, Self::usual_spec()).await;
        self.condition(name, "Ready", "True", "Published").await;
    }
}

impl Operator {
    /// Waits until the log says that often that the level was changed to this one. Returns the log up to there: what
    /// follows is logged at that level.
    async fn has_changed(&self, level: &str, times: usize) -> String {
        let line = format!("the log level was changed by a signal level={level}");
        eventually(&format!("the operator logs: {line}"), async || {
            let log = self.logged();
            let (at, _) = log.match_indices(&line).nth(times - 1)?;
            Some(log[..at + line.len()].to_owned())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_operator_logs_in_detail_for_as_long_as_it_is_told_to() {
    let ns = TestNamespace::new("log-level").await;
    let kubeconfig = ns.plane.kubeconfig();
    let operator = Operator::start_saying("info", None, &kubeconfig, &ns.name, &[]);
    ns.reports("first").await;
    operator.change_log_level("debug").unwrap();
    let log = operator.has_changed("Debug", 1).await;
    assert!(!log.contains("DEBUG"), "{log}");

    ns.reports("second").await;
    operator.change_log_level("configured").unwrap();
    let before = operator.has_changed("Configured", 1).await;
    let detail = format!("writing the status registration={}/second", ns.name);
    assert!(before.contains(&detail), "{before}");

    ns.reports("third").await;
    operator.change_log_level("configured").unwrap();
    let log = operator.has_changed("Configured", 2).await;
    assert!(!log[before.len()..].contains("DEBUG"), "{log}");
    assert!(operator.stop().await);
}

/// `beatkeeper log-level` and the operator agree on the signals, so they could both have them wrong. ADR 0028 promises which
/// one does what to those who send them without the command.
#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_makes_the_operator_log_in_detail_and_sigusr2_as_it_was_started() {
    let ns = TestNamespace::new("log-signal").await;
    let kubeconfig = ns.plane.kubeconfig();
    let operator = Operator::start_saying("info", None, &kubeconfig, &ns.name, &[]);
    ns.reports("first").await;
    operator.signal(Signal::USR1);
    let before = operator.has_changed("Debug", 1).await;
    assert!(!before.contains("DEBUG"), "{before}");

    ns.reports("second").await;
    operator.signal(Signal::USR2);
    let detailed = operator.has_changed("Configured", 1).await;
    assert!(detailed[before.len()..].contains("DEBUG"), "{detailed}");

    ns.reports("third").await;
    assert!(!operator.logged()[detailed.len()..].contains("DEBUG"), "{}", operator.logged());
    assert!(operator.stop().await);
}

#[test]
fn a_process_that_is_no_operator_gets_no_signal() {
    let why = log_level("debug", std::process::id()).unwrap_err();
    assert!(why.contains("is neither `beatkeeper controller` nor"), "{why}");
    let why = log_level("debug", 0).unwrap_err();
    assert!(why.contains("0 is not in 1.."), "{why}");
}
