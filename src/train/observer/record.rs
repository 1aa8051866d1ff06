//! What one optimizer step measured, and what a run is.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The numbers of one optimizer step, by name.
///
/// As JSON it is one flat object, `{"step":12,"kl":0.003,"reward":1.25}`, metrics sorted by name. JSON has no NaN and no
/// infinity: a number that is not finite is written as `null`, and `null` is read back as NaN. A record with a NaN is equal to
/// nothing, itself included.
///
#[doc = include_str!("metrics.md")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The optimizer step, counted from 1; 0 is an evaluation before the first.
    pub step: u64,
    /// The metrics by name. `step` is not a possible name: the field has it.
    #[serde(
        flatten,
        serialize_with = "write_metrics",
        deserialize_with = "read_metrics"
    )]
    pub metrics: BTreeMap<String, f64>,
}

impl StepRecord {
    /// A record of `step` with no metrics yet.
    pub fn new(step: u64) -> Self {
        Self {
            step,
            metrics: BTreeMap::new(),
        }
    }

    /// The same record with `metrics[name] = value`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    /// The metric called `name`, if this step measured it. It may be NaN.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// The metric called `name`, if this step measured it and it is neither NaN nor infinite: what can be shown or drawn.
    pub fn finite(&self, name: &str) -> Option<f64> {
        self.get(name).filter(|value| value.is_finite())
    }
}

/// What an observer is told when a run starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Steps already done when this run starts: 0 when it is fresh, the checkpoint's step when it is resumed.
    pub first_step: u64,
    /// Steps in all, those before `first_step` included.
    pub last_step: u64,
    /// What the run is called, for people.
    pub title: String,
    /// Bytes that an update is predicted to need when completions are as long as they may be, see
    /// [`Trainer::predicted_memory`](crate::train::Trainer::predicted_memory).
    pub predicted_memory: Option<u64>,
}

fn write_metrics<S: Serializer>(
    metrics: &BTreeMap<String, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // Two fields of one name would be written happily and never be read again.
    if metrics.contains_key("step") {
        return Err(serde::ser::Error::custom(
            "a metric is called `step`, which is the name of the record's own field",
        ));
    }
    metrics.serialize(serializer)
}

fn read_metrics<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, f64>, D::Error> {
    let metrics = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    let not_a_number = |(name, value): (String, Option<f64>)| (name, value.unwrap_or(f64::NAN));
    Ok(metrics.into_iter().map(not_a_number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_flat_object_and_comes_back() {
        let record = StepRecord::new(12)
            .with("completions/mean_length", 21.25)
            .with("reward", 0.1 + 0.2)
            .with("kl", 5e-324)
            .with("grad_norm", 3.0);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"step":12,"completions/mean_length":21.25,"grad_norm":3.0,"kl":5e-324,"reward":0.30000000000000004}"#
        );
        assert_eq!(serde_json::from_str::<StepRecord>(&text).unwrap(), record);
        let whole: StepRecord = serde_json::from_str(r#"{"reward":1,"step":3}"#).unwrap();
        assert_eq!(whole, StepRecord::new(3).with("reward", 1.0));
    }

    #[test]
    fn what_is_not_finite_is_null_and_null_is_nan() {
        let record = StepRecord::new(1).with("a", f64::NAN).with("b", -1.0 / 0.0);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"step":1,"a":null,"b":null}"#);
        let back: StepRecord = serde_json::from_str(&text).unwrap();
        assert!(back.get("a").unwrap().is_nan() && back.get("b").unwrap().is_nan());
        assert_eq!((back.get("c"), back.finite("a")), (None, None));
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let record = StepRecord::new(1).with("step", 2.0);
        let error = serde_json::to_string(&record).unwrap_err().to_string();
        assert!(error.contains("called `step`"), "{error}");
        for text in ["{}", r#"{"step":-1}"#, r#"{"step":1,"reward":"high"}"#] {
            assert!(serde_json::from_str::<StepRecord>(text).is_err(), "{text}");
        }
    }
}
