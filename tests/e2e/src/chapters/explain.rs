//! `kubectl beatkeeper why`, which asks the leader through `kubectl port-forward`, as readers with different rights.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::quote;
use crate::cluster::{Cluster, NAMESPACE, RELEASE};
use crate::plugin::Plugin;

/// The ServiceAccount that the release names in `explain.readers`.
pub(super) const READER: &str = "explained";
/// One with the same rights in the namespace of the app, and with none where the operator is.
const OUTSIDER: &str = "unexplained";
/// Where the leader explains in its Pod, by docs/explain.md.
const PORT: u16 = 8082;
/// Where it serves its metrics, which other Pods may reach.
const METRICS_PORT: u16 = 8080;
/// What a client says if nothing listens, and if a NetworkPolicy drops what it sends.
const UNREACHED: [&str; 2] = ["connection refused", "timeout"];

pub(super) async fn play(cluster: &Cluster, plugin: &Plugin) -> Result<()> {
    let pods = cluster.pods("greeter").await?;
    let [pod, ..] = pods.as_slice() else { bail!("no Pod of greeter") };
    let reader = Asking::new(cluster, plugin, READER, pod).await?;
    let answered = format!("✓ leader {} has answered: it has led for", holder(cluster).await?);
    let told = reader.until("the leader answers", |told| told.contains(&answered)).await?;
    println!("   a reader of explain.readers asks the leader:");
    quote(&told);

    let outsider = Asking::new(cluster, plugin, OUTSIDER, pod).await?;
    let election = format!("{RELEASE}/{RELEASE}");
    let unread = format!("not asked: Lease {election} of the election cannot be read");
    let parts =
        [&*unread, "This is argued from API objects alone", "✓ deadline its ttl of 5s passes in"];
    // Its role applies a moment after it was bound.
    let refused = cluster
        .until("it is told what another user may not read", async || {
            let refused = outsider.ask(&["--election", &election]).await?;
            let told = joined(&refused);
            ensure!(parts.iter().all(|part| told.contains(part)), "{refused}");
            Ok(Some(refused))
        })
        .await?;
    println!(
        "   another user is told what is missing, and the argument goes on without the leader:"
    );
    quote(refused.lines().find(|line| line.contains("not asked")).unwrap_or_default());

    from_other_pods_it_cannot_be_reached(cluster).await?;
    a_death_is_explained(cluster, &reader, pod).await
}

/// Returns the replica that leads.
async fn holder(cluster: &Cluster) -> Result<String> {
    let of = "get lease beatkeeper --output jsonpath={.spec.holderIdentity}";
    let holder = cluster.kubectl(&format!("--namespace {RELEASE} {of}")).await?;
    ensure!(!holder.is_empty(), "no replica leads");
    Ok(holder)
}

/// The leader listens for its own Pod alone, and forwarded ports end there.
async fn from_other_pods_it_cannot_be_reached(cluster: &Cluster) -> Result<()> {
    for (index, pod) in cluster.operators().await?.iter().enumerate() {
        let of = "--output jsonpath={.status.podIP}";
        let address = cluster.kubectl(&format!("--namespace {RELEASE} get pod {pod} {of}")).await?;
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        // Or the test would not notice that it reaches nothing at all.
        let metrics = format!("http://{host}:{METRICS_PORT}/metrics");
        let read = cluster.once(&format!("metrics-{index}"), &["read", &metrics]).await?;
        ensure!(read.starts_with("status 200\n"), "{metrics} is not reached: {read}");

        let explain = format!("http://{host}:{PORT}/explain/{NAMESPACE}/greeter/any");
        let call = ["call", "-rate", "2", "-for", "1s", "-timeout", "3s", &explain];
        let called = cluster.once(&format!("explain-{index}"), &call).await?;
        let causes = causes(&called)?;
        ensure!(
            !causes.is_empty() && causes.iter().all(|cause| UNREACHED.contains(&&**cause)),
            "{explain} is reached: {called}"
        );
        println!(
            "   from another Pod, {host}:{METRICS_PORT} answers, and {host}:{PORT} does not: {}",
            causes[0]
        );
    }
    Ok(())
}

/// Returns why each request has failed; what answered one counts as a cause, too.
fn causes(printed: &str) -> Result<Vec<String>> {
    let cause = |line: &str| -> Result<String> {
        let request: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let failed = request["failed"].as_str();
        Ok(failed.map_or_else(|| format!("answered: {request}"), str::to_owned))
    };
    printed.lines().map(cause).collect()
}

/// An instance hangs. The leader says that it has read the Lease after the deadline.
async fn a_death_is_explained(cluster: &Cluster, reader: &Asking<'_>, pod: &str) -> Result<()> {
    let hang = format!("exec {pod} --container greeter -- /greeter hang greeter beatkeeper");
    cluster.in_namespace(&hang).await?;
    let told = reader
        .until("the leader tells of the live read", |told| {
            let parts = [
                "✗ decision Expired (TTLPassed)",
                "· live read sent ",
                " ago, after the deadline: the Lease had not changed",
            ];
            parts.iter().all(|part| told.contains(part))
        })
        .await?;
    println!("   it hangs, and the leader tells which read has decided that:");
    quote(&told);
    cluster.in_namespace(&format!("delete pod {pod} --grace-period=1")).await?;
    cluster.until_ready("greeter", 3).await
}

/// A user who asks about one instance of greeter.
struct Asking<'a> {
    cluster: &'a Cluster,
    plugin: &'a Plugin,
    instance: String,
    kubeconfig: String,
}

impl<'a> Asking<'a> {
    /// Creates the user, who may read what is in the namespace of the app.
    async fn new(cluster: &'a Cluster, plugin: &'a Plugin, name: &str, pod: &str) -> Result<Self> {
        cluster.apply(include_str!("../../manifests/reader.yaml"), &[("$READER", name)]).await?;
        let token = cluster.in_namespace(&format!("create token {name}")).await?;
        let kubeconfig = cluster.kubeconfig(name, token.trim()).await?.display().to_string();
        Ok(Self { cluster, plugin, instance: format!("greeter/{pod}"), kubeconfig })
    }

    async fn ask(&self, more: &[&str]) -> Result<String> {
        let arguments = ["why", &self.instance, "--kubeconfig", &self.kubeconfig];
        let ended = self.plugin.run(&[&arguments[..], more].concat()).await?;
        // An instance with which something is wrong ends it with 1.
        ensure!(!ended.out.is_empty(), "{}", ended.err);
        Ok(ended.out)
    }

    /// Asks until what is told on one line is as wanted, and returns it as it was printed.
    async fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        self.cluster
            .until(what, async || {
                let told = self.ask(&[]).await?;
                ensure!(wanted(&joined(&told)), "{told}");
                Ok(Some(told))
            })
            .await
    }
}

/// The text on one line.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_answered_is_no_cause_of_a_failure() {
        let printed =
            "{\"sent\":1,\"failed\":\"connection refused\"}\n{\"sent\":2,\"by\":\"it\"}\n";
        let causes = causes(printed).expect("lines of JSON");
        assert_eq!(causes[0], UNREACHED[0]);
        assert!(causes[1].starts_with("answered: "), "{causes:?}");
    }
}
