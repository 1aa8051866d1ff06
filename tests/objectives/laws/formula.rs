//! The objectives in f64, written from the papers, one token at a time.
//!
//! `live` numbers are differentiated; numbers that a paper holds constant come from the unperturbed
//! step.

use rlvr::loss::{
    Aggregation, BinaryDivergence, CispoBand, KlEstimator, KlPenalty, Numerator, PolicyObjective,
    RatioLevel, Rejection, RejectionScope, RejectionStatistic, Surrogate, WeightAction,
    WeightLevel,
};

use std::collections::BTreeMap;

use super::batch::{Cell, Row};

/// An objective on one whole step.
pub struct Formula<'a> {
    objective: &'a PolicyObjective,
    held: &'a [Row],
    /// The tokens that are left after rejection.
    pub mask: Vec<Vec<bool>>,
    /// The sampler's weights, if there are any.
    pub weights: Option<Vec<Vec<f64>>>,
    pub kept: Vec<Vec<bool>>,
    pub selected: Vec<Vec<bool>>,
    /// The tokens that Clip-Cov or KL-Cov picks.
    picked: Vec<Vec<bool>>,
    tokens: f64,
    sequences: f64,
    /// Tokens of every prompt that has one.
    prompts: BTreeMap<usize, usize>,
    selected_tokens: f64,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// `f` at every place of the step.
fn everywhere<T>(rows: &[Row], f: impl Fn(usize, usize) -> T) -> Vec<Vec<T>> {
    let row = |b: usize| (0..rows[b].cells.len()).map(|t| f(b, t)).collect();
    (0..rows.len()).map(row).collect()
}

impl<'a> Formula<'a> {
    pub fn new(objective: &'a PolicyObjective, rows: &'a [Row]) -> Self {
        let given = everywhere(rows, |b, t| rows[b].cells[t].mask);
        let mut formula = Self {
            objective,
            held: rows,
            mask: given.clone(),
            weights: formula_weights(objective, rows),
            kept: given.clone(),
            selected: given.clone(),
            picked: given,
            tokens: 0.0,
            sequences: 0.0,
            prompts: BTreeMap::new(),
            selected_tokens: 0.0,
        };
        if let Some(correction) = &objective.sampler_correction {
            for rejection in &correction.rejection {
                formula.reject(rejection, correction.numerator);
            }
        }
        let lengths = formula
            .mask
            .iter()
            .map(|row| count(row))
            .collect::<Vec<_>>();
        formula.tokens = lengths.iter().sum::<usize>() as f64;
        formula.sequences = lengths.iter().filter(|&&n| n > 0).count() as f64;
        for (row, length) in rows.iter().zip(lengths).filter(|(_, length)| *length > 0) {
            *formula.prompts.entry(row.prompt).or_default() += length;
        }
        formula.keep();
        formula.select();
        formula.pick();
        formula
    }

    /// The places of the tokens of row `b` that are left.
    fn own(&self, b: usize) -> Vec<usize> {
        (0..self.mask[b].len())
            .filter(|&t| self.mask[b][t])
            .collect()
    }

    fn all(&self) -> Vec<(usize, usize)> {
        let row = |b| self.own(b).into_iter().map(move |t| (b, t));
        (0..self.held.len()).flat_map(row).collect()
    }

    fn reject(&mut self, rule: &Rejection, numerator: Numerator) {
        let statistic = |d: f64| match rule.statistic {
            RejectionStatistic::K1 => -d,
            RejectionStatistic::K2 => d * d / 2.0,
            RejectionStatistic::K3 => d.exp() - 1.0 - d,
        };
        let (low, high) = match rule.statistic {
            RejectionStatistic::K1 => (
                rule.lower.map_or(f64::NEG_INFINITY, f64::ln),
                rule.upper.ln(),
            ),
            _ => (f64::NEG_INFINITY, rule.upper),
        };
        for (b, row) in self.held.iter().enumerate() {
            let own: Vec<(usize, f64)> = row
                .tokens()
                .map(|(t, cell)| (t, statistic(away_from_sampler(cell, numerator))))
                .collect();
            let values: Vec<f64> = own.iter().map(|&(_, x)| x).collect();
            for &(t, x) in &own {
                let x = match rule.scope {
                    RejectionScope::Token => x,
                    RejectionScope::SequenceSum => values.iter().sum(),
                    RejectionScope::SequenceMean => mean(&values),
                    RejectionScope::SequenceMax => values.iter().copied().fold(f64::MIN, f64::max),
                };
                self.mask[b][t] &= low <= x && x <= high;
            }
        }
    }

