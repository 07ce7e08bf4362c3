//! Tests of several candidates and one Lease, with lost and late requests and answers, suspensions and crashes. Two
//! claims never hold at the same moment, and when the faults stop, one candidate leads.

use proptest::prelude::*;

use super::*;

/// What happens to a request, and when.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// After how many milliseconds the request arrives; None if it never does. The request may arrive even if the
    /// candidate no longer waits for it.
    arrives: Option<u64>,
    /// How many milliseconds after that the answer comes; None if it never does.
    answered: Option<u64>,
}

const PROMPT: Fate = Fate { arrives: Some(5), answered: Some(5) };

#[derive(Debug, Clone)]
enum Op {
    /// Time passes.
    Pass(u64),
    /// Sets what happens to the next request of a candidate.
    Next(usize, Fate),
    /// Suspends a candidate for so many milliseconds.
    Suspend(usize, u64),
    /// The same, from the moment at which the candidate has sent its next request.
    SuspendAsking(usize, u64),
    /// A watch shows a candidate the Lease as it was so many changes ago.
    Watch(usize, usize),
    /// A candidate crashes, and a new process replaces it.
    Replace(usize),
    /// A candidate stops leading, as on SIGTERM, and a new process replaces it.
    Release(usize),
}

#[derive(Debug, Clone)]
struct Request {
    /// What to write; None for a read.
    draft: Option<Draft>,
    sent: u64,
    arrives: Option<u64>,
    answer: Option<u64>,
    /// The answer of the API server, once the request has arrived.
    outcome: Option<Result<Option<LeaderLease>, ()>>,
}

struct Process {
    born: usize,
    candidate: Candidate,
    suspended_until: u64,
    suspended_asking: Option<u64>,
    fate: Fate,
    /// The request that the process waits for, and when it stops waiting.
    waits: Option<(usize, u64)>,
}

struct Scene {
    now: u64,
    version: u64,
    lease: Option<LeaderLease>,
    /// All states of the Lease so far, including the current one.
    history: Vec<Option<LeaderLease>>,
    requests: Vec<Request>,
    /// The requests that may still arrive.
    under_way: Vec<usize>,
    processes: Vec<Process>,
    born: usize,
    /// The last claim that held: its process, by the number of its birth, and the number of the term.
    led: Option<(usize, i32)>,
}

impl Scene {
    fn new(count: usize) -> Self {
        let mut scene = Self {
            now: 0,
            version: 0,
            lease: None,
            history: vec![None],
            requests: Vec::new(),
            under_way: Vec::new(),
            processes: Vec::new(),
            born: 0,
            led: None,
        };
        for _ in 0..count {
            let process = scene.process();
            scene.processes.push(process);
        }
        scene
    }

    fn process(&mut self) -> Process {
        self.born += 1;
        let candidate = candidate(&format!("replica-{}", self.born));
        Process {
            born: self.born,
            candidate,
            suspended_until: 0,
            suspended_asking: None,
            fate: PROMPT,
            waits: None,
        }
    }

    fn play(&mut self, op: &Op) {
        match *op {
            Op::Pass(span) => self.pass(span),
            Op::Next(n, fate) => self.processes[n].fate = fate,
            Op::Suspend(n, span) => self.processes[n].suspended_until = self.now + span,
            Op::SuspendAsking(n, span) => self.processes[n].suspended_asking = Some(span),
            Op::Watch(n, back) => {
                let one = &mut self.processes[n];
                let now = at(self.now);
                // A candidate that leads, or that waits for an answer, does not read the Lease.
                let looks = one.suspended_until <= self.now
                    && one.waits.is_none()
                    && !one.candidate.holds(now);
                if looks && let Some(lease) = self.history.iter().rev().nth(back) {
                    one.candidate.saw(lease.clone(), now);
                }
            }
            Op::Replace(n) => self.processes[n] = self.process(),
            Op::Release(n) => {
                if let Some(draft) = self.processes[n].candidate.release() {
                    self.send(n, Some(draft));
                }
                self.processes[n] = self.process();
            }
        }
    }

    fn pass(&mut self, span: u64) {
        for _ in 0..span {
            self.arrive();
            for n in 0..self.processes.len() {
                if self.processes[n].suspended_until <= self.now {
                    self.run(n);
                }
            }
            // Suspended candidates count as well, because they may resume at any moment.
            let leading: Vec<_> =
                self.processes.iter().filter(|one| one.candidate.holds(at(self.now))).collect();
            assert!(leading.len() <= 1, "{} lead at {}", leading.len(), self.now);
            if let Some(leader) = leading.first() {
                let claim = (leader.born, leader.candidate.number().expect("it has claimed"));
                // Another process has a higher number, and the same one never a lower.
                let rises = |led: (usize, i32)| claim == led || claim.1 > led.1;
                assert!(self.led.is_none_or(rises), "{claim:?} follows {:?}", self.led);
                self.led = Some(claim);
            }
            self.now += 1;
        }
    }

    /// Lets the API server process the requests that have arrived.
    fn arrive(&mut self) {
        for n in std::mem::take(&mut self.under_way) {
            let request = &self.requests[n];
            if request.arrives.is_some_and(|due| self.now < due) {
                self.under_way.push(n);
                continue;
            }
            let outcome = match &request.draft {
                None => Ok(self.lease.clone()),
                Some(draft) if draft.replaces == self.lease.as_ref().map(|l| l.version.clone()) => {
                    self.version += 1;
                    self.lease = Some(written(draft, self.version));
                    self.history.push(self.lease.clone());
                    Ok(self.lease.clone())
                }
                Some(_) => Err(()),
            };
            self.requests[n].outcome = Some(outcome);
        }
    }

