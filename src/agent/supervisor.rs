//! All instances of one agent, from the start to the end.

pub mod control;

mod probe_results;
mod restart;
mod worker;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Error, Result, bail};
use beatkeeper_client::{Connection, publication::Publication};
use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{console::Console, metrics::counts::AgentMetrics, plan::InstancePlan};
use control::{Controls, OnFailure, Predecessor, StatusSender, WorkerState, WorkerTask};
use restart::restarted;

/// The pause between the starts of two instances: a thousand TLS handshakes at once would delay each other
/// beyond all deadlines.
const START_SPACING: Duration = Duration::from_millis(5);
/// How long the drain of all instances may take to be accepted, before the delay for routers begins.
const DRAIN_ACCEPTED_WITHIN: Duration = Duration::from_secs(5);

/// The instances that the agent beats for.
pub struct Supervisor {
    instances: BTreeMap<String, Supervised>,
    /// The progress of each instance.
    statuses: watch::Sender<Vec<WorkerStatus>>,
    /// The instances that a reload has removed, while they deregister.
    leaving: Vec<WorkerTask>,
    on_failure: OnFailure,
    connection: Connection,
    metrics: Arc<AgentMetrics>,
    console: Console,
}

struct Supervised {
    instance: InstancePlan,
    controls: Controls,
    task: WorkerTask,
    seen: WorkerStatus,
}

/// The progress of an instance.
#[derive(Debug, Clone)]
pub struct WorkerStatus {
    /// Name of its Lease.
    pub lease: String,
    /// Read by the code that started the agent.
    pub state: watch::Receiver<WorkerState>,
    /// How the operator treats the instance.
    pub standing: watch::Receiver<Option<Publication>>,
}

/// What a reload has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// The number of new instances.
    pub added: usize,
    /// The number of instances that continue with other settings.
    pub changed: usize,
    /// The number of instances that were removed.
    pub removed: usize,
}

impl Supervisor {
    /// Begins to beat for all instances.
    pub fn start(
        instances: Vec<InstancePlan>,
        on_failure: OnFailure,
        connection: &Connection,
        metrics: &Arc<AgentMetrics>,
        console: &Console,
    ) -> Self {
        let (connection, console) = (connection.clone(), console.clone());
        let mut supervisor = Self {
            instances: BTreeMap::new(),
            statuses: watch::Sender::default(),
            leaving: Vec::new(),
            on_failure,
            connection,
            metrics: metrics.clone(),
            console,
        };
        supervisor.start_all(instances.into_iter().map(|instance| (instance, None)).collect());
        supervisor
    }

    /// Begins to beat for additional instances.
    fn start_all(&mut self, instances: Vec<(InstancePlan, Option<Predecessor>)>) {
        let alone = self.instances.len() + instances.len() == 1;
        for (n, (instance, predecessor)) in instances.into_iter().enumerate() {
            let lease = instance.identity.lease_name();
            let console = if alone { self.console.clone() } else { self.console.of(&lease) };
            let wait = START_SPACING * u32::try_from(n).unwrap_or(u32::MAX);
            let one = self.begin(instance, predecessor, console, wait);
            self.instances.insert(key(&one.instance), one);
        }
        let seen = self.instances.values().map(|one| one.seen.clone()).collect();
        self.statuses.send_replace(seen);
    }

