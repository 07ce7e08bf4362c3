//! The terminal of the live view.

use std::{io, thread};

use jiff::Timestamp;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    body::Body,
    page::{Action, Health, Page},
};
use crate::{error::Error, model::registration::Picture, render::text::Paint};

/// The terminal. It is restored when this is dropped.
pub struct Screen<B> {
    terminal: DefaultTerminal,
    events: UnboundedReceiver<Event>,
    page: Page<B>,
}

impl<B: Body> Screen<B> {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub fn open(body: B, paint: Paint) -> Result<Self, Error> {
        let terminal = ratatui::try_init()?;
        let (sender, events) = unbounded_channel();
        // Reading a key blocks. The thread ends with the process.
        let read = move || {
            while let Ok(event) = event::read() {
                if sender.send(event).is_err() {
                    return;
                }
            }
        };
        let screen = Self { terminal, events, page: Page::of(body, paint) };
        thread::Builder::new().name("keys".to_owned()).spawn(read).map_err(Error::Start)?;
        Ok(screen)
    }

    /// Waits until the user asks for something.
    pub async fn action(&mut self) -> Action {
        loop {
            match self.events.recv().await {
                None => return Action::Quit,
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if let Some(action) = self.page.key(key) {
                        return action;
                    }
                }
                Some(Event::Resize(..)) => return Action::Redraw,
                Some(_) => {}
            }
        }
    }

    /// Notes that the picture has changed.
    pub fn make_stale(&mut self) {
        self.page.make_stale();
    }

    /// Draws the page. Only cells that differ from the last drawing are written, so nothing flickers.
    ///
    /// # Errors
    /// If the terminal cannot be written.
    pub fn draw(
        &mut self,
        picture: &Picture,
        health: Health<'_>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Self { terminal, page, .. } = self;
        terminal.draw(|frame| page.draw(frame, picture, health, now))?;
        Ok(())
    }
}

impl<B> Drop for Screen<B> {
    fn drop(&mut self) {
        // There is no place to report that this fails.
        let _: io::Result<()> = ratatui::try_restore();
    }
}
