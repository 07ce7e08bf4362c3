//! A process that is suspended, as under a debugger, while its machine's clocks keep running.
//!
//! Suspending a whole machine also stops the clock of its timers, which no signal does to a
//! process. `awake` tests that case with its own clocks.

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use rustix::process::Signal;

use super::agent::Agent;
use crate::support::TestNamespace;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_for_longer_than_its_ttl_is_back_by_itself_with_the_same_lease()
{
    let ns = TestNamespace::new("client-stop").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let agent = Agent::start(&ns, "vm-1", "192.0.2.1");
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let leases = ns.api::<Lease>();
    let before = leases.get("greeter.vm-1").await.unwrap();

    agent.signal(Signal::STOP);
    ns.instance("greeter", "vm-1", "Expired", "TTLPassed").await;
    ns.published_as_ready("greeter", &[]).await;
    assert!(!agent.said().contains("it may have been taken out"), "{}", agent.said());

    agent.signal(Signal::CONT);
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    agent.says("longer than the ttl of 3s: it may have been taken out, and is back now").await;
    agent.says("late: the process did not run").await;
    let after = leases.get("greeter.vm-1").await.unwrap();
    assert_eq!(after.uid(), before.uid());
    let holder = |lease: Lease| lease.spec.unwrap().holder_identity;
    assert_eq!(holder(after), holder(before));
}
