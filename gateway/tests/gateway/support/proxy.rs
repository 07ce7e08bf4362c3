//! A way between two ends that can become silent, as a network does: nothing arrives any more, and nothing is closed.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A running proxy, until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    /// Connections with a lower number are silent.
    silent_below: watch::Sender<usize>,
    opened: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (silent_below, silent) = watch::channel(0);
        let (count, opened) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (inner, _) = listener.accept().await.unwrap();
                let number = *count.borrow();
                count.send_replace(number + 1);
                let silent = silent.clone();
                connections.spawn(async move {
                    let Ok(outer) = TcpStream::connect(to).await else { return };
                    let (read_in, write_in) = inner.into_split();
                    let (read_out, write_out) = outer.into_split();
                    tokio::select! {
                        () = forward(read_in, write_out, silent.clone(), number) => {}
                        () = forward(read_out, write_in, silent, number) => {}
                    }
                });
            }
        });
        Self { address, silent_below, opened, task }
    }

    /// Lets all connections that are open now become silent.
    pub fn silence(&self) {
        self.silent_below.send_replace(*self.opened.borrow());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut silent: watch::Receiver<usize>,
    number: usize,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let silenced = async {
            let _ = silent.wait_for(|below| number < *below).await;
        };
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = silenced => std::future::pending().await,
        };
        match read {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => {}
            _ => return,
        }
    }
}
