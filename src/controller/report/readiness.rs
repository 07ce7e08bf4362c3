//! Tells Pods with the readiness gate whether they are published.
//!
//! The condition is written to the status of the Pod, beside the reconciliations and with the background calls.
//! So even many such Pods delay no prune. It is written only on change (P4), and only if the Pod still has the
//! same uid.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{InstanceState, registration::PUBLISHED_GATE};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Resource,
    api::{Patch, PatchParams, Request},
    runtime::events::{Event, EventType},
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::controller::{
    api::ApiServer,
    clock::Clock,
    cluster::Cluster,
    host::Process,
    liveness::Liveness,
    report::{event_recorder::EventRecorder, gates::ReadinessGates},
};
use beatkeeper_core::{
    decide::verdict::Verdict,
    inputs::Inputs,
    objects::{heartbeat::Origin, pod::PodView, registration::Registration},
    report::{
        applied::Applied,
        readiness_gates::{Claimant, Word},
    },
    vocabulary::{
        key::Key,
        reason::{ConditionReason, Reason},
    },
};

/// How many Pods are written at the same time.
const SIDE_BY_SIDE: usize = 4;
/// If the right to write their status is missing, the Pods of a namespace are skipped for this time.
const WITHOUT_RIGHT: Duration = Duration::from_secs(60);
/// The pause before a retry after another error.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// Tells Pods with the readiness gate whether they are published.
#[derive(Clone)]
pub(crate) struct Readiness {
    pub(crate) dry_run: bool,
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) process: Process,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) gates: Arc<ReadinessGates>,
    pub(crate) events: Arc<EventRecorder>,
}

impl Readiness {
    /// Notes the conditions for the Pods with the gate, after the decision of a registration has been carried out.
    pub(crate) fn report(
        &self,
        registration: &Registration,
        inputs: &Inputs,
        verdicts: &[Verdict],
        applied: &Applied,
    ) {
        let namespace = &registration.key.namespace;
        let now = self.clock.now();
        if registration.dry_run || !self.cluster.lock().has_gated(namespace) {
            self.gates.forget(&registration.key);
            return;
        }
        let word = |verdict: &Verdict| {
            let lease = &verdict.lease.as_ref()?.decision.lease;
            let (name, uid) =
                match &self.liveness.index().record(&registration.key, lease)?.content.origin {
                    Origin::Pod { name, uid } => (name.clone(), uid.clone()),
                    Origin::Outside => return None,
                };
            let pod = Key::new(namespace, name);
            self.cluster.lock().pod(&pod)?.gate.as_ref()?;
            let published = verdict.is_published() && verdict.is_at(applied.published.all());
            let reason = match (published && is_ready_but_for_its_kubelet(verdict), &inputs.stall) {
                (true, _) => return Some((pod, uid, said(registration, true, "Published"))),
                (false, Some(stall)) if !published => stall.reason.as_str(),
                (false, _) if !published && applied.failure.is_some() => {
                    ConditionReason::WriteFailed.as_str()
                }
                (false, _) if verdict.state == InstanceState::Ready => "NotPublishedYet",
                (false, _) => verdict.reason.as_str(),
            };
            Some((pod, uid, said(registration, false, reason)))
        };
        let words: Vec<_> = verdicts.iter().filter_map(word).collect();
        self.gates.lock().report(&registration.key, words, now);
        self.gates.notify();
    }

    /// Writes the conditions until `over` is cancelled, and then waits for the running writes.
    pub(crate) async fn run(self, over: CancellationToken) {
        if self.dry_run {
            // This task must not end before the term: a part that ends by itself ends the term.
            return over.cancelled().await;
        }
        let mut writes = JoinSet::new();
        while !over.is_cancelled() {
            let now = self.clock.now();
            let next = self.gates.lock().next(now);
            match next {
                Ok(key) => {
                    let Some((pod, word)) = self.judge(&key) else { continue };
                    while writes.len() >= SIDE_BY_SIDE {
                        let _ = writes.join_next().await;
                    }
                    writes.spawn(self.process.task(self.clone().set_condition(key, pod, word)));
                }
                Err(due) => {
                    let wait = due.map_or(Duration::MAX, |due| due.since(now));
                    let news = self.gates.changed();
                    let _ = over.run_until_cancelled(tokio::time::timeout(wait, news)).await;
                }
            }
        }
        while writes.join_next().await.is_some() {}
    }

