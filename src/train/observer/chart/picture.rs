//! The chart: a title and three panels with a shared axis of steps.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::panel::{Canvas, Drawn, FINE, INK, LEFT, MUTED, Panel, number, text};
use super::series::{Point, centred_mean, on_axis, points, thinned, value_range, window};
use crate::train::observer::StepRecord;
use crate::{Error, Result};

/// The size of the chart in pixels.
const WIDTH: i32 = 960;
const HEIGHT: i32 = 780;
/// The top of the first panel, the height of each panel, and the gap between two, in pixels.
const TOP: i32 = 84;
const PANEL: i32 = 196;
const GAP: i32 = 20;

/// Three colours based on Okabe and Ito's colour-blind-safe palette.
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
const GREEN: RGBColor = RGBColor(0x00, 0x8A, 0x66);
const ORANGE: RGBColor = RGBColor(0xC8, 0x55, 0x00);

/// The largest number of evaluations that are drawn with dots.
const MOST_DOTS: usize = 80;

/// Draws `records`, in the order of steps, as a chart with `title`, and returns the SVG: 960 x 780
/// pixels, white background, no scripts, no external fonts.
///
/// Three panels have the same axis of steps:
/// 1. `reward`: each step as a thin line, and a centred mean over about a fifteenth of the steps as
///    a thick line. The mean has shorter windows at both ends; its last value is written at the
///    right.
/// 2. `eval/accuracy` in percent: a dot for each evaluation, an axis from 0 to 100, and the last
///    value at the right.
/// 3. `completions/mean_length` in tokens, smoothed like the reward.
///
/// For supervised fine-tuning, whose records have no reward, the panels are `loss`, `eval/loss` and
/// the length of the responses.
///
/// Missing and non-finite values are skipped, and lines connect their neighbours. Curves of more
/// than 1200 points are thinned to the lowest and highest value of each interval. Without records
/// the chart is empty and says so.
///
/// # Errors
/// Returns [`Error::Io`] if the drawing library fails, which is not known to happen in memory.
///
/// ```
/// use rlvr::train::observer::{StepRecord, draw_chart};
///
/// let records = [
///     StepRecord::new(0).with("eval/accuracy", 0.2),
///     StepRecord::new(10).with("eval/accuracy", 0.965),
/// ];
/// let svg = draw_chart(&records, "Sums of two numbers")?;
/// assert!(svg.starts_with("<svg") && svg.contains("96.5%"));
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn draw_chart(records: &[StepRecord], title: &str) -> Result<String> {
    // XML does not allow control characters, even escaped.
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    let mut svg = String::new();
    let size = ((WIDTH * FINE) as u32, (HEIGHT * FINE) as u32);
    {
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&canvas, records, &title)
            .and_then(|()| canvas.present())
            .map_err(|error| Error::io("chart.svg", std::io::Error::other(error.to_string())))?;
    }
    // The view box keeps the fine resolution; only the displayed size shrinks. See `FINE`.
    let drawn = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    let shown = format!("width=\"{WIDTH}\" height=\"{HEIGHT}\" stroke-linejoin=\"round\"");
    Ok(svg.replacen(&drawn, &shown, 1))
}

