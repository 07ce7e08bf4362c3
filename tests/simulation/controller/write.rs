//! Executing a plan. Mirrors apply.rs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use beatkeeper_api::InstanceState;
use beatkeeper_core::{
    decide::verdict::Verdict,
    objects::registration::Registration,
    plan::write::{Plan, Write},
    report::applied::Applied,
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        reason::Reason,
        version::{Token, Version},
    },
};
use futures::future;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use super::Controller;
use crate::{
    api::{Answer, Call, Refusal},
    executor::ProcessId,
    network::Purpose,
    object::{Kind, Object},
};

#[expect(clippy::large_enum_variant, reason = "one at a time, and nearly always the large one")]
pub enum Outcome {
    Done(Applied),
    Conflict(String),
}

/// The reason for a plan, for the check of its writes.
pub struct Explanation {
    pub process: ProcessId,
    /// When the decision for this plan was taken, in the time of the simulation.
    pub decided: u64,
    pub min_ready: usize,
    /// The addresses of the instances that are to be published.
    pub wanted: BTreeSet<IpAddr>,
    /// By address: the decision about each instance that is not to be published.
    pub unwanted: BTreeMap<IpAddr, (InstanceState, Reason, Option<Token>)>,
}

impl Controller {
    pub(super) fn explain(
        &self,
        min_ready: usize,
        verdicts: &[Verdict],
        taken: MonotonicTime,
    ) -> Explanation {
        let addresses = |verdict: &Verdict| {
            verdict.placement.iter().flat_map(|placed| placed.addresses.clone()).collect::<Vec<_>>()
        };
        let wanted: BTreeSet<IpAddr> =
            verdicts.iter().filter(|verdict| verdict.is_published()).flat_map(addresses).collect();
        let unwanted = verdicts
            .iter()
            .filter(|verdict| !verdict.is_published())
            .flat_map(|verdict| {
                let token = verdict.lease.as_ref().map(|lease| lease.decision.token.clone());
                let why = (verdict.state, verdict.reason, token);
                addresses(verdict).into_iter().map(move |address| (address, why.clone()))
            })
            .collect();
        Explanation {
            process: self.process,
            decided: self.absolute(taken),
            min_ready,
            wanted,
            unwanted,
        }
    }

    /// Mirrors `apply`.
    pub(super) async fn apply(
        self: &Rc<Self>,
        registration: &Registration,
        plan: Plan,
        why: Explanation,
    ) -> Outcome {
        let mut applied = Applied::default();
        let mut versions: BTreeMap<String, String> = BTreeMap::new();
        let why = Rc::new(why);
        for phase in plan.phases {
            self.breathe().await;
            let writes: Vec<Write> = phase
                .into_iter()
                .map(|mut write| {
                    if let Some(version) = write.slice_name().and_then(|name| versions.get(name)) {
                        write.rebase(version);
                    }
                    write
                })
                .collect();
            let writes = writes.into_iter().map(|write| self.carry_out(registration, write, &why));
            let mut conflict = None;
            for result in future::join_all(writes).await {
                match result {
                    Ok(written) => {
                        applied.writes += 1;
                        versions.extend(written);
                    }
                    Err(Refusal::Conflict | Refusal::Absent) => {
                        conflict = Some("conflict".to_owned());
                    }
                    Err(refusal) => applied.failure = Some(format!("{refusal:?}")),
                }
            }
            if let Some(conflict) = conflict {
                return Outcome::Conflict(conflict);
            }
            if applied.failure.is_some() {
                break;
            }
        }
        Outcome::Done(applied)
    }

