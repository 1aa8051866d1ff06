//! Custom surrogates as part of a configuration.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{SurrogateInput, SurrogateLoss, SurrogateTerm};
use crate::Result;
use crate::loss::RatioLevel;
use crate::recorded::Recorded;

impl PartialEq for dyn SurrogateLoss {
    /// Two surrogates are equal if their names and fingerprints are.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.fingerprint() == other.fingerprint()
    }
}

const FIELD: &str = "surrogate";
const EXPECTED: &str = "a surrogate set in code with Surrogate::custom";

impl SurrogateLoss for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    fn validate(&self, _level: RatioLevel) -> Result<()> {
        Err(self.error(FIELD, EXPECTED))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn term(&self, _input: &SurrogateInput) -> Result<SurrogateTerm> {
        Err(self.error(FIELD, EXPECTED))
    }
}

pub(super) fn serialize<S: Serializer>(
    surrogate: &Arc<dyn SurrogateLoss>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let recorded = Recorded {
        name: surrogate.name().into(),
        fingerprint: surrogate.fingerprint(),
    };
    recorded.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Arc<dyn SurrogateLoss>, D::Error> {
    Ok(Arc::new(Recorded::deserialize(deserializer)?))
}