    fn begin(
        &self,
        instance: InstancePlan,
        mut predecessor: Option<Predecessor>,
        console: Console,
        wait: Duration,
    ) -> Supervised {
        let controls = Controls::default();
        let page = StatusSender {
            state: watch::Sender::new(WorkerState::Starting),
            standing: watch::Sender::new(None),
            metrics: self.metrics.instance(&instance.identity),
        };
        let lease = instance.identity.lease_name();
        let seen = WorkerStatus {
            lease: lease.clone(),
            state: page.state.subscribe(),
            standing: page.standing.subscribe(),
        };
        let (on_failure, connection) = (self.on_failure, self.connection.clone());
        let (own, heard, panics) = (instance.clone(), controls.clone(), self.console.of(&lease));
        let task = async move {
            tokio::select! {
                () = heard.stop.cancelled() => return end(predecessor).await,
                () = heard.leave.cancelled() => return Ok(()),
                () = sleep(wait) => {}
            }
            let run = |first: bool| {
                let on_failure = if first { on_failure } else { on_failure.again() };
                let (page, console) = (page.clone(), console.clone());
                let (connection, controls) = (connection.clone(), heard.clone());
                own.clone().run(on_failure, connection, controls, page, console, predecessor.take())
            };
            restarted(&panics, &heard, run).await?.unwrap_or(Ok(()))
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        Supervised { instance, controls, task, seen }
    }

    /// Beats for these instances from now on. An unchanged one is not touched. One with new settings
    /// continues with its existing Lease. The Lease of a remote target stays as it is until the probes of the
    /// new settings have a result. An instance that is not listed any more leaves.
    pub async fn reload(&mut self, instances: Vec<InstancePlan>) -> Changes {
        let mut wanted: BTreeMap<String, InstancePlan> =
            instances.into_iter().map(|instance| (key(&instance), instance)).collect();
        let mut begin = Vec::new();
        let mut changes = Changes::default();
        for (key, one) in std::mem::take(&mut self.instances) {
            match wanted.remove(&key) {
                Some(instance) if instance == one.instance => {
                    self.instances.insert(key, one);
                }
                Some(instance) => {
                    changes.changed += 1;
                    let predecessor = Predecessor { controls: one.controls, task: one.task };
                    begin.push(match self.on_failure {
                        OnFailure::StopBeating => (instance, Some(predecessor)),
                        OnFailure::ReportFailing { .. } => {
                            // Local instances do not wait for a probe result, so the former task
                            // leaves before the new one starts.
                            predecessor.leave().await;
                            (instance, None)
                        }
                    });
                }
                None => {
                    changes.removed += 1;
                    one.controls.stop.cancel();
                    self.leaving.push(one.task);
                }
            }
        }
        changes.added = wanted.len();
        begin.extend(wanted.into_values().map(|instance| (instance, None)));
        self.start_all(begin);
        self.leaving.retain(|task| !task.is_finished());
        changes
    }

    /// Completes when every instance has reached this stage. Instances that a reload adds meanwhile count
    /// too.
    pub fn all(&self, state: WorkerState) -> impl Future<Output = ()> + Send + use<> {
        let mut statuses = self.statuses.subscribe();
        async move {
            loop {
                let all = statuses.borrow_and_update().clone();
                tokio::select! {
                    true = all_reach(all, state) => return,
                    changed = statuses.changed() => if changed.is_err() {
                        // The supervisor has ended before.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// Returns the state of each current instance. A reload changes the list.
    pub fn watch(&self) -> watch::Receiver<Vec<WorkerStatus>> {
        self.statuses.subscribe()
    }

    /// Drains all instances, and waits for the delay in which routers notice. With a delay of zero it does
    /// nothing.
    pub async fn drain(&self, delay: Duration, console: &Console) {
        if delay.is_zero() {
            return;
        }
        self.instances.values().for_each(|one| one.controls.drain.cancel());
        if timeout(DRAIN_ACCEPTED_WITHIN, self.all(WorkerState::Drained)).await.is_err() {
            console.print("no beat was accepted that says that the instance drains");
        }
        sleep(delay).await;
    }

    /// Ends all instances, which keep their Leases for the next process. Instances that a reload has removed
    /// deregister.
    pub async fn leave(self) {
        self.instances.values().for_each(|one| one.controls.leave.cancel());
        join_all(self.instances.into_values().map(|one| one.task).chain(self.leaving)).await;
    }

    /// Stops all instances.
    ///
    /// # Errors
    /// Deregistering failed. The error holds the first reason and the number of failures.
    pub async fn stop(self) -> Result<()> {
        self.instances.values().for_each(|one| one.controls.stop.cancel());
        let tasks = self.instances.into_values().map(|one| one.task).chain(self.leaving);
        let ended = join_all(tasks).await;
        let ended = ended.into_iter().map(|end| end.map_err(Error::from).flatten());
        let failures: Vec<Error> = ended.filter_map(Result::err).collect();
        match &failures[..] {
            [] => Ok(()),
            [one] => bail!("not deregistered, so the instance stays until its ttl is over: {one}"),
            [one, ..] => bail!(
                "{} instances were not deregistered, and stay until their ttl is over; the first: {one}",
                failures.len()
            ),
        }
    }
}

/// Returns false if one of the instances has ended before.
async fn all_reach(all: Vec<WorkerStatus>, state: WorkerState) -> bool {
    for mut one in all {
        if one.state.wait_for(|now| *now >= state).await.is_err() {
            return false;
        }
    }
    true
}

/// Deregisters a target that was removed before the probes of its new settings had a result.
async fn end(predecessor: Option<Predecessor>) -> Result<()> {
    match predecessor {
        Some(predecessor) => predecessor.stop().await,
        None => Ok(()),
    }
}

/// The key that identifies an instance across reloads.
fn key(instance: &InstancePlan) -> String {
    format!("{}/{}", instance.identity.namespace, instance.identity.lease_name())
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicBool, Ordering::SeqCst},
    };

    use beatkeeper_client::headers::Headers;
    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::{
        super::plan::{Environment, Plan},
        *,
    };

    static PANICKED: AtomicBool = AtomicBool::new(false);

    /// Answers like an API server, but the first request for vm-1 makes the program panic.
    async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        if path.ends_with("/leases/greeter.vm-1") && !PANICKED.swap(true, SeqCst) {
            panic!("a fault of our own");
        }
        let (code, answer) = match (request.method(), path.rsplit('/').next()) {
            (&Method::GET, Some("greeter")) => {
                let spec = json!({ "ttl": "1h", "interval": "10m", "ports": [] });
                let kind = json!({
                    "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
                    "metadata": { "name": "greeter" }, "spec": spec,
                });
                (StatusCode::OK, kind)
            }
            (&Method::POST, Some("leases")) => {
                let body = request.into_body().collect_bytes().await.expect("a body");
                let mut lease: Value = serde_json::from_slice(&body).expect("a Lease");
                (lease["metadata"]["uid"], lease["metadata"]["resourceVersion"]) =
                    (json!("u"), json!("7"));
                (StatusCode::CREATED, lease)
            }
            _ => {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "not found", "reason": "NotFound", "code": 404,
                });
                (StatusCode::NOT_FOUND, status)
            }
        };
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = code;
        Ok(response)
    }

    #[tokio::test]
    async fn an_instance_whose_task_panics_beats_all_the_same_and_so_do_the_others() {
        let settings = "
            registration: greeter
            instances: [{ instance: vm-1 }, { instance: vm-2 }]";
        let settings = serde_saphyr::from_str(settings).expect("settings");
        let around = Environment { namespace: "shop".to_owned(), pod_name: None };
        let plan = Plan::of(settings, &around).expect("a plan");
        let client = kube::Client::new(tower::service_fn(answer), "shop");
        let connection = Connection { client, headers: Headers::default(), gateway: None };
        let on_failure = OnFailure::ReportFailing { started_here: false };
        let (metrics, console) = (Arc::new(AgentMetrics::new()), Console::new(false));
        let supervisor =
            Supervisor::start(plan.instances, on_failure, &connection, &metrics, &console);
        let settled = timeout(Duration::from_secs(60), supervisor.all(WorkerState::Settled)).await;
        assert!(PANICKED.load(SeqCst));
        settled.expect("each of them beats");
        supervisor.leave().await;
    }
}
