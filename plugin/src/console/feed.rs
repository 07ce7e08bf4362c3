//! The task that follows the cluster and feeds the open pages.

use std::sync::Arc;

use beatkeeper_core::vocabulary::key::Key;
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{
    operator::{self, OperatorReport, Source},
    teller::Teller,
    wire::Message,
};
use crate::{
    error::Error,
    gather::{
        events,
        follow::{Following, frames},
        scope::Wanted,
    },
    model::{
        event::Transition,
        why::{self, leader::Leader},
    },
    render::why::{WhyReport, report},
    session::Session,
};

/// How many messages may wait for a page that reads slowly. One that is further behind has to connect again.
const BEHIND: usize = 128;
/// How many questions may wait for the task.
const QUESTIONS: usize = 64;

/// A question to the task.
enum Question {
    /// All that is known, and then each change.
    Subscribe(oneshot::Sender<Subscription>),
    /// The argument about an instance.
    Why {
        key: Key,
        instance: String,
        about: Box<(Vec<Transition>, Leader)>,
        answer: oneshot::Sender<Option<WhyReport>>,
    },
}

/// What a page is fed with.
pub struct Subscription {
    /// All that is known.
    pub first: Vec<Arc<str>>,
    /// What changes from then on.
    pub then: broadcast::Receiver<Arc<str>>,
}

impl Subscription {
    /// All that is known, and then each change. It ends when its reader is too far behind; a page that connects again is
    /// told everything.
    pub fn messages(self) -> impl Stream<Item = Arc<str>> + Send {
        let then = async |mut then: broadcast::Receiver<_>| Some((then.recv().await.ok()?, then));
        stream::iter(self.first).chain(stream::unfold(self.then, then))
    }
}

/// What bounds a feed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Whether readers bring a token each, and choose what they are told.
    pub shared: bool,
    /// The most objects that may be held. With more, the feed ends, and says why.
    pub objects: Option<usize>,
}

/// The way to the task. The task ends when the last copy is dropped.
#[derive(Clone)]
pub struct Feed {
    questions: mpsc::Sender<Question>,
}

impl Feed {
    /// Starts to follow the wanted registrations.
    ///
    /// # Errors
    /// [`Error`], if only one is wanted, and it does not exist or cannot be read.
    pub async fn start(
        session: &Session,
        wanted: &Wanted,
        source: Source,
        bounds: Bounds,
    ) -> Result<Self, Error> {
        let following = Following::start(session, wanted).await?;
        let teller = Teller::new(session.context.clone(), wanted.scope.to_string(), bounds.shared);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let (reports, operator) = mpsc::channel(1);
        let (session, wanted) = (session.clone(), wanted.clone());
        tokio::spawn(operator::follow(session.clone(), wanted.scope.clone(), source, reports));
        let (past, told) = oneshot::channel();
        tokio::spawn(async move {
            // Without the right to read events, the timeline begins now.
            let events = events::of_all(&session.client, &wanted.scope).await;
            let _ = past.send(events.unwrap_or_default());
        });
        let pages = broadcast::Sender::new(BEHIND);
        let task = Task { following, teller, pages, most: bounds.objects };
        tokio::spawn(task.run(asked, operator, told));
        Ok(Self { questions })
    }

    /// All that is known, and what changes from then on; `None` if nothing is followed any more.
    pub async fn subscribe(&self) -> Option<Subscription> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question::Subscribe(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Whether there is such an instance.
    pub async fn knows(&self, key: &Key, instance: &str) -> bool {
        let argument = self.why(key.clone(), instance.to_owned(), Vec::new(), Leader::NotWanted);
        argument.await.is_some()
    }

    /// The argument about an instance, with these events and what the leader has said; `None` if there is no such
    /// instance.
    pub async fn why(
        &self,
        key: Key,
        instance: String,
        events: Vec<Transition>,
        leader: Leader,
    ) -> Option<WhyReport> {
        let (answer, answered) = oneshot::channel();
        let about = Box::new((events, leader));
        let question = Question::Why { key, instance, about, answer };
        self.questions.send(question).await.ok()?;
        answered.await.ok()?
    }
}

struct Task {
    following: Following,
    teller: Teller,
    pages: broadcast::Sender<Arc<str>>,
    most: Option<usize>,
}

impl Task {
    async fn run(
        mut self,
        mut questions: mpsc::Receiver<Question>,
        mut operator: mpsc::Receiver<OperatorReport>,
        mut past: oneshot::Receiver<Vec<(Key, Transition)>>,
    ) {
        let mut frames = frames();
        let mut knows_past = false;
        loop {
            tokio::select! {
                goes_on = self.following.take_next() => if !goes_on {
                    return;
                },
                _ = frames.tick() => if !self.tell_changes() {
                    return;
                },
                question = questions.recv() => match question {
                    Some(question) => self.answer(question),
                    None => return,
                },
                Some(report) = operator.recv() => {
                    let message = self.teller.take_operator(report);
                    self.send(message);
                }
                events = &mut past, if !knows_past => {
                    knows_past = true;
                    self.teller.take_events(events.unwrap_or_default());
                }
            }
        }
    }

    /// Tells what has changed. Returns false if that is too much.
    fn tell_changes(&mut self) -> bool {
        self.following.take();
        let count = self.following.live().store().count();
        if self.most.is_some_and(|most| count > most) {
            self.send([Message::End { why: too_much(self.most.unwrap_or(count)) }]);
            return false;
        }
        let judged = self.following.refresh();
        let now = self.following.now();
        let messages = self.teller.changes(self.following.live(), judged, now);
        self.send(messages);
        true
    }

    fn send(&self, messages: impl IntoIterator<Item = Message>) {
        for text in messages.into_iter().filter_map(|message| text(&message)) {
            // An error means that there is no page.
            let _ = self.pages.send(text);
        }
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Subscribe(answer) => {
                let everything = self.teller.everything(self.following.now());
                let first = everything.iter().filter_map(text).collect();
                let _ = answer.send(Subscription { first, then: self.pages.subscribe() });
            }
            Question::Why { key, instance, about, answer } => {
                let (events, leader) = *about;
                let now = self.following.now();
                let _ = answer.send(self.why(&key, &instance, &events, leader, now));
            }
        }
    }

    fn why(
        &self,
        key: &Key,
        instance: &str,
        events: &[Transition],
        leader: Leader,
        now: Timestamp,
    ) -> Option<WhyReport> {
        let live = self.following.live();
        let mut views = live.picture().registrations.iter();
        let view = views.find(|view| view.key == *key)?;
        let why = why::why(live.store(), view, instance, events, leader, now)?;
        Some(report(view, view.instance(instance)?, &why, now))
    }
}

fn too_much(most: usize) -> String {
    format!(
        "There are more than {most} objects here, which is all that this console shows to one reader. Choose a namespace."
    )
}

/// A message as JSON. One that cannot be written as JSON is left out.
fn text(message: &Message) -> Option<Arc<str>> {
    serde_json::to_string(message).ok().map(Arc::from)
}
