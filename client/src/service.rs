//! A service from its start to its stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use beatkeeper_api::heartbeat::Health;
use kube::Config;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::dispatcher;

use crate::{
    aside::Aside,
    builder::{Builder, Check, Hook, Hooks},
    check,
    error::{Error, StopError},
    event::{Event, Weight},
    headers::Headers,
    heart::{Heart, Progress, Report, Wishes},
    lease::{Identity, Word},
    requests::Connection,
    runner::{self, Runner},
    transport::{self, Source},
};

/// How long a stop waits for handlers to receive the last events.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// How long the drain may take to be accepted before the delay begins: during the delay routers must be able
/// to see the drain.
const TELL_DRAINING_WITHIN: Duration = Duration::from_secs(5);

/// One instance of a service, ready to be started.
///
/// ```no_run
/// use std::time::Duration;
/// use beatkeeper_client::Service;
///
/// # async fn example() -> Result<(), beatkeeper_client::Error> {
/// Service::builder("greeter")
///     .register_ttl(Duration::from_secs(30))
///     .register_interval(Duration::from_secs(20))
///     .build()?
///     .run() // until SIGTERM, SIGINT or SIGQUIT; then it deregisters
///     .await
/// # }
/// ```
#[must_use = "it does not beat before it is started"]
pub struct Service {
    pub(crate) identity: Identity,
    pub(crate) wishes: Wishes,
    pub(crate) check: Option<Check>,
    pub(crate) check_interval: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) handle_signal: bool,
    pub(crate) own_thread: bool,
    pub(crate) cancellation: CancellationToken,
    pub(crate) config: Option<Config>,
    pub(crate) report: Option<Report>,
    pub(crate) hooks: Hooks,
}

impl Service {
    /// Begins to describe an instance of the service that the ServiceRegistration of this name publishes.
    pub fn builder(registration: impl Into<String>) -> Builder {
        Builder::new(registration)
    }

    /// Starts, waits for a signal or the cancellation, and stops.
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`Error::Stop`].
    pub async fn run(self) -> Result<(), Error> {
        let cancellation = self.cancellation.clone();
        let handle_signal = self.handle_signal;
        // We listen before everything else: a signal during the start must not kill the process halfway.
        let mut signals = handle_signal.then(Signals::listen).transpose()?;
        let running = self.start().await?;
        let asked = async {
            match &mut signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            name = asked => tracing::info!(signal = name, "stopping"),
            () = cancellation.cancelled() => tracing::info!("stopping: cancelled"),
        }
        Ok(running.stop().await?)
    }

    /// Runs the hooks, and beats from now on. Returns when the first beat is accepted.
    ///
    /// # Errors
    /// [`Error::NoConfiguration`] and [`Error::Connect`] if the API server cannot be used;
    /// [`Error::NotRegistered`], with the last reason, if no beat is accepted within the start timeout;
    /// [`Error::Hook`]. After an error no Lease remains.
    pub async fn start(self) -> Result<Running, Error> {
        let Hooks { before_start, after_start, before_stop, after_stop } = self.hooks;
        let source = match self.config {
            Some(config) => Source::from(config),
            None => Source::infer()?,
        };
        let mut identity = self.identity;
        if identity.namespace.is_empty() {
            source.namespace().clone_into(&mut identity.namespace);
        }
        run_hooks("before_start", before_start).await?;

        // Before the first check the health is unknown.
        let provisional = self.check.is_some();
        let (words, heard) = watch::channel(Word { provisional, ..Word::default() });
        let stats = Arc::new(Counters::default());
        let aside = Arc::new(Aside::new());
        let report = reporter(self.report, Arc::clone(&stats), Arc::clone(&aside));
        let (wishes, stop) = (self.wishes, CancellationToken::new());
        let begin = move || {
            let headers = Headers::default();
            let client = transport::connect(source, USER_AGENT, &headers)?;
            let connection = Connection { client, headers };
            Ok::<_, Error>(Heart::new(connection, identity, wishes, heard, report))
        };
        let (runner, mut progress) = if self.own_thread {
            runner::on_a_thread(begin, stop).await?
        } else {
            runner::on_this_runtime(begin, stop)?
        };
        let registered = progress.wait_for(|now| now.told.is_some());
        let registered =
            timeout(self.start_timeout, registered).await.is_ok_and(|told| told.is_ok());
        if !registered {
            let failure = progress.borrow().failure.clone();
            // A beat that was sent may have been accepted although its answer was lost.
            let _ = runner.stop().await;
            return Err(Error::NotRegistered { within: self.start_timeout, failure });
        }
        if let Err(error) = run_hooks("after_start", after_start).await {
            let _ = runner.stop().await;
            return Err(error);
        }
        let words = Arc::new(words);
        let checking = self.check.map(|check| {
            let checking = check::run(check, self.check_interval, Arc::clone(&words));
            AbortOnDropHandle::new(tokio::spawn(checking))
        });
        let drain_delay = self.drain_delay;
        Ok(Running {
            runner,
            words,
            progress,
            stats,
            aside,
            checking,
            drain_delay,
            before_stop,
            after_stop,
        })
    }
}

