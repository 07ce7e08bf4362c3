//! Asks the leader again and again, for a page that shows an instance for a while.
//!
//! The way and its token are kept between two questions, so each question costs one request to the leader, and no further
//! token. They are dropped when nothing was asked for a while, or when the leader has changed.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use beatkeeper_api::explain::Explanation;
use beatkeeper_core::vocabulary::key::Key;
use tokio::{
    sync::Mutex,
    time::{Instant, interval, timeout},
};

use super::{ask, flags::LeaderFlags, line::Line, unasked::Unasked};
use crate::{flags::ConnectionFlags, model::why::leader::Leader, session::Session};

/// How long a question may take. A person waits for what is argued without its answer, too.
const WITHIN: Duration = Duration::from_secs(5);
/// How long a way is used. Its token is valid for two minutes more.
const LASTS: Duration = Duration::from_secs(480);
/// How long a way is kept without a question.
const IDLE: Duration = Duration::from_secs(60);
/// How long what has prevented an answer is told, before the leader is asked about the registration again.
const PAUSE: Duration = Duration::from_secs(10);

/// What is known from the questions before.
#[derive(Default)]
struct Known {
    line: Option<Standing>,
    unasked: Option<(Key, String, Instant)>,
}

/// A way that is kept, for questions about the registrations of a namespace: the token may be of a ServiceAccount in it.
struct Standing {
    line: Line,
    namespace: String,
    opened: Instant,
    used: Instant,
}

/// Asks the leader.
pub struct Asker {
    session: Session,
    connection: ConnectionFlags,
    flags: LeaderFlags,
    /// It is locked while a question is under way: one is asked after the other.
    known: Arc<Mutex<Known>>,
}

impl Asker {
    /// Nothing is asked yet.
    pub fn new(session: Session, connection: ConnectionFlags, flags: LeaderFlags) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        tokio::spawn(close_when_idle(Arc::downgrade(&known)));
        Self { session, connection, flags, known }
    }

    /// What the leader knows of an instance, or why it is not known.
    pub async fn ask(&self, registration: &Key, instance: &str) -> Leader {
        if self.flags.without_leader {
            return Leader::NotWanted;
        }
        let mut known = self.known.lock().await;
        if let Some((of, why, at)) = &known.unasked
            && of == registration
            && at.elapsed() < PAUSE
        {
            return Leader::Unasked(why.clone());
        }
        let asked = timeout(WITHIN, self.asked(&mut known, registration, instance)).await;
        match asked.unwrap_or(Err(Unasked::Late)) {
            Ok(explanation) => Leader::Explained(Box::new(explanation)),
            Err(why) => {
                let why = why.to_string();
                known.unasked = Some((registration.clone(), why.clone(), Instant::now()));
                Leader::Unasked(why)
            }
        }
    }

    async fn asked(
        &self,
        known: &mut Known,
        registration: &Key,
        instance: &str,
    ) -> Result<Explanation, Unasked> {
        let namespace = &registration.namespace;
        let kept = known.line.take();
        let kept = kept.filter(|it| it.namespace == *namespace && it.opened.elapsed() < LASTS);
        if let Some(kept) = kept {
            // Any failure may be that of a leader that leads no more, so the present one is looked for.
            if let Ok(explanation) = ask::explain(&kept.line, registration, instance).await {
                known.line = Some(Standing { used: Instant::now(), ..kept });
                return Ok(explanation);
            }
        }
        let line = ask::open(&self.session, &self.connection, &self.flags, registration).await?;
        let explanation = ask::explain(&line, registration, instance).await?;
        let (opened, namespace) = (Instant::now(), namespace.clone());
        known.line = Some(Standing { line, namespace, opened, used: opened });
        Ok(explanation)
    }
}

/// Drops a way that nothing uses: kubectl forwards a port as long as it is kept.
async fn close_when_idle(known: Weak<Mutex<Known>>) {
    let mut ticks = interval(IDLE / 4);
    loop {
        ticks.tick().await;
        let Some(known) = known.upgrade() else { return };
        drop(known.lock().await.line.take_if(|it| it.used.elapsed() >= IDLE));
    }
}