    fn keep(&mut self) {
        let Some(rule) = self.objective.off_policy_mask else {
            return;
        };
        for (b, row) in self.held.iter().enumerate() {
            let own = self.own(b);
            let moved: Vec<f64> = own
                .iter()
                .map(|&t| -away_from_sampler(&row.cells[t], Numerator::Current))
                .collect();
            for t in own {
                let bad = row.cells[t].advantage < 0.0;
                self.kept[b][t] = !(bad && mean(&moved) > rule.threshold);
            }
        }
    }

    fn select(&mut self) {
        self.selected_tokens = self.tokens;
        let Some(rule) = self.objective.top_entropy else {
            return;
        };
        let entropy = |&(b, t): &(usize, usize)| self.held[b].cells[t].entropy;
        let all = self.all();
        let mut sorted: Vec<f64> = all.iter().map(entropy).collect();
        sorted.sort_by(f64::total_cmp);
        let place = (1.0 - rule.share) * (sorted.len().max(1) - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let quantile = match sorted.get(below) {
            Some(low) => low + (place - place.floor()) * (sorted[above] - low),
            None => 0.0,
        };
        let chosen: Vec<bool> = all
            .iter()
            .map(|at| entropy(at) >= quantile - 1e-9)
            .collect();
        for (&(b, t), &chosen) in all.iter().zip(&chosen) {
            self.selected[b][t] = chosen;
        }
        self.selected_tokens = count(&chosen) as f64;
    }

    fn pick(&mut self) {
        let all = self.all();
        let cell = |&(b, t): &(usize, usize)| &self.held[b].cells[t];
        let advantages: Vec<f64> = all.iter().map(|at| cell(at).advantage).collect();
        let log_probs: Vec<f64> = all.iter().map(|at| cell(at).log_prob).collect();
        let covariances: Vec<f64> = advantages
            .iter()
            .zip(&log_probs)
            .map(|(a, p)| (a - mean(&advantages)) * (p - mean(&log_probs)))
            .collect();
        let picked: Vec<bool> = match self.objective.surrogate {
            Surrogate::ClipCov(config) => {
                let free = |&(b, t): &(usize, usize)| {
                    let ratio = self.log_ratio(b, &self.held[b].cells, t).exp();
                    match self.held[b].cells[t].advantage > 0.0 {
                        true => ratio <= 1.0 + config.high,
                        false => ratio >= 1.0 - config.low,
                    }
                };
                let inside = |&c: &f64| config.lower < c && c < config.upper;
                let candidates = all.iter().zip(&covariances);
                let picked: Vec<bool> = candidates.map(|(at, c)| free(at) && inside(c)).collect();
                // The selection is random, unless it is all of them.
                assert!(config.ratio == 1.0 || count(&picked) == 0);
                picked
            }
            Surrogate::KlCov(config) => {
                let chosen = ((all.len() as f64 * config.ratio).floor() as usize).max(1);
                let larger = |c: f64| covariances.iter().filter(|&&other| other > c).count();
                covariances.iter().map(|&c| larger(c) < chosen).collect()
            }
            _ => return,
        };
        for ((b, t), picked) in all.into_iter().zip(picked) {
            self.picked[b][t] = picked;
        }
    }

    /// The loss where the numbers of the step are those of `live`.
    pub fn loss(&self, live: &[Row]) -> f64 {
        (0..live.len()).map(|b| self.row(b, &live[b].cells)).sum()
    }

    /// The derivative of the loss in one number of one cell, by central differences.
    pub fn slope(&self, b: usize, t: usize, change: fn(&mut Cell, f64)) -> f64 {
        let step = 1e-5;
        let at = |by: f64| {
            let mut cells = self.held[b].cells.clone();
            change(&mut cells[t], by);
            self.row(b, &cells)
        };
        (at(step) - at(-step)) / (2.0 * step)
    }

    /// The contribution of row `b` to the loss.
    fn row(&self, b: usize, live: &[Cell]) -> f64 {
        let objective = self.objective;
        let weights = self.weights.as_ref().filter(|_| {
            let correction = objective.sampler_correction.as_ref().unwrap();
            !correction.measure_only
        });
        let takes_weights = matches!(
            objective.surrogate,
            Surrogate::Gmpo(_) | Surrogate::Vespo(_)
        );
        let mut sum = 0.0;
        for t in self.own(b) {
            let mut term = self.surrogate(b, live, t, weights.map(|weights| &weights[b]));
            term *= f64::from(self.kept[b][t]) * f64::from(self.selected[b][t]);
            if let Some(weights) = weights.filter(|_| !takes_weights) {
                term *= weights[b][t];
            }
            sum += term * self.weight(objective.aggregation, b, self.tokens);
            if let Some(kl) = &objective.kl {
                let mut value = penalty(kl, &live[t], &self.held[b].cells[t]);
                if kl.importance_corrected {
                    value *= self.log_ratio(b, live, t).exp();
                }
                let how = kl.aggregation.unwrap_or(objective.aggregation);
                sum += kl.coef * value * self.weight(how, b, self.tokens);
            }
            let how = objective
                .entropy_aggregation
                .unwrap_or(objective.aggregation);
            let bonus = live[t].entropy * f64::from(self.selected[b][t]);
            sum -= objective.entropy_coef * bonus * self.weight(how, b, self.selected_tokens);
        }
        sum
    }

    /// The weight of one token of row `b`.
    fn weight(&self, aggregation: Aggregation, b: usize, tokens: f64) -> f64 {
        match aggregation {
            Aggregation::TokenMean => 1.0 / tokens,
            Aggregation::TokenSum => 1.0,
            Aggregation::SequenceMeanTokenMean => {
                1.0 / (count(&self.mask[b]) as f64 * self.sequences)
            }
            Aggregation::SequenceMeanTokenSum => 1.0 / self.sequences,
            Aggregation::Constant { length } => 1.0 / (self.sequences * length as f64),
            Aggregation::PromptMean => {
                let tokens = self.prompts[&self.held[b].prompt];
                1.0 / (tokens * self.prompts.len()) as f64
            }
        }
    }

    fn differences(&self, b: usize, cells: &[Cell]) -> Vec<f64> {
        let own = self.own(b);
        own.iter()
            .map(|&t| cells[t].log_prob - cells[t].old)
            .collect()
    }

    fn log_ratio(&self, b: usize, live: &[Cell], t: usize) -> f64 {
        let held = &self.held[b].cells;
        let log_ratio = match self.objective.ratio_level {
            RatioLevel::Token => live[t].log_prob - live[t].old,
            RatioLevel::Sequence => mean(&self.differences(b, live)),
            RatioLevel::SequenceSum => self.differences(b, live).iter().sum(),
            RatioLevel::SequenceToken => {
                mean(&self.differences(b, held)) + live[t].log_prob - held[t].log_prob
            }
        };
        let clamp = self.objective.log_ratio_clamp.unwrap_or_default();
        log_ratio
            .max(clamp.min.unwrap_or(f64::NEG_INFINITY))
            .min(clamp.max.unwrap_or(f64::INFINITY))
    }

    fn surrogate(&self, b: usize, live: &[Cell], t: usize, weights: Option<&Vec<f64>>) -> f64 {
        let held = &self.held[b].cells;
        let (a, log_prob) = (live[t].advantage, live[t].log_prob);
        let moved = log_prob - live[t].old;
        let ratio = self.log_ratio(b, live, t).exp();
        let constant = self.log_ratio(b, held, t).exp();
        // A gain stops growing above 1 + high; a loss stops falling below 1 - low, and growing at
        // its cap.
        let clip = |low: f64, high: f64, cap: f64| match a > 0.0 {
            true => -a * ratio.min(1.0 + high),
            false => -a * ratio.max(1.0 - low).min(cap),
        };
        match self.objective.surrogate {
            Surrogate::PpoClip(config) => {
                let cap = config.delta.or(config.dual_clip).unwrap_or(f64::INFINITY);
                clip(config.low, config.high, cap)
            }
            Surrogate::ClipCov(_) if self.picked[b][t] => 0.0,
            Surrogate::ClipCov(config) => clip(config.low, config.high, f64::INFINITY),
            Surrogate::KlCov(config) => {
                let paid = if self.picked[b][t] {
                    config.coef * moved.abs()
                } else {
                    0.0
                };
                -a * ratio + paid
            }
            Surrogate::Reinforce(_) => -a * log_prob,
            Surrogate::Dro(config) => -(a * log_prob - config.beta / 2.0 * moved.powi(2)),
            Surrogate::Cispo(config) => {
                let (low, high) = match config.band {
                    CispoBand::Cap(cap) => (0.0, cap),
                    CispoBand::AroundOne { low, high } => (1.0 - low, 1.0 + high),
                };
                -constant.max(low).min(high) * a * log_prob
            }
            Surrogate::Sapo(config) => {
                let tau = if a > 0.0 {
                    config.tau_pos
                } else {
                    config.tau_neg
                };
                -a * 4.0 / tau / (1.0 + (-tau * (ratio - 1.0)).exp())
            }
            Surrogate::Gmpo(config) => {
                let own = self.own(b);
                let z = |&t: &usize| {
                    let d = live[t].log_prob - live[t].old;
                    let d = match live[t].advantage {
                        a if a > 0.0 => d.min(config.high),
                        a if a < 0.0 => d.max(-config.low),
                        _ => 0.0,
                    };
                    d + weights.map_or(0.0, |weights| (weights[t] + 1e-10).ln())
                };
                let z: Vec<f64> = own.iter().map(z).collect();
                let advantages: Vec<f64> = own.iter().map(|&t| live[t].advantage).collect();
                -mean(&advantages) * mean(&z).exp()
            }
            Surrogate::Vespo(config) => {
                let token = |&t: &usize| {
                    let w = weights.map_or(0.0, |weights| weights[t].max(1e-8).ln().min(20.0));
                    (held[t].log_prob - held[t].old).clamp(-20.0, 20.0) + w
                };
                let sum: f64 = self.own(b).iter().map(token).sum();
                let sum = sum.clamp(1e-8f64.ln(), 20.0);
                let (k, lambda) = match a < 0.0 {
                    true => (config.k_neg, config.lambda_neg),
                    false => (config.k_pos, config.lambda_pos),
                };
                -(lambda + k * sum - lambda * sum.exp()).exp() * a * log_prob
            }
            Surrogate::Dppo(config) => {
                let (p, q) = (held[t].log_prob.exp(), held[t].old.exp());
                let distance = match config.divergence {
                    BinaryDivergence::Tv => (p - q).abs(),
                    BinaryDivergence::Kl => {
                        q * (q / p).ln() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).ln()
                    }
                };
                let too_far = match a > 0.0 {
                    true => distance > config.high && p > q,
                    false => distance > config.low && p < q,
                };
                -constant.min(config.ratio_cap) * f64::from(!too_far) * a * log_prob
            }
            ref other => panic!("no formula for {other:?}"),
        }
    }
}

