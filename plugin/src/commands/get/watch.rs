//! `get --watch`: follows the changes, on a terminal as a live view, and elsewhere as lines.

use std::time::{Duration, Instant};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    page::{Action, Health},
    screen::Screen,
};
use crate::{
    error::{Error, Outcome},
    gather::{self, scope::Wanted, watch::Watches},
    model::live::Live,
    output::Output,
    render::changes::Told,
    session::Session,
};

/// How often the view is drawn at most, for changes and for time that passes.
const FRAME: Duration = Duration::from_millis(100);
/// How often everything is judged again, because the time alone may change it.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// After everything was judged, this many times its duration are left for other work.
const REST: u32 = 20;
/// The same after only some registrations were judged. One of them may have thousands of instances.
const REST_AFTER_SOME: u32 = 4;

/// Follows the wanted registrations until the user ends it.
///
/// # Errors
/// [`Error`], if the registration does not exist, or the terminal cannot be used.
pub async fn run(
    session: &Session,
    wanted: &Wanted,
    wide: bool,
    output: &Output,
) -> Result<Outcome, Error> {
    let service = match &wanted.name {
        Some(name) => {
            let object = gather::one(session, &wanted.scope, name).await?;
            Some(object.service_name().to_owned())
        }
        None => None,
    };
    let mut watches = Watches::start(session, wanted, service.as_deref());
    let (live, now) = (Live::of(wanted.name.clone()), Instant::now());
    let mut view = View { live, session, next_of_all: now, next: now };
    match output.terminal {
        true => on_screen(&mut view, &mut watches, Screen::open(wide, output.paint)?).await,
        false => as_lines(&mut view, &mut watches, output).await,
    }
}

/// A picture that is kept up to date.
struct View<'a> {
    live: Live,
    session: &'a Session,
    /// When to judge everything next.
    next_of_all: Instant,
    /// When to judge next what has changed.
    next: Instant,
}

impl View<'_> {
    /// Takes in all changes that have arrived.
    fn take(&mut self, watches: &mut Watches) {
        while let Some(change) = watches.ready() {
            self.live.apply(change, self.session.clock.now());
        }
    }

    /// Judges again what has changed, or everything if it is time. Returns whether it did.
    fn refresh(&mut self) -> bool {
        let begun = Instant::now();
        let all = begun >= self.next_of_all;
        let some = begun >= self.next && self.live.is_dirty();
        if !all && !some {
            return false;
        }
        self.live.refresh(self.session.clock.now(), all);
        let (took, end) = (begun.elapsed(), Instant::now());
        self.next = end + took * REST_AFTER_SOME;
        if all {
            self.next_of_all = end + JUDGE_EVERY.max(took * REST);
        }
        true
    }
}

async fn on_screen(
    view: &mut View<'_>,
    watches: &mut Watches,
    mut screen: Screen,
) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = watches.next() => match change {
                Some(change) => view.live.apply(change, view.session.clock.now()),
                None => return Ok(Outcome::Well),
            },
            action = screen.action() => match action {
                Action::Quit => return Ok(Outcome::Well),
                Action::Redraw => draw(view, &mut screen)?,
            },
            _ = frames.tick() => {
                view.take(watches);
                if view.refresh() {
                    screen.make_stale();
                }
                draw(view, &mut screen)?;
            }
            () = end.asked() => return Ok(Outcome::Well),
        }
    }
}

fn draw(view: &View<'_>, screen: &mut Screen) -> Result<(), Error> {
    let failing = view.live.failing().map(|(kind, why)| format!("{}: {why}", kind.as_str())).next();
    let health = match &failing {
        Some(failing) => Health::Failing(failing),
        None if view.live.is_complete() => Health::Live,
        None => Health::Reading,
    };
    screen.draw(view.live.picture(), health, view.session.clock.now())
}

async fn as_lines(
    view: &mut View<'_>,
    watches: &mut Watches,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let mut told = Told::default();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = watches.next() => match change {
                Some(change) => view.live.apply(change, view.session.clock.now()),
                None => return Ok(Outcome::Well),
            },
            _ = frames.tick() => {
                view.take(watches);
                // Before everything is listed, what is missing is only not known yet.
                if view.live.is_complete() && view.refresh() {
                    let now = view.session.clock.now();
                    output.lines(&told.changes(view.live.picture(), now))?;
                }
            }
            () = end.asked() => return Ok(Outcome::Well),
        }
    }
}

/// The signals that end the view.
struct End {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl End {
    fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(Error::Start);
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
