//! All instances of one agent, from the start to the end.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use beatkeeper_client::{Connection, failure::Failure, standing::Standing};
use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    member::{Cues, OnFailure, Page, Stage},
    plan::Member,
    tell::Teller,
};

/// Many instances begin one after the other, this far apart: a thousand TLS handshakes at once delay each
/// other beyond all deadlines.
const APART: Duration = Duration::from_millis(5);
/// How long it may take to be accepted that all drain, before the delay for routers begins.
const TELL_DRAINING_WITHIN: Duration = Duration::from_secs(5);

/// Those who beat.
pub struct Crew {
    aboard: BTreeMap<String, Aboard>,
    /// How far each of them is.
    roster: watch::Sender<Vec<Seen>>,
    /// Those that a reload has let go, while they deregister.
    going: Vec<Life>,
    on_failure: OnFailure,
    connection: Connection,
    teller: Teller,
}

type Life = AbortOnDropHandle<Result<(), Failure>>;

struct Aboard {
    member: Member,
    cues: Cues,
    life: Life,
    seen: Seen,
}

/// How far an instance is.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Name of its Lease.
    pub lease: String,
    /// Read by the code that started the agent.
    pub stage: watch::Receiver<Stage>,
    /// What the operator makes of it.
    pub standing: watch::Receiver<Option<Standing>>,
}

/// What a reload has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Instances that are new.
    pub added: usize,
    /// Instances that go on with other settings.
    pub changed: usize,
    /// Instances that leave.
    pub removed: usize,
}

impl Crew {
    /// Begins to beat for all.
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
        crew.take_in(members);
        crew
    }

    /// Begins to beat for these, too.
    fn take_in(&mut self, members: Vec<Member>) {
        let alone = self.aboard.len() + members.len() == 1;
        for (n, member) in members.into_iter().enumerate() {
            let lease = member.identity.lease_name();
            let teller = if alone { self.teller.clone() } else { self.teller.of(&lease) };
            let wait = APART * u32::try_from(n).unwrap_or(u32::MAX);
            let one = self.begin(member, teller, wait);
            self.aboard.insert(key(&one.member), one);
        }
        let seen = self.aboard.values().map(|one| one.seen.clone()).collect();
        self.roster.send_replace(seen);
    }

    fn begin(&self, member: Member, teller: Teller, wait: Duration) -> Aboard {
        let cues = Cues::default();
        let page =
            Page { stage: watch::Sender::new(Stage::Starting), standing: watch::Sender::new(None) };
        let seen = Seen {
            lease: member.identity.lease_name(),
            stage: page.stage.subscribe(),
            standing: page.standing.subscribe(),
        };
        let (on_failure, connection) = (self.on_failure, self.connection.clone());
        let (own, heard) = (member.clone(), cues.clone());
        let life = async move {
            tokio::select! {
                () = heard.stop.cancelled() => return Ok(()),
                () = heard.leave.cancelled() => return Ok(()),
                () = sleep(wait) => {}
            }
            own.run(on_failure, connection, heard, page, teller).await
        };
        let life = AbortOnDropHandle::new(tokio::spawn(life));
        Aboard { member, cues, life, seen }
    }

    /// Beats for these from now on. An unchanged member is not touched. A member with new settings goes on with
    /// the Lease that it has. A member that is not listed any more leaves.
    pub async fn reload(&mut self, members: Vec<Member>) -> Changes {
        let mut wanted: BTreeMap<String, Member> =
            members.into_iter().map(|member| (key(&member), member)).collect();
        let mut changes = Changes::default();
        for (key, one) in std::mem::take(&mut self.aboard) {
            match wanted.remove(&key) {
                Some(member) if member == one.member => {
                    self.aboard.insert(key, one);
                }
                Some(member) => {
                    changes.changed += 1;
                    one.cues.leave.cancel();
                    // It has nothing to wait for.
                    let _ = one.life.await;
                    wanted.insert(key, member);
                }
                None => {
                    changes.removed += 1;
                    one.cues.stop.cancel();
                    self.going.push(one.life);
                }
            }
        }
        changes.added = wanted.len() - changes.changed;
        self.take_in(wanted.into_values().collect());
        self.going.retain(|life| !life.is_finished());
        changes
    }

    /// Ready when each of them has come so far.
    pub fn all(&self, stage: Stage) -> impl Future<Output = ()> + Send + use<> {
        let all = self.roster.borrow().clone();
        async move {
            for mut one in all {
                if one.stage.wait_for(|now| *now >= stage).await.is_err() {
                    // It has ended before; then nobody gets there.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// The stage of each current member. The list changes with a reload.
    pub fn watch(&self) -> watch::Receiver<Vec<Seen>> {
        self.roster.subscribe()
    }

    /// All drain, and routers get some time to notice. None, when there is no such time.
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

    /// All end, and keep their Leases for the next process.
    pub async fn leave(self) {
        self.aboard.values().for_each(|one| one.cues.leave.cancel());
        join_all(self.aboard.into_values().map(|one| one.life)).await;
    }

    /// All stop.
    ///
    /// # Errors
    /// Deregistering failed: the first reason, and how many there were.
    pub async fn stop(self) -> Result<()> {
        self.aboard.values().for_each(|one| one.cues.stop.cancel());
        let lives = self.aboard.into_values().map(|one| one.life).chain(self.going);
        let ended = join_all(lives).await;
        let failures: Vec<Failure> =
            ended.into_iter().filter_map(|end| end.ok().and_then(Result::err)).collect();
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

/// By which an instance is the same as before.
fn key(member: &Member) -> String {
    format!("{}/{}", member.identity.namespace, member.identity.lease_name())
}
