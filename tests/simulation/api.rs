//! The modelled API server: objects with one rising resourceVersion, conditional writes, and one log of changes
//! per kind for the watches.

use std::{collections::BTreeMap, sync::Arc};

use beatkeeper_api::{
    ServiceRegistration, ServiceRegistrationStatus,
    heartbeat::{self, REGISTRATION_LABEL},
};
use beatkeeper_core::{
    objects::{heartbeat::HeartbeatLease, marks::label},
    replica::leader::{Draft, LeaderLease},
    vocabulary::key::Key,
};
use jiff::Timestamp;

use crate::object::{Kind, Object};

/// A request.
#[derive(Debug, Clone)]
pub enum Call {
    Get(Kind, Key),
    List(Kind),
    /// The Leases with the label of this registration.
    LeasesOf(Key),
    Create(Object),
    /// Succeeds only if the object's resourceVersion is still current.
    Replace(Object),
    Delete {
        kind: Kind,
        key: Key,
        uid: Option<String>,
        version: Option<String>,
    },
    /// A merge patch of renewTime (in microseconds) and optionally of an annotation. `left` is the required
    /// resourceVersion; with `None` there is no condition.
    Beat {
        lease: Key,
        renewed: i64,
        /// leaseDurationSeconds, if it is written with the beat.
        seconds: Option<i32>,
        annotation: Option<(&'static str, String)>,
        left: Option<String>,
    },
    Status {
        registration: Key,
        version: String,
        status: Box<ServiceRegistrationStatus>,
    },
    ReadClaim,
    WriteClaim(Draft),
}

impl Call {
    /// Whether this call writes an object other than a Lease.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Create(object) | Self::Replace(object) => object.kind() != Kind::Lease,
            Self::Delete { kind, .. } => *kind != Kind::Lease,
            Self::Status { .. } => true,
            _ => false,
        }
    }
}

