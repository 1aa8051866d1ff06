//! Saving and restoring the state of a distillation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::DistillConfig;
use crate::folder::{checksums, replace_folder, verify};
use crate::policy::PolicyModel;
use crate::train::optimizer::Optimizer;
use crate::train::trained::Trained;
use crate::{Error, Result};

const MANIFEST: &str = "distill.json";
const NAME: &str = "student";

/// The state other than weights and moments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    steps: u64,
    updates: u64,
    config: DistillConfig,
    /// Checksums of the other files.
    files: BTreeMap<String, String>,
}

/// The path of the previous folder between two renames.
fn aside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".replaced");
    path.with_file_name(name)
}

pub(super) fn save<M: PolicyModel>(
    config: &DistillConfig,
    optimizer: &Optimizer,
    steps: u64,
    student: &M,
    path: &Path,
) -> Result<()> {
    replace_folder(path, &aside(path), |folder| {
        Trained::of(student).save(student.valid(), &folder.join(format!("{NAME}.bpk")))?;
        optimizer.save(student, folder, NAME)?;
        let manifest = Manifest {
            steps,
            updates: optimizer.updates(),
            config: config.clone(),
            files: checksums(folder)?,
        };
        let file = folder.join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|reason| Error::checkpoint(&file, reason))?;
        fs::write(&file, text).map_err(|e| Error::io(&file, e))
    })
}

/// Returns the student, the optimizer and the number of updates.
pub(super) fn restore<M: PolicyModel>(
    config: &DistillConfig,
    student: &M,
    path: &Path,
) -> Result<(M, Optimizer, u64)> {
    // The writing process may have been killed between the two renames.
    let former = Some(aside(path)).filter(|aside| !path.exists() && aside.exists());
    let path = former.as_deref().unwrap_or(path);
    let file = path.join(MANIFEST);
    let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|reason| Error::checkpoint(&file, reason))?;
    // The number of steps may change.
    let theirs = DistillConfig {
        steps: config.steps,
        ..manifest.config
    };
    if theirs != *config {
        let reason = "it belongs to a distillation with other settings; only `steps` may differ";
        return Err(Error::checkpoint(&file, reason));
    }
    verify(path, &manifest.files)?;
    let weights = path.join(format!("{NAME}.bpk"));
    let student = Trained::of(student).load(student.clone(), &weights)?;
    let mut optimizer = Optimizer::new(config.optimizer)?;
    optimizer.load(&student, path, NAME, manifest.updates)?;
    Ok((student, optimizer, manifest.steps))
}
