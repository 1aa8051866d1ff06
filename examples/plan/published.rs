//! Published costs beside what the planner says of them: `tests/golden/published_costs.json`.

use std::fs;
use std::path::Path;

use rlvr::plan::{Cost, Hardware, Lengths, ModelFlops, ModelShape, Plan, PlanConfig, Tokens};
use rlvr::{Error, Result};
use serde::Deserialize;

/// The file.
#[derive(Deserialize)]
pub struct Published {
    pub bill: Bill,
    pub runs: Vec<Run>,
    pub sft: Vec<Sft>,
    pub sft_data: SftData,
    pub r1_hours: R1Hours,
}

/// DeepSeek-R1's cost table.
#[derive(Deserialize)]
pub struct Bill {
    pub run: String,
    pub stages: Vec<Stage>,
    pub total: Printed,
}

#[derive(Deserialize)]
pub struct Stage {
    pub stage: String,
    pub devices: f64,
    pub hours: f64,
    pub price: f64,
    #[serde(flatten)]
    pub printed: Printed,
}

/// A line of the table as it was printed, and unrounded.
#[derive(Deserialize)]
pub struct Printed {
    pub printed_hours: String,
    pub printed_dollars: String,
    pub device_hours: f64,
    pub dollars: f64,
}

impl Stage {
    pub fn cost(&self) -> Cost {
        Cost::new(self.devices, self.hours, self.price)
    }
}

/// As the table prints device-hours, and dollars from what it prints of them.
pub fn printed(cost: Cost) -> (String, String) {
    let thousands = (cost.device_hours / 1e3).round();
    let price = cost.dollars / cost.device_hours;
    let hours = format!("{thousands}K");
    (hours, format!("${}K", thousands * price))
}

/// A run of reinforcement learning, or several parts of one.
#[derive(Deserialize)]
pub struct Run {
    pub run: String,
    pub quantity: String,
    pub published: f64,
    /// What the formulas gave when they were written down, lowest and highest.
    pub sheet: [f64; 2],
    pub assumed: Vec<String>,
    pub parts: Vec<Part>,
}

#[derive(Deserialize)]
pub struct Part {
    pub model: String,
    pub hardware: String,
    pub config: PlanConfig,
}

impl Run {
    /// What the planner says: the lower end, by the formulas alone.
    pub fn computed(&self) -> Result<f64> {
        let mut sum = 0.0;
        for part in &self.parts {
            let shape = ModelShape::named(&part.model)?;
            let plan = Plan::new(&shape, &Hardware::named(&part.hardware)?, &part.config)?;
            sum += match self.quantity.as_str() {
                "step_seconds" => plan.step_seconds.low,
                "device_hours" => plan.device_hours.low,
                other => {
                    let expected = "step_seconds or device_hours";
                    return Err(Error::config("quantity", other, expected));
                }
            };
        }
        Ok(sum)
    }
}

/// Supervised training.
#[derive(Deserialize)]
pub struct Sft {
    pub run: String,
    pub published: Option<f64>,
    pub sheet: [f64; 2],
    pub assumed: Vec<String>,
    pub model: String,
    pub hardware: String,
    pub devices: f64,
    pub examples: f64,
    pub epochs: [f64; 2],
    pub length: Lengths,
    pub mfu: f64,
}

impl Sft {
    /// Hours for the fewest and the most epochs, with gradient checkpointing.
    pub fn computed(&self) -> Result<[f64; 2]> {
        let model = ModelFlops::new(&ModelShape::named(&self.model)?, None);
        let Lengths { mean, cv, .. } = self.length;
        let epoch = Tokens {
            count: mean,
            squares: mean * mean * (1.0 + cv * cv),
        } * self.examples;
        let flops = model.update(epoch) + model.forward(epoch);
        let speed = 1e12 * Hardware::named(&self.hardware)?.tflops * self.mfu * self.devices;
        Ok(self.epochs.map(|epochs| epochs * flops / speed / 3600.0))
    }
}

/// What 5,000 device-hours of sampling give.
#[derive(Deserialize)]
pub struct SftData {
    pub run: String,
    pub device_hours: f64,
    pub tokens_per_second: f64,
    pub answer_tokens: f64,
    pub kept: f64,
    pub sheet: Yield,
    pub assumed: Vec<String>,
}

#[derive(Deserialize)]
pub struct Yield {
    pub tokens: f64,
    pub answers: f64,
    pub kept_share: f64,
}

impl SftData {
    pub fn computed(&self) -> Yield {
        let tokens = self.device_hours * 3600.0 * self.tokens_per_second;
        let answers = tokens / self.answer_tokens;
        Yield {
            tokens,
            answers,
            kept_share: self.kept / answers,
        }
    }
}

/// Where the 80 hours of DeepSeek-R1 went, as far as stages are published.
#[derive(Deserialize)]
pub struct R1Hours {
    pub run: String,
    pub hours: f64,
    pub updates: f64,
    pub rate: Rate,
    pub sheet: R1Sheet,
}

#[derive(Deserialize)]
pub struct Rate {
    pub hours: f64,
    pub updates: f64,
}

#[derive(Deserialize)]
pub struct R1Sheet {
    pub stage_4: f64,
    pub left: [f64; 2],
}

impl R1Hours {
    /// Hours of the last stage at R1-Zero's rate, and what is left for the others beside the
    /// supervised stage.
    pub fn computed(&self, sft: [f64; 2]) -> (f64, [f64; 2]) {
        let stage = self.updates * self.rate.hours / self.rate.updates;
        (
            stage,
            [sft[1], sft[0]].map(|hours| self.hours - stage - hours),
        )
    }
}

/// Reads the file.
pub fn read() -> Result<Published> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/published_costs.json");
    let text = fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
    serde_json::from_str(&text).map_err(|reason| Error::model_file(&path, reason))
}
