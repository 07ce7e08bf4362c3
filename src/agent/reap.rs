//! Orphans, where the agent is the first process of a container: the kernel gives it every process whose parent
//! has ended, and each stays in the table of processes until the agent has waited for it.
//!
//! What the agent has started itself, a wrapped command or a probe's, is waited for elsewhere, and its exit
//! status must not be taken away. So each start is noted, and while one is under way the reaper waits. A start may take
//! for ever, where the disk that a program is on does not answer: it holds no lock.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use rustix::process::{Pid, WaitOptions, child_subreaper, getpid, waitpid};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// While something is being started it is looked again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

static STARTING: AtomicUsize = AtomicUsize::new(0);
static OURS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<i32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process of ours, for as long as this is kept.
#[derive(Debug)]
pub struct Ours(Option<i32>);

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            ours().remove(&pid);
        }
    }
}

/// A start that is under way, for as long as this is kept.
struct Starting;

impl Starting {
    fn begin() -> Self {
        STARTING.fetch_add(1, SeqCst);
        Self
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        STARTING.fetch_sub(1, SeqCst);
    }
}

/// Starts a process that somebody here waits for. What is returned beside it has to outlive the waiting.
///
/// # Errors
/// It cannot be started.
pub fn spawn(command: &mut Command) -> io::Result<(Child, Ours)> {
    let _starting = Starting::begin();
    let child = command.spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    ours().extend(pid);
    Ok((child, Ours(pid)))
}

/// Reaps orphans for ever, where this process is given any.
pub async fn orphans() {
    let is_given_some =
        getpid().is_init() || child_subreaper().is_ok_and(|reaper| reaper.is_some());
    let Some(mut ended) = is_given_some.then(|| signal(SignalKind::child()).ok()).flatten() else {
        return std::future::pending().await;
    };
    loop {
        if !reap() {
            sleep(LOOK_AGAIN).await;
        } else if ended.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

/// Waits for all that have ended and that nobody else here waits for. False: it is to be asked again, since what
/// is just being started may be among them.
fn reap() -> bool {
    let zombies = zombies(getpid().as_raw_nonzero().get());
    let ours = ours();
    let mut orphans = zombies.into_iter().filter(|pid| !ours.contains(pid));
    // A start ends after it was noted: whatever was seen is either noted, or still counted here.
    if STARTING.load(SeqCst) > 0 {
        return orphans.next().is_none();
    }
    for pid in orphans {
        // An error: it was waited for meanwhile.
        let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
    }
    true
}

/// The children of a process that have ended.
fn zombies(parent: i32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| state_and_parent(&stat) == Some(('Z', parent)))
    })
    .collect()
}

/// From a line of /proc/PID/stat. The name of the process, in parentheses, may hold anything.
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_parent_are_found_behind_any_name() {
        assert_eq!(state_and_parent("7 (a) Z 9 (b) S) Z 1 7 7 0"), Some(('Z', 1)));
        assert_eq!(state_and_parent("7 (sleep) S 12 7"), Some(('S', 12)));
        assert_eq!(state_and_parent(""), None);
    }

    #[tokio::test]
    async fn what_is_waited_for_here_keeps_its_exit_status() {
        for _ in 0..20 {
            let (mut child, _ours) =
                spawn(Command::new("sh").args(["-c", "exit 7"])).expect("a shell");
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
            while !zombies(getpid().as_raw_nonzero().get()).contains(&pid) {
                std::thread::yield_now();
            }
            let _ = reap();
            assert_eq!(child.wait().await.expect("its end").code(), Some(7));
        }
    }

    #[tokio::test]
    async fn a_start_that_takes_for_ever_blocks_neither_the_reaper_nor_an_end() {
        let (mut child, ours) = spawn(&mut Command::new("true")).expect("a program");
        let hanging = Starting::begin();
        assert!(child.wait().await.expect("its end").success());
        drop(ours);
        // It may have been started a moment ago, and not be noted yet.
        let mut orphan = std::process::Command::new("true").spawn().expect("a program");
        let pid = i32::try_from(orphan.id()).expect("a pid");
        while !zombies(getpid().as_raw_nonzero().get()).contains(&pid) {
            std::thread::yield_now();
        }
        assert!(!reap());
        assert!(orphan.wait().expect("no other call has waited for it").success());
        drop(hanging);
    }
}
