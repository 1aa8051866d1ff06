//! The planner beside published costs.

use rlvr::Result;
use rlvr::plan::Cost;
use serde_json::json;

use crate::published::{self, Printed, Published, Stage};
use crate::table::{rule, short, whole};

pub fn reproduce(as_json: bool) -> Result<()> {
    let published = published::read()?;
    match as_json {
        true => print_json(&published),
        false => print(&published),
    }
}

fn print_json(published: &Published) -> Result<()> {
    let stages = &published.bill.stages;
    let total: Cost = stages.iter().map(Stage::cost).sum();
    let mut runs = Vec::new();
    for run in &published.runs {
        let computed = run.computed()?;
        runs.push(json!({
            "run": run.run,
            "quantity": run.quantity,
            "published": run.published,
            "computed": computed,
            "ratio": computed / run.published,
            "sheet": run.sheet,
            "assumed": run.assumed,
        }));
    }
    let bill: Vec<_> = stages
        .iter()
        .map(|stage| json!({ "stage": stage.stage, "cost": stage.cost() }))
        .collect();
    say!(
        "{:#}",
        json!({ "bill": bill, "total": total, "runs": runs })
    );
    Ok(())
}

fn print(published: &Published) -> Result<()> {
    let bill = &published.bill;
    say!("{}", bill.run);
    say!("{}", rule());
    say!(
        "{:<12}{:>9}{:>8}{:>8}{:>15}{:>12}{:>16}{:>10}",
        "stage",
        "devices",
        "hours",
        "$/h",
        "device-hours",
        "dollars",
        "printed",
        "as"
    );
    let line = |name: &str, run: [String; 3], cost: Cost, expected: &Printed| {
        let [devices, on, price] = run;
        let (hours, dollars) = published::printed(cost);
        let exact = cost.device_hours == expected.device_hours && cost.dollars == expected.dollars;
        let same = hours == expected.printed_hours && dollars == expected.printed_dollars;
        say!(
            "{name:<12}{devices:>9}{on:>8}{price:>8}{:>15}{:>12}{:>16}{:>10}",
            whole(cost.device_hours),
            format!("${}", whole(cost.dollars)),
            format!("{} {}", expected.printed_hours, expected.printed_dollars),
            match exact && same {
                true => "the same".to_string(),
                false => format!("{hours} {dollars}"),
            },
        );
    };
    for stage in &bill.stages {
        let run = [stage.devices, stage.hours, stage.price].map(|n| format!("{n:.0}"));
        line(&stage.stage, run, stage.cost(), &stage.printed);
    }
    let total: Cost = bill.stages.iter().map(Stage::cost).sum();
    let empty = [(); 3].map(|()| String::new());
    line("total", empty, total, &bill.total);

    say!("\nPublished runs beside the low end of a plan, which is what the formulas give");
    say!("{}", rule());
    say!(
        "{:<42}{:>13}{:>11}{:>11}{:>7}{:>13}",
        "run",
        "",
        "published",
        "computed",
        "ratio",
        "the sheet's"
    );
    let mut last = &Vec::new();
    for run in &published.runs {
        let computed = run.computed()?;
        let what = match run.quantity.as_str() {
            "device_hours" => "device-hours",
            _ => "s a step",
        };
        let [low, high] = run
            .sheet
            .map(|sheet| format!("{:.2}", sheet / run.published));
        say!(
            "{:<42}{what:>13}{:>11}{:>11}{:>7}{:>13}",
            run.run,
            short(run.published),
            short(computed),
            format!("{:.2}", computed / run.published),
            if low == high {
                low
            } else {
                format!("{low}-{high}")
            },
        );
        assumptions(&run.assumed, &mut last);
    }
    say!("\nSupervised stages");
    say!("{}", rule());
    say!(
        "{:<42}{:>13}{:>11}{:>11}{:>20}",
        "run",
        "",
        "published",
        "computed",
        "the sheet"
    );
    let between = |[low, high]: [f64; 2]| match short(low) == short(high) {
        true => short(low),
        false => format!("{} - {}", short(low), short(high)),
    };
    let row = |run: &str, what: &str, known: Option<f64>, computed: String, sheet: String| {
        let known = known.map_or("-".into(), short);
        say!("{run:<42}{what:>13}{known:>11}{computed:>14}{sheet:>17}");
    };
    for sft in &published.sft {
        let (computed, sheet) = (between(sft.computed()?), between(sft.sheet));
        row(&sft.run, "hours", sft.published, computed, sheet);
        assumptions(&sft.assumed, &mut last);
    }
    let data = &published.sft_data;
    let (computed, sheet) = (data.computed(), &data.sheet);
    let (own, given) = (computed.tokens / 1e9, sheet.tokens / 1e9);
    row(&data.run, "10^9 tokens", None, short(own), short(given));
    let (own, given) = (computed.answers / 1e6, sheet.answers / 1e6);
    row("", "10^6 answers", None, short(own), short(given));
    let (own, given) = (100.0 * computed.kept_share, 100.0 * sheet.kept_share);
    row("", "% kept", None, short(own), short(given));
    assumptions(&data.assumed, &mut last);
    let hours = &published.r1_hours;
    let (stage, left) = hours.computed(published.sft[1].computed()?);
    say!("{:<42}{:>13}{:>11}", hours.run, "hours", short(hours.hours));
    let (own, given) = (short(stage), short(hours.sheet.stage_4));
    row("    1,700 updates at R1-Zero's rate", "", None, own, given);
    let (own, given) = (between(left), between(hours.sheet.left));
    row("    left for the updates of stage 2", "", None, own, given);
    Ok(())
}

/// Inputs that are not published, in lines that fit; once for rows that share them.
fn assumptions<'a>(assumed: &'a Vec<String>, last: &mut &'a Vec<String>) {
    if assumed.is_empty() || assumed == *last {
        return;
    }
    *last = assumed;
    let mut line = "    assumed:".to_string();
    for (at, what) in assumed.iter().enumerate() {
        let comma = if at + 1 < assumed.len() { "," } else { "" };
        if line.len() + what.len() > 95 {
            say!("{line}");
            line = "            ".to_string();
        }
        line = format!("{line} {what}{comma}");
    }
    say!("{line}");
}