    /// The condition that a Pod must get, if any.
    fn judge(&self, key: &Key) -> Option<(Arc<PodView>, Word)> {
        let beating = self.liveness.index().registrations_of_pod(key);
        let pod = self.cluster.lock().pod(key);
        let Some(pod) = pod else {
            // The Pod was deleted while a decision mentioned it. No later event would remove it from the gates.
            self.gates.lock().forget_pod(key);
            return None;
        };
        if pod.deleting || pod.terminal {
            return None;
        }
        let claimants = {
            let cluster = self.cluster.lock();
            let beats = |name: &String| beating.iter().any(|key| key.name == *name);
            let names = cluster.claimants(&key.namespace, &pod.labels, &beating).into_iter();
            let claimant = |registration| Claimant { beats: beats(&registration), registration };
            names.map(claimant).collect::<Vec<_>>()
        };
        let word = self.gates.lock().wanted(key, &pod, &claimants)?;
        Some((pod, word))
    }

    async fn set_condition(self, key: Key, pod: Arc<PodView>, word: Word) {
        let Some(_turn) = self.api.background_permit().await else { return };
        let patch = json!({
            "metadata": { "uid": pod.uid },
            "status": { "conditions": [self.condition(&pod, &word)] },
        });
        // The answer is not parsed, since the operator needs no other field of the Pod.
        let request = Request::new(Pod::url_path(&(), Some(&key.namespace)));
        let patch = Patch::Strategic(patch);
        let request =
            request.patch_subresource("status", &key.name, &PatchParams::default(), &patch);
        let write = async {
            let request = request.map_err(kube::Error::BuildRequest)?;
            self.api.client.request_text(request).await
        };
        let doing = || format!("set the readiness gate of Pod {key}");
        let result = self.api.write(doing, write).await;
        let now = self.clock.now();
        self.gates.lock().told(&key, now);
        match result {
            Ok(_) => {
                tracing::info!(pod = %key, reason = %word.reason, published = word.published, "set the readiness gate")
            }
            // The Pod was deleted or created again. The watch shows it.
            Err(error) if error.is_conflict() => {}
            Err(_) if !self.api.may_write() => {}
            Err(error) => {
                let forbidden = error.is_forbidden();
                tracing::warn!(%error, "cannot set the readiness gate of a Pod; will try again");
                if forbidden {
                    self.gates.lock().rest(&key.namespace, WITHOUT_RIGHT, now);
                    self.announce(&key, &pod).await;
                }
                let again = now + AFTER_ERROR;
                self.gates.check_at(&key, again);
            }
        }
    }

    fn condition(&self, pod: &PodView, word: &Word) -> serde_json::Value {
        let mut condition = json!({
            "type": PUBLISHED_GATE,
            "status": if word.published { "True" } else { "False" },
            "reason": word.reason,
            "message": word.message(),
        });
        if pod.gate.as_ref().and_then(|gate| gate.published) != Some(word.published) {
            let wall = self.clock.clocks().wall;
            let seconds = jiff::Timestamp::from_second(wall.as_second()).unwrap_or(wall);
            condition["lastTransitionTime"] = json!(seconds.to_string());
        }
        condition
    }

    /// Sends an event about a Pod with the gate that says which right is missing.
    async fn announce(&self, key: &Key, pod: &PodView) {
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "ReadinessGateForbidden".to_owned(),
            note: Some(format!(
                "spec.readinessGates asks for {PUBLISHED_GATE}, and the operator may not set it, so this Pod \
                 never becomes Ready: allow it to patch pods/status (chart value readinessGate.enabled), or \
                 take the gate out"
            )),
            action: "Publish".to_owned(),
            secondary: None,
        };
        let recorder = self.events.recorder();
        let doing = || format!("send an event about Pod {key}");
        if let Err(error) = self.api.write(doing, recorder.publish(&event, &regarding)).await {
            tracing::warn!(%error, "an event is lost");
        }
    }
}

/// Whether the gate may be open. A Pod is not ready before its gate is open, and the kubelet reports the
/// readiness of its containers in the condition Ready. So neither may keep the gate closed. An instance that
/// drains keeps its condition.
fn is_ready_but_for_its_kubelet(verdict: &Verdict) -> bool {
    match verdict.state {
        InstanceState::Ready | InstanceState::Held | InstanceState::Draining => true,
        InstanceState::NotReady => verdict.reason == Reason::PodNotReady,
        _ => false,
    }
}

fn said(registration: &Registration, published: bool, reason: &'static str) -> Word {
    let registration = Some(registration.key.name.clone()).filter(|_| !published);
    Word { published, reason: reason.into(), registration }
}
