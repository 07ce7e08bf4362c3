//! Attempts to use the rights of others. Each must be refused, with the reason.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::quote;
use crate::cluster::{Cluster, NAMESPACE};

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    let pods = cluster.pods("greeter").await?;
    let [mine, other, ..] = pods.as_slice() else { bail!("too few Pods: {pods:?}") };
    let token = cluster
        .in_namespace(&format!(
            "create token greeter --bound-object-kind Pod --bound-object-name {mine}"
        ))
        .await?;
    let pod = Person::new(cluster, "pod", token.trim()).await?;
    let own_lease = format!("lease/greeter.{mine}");
    let beat = r#"{"metadata":{"annotations":{"example.com/tried":"yes"}}}"#;
    pod.may("beat for itself", &["patch", &own_lease, "--type=merge", "--patch", beat]).await?;
    let other_lease = format!("lease/greeter.{other}");
    let refusal = "may beat only as";
    pod.may_not(
        "beat for another Pod",
        &["patch", &other_lease, "--type=merge", "--patch", beat],
        "",
        refusal,
    )
    .await?;
    pod.may_not("delete another's Lease", &["delete", &other_lease], "", refusal).await?;
    let relabel = r#"{"metadata":{"labels":{"beatkeeper.dev/registration":"herd"}}}"#;
    let refusal = "the label beatkeeper.dev/registration";
    pod.may_not(
        "relabel its Lease",
        &["patch", &own_lease, "--type=merge", "--patch", relabel],
        "",
        refusal,
    )
    .await?;
    let slice = slice("203.0.113.7");
    let create = ["create", "--filename", "-"];
    pod.may_not("write an EndpointSlice", &create, &slice, "endpointslices").await?;

    cluster.in_namespace("create serviceaccount editor").await?;
    cluster
        .in_namespace(&format!(
            "create rolebinding editor --clusterrole edit --serviceaccount {NAMESPACE}:editor"
        ))
        .await?;
    let token = cluster.in_namespace("create token editor").await?;
    let editor = Person::new(cluster, "editor", token.trim()).await?;
    // Before its role applies, it would be refused for another reason.
    let create_leases = ["auth", "can-i", "create", "leases"];
    let applies = async || editor.try_to(&create_leases, "").await.map(Some);
    cluster.until("the role of the editor applies", applies).await?;
    editor.may_not("write an EndpointSlice", &create, &slice, "endpointslices").await?;
    let lease = lease("203.0.113.7");
    editor.may_not("beat for a foreign address", &create, &lease, "beatkeeper-register").await?;
    declaring_a_foreign_address_publishes_nothing(cluster, &editor).await
}

/// `edit` may create registrations, but the ranges that the administrator allows decide what they can publish. Here
/// even a client with all rights sends the beats.
async fn declaring_a_foreign_address_publishes_nothing(
    cluster: &Cluster,
    editor: &Person<'_>,
) -> Result<()> {
    let registration = json!({
        "apiVersion": "beatkeeper.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": { "name": "foreign" },
        "spec": {
            "ttl": "3s", "interval": "1s", "ports": [{ "port": 80 }],
            "instances": [{ "name": "vm-1", "addresses": ["203.0.113.7"] }],
        },
    });
    editor
        .try_to(&["apply", "--filename", "-"], &registration.to_string())
        .await
        .context("a registration can be created by an editor")?;
    let create = ["--namespace", NAMESPACE, "create", "--filename", "-"];
    cluster.kubectl_with(&create, &lease("203.0.113.7")).await?;
    let why = cluster.until_told("foreign", "vm-1", "Rejected").await?;
    println!(
        "   user editor may declare 203.0.113.7, and an administrator beat for it; it is not published:"
    );
    quote(&why);
    let slices = cluster
        .in_namespace(
            "get endpointslices --selector kubernetes.io/service-name=foreign --output yaml",
        )
        .await?;
    ensure!(!slices.contains("203.0.113.7"), "a foreign address is published: {slices}");
    cluster.in_namespace("delete sreg foreign").await?;
    cluster.in_namespace("delete lease foreign.vm-1").await?;
    Ok(())
}

/// A user with a token.
struct Person<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    kubeconfig: String,
}

impl<'a> Person<'a> {
    async fn new(cluster: &'a Cluster, name: &'static str, token: &str) -> Result<Self> {
        let kubeconfig = cluster.kubeconfig(name, token).await?.display().to_string();
        Ok(Self { cluster, name, kubeconfig })
    }

    async fn try_to(&self, what: &[&str], input: &str) -> Result<String> {
        let arguments = [&["--kubeconfig", &self.kubeconfig], what].concat();
        self.cluster.kubectl_with(&arguments, input).await
    }

    async fn may(&self, what: &str, arguments: &[&str]) -> Result<()> {
        self.try_to(arguments, "")
            .await
            .with_context(|| format!("{} may not {what}", self.name))?;
        println!("   the token of {} may {what}", self.name);
        Ok(())
    }

    /// Checks that a request is refused with these words, and not for any other reason.
    async fn may_not(
        &self,
        what: &str,
        arguments: &[&str],
        input: &str,
        words: &str,
    ) -> Result<()> {
        let Err(error) = self.try_to(arguments, input).await else {
            bail!("the token of {} may {what}", self.name);
        };
        let said = format!("{error:#}");
        ensure!(
            said.contains("orbidden") && said.contains(words),
            "refused for another reason: {said}"
        );
        println!("   the token of {} may not {what}:", self.name);
        quote(&said[said.find("Error from server").unwrap_or_default()..]);
        Ok(())
    }
}

fn slice(address: &str) -> String {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": "tried", "labels": { "kubernetes.io/service-name": "greeter" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address] }],
        "ports": [{ "port": 8080 }],
    })
    .to_string()
}

fn lease(address: &str) -> String {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "foreign.vm-1",
            "labels": { "beatkeeper.dev/registration": "foreign" },
            "annotations": { "beatkeeper.dev/addresses": address },
        },
        "spec": { "holderIdentity": "vm-1", "renewTime": "2026-01-01T00:00:00.000000Z" },
    })
    .to_string()
}
