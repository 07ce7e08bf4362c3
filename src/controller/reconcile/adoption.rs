//! Adoption: takes over endpoints that people have written by hand for the Service, if the registration
//! has the annotation for it.
//!
//! The takeover causes no gap, and a crash after any write loses no instance. It has four steps:
//!
//! 1. The adopted instances are written to the status.
//! 2. The slices get the operator's mark. So the operator owns them as they are.
//! 3. The plan completes the operator's slices.
//! 4. When the slices hold all wanted addresses, the Endpoints object gets the operator's marks. This ends its
//!    mirrored slices.
//!
//! Each run does the steps that are left. The first two contribute to the inputs of the decision, and the last one
//! is the end of the plan.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::AdoptedInstance;
use kube::ResourceExt;

use super::{
    gathering::Gathering,
    subject::Subject,
    takeovers::{LOOK_AGAIN, Takeovers},
};
use crate::controller::{clock::Clock, cluster::Cluster, states::States};
use beatkeeper_core::{
    adoption::{
        adopted::{Adopted, Adoption},
        plan::{self, AdoptionPlan},
        refusal::AdoptionRefusal,
        scene::{AdoptionInputs, ForeignObjects},
        verdicts,
    },
    decide::verdict::Verdict,
    inputs::{
        Inputs, preconditions, snapshot,
        stall::{ConflictingObjects, Stall},
    },
    objects::{decode::Unreadable, registration::Registration, service::ServiceView},
    vocabulary::{
        address::OutsideRanges, key::Key, monotonic_time::MonotonicTime, version::Version,
    },
};

/// After the selector of a Service was removed, writes that the cluster's own controllers had under way arrive
/// within this time.
const SELECTOR_GRACE: Duration = Duration::from_secs(2);
/// Adds what is adopted to the inputs.
#[derive(Clone)]
pub(crate) struct Adopter {
    pub(crate) takeovers: Takeovers,
    pub(crate) clock: Clock,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) states: Arc<States>,
    pub(crate) ranges: OutsideRanges,
}

impl Adopter {
    /// Adds the adopted instances to the inputs. Returns what others have left for the Service, and the adopted
    /// instances, if it may be taken over now. Client required.
    pub(crate) async fn look(
        &self,
        subject: &Subject,
        gathering: &mut Gathering,
    ) -> Option<(Vec<Adopted>, ForeignObjects)> {
        let registration = &subject.registration;
        let adopted = self.remembered(subject);
        let inputs = &mut gathering.inputs;
        inputs.adoption = self.sort_out(&adopted, registration);
        let ConflictingObjects {
            foreign_slice,
            foreign_endpoints,
            left_by_cluster,
            elder,
            unreadable,
        } = &inputs.snapshot.conflicts;
        if unreadable.is_some() {
            return None;
        }
        if let Some(pod) = self.unread_pod(&adopted, registration) {
            // A Pod that cannot be read may still exist.
            inputs.stall = Some(Stall::unreadable(&pod));
            inputs.snapshot.conflicts.unreadable = Some(pod);
            return None;
        }
        let left_by_cluster = *left_by_cluster;
        let cleared = ConflictingObjects { elder: elder.clone(), ..ConflictingObjects::default() };
        let in_the_way = foreign_slice.is_some() || *foreign_endpoints;
        let service = inputs.service.clone();
        let selector_grace = self.selector_grace(registration, service.as_deref());
        let may_be_taken = registration.consent.is_given() || left_by_cluster;
        if !may_be_taken || !in_the_way || service.is_none() {
            return None;
        }
        // There may be another reason for a stall, besides the objects to be taken over.
        let otherwise = preconditions::stall(registration, service.as_deref(), &cleared);
        if otherwise.is_some() {
            inputs.stall = otherwise;
            return None;
        }
        if let Some(until) = selector_grace.filter(|_| left_by_cluster) {
            inputs.stall = Some(Stall::letting_go(registration));
            gathering.again_at = Some(until);
            return None;
        }
        match self.takeovers.read(registration).await {
            Ok(foreign) => Some((adopted, foreign)),
            Err(error) => {
                gathering.fail_adoption(error.into());
                None
            }
        }
    }

    /// Takes over what may be taken over, and adds it to the inputs (client required). In a dry run it only adds it.
    /// The rest is the last step of the plan ([`Takeovers::complete`]).
    pub(crate) async fn take_over(
        &self,
        subject: &Subject,
        adopted: &[Adopted],
        foreign: &ForeignObjects,
        verdicts: &[Verdict],
        gathering: &mut Gathering,
    ) {
        let registration = &subject.registration;
        let takeover = match self.takeover(subject, adopted, foreign, verdicts, &gathering.inputs) {
            Ok(takeover) => takeover,
            Err(refusal) => {
                gathering.inputs.stall = Some(Stall::adoption_refused(&refusal));
                gathering.again_at = Some(self.clock.now() + LOOK_AGAIN);
                return;
            }
        };
        if registration.dry_run {
            return dry_run(registration, &mut gathering.inputs, takeover);
        }
        let adoption = &gathering.inputs.adoption;
        if let Err(error) = self.takeovers.take(registration, adoption, &takeover).await {
            return gathering.fail_adoption(error);
        }
        let inputs = &mut gathering.inputs;
        inputs.snapshot = snapshot::take(registration, &self.cluster.lock());
        inputs.adoption.instances.extend(takeover.newcomers);
        inputs.adoption.endpoints = takeover.endpoints;
        inputs.adoption.leftovers = takeover.leftovers;
        inputs.stall = None;
    }

