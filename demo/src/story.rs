//! The story: three processes beat; one is killed, one is stopped, and one is cordoned. The others must not be
//! affected.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use beatkeeper_api::{ServiceRegistration, ServiceRegistrationStatus, duration};
use beatkeeper_cluster::KUBERNETES_VERSION;
use kube::Api;

use crate::beats::Beats;
use crate::environment::{Environment, GRACE, PATIENCE};
use crate::observer::{Both, Observer};
use crate::output::Output;
use crate::report::Report;
use crate::silence::silence;

const REGISTRATION: &str = include_str!("../greeter.yaml");

/// The instances and their addresses. The first is declared in greeter.yaml.
const VM_1: (&str, &str) = ("vm-1", "192.0.2.11");
const VM_2: (&str, &str) = ("vm-2", "192.0.2.12");
const VM_3: (&str, &str) = ("vm-3", "192.0.2.13");

/// Plays the story. So far, the environment has only its control plane.
pub async fn tell(
    environment: &mut Environment,
    out: &mut Output,
    ready_after: Duration,
) -> Result<()> {
    let client = environment.plane.client_with_user_agent("beatkeeper-demo/observer")?;
    let observer = Observer::start(&client, "shop", "greeter").await?;
    let registrations = Api::namespaced(client, "shop");
    let mut story = Story {
        environment,
        out,
        observer,
        registrations,
        ttl: Duration::ZERO,
        report: Report::default(),
    };
    story.control_plane(ready_after)?;
    story.operator().await?;
    story.registration().await?;
    story.three_beat().await?;
    story.one_dies().await?;
    story.it_comes_back().await?;
    story.one_leaves().await?;
    story.one_is_cordoned().await?;
    story.end()
}

struct Story<'a> {
    environment: &'a mut Environment,
    out: &'a mut Output,
    observer: Observer,
    registrations: Api<ServiceRegistration>,
    ttl: Duration,
    report: Report,
}

