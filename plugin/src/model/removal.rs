//! What follows when an instance gets no new connections any more, because a person removes or drains it.

use beatkeeper_api::InstanceState;

use super::{
    finding::named,
    instance::{Instance, Published},
    registration::RegistrationView,
};

/// What follows from the removal of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The present state of the instance, and its reason.
    pub state: String,
    /// Whether it gets new connections now.
    pub serves: bool,
    /// Whether nothing follows because of a dry run.
    pub dry_run: bool,
    /// The Service.
    pub service: String,
    /// The instances that are ready now.
    pub ready: usize,
    /// The ready instances that would be left.
    pub left: Vec<String>,
    /// Instances that would be left and are held: their ttl has passed.
    pub held: Vec<String>,
    /// How many ready instances are protected.
    pub min_ready: usize,
}

impl Removal {
    /// What follows from the removal of an instance.
    pub fn of(view: &RegistrationView, instance: &Instance) -> Self {
        let in_state = |state: InstanceState| {
            let all = view.instances.iter().filter(move |it| it.state == state);
            all.filter(|it| it.name != instance.name).map(|it| it.name.clone()).collect::<Vec<_>>()
        };
        let left = in_state(InstanceState::Ready);
        Self {
            state: format!("{} ({})", instance.state.as_str(), instance.reason),
            serves: match instance.state {
                InstanceState::Ready | InstanceState::Held => true,
                // The slices may be late, or the status may list too few instances.
                _ => instance.published == Published::Ready,
            },
            dry_run: view.is_dry_run(),
            service: view.service_name.clone(),
            ready: left.len() + usize::from(instance.state == InstanceState::Ready),
            held: in_state(InstanceState::Held),
            left,
            min_ready: view.min_ready,
        }
    }

    /// Whether a person should say that this is wanted: fewer ready instances than `minReady`, or none, would be left.
    pub fn leaves_too_few(&self) -> bool {
        self.serves && !self.dry_run && self.left.len() < self.min_ready.max(1)
    }

    /// What would be left, as sentences.
    pub fn told(&self) -> Vec<String> {
        let mut told = vec![match self.serves {
            true => format!("It is {} and gets new connections.", self.state),
            false => format!("It is {} and gets no new connections as it is.", self.state),
        }];
        if self.dry_run {
            told.push(
                "The registration is in a dry run: nothing that is published changes.".to_owned(),
            );
        }
        told.push(match self.left.len() {
            0 => format!("No ready instance is left: Service {} gives no answer.", self.service),
            left => format!(
                "{left} of {} ready instances {} left: {}.",
                self.ready,
                if left == 1 { "is" } else { "are" },
                named(self.left.iter().map(String::as_str))
            ),
        });
        if !self.held.is_empty() {
            let held = named(self.held.iter().map(String::as_str));
            told.push(format!("Held, and perhaps dead: {held}."));
        }
        if self.leaves_too_few() && !self.left.is_empty() {
            told.push(format!("That is below spec.protection.minReady, {}.", self.min_ready));
        }
        told
    }
}