    /// Mirrors `carry_out` and what it calls.
    async fn carry_out(
        self: &Rc<Self>,
        registration: &Registration,
        write: Write,
        why: &Rc<Explanation>,
    ) -> Result<Option<(String, String)>, Refusal> {
        if !self.may_write() {
            return Err(Refusal::Unavailable);
        }
        let namespace = &registration.key.namespace;
        let sent = self.executor().now();
        let purpose: Purpose = Rc::new((why.clone(), sent));
        let key = |name: &str| Key::new(namespace, name);
        let version_of = |text: &Option<String>| Version::of(text.as_deref());
        let (call, kind, named, from) = match write {
            Write::CreateSlice(slice) => {
                (Call::Create(Object::Slice(Arc::new(slice))), Kind::Slice, None, Version(0))
            }
            Write::UpdateSlice(slice, _) => {
                let named = slice.metadata.name.as_deref().map(key);
                let from = version_of(&slice.metadata.resource_version);
                (Call::Replace(Object::Slice(Arc::new(slice))), Kind::Slice, named, from)
            }
            Write::CreateEndpoints(object) => {
                let named = object.metadata.name.as_deref().map(key);
                let call = Call::Create(Object::Endpoints(Arc::new(object)));
                (call, Kind::Endpoints, named, Version(0))
            }
            Write::UpdateEndpoints(object, _) => {
                let named = object.metadata.name.as_deref().map(key);
                let from = version_of(&object.metadata.resource_version);
                let call = Call::Replace(Object::Endpoints(Arc::new(object)));
                (call, Kind::Endpoints, named, from)
            }
            Write::DeleteSlice { name, uid, resource_version } => {
                let from = Version::of(Some(&resource_version));
                let (key, kind) = (key(&name), Kind::Slice);
                let version = Some(resource_version);
                let call = Call::Delete { kind, key: key.clone(), uid: Some(uid), version };
                (call, kind, Some(key), from)
            }
            Write::DeleteEndpoints { name, uid, resource_version } => {
                let from = Version::of(Some(&resource_version));
                let (key, kind) = (key(&name), Kind::Endpoints);
                let version = Some(resource_version);
                let call = Call::Delete { kind, key: key.clone(), uid: Some(uid), version };
                (call, kind, Some(key), from)
            }
        };
        match self.call_for(call, Some(purpose)).await {
            Ok(Answer::Object(object)) => {
                let written =
                    object.meta().name.clone().zip(object.meta().resource_version.clone());
                self.know(object);
                Ok(written)
            }
            Ok(_) => {
                named.iter().for_each(|key| self.know_gone(kind, key, from));
                Ok(None)
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Conflict | Refusal::Absent)
                    && let Some(key) = named
                {
                    if from != Version(0) || refusal != Refusal::Absent {
                        self.was_refused(kind, &key, from);
                    }
                    self.requeue_at(kind, key, from).await;
                }
                Err(refusal)
            }
        }
    }

    fn was_refused(&self, kind: Kind, key: &Key, from: Version) {
        match kind {
            Kind::Endpoints => self.world().refused::<Endpoints>(key, from),
            _ => self.world().refused::<EndpointSlice>(key, from),
        }
    }

    async fn requeue_at(self: &Rc<Self>, kind: Kind, key: Key, from: Version) {
        match self.call(Call::Get(kind, key.clone())).await {
            Ok(Answer::Object(Object::Slice(slice))) => {
                self.world().put_read((*slice).clone(), from);
                self.notice_lists();
            }
            Ok(Answer::Object(Object::Endpoints(object))) => {
                self.world().put_read((*object).clone(), from);
                self.notice_lists();
            }
            Err(Refusal::Absent) => self.know_gone(kind, &key, from),
            _ => {}
        }
    }

    fn know(&self, object: Object) {
        match object {
            Object::Slice(slice) => self.world().put_own((*slice).clone()),
            Object::Endpoints(object) => self.world().put_own((*object).clone()),
            _ => {}
        }
    }

    fn know_gone(&self, kind: Kind, key: &Key, from: Version) {
        match kind {
            Kind::Endpoints => self.world().remove_own::<Endpoints>(key, from),
            _ => self.world().remove_own::<EndpointSlice>(key, from),
        }
    }
}
