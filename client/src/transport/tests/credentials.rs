//! Tokens, and the plugins that print them.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use super::{server::Server, *};

/// Makes a server accept only one token.
pub fn knows(server: &Server, token: &'static str) {
    server.judge(move |asked| if asked.token() == Some(token) { 200 } else { 401 });
}

#[tokio::test]
async fn a_token_file_is_replaced_by_rename_and_the_old_token_revoked_and_no_request_fails() {
    let (server, files, _) = server_and_files().await;
    let files = files.with_user(json!({ "tokenFile": "token" }));
    files.write("token", "old\n");
    knows(&server, "old");
    let access = files.open();
    succeeds(&access).await;
    files.write("token", "new\n");
    knows(&server, "new");
    succeeds(&access).await;
    // If the token file is removed, its last token stays in use.
    fs::remove_file(files.path("token")).expect("removed");
    knows(&server, "other");
    assert_eq!(ask(&access).await.expect("an answer"), StatusCode::UNAUTHORIZED);
    knows(&server, "new");
    succeeds(&access).await;
}

#[tokio::test]
async fn a_token_embedded_in_a_kubeconfig_is_replaced_and_no_request_fails() {
    let (server, mut files, _) = server_and_files().await;
    files = files.with_user(json!({ "token": "old" }));
    knows(&server, "old");
    let access = files.open();
    succeeds(&access).await;
    files = files.with_user(json!({ "token": "new" }));
    files.write("kubeconfig", &files.kubeconfig.to_string());
    knows(&server, "new");
    succeeds(&access).await;
}

#[tokio::test]
async fn a_password_is_sent() {
    let (server, files, _) = server_and_files().await;
    let files = files.with_user(json!({ "username": "Aladdin", "password": "open sesame" }));
    let wanted = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    server.judge(move |asked| if asked.head.contains(wanted) { 200 } else { 401 });
    succeeds(&files.open()).await;
}

/// A user with credentials from a script.
pub fn plugin(script: &str) -> Value {
    json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
        "interactiveMode": "Never",
    } })
}

pub fn calls(files: &Files) -> usize {
    fs::read_to_string(files.path("calls")).map_or(0, |calls| calls.lines().count())
}

#[tokio::test]
async fn a_plugin_slower_than_a_request_runs_once_and_its_token_is_there_for_the_next() {
    let (server, files, _) = server_and_files().await;
    knows(&server, "t");
    let script = format!(
        "echo >> {}/calls; sleep 2; echo '{{\"status\": {{\"token\": \"t\"}}}}'",
        files.folder.path().display()
    );
    let files = files.with_user(plugin(&script));
    let access = files.open();
    let accepted =
        async { while ask_within(&access, Duration::from_millis(250)).await.is_err() {} };
    timeout(PATIENCE, accepted).await.expect("the token comes");
    assert_eq!(calls(&files), 1);
}

#[tokio::test]
async fn a_token_is_fetched_ahead_of_its_end_once_and_beside_the_requests() {
    let (server, files, _) = server_and_files().await;
    // The token is the second at which it expires.
    server.judge(|asked| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
        let expires = asked.token().and_then(|token| token.parse().ok()).unwrap_or(0);
        if now < expires { 200 } else { 401 }
    });
    let script = format!(
        r#"echo >> {}/calls; sleep 2; end=$(($(date +%s) + 12))
           echo '{{"status": {{"token": "'$end'", "expirationTimestamp": "'$(date -u -d @$end +%FT%TZ)'"}}}}'"#,
        files.folder.path().display()
    );
    let files = files.with_user(plugin(&script));
    let access = files.open();
    succeeds(&access).await;
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    while calls(&files) < 4 {
        let sent = Instant::now();
        assert_eq!(ask(&access).await.expect("an answer"), StatusCode::OK);
        slowest = slowest.max(sent.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    // There are three fetches after the first one. Each takes two seconds, and has up to twelve.
    assert!(begun.elapsed() >= Duration::from_secs(15), "called too often: {:?}", begun.elapsed());
    assert!(slowest < Duration::from_secs(2), "a request waited for a plugin: {slowest:?}");
}

#[tokio::test]
async fn a_plugin_that_fails_is_told_by_the_request_and_tried_again() {
    let (server, files, _) = server_and_files().await;
    knows(&server, "t");
    let script = format!(
        "cd {}; [ -e mended ] || {{ echo 'log in first' >&2; exit 1; }}; echo '{{\"status\": {{\"token\": \"t\"}}}}'",
        files.folder.path().display()
    );
    let files = files.with_user(plugin(&script));
    let access = files.open();
    let error = ask(&access).await.expect_err("there is no token").to_string();
    assert_eq!(error, "the credential plugin sh: exit status: 1: log in first");
    files.write("mended", "");
    let accepted = async {
        while ask(&access).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, accepted).await.expect("the token comes");
}

#[tokio::test]
async fn a_plugin_whose_token_is_refused_runs_again_but_not_with_every_request() {
    let (server, files, _) = server_and_files().await;
    server.judge(|_| 401);
    let script = format!(
        "echo >> {}/calls; echo '{{\"status\": {{\"token\": \"t\"}}}}'",
        files.folder.path().display()
    );
    let files = files.with_user(plugin(&script));
    let access = files.open();
    let begun = Instant::now();
    for _ in 0..20 {
        let status = ask_within(&access, PATIENCE).await.expect("an answer");
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        if calls(&files) >= 3 {
            break;
        }
    }
    // The plugin runs again after one second, and then after two more.
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_plugin_may_bring_a_client_certificate() {
    let authority = server::Authority::new();
    let server = Server::start(authority.serving(Some(&authority))).await;
    server.judge(|asked| if asked.certificate.is_some() { 200 } else { 401 });
    let pair = authority.client();
    let files = Files::of(&format!("https://{}", server.address), &authority);
    let said = json!({ "status": {
        "clientCertificateData": pair.certificate,
        "clientKeyData": pair.key,
    } });
    files.write("said", &said.to_string());
    let script = format!("cat {}", files.path("said").display());
    succeeds(&files.with_user(plugin(&script)).open()).await;
}
