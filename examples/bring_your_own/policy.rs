//! A custom policy: an embedding, a GRU and an unembedding.

use rlvr::burn::module::Module;
use rlvr::burn::nn::gru::{Gru, GruConfig};
use rlvr::burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use rlvr::burn::tensor::{Device, Tensor, s};
use rlvr::policy::{PolicyCache, PolicyModel, TokenBatch};
use rlvr::{Error, Result};

#[derive(Module, Debug)]
pub struct GruPolicy {
    embedding: Embedding,
    gru: Gru,
    unembedding: Linear,
}

impl GruPolicy {
    pub const WIDTH: usize = 32;
    const MAX_POSITIONS: usize = 64;

    pub fn new(vocabulary: usize, device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(vocabulary, Self::WIDTH).init(device),
            gru: GruConfig::new(Self::WIDTH, Self::WIDTH, true).init(device),
            unembedding: LinearConfig::new(Self::WIDTH, vocabulary).init(device),
        }
    }
}

/// For each row, the state `[D]` after the last token and the number of tokens.
#[derive(Clone)]
pub struct States(Vec<Tensor<1>>, Vec<usize>);

impl PolicyCache for States {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn lengths(&self) -> &[usize] {
        &self.1
    }

    fn select_rows(&mut self, rows: &[usize]) {
        self.0 = rows.iter().map(|&row| self.0[row].clone()).collect();
        self.1 = rows.iter().map(|&row| self.1[row]).collect();
    }

    fn append_rows(&mut self, other: &Self, rows: &[usize]) {
        self.0.extend(rows.iter().map(|&row| other.0[row].clone()));
        self.1.extend(rows.iter().map(|&row| other.1[row]));
    }
}

impl PolicyModel for GruPolicy {
    type Cache = States;

    fn empty_cache(&self, rows: usize) -> States {
        let start = Tensor::zeros([Self::WIDTH], &self.device());
        States(vec![start; rows], vec![0; rows])
    }

    fn forward(&self, tokens: &TokenBatch, cache: &mut States) -> Result<Tensor<3>> {
        if tokens.rows() != cache.rows() {
            return Err(Error::shape("token rows", tokens.rows(), cache.rows()));
        }
        let inputs = self.embedding.forward(tokens.ids.clone());
        let hidden = self
            .gru
            .forward(inputs, Some(Tensor::stack(cache.0.clone(), 0)));
        for (row, &new) in tokens.lengths.iter().enumerate() {
            cache.1[row] += new;
            if cache.1[row] > Self::MAX_POSITIONS {
                let most = format!("at most {}", Self::MAX_POSITIONS);
                return Err(Error::shape("tokens in a row", cache.1[row], most));
            }
            // After the last token, not after the padding; a row without a new token keeps its
            // state.
            if new > 0 {
                let last = hidden.clone().slice(s![row, new - 1, ..]);
                cache.0[row] = last.reshape([Self::WIDTH]);
            }
        }
        Ok(hidden)
    }

    fn unembedding(&self) -> Tensor<2> {
        self.unembedding.weight.val()
    }

    fn vocab_size(&self) -> usize {
        self.embedding.weight.dims()[0]
    }

    fn max_positions(&self) -> usize {
        Self::MAX_POSITIONS
    }

    fn device(&self) -> Device {
        self.embedding.weight.device()
    }
}
