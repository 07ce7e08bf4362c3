//! `get --watch`: follows the changes, on a terminal as a live view, and elsewhere as lines.

use super::body::Tree;
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
    view::run::on_screen,
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
        true => on_screen(&mut following, Tree::new(wide), output).await,
        false => as_lines(&mut following, output).await,
    }
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