    fn send(&mut self, from: usize, draft: Option<Draft>) -> usize {
        let fate = std::mem::replace(&mut self.processes[from].fate, PROMPT);
        let arrives = fate.arrives.map(|delay| self.now + delay);
        let answer = arrives.zip(fate.answered).map(|(arrives, delay)| arrives + delay);
        let sent = self.now;
        self.requests.push(Request { draft, sent, arrives, answer, outcome: None });
        let request = self.requests.len() - 1;
        self.under_way.extend(arrives.map(|_| request));
        request
    }

    /// Lets one candidate do what it can do at this moment.
    fn run(&mut self, n: usize) {
        let now = at(self.now);
        if let Some((request, gives_up)) = self.processes[n].waits {
            let Request { draft, sent, answer, outcome, .. } = &self.requests[request];
            let (sent, writes) = (*sent, draft.is_some());
            let answered = answer.is_some_and(|due| due <= self.now);
            let outcome = outcome.clone().filter(|_| answered);
            let candidate = &mut self.processes[n].candidate;
            match outcome {
                Some(Ok(Some(lease))) if writes => candidate.wrote(lease, at(sent), now),
                Some(Ok(lease)) => candidate.saw(lease, now),
                Some(Err(())) => candidate.refused(),
                None if gives_up <= self.now => candidate.unanswered(now),
                None => return,
            }
            self.processes[n].waits = None;
        }
        let draft = match self.processes[n].candidate.next(now) {
            Move::Wait(_) => return,
            Move::Read => None,
            Move::Write(draft) => Some(draft),
        };
        let request = self.send(n, draft);
        let timeout = u64::try_from(durations().request_timeout().as_millis()).expect("small");
        if let Some(span) = self.processes[n].suspended_asking.take() {
            self.processes[n].suspended_until = self.now + span;
        }
        self.processes[n].waits = Some((request, self.now + timeout));
    }

    /// Ends all faults. Requests on their way are lost, and the waiting candidates are told so.
    fn calm(&mut self) {
        for process in &mut self.processes {
            process.suspended_until = 0;
            process.suspended_asking = None;
            process.fate = PROMPT;
            if process.waits.take().is_some() {
                process.candidate.unanswered(at(self.now));
            }
        }
        self.under_way.clear();
    }

    fn leads(&self) -> bool {
        self.processes.iter().any(|one| one.candidate.holds(at(self.now)))
    }
}

fn fates() -> impl Strategy<Value = Fate> {
    let delay =
        || prop_oneof![Just(None), (0..20_u64).prop_map(Some), (0..8000_u64).prop_map(Some)];
    (delay(), delay()).prop_map(|(arrives, answered)| Fate { arrives, answered })
}

fn ops(count: usize) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (1..3000_u64).prop_map(Op::Pass),
        4 => (0..count, fates()).prop_map(|(n, fate)| Op::Next(n, fate)),
        2 => (0..count, 1..9000_u64).prop_map(|(n, span)| Op::Suspend(n, span)),
        2 => (0..count, 1..9000_u64).prop_map(|(n, span)| Op::SuspendAsking(n, span)),
        4 => (0..count, 0..4_usize).prop_map(|(n, back)| Op::Watch(n, back)),
        1 => (0..count).prop_map(Op::Replace),
        1 => (0..count).prop_map(Op::Release),
    ];
    prop::collection::vec(op, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_claims_never_overlap_and_one_replica_leads_in_the_end(
        (count, ops) in (2..4_usize).prop_flat_map(|count| (Just(count), ops(count))),
    ) {
        let mut scene = Scene::new(count);
        ops.iter().for_each(|op| scene.play(op));
        scene.calm();
        // The terms: a pause, a read, the lease duration from then on, a read, the claim. Each step may be noticed one
        // tick late.
        let bound = 500 + 10 + 5000 + 10 + 10 + 5;
        for _ in 0..bound {
            if scene.leads() {
                break;
            }
            scene.pass(1);
        }
        prop_assert!(scene.leads(), "no replica leads {bound} ms after the last fault");
        scene.pass(10_000);
        prop_assert!(scene.leads(), "the leader goes on");
    }
}

#[test]
fn a_crashed_leader_is_replaced_within_lease_and_retry_period() {
    let mut scene = Scene::new(2);
    scene.pass(2000);
    let leader = scene.processes.iter().position(|one| one.candidate.holds(at(2000))).expect("one");
    scene.processes[leader].suspended_until = u64::MAX;
    scene.pass(5000 + 500 + 20);
    assert!(scene.processes[1 - leader].candidate.holds(at(scene.now)));
}

#[test]
fn a_released_claim_is_taken_up_within_the_retry_period() {
    let mut scene = Scene::new(2);
    scene.pass(2000);
    let leader = scene.processes.iter().position(|one| one.candidate.holds(at(2000))).expect("one");
    scene.play(&Op::Release(leader));
    scene.processes[leader].suspended_until = u64::MAX;
    scene.pass(500 + 30);
    assert!(scene.processes[1 - leader].candidate.holds(at(scene.now)));
}
