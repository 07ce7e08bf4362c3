//! Certificates, keys and the kubeconfig are replaced.

use super::{
    server::{Authority, Server},
    *,
};

#[tokio::test]
async fn a_ca_is_rotated_as_kubernetes_documents_it_and_no_request_fails() {
    let (server, files, old) = server_and_files().await;
    let access = files.open();
    succeeds(&access).await;
    let new = Authority::new();
    files.write("ca.crt", &(old.pem() + &new.pem()));
    server.restart_with(new.serving(None)).await;
    succeeds(&access).await;
    files.write("ca.crt", &new.pem());
    server.restart_with(new.serving(None)).await;
    succeeds(&access).await;
}

#[tokio::test]
async fn a_ca_that_comes_after_the_certificate_is_followed_with_the_next_request() {
    let (server, files, _) = server_and_files().await;
    let access = files.open();
    succeeds(&access).await;
    let new = Authority::new();
    server.restart_with(new.serving(None)).await;
    let error = ask(&access).await.expect_err("the CA is unknown");
    assert!(
        beatkeeper_api::text::plain_error_chain(error.as_ref())
            .contains("invalid peer certificate"),
        "{error:?}"
    );
    files.write("ca.crt", &new.pem());
    succeeds(&access).await;
}

#[tokio::test]
async fn a_ca_embedded_in_a_kubeconfig_is_followed() {
    let (server, mut files, old) = server_and_files().await;
    let embed = |files: &mut Files, pem: &str| {
        let base64 = base64(pem.as_bytes());
        let server = files.kubeconfig["clusters"][0]["cluster"]["server"].clone();
        files.kubeconfig["clusters"][0]["cluster"] =
            json!({ "server": server, "certificate-authority-data": base64 });
        files.write("kubeconfig", &files.kubeconfig.to_string());
    };
    embed(&mut files, &old.pem());
    let access = files.open();
    succeeds(&access).await;
    let new = Authority::new();
    embed(&mut files, &(old.pem() + &new.pem()));
    server.restart_with(new.serving(None)).await;
    succeeds(&access).await;
}

#[tokio::test]
async fn files_that_are_just_being_written_change_nothing() {
    let (server, files, old) = server_and_files().await;
    let access = files.open();
    succeeds(&access).await;
    let whole = files.kubeconfig.to_string();
    for (name, content) in [
        ("ca.crt", String::new()),
        ("ca.crt", old.pem()[..old.pem().len() / 2].to_owned()),
        ("kubeconfig", String::new()),
        ("kubeconfig", whole[..whole.len() / 2].to_owned()),
    ] {
        files.write(name, &content);
        // A new connection is made, and a refusal triggers a read.
        server.restart_with(old.serving(None)).await;
        server.judge(|_| 401);
        assert_eq!(ask(&access).await.expect("an answer"), StatusCode::UNAUTHORIZED, "{name}");
        server.judge(|_| 200);
        succeeds(&access).await;
        files.write("ca.crt", &old.pem());
        files.write("kubeconfig", &whole);
    }
}

#[tokio::test]
async fn a_client_certificate_that_expires_is_replaced_on_open_connections_too() {
    let authority = Authority::new();
    let server = Server::start(authority.serving(Some(&authority))).await;
    let files = Files::of(&format!("https://{}", server.address), &authority)
        .with_user(json!({ "client-certificate": "client.crt", "client-key": "client.key" }));
    let put = |files: &Files| {
        let pair = authority.client();
        files.write("client.key", &pair.key);
        files.write("client.crt", &pair.certificate);
        rustls::pki_types::pem::PemObject::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")
    };
    let valid = |server: &Server, certificate: rustls::pki_types::CertificateDer<'static>| {
        server.judge(
            move |asked| if asked.certificate.as_ref() == Some(&certificate) { 200 } else { 401 },
        );
    };
    valid(&server, put(&files));
    let access = files.open();
    succeeds(&access).await;
    // The API server checks the certificate of a connection with each request.
    valid(&server, put(&files));
    succeeds(&access).await;
}

#[tokio::test]
async fn another_current_context_of_kubectl_does_not_move_a_running_client() {
    let (server, mut files, authority) = server_and_files().await;
    let access = files.open();
    succeeds(&access).await;
    let other = json!({ "name": "two", "cluster": { "server": "https://127.0.0.1:1" } });
    files.kubeconfig["clusters"].as_array_mut().expect("a list").push(other);
    let other = json!({ "name": "two", "context": { "cluster": "two" } });
    files.kubeconfig["contexts"].as_array_mut().expect("a list").push(other);
    files.kubeconfig["current-context"] = json!("two");
    files.write("kubeconfig", &files.kubeconfig.to_string());
    server.restart_with(authority.serving(None)).await;
    server.judge(|_| 401);
    assert_eq!(ask(&access).await.expect("an answer"), StatusCode::UNAUTHORIZED);
    server.judge(|_| 200);
    succeeds(&access).await;
}

#[tokio::test]
async fn a_server_that_has_moved_is_followed() {
    let (old, mut files, authority) = server_and_files().await;
    let access = files.open();
    succeeds(&access).await;
    let new = Server::start(authority.serving(None)).await;
    let url = format!("https://{}", new.address);
    files.kubeconfig["clusters"][0]["cluster"]["server"] = json!(url);
    files.write("kubeconfig", &files.kubeconfig.to_string());
    // The old server is gone, with all its connections.
    old.restart_with(Authority::new().serving(None)).await;
    drop(old);
    let moved = async {
        while ask(&access).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, moved).await.expect("it follows");
    assert!(new.connections() > 0);
}

/// Base64 as in RFC 4648.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0u32, |bits, n| bits << 8 | u32::from(*chunk.get(n).unwrap_or(&0)));
        (0..4u32)
            .map(move |n| (n, bits))
            .map(|(n, bits)| (n, (bits >> (18 - 6 * n)) & 63))
            .collect::<Vec<_>>()
    };
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        for (n, digit) in group(chunk) {
            let padding = n as usize > chunk.len();
            text.push(if padding { '=' } else { char::from(DIGITS[digit as usize]) });
        }
    }
    text
}
