//! Unusable files are reported without their content.

use super::{rotation::base64, *};

const SECRET: &str = "hunter2-hunter2";

/// Asserts that a message contains `says`, and the secret in no form.
fn told(message: &str, says: &str) {
    assert!(message.contains(says), "{says:?} is not in: {message}");
    let bytes = format!("{:?}", SECRET.as_bytes());
    for form in [SECRET, bytes.trim_matches(['[', ']']), &base64(SECRET.as_bytes())] {
        assert!(!message.contains(form), "{form} is in: {message}");
    }
}

/// The messages about a kubeconfig with this user, at the start and when it is read again.
fn said_of(text: &str) -> [String; 2] {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kubeconfig");
    let sound = "current-context: c\ncontexts: [{ name: c, context: { cluster: k, user: u } }]\n\
                 clusters: [{ name: k, cluster: { server: 'https://192.0.2.1' } }]\nusers: []\n";
    fs::write(&file, sound).expect("written");
    let source = Source::kubeconfig(Some(file.clone())).expect("a source");
    fs::write(&file, text).expect("written");
    let again = source.read(&http::HeaderValue::from_static("test"));
    let again = again.map(|settings| settings.route(None).map(drop));
    let again = match again {
        Ok(Ok(())) => panic!("it can be used: {text}"),
        Ok(Err(error)) | Err(error) => format!("{error} {error:?}"),
    };
    let start = match Source::infer_from(Some(file)) {
        Ok(source) => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let _entered = runtime.enter();
            let error = HttpService::open(&source, "test").err().expect("it cannot be used");
            format!("{error} {error:?}")
        }
        Err(error) => format!("{error} {error:?}"),
    };
    [start, again]
}

fn of_user(user: &Value) -> String {
    json!({
        "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
        "clusters": [{ "name": "k", "cluster": { "server": "https://192.0.2.1" } }],
        "users": [{ "name": "u", "user": user }],
    })
    .to_string()
}

#[test]
fn a_kubeconfig_that_is_no_yaml_or_of_a_wrong_type_is_told_of_without_its_contents() {
    let whole = of_user(&json!({ "token": SECRET }));
    let quoted = format!("{SECRET}\"'` {SECRET}");
    for text in [
        whole[..whole.len() - 3].to_owned(),
        format!("{whole}\n    exec: ["),
        format!("users:\n- name: u\n  user:\n    token: {SECRET}\n   exec: {{"),
        format!("users:\n- name: u\n  user:\n    token: {SECRET}\n    token: {SECRET}"),
        of_user(&json!(SECRET)),
        of_user(&json!(quoted)),
        of_user(&json!({ "token": { SECRET: SECRET } })),
        of_user(&json!({ "token": [SECRET] })),
        of_user(&json!({ "exec": SECRET })),
        of_user(&json!({ "auth-provider": quoted })),
        of_user(&json!({ "exec": { "interactiveMode": SECRET } })),
        format!("users: {SECRET}"),
        format!("*{SECRET}"),
        SECRET.to_owned(),
    ] {
        for message in said_of(&text) {
            told(&message, "the kubeconfig is no YAML as it should be");
        }
    }
}

#[test]
fn keys_and_certificates_that_cannot_be_used_are_told_of_without_their_contents() {
    let pair = server::Authority::new().client();
    let certificate = base64(pair.certificate.as_bytes());
    let key = |key: &str| {
        of_user(&json!({ "client-certificate-data": certificate, "client-key-data": key }))
    };
    let begins = format!("-----BEGIN PRIVATE KEY-----{SECRET}");
    let endless = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n");
    let no_base64 = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}!\n-----END PRIVATE KEY-----\n");
    for (text, says) in [
        (key(SECRET), "client-key of the kubeconfig cannot be used: its data are no base64"),
        (key(&base64(begins.as_bytes())), "does not begin as it should"),
        (key(&base64(endless.as_bytes())), "a section of the PEM"),
        (key(&base64(no_base64.as_bytes())), "no base64"),
        (key(&base64(SECRET.as_bytes())), "cannot use the credentials"),
        (
            of_user(&json!({ "client-certificate-data": SECRET, "client-key-data": SECRET })),
            "client-certificate of the kubeconfig",
        ),
        (
            // The content stands in place of the path.
            of_user(
                &json!({ "client-certificate-data": certificate, "client-key": SECRET.repeat(9) }),
            ),
            "…: ",
        ),
        (of_user(&json!({ "tokenFile": SECRET.repeat(9) })), "…"),
    ] {
        for message in said_of(&text) {
            told(&message, says);
        }
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_not_told() {
    let authority = server::Authority::new();
    let files =
        Files::of("https://192.0.2.1", &authority).with_user(json!({ "tokenFile": "token" }));
    files.write("token", &format!("{SECRET}\n{SECRET}"));
    let error = HttpService::open(&files.source(), "test").err().expect("it cannot be sent");
    told(&format!("{error} {error:?}"), "the token cannot be sent in a header");
}

#[test]
fn the_password_in_a_url_is_not_told() {
    let text = of_user(&json!({})).replace("https://", &format!("ftp://u:{SECRET}@"));
    for message in said_of(&text) {
        told(&message, "ftp://192.0.2.1/ is no URL of a server");
    }
}

#[test]
fn what_a_provider_of_old_prints_is_not_told() {
    for (script, says) in [
        (format!("echo {SECRET}; exit 3"), "exit status: 3"),
        (format!("echo {{{SECRET}"), "cannot be read"),
        (format!("echo '{{\"token\": \"t\", \"expiry\": \"{SECRET}\"}}'"), "is no time"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        fs::write(&program, script).expect("written");
        let provider = json!({ "name": "gcp", "config": {
            "cmd-path": "sh", "cmd-args": program, "token-key": "{.token}", "expiry-key": "{.expiry}",
        } });
        let mut config = kube::Config::new(http::Uri::from_static("https://192.0.2.1"));
        config.auth_info =
            serde_json::from_value(json!({ "auth-provider": provider })).expect("a provider");
        let error = kube::client::ConfigExt::auth_layer(&config).err().expect("it fails");
        told(&redacted::kube(&error), says);
        told(&redacted::credential(&error), says);
    }
}
