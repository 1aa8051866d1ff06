//! Fingerprints of a model's structure and frozen weights.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};

use super::gradients::Trained;
use crate::{Error, Result};

/// Returns a hash of the names and shapes of all parameters, and one of the values of those that
/// are not trained. Both are equal for models that accept the same checkpoint of trained
/// parameters.
///
/// # Errors
/// Returns an error if a frozen parameter cannot be read from its device.
pub(super) fn describe<M: Module>(model: &M) -> Result<Value> {
    let trained = Trained::of(model);
    let mut visitor = Fingerprints {
        trained: trained.flags.iter(),
        path: Vec::new(),
        structure: Fingerprint::default(),
        frozen: Fingerprint::default(),
        broken: None,
    };
    model.visit(&mut visitor);
    match visitor.broken {
        Some(error) => Err(error),
        None => Ok(json!({
            "structure": visitor.structure.hex(),
            "frozen_weights": visitor.frozen.hex(),
        })),
    }
}

struct Fingerprints<'a> {
    trained: std::slice::Iter<'a, bool>,
    path: Vec<String>,
    structure: Fingerprint,
    frozen: Fingerprint,
    broken: Option<Error>,
}

impl ModuleVisitor for Fingerprints<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let name = format!("{} {:?}", self.path.join("."), value.dims());
        self.structure.add(name.as_bytes());
        if self.trained.next() == Some(&true) || self.broken.is_some() {
            return;
        }
        match value.inner().try_into_data() {
            Ok(data) => self.add_frozen(&name, &data),
            Err(reason) => self.broken = Some(Error::device(name, reason)),
        }
    }
}

impl Fingerprints<'_> {
    fn add_frozen(&mut self, name: &str, data: &TensorData) {
        self.frozen.add(name.as_bytes());
        self.frozen.add(format!("{:?}", data.dtype()).as_bytes());
        self.frozen.add(data.as_bytes());
    }
}

/// A hash similar to FNV-1a, over words of eight bytes. It detects mistakes, not attacks.
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds `bytes` and their number.
    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        for word in words.chain([u64::from_le_bytes(last), bytes.len() as u64]) {
            self.0 = (self.0 ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(29);
        }
    }

    fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}
