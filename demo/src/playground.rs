//! A control plane with a running operator, for users to try.

use std::path::Path;

use anyhow::{Context, Result, bail};
use beatkeeper_cluster::ATTACH_VARIABLE;

use crate::environment::Environment;
use crate::output::{Output, shell};

/// Addresses that the operator may publish: the ones that RFC 5737 reserves for documentation.
const RANGES: [&str; 2] = ["default=192.0.2.0/24", "shop=192.0.2.0/24"];

/// Sets everything up, prints how to use it, and returns only when the operator ends.
pub async fn open(environment: &mut Environment, out: &Output) -> Result<()> {
    out.heading("A Kubernetes with Beatkeeper")?;
    environment.install(out).await?;
    environment.kubectl(&["create", "namespace", "shop"], out).await?;
    environment.start_operator(&RANGES, out)?;
    explain(environment, out)?;
    let operator = environment.operator.as_mut().context("the operator was not started")?;
    let ended = operator.ended().await?;
    bail!("the operator has ended by itself: {ended}");
}

fn explain(environment: &Environment, out: &Output) -> Result<()> {
    let quoted = |path: &Path| shell(&[&path.display().to_string()]);
    let kubectl = environment.plane.bin("kubectl");
    let folders = [environment.beatkeeper().parent(), kubectl.parent()];
    let folders: Vec<_> = folders.into_iter().flatten().map(quoted).collect();

    out.heading("Ready. In another terminal")?;
    // The variable by which tests attach is left out: tests in the user's terminal should not use this control
    // plane.
    let exports =
        environment.plane.environment().into_iter().filter(|(name, _)| name != ATTACH_VARIABLE);
    let exports = exports.map(|(name, value)| format!("export {name}={}", quoted(&value)));
    let path = format!("export PATH={}:$PATH", folders.join(":"));
    out.result(&exports.chain([path]).collect::<Vec<_>>().join("\n"))?;
    out.say("A registration, an instance that beats for it, and what becomes of it:")?;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/greeter.yaml");
    out.result(&format!(
        "kubectl apply -f {}\n\
         beatkeeper agent run --registration greeter --namespace shop --instance vm-1 &\n\
         beatkeeper agent run --registration greeter --namespace shop --instance vm-2 --address 192.0.2.12 &\n\
         kubectl -n shop get sreg,svc,endpointslices",
        shell(&[&Path::new(file).display().to_string()])
    ))?;
    out.say("Then kill one with -KILL, and watch it go after its ttl:")?;
    out.result("kubectl -n shop get sreg --watch")?;
    out.say(&format!(
        "Instances outside the cluster may have the addresses {}. The operator writes to:",
        RANGES.join(" and ")
    ))?;
    if let Some(operator) = &environment.operator {
        out.result(&operator.log().display().to_string())?;
    }
    out.say("Ctrl-C stops everything, and nothing is left behind.")?;
    Ok(())
}
