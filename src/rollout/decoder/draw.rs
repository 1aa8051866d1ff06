//! The next tokens of the rows: drawn on the host, or on the device.

use burn::tensor::{Device, Int, Tensor};
use rayon::prelude::*;

use super::row::{Row, notify};
use super::{Decoder, TokenEvent};
use crate::policy::{PolicyCache, PolicyModel, TokenBatch};
use crate::rollout::SamplingConfig;
use crate::rollout::sampling::{Sampled, SampledRows, Uniforms, sample_rows};
use crate::{Error, Result, host};

/// The number of tokens per row that [`generate`](crate::rollout::generate) draws on an accelerator
/// before it reads them. A row that ends in between is computed to the end of the round, and the
/// tokens after its end are dropped.
pub(in crate::rollout) const TOKENS_PER_READ: usize = 8;

impl<M: PolicyModel> Decoder<M> {
    /// Adds a token to every row; on an accelerator, up to `tokens` tokens. Returns whether `observe`
    /// asked to continue.
    pub(super) fn extend_rows(
        &mut self,
        tokens: usize,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<bool> {
        let newest: Vec<[u32; 1]> = self
            .rows
            .iter()
            .filter_map(|row| row.completion.tokens.last().map(|&token| [token]))
            .collect();
        let batch = TokenBatch::from_rows(&newest, &self.device)?;
        let drawn = match device_sampling(&self.rows, &self.device) {
            Some(sampling) => self.draw_on_device(batch, tokens, &sampling)?,
            None => {
                let (cache, rows) = (&mut self.cache, &mut self.rows);
                let drawn = host::on_pool(&self.device, &mut self.model, |model| {
                    let hidden = model.forward(&batch, cache)?;
                    let sources: Vec<usize> = (0..rows.len()).collect();
                    draw_on_host(model.logits(hidden.squeeze_dim(1)), rows, &sources)
                })?;
                vec![drawn]
            }
        };
        for column in drawn {
            let mut extended: Vec<&mut Row> = Vec::new();
            for (row, drawn) in self.rows.iter_mut().zip(column) {
                if !row.done {
                    row.push(drawn, self.version);
                    extended.push(row);
                }
            }
            if !notify(extended.into_iter().map(|row| &*row), observe) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads `batch` and the tokens after it, and returns the tokens drawn for all rows, step by
    /// step. They are read from the device once.
    fn draw_on_device(
        &mut self,
        batch: TokenBatch,
        tokens: usize,
        sampling: &SamplingConfig,
    ) -> Result<Vec<Vec<Sampled>>> {
        let count = self.tokens_per_read(tokens);
        let uniforms: Vec<f64> = self
            .rows
            .iter_mut()
            .flat_map(|row| {
                std::iter::repeat_with(|| row.uniform())
                    .take(count)
                    .collect::<Vec<_>>()
            })
            .collect();
        let uniforms = Uniforms::new(&uniforms, self.rows.len(), &self.device);
        let TokenBatch { mut ids, lengths } = batch;
        let mut drawn = Vec::with_capacity(count);
        for step in 0..count {
            let batch = TokenBatch {
                ids,
                lengths: lengths.clone(),
            };
            let hidden = self.model.forward(&batch, &mut self.cache)?;
            let logits = self.model.logits(hidden.squeeze_dim(1));
            let rows = sample_rows(logits, sampling, uniforms.column(step));
            ids = rows.tokens.clone();
            drawn.push(rows);
        }
        read(drawn)
    }

    /// The number of tokens per row that are drawn before they are read, at most `most`.
    fn tokens_per_read(&self, most: usize) -> usize {
        if self.kept.is_some() {
            // A kept sequence has no tokens after its end.
            return 1;
        }
        let missing = |row: &Row| row.config.max_new_tokens - row.completion.tokens.len();
        let needed = self.rows.iter().map(missing).max().unwrap_or(1);
        let longest = self.cache.lengths().iter().copied().max().unwrap_or(0);
        let room = self.model.max_positions().saturating_sub(longest);
        most.min(needed).min(room).max(1)
    }
}

/// Draws the first token of every row from the logits `[N, V]` of prompts; `sources` has the index
/// of each row's prompt.
pub(super) fn draw_first(
    logits: Tensor<2>,
    rows: &mut [Row],
    sources: &[usize],
    device: &Device,
) -> Result<Vec<Sampled>> {
    let Some(sampling) = device_sampling(rows, device) else {
        return draw_on_host(logits, rows, sources);
    };
    let uniforms: Vec<f64> = rows.iter_mut().map(Row::uniform).collect();
    let uniforms = Uniforms::new(&uniforms, rows.len(), device);
    let logits = logits.select(0, host::indices(sources, device));
    let drawn = read(vec![sample_rows(logits, &sampling, uniforms)])?;
    Ok(drawn.into_iter().flatten().collect())
}

/// Draws a token for every row on the host, in parallel.
fn draw_on_host(logits: Tensor<2>, rows: &mut [Row], sources: &[usize]) -> Result<Vec<Sampled>> {
    let [_, vocabulary] = logits.dims();
    let logits = host::floats(logits, "logits")?;
    rows.par_iter_mut()
        .zip(sources)
        .map_init(Vec::new, |weights, (row, &source)| {
            let start = source * vocabulary;
            row.draw(&logits[start..start + vocabulary], weights)
        })
        .collect()
}

/// The distribution that the device can draw from, if the rows are on an accelerator and share one.
fn device_sampling(rows: &[Row], device: &Device) -> Option<SamplingConfig> {
    let sampling = rows.first()?.config.sampling;
    let shared = rows.iter().all(|row| row.config.sampling == sampling);
    (shared && sampling.runs_on_device() && !host::is_cpu(device)).then_some(sampling)
}

/// Reads the tokens of several steps from the device. The result has the tokens of all rows, step
/// by step.
///
/// # Errors
/// Returns an error if a log-prob is not finite.
fn read(steps: Vec<SampledRows>) -> Result<Vec<Vec<Sampled>>> {
    let count = steps.len();
    let (mut ids, mut numbers): (Vec<Tensor<2, Int>>, Vec<Tensor<2>>) = Default::default();
    for step in steps {
        ids.push(step.tokens);
        numbers.extend([step.log_probs, step.entropies]);
    }
    let (ids, numbers) = (Tensor::cat(ids, 1), Tensor::cat(numbers, 1));
    let rows = ids.dims()[0];
    let (ids, numbers) = host::ints_and_floats(ids, numbers, "sampled tokens")?;
    let sampled = |row: usize, step: usize| {
        let at = row * count + step;
        let [log_prob, entropy] = [numbers[2 * at], numbers[2 * at + 1]].map(f64::from);
        match log_prob.is_finite() {
            true => Ok(Sampled {
                token: ids[at],
                log_prob,
                entropy,
            }),
            false => Err(Error::shape(
                format!("logits of row {row}"),
                format!("log-prob {log_prob}"),
                "finite numbers or -inf, at least one of them finite (the policy's weights may \
                 have diverged)",
            )),
        }
    };
    (0..count)
        .map(|step| (0..rows).map(|row| sampled(row, step)).collect())
        .collect()
}

#[cfg(all(feature = "flex", feature = "ndarray"))]
#[allow(deprecated)] // Device::ndarray
#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::causal::{CausalConfig, CausalModel};
    use crate::rollout::{
        Completion, GenerationConfig, GenerationRequest, generate, generate_streaming,
    };
    use crate::types::FinishReason;

    /// `ndarray` stands for an accelerator: only `flex` samples on the host.
    fn model(device: &Device) -> CausalModel {
        let config = CausalConfig {
            hidden_size: 16,
            num_hidden_layers: 2,
            max_position_embeddings: 96,
            ..CausalConfig::new(50)
        };
        config.init(3, device).unwrap()
    }

    fn requests() -> [GenerationRequest; 3] {
        [
            GenerationRequest::new(vec![1, 2, 3], 4, [0]),
            GenerationRequest::new(vec![4], 3, [1]),
            GenerationRequest::new(vec![7, 8, 9, 10, 11], 2, [2]),
        ]
    }

    fn answers(device: &Device, config: &GenerationConfig) -> Vec<Completion> {
        let answers = generate(&model(device), &requests(), config).unwrap();
        answers.into_iter().flatten().collect()
    }

    #[test]
    fn a_device_draws_what_the_host_draws() {
        let min_p = SamplingConfig {
            temperature: 0.7,
            min_p: Some(0.3),
            ..SamplingConfig::default()
        };
        let top_k = SamplingConfig {
            top_k: Some(5),
            ..SamplingConfig::default()
        };
        for sampling in [
            SamplingConfig::default(),
            SamplingConfig::greedy(),
            min_p,
            top_k,
        ] {
            // Stop tokens end rows within a round, and more tokens than a bucket of columns.
            let config = GenerationConfig::new(90, vec![5, 6]).with_sampling(sampling);
            let host = answers(&Device::flex(), &config);
            let device = answers(&Device::ndarray(), &config);
            assert!(
                host.iter().any(|one| one.finish == FinishReason::Stop) || sampling.truncates()
            );
            for (host, device) in host.iter().zip(&device) {
                assert_eq!(host.tokens, device.tokens, "{sampling:?}");
                assert_eq!(host.finish, device.finish);
                for (a, b) in host.log_probs.iter().zip(&device.log_probs) {
                    assert!((a - b).abs() < 2e-5, "{sampling:?}: {a} {b}");
                }
                let [a, b] = [host, device].map(|one| one.entropy.unwrap());
                assert!(
                    (a - b).abs() < 1e-5 * host.tokens.len() as f64,
                    "{sampling:?}: {a} {b}"
                );
            }
        }
    }

    #[test]
    fn requests_that_join_and_leave_change_nothing() {
        let config = GenerationConfig::new(40, vec![5, 6]);
        let together = answers(&Device::ndarray(), &config);
        let few = GenerationConfig {
            max_rows: 4,
            ..config
        };
        let in_turn = answers(&Device::ndarray(), &few);
        for (together, in_turn) in together.iter().zip(&in_turn) {
            assert_eq!(together.tokens, in_turn.tokens);
        }
    }

    #[test]
    fn a_device_is_read_once_for_several_tokens() {
        let device = Device::ndarray();
        let requests = requests();
        let rows: usize = requests.iter().map(|request| request.samples).sum();
        let reads = |new_tokens: usize, sampling: SamplingConfig| {
            let config = GenerationConfig::new(new_tokens, Vec::new()).with_sampling(sampling);
            let mut decoder = Decoder::new(model(&device), 0);
            for (id, request) in (0..).zip(&requests) {
                decoder.submit(id, request.clone(), &config).unwrap();
            }
            let work = || {
                while !decoder.is_idle() {
                    decoder.round(TOKENS_PER_READ, &mut |_| true).unwrap();
                }
            };
            host::count::reads(work).1
        };
        let all = SamplingConfig::default();
        // The id, the log-prob and the entropy: 4 bytes each on most devices.
        let ids = Tensor::<1, Int>::zeros([1], &device).dtype().size();
        let token = ids + 2 * size_of::<f32>();
        assert_eq!(reads(1, all), [1, rows * token]);
        // The first token, then 47 in rounds of 8.
        assert_eq!(reads(48, all), [7, 48 * rows * token]);
        // Top-k needs the logits of every step.
        let top_k = SamplingConfig {
            top_k: Some(5),
            ..all
        };
        assert_eq!(
            reads(48, top_k),
            [48, (requests.len() + 47 * rows) * 50 * 4]
        );
    }

    #[test]
    fn observers_see_the_tokens_step_by_step_and_may_end_generation() {
        let device = Device::ndarray();
        let config = GenerationConfig::new(20, Vec::new());
        let all = generate(&model(&device), &requests(), &config).unwrap();
        let mut seen = Vec::new();
        let some = generate_streaming(&model(&device), &requests(), &config, |event| {
            seen.push((event.request, event.sample, event.token));
            seen.len() < 9 + 9 + 4
        })
        .unwrap();
        assert_eq!(seen.len(), 9 + 9 + 4);
        for (all, some) in all.iter().flatten().zip(some.iter().flatten()) {
            assert_eq!(some.tokens, all.tokens[..3]);
        }
        assert_eq!(seen[9 + 3], (0, 3, all[0][3].tokens[1]));
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        use burn::module::{Module, ModuleMapper, Param};
        struct Broken;
        impl ModuleMapper for Broken {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|value| value * f32::NAN)
            }
        }
        let model = model(&Device::ndarray()).map(&mut Broken);
        let config = GenerationConfig::new(4, Vec::new());
        let reason = generate(&model, &requests(), &config)
            .unwrap_err()
            .to_string();
        assert!(reason.contains("logits of row 0"), "{reason}");
    }
}
