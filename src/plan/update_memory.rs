//! Memory of an update on one device.

use serde::{Deserialize, Serialize};

use super::shape::ModelShape;

/// Precision of the training state, and so its bytes per parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingState {
    /// Everything in f32, 20 bytes: weight 4, gradients of the update and of a micro-batch 8,
    /// AdamW's moments 8.
    F32,
    /// Weights in half precision, 18 bytes: weight 2, gradient 4, f32 copy 4, moments 8.
    #[default]
    Mixed,
}

impl TrainingState {
    /// Returns the bytes of a weight, of its gradients, and of the optimizer state.
    pub(super) fn bytes(self) -> [f64; 3] {
        match self {
            Self::F32 => [4.0, 8.0, 8.0],
            Self::Mixed => [2.0, 4.0, 12.0],
        }
    }
}

/// The numbers that a block stores per token for its backward pass. `D` is the width, `I` the inner
/// width, `H h` the width of all query heads and `H_kv h` that of keys or values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// This crate's kernels on `flex`: `4 D + 2 H h + 2 H_kv h + 3 I` numbers.
    Fused,
    /// Common training stacks with an attention that stores no scores: `8 D + 2 H_kv h + 4 I`.
    #[default]
    Flash,
    /// Compositions of Burn operations, as in this crate on a GPU: the same plus twice the
    /// attention scores, `2 H s` for a token that attends to `s` tokens.
    Composed,
}

/// The size of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MicroBatch {
    /// Completions.
    pub rows: usize,
    /// Prompts of the completions; each is read once.
    pub prompts: usize,
    /// Tokens of a prompt.
    pub prompt_tokens: f64,
    /// Tokens of the longest completion, to which the others are padded.
    pub completion_tokens: f64,
}

impl MicroBatch {
    /// Returns the number of tokens, padding included.
    fn tokens(&self) -> f64 {
        self.completions() + self.prompts as f64 * self.prompt_tokens
    }

    fn completions(&self) -> f64 {
        self.rows as f64 * self.completion_tokens
    }

    /// Returns the number of keys; those of a prompt are repeated for its completions.
    fn keys(&self) -> f64 {
        self.tokens() + self.rows as f64 * self.prompt_tokens
    }

    /// Returns the number of pairs of a query and a key.
    fn pairs(&self) -> f64 {
        self.completions() * (self.prompt_tokens + self.completion_tokens)
            + self.prompts as f64 * self.prompt_tokens * self.prompt_tokens
    }
}

/// Memory of a device during an update, in bytes. The prediction is within 25 % of the measurements
/// in `benches/RESULTS.md`; an allocator that keeps freed memory needs more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateMemory {
    /// Weights of the policy and of the critic, if there is one.
    pub weights: f64,
    /// Gradients: their sum, plus those of a micro-batch if there are several.
    pub gradients: f64,
    /// AdamW's moments, and the f32 copies of weights in half precision.
    pub optimizer: f64,
    /// Weights of the reference policy.
    pub reference: f64,
    /// Activations stored for the backward pass of a micro-batch, and its temporaries.
    pub activations: f64,
    /// A chunk of logits with its temporaries, and the gradient of the unembedding.
    pub logits: f64,
}

/// The settings of an update on one device that its memory depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct UpdateConfig {
    /// The micro-batch.
    pub micro_batch: MicroBatch,
    /// Whether an update has several micro-batches, whose gradients are summed.
    pub several: bool,
    /// Precision of weights, gradients and moments.
    pub state: TrainingState,
    /// What blocks store for the backward pass.
    pub kernels: Kernels,
    /// Whether activations are recomputed in the backward pass.
    pub recompute: bool,
    /// Parameters of the adapters, if they are trained instead of the weights.
    pub adapters: Option<u64>,
    /// Whether there is a reference policy with separate weights; with adapters it shares the
    /// policy's.
    pub reference: bool,
    /// Whether a critic of the policy's size is trained as well.
    pub critic: bool,
    /// Tokens whose logits are in memory at the same time.
    pub logit_chunk: usize,
}

impl UpdateMemory {
    /// Predicts the peak memory of an update on one device that has the whole training state.
    ///
    /// Use the micro-batch at the length cap, which must fit even if completions are short at
    /// first.
    pub(crate) fn new(shape: &ModelShape, config: &UpdateConfig) -> Self {
        let [weight, mut gradient, optimizer] = config.state.bytes();
        if !config.several && config.state == TrainingState::F32 {
            gradient -= 4.0;
        }
        let all = shape.parameters() as f64;
        let models = 1.0 + f64::from(config.critic);
        let trained = config.adapters.map_or(all, |adapters| adapters as f64);
        // Adapters are f32 beside the weights.
        let adapters = config.adapters.map_or(0.0, |_| 4.0 * trained);
        let shares = config.adapters.is_some();
        Self {
            weights: models * (weight * all + adapters),
            gradients: models * gradient * trained,
            optimizer: models * optimizer * trained,
            reference: f64::from(config.reference && !shares) * weight * all,
            activations: activations(shape, &config.micro_batch, config.kernels, config.recompute)
                * weight,
            logits: logits(
                shape,
                config.logit_chunk as f64,
                &config.micro_batch,
                config.kernels,
                !shares,
            ),
        }
    }

