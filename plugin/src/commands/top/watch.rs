//! `top --watch`: follows the load, on a terminal as a live view, and elsewhere as a table each second.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::body::Table;
use crate::{
    error::{Error, Outcome},
    gather::{follow::Following, scope::Wanted},
    output::Output,
    render::text::Line,
    session::Session,
    signals::End,
    view::run::on_screen,
};

/// How often a table is printed where there is no terminal.
const EVERY: Duration = Duration::from_secs(1);

/// Follows the wanted registrations until the user ends it.
///
/// # Errors
/// [`Error`], if the registration does not exist, or the terminal cannot be used.
pub async fn run(
    session: &Session,
    wanted: &Wanted,
    table: Table,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut following = Following::start(session, wanted).await?;
    match output.terminal {
        true => on_screen(&mut following, table, output).await,
        false => as_tables(&mut following, &table, output).await,
    }
}

async fn as_tables(
    following: &mut Following,
    table: &Table,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        tokio::select! {
            goes_on = following.take_next() => if !goes_on {
                return Ok(Outcome::Well);
            },
            _ = ticks.tick() => {
                following.take();
                following.refresh();
                // Before everything is listed, what is missing is only not known yet.
                if !following.live().is_complete() {
                    continue;
                }
                let lines = table.lines(following.live().picture(), output.width, following.now());
                let space = (!is_first).then(Line::new);
                is_first = false;
                output.lines(space.iter().chain(&lines))?;
            }
            () = end.asked() => return Ok(Outcome::Well),
        }
    }
}