impl Story<'_> {
    fn control_plane(&mut self, ready_after: Duration) -> Result<()> {
        self.out.chapter("A Kubernetes control plane")?;
        self.out.seen(&format!(
            "etcd, kube-apiserver and kube-controller-manager {KUBERNETES_VERSION}, ready after {:.1} s. \
             No root, no containers; all of it ends with this demo.",
            ready_after.as_secs_f64()
        ))?;
        Ok(())
    }

    async fn operator(&mut self) -> Result<()> {
        self.out.chapter("The operator")?;
        self.environment.install(self.out).await?;
        self.environment.kubectl(&["create", "namespace", "shop"], self.out).await?;
        self.out.say(
            "Addresses outside the cluster are published only where its administrator allows it:",
        )?;
        self.environment.start_operator(&["shop=192.0.2.0/24"], self.out)
    }

    async fn registration(&mut self) -> Result<()> {
        self.out.chapter("A registration: two numbers and a port")?;
        self.out.command("cat demo/greeter.yaml")?;
        self.out.result(REGISTRATION)?;
        self.environment.kubectl(&["apply", "-f", "demo/greeter.yaml"], self.out).await?;
        let registration = self.registrations.get("greeter").await?;
        self.ttl = duration::parse(&registration.spec.ttl)?;
        Ok(())
    }

    async fn three_beat(&mut self) -> Result<()> {
        self.out.chapter("Three processes beat")?;
        self.out.say(
            "vm-1 is declared in the registration; vm-2 and vm-3 bring their addresses along.",
        )?;
        self.environment.start_agent(VM_1.0, None, self.out)?;
        self.environment.start_agent(VM_2.0, Some(VM_2.1), self.out)?;
        self.environment.start_agent(VM_3.0, Some(VM_3.1), self.out)?;
        let instances = [VM_1, VM_2, VM_3];
        for instance in instances {
            let first = self.beats(instance, |beats| Some(beats.first)).await?;
            let listed = self.listed(instance, true).await?;
            self.report.add(&format!("{} starts", instance.0), first, listed, "its first beat");
        }
        let said: Vec<_> = self.environment.agents.values().map(|agent| agent.said(1)).collect();
        self.out.result(&said.join("\n"))?;
        for instance in instances {
            self.observer.guard(address(instance)?);
        }
        self.out.seen(
            "All three are published. From now on an observer with watches of its own checks \
             that no beating instance is ever missing.",
        )?;
        self.status("three instances are ready", |status| status.ready == 3).await?;
        let kinds = "service,endpointslices,endpoints";
        self.environment.kubectl(&["-n", "shop", "get", kinds], self.out).await?;
        self.environment.kubectl(&["-n", "shop", "get", "sreg"], self.out).await
    }

    async fn one_dies(&mut self) -> Result<()> {
        self.out.chapter("One dies")?;
        self.observer.release(address(VM_2)?);
        let agent = self.environment.agent(VM_2.0)?;
        let pid = agent.pid()?;
        self.out.command(&format!("kill -KILL {pid}     # vm-2"))?;
        agent.kill().await?;
        self.out.say(&format!(
            "It cannot say good-bye. {} after its last beat its time is over:",
            duration::format(self.ttl)
        ))?;

        let left = self.listed(VM_2, false).await?;
        let last = self.beats(VM_2, |beats| Some(beats.last)).await?;
        let deadline = last + self.ttl;
        let silence = silence(&self.environment.plane, VM_2.0).await?;
        ensure!(
            silence >= self.ttl,
            "vm-2 was pruned early: the API server took its last beat only {silence:?} before the write that pruned it"
        );
        self.report.add("vm-2 is killed", deadline, left, "its deadline: last beat + ttl");
        self.out.seen(&format!(
            "vm-2 left the EndpointSlices {} and the Endpoints {} past its deadline. Not before it: the API \
             server's audit log has {:.3} s between its last beat and the write that pruned it.",
            crate::report::milliseconds(deadline, left.slices),
            crate::report::milliseconds(deadline, left.endpoints),
            silence.as_secs_f64()
        ))?;
        self.survivors(&[VM_1, VM_3])?;

        self.status("one instance is expired", |status| status.expired == 1).await?;
        self.environment.kubectl(&["-n", "shop", "get", "sreg", "-o", "wide"], self.out).await?;
        self.instances().await
    }

    async fn it_comes_back(&mut self) -> Result<()> {
        self.out.chapter("It comes back")?;
        let dead = self.beats(VM_2, |beats| Some(beats.last)).await?;
        self.environment.start_agent(VM_2.0, Some(VM_2.1), self.out)?;
        let revived =
            self.beats(VM_2, |beats| Some(beats.last).filter(|last| *last > dead)).await?;
        let back = self.listed(VM_2, true).await?;
        self.observer.guard(address(VM_2)?);
        self.report.add("vm-2 comes back", revived, back, "its first new beat");
        self.out.seen(&format!(
            "vm-2 is published again, {} after its first new beat.",
            crate::report::milliseconds(revived, back.last())
        ))?;
        Ok(())
    }

    async fn one_leaves(&mut self) -> Result<()> {
        self.out.chapter("One leaves in good order")?;
        self.observer.release(address(VM_3)?);
        let agent = self.environment.agent(VM_3.0)?;
        let pid = agent.pid()?;
        self.out.command(&format!("kill -TERM {pid}     # vm-3"))?;
        let status = agent.stop(GRACE).await?;
        let said = agent.said(1);
        ensure!(status.success(), "vm-3 ended badly when it was stopped: {status}");
        self.out.result(&said)?;
        let deleted = self.beats(VM_3, |beats| beats.deleted).await?;
        let left = self.listed(VM_3, false).await?;
        self.report.add("vm-3 is stopped", deleted, left, "the deletion of its Lease");
        self.out.seen(&format!(
            "vm-3 deleted its Lease, and {} later it was gone from both. No ttl had to pass.",
            crate::report::milliseconds(deleted, left.last())
        ))?;
        self.survivors(&[VM_1, VM_2])
    }

    async fn one_is_cordoned(&mut self) -> Result<()> {
        self.out.chapter("One is taken out by hand")?;
        self.observer.release(address(VM_1)?);
        let cordon = "beatkeeper.dev/cordoned=bad disk";
        let begun = Instant::now();
        let annotate = ["-n", "shop", "annotate", "lease", "greeter.vm-1"];
        self.environment.kubectl(&[&annotate[..], &[cordon]].concat(), self.out).await?;
        let changed = |beats: &Beats| beats.cordon_changed.filter(|at| *at > begun);
        let cordoned = self.beats(VM_1, changed).await?;
        let left = self.listed(VM_1, false).await?;
        self.report.add("vm-1 is cordoned", cordoned, left, "the annotation");
        self.out.seen(&format!(
            "vm-1 beats on and left both {} after the annotation.",
            crate::report::milliseconds(cordoned, left.last())
        ))?;
        self.survivors(&[VM_2])?;
        self.status("an instance is cordoned", |status| {
            status.instances.iter().any(|instance| instance.state == "Cordoned")
        })
        .await?;
        self.instances().await?;

        let begun = Instant::now();
        self.environment
            .kubectl(&[&annotate[..], &["beatkeeper.dev/cordoned-"]].concat(), self.out)
            .await?;
        let changed = |beats: &Beats| beats.cordon_changed.filter(|at| *at > begun);
        let uncordoned = self.beats(VM_1, changed).await?;
        let back = self.listed(VM_1, true).await?;
        self.observer.guard(address(VM_1)?);
        self.report.add("vm-1 is uncordoned", uncordoned, back, "the annotation");
        self.out.seen(&format!(
            "vm-1 is published again, {} after the annotation was removed.",
            crate::report::milliseconds(uncordoned, back.last())
        ))?;
        self.status("two instances are ready", |status| status.ready == 2).await?;
        self.environment.kubectl(&["-n", "shop", "get", "sreg"], self.out).await
    }

    fn end(self) -> Result<()> {
        self.survivors(&[VM_1, VM_2])?;
        let (slices, endpoints) = self.observer.states();
        self.report.print(self.out, slices, endpoints)?;
        Ok(())
    }

    /// Prints that these instances were in every state seen so far, or fails.
    fn survivors(&self, instances: &[(&str, &str)]) -> Result<()> {
        if let Some(missed) = self.observer.missed() {
            bail!(missed);
        }
        let names: Vec<_> = instances.iter().map(|(name, _)| *name).collect();
        self.out.seen(&format!("{} never left, not for a moment.", names.join(" and ")))?;
        Ok(())
    }

    /// Prints the instances of the status, each with its reason.
    async fn instances(&self) -> Result<()> {
        let each = r#"jsonpath={range .status.instances[*]}{.name} {.state} ({.reason}) {.message}{"\n"}{end}"#;
        self.environment
            .kubectl(&["-n", "shop", "get", "sreg", "greeter", "-o", each], self.out)
            .await
    }

    async fn listed(&mut self, instance: (&str, &str), listed: bool) -> Result<Both> {
        let address = address(instance)?;
        let state = if listed { "is published" } else { "has left" };
        self.until(&format!("{} ({address}) {state}", instance.0), |observer| {
            observer.since(address, listed)
        })
        .await
    }

    async fn beats<T>(
        &mut self,
        instance: (&str, &str),
        mut of: impl FnMut(&Beats) -> Option<T>,
    ) -> Result<T> {
        let what = format!("the Lease of {} says so", instance.0);
        self.until(&what, |observer| observer.beats(instance.0).as_ref().and_then(&mut of)).await
    }

    /// Waits until the observer sees something. Fails if the operator has ended.
    async fn until<T>(&mut self, what: &str, so: impl FnMut(&Observer) -> Option<T>) -> Result<T> {
        let operator =
            self.environment.operator.as_mut().context("the operator was not started")?;
        tokio::select! {
            seen = self.observer.until(what, self.ttl + PATIENCE, so) => seen,
            ended = operator.ended() => bail!("the operator has ended by itself: {}", ended?),
        }
    }

    /// Waits until the status shows something: the operator writes the status after the objects that it describes.
    async fn status(
        &self,
        what: &str,
        so: impl Fn(&ServiceRegistrationStatus) -> bool,
    ) -> Result<()> {
        let by = Instant::now() + PATIENCE;
        loop {
            let status = self.registrations.get("greeter").await?.status.unwrap_or_default();
            if so(&status) {
                return Ok(());
            }
            ensure!(
                Instant::now() < by,
                "waited in vain for the status to say that {what}: {status:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn address(instance: (&str, &str)) -> Result<IpAddr> {
    instance.1.parse().with_context(|| format!("{} is no address", instance.1))
}
