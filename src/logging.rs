//! Decides what is logged: what Beatkeeper itself reports, as selected by `RUST_LOG`, and errors of the libraries.
//!
//! The libraries log what they send and receive, some more than others. kube's client logs the text of an object that
//! it cannot read, and does so at the level of a warning. hyper, h2 and rustls log the bytes of requests and responses.
//! This data includes tokens, and Pods with secrets in their environment. So, whatever `RUST_LOG` says, a library may
//! log only errors, and kube's client may log nothing.

use std::io::{self, IsTerminal, Write};

use beatkeeper::{controller::LogFormat, output};
use beatkeeper_api::text::plain;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt,
    filter,
    fmt::{self, format::debug_fn},
    layer::SubscriberExt,
    registry, reload,
};

/// Logs to standard error in this format, whether or not it is a terminal. Text that users have written stays on its
/// line. Logging never waits for a reader, so a prune does not depend on where the log goes. The filter
/// `unless_chosen` applies if `RUST_LOG` is not set.
pub(crate) fn to_stderr(unless_chosen: &'static str, format: LogFormat) -> Filter {
    let (filter, handle) = reload::Layer::new(chosen(unless_chosen));
    let ansi = std::io::stderr().is_terminal();
    let lines = lines(format, ansi, || output::stderr().writer()).with_filter(filter);
    let subscriber = registry().with(lines).with(filter::filter_fn(may_be_said));
    // This fails only if a subscriber has been set before. Then that one is kept.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Filter { handle, unless_chosen }
}

/// What `RUST_LOG` selects, or this if it is not set.
fn chosen(unless_chosen: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(unless_chosen))
}

/// Selects what is logged.
pub(crate) struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    unless_chosen: &'static str,
}

impl Filter {
    /// Selects something else from now on; `None`: what was selected at the start. What no filter may select stays
    /// unsaid ([`may_be_said`]).
    pub(crate) fn select(&self, what: Option<&str>) {
        let filter = what.map_or_else(|| chosen(self.unless_chosen), EnvFilter::new);
        // This fails only if the subscriber is gone. Then nothing is logged.
        let _ = self.handle.reload(filter);
    }
}

/// Writes each event as one line.
fn lines<W: Write + 'static>(
    format: LogFormat,
    ansi: bool,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let fields = debug_fn(|to, field, value| match field.name() {
        "message" => write!(to, "{}", plain(&format!("{value:?}"))),
        name => write!(to, "{name}={}", plain(&format!("{value:?}"))),
    });
    match format {
        LogFormat::Text => fmt::layer()
            .fmt_fields(fields.delimited(" "))
            .with_writer(writer)
            .with_ansi(ansi)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(move || PlainJson(writer()))
            .boxed(),
    }
}

/// Escapes what a reader of the log would not see as it is written ([`plain`]), which JSON leaves as it is.
struct PlainJson<W>(W);

impl<W: Write> Write for PlainJson<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut line = String::with_capacity(text.len());
        for c in String::from_utf8_lossy(text).chars() {
            if c == '\n' || !plain(c.encode_utf8(&mut [0; 4])).starts_with("\\u") {
                line.push(c);
            } else {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                units.iter().for_each(|unit| line.push_str(&format!("\\u{unit:04x}")));
            }
        }
        self.0.write_all(line.as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
    use std::sync::{Arc, Mutex};

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
    fn logged(format: LogFormat, say: impl FnOnce()) -> String {
        let buffer = Lines::default();
        let writer = buffer.clone();
        let everything = EnvFilter::new("trace,kube_client=trace,hyper=trace,h2=trace,log=trace");
        let layer = lines(format, false, move || writer.clone()).with_filter(everything);
        let subscriber = registry().with(layer).with(filter::filter_fn(may_be_said));
        tracing::subscriber::with_default(subscriber, say);
        let text = buffer.0.lock().expect("lines").clone();
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn no_library_prints_what_it_sends_or_receives_whatever_is_asked_for() {
        let text = logged(LogFormat::Text, || {
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

    #[test]
    fn a_line_of_text_names_the_span_and_stays_one_line() {
        let text = logged(LogFormat::Text, || {
            tracing::info_span!("reconcile", registration = "shop/greeter")
                .in_scope(|| tracing::info!(lease = "greeter.vm-1\nfake", "pruned"));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#"reconcile{registration="shop/greeter"}"#), "{text}");
        assert!(text.contains(r#"pruned lease="greeter.vm-1\nfake""#), "{text}");
    }

    #[test]
    fn a_line_of_json_has_the_event_and_its_span_and_hides_nothing() {
        let text = logged(LogFormat::Json, || {
            tracing::info_span!("reconcile", registration = "shop/greeter")
                .in_scope(|| tracing::warn!(lease = "greeter.vm-1\n\u{202e}fäke", "pruned"));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{202e}') && text.contains('ä'), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "pruned");
        assert_eq!(line["lease"], "greeter.vm-1\n\u{202e}fäke");
        assert_eq!(line["span"]["registration"], "shop/greeter");
    }
}
