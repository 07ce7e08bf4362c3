//! The description changes to another way to fetch a credential, which brings none.

use std::sync::Mutex;

use tokio::time::sleep;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::{
    credentials::{calls, knows, plugin},
    server::{Authority, Server},
    *,
};

/// The messages that were logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn has(&self, text: &str) -> bool {
        self.0.lock().expect("no panic").contains(text)
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message<'a>(&'a Log);

        impl Visit for Message<'_> {
            fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
                *self.0.0.lock().expect("no panic") += &format!("{value:?}\n");
            }
        }

        event.record(&mut Message(self));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A plugin that records each call, and fails until a certain file exists.
fn broken(files: &Files) -> Value {
    plugin(&format!(
        "cd {}; echo >> calls; [ -e mended ] || {{ echo 'log in first' >&2; exit 1; }}; \
         echo '{{\"status\": {{\"token\": \"new\"}}}}'",
        files.folder.path().display()
    ))
}

/// Replaces the user by the broken plugin, and waits until the plugin was called.
async fn change(access: &HttpService, mut files: Files) -> Files {
    let user = broken(&files);
    files = files.with_user(user);
    files.write("kubeconfig", &files.kubeconfig.to_string());
    let called = async {
        while calls(&files) == 0 {
            succeeds(access).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(3 * PATIENCE, called).await.expect("it is followed");
    files
}

async fn goes_on_until_it_is_refused(server: Server, files: Files, authority: Authority) {
    let log = Log::default();
    let _logged = tracing::subscriber::set_default(log.clone());
    let access = files.open();
    succeeds(&access).await;
    let files = change(&access, files).await;
    let warned = async {
        while !log.has("log in first; continuing with the previous credential") {
            succeeds(&access).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, warned).await.expect("it is told");
    // This also holds over new connections, and if the old ones have fallen silent.
    server.restart_with(authority.serving(Some(&authority))).await;
    succeeds(&access).await;
    server.fall_silent();
    assert!(ask_within(&access, Duration::from_secs(1)).await.is_err());
    succeeds(&access).await;

    knows(&server, "new");
    let error = ask(&access).await.expect_err("there is no other").to_string();
    assert!(error.contains("log in first"), "{error}");
    assert!(log.has("refuses the previous credential"));
    files.write("mended", "");
    let accepted = async {
        while ask(&access).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(3 * PATIENCE, accepted).await.expect("the token comes");
    succeeds(&access).await;
}

#[tokio::test]
async fn the_token_of_the_plugin_of_before_is_used_until_it_is_refused() {
    let (server, files, authority) = server_and_files().await;
    knows(&server, "old");
    let files = files.with_user(plugin("echo '{\"status\": {\"token\": \"old\"}}'"));
    goes_on_until_it_is_refused(server, files, authority).await;
}

#[tokio::test]
async fn the_token_that_was_written_down_before_is_used_until_it_is_refused() {
    let (server, files, authority) = server_and_files().await;
    knows(&server, "old");
    let files = files.with_user(json!({ "token": "old" }));
    goes_on_until_it_is_refused(server, files, authority).await;
}

#[tokio::test]
async fn the_client_certificate_of_before_is_used_until_it_is_refused() {
    let authority = Authority::new();
    let server = Server::start(authority.serving(Some(&authority))).await;
    server.judge(|asked| if asked.certificate.is_some() { 200 } else { 401 });
    let files = Files::of(&format!("https://{}", server.address), &authority)
        .with_user(json!({ "client-certificate": "client.crt", "client-key": "client.key" }));
    let pair = authority.client();
    files.write("client.key", &pair.key);
    files.write("client.crt", &pair.certificate);
    goes_on_until_it_is_refused(server, files, authority).await;
}

#[tokio::test]
async fn what_was_for_another_server_is_not_sent_to_a_new_one() {
    let (server, files, authority) = server_and_files().await;
    knows(&server, "old");
    let mut files = files.with_user(json!({ "token": "old" }));
    let access = files.open();
    succeeds(&access).await;
    let new = Server::start(authority.serving(None)).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    new.judge(move |asked| {
        hears.lock().expect("no panic").push(asked.token().map(str::to_owned));
        200
    });
    files.kubeconfig["clusters"][0]["cluster"]["server"] =
        json!(format!("https://{}", new.address));
    let user = broken(&files);
    let files = files.with_user(user);
    files.write("kubeconfig", &files.kubeconfig.to_string());
    let followed = async {
        while calls(&files) == 0 {
            let _ = ask(&access).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(3 * PATIENCE, followed).await.expect("it is followed");
    let error = ask(&access).await.expect_err("there is no other").to_string();
    assert!(error.contains("log in first"), "{error}");
    files.write("mended", "");
    let accepted = async {
        while ask(&access).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(3 * PATIENCE, accepted).await.expect("the token comes");
    let heard = heard.lock().expect("no panic");
    assert!(heard.iter().all(|token| token.as_deref() == Some("new")), "{heard:?}");
}
