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
/// After a judgement this many times its duration are left for other work.
const REST: u32 = 20;

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
    let mut view =
        View { live: Live::of(wanted.name.clone()), session, next_judgement: Instant::now() };
    match output.terminal {
        true => on_screen(&mut view, &mut watches, Screen::open(wide, output.paint)?).await,
        false => as_lines(&mut view, &mut watches, output).await,
    }
}

/// A picture that is kept up to date.
struct View<'a> {
    live: Live,
    session: &'a Session,
    next_judgement: Instant,
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
        let all = begun >= self.next_judgement;
        if !all && !self.live.is_dirty() {
            return false;
        }
        self.live.refresh(self.session.clock.now(), all);
        if all {
            self.next_judgement = Instant::now() + JUDGE_EVERY.max(begun.elapsed() * REST);
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
