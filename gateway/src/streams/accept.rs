//! The gateway's end of the streams.

use std::{cell::Cell, rc::Rc, time::Duration};

use beatkeeper_core::carriers::frames::ReplicaName;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    gateway::{Hub, StreamNumber},
    outbox::Outbox,
    places::{Place, Places, Shares},
    settings::StreamLimits,
    streams::{
        ended::Ended,
        pipe::{self, Reading},
    },
    tls::{self, ServerTls},
    wire::down::FromReplica,
};

/// The pause after a stream could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The name of a replica, and both directions of its connection.
type Opened =
    (ReplicaName, Reading<ReadHalf<TlsStream<TcpStream>>>, WriteHalf<TlsStream<TcpStream>>);

/// What all streams share.
struct Shared {
    hub: Rc<Hub>,
    limits: StreamLimits,
    /// The name in the certificates of the replicas.
    peer: ServerName<'static>,
    open: Cell<usize>,
    handshakes: Rc<Places>,
}

/// Accepts streams of replicas, for ever. When it is dropped, they end.
pub async fn serve(
    hub: Rc<Hub>,
    listener: TcpListener,
    tls: Rc<ServerTls>,
    limits: StreamLimits,
    peer: ServerName<'static>,
) {
    let handshakes = Rc::default();
    let shared = Rc::new(Shared { hub, limits, peer, open: Cell::new(0), handshakes });
    let mut streams = JoinSet::new();
    loop {
        let Ok((tcp, address)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while streams.try_join_next().is_some() {}
        let Ok(handshake) = shared.handshakes.take(address.ip(), shared.handshakes()) else {
            shared.hub.metrics.stream_ended("too_many_handshakes");
            continue;
        };
        let (shared, tls) = (shared.clone(), TlsAcceptor::from(tls.config()));
        streams.spawn_local(async move {
            match shared.stream(tcp, tls, handshake).await {
                Ok(()) => {}
                Err((Some(replica), ended)) => {
                    tracing::info!(%replica, %address, %ended, "a stream has ended");
                }
                // Anyone that reaches the port can make this line.
                Err((None, ended)) => tracing::debug!(%address, %ended, "no stream was opened"),
            }
        });
    }
}

/// A place for a stream that is taken until it is dropped.
struct StreamPlace<'a>(&'a Shared);

impl<'a> StreamPlace<'a> {
    fn take(shared: &'a Shared) -> Result<Self, Ended> {
        let most = shared.limits.streams;
        if shared.open.get() >= most {
            return Err(Ended::TooMany(most));
        }
        shared.open.set(shared.open.get() + 1);
        Ok(Self(shared))
    }
}

impl Drop for StreamPlace<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A stream that the gateway knows, until it is dropped.
struct Known<'a> {
    hub: &'a Hub,
    replica: &'a ReplicaName,
    number: StreamNumber,
    reason: &'static str,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.hub.disconnected(self.replica, self.number, self.reason);
    }
}

impl Shared {
    /// How many handshakes there may be at a time. They have places of their own, so that connections without a
    /// certificate keep no replica out.
    fn handshakes(&self) -> Shares {
        let (all, address) = (self.limits.handshakes, self.limits.handshakes_per_address);
        Shares { all, network: all, address }
    }

    async fn stream(
        &self,
        tcp: TcpStream,
        tls: TlsAcceptor,
        handshake: Place,
    ) -> Result<(), (Option<ReplicaName>, Ended)> {
        let opened = self.open(tcp, tls, handshake).await;
        let (_place, (replica, reading, writer)) = opened.map_err(|ended| {
            self.hub.metrics.stream_ended(ended.label());
            (None, ended)
        })?;
        let (number, outbox) = self.hub.connected(&replica);
        let (hub, reason) = (&*self.hub, "ended");
        let mut known = Known { hub, replica: &replica, number, reason };
        let ended = tokio::select! {
            ended = self.read(reading, &replica, number) => ended,
            ended = self.write(writer, &outbox) => ended,
        };
        known.reason = ended.label();
        drop(known);
        Err((Some(replica), ended))
    }

    async fn open(
        &self,
        tcp: TcpStream,
        tls: TlsAcceptor,
        handshake: Place,
    ) -> Result<(StreamPlace<'_>, Opened), Ended> {
        let within = self.limits.handshake;
        // A batch goes at once, without waiting for the acknowledgement of the one before.
        tcp.set_nodelay(true).map_err(Ended::Io)?;
        let stream = timeout(within, tls.accept(tcp)).await.map_err(|_| Ended::Slow(within))?;
        let stream = stream.map_err(Ended::Handshake)?;
        let session = stream.get_ref().1;
        tls::check_peer(session.peer_certificates(), session.alpn_protocol(), &self.peer)?;
        drop(handshake);
        let place = StreamPlace::take(self)?;
        let (reader, writer) = tokio::io::split(stream);
        let mut reading = Reading::new(reader, self.limits.clone());
        // All replicas may show one certificate, so the name is a field. Who has the certificate may lead, and could do
        // worse than to take another name.
        match reading.next_down().await? {
            FromReplica::Name(replica) => Ok((place, (replica, reading, writer))),
            FromReplica::Frame(_) => Err(Ended::NoName),
        }
    }

    async fn read(
        &self,
        mut reading: Reading<impl AsyncRead + Unpin>,
        replica: &ReplicaName,
        number: StreamNumber,
    ) -> Ended {
        loop {
            match reading.next_down().await {
                Ok(FromReplica::Frame(frame)) => {
                    if !self.hub.receive(replica, number, frame) {
                        return Ended::ClosedHere;
                    }
                }
                Ok(FromReplica::Name(_)) => return Ended::NotFirst,
                Err(ended) => return ended,
            }
        }
    }

    async fn write(&self, mut writer: impl AsyncWrite + Unpin, outbox: &Outbox) -> Ended {
        while let Some(bytes) = outbox.take().await {
            if let Err(ended) = pipe::write(&mut writer, bytes, &self.limits).await {
                return ended;
            }
        }
        // The last frames arrive before the end only if the end is announced.
        let _ = timeout(self.limits.stall, writer.shutdown()).await;
        Ended::ClosedHere
    }
}
