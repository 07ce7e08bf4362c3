//! A real OpenTelemetry collector: tests/otel-collector. It writes what it receives as lines of JSON.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::OnceCell};

use crate::support::{eventually, operator::spawn_from_keeper};

/// A collector. It is killed when this is dropped.
pub struct Collector {
    child: Child,
    folder: TempDir,
}

impl Collector {
    /// Starts a collector that listens on this port, and waits until it does.
    pub async fn start(port: u16) -> Self {
        Self::start_with(port, tempfile::tempdir().unwrap(), json!({})).await
    }

    /// Starts one that has a certificate of its own making. Returns also the file by which it is verified.
    pub async fn start_with_tls(port: u16) -> (Self, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = json!({ "tls": { "cert_file": certificate, "key_file": key } });
        (Self::start_with(port, folder, tls).await, certificate)
    }

    async fn start_with(port: u16, folder: TempDir, tls: Value) -> Self {
        let address = format!("127.0.0.1:{port}");
        let mut http = tls;
        http["endpoint"] = address.as_str().into();
        let config = json!({
            "receivers": { "otlp": { "protocols": { "http": http } } },
            "exporters": { "lines": {} },
            "service": { "pipelines": { "traces": { "receivers": ["otlp"], "exporters": ["lines"] } } },
        });
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let mut command = Command::new(program().await);
        command
            .args(["--config", &format!("yaml:{config}")])
            .stdin(Stdio::null())
            .stdout(file("received"))
            .stderr(file("log"));
        let mut this = Self { child: spawn_from_keeper(command), folder };
        eventually("the collector listens", async || {
            if let Some(status) = this.child.try_wait().unwrap() {
                panic!("{status}: {}", this.read("log"));
            }
            TcpStream::connect(&address).await.ok()
        })
        .await;
        this
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// What was received so far.
    pub fn traces(&self) -> Vec<Trace> {
        let mut traces: BTreeMap<String, Trace> = BTreeMap::new();
        let received = self.read("received");
        // The last line may not be whole yet.
        for line in received.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line: Value = serde_json::from_str(line).unwrap();
            for resource in line["resourceSpans"].as_array().unwrap() {
                let scopes = resource["scopeSpans"].as_array().unwrap().iter();
                for span in scopes.flat_map(|scope| scope["spans"].as_array().unwrap()) {
                    let id = span["traceId"].as_str().unwrap().to_owned();
                    let trace = traces.entry(id.clone()).or_insert_with(|| Trace {
                        id,
                        resource: attributes(&resource["resource"]),
                        spans: Vec::new(),
                    });
                    trace.spans.push(Span::of(span));
                }
            }
        }
        let mut traces: Vec<Trace> = traces.into_values().collect();
        traces.sort_by_key(|trace| trace.root().began);
        traces
    }

    /// Waits until that many traces were received in all.
    pub async fn has(&self, count: usize) -> Vec<Trace> {
        eventually(&format!("{count} traces have arrived"), async || {
            let traces = self.traces();
            (traces.len() >= count).then_some(traces)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A trace.
#[derive(Debug)]
pub struct Trace {
    pub id: String,
    pub resource: BTreeMap<String, Value>,
    pub spans: Vec<Span>,
}

/// A span.
#[derive(Debug)]
pub struct Span {
    pub id: String,
    pub parent: String,
    pub name: String,
    pub attributes: BTreeMap<String, Value>,
    /// In nanoseconds of the wall clock.
    pub began: u64,
    pub ended: u64,
    pub fails: bool,
}

impl Trace {
    /// The span of the reconciliation.
    pub fn root(&self) -> &Span {
        self.spans.iter().find(|span| span.parent.is_empty()).expect("a root")
    }

    /// The spans of this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |span| span.name == name)
    }

    /// The spans as a tree: when each began after the root, how long it took, and what it is about.
    pub fn tree(&self) -> String {
        let root = self.root();
        let mut text = String::new();
        self.branch(root, 0, root.began, &mut text);
        text
    }

    fn branch(&self, span: &Span, depth: usize, zero: u64, text: &mut String) {
        let millis = |from: u64, to: u64| (to as f64 - from as f64) / 1e6;
        let name = format!("{:1$}{2}", "", 2 * depth, span.name);
        let (began, took) = (millis(zero, span.began), millis(span.began, span.ended));
        let about = ["beatkeeper.instance", "beatkeeper.lease", "beatkeeper.write"];
        let about = about.into_iter().find_map(|name| Some((name, span.attributes.get(name)?)));
        let about = about.map(|(name, value)| format!("  {name}={value}")).unwrap_or_default();
        writeln!(text, "{name:17}{began:+8.2} ms {took:7.2} ms{about}").unwrap();
        let mut children: Vec<&Span> =
            self.spans.iter().filter(|other| other.parent == span.id).collect();
        children.sort_by_key(|child| child.began);
        children.into_iter().for_each(|child| self.branch(child, depth + 1, zero, text));
    }

    /// The only span of this name.
    pub fn only<'a>(&'a self, name: &'a str) -> &'a Span {
        let mut named = self.named(name);
        let span = named.next().unwrap_or_else(|| panic!("no {name}: {self:#?}"));
        assert!(named.next().is_none(), "several {name}: {self:#?}");
        span
    }
}

impl Span {
    fn of(span: &Value) -> Self {
        let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
        let time = |name: &str| span[name].as_str().unwrap().parse().unwrap();
        Self {
            id: text("spanId"),
            parent: text("parentSpanId"),
            name: text("name"),
            attributes: attributes(span),
            began: time("startTimeUnixNano"),
            ended: time("endTimeUnixNano"),
            fails: span["status"]["code"] == 2,
        }
    }

    /// An attribute that is a text or a number.
    pub fn attribute(&self, name: &str) -> &Value {
        self.attributes.get(name).unwrap_or_else(|| panic!("no {name}: {self:#?}"))
    }

    /// An attribute in seconds.
    pub fn seconds(&self, name: &str) -> f64 {
        self.attribute(name).as_f64().unwrap()
    }
}

/// Attributes as plain values.
fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let all = of["attributes"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|it| (it["key"].as_str().unwrap().to_owned(), plain(&it["value"]))).collect()
}

fn plain(value: &Value) -> Value {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        // OTLP writes these numbers as texts.
        "intValue" => value.as_str().unwrap().parse::<i64>().unwrap().into(),
        "arrayValue" => value["values"].as_array().unwrap().iter().map(plain).collect(),
        _ => value.clone(),
    }
}

/// The program, which is built at its first use.
async fn program() -> &'static Path {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/otel-collector");
        let output = tokio::process::Command::new(script).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().into()
    };
    PROGRAM.get_or_init(build).await
}
