//! The steps of an adoption, what is awaited between them, and how they are undone.
//!
//! The registration stays in its dry run until the operator has rehearsed the whole adoption, so nothing is taken over
//! until then, and everything can be undone. For a Service with a selector this includes the removal of the selector.

use std::time::Duration;

use beatkeeper_api::{registration::DRY_RUN_ANNOTATION, status::condition};
use beatkeeper_core::{objects::marks::SKIP_MIRROR_LABEL, vocabulary::reason::ConditionReason};
use k8s_openapi::api::core::v1::Endpoints;
use tokio::time::{Instant, sleep};

use crate::{
    change::{
        obstacle::Obstacle,
        registration::{self, Created},
        service::Selecting,
    },
    error::Error,
    flags::DryRun,
    gather::{
        self, gather,
        scope::{Scope, Wanted},
    },
    model::{assemble, registration::RegistrationView, store::Store},
    session::Session,
    signals::End,
};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Reasons that pass by themselves.
const PASSING: [ConditionReason; 5] = [
    ConditionReason::PathUnproven,
    ConditionReason::WriteFailed,
    ConditionReason::PublishFailed,
    ConditionReason::ServiceGone,
    ConditionReason::AdoptionUnfinished,
];

/// An adoption that has begun.
pub(super) struct Rehearsal<'a> {
    pub(super) session: &'a Session,
    pub(super) created: Created,
    pub(super) selecting: Option<Selecting>,
    /// How long the operator, or the cluster, may take for a step.
    within: Duration,
    /// Whether the Service has been changed.
    changed: bool,
}

/// What is awaited of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// That it has rehearsed. As long as the Service has its selector, it only says so.
    Rehearsed { selects: bool },
    /// That it publishes.
    Published,
}

/// What a report says about what is awaited.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// It has happened.
    Done,
    /// It may still happen. This was reported.
    NotYet(String),
    /// It does not happen.
    Refused(Obstacle),
}

impl<'a> Rehearsal<'a> {
    pub(super) fn of(
        session: &'a Session,
        created: Created,
        selecting: Option<Selecting>,
        within: Duration,
    ) -> Self {
        Self { session, created, selecting, within, changed: false }
    }

    /// Waits until the operator has rehearsed. Returns all that belongs to the registration.
    pub(super) async fn rehearsed(
        &self,
        end: &mut End,
    ) -> Result<(Store, RegistrationView), Error> {
        let selects = self.selecting.is_some() && !self.changed;
        self.hear(Awaited::Rehearsed { selects }, end).await
    }

    /// Waits until the operator publishes.
    pub(super) async fn published(&self, end: &mut End) -> Result<(), Error> {
        self.hear(Awaited::Published, end).await.map(drop)
    }

    async fn hear(
        &self,
        awaited: Awaited,
        end: &mut End,
    ) -> Result<(Store, RegistrationView), Error> {
        let mut last = String::new();
        let scope = Scope::Namespace(self.session.namespace.clone());
        let wanted = Wanted { scope, name: Some(self.created.name.clone()), labels: None };
        let look = async || {
            let store = gather(self.session, &wanted).await?;
            let object = store.registrations.values().next().expect("it was read by its name");
            let view = assemble::registration(&store, object, self.session.clock.now());
            match heard(&view, awaited) {
                Heard::Done => Ok(Some((store, view))),
                Heard::NotYet(said) => {
                    last = said;
                    Ok(None)
                }
                Heard::Refused(obstacle) => Err(obstacle.into()),
            }
        };
        match until(self.within, end, look).await? {
            Some(found) => Ok(found),
            None => Err(self.not_heard(awaited, last).into()),
        }
    }

    fn not_heard(&self, awaited: Awaited, last: String) -> Obstacle {
        let (namespace, within) = (self.session.namespace.clone(), self.within);
        match awaited {
            Awaited::Rehearsed { .. } => Obstacle::NotRehearsed { namespace, within, last },
            Awaited::Published => Obstacle::NotCompleted { within, last },
        }
    }

    /// Removes the selector of the Service, if it has one, and waits until the operator has rehearsed what follows.
    pub(super) async fn release(&mut self, end: &mut End) -> Result<(), Error> {
        let Some(selecting) = self.selecting.clone() else { return Ok(()) };
        let client = &self.session.client;
        // A write may have arrived although its answer has not.
        self.changed = true;
        selecting.label(client, DryRun::None).await?;
        self.follows(end).await?;
        selecting.release(client, DryRun::None).await?;
        self.rehearsed(end).await.map(drop)
    }