fn count(marked: &[bool]) -> usize {
    marked.iter().filter(|&&marked| marked).count()
}

/// `ln pi - ln mu`; 0 where the sampler has no number.
fn away_from_sampler(cell: &Cell, numerator: Numerator) -> f64 {
    let policy = match numerator {
        Numerator::Old => cell.old,
        Numerator::Current => cell.log_prob,
    };
    if cell.sampler.is_nan() {
        0.0
    } else {
        policy - cell.sampler
    }
}

fn formula_weights(objective: &PolicyObjective, rows: &[Row]) -> Option<Vec<Vec<f64>>> {
    let correction = objective.sampler_correction.as_ref()?;
    let config = correction.weights?;
    let away = |cell: &Cell| away_from_sampler(cell, correction.numerator);
    let bound = config.log_ratio_clamp.unwrap_or(f64::INFINITY);
    let mut weights = everywhere(rows, |b, t| {
        let cell = &rows[b].cells[t];
        if !cell.mask {
            return 0.0;
        }
        let d: f64 = match config.level {
            WeightLevel::Token => away(cell),
            WeightLevel::Sequence => rows[b].tokens().map(|(_, cell)| away(cell)).sum(),
        };
        let w = d.max(-bound).min(bound).exp();
        let (min, max) = (
            config.min.unwrap_or(0.0),
            config.max.unwrap_or(f64::INFINITY),
        );
        match config.action {
            WeightAction::Truncate => w.max(min).min(max),
            WeightAction::Mask => w * f64::from(min <= w && w <= max),
        }
    });
    if config.batch_normalize {
        let mut counted = Vec::new();
        for (b, row) in rows.iter().enumerate() {
            let own = row.tokens().map(|(t, _)| weights[b][t]);
            match config.level {
                WeightLevel::Token => counted.extend(own),
                WeightLevel::Sequence => counted.extend(own.take(1)),
            }
        }
        let mean = mean(&counted);
        weights.iter_mut().flatten().for_each(|w| *w /= mean);
    }
    Some(weights)
}

/// The KL of one token, without its coefficient.
fn penalty(kl: &KlPenalty, live: &Cell, held: &Cell) -> f64 {
    let estimate = |cell: &Cell| {
        let x = cell.reference - cell.log_prob;
        let bound = kl.log_ratio_clamp.unwrap_or(f64::INFINITY);
        let x = x.max(-bound).min(bound);
        let value = match kl.estimator {
            KlEstimator::K1 => -x,
            KlEstimator::K2 => x * x / 2.0,
            KlEstimator::K3 => x.exp() - 1.0 - x,
            KlEstimator::Abs => x.abs(),
        };
        let bound = kl.value_clamp.unwrap_or(f64::INFINITY);
        value.max(-bound).min(bound)
    };
    let squared = |cell: &Cell| (cell.reference - cell.log_prob).powi(2) / 2.0;
    match kl.straight_through {
        true => estimate(held) + squared(live) - squared(held),
        false => estimate(live),
    }
}
