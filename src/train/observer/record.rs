//! The metrics of a step, and the description of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The metrics of one step, by name.
///
/// It is serialized as one flat object, `{"step":12,"kl":0.003,"reward":1.25}`, with metrics sorted
/// by name. A number that is not finite is written as `null` and read back as NaN. As usual for
/// NaN, a record with a NaN is not equal to itself.
#[doc = include_str!("metrics.md")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, counted from 1; 0 is an evaluation before the first step.
    pub step: u64,
    /// The metrics by name. The name `step` is reserved for the field.
    #[serde(
        flatten,
        serialize_with = "write_metrics",
        deserialize_with = "read_metrics"
    )]
    pub metrics: BTreeMap<String, f64>,
}

impl StepRecord {
    /// Creates a record of `step` without metrics.
    pub fn new(step: u64) -> Self {
        Self {
            step,
            metrics: BTreeMap::new(),
        }
    }

    /// Sets `metrics[name]` to `value`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    /// Returns the metric `name`, if it was measured. It may be NaN.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// Returns the metric `name`, if it was measured and is finite.
    pub fn finite(&self, name: &str) -> Option<f64> {
        self.get(name).filter(|value| value.is_finite())
    }
}

/// The description of a run, passed to observers when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The number of steps already done: 0 for a new run, the checkpoint's step for a resumed one.
    pub first_step: u64,
    /// The total number of steps, those before `first_step` included.
    pub last_step: u64,
    /// The title of the run.
    pub title: String,
    /// The predicted memory of an update with completions of maximum length, in bytes; see
    /// [`Trainer::predicted_memory`](crate::train::Trainer::predicted_memory).
    pub predicted_memory: Option<u64>,
}

fn write_metrics<S: Serializer>(
    metrics: &BTreeMap<String, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // Two fields of the same name could be written but not read.
    if metrics.contains_key("step") {
        return Err(serde::ser::Error::custom(
            "a metric is called `step`, which is reserved for the step number",
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
    fn a_record_round_trips_as_a_flat_object() {
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
    fn non_finite_values_are_written_as_null_and_read_as_nan() {
        let record = StepRecord::new(1).with("a", f64::NAN).with("b", -1.0 / 0.0);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"step":1,"a":null,"b":null}"#);
        let back: StepRecord = serde_json::from_str(&text).unwrap();
        assert!(back.get("a").unwrap().is_nan() && back.get("b").unwrap().is_nan());
        assert_eq!((back.get("c"), back.finite("a")), (None, None));
    }

    #[test]
    fn a_metric_called_step_cannot_be_serialized() {
        let record = StepRecord::new(1).with("step", 2.0);
        let error = serde_json::to_string(&record).unwrap_err().to_string();
        assert!(error.contains("called `step`"), "{error}");
        for text in ["{}", r#"{"step":-1}"#, r#"{"step":1,"reward":"high"}"#] {
            assert!(serde_json::from_str::<StepRecord>(text).is_err(), "{text}");
        }
    }
}
