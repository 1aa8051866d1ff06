//! Plans as tables that fit 100 columns.

use rlvr::plan::{Hardware, ModelShape, Plan, PlanConfig, Range, WeakScaling};

/// A line under a heading.
pub fn rule() -> String {
    "─".repeat(98)
}

/// `12,345`.
pub fn whole(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits: `1.2e-4`, `0.123`, `1.23`, `12.3`, `1,234`.
pub fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 => whole(number),
        n if n >= 10.0 => format!("{number:.1}"),
        0.0 => "0".to_string(),
        n if n >= 1.0 => format!("{number:.2}"),
        n if n >= 0.01 => format!("{number:.3}"),
        _ => format!("{number:.1e}"),
    }
}

/// With a prefix of a thousand: `7.62 B`.
fn large(number: f64) -> String {
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    for (unit, name) in units {
        if number >= unit {
            return format!("{} {name}", short(number / unit));
        }
    }
    short(number)
}

fn range(range: Range) -> String {
    format!("{} - {}", short(range.low), short(range.high))
}

/// With a unit that makes the largest of a table readable.
fn bytes_unit(largest: f64) -> (f64, &'static str) {
    match largest {
        n if n >= 1e9 => (1e9, "GB"),
        n if n >= 1e6 => (1e6, "MB"),
        _ => (1e3, "kB"),
    }
}

fn bytes(number: f64) -> String {
    let (unit, name) = bytes_unit(number);
    format!("{} {name}", short(number / unit))
}

pub fn names() {
    say!("models");
    for names in ModelShape::names().chunks(4) {
        let cells: Vec<String> = names.iter().map(|name| format!("{name:<22}")).collect();
        say!("  {}", cells.concat().trim_end());
    }
    say!(
        "\n{:<12} {:>9} {:>9} {:>6} {:>7}   $/h",
        "hardware",
        "TFLOP/s",
        "GB/s",
        "GB",
        "link"
    );
    for row in Hardware::all() {
        let price = row
            .price
            .map_or("-".into(), |[low, high]| match low == high {
                true => format!("{low:.2}"),
                false => format!("{low:.2} - {high:.2}"),
            });
        say!(
            "{:<12} {:>9} {:>9} {:>6} {:>7}   {price}{}",
            row.name,
            short(row.tflops),
            short(row.bandwidth),
            short(row.memory),
            short(row.link),
            if row.is_peak {
                ""
            } else {
                "  (reached, not peak)"
            },
        );
    }
}

fn heading(model: &str, devices: &str, config: &PlanConfig) {
    say!("{model} on {devices}");
    say!(
        "{} steps of {} problems x {} completions, {} each; lengths: mean {}, cap {}, cv {}",
        whole(config.steps as f64),
        whole(config.problems as f64),
        config.group,
        match config.updates {
            1 => "1 update".to_string(),
            updates => format!("{updates} updates"),
        },
        whole(config.completion.mean),
        whole(config.completion.cap as f64),
        config.completion.cv,
    );
    say!("{}", rule());
}

pub fn plan(
    model: &str,
    hardware: &Hardware,
    config: &PlanConfig,
    plan: &Plan,
    mean_is_a_guess: bool,
) {
    let devices = match config.generators {
        None => format!("{} {}", config.devices, hardware.name),
        Some(generators) => format!(
            "{} {}: {generators} generate, {} learn",
            config.devices,
            hardware.name,
            config.devices - generators
        ),
    };
    heading(model, &devices, config);
    let line = |name: &str, text: String| say!("{name:<14}{text}");
    line(
        "parameters",
        format!(
            "{}, of which a token is multiplied with {}",
            large(plan.parameters as f64),
            large(plan.active_parameters as f64)
        ),
    );
    line(
        "tokens a step",
        format!(
            "{} generated in {} completions; {} read by a pass",
            large(plan.generated),
            whole(plan.rows as f64),
            large(plan.read.count)
        ),
    );
    fit(plan);
    say!();
    time(config, plan);
    say!();
    let memory = &plan.memory;
    memory_table(plan);
    say!();
    line("hours", range(plan.hours));
    line("device-hours", range(plan.device_hours));
    if let Some(dollars) = plan.dollars {
        line("dollars", range(dollars));
    }
    if let Some(mfu) = plan.mfu {
        let percent = range(mfu * 100.0);
        line(
            "MFU",
            format!("{percent} % of the step, update FLOPs by peak"),
        );
    }
    line("checkpoint", bytes(plan.checkpoint_bytes));
    say!(
        "\nLow ends are the formulas' estimates; high ends include the overhead of published runs."
    );
    let rows = plan.rows as f64 * config.tensor_parallel as f64
        / config.generators.unwrap_or(config.devices) as f64;
    if memory.slots >= 1.0 && memory.slots < rows {
        say!(
            "A copy of the weights has memory for {} of its {} completions at the cap; the others wait.",
            whole(memory.slots.floor()),
            whole(rows)
        );
    }
    if mean_is_a_guess {
        say!("The mean length is a guess: give --mean-length, which time and cost follow.");
    }
}

