//! The content of a heartbeat Lease, parsed once when it is read.

use std::time::Duration;

use beatkeeper_api::{
    heartbeat::{self, Health, UnknownHealth},
    text::plain_cut,
};
use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    objects::{decode::Lenient, salvage},
    vocabulary::{
        address::Named,
        version::{Token, Version},
    },
};

/// A Lease as this operator reads it: only the fields that it needs, and parsed leniently.
///
/// The API server accepts times that `MicroTime` cannot hold: the last hours of year 9999, and later ones written with
/// an offset. Each beat also brings managed fields, which are most of a Lease; they are not kept.
#[derive(kube::Resource, Debug, Clone, Default)]
#[resource(inherit = "Lease")]
pub struct HeartbeatLease {
    /// The metadata: name, namespace, uid, resourceVersion, the operator's label and annotations, owners,
    /// creationTimestamp and deletionTimestamp.
    pub metadata: ObjectMeta,
    /// The spec.
    pub spec: Option<HeartbeatSpec>,
}

impl<'de> Deserialize<'de> for HeartbeatLease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lenient::deserialize(deserializer).map(|Lenient(lease)| lease)
    }
}

impl HeartbeatLease {
    /// Makes the Lease from the fields that were kept. A field of the wrong type counts as absent. The exception is
    /// renewTime, where any other value is another beat.
    ///
    /// # Errors
    /// If the name cannot be read.
    pub(crate) fn of_kept(kept: &Value) -> Result<Self, serde_json::Error> {
        let metadata = &kept["metadata"];
        String::deserialize(&metadata["name"])?;
        let metadata = ObjectMeta::deserialize(metadata)
            .unwrap_or_else(|_| salvage::fields(metadata, |_, _| {}));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let spec = &kept["spec"];
        let renew_time = &spec["renewTime"];
        let spec = spec.is_object().then(|| HeartbeatSpec {
            holder_identity: text(&spec["holderIdentity"]),
            renew_time: text(renew_time)
                .or_else(|| (!renew_time.is_null()).then(|| renew_time.to_string())),
            lease_duration_seconds: spec["leaseDurationSeconds"]
                .as_i64()
                .and_then(|seconds| i32::try_from(seconds).ok()),
        });
        Ok(Self { metadata, spec })
    }
}

/// The fields of a Lease's spec that make a heartbeat.
#[derive(Debug, Clone, Default)]
pub struct HeartbeatSpec {
    /// The identity of the process that beats.
    pub holder_identity: Option<String>,
    /// The time of its last beat by its own clock, as text.
    pub renew_time: Option<String>,
    /// The number of seconds within which it intends to beat again.
    pub lease_duration_seconds: Option<i32>,
}

/// Where an instance runs. Usually the Lease's owner reference decides; only if the Lease has no owner references at
/// all, its Pod annotation does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Outside the cluster.
    Outside,
    /// In this Pod of the Lease's own namespace.
    Pod {
        /// Name of the Pod.
        name: String,
        /// Uid of the Pod.
        uid: String,
    },
}

/// The content of a Lease apart from its beats. It seldom changes, and each change causes a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseContent {
    /// spec.holderIdentity.
    pub holder: Option<String>,
    /// Where the instance runs.
    pub origin: Origin,
    /// Whether the garbage collector deletes the Lease when its owner is gone.
    pub owned: bool,
    /// The health that the instance reports, or the value if the contract does not define it.
    pub health: Result<Health, UnknownHealth>,
    /// Free text from the instance, cut to a bounded length.
    pub note: Option<String>,
    /// The addresses as written in the Lease, for an outside instance that is not declared.
    pub addresses: Vec<Named>,
    /// The process that holds the name, and a further one that claims it and stands by, each as it describes itself.
    pub rival: Option<String>,
    /// Why a person has cordoned the instance, if it is cordoned.
    pub cordoned: Option<String>,
    /// Whether the Lease has been deleted and waits for finalizers. It then counts as deleted.
    pub deleting: bool,
    /// spec.leaseDurationSeconds: the ttl that the client knows. After an edit, it shows which instances follow the
    /// new ttl (L8). The sweep also uses it for Leases without a registration, because their ttl is not known
    /// otherwise.
    pub duration: Option<Duration>,
}

/// A heartbeat Lease as it was read by the watch or by a live read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Name of the Lease.
    pub lease: String,
    /// Its registration, from its label; `None` if the label is gone.
    pub registration: Option<String>,
    /// The token, which changes with each beat.
    pub token: Token,
    /// The resourceVersion at which the Lease was read. An older version never replaces a newer one.
    pub version: Version,
    /// Whether the beat is much older than the Lease itself. In this case, the Lease was made from a copy, and not by
    /// the process of the instance.
    pub second_hand: bool,
    /// The other content of the Lease.
    pub content: LeaseContent,
}

/// How far the clock of a process may be behind the API server's clock if its first beat is to publish it. A process
/// that is further behind needs two beats.
pub const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(300);

/// How many addresses a Lease may name. The rest is ignored, because no instance has more IP families.
const ADDRESSES_MAX: usize = 8;

/// The longest text that is accepted as an address, in characters.
const ADDRESS_MAX: usize = 64;

/// How much of a process's description of itself is shown, in characters.
const RIVAL_MAX: usize = 100;

/// The longest name of an object, a DNS subdomain, in characters.
const NAME_MAX: usize = 253;

