//! What `adopt` says before it asks.

use std::collections::BTreeSet;

use beatkeeper_api::status::condition;

use crate::{
    change::service::Selecting,
    model::{difference::Difference, kind::Kind, registration::RegistrationView},
    render::{
        difference::unified,
        text::{Line, Style},
    },
};

/// What the operator says, what would change, and what follows.
pub(super) fn told(
    view: &RegistrationView,
    difference: &Difference,
    selecting: Option<&Selecting>,
) -> Vec<Line> {
    let plain = |text: String| Line::of(text, Style::Normal);
    let says = view.reported.condition(condition::READY);
    let says = says.map(|ready| format!("The operator says: {}", ready.message));
    let mut lines: Vec<Line> = says.into_iter().map(plain).collect();
    match difference.is_empty() {
        true => lines.push(plain("No address, port or readiness would change.".to_owned())),
        false => lines.extend(unified(difference)),
    }
    lines.extend(follows(view, difference, selecting).into_iter().map(plain));
    lines
}

fn follows(
    view: &RegistrationView,
    difference: &Difference,
    selecting: Option<&Selecting>,
) -> Vec<String> {
    let service = &view.service_name;
    let slices = difference.objects.iter().filter(|object| object.kind == Kind::EndpointSlice);
    let published: BTreeSet<&str> =
        slices.flat_map(|object| object.before.keys()).map(|row| row.address.as_str()).collect();
    let beats = |address: &&&str| {
        let mut beating = view.instances.iter().filter(|it| it.beat.is_some());
        beating.any(|it| it.addresses.iter().any(|own| own == **address))
    };
    let beating = published.iter().filter(beats).count();
    let (all, waiting) = (published.len(), published.len() - beating);
    let mut told = vec![match all {
        0 => format!("Service {service} publishes no address that could be taken over."),
        1 => format!("{beating} of 1 published address beats already."),
        all => format!("{beating} of {all} published addresses beat already."),
    }];
    match selecting {
        Some(selecting) => {
            let selector = selecting.selector.iter().map(|(key, value)| format!("{key}={value}"));
            let selector = selector.collect::<Vec<_>>().join(",");
            if waiting > 0 {
                told.push(
                    "Each other one stays published while its Pod runs, and is ready when its kubelet says so."
                        .to_owned(),
                );
            }
            told.push(format!("The selector {selector} of Service {service} will be removed."));
            told.push(format!("To go back afterwards: {}", selecting.restoring()));
        }
        None if waiting > 0 => told.push(
            "Each other one stays published until it beats for the first time, or is removed from annotation \
             beatkeeper.dev/adopt."
                .to_owned(),
        ),
        None => {}
    }
    told.push(format!(
        "Afterwards the operator manages the slices and Endpoints of Service {service}."
    ));
    told
}
