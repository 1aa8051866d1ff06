//! Makes a report of one run, or of several beside each other.
//!
//! `cargo run --example report -- RUN [OTHER_RUN] --out report.html`
//!
//! A run is a folder as `r1_zero` and `grpo_hf` leave it (`metrics.jsonl`, and where they exist
//! `config.json` and `rollouts/`), or a metrics file alone. The report is one HTML file that loads
//! nothing. The verdict on each run is also printed.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rlvr::train::diagnosis::Diagnosis;
use rlvr::train::observer::{ReportedRun, render_report};
use rlvr::{Error, Result};

/// Makes a report of one run, or of several beside each other: curves, findings, settings, sample
/// rollouts.
#[derive(Parser)]
#[command(name = "report", version)]
struct Args {
    /// Folders of runs, or metrics files
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The HTML file to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match report(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &Args) -> Result<()> {
    let runs = args.runs.iter().map(ReportedRun::read);
    let mut runs = runs.collect::<Result<Vec<ReportedRun>>>()?;
    name_apart(&mut runs, &args.runs);
    fs::write(&args.out, render_report(&runs)?).map_err(|e| Error::io(&args.out, e))?;
    for run in &runs {
        println!("{}: {}", run.name, Diagnosis::of(&run.records));
    }
    println!("the report is in {}", args.out.display());
    Ok(())
}

/// Calls runs of the same name by their whole path.
fn name_apart(runs: &mut [ReportedRun], paths: &[PathBuf]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, path) in runs.iter_mut().zip(paths) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = path.display().to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_become_one_page() {
        let folder = tempfile::tempdir().unwrap();
        let runs = ["a/run", "b/run"].map(|name| folder.path().join(name));
        for run in &runs {
            fs::create_dir_all(run).unwrap();
            fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"reward\":0.5}\n").unwrap();
        }
        let out = folder.path().join("report.html");
        let args = Args {
            runs: runs.to_vec(),
            out: out.clone(),
        };
        report(&args).unwrap();
        let html = fs::read_to_string(&out).unwrap();
        for run in &runs {
            let name = format!("\"name\":\"{}\"", run.display());
            assert!(html.contains(&name), "{name}");
        }
        let missing = Args {
            runs: vec![folder.path().join("none")],
            out,
        };
        assert!(report(&missing).is_err());
    }
}
