//! Corrects the verdicts, so that reports describe what is in the slices.
//!
//! A decision says what should be published. But the registration may be stalled, a write may have failed, or the API
//! server may refuse an address. Then the report says what the slices contain, and why they do not contain what was
//! decided.

use std::net::IpAddr;

use beatkeeper_api::InstanceState;

use crate::{
    decide::verdict::Verdict, inputs::stall::Stall, report::applied::Applied,
    vocabulary::reason::Reason,
};

/// Corrects each verdict according to the slices. `publish_not_ready` is the Service's publishNotReadyAddresses.
pub fn correct(
    verdicts: &mut [Verdict],
    stall: Option<&Stall>,
    applied: &Applied,
    publish_not_ready: bool,
) {
    if applied.dry_run.is_some() {
        return;
    }
    let teller = Teller { stall, applied, publish_not_ready };
    // An address of an instance that is not published may also belong to an instance that is alive.
    let shared: Vec<IpAddr> = verdicts
        .iter()
        .filter(|verdict| !verdict.is_published())
        .flat_map(addresses)
        .filter(|address| applied.published.holds(address))
        .copied()
        .collect();
    let kept: Vec<IpAddr> = match shared.as_slice() {
        [] => Vec::new(),
        shared => {
            let living = verdicts.iter().filter(|verdict| verdict.is_published());
            living.flat_map(addresses).filter(|it| shared.contains(it)).copied().collect()
        }
    };
    for verdict in verdicts {
        teller.correct(verdict, &kept);
    }
}

fn addresses(verdict: &Verdict) -> impl Iterator<Item = &IpAddr> {
    verdict.placement.iter().flat_map(|placement| &placement.addresses)
}

struct Teller<'a> {
    stall: Option<&'a Stall>,
    applied: &'a Applied,
    publish_not_ready: bool,
}

impl Teller<'_> {
    fn correct(&self, verdict: &mut Verdict, kept: &[IpAddr]) {
        let published = &self.applied.published;
        let is_there = addresses(verdict).any(|address| published.holds(address));
        let is_ready = addresses(verdict).any(|address| published.is_ready(address));
        let wants_ready = matches!(verdict.state, InstanceState::Ready | InstanceState::Held);
        match () {
            () if verdict.is_published() && !is_there => {
                let (reason, why) = self.why(verdict);
                let message =
                    format!("decided to be {}, but not published: {why}", verdict.state.as_str());
                (verdict.state, verdict.reason) = (InstanceState::Waiting, reason);
                verdict.message = message;
            }
            () if wants_ready && !is_ready => {
                let (reason, why) = self.why(verdict);
                let message = format!(
                    "decided to be {}, but published as not ready: {why}",
                    verdict.state.as_str()
                );
                (verdict.state, verdict.reason) = (InstanceState::NotReady, reason);
                verdict.message = message;
            }
            () if wants_ready => self.tell_what_is_missing(verdict),
            () if verdict.is_published()
                && is_ready
                && self.has_failed()
                && !self.publish_not_ready =>
            {
                self.tell_what_stays(verdict, "still published as ready");
            }
            () if !verdict.is_published() => {
                let stays = addresses(verdict).any(|it| published.holds(it) && !kept.contains(it));
                if stays && self.has_failed() {
                    self.tell_what_stays(verdict, "still published");
                }
            }
            () => {}
        }
    }

    /// The message for an instance that is published without some of its addresses.
    fn tell_what_is_missing(&self, verdict: &mut Verdict) {
        let refused = &self.applied.refused.addresses;
        let missing = addresses(verdict).find(|address| !self.applied.published.holds(address));
        if let Some((address, words)) = missing.and_then(|it| Some((it, refused.get(it)?))) {
            verdict.message = format!("{address} is not published: {words}");
        }
    }

    fn tell_what_stays(&self, verdict: &mut Verdict, what: &str) {
        let (_, why) = self.why(verdict);
        let decided = match verdict.message.as_str() {
            "" => verdict.reason.as_str(),
            message => message,
        };
        verdict.message = format!("{decided}; {what}: {why}");
        verdict.reason = Reason::PublishFailed;
    }

    fn has_failed(&self) -> bool {
        self.applied.failure.is_some() || !self.applied.refused.is_empty()
    }

    /// Why the slices do not contain what was decided.
    fn why(&self, verdict: &Verdict) -> (Reason, String) {
        let Applied { failure, refused, .. } = self.applied;
        let words = addresses(verdict).find_map(|address| refused.addresses.get(address));
        let words = words.map(ToString::to_string);
        let words = words.or_else(|| failure.as_ref().map(ToString::to_string));
        // An object that cannot be written has one message for all addresses in it. It is used only if the address has
        // no message of its own.
        let words = words.or_else(|| refused.objects.values().next().map(ToString::to_string));
        match (words, self.stall) {
            (Some(words), _) => (Reason::PublishFailed, words),
            (None, Some(stall)) => {
                let message = format!(
                    "the registration is stalled ({}), see its conditions",
                    stall.reason.as_str()
                );
                (Reason::NotPublished, message)
            }
            (None, None) => {
                (Reason::NotPublished, "it is not in the Service's slices yet".to_owned())
            }
        }
    }
}
