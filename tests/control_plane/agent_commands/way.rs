//! The agent's connection to the API server: proxies, and what `exec` does without a connection.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::*;

/// A proxy that opens tunnels for clients with the right password, and counts them.
async fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:secret@{}", listener.local_addr().unwrap());
    let tunnels = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tunnels);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(tunnel(stream, Arc::clone(&count)));
        }
    });
    (url, tunnels)
}

async fn tunnel(mut stream: TcpStream, count: Arc<AtomicUsize>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if !head.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=") {
        return stream.write_all(b"HTTP/1.1 407 No\r\n\r\n").await;
    }
    let mut there = TcpStream::connect(head.split(' ').nth(1).unwrap()).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    count.fetch_add(1, Relaxed);
    tokio::io::copy_bidirectional(&mut stream, &mut there).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_beats_through_a_proxy_that_asks_for_a_password() {
    let ns = TestNamespace::new("agent-proxy").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let (url, tunnels) = proxy().await;
    let mut agent = ns.agent_command("run", &VM_1);
    let _agent = agent.env("HTTPS_PROXY", url).env("NO_PROXY", "10.0.0.0/8").spawn().unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    assert!(tunnels.load(Relaxed) > 0, "it goes another way");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_past_a_proxy_where_the_exceptions_name_its_api_server() {
    let ns = TestNamespace::new("agent-no-proxy").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut agent = ns.agent_command("run", &VM_1);
    agent.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "example.com, 127.0.0.0/8");
    let _agent = agent.spawn().unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
}

/// The flags, the environment variables, and the message of the agent.
type Fault<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn exec_runs_its_command_whatever_keeps_it_from_beating() {
    let ns = TestNamespace::new("agent-exec-fault").await;
    let folder = tempfile::tempdir().unwrap();
    let broken = "users: [{ name: u, user: { token: hunter2 } }]\nclusters: {";
    let broken = write(folder.path(), "kubeconfig", broken);
    let slow = write(folder.path(), "slow", &plugin(&ns, "sleep 600"));
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let page = format!("--health-bind-address={}", taken.local_addr().unwrap());
    let metrics = format!("--metrics-bind-address={}", taken.local_addr().unwrap());
    let command = ["--", "sh", "-c", "echo served; exit 7"];
    let faults: [Fault; 8] = [
        (
            &VM_1,
            &[("HTTPS_PROXY", "socks5://127.0.0.1:1")],
            "the proxy in HTTPS_PROXY cannot be used",
        ),
        (&VM_1, &[("HTTPS_PROXY", "http://127.0.0.1:1")], ""),
        (&VM_1, &[("KUBECONFIG", &broken)], "found no way to the API server"),
        (&VM_1, &[("KUBECONFIG", "/no/such/file")], "found no way to the API server"),
        (&VM_1, &[("KUBECONFIG", &slow)], ""),
        (&["--instance=vm-1"], &[], "registration"),
        (&[VM_1.as_slice(), &[&page]].concat(), &[], "cannot listen"),
        (&[VM_1.as_slice(), &[&metrics]].concat(), &[], "cannot listen on --metrics-bind-address"),
    ];
    for (flags, environment, told) in faults {
        let mut agent = ns.agent_command("exec", &[flags, &command].concat());
        agent.envs(environment.iter().copied());
        let output = timeout(PATIENCE, agent.output()).await.unwrap().unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(7), "{flags:?} {environment:?}: {said}");
        assert!(said.contains("served"), "{flags:?} {environment:?}: {said}");
        assert!(said.contains(told), "{flags:?} {environment:?}: {said}");
        assert!(!said.contains("hunter2"), "{flags:?} {environment:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_beats_as_soon_as_what_kept_it_from_beating_is_mended() {
    let ns = TestNamespace::new("agent-exec-mended").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let flags = [VM_1.as_slice(), &["--", "sleep", "600"]].concat();
    let mut agent = ns.agent_command("exec", &flags);
    let agent = agent.env("KUBECONFIG", &kubeconfig).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    let mut said = String::new();
    let mut output = agent.stdout.take().unwrap();
    let told = async {
        while !said.contains("not beating") {
            let mut part = [0; 1024];
            let length = output.read(&mut part).await.unwrap();
            assert_ne!(length, 0, "it has ended: {said}");
            said.push_str(text(&part[..length]));
        }
    };
    timeout(PATIENCE, told).await.unwrap();
    std::fs::copy(ns.plane.kubeconfig(), &kubeconfig).unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    signal(&agent, Signal::TERM);
    assert_eq!(exit_code(&mut agent).await, Some(143));
    ns.published_as_ready("greeter", &[]).await;
}

/// A kubeconfig with a credentials plugin, which is a script.
fn plugin(ns: &TestNamespace, script: &str) -> String {
    let kubeconfig = std::fs::read_to_string(ns.plane.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
    kubeconfig["users"][0]["user"] = serde_json::json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
        "interactiveMode": "Never",
    } });
    kubeconfig.to_string()
}
