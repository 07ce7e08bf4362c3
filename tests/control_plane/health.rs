//! /livez and /readyz report the actual state.

use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream};

use crate::support::{Operator, TestNamespace, eventually, http};

/// A kubeconfig with a port that has no listener yet, and the true address.
fn detour(ns: &TestNamespace, folder: &tempfile::TempDir) -> (PathBuf, String, String) {
    let text = std::fs::read_to_string(ns.plane.kubeconfig()).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let server = &mut config["clusters"][0]["cluster"]["server"];
    let true_address =
        server.as_str().unwrap().trim_start_matches("https://").trim_end_matches('/').to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    *server = format!("https://{address}").into();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    (path, address, true_address)
}

/// Forwards all connections to an address from now on.
async fn forward(from: &str, to: String) {
    let listener = TcpListener::bind(from).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_ready_once_the_api_server_was_reached_and_everything_read() {
    let ns = TestNamespace::new("health").await;
    let folder = tempfile::tempdir().unwrap();
    let (kubeconfig, detour, true_address) = detour(&ns, &folder);
    let flags = ["--health-probe-bind-address=127.0.0.1:0"];
    let operator = Operator::start_as(None, &kubeconfig, &ns.name, &flags);
    let probes = operator.address("health-probe-bind-address").await;

    let live = http::get(&probes, "/livez?verbose").await.unwrap();
    assert_eq!((live.code, live.body.as_str()), (200, "[+]timer ok\nlivez check passed\n"));
    // The operator listens before it knows what it will have to read.
    let unready = eventually("it waits for what it has to read", async || {
        let unready = http::get(&probes, "/readyz").await.unwrap();
        assert_eq!(unready.code, 500);
        unready.body.contains("[-]caches failed: not read yet: ").then_some(unready)
    })
    .await;
    let leases = format!("Leases of {}", ns.name);
    assert!(unready.body.contains(&leases), "{}", unready.body);
    let unreached = "[-]api-server failed: it has not answered yet\n";
    assert!(unready.body.contains(unreached), "{}", unready.body);
    assert!(unready.body.ends_with("readyz check failed\n"), "{}", unready.body);

    forward(&detour, true_address).await;
    eventually("the operator is ready", async || {
        http::get(&probes, "/readyz").await.filter(|answer| answer.code == 200)
    })
    .await;
    let ready = http::get(&probes, "/readyz?verbose").await.unwrap();
    assert_eq!(ready.body, "[+]timer ok\n[+]caches ok\n[+]api-server ok\nreadyz check passed\n");
    assert!(http::get(&probes, "/metrics").await.is_some_and(|answer| answer.code == 404));
}
