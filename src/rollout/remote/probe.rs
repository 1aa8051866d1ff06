//! Checks of an engine: that its weights are the policy's, and that it honours the sampling
//! settings.

use super::config::Protocol;
use super::http::{Kind, Trouble};
use super::protocol::{Finish, Order, Part};
use crate::rollout::SamplingConfig;

/// A policy's logits after a few fixed texts. An engine with the same weights gives the same
/// log-probs.
#[derive(Debug)]
pub(super) struct Fingerprint {
    pub texts: Vec<Text>,
    pub vocabulary: usize,
}

/// One text and the logits of the token after it.
#[derive(Debug)]
pub(super) struct Text {
    pub tokens: Vec<u32>,
    pub logits: Vec<f32>,
}

impl Text {
    /// The log-prob of `token` at a temperature, in nats.
    fn log_prob(&self, token: u32, temperature: f64) -> f64 {
        let scaled = |logit: f32| f64::from(logit) / temperature;
        let top = self
            .logits
            .iter()
            .fold(f64::NEG_INFINITY, |top, &l| top.max(scaled(l)));
        let total: f64 = self.logits.iter().map(|&l| (scaled(l) - top).exp()).sum();
        let logit = self.logits.get(token as usize).copied();
        scaled(logit.unwrap_or(f32::NAN)) - top - total.ln()
    }
}

/// The capabilities of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Whether log-probs are those of the distribution after top-k, top-p and min-p.
    pub truncates: bool,
    /// Whether the same seed gives the same token.
    pub seeded: bool,
    /// Whether answers report which weights sampled which tokens.
    pub reports: bool,
}

const VLLM_MODE: &str =
    "start vLLM with --logprobs-mode processed_logprobs --generation-config vllm";
const SGLANG_MODE: &str = "start SGLang without SGLANG_RETURN_ORIGINAL_LOGPROB";

/// The variable part of a test request.
pub(super) struct Question<'a> {
    tokens: &'a [u32],
    sampling: SamplingConfig,
    max_tokens: usize,
    stop: &'a [u32],
    seed: u64,
}

impl<'a> Question<'a> {
    fn new(text: &'a Text, temperature: f64, seed: u64) -> Self {
        let sampling = SamplingConfig {
            temperature,
            ..SamplingConfig::default()
        };
        Self {
            tokens: &text.tokens,
            sampling,
            max_tokens: 1,
            stop: &[],
            seed,
        }
    }

    /// The request for a model.
    pub(super) fn order(
        &'a self,
        model: &'a str,
        adapter: bool,
        salt: &'a str,
        vocabulary: usize,
    ) -> Order<'a> {
        Order {
            model,
            adapter,
            salt,
            tokens: self.tokens,
            max_tokens: self.max_tokens,
            sampling: &self.sampling,
            stop: self.stop,
            seed: self.seed,
            stream: false,
            vocabulary,
        }
    }
}

/// Returns an error unless the engine's log-probs at temperature 1 match the policy's. Returns the
/// last answer.
pub(super) fn compare(
    ask: &dyn Fn(&Question) -> Result<Part, Trouble>,
    protocol: Protocol,
    expected: &Fingerprint,
    tolerance: f64,
) -> Result<Part, Trouble> {
    let (mut worst, mut last) = (0.0f64, Part::default());
    for (index, text) in expected.texts.iter().enumerate() {
        let part = ask(&Question::new(text, 1.0, 11 + index as u64))?;
        let (token, found) = single(&part)?;
        worst = worst.max((found - text.log_prob(token, 1.0)).abs());
        last = part;
    }
    match worst <= tolerance {
        true => Ok(last),
        false => {
            let mode = match protocol {
                Protocol::Sglang => SGLANG_MODE,
                _ => VLLM_MODE,
            };
            let reason = format!(
                "its log-probs after a fixed text differ by up to {worst:.5} nats from the policy's, {tolerance} is allowed: it has other weights, or changes the distribution"
            );
            let remedy = format!(
                "{mode} and with the policy's own model; for an engine or a policy in half precision raise `tolerance`, for example to 0.1"
            );
            Err(Trouble::new(Kind::Stale, reason, remedy))
        }
    }
}

