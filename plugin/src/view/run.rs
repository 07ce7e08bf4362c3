//! Draws the live view until the user ends it.

use super::{
    body::Body,
    page::{Action, Health},
    screen::Screen,
};
use crate::{
    error::{Error, Outcome},
    gather::follow::{Following, frames},
    output::Output,
    signals::End,
};

/// Shows what is followed until the user ends it.
///
/// # Errors
/// [`Error`], if the terminal cannot be used.
pub async fn on_screen<B: Body>(
    following: &mut Following,
    body: B,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut screen = Screen::open(body, output.paint)?;
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

fn draw<B: Body>(following: &Following, screen: &mut Screen<B>) -> Result<(), Error> {
    let live = following.live();
    let failing = live.failing().map(|(kind, why)| format!("{}: {why}", kind.as_str())).next();
    let health = match &failing {
        Some(failing) => Health::Failing(failing),
        None if live.is_complete() => Health::Live,
        None => Health::Reading,
    };
    screen.draw(live.picture(), health, following.now())
}