fn draw(canvas: &Canvas, records: &[StepRecord], title: &str) -> Drawn {
    canvas.fill(&WHITE)?;
    text(canvas, title, (LEFT, 28), 20, INK, "bold", HPos::Left)?;

    let supervised = is_supervised(records);
    let reward = points(records, if supervised { "loss" } else { "reward" }, 1.0);
    let accuracy = points(records, "eval/accuracy", 100.0);
    let length = points(records, "completions/mean_length", 1.0);
    let subtitle = subtitle(records, &accuracy);
    text(
        canvas,
        &subtitle,
        (LEFT, 54),
        13,
        MUTED,
        "normal",
        HPos::Left,
    )?;

    let held_out_loss = points(records, "eval/loss", 1.0);
    let last = match supervised {
        true => held_out_loss.last().map(|&(_, loss)| number(loss, 3)),
        false => accuracy.last().map(|&(_, value)| format!("{value:.1}%")),
    };
    // The axis ends at 100, so larger values are drawn at its end; the text at the right is exact.
    let inside = |&(step, value): &Point| (step, value.clamp(0.0, 100.0));
    let (held_out_range, solved) = match supervised {
        true => (value_range(&held_out_loss), held_out_loss),
        false => (0.0..100.0, accuracy.iter().map(inside).collect()),
    };
    let few = solved.len() <= MOST_DOTS;
    let steps = step_range(records);
    let smoothed = |heading, colour, points: &[Point], digits, step_labels| {
        let window = window(points.len());
        let smooth = centred_mean(points, window);
        let last = smooth.last().map(|&(_, value)| match value.abs() {
            v if v < 1000.0 => number(value, digits),
            _ => number(value, 0),
        });
        Panel {
            heading,
            colour,
            steps: steps.clone(),
            values: value_range(points),
            raw: thinned(if window > 1 { points } else { &[] }),
            smooth: thinned(&smooth),
            dots: Vec::new(),
            legend: ["", ""],
            last,
            step_labels,
        }
    };
    let windows = [window(reward.len()), window(length.len())];
    let names = windows.map(|window| match window {
        1 => ["", "each step"].map(str::to_owned),
        _ => [
            "each step".into(),
            format!("centred mean of {window} steps"),
        ],
    });
    let name = |i: usize, line: usize| {
        if records.is_empty() {
            ""
        } else {
            &*names[i][line]
        }
    };

    let panels = [
        Panel {
            legend: [name(0, 0), name(0, 1)],
            ..match supervised {
                true => smoothed("Loss (mean of the batch, nats)", BLUE, &reward, 3, false),
                false => smoothed("Reward (mean of the batch)", BLUE, &reward, 2, false),
            }
        },
        Panel {
            heading: match supervised {
                true => "Held-out loss (nats)",
                false => "Held-out accuracy (%)",
            },
            colour: GREEN,
            steps: steps.clone(),
            values: held_out_range,
            raw: Vec::new(),
            smooth: thinned(&solved),
            dots: if few { solved } else { Vec::new() },
            legend: ["", ""],
            last,
            step_labels: false,
        },
        Panel {
            legend: [name(1, 0), name(1, 1)],
            ..smoothed("Completion length (mean, tokens)", ORANGE, &length, 1, true)
        },
    ];
    for (top, panel) in (TOP..).step_by((PANEL + GAP) as usize).zip(&panels) {
        panel.draw(canvas, top, PANEL)?;
    }
    let below = TOP + 3 * PANEL + 2 * GAP + 42;
    text(
        canvas,
        "step",
        (WIDTH / 2, below),
        12,
        MUTED,
        "normal",
        HPos::Center,
    )
}

/// Returns whether the records are of supervised fine-tuning.
fn is_supervised(records: &[StepRecord]) -> bool {
    let some = |name| records.iter().any(|record| record.get(name).is_some());
    some("loss") && !some("reward") && !some("eval/accuracy")
}

/// Returns the range of steps, which starts at 0 if the first step is near it, and is never empty.
fn step_range(records: &[StepRecord]) -> std::ops::Range<u64> {
    let steps = || records.iter().map(|record| on_axis(record.step));
    let (first, last) = (steps().min().unwrap_or(0), steps().max().unwrap_or(1));
    match first {
        0 => 0..last.max(1),
        // A single step is centred.
        _ if first == last => first - 1..first + 1,
        _ if first <= last / 10 => 0..last,
        _ => first..last,
    }
}

