//! Which way the next beat takes. Without I/O.

/// Which way a beat takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It renews the Lease.
    Lease,
    /// It goes through a gateway.
    Gateway,
    /// It renews the Lease. As long as that fails, beats go through a gateway, too: a gateway has carried the last one.
    LeaseOrGateway,
}

/// What decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// The registration asks for a gateway, and this process knows one.
    pub(super) wanted: bool,
    /// A gateway carries the beats of this instance: it has accepted one since the Lease was claimed last.
    pub(super) carried: bool,
    /// The health, the note, or the ttl that the Lease tells has to change. A gateway takes beats only.
    pub(super) has_news: bool,
    /// Another process beats under the same name, or stands by. Both see from writes to the Lease that the other one
    /// lives, so both have to write.
    pub(super) has_rival: bool,
}

impl Circumstances {
    /// The way of the next beat.
    pub(super) fn way(self) -> Way {
        match (self.wanted && !self.has_rival, self.carried) {
            (_, false) => Way::Lease,
            (true, true) if !self.has_news => Way::Gateway,
            (true, true) | (false, true) => Way::LeaseOrGateway,
        }
    }

    /// Whether a beat is sent to a gateway after one that has renewed the Lease. The way changes only when it is accepted.
    pub(super) fn tries_gateway(self) -> bool {
        self.wanted && !self.has_rival && !self.carried
    }

    /// Whether the gateway is given up once a renewal of the Lease is accepted.
    pub(super) fn leaves_gateway(self) -> bool {
        self.carried && (!self.wanted || self.has_rival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_given_up_only_when_the_other_one_has_accepted_a_beat() {
        let none =
            Circumstances { wanted: false, carried: false, has_news: false, has_rival: false };
        let wanted = Circumstances { wanted: true, ..none };
        let carried = Circumstances { carried: true, ..wanted };
        let news = Circumstances { has_news: true, ..carried };
        for (circumstances, way, tries, leaves) in [
            (none, Way::Lease, false, false),
            // The Lease is renewed until a gateway has accepted a beat.
            (wanted, Way::Lease, true, false),
            (Circumstances { has_news: true, ..wanted }, Way::Lease, true, false),
            (carried, Way::Gateway, false, false),
            // A Lease write that changes more than the time, and then on as before.
            (news, Way::LeaseOrGateway, false, false),
            // The registration says Lease again.
            (Circumstances { wanted: false, ..carried }, Way::LeaseOrGateway, false, true),
            (Circumstances { wanted: false, ..news }, Way::LeaseOrGateway, false, true),
            // Another process of the same name.
            (Circumstances { has_rival: true, ..carried }, Way::LeaseOrGateway, false, true),
            (Circumstances { has_rival: true, ..wanted }, Way::Lease, false, false),
        ] {
            assert_eq!(circumstances.way(), way, "{circumstances:?}");
            assert_eq!(circumstances.tries_gateway(), tries, "{circumstances:?}");
            assert_eq!(circumstances.leaves_gateway(), leaves, "{circumstances:?}");
        }
    }
}
