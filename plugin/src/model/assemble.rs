//! Puts a registration together from the objects that belong to it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use beatkeeper_api::{
    AdoptedInstance, InstanceState, InstanceStatus, ServiceRegistration, ServiceRegistrationStatus,
    duration, heartbeat, text::plain,
};
use beatkeeper_core::{
    objects::{heartbeat::Origin, registration::Registration},
    vocabulary::{address::Named, key::Key, reason::Reason},
};
use jiff::Timestamp;

use super::{
    findings,
    instance::{FoundPod, InPod, Instance, JudgedBy},
    judge::{self, Known},
    lease::SeenLease,
    publication::{AddressBook, PublishedEndpoints, PublishedService, PublishedSlice},
    registration::{ConditionView, Picture, RegistrationView, Reported},
    store::Store,
};

/// Puts all registrations of a store together, as they are at `now`.
pub fn picture(store: &Store, now: Timestamp) -> Picture {
    let objects = store.registrations.values();
    Picture {
        registrations: objects.map(|object| registration(store, object, now)).collect(),
        unread: store.unread.iter().cloned().collect(),
    }
}

/// Puts one registration together.
pub fn registration(
    store: &Store,
    object: &ServiceRegistration,
    now: Timestamp,
) -> RegistrationView {
    let spec = Registration::validate(object);
    let status = object.status.clone().unwrap_or_default();
    let service_key = Key::new(&*spec.key.namespace, &*spec.service_name);
    let slices = store.slices.get(&service_key);
    let slices = || slices.into_iter().flat_map(|slices| slices.values());
    let book = AddressBook::of(slices());
    let mut shown: Vec<PublishedSlice> = slices().map(PublishedSlice::of).collect();
    shown.sort_by_key(|slice| slice.foreign_manager.is_some());
    let mut view = RegistrationView {
        former_ttl: status.former_ttl.as_deref().and_then(|ttl| duration::parse(ttl).ok()),
        reported: reported(object, &status),
        service: store.services.get(&service_key).map(PublishedService::of),
        endpoints: store.endpoints.get(&service_key).map(PublishedEndpoints::of),
        slices: shown,
        instances: Vec::new(),
        orphans: BTreeSet::new(),
        findings: Vec::new(),
        key: spec.key.clone(),
        service_name: spec.service_name.clone(),
        ttl: spec.ttl,
        interval: spec.interval,
        carrier: object.spec.carrier,
        min_ready: spec.min_ready,
        dry_run: spec.dry_run,
        ending: spec.ending.clone(),
        problems: spec.problems.iter().map(ToString::to_string).collect(),
    };
    let sources = Sources { store, spec: &spec, status: &status, book: &book, now };
    view.instances = sources.instances(&view);
    view.orphans = orphans(&book, &view.instances);
    view.findings = findings::of(&view, &book, store, now);
    view
}

fn reported(object: &ServiceRegistration, status: &ServiceRegistrationStatus) -> Reported {
    let condition =
        |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| ConditionView {
            type_: plain(&condition.type_).into_owned(),
            holds: condition.status == "True",
            reason: plain(&condition.reason).into_owned(),
            message: plain(&condition.message).into_owned(),
            since: condition.last_transition_time.0,
        };
    Reported {
        any: object.status.as_ref().is_some_and(ServiceRegistrationStatus::is_reported),
        current: status.observed_generation >= object.metadata.generation,
        conditions: status.conditions.iter().map(condition).collect(),
        total: usize::try_from(status.total).unwrap_or(0),
        last_change: status.last_change_time.as_ref().map(|time| time.0),
    }
}

/// The addresses in the slices of Beatkeeper that no instance has.
fn orphans(book: &AddressBook, instances: &[Instance]) -> BTreeSet<String> {
    let known: BTreeSet<&str> =
        instances.iter().flat_map(|it| &it.addresses).map(String::as_str).collect();
    book.ours.keys().filter(|address| !known.contains(address.as_str())).cloned().collect()
}

/// What instances are put together from.
struct Sources<'a> {
    store: &'a Store,
    spec: &'a Registration,
    status: &'a ServiceRegistrationStatus,
    book: &'a AddressBook,
    now: Timestamp,
}

/// What is known under one name.
#[derive(Default, Clone, Copy)]
struct Sighting<'a> {
    lease: Option<&'a SeenLease>,
    listed: Option<&'a InstanceStatus>,
    adopted: Option<&'a AdoptedInstance>,
}

