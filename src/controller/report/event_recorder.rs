//! Sends events with bounded memory.

use std::sync::{Mutex, PoisonError};

use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};

use crate::controller::host;

/// How many events a recorder remembers. An event that is sent again increases the count of a series.
///
/// kube-runtime's recorder remembers each event for six minutes, without a limit, and scans all of them for
/// each new event. After the start of ten thousand instances, they took a quarter of the operator's memory.
const REMEMBERED: u32 = 256;

/// Provides recorders that send events.
pub(crate) struct EventRecorder {
    client: Client,
    reporter: Reporter,
    current: Mutex<(Recorder, u32)>,
}

impl EventRecorder {
    /// The client sends the events. They name the operator as their source.
    pub(crate) fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: "beatkeeper.dev/controller".to_owned(),
            instance: host::pod_name(),
        };
        let current = Mutex::new((Recorder::new(client.clone(), reporter.clone()), 0));
        Self { client, reporter, current }
    }

    /// Returns the recorder for one event.
    pub(crate) fn recorder(&self) -> Recorder {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (recorder, sent) = &mut *current;
        if *sent == REMEMBERED {
            *recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            *sent = 0;
        }
        *sent += 1;
        recorder.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_client;

    #[tokio::test]
    async fn however_many_events_are_sent_few_are_remembered() {
        // No request is sent to this address.
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
        let options = kube_client::Options::of("test", || jiff::Timestamp::UNIX_EPOCH);
        let client = kube_client::connect(config, &options).expect("one");
        let event_recorder = EventRecorder::new(client);
        let sent_with_one: Vec<u32> = (0..3 * REMEMBERED)
            .map(|_| {
                event_recorder.recorder();
                event_recorder.current.lock().expect("no panic").1
            })
            .collect();
        assert_eq!(sent_with_one.iter().max(), Some(&REMEMBERED));
        assert_eq!(sent_with_one.iter().filter(|sent| **sent == 1).count(), 3, "new ones");
    }
}
