//! Rollouts as padded tensors.

use burn::tensor::{Device, Int, Tensor};

use super::view::RolloutView;
use crate::host;
use crate::policy::{
    ForwardPass, LogProbConfig, PolicyModel, PrefixedBatch, TokenBatch, TokenScores, ValueModel,
    ValuePass, token_log_probs, token_log_probs_only,
};
use crate::types::{PerToken, RolloutBuffer};
use crate::{Error, Result};

/// A right-padded batch of rollouts: tensors `[N, T]` for N rollouts and T completion tokens, in
/// f32 except for the targets.
///
/// Column t holds the data of completion token t: its log-prob, its advantage, and the value of the
/// state in which it was chosen. Tokens that the policy did not sample
/// ([`Rollout::mask`](crate::types::Rollout::mask)) have columns too, since later tokens attend to
/// them, but a loss treats them as padding. A prompt that several rollouts share is read once, and
/// its cache is repeated.
///
/// ```
/// use burn::tensor::Device;
/// use rlvr::policy::LogProbConfig;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::rollout::RolloutBatch;
/// use rlvr::types::{Problem, Rollout, RolloutBuffer, RolloutGroup};
///
/// # fn main() -> rlvr::Result<()> {
/// # #[cfg(feature = "flex")] {
/// let device = Device::flex().autodiff();
/// let policy = CausalConfig::new(16).init(0, &device)?;
/// let rollout = Rollout::new(vec![4, 5, 1], vec![-0.7, -0.2, -0.1], "45");
/// let mut buffer = RolloutBuffer::new();
/// buffer.push(RolloutGroup::new(
///     Problem::new("2+3", "5"),
///     vec![2, 3],
///     vec![rollout],
/// ));
/// let batch = RolloutBatch::all(&buffer, &device)?;
/// let log_probs = batch.log_probs(&policy, &LogProbConfig::default())?;
/// assert_eq!(log_probs.dims(), [1, 3]);
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RolloutBatch {
    /// The completion tokens, `[N, T]`; 0 at padding.
    pub targets: Tensor<2, Int>,
    /// 1 at trained tokens, 0 at padding and at tokens that the policy did not sample, `[N, T]`.
    pub mask: Tensor<2>,
    /// The number of trained tokens of each rollout.
    pub lengths: Vec<usize>,
    /// The index of each rollout in the buffer.
    pub rollouts: Vec<usize>,
    /// The distinct prompts without their last token, if any is longer than one token, and for each
    /// rollout the last prompt token and all but the last completion token, which predict the
    /// targets.
    sequences: PrefixedBatch,
    /// The columns of the trained tokens of each rollout.
    columns: Vec<Vec<usize>>,
    device: Device,
}

impl RolloutBatch {
    /// Creates a batch on `device` of the rollouts of `view` at `indices`.
    ///
    /// # Errors
    /// Returns an error if an index is out of range, a prompt or completion is empty, or the
    /// log-probs or the mask of a rollout differ in length from its tokens.
    pub fn new(view: &RolloutView<'_>, indices: &[usize], device: &Device) -> Result<Self> {
        let (all, groups) = (view.rollouts(), view.group_ids());
        let mut prefixes: Vec<&[u32]> = Vec::new();
        let mut prefix_of_group = vec![None; view.groups()];
        let (mut prefix_of, mut inputs) = (Vec::new(), Vec::new());
        let (mut targets, mut columns) = (Vec::new(), Vec::new());
        for &index in indices {
            let rollout = all.get(index).ok_or_else(|| {
                let expected = format!("below {}, the rollouts in the buffer", all.len());
                Error::shape("rollout index", index, expected)
            })?;
            let prompt = view.prompt(index);
            let (Some((&last, prefix)), false) = (prompt.split_last(), rollout.tokens.is_empty())
            else {
                return Err(Error::shape(
                    format!("rollout {index}"),
                    format!("{} + {} tokens", prompt.len(), rollout.tokens.len()),
                    "at least one token of prompt and one of completion",
                ));
            };
            let tokens = rollout.tokens.len();
            // Without a mask all tokens are trained.
            let mask = Some(rollout.mask.len()).filter(|&len| len > 0);
            let log_probs = ("log-probs", rollout.log_probs.len());
            for (what, len) in [log_probs, ("mask", mask.unwrap_or(tokens))] {
                if len != tokens {
                    return Err(Error::shape(
                        format!("{what} of rollout {index}"),
                        len,
                        format!("{tokens}, one for each token"),
                    ));
                }
            }
            let prefix_index = *prefix_of_group[groups[index]].get_or_insert_with(|| {
                prefixes.push(prefix);
                prefixes.len() - 1
            });
            prefix_of.push(prefix_index);
            let mut input = vec![last];
            input.extend_from_slice(&rollout.tokens[..rollout.tokens.len() - 1]);
            inputs.push(input);
            targets.push(rollout.tokens.as_slice());
            columns.push(
                (0..tokens)
                    .filter(|&t| rollout.is_trained(t))
                    .collect::<Vec<_>>(),
            );
        }
        let inputs = TokenBatch::from_rows(&inputs, device)?;
        let lengths: Vec<usize> = columns.iter().map(Vec::len).collect();
        let ones: Vec<Vec<f64>> = lengths.iter().map(|&len| vec![1.0; len]).collect();
        let mask = scatter(&ones, &columns, inputs.width(), device);
        Ok(Self {
            targets: TokenBatch::from_rows(&targets, device)?.ids,
            mask,
            rollouts: indices.to_vec(),
            sequences: PrefixedBatch {
                prefixes: if prefixes.iter().all(|prefix| prefix.is_empty()) {
                    None
                } else {
                    Some(TokenBatch::from_rows(&prefixes, device)?)
                },
                prefix_of,
                rows: inputs,
            },
            lengths,
            columns,
            device: device.clone(),
        })
    }

