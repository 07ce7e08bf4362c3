//! All instances of one agent, from the start to the end.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Error, Result, bail};
use beatkeeper_client::{Connection, publication::Publication};
use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    member::{Cues, Former, OnFailure, Page, Stage},
    plan::Member,
    revive::revived,
    tell::Teller,
};

/// The pause between the starts of two instances: a thousand TLS handshakes at once would delay each other
/// beyond all deadlines.
const APART: Duration = Duration::from_millis(5);
/// How long the drain of all instances may take to be accepted, before the delay for routers begins.
const TELL_DRAINING_WITHIN: Duration = Duration::from_secs(5);

/// The instances that the agent beats for.
pub struct Crew {
    aboard: BTreeMap<String, Aboard>,
    /// The progress of each instance.
    roster: watch::Sender<Vec<Seen>>,
    /// The instances that a reload has removed, while they deregister.
    going: Vec<Life>,
    on_failure: OnFailure,
    connection: Connection,
    teller: Teller,
}

/// The task of one instance.
pub type Life = AbortOnDropHandle<Result<()>>;

struct Aboard {
    member: Member,
    cues: Cues,
    life: Life,
    seen: Seen,
}

/// The progress of an instance.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Name of its Lease.
    pub lease: String,
    /// Read by the code that started the agent.
    pub stage: watch::Receiver<Stage>,
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

impl Crew {
    /// Begins to beat for all members.
    pub fn start(
        members: Vec<Member>,
        on_failure: OnFailure,
        connection: &Connection,
        teller: &Teller,
    ) -> Self {
        let (connection, teller) = (connection.clone(), teller.clone());
        let mut crew = Self {
            aboard: BTreeMap::new(),
            roster: watch::Sender::default(),
            going: Vec::new(),
            on_failure,
            connection,
            teller,
        };
        crew.take_in(members.into_iter().map(|member| (member, None)).collect());
        crew
    }

    /// Begins to beat for additional members.
    fn take_in(&mut self, members: Vec<(Member, Option<Former>)>) {
        let alone = self.aboard.len() + members.len() == 1;
        for (n, (member, former)) in members.into_iter().enumerate() {
            let lease = member.identity.lease_name();
            let teller = if alone { self.teller.clone() } else { self.teller.of(&lease) };
            let wait = APART * u32::try_from(n).unwrap_or(u32::MAX);
            let one = self.begin(member, former, teller, wait);
            self.aboard.insert(key(&one.member), one);
        }
        let seen = self.aboard.values().map(|one| one.seen.clone()).collect();
        self.roster.send_replace(seen);
    }

    fn begin(
        &self,
        member: Member,
        mut former: Option<Former>,
        teller: Teller,
        wait: Duration,
    ) -> Aboard {
        let cues = Cues::default();
        let page =
            Page { stage: watch::Sender::new(Stage::Starting), standing: watch::Sender::new(None) };
        let lease = member.identity.lease_name();
        let seen = Seen {
            lease: lease.clone(),
            stage: page.stage.subscribe(),
            standing: page.standing.subscribe(),
        };
        let (on_failure, connection) = (self.on_failure, self.connection.clone());
        let (own, heard, panics) = (member.clone(), cues.clone(), self.teller.of(&lease));
        let life = async move {
            tokio::select! {
                () = heard.stop.cancelled() => return end(former).await,
                () = heard.leave.cancelled() => return Ok(()),
                () = sleep(wait) => {}
            }
            let run = |first: bool| {
                let on_failure = if first { on_failure } else { on_failure.again() };
                let (page, teller) = (page.clone(), teller.clone());
                let (connection, cues) = (connection.clone(), heard.clone());
                own.clone().run(on_failure, connection, cues, page, teller, former.take())
            };
            revived(&panics, &heard, run).await?.unwrap_or(Ok(()))
        };
        let life = AbortOnDropHandle::new(tokio::spawn(life));
        Aboard { member, cues, life, seen }
    }

