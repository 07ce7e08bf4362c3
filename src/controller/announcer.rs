//! Sending events, in bounded memory.

use std::sync::{Mutex, PoisonError};

use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};

/// How many events are remembered, so that one that is sent again counts up in a series.
///
/// kube-runtime's recorder remembers each for six minutes, however many there are, and looks at all of
/// them for each that is sent: after the start of ten thousand instances that was a quarter of the
/// memory of the operator.
const REMEMBERED: u32 = 256;

/// Hands out what sends events.
pub(super) struct Announcer {
    client: Client,
    reporter: Reporter,
    current: Mutex<(Recorder, u32)>,
}

impl Announcer {
    /// Events are sent with this client, and say that this reporter sent them.
    pub(super) fn new(client: Client, reporter: Reporter) -> Self {
        let current = Mutex::new((Recorder::new(client.clone(), reporter.clone()), 0));
        Self { client, reporter, current }
    }

    /// For one event.
    pub(super) fn recorder(&self) -> Recorder {
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
    use crate::{controller::run::reporter, kube_client};

    #[tokio::test]
    async fn however_many_events_are_sent_few_are_remembered() {
        // Nobody is asked.
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
        let client = kube_client::connect(config, &kube_client::Options::of("test")).expect("one");
        let announcer = Announcer::new(client, reporter());
        let sent_with_one: Vec<u32> = (0..3 * REMEMBERED)
            .map(|_| {
                announcer.recorder();
                announcer.current.lock().expect("no panic").1
            })
            .collect();
        assert_eq!(sent_with_one.iter().max(), Some(&REMEMBERED));
        assert_eq!(sent_with_one.iter().filter(|sent| **sent == 1).count(), 3, "new ones");
    }
}