    /// Returns the sum, in bytes.
    pub fn total(&self) -> f64 {
        self.weights
            + self.gradients
            + self.optimizer
            + self.reference
            + self.activations
            + self.logits
    }
}

/// Returns the numbers stored for a micro-batch.
fn activations(shape: &ModelShape, batch: &MicroBatch, kernels: Kernels, recompute: bool) -> f64 {
    let widths = shape.widths();
    let (tokens, hidden, inner) = (batch.tokens(), widths.hidden, widths.inner);
    let keys = widths.keys_and_values * batch.keys();
    let block = keys
        + match kernels {
            Kernels::Fused => {
                tokens * (4.0 * hidden + widths.queries + widths.context + 3.0 * inner)
            }
            Kernels::Flash => tokens * (8.0 * hidden + 4.0 * inner),
            Kernels::Composed => {
                let scores = 2.0 * shape.heads as f64 * batch.pairs();
                tokens * (8.0 * hidden + 4.0 * inner) + scores
            }
        };
    // Gradients inside one block, and the hidden states at both ends with their gradients.
    let passing = tokens * (3.0 * inner + 2.0 * hidden) + 4.0 * tokens * hidden;
    let layers = shape.layers as f64;
    passing
        + match recompute {
            true => layers * tokens * hidden + block,
            false => layers * block,
        }
}

/// Returns the bytes of the logits of a chunk and of the unembedding's gradient, in f32.
fn logits(
    shape: &ModelShape,
    chunk: f64,
    batch: &MicroBatch,
    kernels: Kernels,
    trained: bool,
) -> f64 {
    let copies = match kernels {
        Kernels::Fused => 1.0,
        // Logits, probabilities and the gradient.
        Kernels::Flash | Kernels::Composed => 3.0,
    };
    let vocabulary = shape.vocab_size as f64;
    let gradient = match trained && shape.tied {
        true => shape.hidden_size as f64,
        false => 0.0,
    };
    4.0 * vocabulary * (copies * chunk.min(batch.completions()) + gradient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::causal::CausalConfig;

    fn crate_update(micro_batch: MicroBatch, several: bool) -> UpdateConfig {
        UpdateConfig {
            micro_batch,
            several,
            state: TrainingState::F32,
            kernels: Kernels::Fused,
            recompute: false,
            adapters: None,
            reference: false,
            critic: false,
            logit_chunk: 1024,
        }
    }

    /// Measured by `cargo bench --bench length`: the growth of the peak of the process, in bytes
    /// per token.
    #[test]
    fn predicted_memory_of_an_update_matches_the_measurement() {
        for (length, measured) in [
            (128.0, 141e3),
            (512.0, 80e3),
            (2048.0, 84e3),
            (4096.0, 71e3),
        ] {
            let config = CausalConfig {
                hidden_size: 256,
                intermediate_size: 768,
                num_hidden_layers: 4,
                ..CausalConfig::new(256)
            };
            let batch = MicroBatch {
                rows: 4,
                prompts: 1,
                prompt_tokens: 4.0,
                completion_tokens: length,
            };
            let shape = ModelShape::from(&config);
            let memory = UpdateMemory::new(&shape, &crate_update(batch, false));
            // Weights and moments were allocated before.
            let grown = memory.total() - memory.weights - memory.optimizer;
            let ratio = grown / (4.0 * length) / measured;
            assert!((0.75..1.25).contains(&ratio), "{length}: {ratio}");
        }
    }

    /// SmolLM2-135M, 16 completions of 48 tokens for 4 prompts (README, "Open weights").
    #[test]
    fn predicted_memory_of_open_weights_matches_the_measurement() {
        let shape = ModelShape::named("smollm2-135m").unwrap();
        for (rows, prompts, measured) in [(4, 1, 3.5e9), (16, 4, 3.4e9)] {
            let batch = MicroBatch {
                rows,
                prompts,
                prompt_tokens: 40.0,
                completion_tokens: 48.0,
            };
            let memory = UpdateMemory::new(&shape, &crate_update(batch, rows < 16));
            let ratio = memory.total() / measured;
            assert!((0.75..1.25).contains(&ratio), "{rows}: {ratio}");
        }
    }

    #[test]
    fn only_composed_kernels_store_attention_scores() {
        let shape = ModelShape::named("smollm2-135m").unwrap();
        let at = |kernels, length| {
            let batch = MicroBatch {
                rows: 1,
                prompts: 1,
                prompt_tokens: 1.0,
                completion_tokens: length,
            };
            activations(&shape, &batch, kernels, false)
        };
        assert!(at(Kernels::Fused, 4096.0) < 4.01 * at(Kernels::Fused, 1024.0));
        assert!(at(Kernels::Composed, 4096.0) > 8.0 * at(Kernels::Composed, 1024.0));
    }
}