/// Summarises the run in one line.
fn subtitle(records: &[StepRecord], accuracy: &[Point]) -> String {
    let Some(last) = records.last() else {
        return "no steps yet".to_owned();
    };
    let mut text = format!("{} steps", last.step);
    if let (Some(&(_, first)), Some(&(_, last))) = (accuracy.first(), accuracy.last()) {
        text += &match accuracy.len() {
            1 => format!(", held-out accuracy {last:.1}%"),
            _ => format!(", held-out accuracy from {first:.1}% to {last:.1}%"),
        };
        // The first of equal values.
        let best = accuracy.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some(&(step, best)) = best.filter(|&&(_, best)| best > last) {
            text += &format!(" (best {best:.1}% at step {step})");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics unless every tag that is opened is closed, in order, and text holds no bare markup.
    fn well_formed(svg: &str) {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag without end");
            assert!(!text.contains('>'), "bare `>` in {text:?}");
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag:?}");
            for after in text.split('&').skip(1) {
                let known = ["lt;", "gt;", "amp;", "quot;", "apos;"];
                assert!(known.iter().any(|name| after.starts_with(name)), "{text:?}");
            }
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().expect("a tag without name")),
            }
        }
        assert!(open.is_empty(), "{open:?} not closed");
        for word in ["NaN", "inf"] {
            assert!(!svg.contains(word), "{word} in the chart");
        }
    }

    /// The texts of the chart, in drawing order.
    fn texts(svg: &str) -> Vec<&str> {
        let texts = svg.split("<text ").skip(1);
        let inside = |piece: &'_ str| -> Option<(usize, usize)> {
            Some((piece.find('>')? + 1, piece.find("</text>")?))
        };
        texts
            .filter_map(|piece| inside(piece).map(|(start, end)| piece[start..end].trim()))
            .collect()
    }

    fn run(steps: u64) -> Vec<StepRecord> {
        let record = |step: u64| {
            let part = step as f64 / steps as f64;
            let record = StepRecord::new(step)
                .with("reward", 0.9 + part)
                .with("completions/mean_length", 12.0 + 10.0 * part);
            match step.is_multiple_of(10) {
                true => record.with("eval/accuracy", 0.2 + 0.765 * part),
                false => record,
            }
        };
        (0..=steps).map(record).collect()
    }

    #[test]
    fn the_chart_contains_last_values_and_names() {
        let svg = draw_chart(&run(150), "Sums <&> \"more\"\u{0}").unwrap();
        well_formed(&svg);
        assert!(
            svg.starts_with(r#"<svg width="960" height="780" "#),
            "{}",
            &svg[..80]
        );
        let texts = texts(&svg);
        // The means of the last six steps: 1.9 - 2.5 / 150 and 22 - 25 / 150.
        for expected in [
            "Sums &lt;&amp;&gt; &quot;more&quot;",
            "150 steps, held-out accuracy from 20.0% to 96.5%",
            "Reward (mean of the batch)",
            "centred mean of 11 steps",
            "1.88",
            "96.5%",
            "21.8",
            "step",
        ] {
            assert!(texts.contains(&expected), "{expected:?} not in {texts:?}");
        }
        // Sixteen evaluations, each a dot on a white one, and the end dots of the other two curves.
        assert_eq!(svg.matches("<circle").count(), 2 * 16 + 2);
    }

    #[test]
    fn the_subtitle_names_the_best_evaluation_if_it_is_not_the_last() {
        let values = [0.2, 0.9, 0.9, 0.75];
        let record = |(step, &value)| StepRecord::new(step).with("eval/accuracy", value);
        let records: Vec<StepRecord> = (0..).step_by(10).zip(&values).map(record).collect();
        let svg = draw_chart(&records, "").unwrap();
        let expected = "30 steps, held-out accuracy from 20.0% to 75.0% (best 90.0% at step 10)";
        assert!(texts(&svg).contains(&expected), "{:?}", texts(&svg));
    }

    #[test]
    fn the_chart_of_supervised_fine_tuning_shows_losses() {
        let record = |step: u64| {
            let record = StepRecord::new(step)
                .with("loss", 2.0 / step as f64)
                .with("completions/mean_length", 7.0);
            match step.is_multiple_of(10) {
                true => record.with("eval/loss", 3.5 / step as f64),
                false => record,
            }
        };
        let records: Vec<StepRecord> = (1..=20).map(record).collect();
        let svg = draw_chart(&records, "").unwrap();
        well_formed(&svg);
        let texts = texts(&svg);
        for expected in [
            "20 steps",
            "Loss (mean of the batch, nats)",
            "Held-out loss (nats)",
            "0.175",
        ] {
            assert!(texts.contains(&expected), "{expected:?} not in {texts:?}");
        }
        // Two evaluations, each a dot on a white one, and the end dots of the other two curves.
        assert_eq!(svg.matches("<circle").count(), 2 * 2 + 2);
    }

    #[test]
    fn unusual_runs_can_be_drawn() {
        let empty = draw_chart(&[], "Nothing").unwrap();
        well_formed(&empty);
        assert_eq!(
            texts(&empty)
                .iter()
                .filter(|&&text| text == "no data")
                .count(),
            3
        );
        let odd = [
            vec![StepRecord::new(0)],
            vec![StepRecord::new(7).with("reward", f64::NAN)],
            vec![StepRecord::new(u64::MAX).with("reward", f64::MAX)],
            vec![
                StepRecord::new(1).with("reward", -f64::MAX),
                StepRecord::new(u64::MAX).with("reward", f64::MAX),
            ],
            vec![
                StepRecord::new(3).with("reward", 1.0),
                StepRecord::new(4).with("reward", 1.0 + f64::EPSILON),
            ],
            vec![StepRecord::new(5).with("eval/accuracy", 97.0); 2],
            vec![StepRecord::new(5).with("reward", 0.0); 100],
            (0..50)
                .map(|step| StepRecord::new(step).with("reward", 1e-9 * step as f64))
                .collect(),
            run(1),
        ];
        for records in odd {
            well_formed(&draw_chart(&records, "Odd").unwrap());
        }
        let long = draw_chart(&run(5000), "Long").unwrap();
        well_formed(&long);
        assert!(long.len() < 150_000, "{} bytes", long.len());
    }
}
