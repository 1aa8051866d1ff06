//! What a run costs before it is rented.
//!
//! `cargo run --release --example plan -- --model qwen2.5-7b --gpu h100 --count 8 --problems 64 --group 16 --max-new-tokens 8192 --steps 500`
//!
//! The model is a `config.json`, the folder of one, or a name. `--compare h800,h100,b200` puts
//! kinds of devices side by side, `--weak-scaling` numbers of devices, `--json` prints objects in
//! place of tables, `--reproduce` compares the planner with published costs, and `--list` prints
//! the names of models and hardware. DeepSeek-R1-Zero, whose 10,400 updates are 650 steps of 16:
//!
//! `cargo run --release --example plan -- --model deepseek-v3 --gpu h800 --count 512 --problems 512 --group 16 --updates-per-step 16 --updates 10400 --max-new-tokens 32768 --mean-length 8000 --sharding full --recompute --offload --expert-parallel 32 --weight-bytes 1 --accepted-tokens 1.8 --no-old-log-probs --update-mfu 0.2`

/// Prints a line. A reader that has seen enough, such as `head`, is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod args;
mod published;
mod reproduce;
mod table;

use std::process::ExitCode;

use args::Args;
use clap::Parser;
use rlvr::plan::{Hardware, ModelShape, Plan, weak_scaling};
use rlvr::{Error, Result};
use serde_json::json;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.list {
        table::names();
        return Ok(());
    }
    if args.reproduce {
        return reproduce::reproduce(args.json);
    }
    let Some(model) = &args.model else {
        let expected = "a config.json, a folder with one, or a name; --list prints the names";
        return Err(Error::config("--model", "not given", expected));
    };
    let shape = args::shape(model)?;
    let hardware = args.hardware()?;
    let config = args.config()?;
    if !args.compare.is_empty() {
        return compare(args, model, &shape);
    }
    if let Some(counts) = &args.weak_scaling {
        let rows = weak_scaling(&shape, &hardware, &config, counts)?;
        match args.json {
            true => say!("{:#}", json!({ "weak_scaling": rows })),
            false => table::weak_scaling(model, &hardware, &config, &rows),
        }
        return Ok(());
    }
    let plan = Plan::new(&shape, &hardware, &config)?;
    match args.json {
        true => {
            let all =
                json!({ "model": shape, "hardware": hardware, "config": config, "plan": plan });
            say!("{all:#}");
        }
        false => table::plan(model, &hardware, &config, &plan, args.mean_length.is_none()),
    }
    Ok(())
}

/// The same run on several kinds of devices.
fn compare(args: &Args, model: &str, shape: &ModelShape) -> Result<()> {
    let config = args.config()?;
    let mut rows = Vec::new();
    for name in &args.compare {
        let hardware = Hardware::named(name)?;
        let plan = Plan::new(shape, &hardware, &config)?;
        rows.push((hardware, plan));
    }
    match args.json {
        true => {
            let plans = rows
                .iter()
                .map(|(hardware, plan)| (hardware.name.clone(), json!(plan)));
            let plans: serde_json::Map<_, _> = plans.collect();
            say!("{:#}", json!({ "config": config, "compare": plans }));
        }
        false => table::compare(model, &config, &rows),
    }
    Ok(())
}