const USER_AGENT: &str = concat!("beatkeeper-client/", env!("CARGO_PKG_VERSION"));

/// A service that beats. If this value is dropped, the beats end, and the instance is pruned when its ttl has
/// passed: use [`stop`](Self::stop) instead.
pub struct Running {
    runner: Runner,
    words: Arc<watch::Sender<Word>>,
    progress: watch::Receiver<Progress>,
    stats: Arc<Counters>,
    aside: Arc<Aside>,
    checking: Option<AbortOnDropHandle<()>>,
    drain_delay: Duration,
    before_stop: Vec<Hook>,
    after_stop: Vec<Hook>,
}

impl Running {
    /// Sets the health of the instance, with a beat at once. A registered check continues, and may report
    /// another health afterwards; it ends when the instance drains.
    pub fn tell(&self, health: Health, note: Option<String>) {
        self.words.send_replace(Word { health, note, provisional: false });
    }

    /// Drains: the instance is published as terminating, and gets no new connections. Waits until the drain
    /// is accepted, for at most five seconds, and then for `delay`, in which routers notice.
    pub async fn drain(&mut self, delay: Duration) {
        self.checking = None;
        self.words.send_modify(|word| {
            word.health = Health::Draining;
            word.provisional = false;
        });
        let is_told =
            |now: &Progress| now.told.as_ref().is_some_and(|word| word.health == Health::Draining);
        let told = self.progress.wait_for(is_told);
        if timeout(TELL_DRAINING_WITHIN, told).await.is_err() {
            tracing::warn!("no beat was accepted that says that the instance drains");
        }
        sleep(delay).await;
    }

    /// Returns the counts since the start.
    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// Stops: runs the hooks, drains if there is a drain delay, deregisters, and runs the remaining hooks. A
    /// failure of one step does not prevent the next ones.
    ///
    /// # Errors
    /// All steps that failed.
    pub async fn stop(mut self) -> Result<(), StopError> {
        let mut error = StopError::default();
        let before = std::mem::take(&mut self.before_stop);
        collect(&mut error, "before_stop", before).await;
        if !self.drain_delay.is_zero() {
            self.drain(self.drain_delay).await;
        }
        self.checking = None;
        error.deregister = self.runner.stop().await.err().map(Box::new);
        self.aside.done(TOLD_WITHIN).await;
        collect(&mut error, "after_stop", self.after_stop).await;
        error.nothing_or()
    }
}

async fn run_hooks(name: &'static str, hooks: Vec<Hook>) -> Result<(), Error> {
    for hook in hooks {
        hook().await.map_err(|source| Error::Hook { hook: name, source })?;
    }
    Ok(())
}

async fn collect(error: &mut StopError, name: &'static str, hooks: Vec<Hook>) {
    for hook in hooks {
        if let Err(why) = hook().await {
            error.hooks.push((name, why));
        }
    }
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Beats that were accepted, without the first one.
    pub beats: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Beats that were sent late, because this process did not run.
    pub late: u64,
    /// How often no beat was accepted for longer than the ttl.
    pub out: u64,
}

#[derive(Debug, Default)]
struct Counters {
    beats: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    out: AtomicU64,
}

impl Counters {
    fn note(&self, event: &Event) {
        let counter = match event {
            Event::Beat { .. } => &self.beats,
            Event::Failed { .. } => &self.failed,
            Event::Late { .. } => &self.late,
            Event::WasOut { .. } => &self.out,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    fn read(&self) -> Stats {
        Stats {
            beats: self.beats.load(Relaxed),
            failed: self.failed.load(Relaxed),
            late: self.late.load(Relaxed),
            out: self.out.load(Relaxed),
        }
    }
}

/// Counts an event at once, and has another thread log and report it: a log and a handler may block.
fn reporter(report: Option<Report>, counters: Arc<Counters>, aside: Arc<Aside>) -> Report {
    Arc::new(move |event| {
        counters.note(event);
        let (event, report) = (event.clone(), report.clone());
        let log = dispatcher::get_default(Clone::clone);
        aside.ask(move || {
            dispatcher::with_default(&log, || match event.weight() {
                Weight::Detail => tracing::trace!("{event}"),
                Weight::Change => tracing::info!("{event}"),
                Weight::Trouble => tracing::warn!("{event}"),
            });
            if let Some(report) = &report {
                report(&event);
            }
        });
    })
}

/// The signals that ask a process to end.
struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn next(&mut self) -> &'static str {
        let [terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = quit.recv() => "SIGQUIT",
        }
    }
}
