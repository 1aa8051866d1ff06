//! Tests of a policy against its contract.

mod gradients;
mod reader;

use burn::tensor::{Int, Tensor, TensorData};

use super::cache::PolicyCache;
use super::model::PolicyModel;
use super::tokens::TokenBatch;
use crate::Result;
use reader::{Check, States, Wanted, broken, from};

/// The longest `max_positions` that is tested.
const LONGEST: usize = 1024;

/// Checks whether `model` satisfies the [contract of a policy](PolicyModel#contract). Call it in a
/// test of a custom policy, with a small configuration.
///
/// It reads some short rows of tokens, each alone and in one piece. Then it reads them in every
/// other way that generation and training do, and compares the hidden states of each token: twice,
/// with other tokens after it, beside other rows, with padding, token by token, after
/// [`select_rows`](PolicyCache::select_rows) and [`append_rows`](PolicyCache::append_rows), after a
/// shared prompt, after an empty prompt, and in [`forward_pass`](PolicyModel::forward_pass). It
/// also checks shapes, `max_positions` (up to 1024) and the cache's `rows` and `lengths`.
///
/// For a model on the gradient tape (`device.autodiff()`) it checks the gradients too: those
/// through the cache of a shared prompt must equal those of the whole rows, and those of each
/// parameter must agree with central differences along a random direction, within 3 % of their norm
/// (except in half precision, which is too coarse for differences). That takes two forward passes
/// per parameter.
///
/// | type | hidden states may differ by | gradients by |
/// |---|---|---|
/// | f64 | 1e-9 | 1e-6 |
/// | f32 | 1e-4 | 1e-3 |
/// | f16 | 2e-2 | 2e-1 |
/// | bf16 | 1e-1 | 5e-1 |
///
/// The differences are relative to the largest absolute hidden state, and to the largest absolute
/// gradient of the parameter. Smaller violations are not detected.
///
/// ```
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// use burn::tensor::Device;
/// use rlvr::policy::{causal::CausalConfig, check_model};
///
/// let config = CausalConfig {
///     hidden_size: 16,
///     intermediate_size: 16,
///     num_hidden_layers: 1,
///     ..CausalConfig::new(11)
/// };
/// check_model(&config.init(0, &Device::flex().autodiff())?)
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Returns [`Error::Contract`](crate::Error::Contract) with the first violation and the row, token
/// and values that show it, [`Error::Config`](crate::Error::Config) if the model has fewer than 2
/// tokens or 4 positions, which are too few to test it, and any error of the model itself.
pub fn check_model<M: PolicyModel>(model: &M) -> Result<()> {
    let generating = Check::new(model.valid())?;
    generating.shapes()?;
    let whole = generating.alone()?;
    generating.depends_on_nothing_else(&whole)?;
    generating.however_it_is_cut(&whole)?;
    generating.rows_come_and_go(&whole)?;
    generating.limits()?;
    let training = Check {
        model: model.clone(),
        ..generating
    };
    training.shared_prompts(&whole)?;
    gradients::check(&training)
}

impl<M: PolicyModel> Check<M> {
    fn shapes(&self) -> Result<()> {
        let columns = self.model.unembedding().dims()[1];
        let tokens = self.model.vocab_size();
        if columns != tokens {
            let found = format!("it has {columns} columns, vocab_size() is {tokens}");
            return Err(broken("the unembedding is [D, V]", found));
        }
        let cache = self.model.empty_cache(3);
        if cache.rows() != 3 || cache.lengths() != [0; 3] {
            let found = format!(
                "{} rows of lengths {:?}, expected 3 of length 0",
                cache.rows(),
                cache.lengths()
            );
            return Err(broken("empty_cache(rows) has this many empty rows", found));
        }
        Ok(())
    }

    fn depends_on_nothing_else(&self, whole: &States) -> Result<()> {
        let read = |rows: &[Vec<u32>]| self.read(rows, &mut self.model.empty_cache(rows.len()));
        let row = &self.rows[0];
        let again = read(std::slice::from_ref(row))?;
        self.same(
            "the same tokens have the same hidden states",
            &again,
            &[from(&whole[0], 0)],
        )?;
        let half = row.len() / 2;
        let changed = read(&[self.others(row, half)])?;
        self.same(
            "a later token changes nothing before it",
            &changed,
            &[from(&whole[0][..half], 0)],
        )?;
        let beside = read(&[self.others(row, 0), row.clone(), self.others(row, 1)])?;
        self.same(
            "a row does not see other rows",
            &beside,
            &[(0, &[]), from(&whole[0], 0)],
        )?;
        self.padding(whole)
    }

    fn padding(&self, whole: &States) -> Result<()> {
        let longest = self.rows[0].len();
        let wanted: Vec<Wanted> = whole.iter().map(|row| from(row, 0)).collect();
        let lengths: Vec<usize> = self.rows.iter().map(Vec::len).collect();
        let last = self.model.vocab_size() as i32 - 1;
        for (pad, width) in [
            (0, longest),
            (last, longest),
            (last, (longest + 2).min(self.model.max_positions())),
        ] {
            let padded = |row: &Vec<u32>| {
                let mut ids: Vec<i32> = row.iter().map(|&id| id as i32).collect();
                ids.resize(width, pad);
                ids
            };
            let ids: Vec<i32> = self.rows.iter().flat_map(padded).collect();
            let ids = TensorData::new(ids, [lengths.len(), width]);
            let batch = TokenBatch {
                ids: Tensor::<2, Int>::from_data(ids, &self.device),
                lengths: lengths.clone(),
            };
            let hidden = self
                .model
                .forward(&batch, &mut self.model.empty_cache(lengths.len()))?;
            self.same(
                "a row does not see padding",
                &self.states(hidden, &lengths)?,
                &wanted,
            )?;
        }
        Ok(())
    }

