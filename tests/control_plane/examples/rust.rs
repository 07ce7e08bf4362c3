//! The SDK examples as processes, started as their readers would start them.

use beatkeeper_api::heartbeat;
use beatkeeper_client::names;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    ADDRESS, declare,
    program::{Running, Settings, sdk},
};
use crate::support::{Operator, TestNamespace, http, prometheus::free_port};

/// A published example, and the operator that publishes it.
struct Fixture {
    ns: TestNamespace,
    example: Running,
    _operator: Operator,
}

impl Fixture {
    async fn open(name: &str, arguments: &[&str]) -> Self {
        let ns = TestNamespace::new(&format!("example-{name}")).await;
        let operator = ns.operator();
        let settings = Settings::of(&ns, "", ADDRESS).await;
        declare(&ns).await;
        let mut command = sdk(name);
        command.args(["greeter", ADDRESS]).args(arguments);
        let example = Running::start(command, &settings);
        ns.published_as_ready("greeter", &[ADDRESS]).await;
        Self { ns, example, _operator: operator }
    }

    /// Waits until the example is published as not ready with this note, while it beats.
    async fn fails(&self, note: &str) {
        let instance = names::hostname();
        let told = self.ns.instance("greeter", &instance, "NotReady", "HealthFailing").await;
        assert_eq!(told.message, note);
    }

    async fn recovers(&self) {
        self.ns.published_as_ready("greeter", &[ADDRESS]).await;
    }

    /// Sends SIGTERM. Checks that the example exits with success and that its Lease is gone by
    /// then.
    async fn leaves(self) {
        self.example.terminate().await;
        let lease = heartbeat::lease_name("greeter", &names::hostname());
        let left = self.ns.api::<Lease>().get_opt(&lease).await.unwrap();
        assert_eq!(left, None, "it has ended, and its Lease is there");
        self.ns.published_as_ready("greeter", &[]).await;
    }
}

/// An address at which nothing listens.
fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_service_is_published_and_leaves_when_stopped() {
    let fixture = Fixture::open("plain", &[]).await;
    fixture.example.says("registered").await;
    fixture.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pod_the_address_of_a_service_is_the_pods() {
    let ns = TestNamespace::new("example-pod").await;
    let _operator = ns.operator();
    declare(&ns).await;
    let uid = ns.pod("greeter-0", &["192.0.2.12"], json!({})).await;
    let settings = Settings::of(&ns, "", "").await.in_pod("greeter-0", &uid);
    let example = Running::start(sdk("plain"), &settings);
    ns.published_as_ready("greeter", &["192.0.2.12"]).await;
    example.terminate().await;
    ns.published_as_ready("greeter", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_service_tells_that_it_is_broken_and_leaves_when_stopped() {
    let address = free_address();
    let fixture = Fixture::open("web", &[&address]).await;
    let ask = async |method, path| http::send(method, &address, path).await.unwrap();
    assert_eq!(ask("GET", "/").await.body, "hello\n");
    assert_eq!(ask("POST", "/break").await.code, 200);
    fixture.fails("a request broke it").await;
    assert_eq!(ask("POST", "/mend").await.code, 200);
    fixture.recovers().await;
    fixture.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grpc_service_tells_that_its_backend_is_gone_and_leaves_when_stopped() {
    let (address, at) = (free_address(), free_address());
    let backend = TcpListener::bind(&at).await.unwrap();
    let fixture = Fixture::open("grpc", &[&address, &at]).await;
    drop(backend);
    fixture.fails("grpc.health.v1 says NOT_SERVING").await;
    let _backend = TcpListener::bind(&at).await.unwrap();
    fixture.recovers().await;
    fixture.leaves().await;
}
