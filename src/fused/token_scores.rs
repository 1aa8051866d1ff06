//! Log-probs and entropies of tokens, computed without all logits in memory.

#[cfg(feature = "flex")]
pub(crate) use fused::FusedScores;
#[cfg(not(feature = "flex"))]
pub(crate) use none::FusedScores;

/// The type for builds without kernels; it has no values.
#[cfg(not(feature = "flex"))]
mod none {
    use burn::tensor::{Int, Tensor};

    #[derive(Clone, Debug)]
    pub(crate) enum FusedScores {}

    impl FusedScores {
        pub(crate) fn new(
            _: &Tensor<2>,
            _: &Tensor<2>,
            _: &Tensor<1, Int>,
            _: f64,
            _: usize,
            _: bool,
        ) -> Option<Self> {
            None
        }

        pub(crate) fn log_probs(&self) -> Tensor<1> {
            match *self {}
        }

        pub(crate) fn entropies(&self) -> Tensor<1> {
            match *self {}
        }

        pub(crate) fn backward(
            self,
            _: Option<Tensor<1>>,
            _: Option<Tensor<1>>,
            _: bool,
        ) -> (Tensor<2>, Option<Tensor<2>>) {
            match self {}
        }
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::tensor::{Int, Tensor};
    use rlvr_kernels::{TokenScore, token_scores, token_scores_backward};

    use crate::fused::flex::{contiguous, matrix, plain, rows, tensor};

    /// The scores of tokens and the inputs of their backward pass.
    #[derive(Clone, Debug)]
    pub(crate) struct FusedScores {
        hidden: FlexTensor,
        unembedding: FlexTensor,
        targets: Vec<u32>,
        temperature: f32,
        chunk: usize,
        scores: Vec<TokenScore>,
    }

    impl FusedScores {
        /// Scores `targets` `[N]` under `hidden` `[N, D]` and `unembedding` `[D, V]`; returns
        /// `None` if there is no kernel for these tensors.
        pub(crate) fn new(
            hidden: &Tensor<2>,
            unembedding: &Tensor<2>,
            targets: &Tensor<1, Int>,
            temperature: f64,
            chunk: usize,
            entropy: bool,
        ) -> Option<Self> {
            let (hidden, unembedding) = (contiguous(plain(hidden)?), plain(unembedding)?);
            let targets = targets.clone().try_into_vec_as::<u32>().ok()?;
            let temperature = temperature as f32;
            let scores = token_scores(
                rows(&hidden),
                matrix(&unembedding),
                &targets,
                temperature,
                entropy,
                chunk,
            );
            Some(Self {
                hidden,
                unembedding,
                targets,
                temperature,
                chunk,
                scores,
            })
        }

        fn numbers(&self, of: impl Fn(&TokenScore) -> f32) -> Tensor<1> {
            let numbers: Vec<f32> = self.scores.iter().map(of).collect();
            let count = numbers.len();
            Tensor::from_primitive::<Flex>(tensor(numbers, [count]))
        }

        /// The log-probs `[N]`, in nats.
        pub(crate) fn log_probs(&self) -> Tensor<1> {
            self.numbers(|score| score.log_prob)
        }

        /// The entropies `[N]`, in nats.
        pub(crate) fn entropies(&self) -> Tensor<1> {
            self.numbers(|score| score.entropy)
        }

        /// Returns the gradients of the hidden states `[N, D]` and, if it is `trained`, of the
        /// unembedding `[D, V]`, given those of log-probs and entropies `[N]`.
        pub(crate) fn backward(
            self,
            to_log_probs: Option<Tensor<1>>,
            to_entropies: Option<Tensor<1>>,
            trained: bool,
        ) -> (Tensor<2>, Option<Tensor<2>>) {
            let count = self.targets.len();
            let mut to_scores = vec![[0f32; 2]; count];
            for (part, gradient) in [to_log_probs, to_entropies].into_iter().enumerate() {
                let Some(gradient) = gradient else { continue };
                let gradient: Vec<f32> = gradient.into_data().iter().collect();
                for (to_score, value) in to_scores.iter_mut().zip(gradient) {
                    to_score[part] = value;
                }
            }
            let (hidden, unembedding) = (rows(&self.hidden), matrix(&self.unembedding));
            let [size, vocabulary] = unembedding.shape();
            let mut sum = trained.then(|| vec![0f32; vocabulary * size]);
            let to_hidden = token_scores_backward(
                hidden,
                unembedding,
                &self.targets,
                self.temperature,
                self.chunk,
                &self.scores,
                &to_scores,
                sum.as_deref_mut(),
            );
            let to_hidden = Tensor::from_primitive::<Flex>(tensor(to_hidden, [count, size]));
            let to_unembedding = sum.map(|sum| {
                Tensor::<2>::from_primitive::<Flex>(tensor(sum, [vocabulary, size])).transpose()
            });
            (to_hidden, to_unembedding)
        }
    }
}
