//! The control socket, over which other processes give orders to the owner of a control plane.
//!
//! The other processes cannot stop and start etcd or the API server themselves: the process that starts another
//! becomes its parent, and the child would end with this parent.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::part::Part;
use crate::supervisor::{Order, Orders, Status};

#[derive(Serialize, Deserialize)]
struct Line {
    part: Part,
    order: Order,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Done(Status),
    Failed(String),
}

fn socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Passes orders on until it is dropped.
pub(crate) struct ControlSocket {
    path: PathBuf,
    ended: Arc<AtomicBool>,
}

impl ControlSocket {
    pub(crate) fn open(data: &Path, orders: Orders) -> Result<Self> {
        let path = socket(data);
        let listener = UnixListener::bind(&path).with_context(|| {
            format!(
                "cannot listen on {} (the path of a socket has 107 characters at most: a shorter XDG_CACHE_HOME may help)",
                path.display()
            )
        })?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        thread::Builder::new().name("control-socket".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let orders = orders.clone();
                // One thread per connection: an order takes seconds, and other orders may arrive meanwhile.
                thread::spawn(move || serve(&stream, &orders));
            }
        })?;
        Ok(Self { path, ended })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener, which then reads `ended`.
        let _ = UnixStream::connect(&self.path);
    }
}

fn serve(stream: &UnixStream, orders: &Orders) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer = match obey(&line, orders) {
        Ok(status) => Answer::Done(status),
        Err(error) => Answer::Failed(format!("{error:#}")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    let mut stream = stream;
    stream.write_all(text.as_bytes())?;
    Ok(())
}

fn obey(line: &str, orders: &Orders) -> Result<Status> {
    let Line { part, order } = serde_json::from_str(line)?;
    orders
        .give(part, order)
        .blocking_recv()
        .unwrap_or_else(|_| Err(anyhow!("the control plane has ended")))
}

/// Gives one order to the owner of the control plane in `data`.
pub(crate) async fn give(data: &Path, part: Part, order: Order) -> Result<Status> {
    let path = socket(data);
    let stream = tokio::net::UnixStream::connect(&path)
        .await
        .with_context(|| format!("no control plane listens on {}", path.display()))?;
    let mut stream = tokio::io::BufStream::new(stream);
    let mut line = serde_json::to_string(&Line { part, order })?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    match serde_json::from_str(&answer)? {
        Answer::Done(status) => Ok(status),
        Answer::Failed(error) => bail!(error),
    }
}
