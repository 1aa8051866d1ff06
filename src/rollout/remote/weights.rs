//! Versions of the policy on disk, and their fingerprints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::probe::{Fingerprint, Text};
use crate::folder::{RunLock, remove};
use crate::fused::linear;
use crate::policy::hf::tensor_shapes;
use crate::policy::{PolicyModel, TokenBatch, in_f32};
use crate::{Error, Result, host, random};

/// A version of the policy that engines can load.
#[derive(Debug)]
pub(super) struct Target {
    pub version: u64,
    /// The label that engines report.
    pub label: String,
    pub folder: PathBuf,
    /// Whether the folder holds an adapter, which is loaded in addition to the model.
    pub adapter: bool,
    pub fingerprint: Fingerprint,
    /// The maximum number of tokens of a sequence.
    pub positions: usize,
}

/// The labels of a run's versions, distinct from those of other runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels {
    run: u32,
}

impl Labels {
    pub(super) fn new(run: u32) -> Self {
        Self { run }
    }

    pub(super) fn label(self, version: u64) -> String {
        format!("rlvr-{:08x}-{version}", self.run)
    }

    /// The version of a label, if it is of this run.
    pub(super) fn version(self, label: &str) -> Option<u64> {
        let run = format!("rlvr-{:08x}-", self.run);
        label.strip_prefix(&run)?.parse().ok()
    }
}

/// The folder that versions are written to.
#[derive(Debug)]
pub(super) struct Weights {
    folder: PathBuf,
    _lock: RunLock,
    /// The tensor shapes of the first version.
    first: Option<BTreeMap<String, Vec<usize>>>,
}

/// The first word of the random addresses of the fixed texts.
const TEXTS: u64 = 0x5052_4F42_4500_0000;
/// The lengths of the fixed texts, in tokens; the longest fills blocks of an engine's prefix cache.
const LENGTHS: [usize; 3] = [48, 17, 5];
/// The maximum number of tokens that a check samples after a text.
const SAMPLED: usize = 3;