    fn however_it_is_cut(&self, whole: &States) -> Result<()> {
        let mut cache = self.model.empty_cache(1);
        let mut states = Vec::new();
        for &token in &self.rows[0] {
            states.extend(self.read(&[vec![token]], &mut cache)?.remove(0));
        }
        let promise = "reading token by token is the same as reading the whole row";
        self.same(promise, &vec![states], &[from(&whole[0], 0)])?;
        let (heads, tails) = (self.heads(), self.tails());
        let mut cache = self.model.empty_cache(heads.len());
        let promise = "ragged rows may be read in pieces, some of them empty";
        self.read(&heads, &mut cache)?;
        let mut copy = cache.clone();
        let rows = whole.iter().zip(&heads);
        let wanted: Vec<Wanted> = rows.map(|(row, head)| from(row, head.len())).collect();
        self.same(promise, &self.read(&tails, &mut cache)?, &wanted)?;
        let promise = "a clone of a cache is independent of the original";
        self.same(promise, &self.read(&tails, &mut copy)?, &wanted)
    }

    fn rows_come_and_go(&self, whole: &States) -> Result<()> {
        let (heads, tails) = (self.heads(), self.tails());
        let mut read = self.model.empty_cache(heads.len());
        self.read(&heads, &mut read)?;
        let order = [2, 0, 2, 1];
        let resume = |promise: &str, mut cache: M::Cache, order: &[usize]| {
            let lengths: Vec<usize> = order.iter().map(|&row| heads[row].len()).collect();
            if cache.rows() != order.len() || cache.lengths() != lengths {
                let found = format!(
                    "rows {}, lengths {:?}; expected {lengths:?}",
                    cache.rows(),
                    cache.lengths()
                );
                return Err(broken(promise, found));
            }
            let next: Vec<Vec<u32>> = order.iter().map(|&row| tails[row].clone()).collect();
            let wanted: Vec<_> = order
                .iter()
                .map(|&row| from(&whole[row], heads[row].len()))
                .collect();
            self.same(promise, &self.read(&next, &mut cache)?, &wanted)
        };
        let mut selected = read.clone();
        selected.select_rows(&order);
        resume(
            "select_rows keeps the rows in the given order",
            selected,
            &order,
        )?;
        let mut joined = self.model.empty_cache(0);
        joined.append_rows(&read, &[1, 0, 0]);
        joined.append_rows(&read, &[2]);
        resume("append_rows appends the given rows", joined, &[1, 0, 0, 2])
    }

    fn limits(&self) -> Result<()> {
        let mut two = self.model.empty_cache(2);
        let one = TokenBatch::from_rows(&[&self.rows[0]], &self.device)?;
        if self.model.forward(&one, &mut two).is_ok() {
            let found = "one row was read into a cache of two".to_string();
            return Err(broken(
                "a batch with another number of rows than the cache is an error",
                found,
            ));
        }
        let most = self.model.max_positions();
        if most > LONGEST {
            return Ok(());
        }
        let mut cache = self.model.empty_cache(1);
        let full: Vec<u32> = self.rows[0].iter().copied().cycle().take(most).collect();
        self.read(&[full], &mut cache)?;
        let one = TokenBatch::from_rows(&[&self.rows[0][..1]], &self.device)?;
        if self.model.forward(&one, &mut cache).is_ok() {
            let found = format!("token {most} of a row was read, max_positions() is {most}");
            return Err(broken("a row longer than max_positions is an error", found));
        }
        Ok(())
    }

    fn shared_prompts(&self, whole: &States) -> Result<()> {
        let (batch, rows) = self.prompts()?;
        let shared = self.read(&rows[2..3], &mut self.model.empty_cache(1))?;
        let wanted = [
            from(&whole[0], 2),
            from(&whole[1], 1),
            from(&shared[0], 2),
            from(&whole[2], 0),
        ];
        let promise = "rows may share a prompt, and a prompt may be empty";
        let hidden = self.model.hidden_states(&batch)?;
        self.same(promise, &self.states(hidden, &batch.rows.lengths)?, &wanted)?;
        let promise = "forward_pass has the same hidden states as forward";
        for batch in [
            batch,
            TokenBatch::from_rows(&self.rows, &self.device)?.into(),
        ] {
            let pass = self.model.forward_pass(&batch)?;
            let states = self.states(pass.hidden, &batch.rows.lengths)?;
            let all: Vec<Wanted> = whole.iter().map(|row| from(row, 0)).collect();
            let wanted = match batch.prefixes {
                Some(_) => &wanted[..],
                None => &all,
            };
            self.same(promise, &states, wanted)?;
        }
        Ok(())
    }
}