fn fit(plan: &Plan) {
    if plan.misfits.is_empty() {
        say!("{:<14}yes", "fits");
    }
    for misfit in &plan.misfits {
        let head = format!("NO: {} needs", misfit.phase);
        say!(
            "{:<14}{head} {} of {}, most of it {}",
            "fits",
            bytes(misfit.needed),
            bytes(misfit.available),
            misfit.largest
        );
        match &misfit.knob {
            Some(knob) => say!("{:<14}it does with {knob}", ""),
            None => say!("{:<14}no single kind of change is enough", ""),
        }
    }
}

fn time(config: &PlanConfig, plan: &Plan) {
    say!(
        "{:<14}{:>12}{:>24}{:>9}",
        "phase",
        "FLOP",
        "seconds a step",
        "share"
    );
    let seconds = &plan.seconds;
    let spread = plan.step_seconds.high / plan.step_seconds.low;
    let row = |name: &str, flops: Option<f64>, low: f64, note: &str| {
        let flops = flops.map_or(String::new(), |flops| format!("{flops:.1e}"));
        let both = Range {
            low,
            high: low * spread,
        };
        let share = format!("{:.0} %", 100.0 * low / seconds.step);
        say!("{name:<14}{flops:>12}{:>24}{share:>9}{note}", range(both));
    };
    let flops = &plan.flops;
    row("generation", Some(flops.generation), seconds.generation, "");
    row("scoring", Some(flops.scoring), seconds.scoring, "");
    let again = flops.update + flops.recomputed;
    row("update", Some(again), seconds.update, "");
    row("rest", None, seconds.rest, "");
    let overlap = match config.generators {
        Some(_) => "   generation beside the others",
        None => "",
    };
    row("step", None, seconds.step, overlap);
}

fn memory_table(plan: &Plan) {
    let (generation, update) = (&plan.memory.generation, &plan.memory.update);
    let (unit, name) = bytes_unit(generation.total().max(update.total()));
    let parts = [
        ("weights", Some(generation.weights), Some(update.weights)),
        ("training state", Some(generation.state), None),
        ("cache", Some(generation.cache), None),
        ("gradients", None, Some(update.gradients)),
        ("optimizer", None, Some(update.optimizer)),
        ("reference", None, Some(update.reference)),
        ("activations", None, Some(update.activations)),
        ("logits", None, Some(update.logits)),
        ("peak", Some(generation.total()), Some(update.total())),
    ];
    say!(
        "{:<24}{:>14}{:>14}   of {}",
        format!("{name} a device, at the cap"),
        "generation",
        "update",
        bytes(plan.memory.device)
    );
    for (name, generation, update) in parts {
        let cell = |bytes: Option<f64>| bytes.map_or(String::new(), |bytes| short(bytes / unit));
        let row = format!("{name:<24}{:>14}{:>14}", cell(generation), cell(update));
        say!("{}", row.trim_end());
    }
}

pub fn compare(model: &str, config: &PlanConfig, rows: &[(Hardware, Plan)]) {
    heading(
        model,
        &format!("{} devices of each kind", config.devices),
        config,
    );
    say!(
        "{:<11} {:>15} {:>15} {:>18} {:>18}   fits",
        "hardware",
        "seconds a step",
        "hours",
        "device-hours",
        "dollars"
    );
    for (hardware, plan) in rows {
        let fits = match plan.misfits.first() {
            None => "yes".to_string(),
            Some(misfit) => format!("no: {}", misfit.phase),
        };
        say!(
            "{:<11} {:>15} {:>15} {:>18} {:>18}   {fits}",
            hardware.name,
            range(plan.step_seconds),
            range(plan.hours),
            range(plan.device_hours),
            plan.dollars.map_or("-".into(), range),
        );
    }
    for (hardware, plan) in rows {
        for misfit in &plan.misfits {
            let knob = misfit
                .knob
                .as_deref()
                .unwrap_or("no single change of the settings");
            say!("{}, {}: fits with {knob}", hardware.name, misfit.phase);
        }
    }
}

pub fn weak_scaling(model: &str, hardware: &Hardware, config: &PlanConfig, rows: &[WeakScaling]) {
    let problems = config.problems as f64 / config.devices as f64;
    say!(
        "{model} on {}: {} problems x {} completions for each device",
        hardware.name,
        match problems.fract() == 0.0 {
            true => whole(problems),
            false => short(problems),
        },
        config.group
    );
    say!("{}", rule());
    say!(
        "{:>8}{:>10}{:>20}{:>16}{:>20}{:>12}   fits",
        "devices",
        "problems",
        "seconds a step",
        "exchange, s",
        "tokens/s, device",
        "efficiency"
    );
    for row in rows {
        say!(
            "{:>8}{:>10}{:>20}{:>16}{:>20}{:>12}   {}",
            row.devices,
            whole(row.problems as f64),
            range(row.step_seconds),
            short(row.exchange_seconds),
            short(row.tokens_per_second),
            format!("{:.0} %", 100.0 * row.efficiency),
            if row.fits { "yes" } else { "no" },
        );
    }
    say!(
        "\nOn paper. Gradients in f32 are exchanged after each update and overlap with nothing, within"
    );
    say!(
        "nodes of {} at {} GB/s and between them at {} GB/s a device. Every device waits for the longest",
        hardware.per_node,
        short(0.4 * hardware.link),
        short(0.8 * hardware.network)
    );
    say!(
        "completion of the step, which grows with their number. Rewards, the host and the gathering of"
    );
    say!("rollouts cost nothing.");
}
