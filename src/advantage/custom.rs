//! Custom estimators as part of a configuration.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{AdvantageEstimator, AdvantageInput, Advantages};
use crate::Result;
use crate::recorded::Recorded;

impl PartialEq for dyn AdvantageEstimator {
    /// Two estimators are equal if their names and fingerprints are.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.fingerprint() == other.fingerprint()
    }
}

const FIELD: &str = "advantage";
const EXPECTED: &str = "an estimator set in code with Estimator::custom";

impl AdvantageEstimator for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    fn estimate(&self, _input: &AdvantageInput) -> Result<Advantages> {
        Err(self.error(FIELD, EXPECTED))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn validate(&self) -> Result<()> {
        Err(self.error(FIELD, EXPECTED))
    }
}

pub(super) fn serialize<S: Serializer>(
    estimator: &Arc<dyn AdvantageEstimator>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let recorded = Recorded {
        name: estimator.name().into(),
        fingerprint: estimator.fingerprint(),
    };
    recorded.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Arc<dyn AdvantageEstimator>, D::Error> {
    Ok(Arc::new(Recorded::deserialize(deserializer)?))
}