    /// Beats for these members from now on. An unchanged member is not touched. A member with new settings
    /// continues with its existing Lease. The Lease of a remote target stays as it is until the probes of the
    /// new settings have a result. A member that is not listed any more leaves.
    pub async fn reload(&mut self, members: Vec<Member>) -> Changes {
        let mut wanted: BTreeMap<String, Member> =
            members.into_iter().map(|member| (key(&member), member)).collect();
        let mut begin = Vec::new();
        let mut changes = Changes::default();
        for (key, one) in std::mem::take(&mut self.aboard) {
            match wanted.remove(&key) {
                Some(member) if member == one.member => {
                    self.aboard.insert(key, one);
                }
                Some(member) => {
                    changes.changed += 1;
                    let former = Former { cues: one.cues, life: one.life };
                    begin.push(match self.on_failure {
                        OnFailure::FallSilent => (member, Some(former)),
                        OnFailure::Tell { .. } => {
                            // Members beside the agent do not wait for a probe result, so the former task
                            // leaves before the new one starts.
                            former.leave().await;
                            (member, None)
                        }
                    });
                }
                None => {
                    changes.removed += 1;
                    one.cues.stop.cancel();
                    self.going.push(one.life);
                }
            }
        }
        changes.added = wanted.len();
        begin.extend(wanted.into_values().map(|member| (member, None)));
        self.take_in(begin);
        self.going.retain(|life| !life.is_finished());
        changes
    }

    /// Completes when every instance has reached this stage. Instances that a reload adds meanwhile count
    /// too.
    pub fn all(&self, stage: Stage) -> impl Future<Output = ()> + Send + use<> {
        let mut roster = self.roster.subscribe();
        async move {
            loop {
                let all = roster.borrow_and_update().clone();
                tokio::select! {
                    true = all_reach(all, stage) => return,
                    changed = roster.changed() => if changed.is_err() {
                        // The crew has ended before.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// Returns the stage of each current member. A reload changes the list.
    pub fn watch(&self) -> watch::Receiver<Vec<Seen>> {
        self.roster.subscribe()
    }

    /// Drains all instances, and waits for the delay in which routers notice. With a delay of zero it does
    /// nothing.
    pub async fn drain(&self, delay: Duration, teller: &Teller) {
        if delay.is_zero() {
            return;
        }
        self.aboard.values().for_each(|one| one.cues.drain.cancel());
        if timeout(TELL_DRAINING_WITHIN, self.all(Stage::Drained)).await.is_err() {
            teller.say("no beat was accepted that says that the instance drains");
        }
        sleep(delay).await;
    }

    /// Ends all instances, which keep their Leases for the next process. Instances that a reload has removed
    /// deregister.
    pub async fn leave(self) {
        self.aboard.values().for_each(|one| one.cues.leave.cancel());
        join_all(self.aboard.into_values().map(|one| one.life).chain(self.going)).await;
    }

    /// Stops all instances.
    ///
    /// # Errors
    /// Deregistering failed. The error holds the first reason and the number of failures.
    pub async fn stop(self) -> Result<()> {
        self.aboard.values().for_each(|one| one.cues.stop.cancel());
        let lives = self.aboard.into_values().map(|one| one.life).chain(self.going);
        let ended = join_all(lives).await;
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
async fn all_reach(all: Vec<Seen>, stage: Stage) -> bool {
    for mut one in all {
        if one.stage.wait_for(|now| *now >= stage).await.is_err() {
            return false;
        }
    }
    true
}

/// Deregisters a target that was removed before the probes of its new settings had a result.
async fn end(former: Option<Former>) -> Result<()> {
    match former {
        Some(former) => former.stop().await,
        None => Ok(()),
    }
}

/// The key that identifies an instance across reloads.
fn key(member: &Member) -> String {
    format!("{}/{}", member.identity.namespace, member.identity.lease_name())
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
        super::plan::{Plan, Surroundings},
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
        let around = Surroundings { namespace: "shop".to_owned(), pod_name: None };
        let plan = Plan::of(settings, &around).expect("a plan");
        let client = kube::Client::new(tower::service_fn(answer), "shop");
        let connection = Connection { client, headers: Headers::default() };
        let on_failure = OnFailure::Tell { started_here: false };
        let crew = Crew::start(plan.members, on_failure, &connection, &Teller::new(false));
        let settled = timeout(Duration::from_secs(60), crew.all(Stage::Settled)).await;
        assert!(PANICKED.load(SeqCst));
        settled.expect("each of them beats");
        crew.leave().await;
    }
}
