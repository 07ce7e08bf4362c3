//! The signals that an agent handles.

use std::{io, process::ExitCode};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::reap;

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivedSignal {
    /// The signal asks the agent to end.
    End(Signal),
    /// The signal does not concern the agent; a command that the agent runs may want it.
    PassOn(Signal),
}

/// The signals that are handled from the start on: a signal during the start must not kill the agent halfway.
pub struct Signals {
    end: [unix::Signal; 3],
    pass_on: [unix::Signal; 3],
    /// Reaps the processes that no other task waits for.
    _reaping: AbortOnDropHandle<()>,
}

const END: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::QUIT];
const PASS_ON: [Signal; 3] = [Signal::HUP, Signal::USR1, Signal::USR2];

impl Signals {
    /// Begins to listen, and to reap orphans.
    pub fn listen() -> io::Result<Self> {
        let listen = |one: Signal| signal(SignalKind::from_raw(one.as_raw()));
        let [a, b, c] = END.map(listen);
        let [d, e, f] = PASS_ON.map(listen);
        let _reaping = AbortOnDropHandle::new(tokio::spawn(reap::orphans()));
        Ok(Self { end: [a?, b?, c?], pass_on: [d?, e?, f?], _reaping })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> ReceivedSignal {
        let ([term, int, quit], [hup, usr1, usr2]) = (&mut self.end, &mut self.pass_on);
        tokio::select! {
            // SIGUSR1, which says how to end, comes before the signals that ask to end: a service manager
            // sends both almost at one moment.
            biased;
            _ = usr1.recv() => ReceivedSignal::PassOn(PASS_ON[1]),
            _ = term.recv() => ReceivedSignal::End(END[0]),
            _ = int.recv() => ReceivedSignal::End(END[1]),
            _ = quit.recv() => ReceivedSignal::End(END[2]),
            _ = hup.recv() => ReceivedSignal::PassOn(PASS_ON[0]),
            _ = usr2.recv() => ReceivedSignal::PassOn(PASS_ON[2]),
        }
    }

    /// Waits for the next signal that asks the agent to end.
    pub async fn end(&mut self) -> Signal {
        loop {
            if let ReceivedSignal::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}

/// The usual name of a signal.
pub fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "SIGTERM",
        Signal::INT => "SIGINT",
        Signal::QUIT => "SIGQUIT",
        Signal::HUP => "SIGHUP",
        Signal::USR1 => "SIGUSR1",
        _ => "a signal",
    }
}

/// The exit code with which a shell reports that a signal has ended a command.
pub fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(128 + u8::try_from(signal).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpid, kill_process};

    use super::*;

    /// The runtimes of other tests share the signals of this process. One of them may be between the two steps in which it
    /// tells of a signal, so that a listener knows of it a moment later. So a few rounds may have the other order.
    const ROUNDS: usize = 60;

    #[tokio::test]
    async fn an_agent_asked_at_once_to_keep_its_leases_and_to_end_keeps_them() {
        let mut signals = Signals::listen().expect("signals");
        let mut others_first = 0;
        for _ in 0..ROUNDS {
            let both = [Signal::TERM, Signal::USR1];
            let listen = |one: Signal| signal(SignalKind::from_raw(one.as_raw()));
            let mut arrived = both.map(|one| listen(one).expect("a listener"));
            for one in both {
                kill_process(getpid(), one).expect("our own process");
            }
            for one in &mut arrived {
                one.recv().await;
            }
            let order = [signals.next().await, signals.next().await];
            let [keep, end] =
                [ReceivedSignal::PassOn(Signal::USR1), ReceivedSignal::End(Signal::TERM)];
            if order != [keep, end] {
                assert_eq!(order, [end, keep]);
                others_first += 1;
            }
        }
        // Without the order it would be half of them.
        assert!(others_first <= ROUNDS / 5, "{others_first} of {ROUNDS}");
    }
}
