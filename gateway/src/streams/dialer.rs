//! Dials one gateway, again and again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use beatkeeper_core::carriers::{
    frames::{Down, ReplicaName, Up},
    set::PodUid,
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    settings::{PeerFiles, StreamLimits},
    streams::{
        ended::Ended,
        pipe::{self, Reading},
    },
    tls,
    wire::codec,
};

/// The most frames that wait for one gateway.
pub(super) const FRAMES_WAITING: usize = 65_536;
/// The most bytes that are put together before they are written.
const TOGETHER: usize = 256 * 1024;
/// A stream that has lasted for so long was a good one: the next pause is the first one again.
const GOOD: Duration = Duration::from_secs(5);

/// How a replica dials.
#[derive(Debug, Clone)]
pub struct DialSettings {
    /// Its name, as it is written into the election's Lease.
    pub replica: ReplicaName,
    /// Its certificates. They are read at each attempt, so they may change.
    pub files: PeerFiles,
    /// What streams may use.
    pub limits: StreamLimits,
    /// The pause after the first failure, less a random part. It doubles with each further one. Default: 100 ms.
    pub first_pause: Duration,
    /// The longest pause. Default: 5 s.
    pub longest_pause: Duration,
}

impl DialSettings {
    /// The defaults.
    pub fn new(replica: ReplicaName, files: PeerFiles) -> Self {
        Self {
            replica,
            files,
            limits: StreamLimits::default(),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// One stream of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId(u64);

impl StreamId {
    fn fresh() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a dialer tells, in this order for each stream: that it is open, its frames, and its end.
#[derive(Debug)]
pub(super) enum Told {
    Open(mpsc::Sender<Down>),
    Frame(Up),
    Ended(Ended),
}

/// What a dialer tells of a stream.
pub(super) type Telling = (PodUid, StreamId, Told);

/// Dials one gateway until it is dropped, or the receiver of its events is gone.
pub(super) struct Dialer {
    pub(super) settings: Arc<DialSettings>,
    pub(super) gateway: PodUid,
    pub(super) address: SocketAddr,
    pub(super) tell: mpsc::Sender<Telling>,
}

/// Both directions of a connection.
type Halves = (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>);

/// The listener has gone.
struct Unheard;

impl Dialer {
    /// Dials for ever.
    pub(super) async fn run(self) {
        let first = self.settings.first_pause;
        let mut pause = first;
        loop {
            let began = Instant::now();
            let Ok(()) = self.once().await else { return };
            if began.elapsed() >= GOOD {
                pause = first;
            }
            // All replicas lose a gateway at the same moment, and are not to return at the same one.
            sleep(pause.mul_f64(fastrand::f64())).await;
            pause = (pause * 2).min(self.settings.longest_pause);
        }
    }

    async fn once(&self) -> Result<(), Unheard> {
        let stream = StreamId::fresh();
        let ended = match self.open().await {
            Ok((reader, writer)) => {
                let (sender, frames) = mpsc::channel(FRAMES_WAITING);
                self.tell(stream, Told::Open(sender)).await?;
                let reading = Reading::new(reader, self.settings.limits.clone());
                tokio::select! {
                    ended = self.read(reading, stream) => ended?,
                    ended = self.write(writer, frames) => ended,
                }
            }
            Err(ended) => ended,
        };
        tracing::debug!(gateway = &*self.gateway, address = %self.address, %ended, "no stream");
        self.tell(stream, Told::Ended(ended)).await
    }

    async fn tell(&self, stream: StreamId, told: Told) -> Result<(), Unheard> {
        self.tell.send((self.gateway.clone(), stream, told)).await.map_err(|_| Unheard)
    }

    async fn open(&self) -> Result<Halves, Ended> {
        let DialSettings { replica, files, limits, .. } = &*self.settings;
        let (config, name) = (tls::client(files).await?, tls::peer_name(&files.peer)?);
        let (within, address) = (limits.handshake, self.address);
        let late = |_| Ended::Slow(within);
        let tcp = timeout(within, TcpStream::connect(address)).await.map_err(late)?;
        let tcp = tcp.map_err(|cause| Ended::Connect { address, cause })?;
        tcp.set_nodelay(true).map_err(Ended::Io)?;
        let connecting = TlsConnector::from(config).connect(name.clone(), tcp);
        let stream = timeout(within, connecting).await.map_err(late)?.map_err(Ended::Handshake)?;
        let session = stream.get_ref().1;
        tls::check_peer(session.peer_certificates(), session.alpn_protocol(), &name)?;
        let (reader, mut writer) = tokio::io::split(stream);
        let mut first = BytesMut::new();
        codec::put_name(replica, limits.frame_bytes, &mut first)?;
        pipe::write(&mut writer, first, limits).await?;
        Ok((reader, writer))
    }

    async fn read(
        &self,
        mut reading: Reading<impl AsyncRead + Unpin>,
        stream: StreamId,
    ) -> Result<Ended, Unheard> {
        let mut is_first = true;
        loop {
            let frame = match reading.next_up().await {
                Ok(frame) => frame,
                Err(ended) => return Ok(ended),
            };
            if let Some(wrong) = self.wrong(&frame, is_first) {
                return Ok(wrong);
            }
            is_first = false;
            self.tell(stream, Told::Frame(frame)).await?;
        }
    }

    /// Whether a frame may not come now. An address may belong to another Pod meanwhile, whose beats would count for the
    /// former one.
    fn wrong(&self, frame: &Up, is_first: bool) -> Option<Ended> {
        match frame {
            Up::Hello { incarnation, .. } if is_first => {
                (incarnation.pod != self.gateway).then(|| Ended::OtherPod {
                    expected: self.gateway.to_string(),
                    found: incarnation.pod.to_string(),
                })
            }
            Up::Hello { .. } => Some(Ended::NotFirst),
            _ => is_first.then_some(Ended::NoName),
        }
    }

    async fn write(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut frames: mpsc::Receiver<Down>,
    ) -> Ended {
        let limits = &self.settings.limits;
        while let Some(first) = frames.recv().await {
            let mut bytes = BytesMut::new();
            let mut next = Some(first);
            while let Some(frame) = next {
                if let Err(error) = codec::put_down(&frame, limits.frame_bytes, &mut bytes) {
                    return error.into();
                }
                next = if bytes.len() < TOGETHER { frames.try_recv().ok() } else { None };
            }
            if let Err(ended) = pipe::write(&mut writer, bytes, limits).await {
                return ended;
            }
        }
        Ended::ClosedHere
    }
}
