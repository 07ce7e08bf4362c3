//! Decides what is logged: what Beatkeeper itself reports, as selected by `RUST_LOG`, and errors of the libraries.
//!
//! The libraries log what they send and receive, some more than others. kube's client logs the text of an object that
//! it cannot read, and does so at the level of a warning. hyper, h2 and rustls log the bytes of requests and responses.
//! This data includes tokens, and Pods with secrets in their environment. So, whatever `RUST_LOG` says, a library may
//! log only errors, and kube's client may log nothing.

use std::io::IsTerminal;

use beatkeeper::output;
use beatkeeper_api::text::plain;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt,
    filter,
    fmt::{self, format::debug_fn},
    layer::SubscriberExt,
    registry,
};

/// Logs to standard error, in a human-readable format, whether or not it is a terminal. Text that users have written
/// stays on its line. Logging never waits for a reader, so a prune does not depend on where the log goes. The filter
/// `unless_chosen` applies if `RUST_LOG` is not set.
pub(crate) fn to_stderr(unless_chosen: &str) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(unless_chosen));
    let fields = debug_fn(|to, field, value| match field.name() {
        "message" => write!(to, "{}", plain(&format!("{value:?}"))),
        name => write!(to, "{name}={}", plain(&format!("{value:?}"))),
    });
    let lines = fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(|| output::stderr().writer())
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter);
    let subscriber = registry().with(lines).with(filter::filter_fn(may_be_said));
    // This fails only if a subscriber has been set before. Then that one is kept.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Whether a log event may be written, if the filter selects it.
fn may_be_said(what: &Metadata<'_>) -> bool {
    let own = |name: &str| name == "beatkeeper" || name.starts_with("beatkeeper_");
    let library = what.target().split("::").next().unwrap_or_default();
    own(library) || (!library.starts_with("kube") && *what.level() == Level::ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lines").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged if everything is selected.
    fn logged(say: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .with_filter(EnvFilter::new("trace,kube_client=trace,hyper=trace,h2=trace,log=trace"));
        let subscriber = registry().with(layer).with(filter::filter_fn(may_be_said));
        tracing::subscriber::with_default(subscriber, say);
        let lines = lines.0.lock().expect("lines").clone();
        String::from_utf8(lines).expect("text")
    }

    #[test]
    fn no_library_prints_what_it_sends_or_receives_whatever_is_asked_for() {
        let text = logged(|| {
            tracing::warn!(target: "kube_client::client", "{{\"env\":\"hunter2\"}}, error");
            tracing::error!(target: "kube_client::client::builder", "hunter2");
            tracing::debug!(target: "kube_runtime::watcher", "hunter2");
            tracing::trace!(target: "hyper::proto::h1::io", "hunter2");
            tracing::debug!(target: "h2::codec::framed_read", "hunter2");
            tracing::trace!(target: "rustls::common_state", "hunter2");
            tracing::info!(target: "log", "hunter2");
            tracing::warn!(target: "beatkeepers", "hunter2");
            tracing::error!(target: "tower", "a library fails");
            tracing::trace!(target: "beatkeeper::controller", "we trace");
            tracing::debug!(target: "beatkeeper_client", "the SDK tells");
            tracing::info!("this program tells");
        });
        assert!(!text.contains("hunter2"), "{text}");
        let all = ["a library fails", "we trace", "the SDK tells", "this program tells"];
        assert!(all.iter().all(|line| text.contains(line)), "{text}");
    }
}