impl Sources<'_> {
    /// All instances, ordered by name: those with a Lease, those in the status, and those that are declared.
    fn instances(&self, view: &RegistrationView) -> Vec<Instance> {
        let mut all: BTreeMap<Cow<'_, str>, Sighting<'_>> = BTreeMap::new();
        for lease in self.store.leases.get(&self.spec.key).into_iter().flat_map(|it| it.values()) {
            if !lease.heartbeat.content.deleting {
                all.entry(instance_name(lease, &self.spec.key.name)).or_default().lease =
                    Some(lease);
            }
        }
        for listed in &self.status.instances {
            all.entry(Cow::Borrowed(&listed.name)).or_default().listed = Some(listed);
        }
        for adopted in &self.status.adopted {
            all.entry(Cow::Borrowed(&adopted.name)).or_default().adopted = Some(adopted);
        }
        for name in self.spec.declared.keys() {
            all.entry(Cow::Borrowed(name)).or_default();
        }
        all.into_iter().map(|(name, known)| self.instance(&name, known, view)).collect()
    }

    fn instance(&self, name: &str, known: Sighting<'_>, view: &RegistrationView) -> Instance {
        let Sighting { lease, listed, adopted } = known;
        let content = lease.map(|lease| &lease.heartbeat.content);
        let pod = match content.map(|content| &content.origin) {
            Some(Origin::Pod { name, uid }) => Some(self.pod(name, uid)),
            Some(Origin::Outside) | None => None,
        };
        let addresses = self.addresses(name, known, pod.as_ref());
        let published = self.book.published(&addresses);
        let beat = lease.and_then(|lease| lease.beat);
        let mut instance = Instance {
            name: plain(name).into_owned(),
            state: InstanceState::Waiting,
            reason: Cow::Borrowed(""),
            message: String::new(),
            judged: JudgedBy::Plugin,
            since: None,
            beat,
            carried_after: view.carried_after(),
            zone: self.book.zone(&addresses).map(str::to_owned).or_else(|| {
                let declared = self.spec.declared.get(name);
                declared.and_then(|it| it.zone.clone()).or_else(|| adopted?.zone.clone())
            }),
            addresses,
            pod,
            lease: lease.map(|lease| lease.key.name.clone()),
            note: content.and_then(|content| content.note.clone()),
            version: lease.and_then(|lease| lease.version.clone()),
            published,
        };
        match listed.and_then(|listed| Some((listed, state(&listed.state)?))) {
            Some((listed, state)) => {
                instance.state = state;
                instance.reason = Cow::Owned(plain(&listed.reason).into_owned());
                instance.message = plain(&listed.message).into_owned();
                instance.since = listed.since.as_ref().map(|since| since.0);
                instance.judged = JudgedBy::Operator;
            }
            None => self.judge(&mut instance, known, view),
        }
        instance
    }

    /// Judges an instance that the status does not list.
    fn judge(&self, instance: &mut Instance, known: Sighting<'_>, view: &RegistrationView) {
        if let Some(adopted) = known.adopted {
            let ready = !adopted.not_ready;
            instance.state = if ready { InstanceState::Ready } else { InstanceState::NotReady };
            instance.reason = Cow::Borrowed(Reason::Adopted.as_str());
            return;
        }
        let content = known.lease.map(|lease| &lease.heartbeat.content);
        let (state, reason) = judge::judge(&Known {
            content,
            has_beaten: known.lease.is_some_and(|it| it.heartbeat.token.renewed.is_some()),
            silent: instance.silent(self.now),
            published: instance.published,
            pod: instance.pod.as_ref().and_then(|pod| pod.found.as_ref()),
            ttl: view.longest_ttl(),
            overdue_after: view.overdue_after(),
        });
        instance.state = state;
        instance.reason = Cow::Borrowed(reason.as_str());
        instance.message = match state {
            InstanceState::Cordoned => {
                content.and_then(|it| it.cordoned.clone()).unwrap_or_default()
            }
            _ => instance.note.clone().unwrap_or_default(),
        };
    }

    fn pod(&self, name: &str, uid: &str) -> InPod {
        let found = self.store.pods.get(&Key::new(&*self.spec.key.namespace, name));
        InPod {
            name: name.to_owned(),
            uid: uid.to_owned(),
            found: found.map(|pod| FoundPod {
                uid: pod.uid.clone(),
                node: pod.node.clone(),
                selected: self.spec.selector.as_ref().is_some_and(|it| it.matches(&pod.labels)),
                ready: pod.ready,
                terminal: pod.terminal,
                deleting: pod.deleting,
            }),
        }
    }

    /// The addresses of an instance: those of its Pod, of its declaration, or of its Lease, as the operator takes them.
    fn addresses(&self, name: &str, known: Sighting<'_>, pod: Option<&InPod>) -> Vec<String> {
        if let Some(pod) = pod {
            let found = self.store.pods.get(&Key::new(&*self.spec.key.namespace, &*pod.name));
            if let Some(found) = found.filter(|found| found.uid == pod.uid) {
                return found.ips.iter().map(ToString::to_string).collect();
            }
        }
        if let Some(declared) = self.spec.declared.get(name) {
            return declared.addresses.iter().map(|text| plain(text).into_owned()).collect();
        }
        let of_lease = known.lease.map(|lease| &*lease.heartbeat.content.addresses);
        match of_lease {
            Some(named) if pod.is_none() && !named.is_empty() => named.iter().map(text).collect(),
            _ => {
                let listed = known.listed.map(|listed| listed.addresses.clone());
                listed.or_else(|| Some(vec![known.adopted?.address.clone()])).unwrap_or_default()
            }
        }
    }
}

fn text(named: &Named) -> String {
    match named {
        Named::Address(address) => address.to_string(),
        Named::Other(text) => text.to_string(),
    }
}

/// The name of the instance of a Lease, as the operator gives it.
fn instance_name<'a>(lease: &'a SeenLease, registration: &str) -> Cow<'a, str> {
    match heartbeat::instance_of(&lease.key.name, registration) {
        Some(instance) => Cow::Borrowed(instance),
        None => Cow::Owned(format!("lease/{}", lease.key.name)),
    }
}

fn state(text: &str) -> Option<InstanceState> {
    InstanceState::ALL.into_iter().find(|state| state.as_str() == text)
}
