//! The replica's end of a stream, frame by frame.

use std::{net::SocketAddr, time::Duration};

use beatkeeper_core::carriers::frames::{Down, Tick, Up};
use beatkeeper_gateway::{
    settings::PeerFiles,
    tls,
    wire::codec::{self, Frames},
};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const LIMIT: usize = 16 << 20;

pub struct Raw {
    pub stream: TlsStream<tokio::net::TcpStream>,
    buffer: BytesMut,
    frames: Frames,
}

impl Raw {
    /// Connects with small buffers, so that what is not read is soon noticed.
    pub async fn connect(address: SocketAddr, files: &PeerFiles) -> std::io::Result<Self> {
        let config = tls::client(files).await.unwrap();
        Self::with(address, files, config).await
    }

    pub async fn with(
        address: SocketAddr,
        files: &PeerFiles,
        config: std::sync::Arc<rustls::ClientConfig>,
    ) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let tcp = socket.connect(address).await?;
        let name = ServerName::try_from(files.peer.clone()).unwrap();
        let stream = TlsConnector::from(config).connect(name, tcp).await?;
        Ok(Self { stream, buffer: BytesMut::new(), frames: Frames::new(LIMIT) })
    }

    /// A stream with its first frames.
    pub async fn open(address: SocketAddr, files: &PeerFiles, name: &str) -> Self {
        let mut raw = Self::connect(address, files).await.unwrap();
        raw.name(name).await.unwrap();
        raw.send(&Down::Hello { have: None }).await.unwrap();
        raw
    }

    pub async fn name(&mut self, name: &str) -> std::io::Result<()> {
        let mut bytes = BytesMut::new();
        codec::put_name(&name.into(), LIMIT, &mut bytes).unwrap();
        self.write(&bytes).await
    }

    pub async fn send(&mut self, frame: &Down) -> std::io::Result<()> {
        let mut bytes = BytesMut::new();
        codec::put_down(frame, LIMIT, &mut bytes).unwrap();
        self.write(&bytes).await
    }

    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Shows that it lives, and reads nothing.
    pub async fn tick(&mut self) -> std::io::Result<()> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.send(&Down::Tick(Tick(1))).await
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Up> {
        loop {
            if let Some(frame) = self.frames.next_up(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(count) if count > 0 => {}
                _ => return None,
            }
        }
    }

    /// Waits for the end of the stream.
    pub async fn closed(mut self) {
        while self.next().await.is_some() {}
    }
}
