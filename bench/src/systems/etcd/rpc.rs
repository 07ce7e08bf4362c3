//! The required calls of etcd's v3 API, with the field numbers of its rpc.proto and kv.proto.

use anyhow::Result;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseKeepAliveResponse {
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// 0 for a lost lease.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(int64, tag = "3")]
    lease: i64,
}

/// An answer of which no field is read.
#[derive(Clone, PartialEq, Message)]
struct Ignored {}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(enumeration = "EventType", tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    Put = 0,
    Delete = 1,
}

/// A connection; cheap to clone.
#[derive(Clone)]
pub struct Rpc(Grpc<Channel>);

impl Rpc {
    pub fn new(channel: Channel) -> Self {
        Self(Grpc::new(channel))
    }

    /// Grants a lease with a ttl in seconds.
    pub async fn lease_grant(&self, ttl: i64) -> Result<i64> {
        let path = "/etcdserverpb.Lease/LeaseGrant";
        let granted: LeaseGrantResponse = self.call(path, LeaseGrantRequest { ttl }).await?;
        Ok(granted.id)
    }

    /// Ends a lease, which also deletes its keys.
    pub async fn lease_revoke(&self, id: i64) -> Result<()> {
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        let Ignored {} = self.call(path, LeaseRevokeRequest { id }).await?;
        Ok(())
    }

    /// Writes a key that exists as long as its lease.
    pub async fn put(&self, key: &str, lease: i64) -> Result<()> {
        let request = PutRequest { key: key.into(), value: Vec::new(), lease };
        let Ignored {} = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    /// Renews leases as requests arrive in `requests`.
    pub async fn keep_alive(
        &self,
        requests: impl Stream<Item = LeaseKeepAliveRequest> + Send + 'static,
    ) -> Result<Streaming<LeaseKeepAliveResponse>> {
        self.stream("/etcdserverpb.Lease/LeaseKeepAlive", requests).await
    }

    /// Watches all keys with a prefix, from now on.
    pub async fn watch(&self, prefix: &str) -> Result<Streaming<WatchResponse>> {
        let key = prefix.as_bytes().to_vec();
        // The range ends before the first key that is greater than all keys with the prefix.
        let mut range_end = key.clone();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        let create = Some(WatchCreateRequest { key, range_end });
        // etcd ends a watch when its stream of requests ends, so the stream never ends.
        let requests = stream::iter([WatchRequest { create }]).chain(stream::pending());
        self.stream("/etcdserverpb.Watch/Watch", requests).await
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.0.clone();
        grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }

    async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.0.clone();
        grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.streaming(Request::new(requests), path, codec).await?.into_inner())
    }
}