impl Call {
    /// Describes the call in a few words, for the trace.
    pub fn told(&self) -> String {
        match self {
            Self::Create(object) => format!("create {:?} {}", object.kind(), object.key()),
            Self::Replace(object) => {
                format!("replace {:?} {} at {}", object.kind(), object.key(), object.version())
            }
            Self::Delete { kind, key, .. } => format!("delete {kind:?} {key}"),
            Self::Status { registration, version, status } => {
                let states: Vec<String> = status
                    .instances
                    .iter()
                    .map(|one| format!("{} {} {}", one.name, one.state, one.reason))
                    .collect();
                let conditions: Vec<&str> =
                    status.conditions.iter().map(|one| one.reason.as_str()).collect();
                format!("status {registration} at {version}: {states:?} {conditions:?}")
            }
            other => format!("{other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
pub enum Answer {
    Object(Object),
    /// A list, and its position in the log of its kind.
    List(Vec<Object>, usize),
    Claim(Option<LeaderLease>),
    Done,
}

/// Why a request was not executed, or why it is unknown whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Absent,
    Conflict,
    /// An answer 429 or 500, or a refused connection.
    Unavailable,
    TimedOut,
}

pub type Reply = Result<Answer, Refusal>;

/// A change in the log of a kind.
#[derive(Debug, Clone)]
pub enum Change {
    Applied(Object),
    /// The deleted object, with the resourceVersion of its deletion.
    Deleted(Object),
}

/// A change that took place, for the check.
pub struct Took {
    pub before: Option<Object>,
    pub after: Option<Object>,
}

/// The content of a backup.
#[derive(Default, Clone)]
struct Store {
    objects: BTreeMap<Kind, BTreeMap<Key, Object>>,
    version: u64,
    claim: Option<LeaderLease>,
}

/// An earlier state of the store, and the lengths of the logs at that time.
pub struct Backup {
    store: Store,
    logs: BTreeMap<Kind, usize>,
}

/// The distance between two versions. In each history all versions have another remainder modulo this number,
/// so versions of different histories are never equal. Otherwise, an object could have the same version in two
/// histories, and no condition can distinguish these two states.
const STEP: u64 = 16;

#[derive(Default)]
pub struct Api {
    store: Store,
    log: BTreeMap<Kind, Vec<Change>>,
    made: u64,
    restored: u64,
}

impl Api {
    pub fn back_up(&self) -> Backup {
        let logs = self.log.iter().map(|(kind, log)| (*kind, log.len())).collect();
        Backup { store: self.store.clone(), logs }
    }

    /// Goes back to an earlier state. If the position of a watch is beyond the end of the log, the watch gets
    /// neither events nor an error until the log has grown past this position. With `caught_up`, the versions
    /// have reached those of the former history, as after writes by other clients.
    pub fn restore(&mut self, backup: Backup, caught_up: bool) {
        self.restored += 1;
        let version = if caught_up { self.store.version + STEP } else { backup.store.version };
        self.store = backup.store;
        self.store.version = version / STEP * STEP + self.restored % STEP;
        for (kind, log) in &mut self.log {
            log.truncate(backup.logs.get(kind).copied().unwrap_or_default());
        }
    }

    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Object> {
        self.store.objects.get(&kind)?.get(key)
    }

    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.store.objects.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    pub fn log(&self, kind: Kind) -> &[Change] {
        self.log.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// Executes a request. Returns the answer, and the change if there was one.
    pub fn execute(&mut self, call: Call) -> (Reply, Option<Took>) {
        let read = |reply| (reply, None);
        match call {
            Call::Get(kind, key) => {
                read(self.get(kind, &key).cloned().map(Answer::Object).ok_or(Refusal::Absent))
            }
            Call::List(kind) => {
                let all = self.all(kind).filter(|object| object.is_watched()).cloned().collect();
                read(Ok(Answer::List(all, self.log(kind).len())))
            }
            Call::LeasesOf(registration) => {
                let of = |object: &&Object| {
                    let meta = object.meta();
                    meta.namespace.as_deref() == Some(&registration.namespace)
                        && label(meta, REGISTRATION_LABEL) == Some(&registration.name)
                };
                let all = self.all(Kind::Lease).filter(of).cloned().collect();
                read(Ok(Answer::List(all, 0)))
            }
            Call::Create(object) => self.create(object),
            Call::Replace(object) => self.replace(object),
            Call::Delete { kind, key, uid, version } => self.delete(kind, &key, uid, version),
            Call::Beat { lease, renewed, seconds, annotation, left } => {
                self.beat(&lease, renewed, seconds, annotation, left)
            }
            Call::Status { registration, version, status } => {
                let Some(Object::Registration(known)) = self.get(Kind::Registration, &registration)
                else {
                    return read(Err(Refusal::Absent));
                };
                if known.metadata.resource_version.as_ref() != Some(&version) {
                    return read(Err(Refusal::Conflict));
                }
                let mut next: ServiceRegistration = (**known).clone();
                next.status = Some(*status);
                self.replace(Object::Registration(Arc::new(next)))
            }
            Call::ReadClaim => read(Ok(Answer::Claim(self.store.claim.clone()))),
            Call::WriteClaim(draft) => {
                if self.store.claim.as_ref().map(|claim| claim.version.clone()) != draft.replaces {
                    return read(Err(Refusal::Conflict));
                }
                self.store.version += STEP;
                let seconds = u64::try_from(draft.seconds).unwrap_or(0);
                self.store.claim = Some(LeaderLease {
                    version: self.store.version.to_string(),
                    holder: draft.holder,
                    duration: std::time::Duration::from_secs(seconds),
                    transitions: draft.transitions,
                });
                read(Ok(Answer::Claim(self.store.claim.clone())))
            }
        }
    }

    fn create(&mut self, mut object: Object) -> (Reply, Option<Took>) {
        self.made += 1;
        let made = self.made;
        let version = self.store.version + STEP;
        let meta = object.meta_mut();
        if meta.name.is_none() {
            meta.name =
                Some(format!("{}{made:05}", meta.generate_name.as_deref().unwrap_or_default()));
        }
        meta.uid = Some(format!("uid-{made}"));
        meta.resource_version = Some(version.to_string());
        meta.generation = Some(1);
        meta.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            Timestamp::from_second(1_700_000_000 + i64::try_from(made).expect("few"))
                .expect("in range"),
        ));
        if let Object::Service(service) = &mut object {
            let spec = Arc::make_mut(service).spec.get_or_insert_default();
            spec.ip_families.get_or_insert_with(|| vec!["IPv4".to_owned()]);
        }
        if self.get(object.kind(), &object.key()).is_some() {
            return (Err(Refusal::Conflict), None);
        }
        self.store.version = version;
        self.put(None, object)
    }

    fn replace(&mut self, mut object: Object) -> (Reply, Option<Took>) {
        let Some(before) = self.get(object.kind(), &object.key()).cloned() else {
            return (Err(Refusal::Absent), None);
        };
        let meta = object.meta();
        if meta.resource_version.is_some()
            && meta.resource_version != before.meta().resource_version
            || meta.uid.is_some() && meta.uid != before.meta().uid
        {
            return (Err(Refusal::Conflict), None);
        }
        object.meta_mut().uid = before.meta().uid.clone();
        object.meta_mut().resource_version = before.meta().resource_version.clone();
        object.meta_mut().creation_timestamp = before.meta().creation_timestamp.clone();
        // A write that changes nothing is not stored.
        if object.equals(&before) {
            return (Ok(Answer::Object(before)), None);
        }
        self.store.version += STEP;
        object.meta_mut().resource_version = Some(self.store.version.to_string());
        if let (Object::Registration(new), Object::Registration(old)) = (&mut object, &before)
            && new.spec != old.spec
        {
            let generation = old.metadata.generation.unwrap_or(1) + 1;
            Arc::make_mut(new).metadata.generation = Some(generation);
        }
        self.put(Some(before), object)
    }

    fn put(&mut self, before: Option<Object>, object: Object) -> (Reply, Option<Took>) {
        let kind = object.kind();
        match (&before, object.is_watched()) {
            (_, true) => self.log.entry(kind).or_default().push(Change::Applied(object.clone())),
            (Some(before), false) if before.is_watched() => {
                // The watch reports an object that no longer matches the selector as deleted.
                self.log.entry(kind).or_default().push(Change::Deleted(object.clone()));
            }
            _ => {}
        }
        self.store.objects.entry(kind).or_default().insert(object.key(), object.clone());
        (Ok(Answer::Object(object.clone())), Some(Took { before, after: Some(object) }))
    }

    fn delete(
        &mut self,
        kind: Kind,
        key: &Key,
        uid: Option<String>,
        version: Option<String>,
    ) -> (Reply, Option<Took>) {
        let Some(before) = self.get(kind, key).cloned() else {
            return (Err(Refusal::Absent), None);
        };
        let meta = before.meta();
        if uid.is_some() && uid != meta.uid || version.is_some() && version != meta.resource_version
        {
            return (Err(Refusal::Conflict), None);
        }
        self.store.version += STEP;
        self.store.objects.entry(kind).or_default().remove(key);
        let mut deleted = before.clone();
        deleted.meta_mut().resource_version = Some(self.store.version.to_string());
        if before.is_watched() {
            self.log.entry(kind).or_default().push(Change::Deleted(deleted));
        }
        (Ok(Answer::Done), Some(Took { before: Some(before), after: None }))
    }

    fn beat(
        &mut self,
        lease: &Key,
        renewed: i64,
        seconds: Option<i32>,
        annotation: Option<(&'static str, String)>,
        left: Option<String>,
    ) -> (Reply, Option<Took>) {
        let Some(Object::Lease(known)) = self.get(Kind::Lease, lease) else {
            return (Err(Refusal::Absent), None);
        };
        if left.is_some() && known.metadata.resource_version != left {
            return (Err(Refusal::Conflict), None);
        }
        let mut next: HeartbeatLease = (**known).clone();
        let text = heartbeat::renew_time(Timestamp::from_microsecond(renewed).expect("in range"));
        let spec = next.spec.get_or_insert_default();
        spec.renew_time = Some(text);
        spec.lease_duration_seconds = seconds.or(spec.lease_duration_seconds);
        if let Some((name, value)) = annotation {
            next.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value);
        }
        self.replace(Object::Lease(Arc::new(next)))
    }
}
