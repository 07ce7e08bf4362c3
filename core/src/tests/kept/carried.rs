//! Beats that a gateway carries, and what the gateway says.

use super::*;

impl Course {
    pub(super) fn carry(&mut self, who: usize, delivery: Delivery) {
        let carried = self.index.find_carried(&Self::lease(who)).map(|(carried, _)| carried);
        if let Some(carried) = carried.filter(|_| self.has_gateways) {
            self.index.carry(carried, CarrierId::at_place(0), delivery, at(self.now));
        }
    }

    /// What the gateway says of these records.
    pub(super) fn findings(&self, records: &[Record]) -> Option<Findings> {
        let (ttl, interval) = (&self.world.ttl, self.world.registration.interval);
        let finding = |record: &Record| {
            let deadline = record.silence().since + ttl.at(record, interval);
            match () {
                () if at(self.now) < deadline => Finding::Waits { until: deadline },
                () if self.is_cut => Finding::Held(Held::CarrierIsCutOff),
                () => Finding::Silent { deadline },
            }
        };
        let of = records.iter().map(finding).collect();
        self.has_gateways.then(|| Findings { of, ..Findings::default() })
    }
}
