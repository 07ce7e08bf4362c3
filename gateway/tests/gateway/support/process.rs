//! A gateway on a thread of its own, as a process runs it.

use std::thread::JoinHandle;

use beatkeeper_gateway::{
    run::{Addresses, Bound, Ports, on_this_thread},
    settings::Settings,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A running gateway. Dropping it is a crash.
pub struct Gateway {
    pub addresses: Addresses,
    pub stop: CancellationToken,
    crash: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub async fn start(settings: Settings, ports: impl FnOnce() -> Ports + Send + 'static) -> Self {
        let (tell, told) = oneshot::channel();
        let (stop, crash) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, crashed) = (stop.clone(), crash.clone());
        let thread = std::thread::spawn(move || {
            let running = on_this_thread(async move {
                let bound = Bound::bind(settings).await.unwrap();
                tell.send(bound.addresses()).unwrap();
                tokio::select! {
                    () = crashed.cancelled() => {}
                    ended = bound.run(ports(), stopped) => ended.unwrap(),
                }
            });
            running.unwrap();
        });
        let addresses = told.await.unwrap();
        Self { addresses, stop, crash, thread: Some(thread) }
    }

    /// Waits for the end of a gateway that was told to stop.
    pub async fn ended(&mut self) {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.crash.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the gateway has panicked");
        }
    }
}