impl Heartbeat {
    /// Reads a Lease. It never fails, whatever the Lease contains.
    pub fn read(lease: &HeartbeatLease) -> Self {
        let metadata = &lease.metadata;
        let spec = lease.spec.as_ref();
        let renew_time = spec.and_then(|spec| spec.renew_time.as_deref());
        let beat_at = renew_time.and_then(|text| text.parse::<Timestamp>().ok());
        let annotation = |name: &str| -> Option<&str> {
            metadata.annotations.as_ref()?.get(name).map(String::as_str)
        };
        Self {
            lease: metadata.name.clone().unwrap_or_default(),
            registration: metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(heartbeat::REGISTRATION_LABEL))
                .filter(|name| !name.is_empty())
                .cloned(),
            token: Token {
                uid: metadata.uid.as_deref().unwrap_or_default().into(),
                renewed: renew_time.map(|text| renewed(text, beat_at)),
            },
            version: Version::of(metadata.resource_version.as_deref()),
            second_hand: is_second_hand(beat_at, metadata),
            content: LeaseContent {
                holder: spec
                    .and_then(|spec| spec.holder_identity.clone())
                    .filter(|holder| !holder.is_empty())
                    .map(|holder| bounded(&holder)),
                origin: origin_of(lease),
                owned: metadata.owner_references.as_ref().is_some_and(|all| !all.is_empty()),
                health: annotation(heartbeat::HEALTH_ANNOTATION)
                    .map_or(Ok(Health::Passing), str::parse),
                note: annotation(heartbeat::NOTE_ANNOTATION)
                    .filter(|note| !note.is_empty())
                    .map(|note| plain_cut(note, heartbeat::NOTE_MAX)),
                addresses: annotation(heartbeat::ADDRESSES_ANNOTATION)
                    .into_iter()
                    .flat_map(|list| list.split(','))
                    .map(str::trim)
                    .filter(|address| !address.is_empty())
                    .take(ADDRESSES_MAX)
                    .map(|address| Named::from(&*plain_cut(address, ADDRESS_MAX)))
                    .collect(),
                rival: annotation(heartbeat::RIVAL_ANNOTATION)
                    .map(|rival| rivals(rival, annotation(heartbeat::INCARNATION_ANNOTATION))),
                cordoned: annotation(heartbeat::CORDONED_ANNOTATION)
                    .map(|reason| plain_cut(reason, heartbeat::NOTE_MAX)),
                deleting: metadata.deletion_timestamp.is_some(),
                duration: spec
                    .and_then(|spec| spec.lease_duration_seconds)
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .filter(|seconds| *seconds > 0)
                    .map(Duration::from_secs),
            },
        }
    }
}

/// Whether the beat in the Lease is older than the Lease. This never decides whether an instance is alive, but only
/// whether the appearance of a Lease is a beat. A time that cannot be parsed decides nothing.
fn is_second_hand(beat_at: Option<Timestamp>, metadata: &ObjectMeta) -> bool {
    let created = metadata.creation_timestamp.as_ref().map(|created| created.0);
    let age = beat_at.zip(created).map(|(beat_at, created)| created.duration_since(beat_at));
    // `None` if the beat is later than the creation.
    age.and_then(|age| age.try_into().ok()).is_some_and(|age: Duration| age > CLOCKS_DIFFER_BY)
}

/// Converts a renewTime to a number that changes with it.
fn renewed(text: &str, read: Option<Timestamp>) -> i64 {
    // FNV-1a: the digest must be the same in every version of this program, because tokens are kept in the status.
    let digest = || {
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    };
    read.map_or_else(|| digest().cast_signed(), Timestamp::as_microsecond)
}

fn origin_of(lease: &HeartbeatLease) -> Origin {
    let owners = lease.metadata.owner_references.as_deref().unwrap_or_default();
    let pod = owners.iter().find(|owner| owner.kind == "Pod" && owner.api_version == "v1");
    let named = pod.map(|pod| (pod.name.as_str(), pod.uid.as_str()));
    named.or_else(|| without_its_owner(lease)).map_or(Origin::Outside, |(name, uid)| Origin::Pod {
        name: bounded(name),
        uid: bounded(uid),
    })
}

/// The Pod of a Lease that has lost its owner reference, as after a restore. The Lease still belongs to a Pod. As an
/// outside instance, it would be refused because it has no address.
fn without_its_owner(lease: &HeartbeatLease) -> Option<(&str, &str)> {
    if !lease.metadata.owner_references.as_deref().unwrap_or_default().is_empty() {
        return None;
    }
    let uid = lease.metadata.annotations.as_ref()?.get(heartbeat::POD_UID_ANNOTATION)?;
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!uid.is_empty() && !holder.is_empty()).then_some((holder, uid))
}

/// Cuts a text that the API server does not limit, to one character more than the longest possible name. A text that
/// was cut then equals no name, and is small enough to keep and to quote.
fn bounded(text: &str) -> String {
    // A text that needs an escape is not the name of an object, with or without the escape.
    plain_cut(text, NAME_MAX + 1)
}

/// The processes that claim the name, as text for users. The rival's annotation ends in a time that changes whenever
/// the rival reads the Lease. That time is left out, so that it does not cause a change each time.
fn rivals(rival: &str, holder: Option<&str>) -> String {
    let rival = rival.split(';').next().unwrap_or_default().trim();
    let holder = holder
        .map_or("a process that does not say which".into(), |holder| plain_cut(holder, RIVAL_MAX));
    format!("held by {holder}, and also claimed by {}", plain_cut(rival, RIVAL_MAX))
}