    /// Waits until the Endpoints have the label of their Service. Without it the cluster would mirror them as soon as
    /// the selector is gone.
    async fn follows(&self, end: &mut End) -> Result<(), Error> {
        let Created { namespace, name, .. } = &self.created;
        let look = async || {
            let read = gather::get::<Endpoints>(&self.session.client, namespace, name).await;
            let doing = format!("read Endpoints {name} in namespace {namespace}");
            let endpoints = read.map_err(|error| Error::of_request(doing, &error))?;
            let labels = endpoints.and_then(|endpoints| endpoints.metadata.labels);
            Ok(labels.filter(|it| it.get(SKIP_MIRROR_LABEL).is_some_and(|it| it == "true")))
        };
        match until(self.within, end, look).await? {
            Some(_) => Ok(()),
            None => Err(Obstacle::NotFollowed {
                name: name.clone(),
                label: SKIP_MIRROR_LABEL,
                within: self.within,
            }
            .into()),
        }
    }

    /// Undoes what was done. The registration must still be in its dry run. Returns the error to tell.
    pub(super) async fn undo(&self, cause: &Error) -> Error {
        let Created { namespace, name, .. } = &self.created;
        let (client, mut causes, mut left) = (&self.session.client, Vec::new(), Vec::new());
        if let Some(selecting) = self.selecting.as_ref().filter(|_| self.changed)
            && let Err(error) = selecting.restore(client).await
        {
            causes.push(error.to_string());
            left.push(selecting.restoring());
        }
        if let Err(error) = registration::delete(client, &self.created).await {
            causes.push(error.to_string());
            left.push(format!("kubectl -n {namespace} delete sreg {name}"));
        }
        causes.insert(0, cause.to_string());
        let cause = causes.join("\n");
        match left.is_empty() {
            true => Obstacle::Undone { cause }.into(),
            false => Obstacle::NotUndone { cause, left }.into(),
        }
    }

    /// What to tell if the command ends while the operator takes over. Then nothing is undone: the deletion of the
    /// registration would delete what it has taken over.
    pub(super) fn goes_on(&self, cause: &Error) -> Error {
        let Created { namespace, name, .. } = &self.created;
        let follow = vec![format!("kubectl beatkeeper -n {namespace} get {name} --watch")];
        let pause =
            format!("kubectl -n {namespace} annotate sreg {name} {DRY_RUN_ANNOTATION}=true");
        let back = self.selecting.iter().map(Selecting::restoring);
        let stop = [pause].into_iter().chain(back).collect();
        Obstacle::GoesOn { cause: cause.to_string(), follow, stop }.into()
    }
}

fn heard(view: &RegistrationView, awaited: Awaited) -> Heard {
    let Some(ready) = view.reported.condition(condition::READY).filter(|_| view.reported.current)
    else {
        return Heard::NotYet(String::new());
    };
    let reason = ConditionReason::read(&ready.reason);
    let said = || format!("{}: {}", ready.reason, ready.message);
    match (reason, awaited) {
        (Some(ConditionReason::DryRun), Awaited::Rehearsed { selects: false })
        | (Some(ConditionReason::ServiceHasSelector), Awaited::Rehearsed { selects: true })
        | (Some(ConditionReason::Published), Awaited::Published) => Heard::Done,
        // The operator has not seen the last change yet, or waits for the cluster's own controllers.
        (
            Some(
                ConditionReason::DryRun
                | ConditionReason::Published
                | ConditionReason::ServiceHasSelector
                | ConditionReason::ServedByOthers,
            ),
            _,
        )
        | (None, _) => Heard::NotYet(said()),
        (Some(reason), _) if PASSING.contains(&reason) => Heard::NotYet(said()),
        (Some(reason), _) => Heard::Refused(Obstacle::Refused {
            reason: ready.reason.clone(),
            message: ready.message.clone(),
            remedy: reason.remedy().to_owned(),
        }),
    }
}

/// Looks until it finds what is awaited; `None` if that takes too long.
async fn until<T>(
    within: Duration,
    end: &mut End,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let begun = Instant::now();
    while begun.elapsed() < within {
        let found = tokio::select! {
            found = look() => found?,
            () = end.asked() => return Err(Obstacle::Interrupted.into()),
        };
        if found.is_some() {
            return Ok(found);
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = end.asked() => return Err(Obstacle::Interrupted.into()),
        }
    }
    Ok(None)
}
