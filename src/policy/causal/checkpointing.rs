//! Gradient checkpointing (Chen et al., arXiv 1604.06174).
//!
//! The forward pass runs without a gradient tape and keeps the input of every block. The backward
//! pass visits the blocks from the last to the first and runs each again on its input, with its own
//! tape, to get its gradients. Only the activations of one block are in memory at a time, at the
//! cost of one more forward pass. Where attention has no kernel, the tape is cut there (`cuts.rs`), so
//! that memory is linear in the length everywhere. Shared prompts are processed together with the rows: a block
//! reads the prompts, repeats their keys for the rows, and reads the rows.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::cuts::Cuts;
use super::model::{Block, CausalModel};
use super::pass::Pass;
use crate::fused::{pull, rms_norm};
use crate::policy::{
    ForwardPass, GradientSum, KvCache, PolicyCache, PolicyModel, PrefixedBatch, TokenBatch,
    on_tape_of,
};
use crate::{Result, host};

/// Returns the hidden states `[N, T, D]` of `batch` with their backward pass.
pub(super) fn forward_pass(model: &CausalModel, batch: &PrefixedBatch) -> Result<ForwardPass> {
    let plan = Plan::new(model, batch)?;
    let plain = model.valid();
    let mut state = State {
        prompts: plan.prefixes.as_ref().map(|prefixes| {
            let ids = prefixes.tokens.ids.clone();
            plain.embed_tokens.forward(ids)
        }),
        rows: plain.embed_tokens.forward(plan.rows.tokens.ids.clone()),
    };
    let mut inputs = Vec::with_capacity(plain.layers.len());
    for block in &plain.layers {
        inputs.push(state.clone());
        state = plan.run(block, state, None)?;
    }
    let last = state.rows;
    let hidden = rms_norm(&plain.norm, last.clone());
    drop(plain);
    let model = model.clone();
    let back = move |gradient| plan.back(&model, inputs, last, gradient);
    Ok(ForwardPass::recomputed(hidden, Box::new(back)))
}

/// The residual stream between two blocks.
#[derive(Clone)]
struct State {
    /// `[P, Tp, D]` of the prompts, if there are any.
    prompts: Option<Tensor<3>>,
    /// `[N, T, D]`.
    rows: Tensor<3>,
}

/// Tokens that are read together, and the inputs of the blocks for them.
struct Part {
    tokens: TokenBatch,
    pass: Pass,
}

/// The inputs that all blocks share.
struct Plan {
    prefixes: Option<Part>,
    prefix_of: Vec<usize>,
    rows: Part,
    /// A cache of one layer with room for the prompts.
    cache: KvCache,
}

impl Plan {
    fn new(model: &CausalModel, batch: &PrefixedBatch) -> Result<Self> {
        let part = |tokens: &TokenBatch, cache: &mut KvCache| -> Result<Part> {
            Ok(Part {
                tokens: tokens.clone(),
                pass: model.begin(tokens, cache)?,
            })
        };
        let first = match &batch.prefixes {
            Some(prefixes) => prefixes.rows(),
            None => batch.rows.rows(),
        };
        let mut cache = KvCache::new(1, first);
        let prefixes = batch.prefixes.as_ref();
        let prefixes = prefixes.map(|p| part(p, &mut cache)).transpose()?;
        let with_prompts = cache.clone();
        if prefixes.is_some() {
            cache.select_rows(&batch.prefix_of);
        }
        Ok(Self {
            rows: part(&batch.rows, &mut cache)?,
            prefixes,
            prefix_of: batch.prefix_of.clone(),
            cache: with_prompts,
        })
    }

    /// Runs one block on prompts and rows.
    fn run(&self, block: &Block, state: State, cuts: Option<&Cuts>) -> Result<State> {
        let mut cache = self.cache.clone();
        let mut prompts = None;
        let pass = |part: &Part| Pass {
            cuts: cuts.cloned(),
            ..part.pass.clone()
        };
        if let (Some(part), Some(x)) = (&self.prefixes, state.prompts) {
            prompts = Some(block.forward(x, &pass(part), 0, &mut cache));
            cache.select_rows(&self.prefix_of);
        }
        cache.begin(&self.rows.tokens, usize::MAX)?; // the limit was checked by `Plan::new`
        Ok(State {
            rows: block.forward(state.rows, &pass(&self.rows), 0, &mut cache),
            prompts,
        })
    }

    /// Returns the gradients of the parameters, given that of the hidden states.
    fn back(
        &self,
        model: &CausalModel,
        mut inputs: Vec<State>,
        last: Tensor<3>,
        gradient: Tensor<3>,
    ) -> Result<GradientsParams> {
        let mut sum = GradientSum::default();
        let on_tape = model.embed_tokens.weight.val();
        let leaf = |x: Tensor<3>| on_tape_of(x, &on_tape).require_grad();

        let x = leaf(last);
        let pulled = pull(rms_norm(&model.norm, x.clone()), gradient);
        let mut gradients = pulled.backward();
        let mut to_rows = x.grad_remove(&mut gradients);
        let mut to_prompts: Option<Tensor<3>> = None;
        sum.add(model, GradientsParams::from_grads(gradients, &model.norm));

        for block in model.layers.iter().rev() {
            let (Some(state), Some(gradient)) = (inputs.pop(), to_rows.take()) else {
                break;
            };
            let state = State {
                prompts: state.prompts.map(leaf),
                rows: leaf(state.rows),
            };
            let (rows, prompts) = (state.rows.clone(), state.prompts.clone());
            let cuts = (!host::is_cpu(&model.device())).then(Cuts::default);
            let out = self.run(block, state, cuts.as_ref())?;
            let mut pulled = pull(out.rows, gradient);
            // The prompts' output of the last block is not used.
            if let (Some(out), Some(gradient)) = (out.prompts, to_prompts.take()) {
                pulled = pulled + pull(out, gradient);
            }
            let mut gradients = pulled.backward();
            let behind = cuts.and_then(|cuts| cuts.pull(&mut gradients));
            let behind = behind.map(|pulled| pulled.backward());
            for mut gradients in std::iter::once(gradients).chain(behind) {
                let new = rows.grad_remove(&mut gradients);
                to_rows = to_rows.into_iter().chain(new).reduce(|a, b| a + b);
                let prompts = prompts.as_ref();
                let new = prompts.and_then(|prompts| prompts.grad_remove(&mut gradients));
                to_prompts = to_prompts.into_iter().chain(new).reduce(|a, b| a + b);
                sum.add(model, GradientsParams::from_grads(gradients, block));
            }
        }

        if model.embed_tokens.weight.val().is_require_grad() {
            let embedded = |tokens: &TokenBatch, gradient: Option<Tensor<3>>| {
                let x = model.embed_tokens.forward(tokens.ids.clone());
                gradient.map(|gradient| pull(x, gradient))
            };
            let rows = embedded(&self.rows.tokens, to_rows);
            let prefixes = self.prefixes.as_ref();
            let prompts = prefixes.and_then(|part| embedded(&part.tokens, to_prompts));
            if let Some(pulled) = [rows, prompts].into_iter().flatten().reduce(|a, b| a + b) {
                let gradients = pulled.backward();
                sum.add(
                    model,
                    GradientsParams::from_grads(gradients, &model.embed_tokens),
                );
            }
        }
        Ok(sum.finish())
    }
}
