use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{explain, quote};
use crate::cluster::{Cluster, NAMESPACE, RELEASE, chart};

/// The namespace of the notes and their objects: the default of the chart.
const NOTES: &str = "default";

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    helm_install(cluster).await?;
    let said = cluster.helm(&["test", RELEASE, "--logs"]).await?;
    println!("   helm test passes:");
    quote(said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default());
    follow_the_notes(cluster).await
}

async fn helm_install(cluster: &Cluster) -> Result<()> {
    let (repository, tag) =
        cluster.images.beatkeeper.rsplit_once(':').context("an image without a tag")?;
    let chart = chart().display().to_string();
    let explained = format!(
        "explain.enabled=true,explain.readers[0].kind=ServiceAccount,explain.readers[0].name={},explain.readers[0].namespace={NAMESPACE}",
        explain::READER
    );
    let began = Instant::now();
    cluster
        .helm(&[
            "install",
            RELEASE,
            &chart,
            "--wait",
            "--timeout=3m",
            "--set",
            &format!("image.repository={repository}"),
            "--set",
            &format!("image.tag={tag}"),
            "--set",
            &format!("outsideRanges.{NAMESPACE}={{192.0.2.0/24,198.51.100.0/24}}"),
            "--set",
            "readinessGate.enabled=true",
            "--set",
            &explained,
        ])
        .await?;
    println!(
        "   helm install --wait: two replicas Ready after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    quote(&cluster.kubectl(&format!("--namespace {RELEASE} get pods")).await?);
    Ok(())
}

/// Runs every command in the notes, and builds a Pod with the container that they show.
async fn follow_the_notes(cluster: &Cluster) -> Result<()> {
    let there = cluster.kubectl(&format!("--namespace {NOTES} get --ignore-not-found --output name sreg/greeter serviceaccount/greeter pod/greeter")).await?;
    ensure!(there.trim().is_empty(), "namespace {NOTES} has {} already", there.trim());

    let notes = cluster.helm(&["get", "notes", RELEASE]).await?;
    let commands = commands(&notes);
    ensure!(commands.len() == 2, "the notes have other commands than two: {commands:?}");
    let pod = pod(&notes, &cluster.images.greeter)?;
    let shown = async {
        cluster.shell(&commands[0]).await?;
        cluster.kubectl_with(&["apply", "--filename", "-"], &pod).await?;
        cluster
            .until("the Pod of the notes is published", async || {
                let ready = cluster
                    .kubectl(&format!(
                        "--namespace {NOTES} get sreg greeter --output jsonpath={{.status.ready}}"
                    ))
                    .await?;
                Ok((ready == "1").then_some(()))
            })
            .await?;
        println!("   the commands and the sidecar of the notes work as they stand:");
        quote(&cluster.shell(&commands[1]).await?);
        Ok(())
    }
    .await;
    // This clean-up also runs after a failure, because the namespace belongs to the cluster's user.
    let _ = cluster
        .kubectl_with(&["delete", "--now", "--ignore-not-found", "--filename", "-"], &pod)
        .await;
    let undo = commands[0].replacen("kubectl apply", "kubectl delete --ignore-not-found", 1);
    let undone = cluster.shell(&undo).await;
    shown.and(undone.map(|_| ()))
}

/// Returns the commands, which are at the beginning of a line, with their here-documents.
fn commands(notes: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut lines = notes.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("kubectl ") {
            let mut command = line.to_owned();
            if line.ends_with("<<YAML") {
                for line in lines.by_ref() {
                    command = command + "\n" + line;
                    if line == "YAML" {
                        break;
                    }
                }
            }
            commands.push(command);
        }
    }
    commands
}

/// Builds a Pod from the fields that the notes show, with the app as a container.
fn pod(notes: &str, image: &str) -> Result<String> {
    let (_, fields) =
        notes.split_once("  serviceAccountName:").context("the notes show no sidecar")?;
    let (fields, _) = fields.split_once("\n\n").context("the sidecar does not end")?;
    Ok(format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: greeter, namespace: {NOTES}, labels: {{ app: greeter }} }}\n\
         spec:\n  serviceAccountName:{fields}\n  containers:\n  - name: greeter\n    image: {image}\n    \
         imagePullPolicy: IfNotPresent\n    args: [serve]\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTES: &str = "1. First:\n\nkubectl apply -f - <<YAML\na: 1\n---\nb: 2\nYAML\n\n2. Then:\n\nkubectl get it\n\n\
                         A sidecar:\n\n  serviceAccountName: it\n  initContainers:\n  - name: b\n\n  kubectl delete it\n";

    #[test]
    fn commands_are_taken_with_their_documents_and_nothing_around_them() {
        let expected = ["kubectl apply -f - <<YAML\na: 1\n---\nb: 2\nYAML", "kubectl get it"];
        assert_eq!(commands(NOTES), expected);
    }

    #[test]
    fn the_sidecar_is_taken_up_to_the_empty_line() {
        let pod = pod(NOTES, "it").expect("a sidecar");
        assert!(pod.contains(
            "\nspec:\n  serviceAccountName: it\n  initContainers:\n  - name: b\n  containers:\n"
        ));
    }
}
