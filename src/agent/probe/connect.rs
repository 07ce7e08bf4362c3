//! A separate TCP connection for each probe.

use std::future::pending;
use std::io;

use tokio::net::TcpStream;

use super::failure::ProbeFailure;
use super::spec::Target;

/// Connects to the first address of the target that accepts.
pub(super) async fn connect(target: &Target) -> Result<TcpStream, ProbeFailure> {
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(ProbeFailure::NoConnection)?;
    if meets_itself(&stream) {
        return Err(ProbeFailure::NoConnection(io::ErrorKind::ConnectionRefused.into()));
    }
    Ok(stream)
}

/// Whether the socket is connected to itself. On one machine the kernel may choose the target port as our own
/// port if no process listens there. TCP then connects the socket to itself, and a dead server would seem to
/// be alive.
fn meets_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(ours), Ok(theirs)) if ours == theirs)
}

/// Drives a connection during an exchange over it. It uses no separate task, so that the connection ends with
/// the probe. The end of the connection does not end the exchange, which may still have buffered data to
/// read.
pub(super) async fn alongside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let driving = async {
        connection.await;
        pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = driving => never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpSocket;

    #[tokio::test]
    async fn a_socket_that_meets_itself_is_no_server() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let own = socket.local_addr().expect("bound");
        let stream = socket.connect(own).await.expect("TCP allows it");
        assert!(meets_itself(&stream));
    }
}
