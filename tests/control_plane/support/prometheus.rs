//! A real Prometheus and a real Alertmanager, of Debian's packages.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{eventually, operator::spawn_from_keeper};

/// The variable with the folder that `scripts/prometheus` has printed.
const PREPARED: &str = "BEATKEEPER_PROMETHEUS";

/// How often Prometheus scrapes and evaluates.
const OFTEN: &str = "1s";

/// A result of a query: its labels and its value.
pub type Sample = (BTreeMap<String, String>, f64);

/// The folder with the programs. If this machine cannot have them, says that the test is not run.
pub fn programs(test: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/prometheus");
    beatkeeper_cluster::prepared(PREPARED, &script, test)
}

/// A port of 127.0.0.1 at which nothing listens, and that no other test gets.
pub fn free_port() -> u16 {
    beatkeeper_cluster::free_port().unwrap()
}

/// The configuration of Prometheus. Each target gets the labels that a ServiceMonitor gives.
fn config(rules: &str, alertmanager: &str, targets: &[String]) -> Value {
    let replica = |(n, target): (usize, &String)| {
        let labels = json!({ "namespace": "beatkeeper", "pod": format!("operator-{n}") });
        json!({ "targets": [target], "labels": labels })
    };
    let replicas: Vec<Value> = targets.iter().enumerate().map(replica).collect();
    json!({
        "global": { "scrape_interval": OFTEN, "scrape_timeout": OFTEN, "evaluation_interval": OFTEN },
        "rule_files": [rules],
        "alerting": { "alertmanagers": [{ "static_configs": [{ "targets": [alertmanager] }] }] },
        "scrape_configs": [{ "job_name": "beatkeeper-metrics", "static_configs": replicas }],
    })
}

/// Prometheus with its Alertmanager. Both are killed when this is dropped.
pub struct Prometheus {
    address: String,
    alertmanager: String,
    children: Vec<Child>,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts both. `targets` are the addresses of the replicas.
    pub async fn start(programs: &Path, alerts: &[Value], targets: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &Value| {
            // JSON is YAML.
            let path = folder.path().join(name);
            std::fs::write(&path, content.to_string()).unwrap();
            path.display().to_string()
        };
        let alertmanager = format!("127.0.0.1:{}", free_port());
        let rules =
            file("rules.yaml", &json!({ "groups": [{ "name": "beatkeeper", "rules": alerts }] }));
        let config = config(&rules, &alertmanager, targets);
        let nobody =
            json!({ "route": { "receiver": "nobody" }, "receivers": [{ "name": "nobody" }] });
        let address = format!("127.0.0.1:{}", free_port());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let start = |program: &str, flags: &[(&str, String)]| {
            let mut command = Command::new(programs.join(program));
            command
                .current_dir(programs)
                .args(flags.iter().map(|(flag, value)| format!("--{flag}={value}")))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(
                    std::fs::File::create(folder.path().join(format!("{program}.log"))).unwrap(),
                );
            spawn_from_keeper(command)
        };
        let children = vec![
            start(
                "prometheus-alertmanager",
                &[
                    ("config.file", file("alertmanager.yaml", &nobody)),
                    ("storage.path", path("alertmanager")),
                    ("web.listen-address", alertmanager.clone()),
                    ("cluster.listen-address", String::new()),
                ],
            ),
            start(
                "prometheus",
                &[
                    ("config.file", file("prometheus.yaml", &config)),
                    ("storage.tsdb.path", path("data")),
                    ("web.listen-address", address.clone()),
                ],
            ),
        ];
        let this = Self { address, alertmanager, children, _folder: folder };
        for address in [&this.address, &this.alertmanager] {
            eventually("Prometheus and Alertmanager are ready", async || {
                get(address, "/-/ready").await
            })
            .await;
        }
        this
    }

    /// The result of an instant query. Panics if Prometheus refuses it.
    pub async fn query(&self, expression: &str) -> Vec<Sample> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let what = format!("Prometheus answers {expression}");
        let answer = eventually(&what, async || get(&self.address, &path).await).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let result = answer["data"]["result"].as_array().unwrap();
        let sample = |it: &Value| {
            let labels = serde_json::from_value(it["metric"].clone()).unwrap();
            (labels, it["value"][1].as_str().unwrap().parse().unwrap())
        };
        result.iter().map(sample).collect()
    }

    /// Waits until a query has a result. What a quantile gives where nothing was measured, NaN, is none.
    pub async fn shows(&self, expression: &str) {
        let what = format!("{expression} has a result");
        let is_number = |sample: &Sample| !sample.1.is_nan();
        let look = async || self.query(expression).await.iter().any(is_number).then_some(());
        eventually(&what, look).await;
    }

    /// The names of the alerts that fired in the last seconds.
    pub async fn fired(&self, seconds: u64) -> BTreeSet<String> {
        let range = format!("max_over_time(ALERTS{{alertstate=\"firing\"}}[{}s])", seconds.max(1));
        let fired = self.query(&format!("group by (alertname) ({range})")).await;
        fired.into_iter().filter_map(|(mut labels, _)| labels.remove("alertname")).collect()
    }

    /// The names of the alerts that Alertmanager knows to fire now.
    pub async fn told(&self) -> BTreeSet<String> {
        let answer = get(&self.alertmanager, "/api/v2/alerts?active=true").await;
        let alerts: Value = serde_json::from_str(&answer.unwrap_or("[]".to_owned())).unwrap();
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap().to_owned();
        alerts.as_array().unwrap().iter().map(name).collect()
    }

    /// Waits until exactly these alerts have reached Alertmanager.
    pub async fn tells(&self, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        let what = format!("Alertmanager knows of {wanted:?}");
        eventually(&what, async || (self.told().await == wanted).then_some(())).await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The body of the answer to a GET with HTTP/1.0, which has no chunks; `None` unless it is complete and has the code 200,
/// or 400, with which Prometheus explains what is wrong with a query.
async fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?;
    ["200", "400"].contains(&code).then(|| body.to_owned())
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
