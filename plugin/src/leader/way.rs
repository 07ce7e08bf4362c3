//! The way to the leader: an address to connect to, and what keeps it open.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use super::unasked::Unasked;
use crate::{flags::ConnectionFlags, gather::election::Elected, kubectl};

/// What kubectl prints before the address that it listens on.
const FORWARDING: &str = "Forwarding from ";
/// How much is kept of what kubectl complains about.
const COMPLAINT_MAX: u64 = 4096;

/// An open way to the leader.
pub(super) struct Way {
    /// HOST:PORT.
    pub(super) address: String,
    /// kubectl, which ends with this value.
    _forwarding: Option<Child>,
}

impl Way {
    /// The way to a known address.
    pub(super) fn direct(address: &str) -> Self {
        Self { address: address.to_owned(), _forwarding: None }
    }

    /// Lets kubectl forward a free port of this computer to the leader's Pod. In the Pod, the leader listens for itself
    /// alone, so that no other Pod reaches it.
    pub(super) async fn forwarded(
        connection: &ConnectionFlags,
        elected: &Elected,
        port: u16,
    ) -> Result<Self, Unasked> {
        let pod = elected.pod();
        let mut kubectl = Command::new("kubectl");
        kubectl.args(kubectl::words(connection, &elected.lease.namespace));
        kubectl.args(["port-forward", &format!("pod/{pod}"), &format!(":{port}")]);
        kubectl.args(["--address", "127.0.0.1"]);
        kubectl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = kubectl.kill_on_drop(true).spawn().map_err(Unasked::Kubectl)?;
        let (out, complaints) = (child.stdout.take(), child.stderr.take());
        let mut lines = BufReader::new(out.expect("it is piped")).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(address) = local_address(&line) {
                let address = address.to_owned();
                // kubectl ends if it cannot write further lines.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Self { address, _forwarding: Some(child) });
            }
        }
        let mut text = String::new();
        let mut complaints = complaints.expect("it is piped").take(COMPLAINT_MAX);
        // What is no text is left out.
        let _ = complaints.read_to_string(&mut text).await;
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let why = line.unwrap_or("it says nothing").trim_start_matches("error: ");
        let why = beatkeeper_api::text::plain(why).into_owned();
        Err(Unasked::Forward { pod: pod.to_owned(), why })
    }
}

/// The address in a line of kubectl.
fn local_address(line: &str) -> Option<&str> {
    let (address, _) = line.strip_prefix(FORWARDING)?.split_once(" -> ")?;
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_stands_in_the_line_of_kubectl() {
        assert_eq!(
            local_address("Forwarding from 127.0.0.1:39517 -> 8082"),
            Some("127.0.0.1:39517")
        );
        assert_eq!(local_address("Handling connection for 39517"), None);
    }
}