    /// Creates a batch of all rollouts of a buffer.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn all(buffer: &RolloutBuffer, device: &Device) -> Result<Self> {
        let view = RolloutView::new(buffer);
        let everyone: Vec<usize> = (0..view.rollouts().len()).collect();
        Self::new(&view, &everyone, device)
    }

    /// Computes the hidden states `[N, T, D]` that predict the targets.
    ///
    /// # Errors
    /// Propagates errors of [`PolicyModel::forward`].
    pub fn hidden_states<M: PolicyModel>(&self, model: &M) -> Result<Tensor<3>> {
        model.hidden_states(&self.sequences)
    }

    /// Computes the hidden states for training, with their backward pass, for
    /// [`ScoredTokens`](crate::policy::ScoredTokens).
    ///
    /// # Errors
    /// Propagates errors of [`PolicyModel::forward`].
    pub fn forward_pass<M: PolicyModel>(&self, model: &M) -> Result<ForwardPass> {
        host::on_pool(&self.device, model.clone(), |model| {
            model.forward_pass(&self.sequences)
        })
    }

    /// Computes log-probs and entropies `[N, T]` under `model`, detached.
    ///
    /// # Errors
    /// Propagates errors of [`PolicyModel::forward`] and [`token_log_probs`].
    pub fn score<M: PolicyModel>(&self, model: &M, config: &LogProbConfig) -> Result<TokenScores> {
        host::on_pool(&self.device, model.valid(), |model| {
            let hidden = self.hidden_states(&model)?;
            token_log_probs(hidden, model.unembedding(), self.targets.clone(), config)
        })
    }

    /// Computes log-probs `[N, T]` under `model`, detached; cheaper than [`score`](Self::score),
    /// which also computes entropies.
    ///
    /// # Errors
    /// See [`score`](Self::score).
    pub fn log_probs<M: PolicyModel>(
        &self,
        model: &M,
        config: &LogProbConfig,
    ) -> Result<Tensor<2>> {
        host::on_pool(&self.device, model.valid(), |model| {
            let hidden = self.hidden_states(&model)?;
            token_log_probs_only(hidden, model.unembedding(), self.targets.clone(), config)
        })
    }

    /// Computes the critic's values `[N, T]` of the states in which the targets were chosen.
    ///
    /// # Errors
    /// Propagates errors of [`ValueModel::values`].
    pub fn values<V: ValueModel>(&self, critic: &V) -> Result<Tensor<2>> {
        host::on_pool(&self.device, critic.clone(), |critic| {
            critic.values(&self.sequences)
        })
    }

    /// Computes the critic's values for training, with their backward pass.
    ///
    /// # Errors
    /// Propagates errors of [`ValueModel::value_pass`].
    pub fn value_pass<'a, V: ValueModel>(&self, critic: &'a V) -> Result<ValuePass<'a>> {
        critic.value_pass(&self.sequences)
    }

    /// Returns the numbers of these rollouts as a tensor `[N, T]`, 0 at tokens that are not
    /// trained. `numbers` has one row for each rollout of the whole buffer; `what` names them in
    /// errors.
    ///
    /// # Errors
    /// Returns an error if the length of a row is not the number of trained tokens of its rollout.
    pub fn per_token(&self, numbers: &PerToken, what: &str) -> Result<Tensor<2>> {
        let own: Vec<&[f64]> = self
            .rollouts
            .iter()
            .zip(&self.lengths)
            .map(|(&index, &len)| match numbers.get(index) {
                Some(row) if row.len() == len => Ok(row),
                other => Err(Error::shape(
                    format!("{what} of rollout {index}"),
                    other.map_or(0, <[f64]>::len),
                    format!("{len}, one for each trained token"),
                )),
            })
            .collect::<Result<_>>()?;
        Ok(scatter(
            &own,
            &self.columns,
            self.sequences.rows.width(),
            &self.device,
        ))
    }

    /// Returns the numbers of a tensor `[N, T]` at the trained tokens, one row for each of these
    /// rollouts. `what` names them in errors.
    ///
    /// # Errors
    /// Returns an error if the tensor cannot be read back from the device.
    pub fn unpad(&self, tensor: Tensor<2>, what: &str) -> Result<PerToken> {
        let flat = host::floats(tensor, what)?;
        let rows = flat.chunks_exact(self.sequences.rows.width());
        let trained = |(row, columns): (&[f32], &Vec<usize>)| {
            columns.iter().map(|&t| f64::from(row[t])).collect()
        };
        Ok(rows.zip(&self.columns).map(trained).collect())
    }

    /// The number of rollouts, N.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The number of trained tokens.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// Returns `[N, width]` with the numbers of each row at its columns, and 0 elsewhere.
fn scatter(
    rows: &[impl AsRef<[f64]>],
    columns: &[Vec<usize>],
    width: usize,
    device: &Device,
) -> Tensor<2> {
    let spread = |(row, columns): (&[f64], &Vec<usize>)| {
        let mut wide = vec![0f64; columns.last().map_or(0, |&last| last + 1)];
        for (&value, &column) in row.iter().zip(columns) {
            wide[column] = value;
        }
        wide
    };
    let wide: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| row.as_ref())
        .zip(columns)
        .map(spread)
        .collect();
    host::float_rows(&wide, width, device)
}
