//! How many instances are in each state.

use beatkeeper_api::InstanceState;

use super::instance::Instance;

/// How many instances are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    by_state: [usize; InstanceState::ALL.len()],
}

impl Counts {
    /// Counts instances.
    pub fn of(instances: &[Instance]) -> Self {
        let mut counts = Self::default();
        for instance in instances {
            counts.by_state[place(instance.state)] += 1;
        }
        counts
    }

    /// How many are in a state.
    pub fn of_state(&self, state: InstanceState) -> usize {
        self.by_state[place(state)]
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.by_state.iter().sum()
    }

    /// How many get traffic: those that are ready, and those that are held.
    pub fn serving(&self) -> usize {
        self.of_state(InstanceState::Ready) + self.of_state(InstanceState::Held)
    }

    /// The states that some instance has, apart from Ready, with their counts.
    pub fn others(&self) -> impl Iterator<Item = (InstanceState, usize)> + '_ {
        let others = InstanceState::ALL.into_iter().filter(|state| *state != InstanceState::Ready);
        others.map(|state| (state, self.of_state(state))).filter(|(_, count)| *count > 0)
    }
}

fn place(state: InstanceState) -> usize {
    InstanceState::ALL.iter().position(|it| *it == state).expect("ALL has all states")
}
