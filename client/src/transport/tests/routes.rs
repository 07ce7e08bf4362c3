//! Dead addresses, dead connections, and proxies.

use tokio::time::Instant;

use super::{
    server::{dead, mute, proxy},
    *,
};

/// Names the server by a host name instead of its address.
fn named(mut files: Files, port: u16) -> Files {
    files.kubeconfig["clusters"][0]["cluster"]["server"] =
        json!(format!("https://api.example:{port}"));
    files
}

#[tokio::test]
async fn the_first_request_is_through_although_the_first_addresses_are_dead() {
    let (server, files, _) = server_and_files().await;
    let files = named(files, server.address.port());
    let ((drops, _held), (silent, _listening)) = (dead().await, mute().await);
    let access = files.open_by(always(vec![drops, silent, server.address]));
    // The attempts continue although the request is given up before the last address gets its turn.
    let limit = Duration::from_millis(300);
    let begun = Instant::now();
    let through = async { while ask_within(&access, limit).await.is_err() {} };
    timeout(PATIENCE, through).await.expect("it gets through");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_that_fell_silent_cost_one_request_however_many_there_are() {
    let (server, files, _) = server_and_files().await;
    let access = files.open();
    let (one, two) = tokio::join!(ask(&access), ask(&access));
    assert_eq!(
        (one.expect("an answer"), two.expect("an answer")),
        (StatusCode::OK, StatusCode::OK)
    );
    assert_eq!(server.connections(), 2);
    server.fall_silent();
    ask_within(&access, Duration::from_millis(500)).await.expect_err("no server answers");
    succeeds(&access).await;
}

fn through(mut files: Files, url: &str) -> Files {
    files.kubeconfig["clusters"][0]["cluster"]["proxy-url"] = json!(url);
    files
}

#[tokio::test]
async fn a_proxy_that_asks_for_a_password_makes_a_tunnel() {
    let (server, files, _) = server_and_files().await;
    let (proxy, tunnels) = proxy("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=").await;
    let files = through(files, &format!("http://user:secret@{proxy}"));
    succeeds(&files.open()).await;
    assert_eq!((*tunnels.borrow(), server.connections()), (1, 1));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_and_its_password_is_not() {
    let (server, files, _) = server_and_files().await;
    let (proxy, _tunnels) = proxy("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=").await;
    let files = through(files, &format!("http://user:wr0ng@{proxy}"));
    let error = ask(&files.open()).await.expect_err("it asks for a password");
    let told = beatkeeper_api::text::plain_error_chain(error.as_ref());
    assert!(
        told.contains("the proxy 127.0.0.1: tunnel error: proxy authorization required"),
        "{told}"
    );
    assert!(!told.contains("wr0ng"), "{told}");
    assert_eq!(server.connections(), 0);
}
