//! The shape and the style of each state. The shapes differ, so that nothing depends on colours.

use beatkeeper_api::InstanceState;

use crate::{model::finding::Severity, render::text::Style};

/// The shape of a state, one character wide, and its style.
pub fn of_state(state: InstanceState) -> (&'static str, Style) {
    match state {
        InstanceState::Ready => ("●", Style::Good),
        InstanceState::NotReady => ("◐", Style::Warning),
        InstanceState::Draining => ("▽", Style::Normal),
        InstanceState::Waiting => ("○", Style::Warning),
        InstanceState::Cordoned => ("⊘", Style::Warning),
        InstanceState::Expired => ("✗", Style::Bad),
        InstanceState::Held => ("‖", Style::Warning),
        InstanceState::Rejected => ("⊗", Style::Bad),
    }
}

/// The shape of a finding, or of the worst of several, and its style.
pub fn of_severity(severity: Option<Severity>) -> (&'static str, Style) {
    match severity {
        None => ("✓", Style::Good),
        Some(Severity::Note) => ("·", Style::Normal),
        Some(Severity::Warning) => ("!", Style::Warning),
        Some(Severity::Bad) => ("✗", Style::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_states_have_the_same_shape() {
        let mut shapes: Vec<_> = InstanceState::ALL.iter().map(|it| of_state(*it).0).collect();
        shapes.sort_unstable();
        shapes.dedup();
        assert_eq!(shapes.len(), InstanceState::ALL.len());
    }
}
