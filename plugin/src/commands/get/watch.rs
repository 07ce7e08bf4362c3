//! `get --watch`: follows the changes, on a terminal as a live view, and elsewhere as lines.

use super::{
    page::{Action, Health},
    screen::Screen,
};
use crate::{
    error::{Error, Outcome},
    gather::{
        follow::{Following, frames},
        scope::Wanted,
    },
    output::Output,
    render::changes::Told,
    session::Session,
    signals::End,
};

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
    let mut following = Following::start(session, wanted).await?;
    match output.terminal {
        true => on_screen(&mut following, Screen::open(wide, output.paint)?).await,
        false => as_lines(&mut following, output).await,
    }
}

async fn on_screen(following: &mut Following, mut screen: Screen) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let mut frames = frames();
    loop {
        tokio::select! {
            goes_on = following.take_next() => if !goes_on {
                return Ok(Outcome::Well);
            },
            action = screen.action() => match action {
                Action::Quit => return Ok(Outcome::Well),
                Action::Redraw => draw(following, &mut screen)?,
            },
            _ = frames.tick() => {
                following.take();
                if following.refresh() {
                    screen.make_stale();
                }
                draw(following, &mut screen)?;
            }
            () = end.asked() => return Ok(Outcome::Well),
        }
    }
}

fn draw(following: &Following, screen: &mut Screen) -> Result<(), Error> {
    let live = following.live();
    let failing = live.failing().map(|(kind, why)| format!("{}: {why}", kind.as_str())).next();
    let health = match &failing {
        Some(failing) => Health::Failing(failing),
        None if live.is_complete() => Health::Live,
        None => Health::Reading,
    };
    screen.draw(live.picture(), health, following.now())
}

async fn as_lines(following: &mut Following, output: &Output) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let mut told = Told::default();
    let mut frames = frames();
    loop {
        tokio::select! {
            goes_on = following.take_next() => if !goes_on {
                return Ok(Outcome::Well);
            },
            _ = frames.tick() => {
                following.take();
                // Before everything is listed, what is missing is only not known yet.
                if following.live().is_complete() && following.refresh() {
                    let now = following.now();
                    output.lines(&told.changes(following.live().picture(), now))?;
                }
            }
            () = end.asked() => return Ok(Outcome::Well),
        }
    }
}
