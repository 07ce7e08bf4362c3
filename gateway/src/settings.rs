//! The settings of a gateway.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use beatkeeper_core::vocabulary::rate_limit::RateLimit;

/// The settings of a gateway.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The uid of its Pod, by which replicas know it.
    pub pod: String,
    /// Where instances beat, with TLS.
    pub beats: SocketAddr,
    /// Where replicas of the operator dial, with TLS in both directions.
    pub streams: SocketAddr,
    /// Where health and metrics are served, without TLS.
    pub admin: SocketAddr,
    /// The address at which instances reach `beats`: the address of the Pod and the port. The gateway beats there itself,
    /// to prove that beats arrive (G3). `None`: the address of `beats`, which is right only if it names one.
    pub published: Option<SocketAddr>,
    /// The certificate that instances see.
    pub certificate: CertificateFiles,
    /// The certificates of the streams.
    pub stream_certificate: PeerFiles,
    /// How often the certificate files are read. Default: 10 s.
    pub reread: Duration,
    /// The lease duration of the operator's election. A beat waits so long, and 2 s more, for a leader.
    pub lease_duration: Duration,
    /// For how long a gateway that ends lets its instances go to others: about one interval. Default: 10 s.
    pub drain: Duration,
    /// What instances may use.
    pub limits: Limits,
    /// What streams may use.
    pub stream_limits: StreamLimits,
}

/// A certificate and its key, in PEM format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and the CA.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What one end of a stream shows, and what it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFiles {
    /// Its own certificate.
    pub own: CertificateFiles,
    /// The CA of the other end, in PEM format.
    pub ca: PathBuf,
    /// The DNS name in the certificate of the other end.
    pub peer: String,
}

/// What instances may use of a gateway.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most connections at the same time. Further ones are closed before TLS. Default: 8,192, which need up to
    /// 256 MiB.
    pub connections: usize,
    /// The most connections from one IP address. Default: 2,048. A network with IPv6 (64 bits) may have three quarters of
    /// `connections`.
    pub connections_per_address: usize,
    /// How long a TLS handshake may take. Default: 5 s.
    pub handshake: Duration,
    /// How long the head of a request may take from its first byte on, and the first one from the handshake on. Default:
    /// 10 s. Such a connection is cut within twice this time.
    pub head: Duration,
    /// How long the body of a request may take. Default: 10 s.
    pub body: Duration,
    /// How long a client may leave an answer unread. Default: 10 s.
    pub write: Duration,
    /// How long a connection may be without a request. Default: 5 min.
    pub idle: Duration,
    /// For how long a connection is kept at least. Each ends with an answer after a random time between this and twice as
    /// long, so that gateways that were added get their part. Default: 10 min.
    pub lasts: Duration,
    /// The most bytes of the head of a request, and of what is read ahead; at least 8,192. Default: 16 KiB.
    pub head_bytes: usize,
    /// The most bytes of a beat. Default: 4 KiB.
    pub beat_bytes: usize,
    /// The most bytes of a request with many beats. Default: 512 KiB.
    pub beats_bytes: usize,
    /// The most bodies longer than `beat_bytes` that are read at a time, of all identities. Default: 128, which need up to
    /// 64 MiB.
    pub bodies: usize,
    /// The most of those of one identity. Default: 2.
    pub bodies_per_identity: usize,
    /// The most requests under way on one HTTP/2 connection. Default: 128.
    pub requests_per_connection: u32,
    /// The most beats that wait for their answers, on all connections. Default: 131,072.
    pub open_beats: usize,
    /// How often one identity may beat. Default: 4,000 at once, and then 2,000 a second.
    pub rate: RateLimit,
    /// How often one identity may beat for a Lease that no leader has allowed it to renew yet (G6). Default: 2,000 at
    /// once, as an agent that starts, and then 50 a second.
    pub introductions: RateLimit,
    /// The most identities for which rates are kept. Default: 65,536.
    pub identities: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: 2048,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            write: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            lasts: Duration::from_secs(600),
            head_bytes: 16 * 1024,
            beat_bytes: 4 * 1024,
            beats_bytes: 512 * 1024,
            bodies: 128,
            bodies_per_identity: 2,
            requests_per_connection: 128,
            open_beats: 131_072,
            rate: RateLimit { burst: 4000, every: Duration::from_micros(500) },
            introductions: RateLimit { burst: 2000, every: Duration::from_millis(20) },
            identities: 65_536,
        }
    }
}

/// What streams may use, at both ends.
#[derive(Debug, Clone)]
pub struct StreamLimits {
    /// The most streams of a gateway. Default: 32.
    pub streams: usize,
    /// The most handshakes at a time. Default: 64.
    pub handshakes: usize,
    /// The most of those of one IP address. Default: 8.
    pub handshakes_per_address: usize,
    /// How long the connection and the TLS handshake may take, each. Default: 2 s.
    pub handshake: Duration,
    /// After so long without a byte a stream counts as broken. Both ends send something every 250 ms. Default: 1.5 s.
    pub silence: Duration,
    /// How long the other end may read nothing while something waits for it. Default: 2 s.
    pub stall: Duration,
    /// The most bytes of a frame. Default: 16 MiB.
    pub frame_bytes: usize,
    /// The most bytes that wait for one replica. Default: 64 MiB, the introduction of some 400,000 instances.
    pub waiting_bytes: usize,
    /// How long after the first stream, and after the end of a time without streams, a gateway proves no time: until its
    /// Service leads to it. Default: none, as for a gateway without a Service.
    pub warm_up: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            streams: 32,
            handshakes: 64,
            handshakes_per_address: 8,
            handshake: Duration::from_secs(2),
            silence: Duration::from_millis(1500),
            stall: Duration::from_secs(2),
            frame_bytes: 16 << 20,
            waiting_bytes: 64 << 20,
            warm_up: Duration::ZERO,
        }
    }
}
