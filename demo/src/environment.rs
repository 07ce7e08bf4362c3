//! The common parts of the story and the playground: a control plane, the operator on it, and the processes that
//! beat.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Finished, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beatkeeper_api::ServiceRegistration;
use beatkeeper_cluster::{Child, ControlPlane, Options, die_with_this_thread};
use kube::{Api, api::ListParams};
use tokio::io::AsyncWriteExt;

use crate::output::{Output, shell};

/// The timeout for everything that is not slow by nature.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to end after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(5);

/// A control plane, with the processes that use it.
pub struct Environment {
    /// etcd, kube-apiserver and kube-controller-manager.
    pub plane: ControlPlane,
    /// The operator, once it was started.
    pub operator: Option<Child>,
    /// The processes of the instances, by name. A restarted instance has only its last process here.
    pub agents: BTreeMap<String, Child>,
    beatkeeper: PathBuf,
}

impl Environment {
    /// Starts a control plane. `beatkeeper` is the binary to demonstrate.
    pub async fn start(beatkeeper: PathBuf) -> Result<Self> {
        if !beatkeeper.is_file() {
            bail!("there is no {}: build it with `make build`", beatkeeper.display());
        }
        let plane = ControlPlane::start(Options::default()).await?;
        Ok(Self { plane, operator: None, agents: BTreeMap::new(), beatkeeper })
    }

    /// Returns the binary to demonstrate.
    pub fn beatkeeper(&self) -> &Path {
        &self.beatkeeper
    }

    /// Installs the CRD and waits until its objects can be written.
    pub async fn install(&self, out: &Output) -> Result<()> {
        out.command("beatkeeper crd | kubectl apply --server-side -f -")?;
        let mut crd = Command::new(&self.beatkeeper);
        crd.arg("crd");
        let crd = finish("beatkeeper crd", crd, None).await?;
        let mut apply = self.plane.kubectl();
        apply.args(["apply", "--server-side", "-f", "-"]);
        let applied = finish("kubectl apply", apply, Some(crd.stdout)).await?;
        out.result(&String::from_utf8_lossy(&applied.stdout))?;

        // Right after the declaration, the API server does not yet know a resource, or has not yet prepared its
        // store.
        let registrations: Api<ServiceRegistration> = Api::all(self.plane.admin_client()?);
        let by = Instant::now() + PATIENCE;
        while let Err(error) = registrations.list(&ListParams::default().limit(1)).await {
            if Instant::now() > by {
                return Err(error).context("the CRD is installed and its objects are not served");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Starts the operator. It may publish addresses of these ranges: `NAMESPACE=CIDR`.
    pub fn start_operator(&mut self, ranges: &[&str], out: &Output) -> Result<()> {
        let mut words = vec!["controller"];
        for range in ranges {
            words.extend(["--outside-range", range]);
        }
        self.operator = Some(self.spawn("operator", &words, out)?);
        Ok(())
    }

    /// Starts the agent of an instance of `greeter` in `shop`. The agent gets the address if the registration does
    /// not declare it.
    pub fn start_agent(
        &mut self,
        instance: &str,
        address: Option<&str>,
        out: &Output,
    ) -> Result<()> {
        let mut words = vec!["agent", "run", "--registration", "greeter", "--namespace", "shop"];
        words.extend(["--instance", instance]);
        if let Some(address) = address {
            words.extend(["--address", address]);
        }
        let process = self.spawn(instance, &words, out)?;
        self.agents.insert(instance.to_owned(), process);
        Ok(())
    }

    fn spawn(&self, name: &str, words: &[&str], out: &Output) -> Result<Child> {
        out.command(&format!("beatkeeper {} &", shell(words)))?;
        let mut command = Command::new(&self.beatkeeper);
        // The demo may run in a Pod. The name of this Pod must not reach the processes.
        command.args(words).envs(self.plane.environment()).env_remove("POD_NAME");
        Child::start(name, command, &self.plane.data_folder().join("logs"))
    }

    /// Returns the process of an instance.
    pub fn agent(&mut self, instance: &str) -> Result<&mut Child> {
        self.agents.get_mut(instance).with_context(|| format!("{instance} was never started"))
    }

    /// Runs kubectl, and prints the command line and its output.
    pub async fn kubectl(&self, words: &[&str], out: &Output) -> Result<()> {
        let line = format!("kubectl {}", shell(words));
        out.command(&line)?;
        let mut command = self.plane.kubectl();
        // The file names of the demo are relative to the top of the repository.
        command.args(words).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let finished = finish(&line, command, None).await?;
        out.result(&String::from_utf8_lossy(&finished.stdout))?;
        Ok(())
    }

    /// Returns the last output of the operator and the agents, to help find the cause of a failure.
    pub fn log_tails(&self) -> String {
        let processes = self.operator.iter().map(|operator| ("the operator", operator, 30));
        let agents = self.agents.iter().map(|(name, agent)| (name.as_str(), agent, 10));
        let mut text = String::new();
        for (name, process, lines) in processes.chain(agents) {
            let said = process.said(lines).replace('\n', "\n  ");
            text.push_str(&format!("\nthe last lines of {name}:\n  {said}\n"));
        }
        text
    }

    /// Ends everything: the instances, the operator and the control plane.
    pub async fn stop(mut self) -> Result<()> {
        // The agents end concurrently. Otherwise their grace periods would add up.
        let agents = self.agents.values_mut().map(|agent| agent.stop(GRACE));
        let mut ends = futures::future::join_all(agents).await;
        if let Some(operator) = &mut self.operator {
            ends.push(operator.stop(GRACE).await);
        }
        self.plane.stop().await?;
        ends.into_iter().try_for_each(|end| end.map(|_| ()))
    }
}

/// Runs a command to its end. If the command fails, the error contains its stderr.
async fn finish(line: &str, mut command: Command, input: Option<Vec<u8>>) -> Result<Finished> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    die_with_this_thread(&mut command, true);
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run `{line}`"))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(&input).await.with_context(|| format!("`{line}` does not read"))?;
    }
    let finished = child.wait_with_output().await?;
    if !finished.status.success() {
        let said = String::from_utf8_lossy(&finished.stderr);
        bail!("`{line}` failed ({}): {}", finished.status, said.trim());
    }
    Ok(finished)
}
