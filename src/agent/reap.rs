//! Reaps orphans if the agent is the first process of a container. The kernel then makes the agent the parent
//! of every process whose own parent has ended. Each such process stays in the process table, after its end,
//! until the agent has waited for it.
//!
//! Other code waits for the processes that the agent has started itself (a wrapped command, or the command of
//! a probe), and the reaper must not take their exit status. So each start is noted, and while a start is
//! under way the reaper waits. A start can take forever if the disk that holds a program does not answer, so
//! it holds no lock.
//!
//! Libraries start programs as well, and note nothing: the SDK runs the credential plugins of a kubeconfig.
//! Each library waits for its program, and takes its status within a moment. So an ended process counts as an
//! orphan only if it is still in the table some time later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, child_subreaper, getpid, waitpid};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// The pause before the next look, while there is a process that has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Code that waits for a program takes its status sooner than this.
const ORPHAN_AFTER: Duration = Duration::from_secs(2);

static STARTING: AtomicUsize = AtomicUsize::new(0);
static OURS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<i32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that the agent waits for elsewhere, while this value is kept.
#[derive(Debug)]
pub struct Ours(Option<i32>);

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            ours().remove(&pid);
        }
    }
}

/// A start that is under way, while this value is kept.
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

/// Starts a process that other code of the agent waits for. The returned [`Ours`] has to outlive that wait.
///
/// # Errors
/// The process cannot be started.
pub fn spawn(command: &mut Command) -> io::Result<(Child, Ours)> {
    let _starting = Starting::begin();
    let child = command.spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    ours().extend(pid);
    Ok((child, Ours(pid)))
}

/// Reaps orphans forever, if the kernel gives any to this process.
pub async fn orphans() {
    let is_given_some =
        getpid().is_init() || child_subreaper().is_ok_and(|reaper| reaper.is_some());
    let Some(mut ended) = is_given_some.then(|| signal(SignalKind::child()).ok()).flatten() else {
        return std::future::pending().await;
    };
    let mut reaper = Reaper::default();
    loop {
        if !reaper.reap(Instant::now()) {
            sleep(LOOK_AGAIN).await;
        } else if ended.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

/// A child that has ended: its pid, and when it was started, because pids are reused.
type Zombie = (i32, u64);

/// When each ended child was first seen.
#[derive(Default)]
struct Reaper(BTreeMap<Zombie, Instant>);

impl Reaper {
    /// Waits for all children that ended some time ago and that no other code of the agent waits for. Returns
    /// false if it has to be called again.
    fn reap(&mut self, now: Instant) -> bool {
        let zombies = zombies(getpid().as_raw_nonzero().get());
        let ours = ours();
        let others = zombies.into_iter().filter(|(pid, _)| !ours.contains(pid));
        let seen = |zombie: Zombie| (zombie, self.0.get(&zombie).copied().unwrap_or(now));
        self.0 = others.map(seen).collect();
        // A start is noted before it counts as ended, so a child that was seen is either noted or still
        // counted here.
        if STARTING.load(SeqCst) == 0 {
            self.0.retain(|(pid, _), since| {
                let is_orphan = now - *since >= ORPHAN_AFTER;
                if is_orphan {
                    // An error means that other code has waited for the child meanwhile.
                    let _ = waitpid(Pid::from_raw(*pid), WaitOptions::NOHANG);
                }
                !is_orphan
            });
        }
        self.0.is_empty()
    }
}

/// Returns the children of a process that have ended.
fn zombies(parent: i32) -> Vec<Zombie> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let zombie = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let Stat { state, parent: of, started } = Stat::of(&stat)?;
        (state == 'Z' && of == parent).then_some((pid, started))
    };
    pids.filter_map(zombie).collect()
}

/// The needed fields of a line of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    /// In ticks since the machine was started.
    started: u64,
}

impl Stat {
    /// Parses a line. The name of the process, in parentheses, may hold any characters.
    fn of(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Held by tests that reap, or that start programs without a note: all tests share one process table.
#[cfg(test)]
pub(super) static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[cfg(test)]
mod tests {
    use super::*;

    fn zombie_of(pid: Option<u32>) -> Zombie {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
        loop {
            let zombies = zombies(getpid().as_raw_nonzero().get());
            if let Some(found) = zombies.into_iter().find(|(one, _)| *one == pid) {
                return found;
            }
            std::thread::yield_now();
        }
    }

    /// Reaps for long enough that each orphan counts as one.
    fn reap_for_long(reaper: &mut Reaper) {
        let now = Instant::now();
        for later in [Duration::ZERO, ORPHAN_AFTER] {
            let _ = reaper.reap(now + later);
        }
    }

    #[test]
    fn state_parent_and_start_are_found_behind_any_name() {
        let rest = "7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        let stat = |state, parent| Some(Stat { state, parent, started: 4711 });
        assert_eq!(Stat::of(&format!("7 (a) Z 9 (b) S) Z 1 {rest}")), stat('Z', 1));
        assert_eq!(Stat::of(&format!("7 (sleep) S 12 {rest}")), stat('S', 12));
        assert_eq!(Stat::of(""), None);
        let own = fs::read_to_string("/proc/self/stat").expect("our own");
        assert!(Stat::of(&own).is_some_and(|own| own.parent > 0 && own.started > 0), "{own}");
    }

    #[tokio::test]
    async fn what_is_waited_for_here_keeps_its_exit_status() {
        let _alone = ALONE.lock().await;
        let mut reaper = Reaper::default();
        for _ in 0..20 {
            let (mut child, _ours) =
                spawn(Command::new("sh").args(["-c", "exit 7"])).expect("a shell");
            zombie_of(child.id());
            reap_for_long(&mut reaper);
            assert_eq!(child.wait().await.expect("its end").code(), Some(7));
        }
    }

    /// A credential plugin is an example.
    #[tokio::test]
    async fn what_a_library_has_started_keeps_its_exit_status_and_an_orphan_is_reaped_later() {
        let _alone = ALONE.lock().await;
        let mut reaper = Reaper::default();
        let mut program = Command::new("sh");
        let mut child = program.args(["-c", "exit 7"]).spawn().expect("a shell");
        zombie_of(child.id());
        let now = Instant::now();
        assert!(!reaper.reap(now), "it is to be looked at again");
        assert!(!reaper.reap(now + ORPHAN_AFTER / 2));
        assert_eq!(child.wait().await.expect("its end").code(), Some(7));

        let mut orphan = std::process::Command::new("true").spawn().expect("a program");
        let zombie = zombie_of(Some(orphan.id()));
        let _ = reaper.reap(now);
        // Other tests may be starting a process.
        while zombies(getpid().as_raw_nonzero().get()).contains(&zombie) {
            let _ = reaper.reap(now + ORPHAN_AFTER);
        }
        assert!(orphan.wait().is_err(), "its status was taken");
    }

    #[tokio::test]
    async fn a_start_that_takes_for_ever_blocks_neither_the_reaper_nor_an_end() {
        let _alone = ALONE.lock().await;
        let (mut child, ours) = spawn(&mut Command::new("true")).expect("a program");
        let hanging = Starting::begin();
        assert!(child.wait().await.expect("its end").success());
        drop(ours);
        // The orphan may have been started a moment ago, and not be noted yet.
        let mut orphan = std::process::Command::new("true").spawn().expect("a program");
        zombie_of(Some(orphan.id()));
        let mut reaper = Reaper::default();
        reap_for_long(&mut reaper);
        assert!(orphan.wait().expect("no other call has waited for it").success());
        drop(hanging);
    }
}