/// Runs the other checks on an engine whose weights match the policy's. `compared` is the result of
/// [`compare`].
pub(super) fn check_engine(
    ask: &dyn Fn(&Question) -> Result<Part, Trouble>,
    protocol: Protocol,
    expected: &Fingerprint,
    tolerance: f64,
    compared: &Part,
) -> Result<Findings, Trouble> {
    let mut findings = Findings {
        reports: compared.spans.is_some(),
        ..Findings::default()
    };
    temperature(ask, protocol, expected, tolerance)?;
    let Some(text) = expected.texts.first() else {
        return Ok(findings);
    };

    // Filters that keep one token: its log-prob is 0 if log-probs include the filters, and the
    // policy's otherwise.
    let filters = |question: &mut Question, which: usize| match which {
        0 => question.sampling.top_k = Some(1),
        1 => question.sampling.top_p = Some(1e-6),
        _ => question.sampling.min_p = Some(1.0),
    };
    let mut best = None;
    findings.truncates = true;
    for which in 0..3 {
        let mut question = Question::new(text, 1.0, 21 + which as u64);
        filters(&mut question, which);
        let (token, found) = single(&ask(&question)?)?;
        let name = ["top_k", "top_p", "min_p"][which];
        if *best.get_or_insert(token) != token && !tied(text, best, token, tolerance) {
            let reason = format!(
                "{name} that keeps one token gave token {token}, and another filter {best:?}"
            );
            let remedy = "the engine must honour top_k, top_p and min_p; check that it is a supported version";
            return Err(Trouble::new(Kind::Refused, reason, remedy));
        }
        findings.truncates &= found.abs() <= tolerance;
    }
    if !findings.truncates && protocol.is_vllm() {
        let reason = "its log-probs are not those of the distribution that is sampled from: with top_k = 1 they are not 0";
        return Err(Trouble::new(Kind::Refused, reason, VLLM_MODE));
    }

    // The same seed twice, then other seeds.
    let draw = |seed| single(&ask(&Question::new(text, 1.0, seed))?);
    let first = draw(31)?.0;
    findings.seeded = draw(31)?.0 == first;
    let certain = text.log_prob(first, 1.0) > -0.1;
    let mut others = 32..40u64;
    let copies = others.try_fold(true, |same, seed| match same {
        true => Ok(draw(seed)?.0 == first),
        false => Ok(false),
    });
    if copies? && !certain {
        let reason = format!(
            "nine seeds gave token {first} of probability below 0.9: the samples of a group would be identical"
        );
        let remedy = "start SGLang with --enable-deterministic-inference, or without it; the engine must honour the seed";
        return Err(Trouble::new(Kind::Refused, reason, remedy));
    }

    // A stop token ends the answer and is its last token.
    let best = best.unwrap_or_default();
    let mut question = Question::new(text, 1.0, 41);
    question.sampling.top_k = Some(1);
    let stop = [best];
    (question.stop, question.max_tokens) = (&stop, 3);
    let part = ask(&question)?;
    if (part.tokens.as_slice(), part.finish) != (&stop[..], Some(Finish::Stop)) {
        let found = &part.tokens;
        let reason =
            format!("with the stop token {best} it returned {found:?} instead of that token alone");
        let remedy = "the engine must end with a token of stop_token_ids and return it; check that it is a supported version";
        return Err(Trouble::new(Kind::Refused, reason, remedy));
    }
    Ok(findings)
}

/// Whether two tokens are close enough that either may be the most probable one.
fn tied(text: &Text, one: Option<u32>, other: u32, tolerance: f64) -> bool {
    let one = one.map_or(f64::NAN, |token| text.log_prob(token, 1.0));
    (one - text.log_prob(other, 1.0)).abs() <= 2.0 * tolerance
}

/// Returns an error if log-probs do not include the temperature.
fn temperature(
    ask: &dyn Fn(&Question) -> Result<Part, Trouble>,
    protocol: Protocol,
    expected: &Fingerprint,
    tolerance: f64,
) -> Result<(), Trouble> {
    let (mut processed, mut raw) = (0.0f64, 0.0f64);
    for (index, text) in expected.texts.iter().enumerate() {
        let (token, found) = single(&ask(&Question::new(text, 2.0, 51 + index as u64))?)?;
        processed = processed.max((found - text.log_prob(token, 2.0)).abs());
        raw = raw.max((found - text.log_prob(token, 1.0)).abs());
    }
    if processed <= tolerance {
        return Ok(());
    }
    let mode = match protocol {
        Protocol::Sglang => SGLANG_MODE,
        _ => VLLM_MODE,
    };
    let reason = match raw <= tolerance {
        true => "at temperature 2 its log-probs are those of temperature 1, not of the distribution that is sampled from".into(),
        false => format!("at temperature 2 its log-probs differ by up to {processed:.5} nats from the policy's, {tolerance} is allowed"),
    };
    Err(Trouble::new(Kind::Refused, reason, mode))
}

/// The only token of an answer with its log-prob.
fn single(part: &Part) -> Result<(u32, f64), Trouble> {
    match (part.tokens.as_slice(), part.log_probs.as_slice()) {
        (&[token], &[log_prob]) => Ok((token, f64::from(log_prob))),
        (tokens, _) => {
            let reason = format!("it returned {} tokens, 1 was requested", tokens.len());
            let remedy = "the engine must honour the length limit and ignore_eos; check that it is a supported version";
            Err(Trouble::new(Kind::Refused, reason, remedy))
        }
    }
}
