//! A TCP connection of its own for each probe, and words for why there is none.

use std::future::pending;
use std::io;

use tokio::net::TcpStream;

use super::spec::Target;

/// Connects to the first address of the target that accepts.
pub(super) async fn connect(target: &Target) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|error| words(&error))?;
    if meets_itself(&stream) {
        return Err(REFUSED.to_owned());
    }
    Ok(stream)
}

const REFUSED: &str = "connection refused";

/// On one machine the kernel may choose, as our own port, the very one that we connect to, if nobody
/// listens there: TCP then connects the socket to itself, and a dead server would seem to live.
fn meets_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(ours), Ok(theirs)) if ours == theirs)
}

/// Drives a connection while something is asked over it, with no task of its own, so that it ends with
/// the probe. Its end is not that of the exchange, which may still have something to read from memory.
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

/// Those that are common, in the words that people look for.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => format!("no connection: {error}"),
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
