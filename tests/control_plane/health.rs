//! /livez and /readyz report the actual state.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::net::{TcpListener, TcpStream};

use crate::support::{Operator, TestNamespace, eventually, http};

/// An address that closes every connection until it is opened. Then it leads to the API server. It listens from the start,
/// so no other process can take its port.
struct Detour {
    kubeconfig: PathBuf,
    open: Arc<AtomicBool>,
}

impl Detour {
    async fn closed(ns: &TestNamespace, folder: &tempfile::TempDir) -> Self {
        let text = std::fs::read_to_string(ns.plane.kubeconfig()).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let server = &mut config["clusters"][0]["cluster"]["server"];
        let to = server.as_str().unwrap();
        let to = to.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        *server = format!("https://{}", listener.local_addr().unwrap()).into();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let open = Arc::<AtomicBool>::default();
        tokio::spawn(forward(listener, to, open.clone()));
        Self { kubeconfig, open }
    }

    fn open(&self) {
        self.open.store(true, Relaxed);
    }
}

async fn forward(listener: TcpListener, to: String, open: Arc<AtomicBool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        if !open.load(Relaxed) {
            continue;
        }
        let to = to.clone();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_ready_once_the_api_server_was_reached_and_everything_read() {
    let ns = TestNamespace::new("health").await;
    let folder = tempfile::tempdir().unwrap();
    let detour = Detour::closed(&ns, &folder).await;
    let flags = ["--health-probe-bind-address=127.0.0.1:0"];
    let operator = Operator::start_as(None, &detour.kubeconfig, &ns.name, &flags);
    let probes = operator.address("health-probe-bind-address").await;

    let live = http::get(&probes, "/livez?verbose").await.unwrap();
    assert_eq!((live.code, live.body.as_str()), (200, "[+]timer ok\nlivez check passed\n"));
    // The operator listens before it knows what it will have to read.
    let leases = format!("Leases of {}", ns.name);
    let unready = eventually("it waits for the Leases that it has to read", async || {
        let unready = http::get(&probes, "/readyz").await?;
        assert_eq!(unready.code, 500);
        let caches = unready.body.lines().find(|line| line.starts_with("[-]caches failed: "))?;
        caches.contains(&leases).then_some(unready)
    })
    .await;
    let unreached = "[-]api-server failed: it has not answered yet\n";
    assert!(unready.body.contains(unreached), "{}", unready.body);
    assert!(unready.body.ends_with("readyz check failed\n"), "{}", unready.body);

    detour.open();
    eventually("the operator is ready", async || {
        http::get(&probes, "/readyz").await.filter(|answer| answer.code == 200)
    })
    .await;
    let ready = http::get(&probes, "/readyz?verbose").await.unwrap();
    assert_eq!(ready.body, "[+]timer ok\n[+]caches ok\n[+]api-server ok\nreadyz check passed\n");
    assert!(http::get(&probes, "/metrics").await.is_some_and(|answer| answer.code == 404));
}
