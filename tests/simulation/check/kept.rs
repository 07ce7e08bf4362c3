//! Each decision that was made of what has changed, compared with the one about all instances; and each plan so.

use beatkeeper::controller::{Compared, ComparedPlans};
use beatkeeper_core::decide::compare;

use super::Check;

impl Check {
    /// Compares the two decisions.
    pub fn compared(&self, compared: &Compared<'_>) {
        let Compared { registration, evidence, evidence_of_all, .. } = compared;
        self.kept.set(self.kept.get() + 1);
        let difference = compare::difference(compared.kept, compared.late_at, compared.all);
        if let Some(difference) = difference {
            self.fail(|| format!("kept: {}: {difference}", registration.key));
        }
        if evidence != evidence_of_all {
            self.fail(|| {
                format!("kept: {}: {evidence:?}, and of all {evidence_of_all:?}", registration.key)
            });
        }
    }

    /// Compares the two plans.
    pub fn compared_plans(&self, plans: &ComparedPlans<'_>) {
        let ComparedPlans { registration, changed, all } = plans;
        self.kept_plans.set(self.kept_plans.get() + 1);
        if let Some(difference) = changed.difference(all) {
            self.fail(|| format!("kept plan: {}: {difference}", registration.key));
        }
    }
}
