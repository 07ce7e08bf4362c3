//! The messages, as Protocol Buffers. Numbers of fields are never used for anything else.

use prost::{Message, Oneof};

/// What a replica sends.
#[derive(Clone, PartialEq, Message)]
pub struct DownMessage {
    /// The one kind; `None` for a kind that this version does not know.
    #[prost(oneof = "DownKind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub kind: Option<DownKind>,
}

/// The kinds of messages of a replica.
#[derive(Clone, PartialEq, Oneof)]
pub enum DownKind {
    /// The first message of a stream.
    #[prost(message, tag = "1")]
    Replica(Replica),
    /// [`beatkeeper_core::carriers::frames::Down::Hello`].
    #[prost(message, tag = "2")]
    Hello(DownHello),
    /// The present moment of the replica, in microseconds.
    #[prost(uint64, tag = "3")]
    Tick(u64),
    /// The term in which the replica leads.
    #[prost(uint64, tag = "4")]
    Leads(u64),
    /// A question about the path of the beats.
    #[prost(message, tag = "5")]
    Ask(Ask),
    /// The acknowledgement of a batch.
    #[prost(message, tag = "6")]
    Acknowledge(Acknowledge),
    /// What the leader says about an instance.
    #[prost(message, tag = "7")]
    Verdict(Verdict),
}

/// Who opens the stream.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Replica {
    /// The name of the replica.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// The last batch that the replica has taken in. Both fields are absent if it knows none.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DownHello {
    /// The epoch that the batch belongs to.
    #[prost(fixed64, optional, tag = "1")]
    pub epoch: Option<u64>,
    /// The number of the batch.
    #[prost(uint64, optional, tag = "2")]
    pub batch: Option<u64>,
}

/// A question about the path of the beats.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ask {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub question: u64,
    /// The term of a leader.
    #[prost(uint64, optional, tag = "2")]
    pub term: Option<u64>,
}

/// The acknowledgement of a batch.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Acknowledge {
    /// The number of the batch.
    #[prost(uint64, tag = "1")]
    pub batch: u64,
    /// The term of the leader.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Instances with beats that the leader does not hold.
    #[prost(uint32, repeated, tag = "3")]
    pub not_held: Vec<u32>,
}

/// What the leader says about an instance.
#[derive(Clone, PartialEq, Message)]
pub struct Verdict {
    /// The instance.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The term of the leader.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// What it says; `None` for what this version does not know.
    #[prost(oneof = "VerdictKind", tags = "3, 4, 5")]
    pub kind: Option<VerdictKind>,
}

/// Whether an instance may renew.
#[derive(Clone, PartialEq, Oneof)]
pub enum VerdictKind {
    /// It may.
    #[prost(message, tag = "3")]
    Allowed(Pace),
    /// It may not.
    #[prost(message, tag = "4")]
    Refused(Refusal),
    /// There is no such Lease.
    #[prost(message, tag = "5")]
    Unknown(Unknown),
}

/// The pace of an instance, in milliseconds.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pace {
    /// How long it may be silent.
    #[prost(uint64, tag = "1")]
    pub ttl: u64,
    /// How often it beats.
    #[prost(uint64, tag = "2")]
    pub interval: u64,
}

/// There is no such Lease.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Unknown {}

/// Why an instance may not renew.
#[derive(Clone, PartialEq, Message)]
pub struct Refusal {
    /// The reason in words. A gateway that does not know the kind tells these.
    #[prost(string, tag = "1")]
    pub text: String,
    /// The reason.
    #[prost(oneof = "RefusalKind", tags = "2, 3, 4")]
    pub kind: Option<RefusalKind>,
}

/// The reasons.
#[derive(Clone, PartialEq, Oneof)]
pub enum RefusalKind {
    /// The token is of another namespace.
    #[prost(message, tag = "2")]
    OtherNamespace(OtherNamespace),
    /// Another Pod owns the Lease.
    #[prost(message, tag = "3")]
    OtherPod(OtherPod),
    /// The user lacks a right.
    #[prost(message, tag = "4")]
    LacksRight(LacksRight),
}

/// The token is of another namespace.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OtherNamespace {
    /// The user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The namespace of the Lease.
    #[prost(string, tag = "2")]
    pub namespace: String,
}

/// Another Pod owns the Lease.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OtherPod {
    /// The name of the Lease.
    #[prost(string, tag = "1")]
    pub lease: String,
    /// The Pod that owns the Lease.
    #[prost(string, tag = "2")]
    pub owner: String,
    /// The Pod of the token, or that there is none.
    #[prost(string, tag = "3")]
    pub found: String,
}

/// The user lacks a right.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LacksRight {
    /// The user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The verb.
    #[prost(string, tag = "2")]
    pub verb: String,
    /// The name of the Lease.
    #[prost(string, tag = "3")]
    pub lease: String,
}

/// What a gateway sends.
#[derive(Clone, PartialEq, Message)]
pub struct UpMessage {
    /// The one kind; `None` for a kind that this version does not know.
    #[prost(oneof = "UpKind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<UpKind>,
}

/// The kinds of messages of a gateway.
#[derive(Clone, PartialEq, Oneof)]
pub enum UpKind {
    /// The first message of a stream.
    #[prost(message, tag = "1")]
    Hello(UpHello),
    /// What a number stands for.
    #[prost(message, tag = "2")]
    Introduce(Introduce),
    /// What the replica lacks.
    #[prost(message, tag = "3")]
    Since(Since),
    /// The beats since the last batch.
    #[prost(message, tag = "4")]
    Batch(Batch),
    /// The gateway ends.
    #[prost(message, tag = "5")]
    Leaving(Leaving),
}

/// Who speaks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UpHello {
    /// The uid of the Pod of the gateway.
    #[prost(string, tag = "1")]
    pub pod: String,
    /// Its epoch.
    #[prost(fixed64, tag = "2")]
    pub epoch: u64,
    /// The highest term that it knows.
    #[prost(uint64, optional, tag = "3")]
    pub term: Option<u64>,
}

/// What a number stands for.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Introduce {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The namespace of the Lease.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The name of the Lease.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The user of the token.
    #[prost(string, tag = "4")]
    pub user: String,
    /// The Pod that the token is bound to.
    #[prost(message, optional, tag = "5")]
    pub pod: Option<BoundPod>,
    /// Whether a leader has allowed it to renew.
    #[prost(bool, tag = "6")]
    pub allowed: bool,
}

/// The Pod that a token is bound to.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BoundPod {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its uid.
    #[prost(string, tag = "2")]
    pub uid: String,
}

/// What the replica lacks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Since {
    /// The last batch that it covers.
    #[prost(uint64, tag = "1")]
    pub up_to: u64,
    /// The instances.
    #[prost(uint32, repeated, tag = "2")]
    pub ids: Vec<u32>,
}

/// The beats since the last batch.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Batch {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// The latest tick of the replica.
    #[prost(uint64, tag = "2")]
    pub echo: u64,
    /// The question that it answers.
    #[prost(uint64, optional, tag = "3")]
    pub answers: Option<u64>,
    /// The instances.
    #[prost(uint32, repeated, tag = "4")]
    pub ids: Vec<u32>,
}

/// The gateway ends.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Leaving {}