    fn takeover(
        &self,
        subject: &Subject,
        adopted: &[Adopted],
        foreign: &ForeignObjects,
        verdicts: &[Verdict],
        inputs: &Inputs,
    ) -> Result<AdoptionPlan, AdoptionRefusal> {
        let registration = &subject.registration;
        let pod = |name: &str| Key::new(&registration.key.namespace, name);
        let scene = AdoptionInputs {
            registration,
            families: inputs.families(),
            ports: &preconditions::common_ports(registration, inputs.service.as_deref()),
            ranges: &self.ranges,
            owner_of: &|address| self.cluster.lock().owner_of_address(address),
            left_by_cluster: inputs.snapshot.conflicts.left_by_cluster,
            pod: &|name| self.cluster.lock().pod(&pod(name)),
            is_unread: &|name| self.cluster.lock().unreadable_pod(&pod(name)).is_some(),
            adopted,
            verdicts,
            wall: self.clock.clocks().wall,
        };
        plan::plan(&scene, foreign)
    }

    /// Returns a Pod of an adopted instance that cannot be read, if there is one.
    fn unread_pod(&self, adopted: &[Adopted], registration: &Registration) -> Option<Unreadable> {
        let cluster = self.cluster.lock();
        let pods = adopted.iter().filter_map(|adopted| adopted.pod());
        let keys = pods.map(|(name, _)| Key::new(&registration.key.namespace, name));
        keys.into_iter().find_map(|key| cluster.unreadable_pod(&key).cloned())
    }

    /// Until when the cluster's own controllers may still write what they decided while the Service had a selector.
    /// Returns None after that time, and while the Service has a selector.
    fn selector_grace(
        &self,
        registration: &Registration,
        service: Option<&ServiceView>,
    ) -> Option<MonotonicTime> {
        let now = self.clock.now();
        let service = service?;
        self.states.with(&registration.key, &registration.uid, |state| {
            if service.selects {
                state.without_selector = None;
                return None;
            }
            let (uid, since) = state.without_selector.get_or_insert((service.uid.clone(), now));
            if *uid != service.uid {
                (*uid, *since) = (service.uid.clone(), now);
            }
            let until = *since + SELECTOR_GRACE;
            (now < until).then_some(until)
        })
    }

    /// The adopted instances from the newest known source: the watch, or the last write of this process.
    fn remembered(&self, subject: &Subject) -> Vec<Adopted> {
        let Subject { object, registration, .. } = subject;
        let seen = Version::of(object.metadata.resource_version.as_deref());
        let status = object.status.iter().flat_map(|status| &status.adopted);
        self.states.with(&registration.key, &registration.uid, |state| match &state.adopted {
            Some((written, adopted)) if *written > seen => {
                adopted.iter().filter_map(Adopted::read).collect()
            }
            _ => status.filter_map(Adopted::read).collect(),
        })
    }

    /// Selects the adopted instances that stay. An instance that has beaten since does not stay, nor does one
    /// without the consent. In a dry run no instance is removed for lack of consent, since the consent may be given
    /// again before the dry run ends.
    fn sort_out(&self, adopted: &[Adopted], registration: &Registration) -> Adoption {
        if adopted.is_empty() {
            return Adoption::default();
        }
        let weaned = self.states.with(&registration.key, &registration.uid, |state| {
            state.weaned.retain(|entry| adopted.iter().any(|it| it.entry == *entry));
            state.weaned.clone()
        });
        let (instances, withdrawn): (Vec<_>, Vec<_>) = adopted
            .iter()
            .filter(|it| !weaned.contains(&it.entry))
            .cloned()
            .partition(|it| it.stays(&registration.consent));
        if registration.dry_run {
            return Adoption { instances, ..Adoption::default() };
        }
        let ended = withdrawn.into_iter().map(|it| it.entry).chain(weaned).collect();
        Adoption { instances, ended, ..Adoption::default() }
    }

    /// Remembers the adopted instances that have beaten. Returns the entries to be removed from the status.
    pub(crate) fn ended(
        &self,
        registration: &Registration,
        inputs: &Inputs,
        verdicts: &[Verdict],
    ) -> Vec<AdoptedInstance> {
        let weaned = verdicts::weaned(&inputs.adoption.instances, verdicts);
        let mut ended = inputs.adoption.ended.clone();
        if !weaned.is_empty() && !registration.dry_run {
            ended.extend(weaned.iter().cloned());
            self.states.with(&registration.key, &registration.uid, |state| {
                state.weaned.extend(weaned);
            });
        }
        ended
    }
}

fn dry_run(registration: &Registration, inputs: &mut Inputs, takeover: AdoptionPlan) {
    let AdoptionPlan { newcomers, mut slices, leftovers, endpoints } = takeover;
    slices.iter_mut().for_each(|slice| plan::mark_slice(&registration.owner(), slice));
    let slices_told = slices.iter().map(|slice| format!("take over slice {}", slice.name_any()));
    let endpoints_told =
        endpoints.iter().map(|object| format!("take over endpoints {}", object.name_any()));
    let leftovers_told =
        leftovers.iter().map(|slice| format!("take the place of slice {}", slice.name_any()));
    inputs.announced.extend(slices_told.chain(endpoints_told).chain(leftovers_told));
    inputs.adoption.instances.extend(newcomers);
    inputs.snapshot.slices.extend(slices.into_iter().map(Into::into));
    inputs.stall = None;
}
