//! All instances of one agent, from the start to the end.

use std::time::Duration;

use anyhow::{Result, bail};
use beatkeeper_client::{Connection, failure::Failure};
use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    member::{Cues, OnFailure, Stage},
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
    cues: Cues,
    members: Vec<AbortOnDropHandle<Result<(), Failure>>>,
    stages: Vec<watch::Receiver<Stage>>,
}

impl Crew {
    /// Begins to beat for all.
    pub fn start(
        members: Vec<Member>,
        on_failure: OnFailure,
        connection: &Connection,
        teller: &Teller,
    ) -> Self {
        let cues = Cues::default();
        let alone = members.len() == 1;
        let begin = |(n, member): (usize, Member)| {
            let teller =
                if alone { teller.clone() } else { teller.of(&member.identity.lease_name()) };
            let (stage, watched) = watch::channel(Stage::Starting);
            let (connection, cues) = (connection.clone(), cues.clone());
            let wait = APART * u32::try_from(n).unwrap_or(u32::MAX);
            let life = async move {
                if cues.stop.run_until_cancelled(sleep(wait)).await.is_none() {
                    return Ok(());
                }
                member.run(on_failure, connection, cues, stage, teller).await
            };
            (AbortOnDropHandle::new(tokio::spawn(life)), watched)
        };
        let (members, stages) = members.into_iter().enumerate().map(begin).unzip();
        Self { cues, members, stages }
    }

    /// Ready when each of them has come so far.
    pub fn all(&self, stage: Stage) -> impl Future<Output = ()> + Send + use<> {
        let stages = self.stages.clone();
        async move {
            for mut one in stages {
                if one.wait_for(|now| *now >= stage).await.is_err() {
                    // It has ended before; then nobody gets there.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Whether each of them has come so far.
    pub fn watch(&self) -> Vec<watch::Receiver<Stage>> {
        self.stages.clone()
    }

    /// All drain, and routers get some time to notice. None, when there is no such time.
    pub async fn drain(&self, delay: Duration, teller: &Teller) {
        if delay.is_zero() {
            return;
        }
        self.cues.drain.cancel();
        if timeout(TELL_DRAINING_WITHIN, self.all(Stage::Drained)).await.is_err() {
            teller.say("no beat was accepted that says that the instance drains");
        }
        sleep(delay).await;
    }

    /// All stop.
    ///
    /// # Errors
    /// Deregistering failed: the first reason, and how many there were.
    pub async fn stop(self) -> Result<()> {
        self.cues.stop.cancel();
        let ended = join_all(self.members).await;
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
