//! The one thread that spawns, signals and reaps the three processes.
//!
//! It is a thread of its own because the kernel ties the children's death signal to the thread that spawned them:
//! the children live exactly as long as this thread.

use std::collections::HashMap;
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::part::{Part, Recipe};
use crate::process::die_with_this_thread;

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// An operation on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    Start,
    Stop,
    Kill,
    Suspend,
    Resume,
    Status,
}

/// The state of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Set while the process runs, suspended or not.
    pub(crate) pid: Option<u32>,
    /// How the last run ended; `None` before the first end.
    pub(crate) ended: Option<String>,
}

pub(crate) struct Request {
    pub(crate) part: Part,
    pub(crate) order: Order,
    pub(crate) reply: oneshot::Sender<Result<Status>>,
}

enum Message {
    Request(Request),
    End,
}

/// Ends the processes when dropped.
pub(crate) struct Supervisor {
    orders: mpsc::Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// Gives orders to a supervisor. It may outlive the supervisor, and then returns errors.
#[derive(Clone)]
pub(crate) struct Orders(mpsc::Sender<Message>);

impl Orders {
    /// Sends an order. The answer arrives through the returned channel.
    pub(crate) fn give(&self, part: Part, order: Order) -> oneshot::Receiver<Result<Status>> {
        let (reply, answer) = oneshot::channel();
        // A supervisor that has ended drops the reply, and the receiver then gets an error.
        let _ = self.0.send(Message::Request(Request { part, order, reply }));
        answer
    }
}

impl Supervisor {
    pub(crate) fn new(recipes: Vec<Recipe>) -> Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("control-plane".to_owned())
            .spawn(move || {
                let mut processes: HashMap<Part, Process> =
                    recipes.into_iter().map(|recipe| (recipe.part, Process::new(recipe))).collect();
                while let Ok(Message::Request(request)) = inbox.recv() {
                    let answer = match processes.get_mut(&request.part) {
                        Some(process) => process.obey(request.order),
                        None => Err(anyhow!("there is no {}", request.part.name())),
                    };
                    let _ = request.reply.send(answer);
                }
                end(processes);
            })
            .context("cannot start the thread that supervises the control plane")?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Ends the processes. Does not wait for their end.
    pub(crate) fn end(&self) {
        // An error means that they have ended already.
        let _ = self.orders.send(Message::End);
    }

    pub(crate) fn orders(&self) -> Orders {
        Orders(self.orders.clone())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Kills the processes and does not ask them to end. Their data is removed with them, so nothing needs to be
/// written back, and an API server that is asked to end waits for its open watches.
fn end(processes: HashMap<Part, Process>) {
    let mut children: Vec<Child> =
        processes.into_values().filter_map(|process| process.child).collect();
    for child in &mut children {
        let _ = child.kill();
    }
    for child in &mut children {
        let _ = child.wait();
    }
}

struct Process {
    recipe: Recipe,
    child: Option<Child>,
    ended: Option<ExitStatus>,
}

impl Process {
    fn new(recipe: Recipe) -> Self {
        Self { recipe, child: None, ended: None }
    }

    /// Executes an order. Each order may be repeated: if the process already has the wanted state, nothing changes.
    fn obey(&mut self, order: Order) -> Result<Status> {
        self.reap()?;
        match order {
            Order::Status => {}
            Order::Start => self.start()?,
            Order::Stop => self.stop()?,
            Order::Kill => {
                self.signal(Signal::KILL)?;
                self.wait()?;
            }
            Order::Suspend => self.must_run()?.signal(Signal::STOP)?,
            Order::Resume => self.must_run()?.signal(Signal::CONT)?,
        }
        Ok(self.status())
    }

    fn status(&self) -> Status {
        Status {
            pid: self.child.as_ref().map(Child::id),
            ended: self.ended.map(|status| status.to_string()),
        }
    }

    fn reap(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            self.ended = Some(status);
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.recipe.log)
            .with_context(|| format!("cannot open {}", self.recipe.log.display()))?;
        let mut command = Command::new(&self.recipe.program);
        command
            .args(&self.recipe.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = die_with_this_thread(&mut command, true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.recipe.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        // A suspended process gets the first signal only when it runs again.
        self.signal(Signal::CONT)?;
        let by = Instant::now() + GRACE;
        while self.child.is_some() && Instant::now() < by {
            thread::sleep(Duration::from_millis(10));
            self.reap()?;
        }
        self.signal(Signal::KILL)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            self.ended = Some(child.wait()?);
        }
        Ok(())
    }

    fn must_run(&mut self) -> Result<&mut Self> {
        if self.child.is_none() {
            return Err(anyhow!("{} does not run", self.recipe.part.name()));
        }
        Ok(self)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        // Not reaped yet, so the id is still this child's.
        let pid = Pid::from_child(child);
        kill_process(pid, signal)
            .with_context(|| format!("cannot signal {}", self.recipe.part.name()))
    }
}