impl Weights {
    /// Opens the folder and locks it for this run.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or another run has locked it.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let lock = RunLock::acquire(folder)?;
        // Engines may have another working directory.
        let folder = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
        Ok(Self {
            folder,
            _lock: lock,
            first: None,
        })
    }

    /// Writes the policy, or its adapters if it has any, and compares the tensors with those of the
    /// models in `roots`.
    ///
    /// # Errors
    /// Returns an error if the policy cannot be exported, a file cannot be written, or the tensors
    /// differ from the served ones.
    pub(super) fn write<M: PolicyModel>(
        &mut self,
        policy: &M,
        version: u64,
        label: String,
        roots: &[String],
    ) -> Result<Target> {
        let folder = self.folder.join(format!("v{version:06}"));
        remove(&folder)?;
        let adapter = match policy.export(&folder)? {
            true => false,
            false if policy.export_adapters(&folder)? => true,
            false => {
                return Err(Error::config(
                    "policy",
                    "a model that cannot be exported",
                    "a model whose export or export_adapters writes a folder, such as a CausalModel of a supported shape",
                ));
            }
        };
        let shapes = tensor_shapes(&folder)?;
        if !adapter {
            for root in roots.iter().map(Path::new).filter(|root| root.is_dir()) {
                compare(&folder, &shapes, root, &tensor_shapes(root)?)?;
            }
        }
        match &self.first {
            Some(first) => compare(&folder, &shapes, &self.folder, first)?,
            None => self.first = Some(shapes),
        }
        Ok(Target {
            version,
            label,
            folder,
            adapter,
            fingerprint: fingerprint(policy)?,
            positions: policy.max_positions(),
        })
    }

    /// Removes all versions except those in `kept`.
    pub(super) fn prune(&self, kept: &BTreeSet<u64>) -> Result<()> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::io(&self.folder, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let digits = name.and_then(|name| name.strip_prefix('v'));
            let version = digits
                .filter(|digits| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()));
            let version = version.and_then(|digits| digits.parse().ok());
            if version.is_some_and(|version| !kept.contains(&version)) && path.is_dir() {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Returns an error unless the tensors of `ours` have the names and shapes of those in `theirs`,
/// which an engine has loaded: a missing tensor would keep its old values there, and one of another
/// shape would leave the engine without weights.
fn compare(
    folder: &Path,
    ours: &BTreeMap<String, Vec<usize>>,
    root: &Path,
    theirs: &BTreeMap<String, Vec<usize>>,
) -> Result<()> {
    let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
    for (name, shape) in theirs {
        match ours.get(name) {
            Some(own) if own == shape => {}
            Some(own) => mismatched.push(format!(
                "{name} is {own:?} and {shape:?} in {}",
                root.display()
            )),
            // A tied unembedding and derived tables are optional.
            None if name == "lm_head.weight" || name.ends_with("rotary_emb.inv_freq") => {}
            None => missing.push(name.clone()),
        }
    }
    let unknown = ours
        .keys()
        .filter(|name| !theirs.contains_key(*name) && *name != "lm_head.weight");
    let unexpected: Vec<String> = unknown.cloned().collect();
    match missing.is_empty() && mismatched.is_empty() && unexpected.is_empty() {
        true => Ok(()),
        false => Err(Error::Weights {
            path: folder.to_path_buf(),
            missing,
            unexpected,
            mismatched,
        }),
    }
}

/// Computes the policy's logits after fixed texts.
fn fingerprint<M: PolicyModel>(policy: &M) -> Result<Fingerprint> {
    let (vocabulary, positions) = (policy.vocab_size(), policy.max_positions());
    if positions <= SAMPLED {
        let expected = format!("more than {SAMPLED}, so that engines can be checked");
        return Err(Error::config("policy.max_positions", positions, expected));
    }
    let token = |rng: &mut _| random::below(rng, vocabulary as u64) as u32;
    let rows: Vec<Vec<u32>> = LENGTHS
        .iter()
        .enumerate()
        .map(|(index, &length)| {
            let mut rng = random::generator(&[TEXTS, index as u64]);
            let length = length.min(positions - SAMPLED);
            (0..length).map(|_| token(&mut rng)).collect()
        })
        .collect();
    let model = policy.valid();
    let device = model.device();
    let batch = TokenBatch::from_rows(&rows, &device)?;
    let logits = host::on_pool(&device, model, |model| {
        let hidden = model.forward(&batch, &mut model.empty_cache(rows.len()))?;
        let [count, width, size] = hidden.dims();
        let ends: Vec<usize> = (0..count)
            .map(|row| row * width + batch.lengths[row] - 1)
            .collect();
        let last = hidden
            .reshape([count * width, size])
            .select(0, host::indices(&ends, &device));
        host::floats(in_f32(linear(last, model.unembedding(), None)), "logits")
    })?;
    let texts = rows.into_iter().zip(logits.chunks_exact(vocabulary));
    let text = |(tokens, logits): (Vec<u32>, &[f32])| Text {
        tokens,
        logits: logits.to_vec(),
    };
    Ok(Fingerprint {
        texts: texts.map(text).collect(),
        vocabulary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_other_runs_have_no_version() {
        let (labels, other) = (Labels::new(7), Labels::new(8));
        assert_eq!(labels.version(&labels.label(12)), Some(12));
        assert_eq!(other.version(&labels.label(12)), None);
        assert_eq!(labels.version("default"), None);
    }

    #[test]
    fn pruning_removes_only_old_versions() {
        let root = tempfile::tempdir().unwrap();
        let weights = Weights::open(root.path()).unwrap();
        for name in [
            "v000001", "v000002", "v000003", "v1000000", "vision", "other",
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        weights.prune(&BTreeSet::from([2, 3])).unwrap();
        let left: BTreeSet<String> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        let expected = ["other", "v000002", "v000003", "vision"].map(String::from);
        assert_eq!(left, BTreeSet::from(expected));
    }

    #[test]
    fn errors_list_missing_unexpected_and_mismatched_tensors() {
        let tensors = |list: &[(&str, usize)]| {
            let pair = |&(name, size): &(&str, usize)| (name.to_string(), vec![size]);
            list.iter().map(pair).collect::<BTreeMap<_, _>>()
        };
        let served = tensors(&[("a", 1), ("b", 2), ("c", 3), ("lm_head.weight", 4)]);
        let whole = tensors(&[("a", 1), ("b", 2), ("c", 3)]);
        let check = |ours| compare(Path::new("ours"), &ours, Path::new("theirs"), &served);
        check(whole).unwrap();
        let broken = check(tensors(&[("a", 1), ("b", 7), ("d", 3)]));
        let message = broken.unwrap_err().to_string();
        for word in [
            "ours",
            "missing: c",
            "unexpected: d",
            "b is [7] and [2] in theirs",
        ] {
            assert!(message.contains(word), "{message}");
        }
    }
}
