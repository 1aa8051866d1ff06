//! The progress bar.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{
    ProgressBar as Bar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle,
};

use super::{Observer, RunInfo, StepRecord};
use crate::Result;
use crate::train::diagnosis::Finding;

/// The default interval of plain lines, in steps.
const PLAIN_EVERY: u64 = 10;

/// Shows the progress of a run on stderr.
///
/// It is the only part of this crate that prints. On a terminal it is one line that is redrawn:
///
/// ```text
/// [##------] 34/150 | reward 1.43 | held-out 71.5% | length 21.3 | kl 0.012 | 8.1k tok/s | 00:35 < 01:59
/// ```
///
/// Otherwise (a pipe, a CI log) it prints the same text without the bar, every few steps and at the
/// last.
///
/// `reward` is the mean reward of the step, `held-out` the latest `eval/accuracy`, `length` the
/// mean completion length in tokens, `kl` the KL divergence from the reference policy, `tok/s`
/// generated tokens per second (`tokens_per_second`), and the times are elapsed `<` remaining. With
/// a [price](crate::plan::LedgerConfig::price), the cost so far and the expected total follow as
/// `$0.12 of $0.40`. A number that was not measured or is not finite is shown as `-`. The remaining
/// time is an estimate from the average time of the steps of this run, without those before a
/// resume.
///
/// In a [`Watchdog`](crate::train::diagnosis::Watchdog) it also prints each new finding on a
/// separate line. It prints the predicted memory of an update at the start, and again at the end
/// with the peak memory of the process.
///
/// Write errors are ignored, so they do not end the run.
///
/// ```
/// use rlvr::train::observer::{Observer, ProgressBar, RunInfo, StepRecord};
///
/// let mut progress = ProgressBar::plain_to(1, Box::new(std::io::sink()));
/// progress.on_start(&RunInfo {
///     last_step: 150,
///     ..RunInfo::default()
/// })?;
/// progress.on_step(&StepRecord::new(1).with("reward", 0.9))?;
/// progress.on_end()?;
/// # Ok::<(), rlvr::Error>(())
/// ```
pub struct ProgressBar {
    sink: Sink,
    accuracy: Option<f64>,
    clock: Clock,
    memory: Memory,
}

/// The predicted memory of an update, and the peak memory of the process, in bytes.
#[derive(Default)]
struct Memory {
    predicted: Option<f64>,
    peak: Option<f64>,
}

enum Sink {
    /// A line that is redrawn; hidden until the run starts.
    Drawn(Bar),
    /// A separate line every n-th step.
    Plain {
        every: u64,
        out: Box<dyn Write + Send>,
    },
}

impl ProgressBar {
    /// Creates a bar if stderr is a terminal, and otherwise prints a plain line every 10 steps.
    pub fn new() -> Self {
        if std::io::stderr().is_terminal() {
            Self::with(Sink::Drawn(Bar::hidden()))
        } else {
            Self::plain(PLAIN_EVERY)
        }
    }

    /// Prints a plain line to stderr at every step that is a multiple of `every`, and at the last;
    /// with 0 only at the last.
    pub fn plain(every: u64) -> Self {
        Self::plain_to(every, Box::new(std::io::stderr()))
    }

    /// Like [`ProgressBar::plain`], but writes to `out`.
    pub fn plain_to(every: u64, out: Box<dyn Write + Send>) -> Self {
        Self::with(Sink::Plain { every, out })
    }

    fn with(sink: Sink) -> Self {
        Self {
            sink,
            accuracy: None,
            clock: Clock::new(&RunInfo::default()),
            memory: Memory::default(),
        }
    }

    /// Writes a separate line.
    fn line(&mut self, text: &str) {
        match &mut self.sink {
            Sink::Drawn(bar) => bar.println(text),
            Sink::Plain { out, .. } => {
                let line = format!("{text}\n");
                // Write errors are ignored, see the type.
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            }
        }
    }
}

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for ProgressBar {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.accuracy = None;
        self.clock = Clock::new(run);
        if let Sink::Drawn(bar) = &mut self.sink {
            *bar = drawn(run, &self.clock, ProgressDrawTarget::stderr());
        }
        self.memory = Memory {
            predicted: run.predicted_memory.map(|bytes| bytes as f64),
            peak: None,
        };
        if let Some(bytes) = self.memory.predicted {
            let bytes = gigabytes(bytes);
            self.line(&format!(
                "memory: {bytes} predicted for an update with completions of maximum length"
            ));
        }
        Ok(())
    }

    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        self.accuracy = record.finite("eval/accuracy").or(self.accuracy);
        self.memory.peak = record.finite("memory/peak").or(self.memory.peak);
        let elapsed = self.clock.step_done(record.step);
        let last = self.clock.last_step;
        let message = message(record, last, self.accuracy);
        match &mut self.sink {
            Sink::Drawn(bar) => {
                bar.set_position(record.step);
                bar.set_message(message);
            }
            Sink::Plain { every, out } => {
                // Only step 0 is a multiple of 0, so with 0 only the last step is printed.
                if record.step == last || (record.step > 0 && record.step.is_multiple_of(*every)) {
                    let line = format!("{message} | {}\n", self.clock.text(elapsed));
                    // Write errors are ignored, see the type.
                    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                }
            }
        }
        Ok(())
    }

    fn on_finding(&mut self, finding: &Finding) -> Result<()> {
        self.line(&finding.to_string());
        Ok(())
    }

    fn on_end(&mut self) -> Result<()> {
        if let Sink::Drawn(bar) = &self.sink {
            // Not `finish`, which would fill the bar even if the run was stopped early.
            bar.abandon();
        }
        if let Memory {
            predicted: Some(predicted),
            peak: Some(peak),
        } = self.memory
        {
            let [predicted, peak] = [predicted, peak].map(gigabytes);
            self.line(&format!(
                "memory: {peak} peak of this process, {predicted} predicted for an update"
            ));
        }
        Ok(())
    }
}

/// Creates a bar for `run`, whose clock also runs between steps.
fn drawn(run: &RunInfo, clock: &Clock, target: ProgressDrawTarget) -> Bar {
    let clock = clock.clone();
    let show_clock = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&clock.text(clock.started.elapsed()));
    };
    // The step is part of the message, so that it is always shown with its own metrics.
    let template = "[{bar:8}] {msg} | {clock}";
    // The template is a constant that a test checks, so the fallback is not used.
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("##-")
        .with_key("clock", show_clock);
    let bar = Bar::with_draw_target(Some(run.last_step), ProgressDrawTarget::hidden())
        .with_style(style)
        .with_position(run.first_step)
        .with_message(message(
            &StepRecord::new(run.first_step),
            run.last_step,
            None,
        ))
        // If a run fails and drops its observers, the line should stay visible.
        .with_finish(ProgressFinish::Abandon);
    // Set last, because drawing starts with the default style otherwise.
    bar.set_draw_target(target);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// The elapsed and remaining time of a run. Clones share the state: the bar reads it between steps.
#[derive(Clone)]
struct Clock {
    first_step: u64,
    last_step: u64,
    started: Instant,
    /// The last completed step, and its time since the start.
    latest: Arc<Mutex<(u64, Duration)>>,
}

impl Clock {
    fn new(run: &RunInfo) -> Self {
        Self {
            first_step: run.first_step,
            last_step: run.last_step,
            started: Instant::now(),
            latest: Arc::new(Mutex::new((run.first_step, Duration::ZERO))),
        }
    }

    /// Records that `step` is done and returns the time since the start.
    fn step_done(&self, step: u64) -> Duration {
        let elapsed = self.started.elapsed();
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = (step, elapsed);
        elapsed
    }

    /// Formats `elapsed < left`.
    fn text(&self, elapsed: Duration) -> String {
        let (step, latest) = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let left = time_left(self.first_step, step, self.last_step, latest);
        // Between two steps the remaining time counts down; a new estimate at every tick would
        // increase it.
        let left = left.map(|left| left.saturating_sub(elapsed.saturating_sub(latest)));
        let left = left.map_or_else(|| "-".to_owned(), time);
        format!("{} < {left}", time(elapsed))
    }
}

/// Estimates the time of the steps up to `last` from the average time of the steps after `first`;
/// `None` before the first of them.
fn time_left(first: u64, step: u64, last: u64, elapsed: Duration) -> Option<Duration> {
    let done = step.checked_sub(first).filter(|&done| done > 0)?;
    let left = last.saturating_sub(step) as f64;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() / done as f64 * left).ok()
}

/// `34/150 | reward 1.43 | held-out 71.5% | length 21.3 | kl 0.012 | 8.1k tok/s`
fn message(record: &StepRecord, last: u64, accuracy: Option<f64>) -> String {
    let mut text = format!("{}/{last} | ", record.step);
    let mut put = |before: &str, value: Option<String>, after: &str| {
        let value = value.as_deref().unwrap_or("-");
        // Writing to a `String` does not fail.
        let _ = write!(text, "{before}{value}{after}");
    };
    let fixed = |name: &str, digits: usize| {
        let value = record.finite(name);
        value.map(|value| format!("{value:.digits$}"))
    };
    put("reward ", fixed("reward", 2), " | ");
    let percent = accuracy.map(|accuracy| format!("{:.1}%", 100.0 * accuracy));
    put("held-out ", percent, " | ");
    let length = record.finite("completions/mean_length");
    let digits = usize::from(length.is_some_and(|length| length < 100.0));
    put("length ", fixed("completions/mean_length", digits), " | ");
    put("kl ", fixed("kl", 3), " | ");
    put("", record.finite("tokens_per_second").map(short), " tok/s");
    if let Some(spent) = record.finite("cost/dollars") {
        let rest = record.finite("forecast/dollars");
        let whole = rest.map_or_else(String::new, |rest| format!(" of ${:.2}", spent + rest));
        put(" | $", Some(format!("{spent:.2}")), &whole);
    }
    text
}

fn gigabytes(bytes: f64) -> String {
    format!("{:.2} GB", bytes / 1e9)
}

/// Formats a rate in at most five characters: `812`, `8.1k`, `123k`, `1.2M`.
fn short(value: f64) -> String {
    match value {
        v if v < 999.5 => format!("{v:.0}"),
        v if v < 99_950.0 => format!("{:.1}k", v / 1e3),
        v if v < 999_500.0 => format!("{:.0}k", v / 1e3),
        v => format!("{:.1}M", v / 1e6),
    }
}

/// Formats a duration as `35:07`, and from an hour on as `1h35m`.
fn time(duration: Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    if minutes < 60 {
        format!("{minutes:02}:{seconds:02}")
    } else {
        format!("{}h{:02}m", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::diagnosis::Diagnosis;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn run(first_step: u64, last_step: u64) -> RunInfo {
        let title = "test".into();
        RunInfo {
            first_step,
            last_step,
            title,
            predicted_memory: None,
        }
    }

    fn full(step: u64) -> StepRecord {
        StepRecord::new(step)
            .with("reward", 1.4251)
            .with("completions/mean_length", 21.26)
            .with("kl", 0.0123)
            .with("tokens_per_second", 8123.0)
    }

    #[test]
    fn the_cost_is_shown_with_a_price() {
        let record = full(3).with("cost/dollars", 0.125);
        assert!(message(&record, 9, None).ends_with("8.1k tok/s | $0.12"));
        let record = record.with("forecast/dollars", 1.0);
        assert!(message(&record, 9, None).ends_with("tok/s | $0.12 of $1.12"));
    }

    #[test]
    fn plain_lines_have_the_documented_format() {
        let shared = Shared::default();
        let mut progress = ProgressBar::plain_to(10, Box::new(shared.clone()));
        progress.on_start(&run(5, 25)).unwrap();
        for step in 6..=25 {
            let record = match step {
                7 => full(step).with("eval/accuracy", 0.715),
                20 => StepRecord::new(step)
                    .with("reward", f64::NAN)
                    .with("eval/accuracy", f64::NAN),
                _ => full(step),
            };
            progress.on_step(&record).unwrap();
        }
        progress.on_end().unwrap();
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "10/25 | reward 1.43 | held-out 71.5% | length 21.3 | kl 0.012 | 8.1k tok/s | 00:00 < 00:00\n\
             20/25 | reward - | held-out 71.5% | length - | kl - | - tok/s | 00:00 < 00:00\n\
             25/25 | reward 1.43 | held-out 71.5% | length 21.3 | kl 0.012 | 8.1k tok/s | 00:00 < 00:00\n"
        );
    }

    #[test]
    fn a_finding_is_printed_on_a_separate_line() {
        let shared = Shared::default();
        let mut progress = ProgressBar::plain_to(0, Box::new(shared.clone()));
        progress.on_start(&run(0, 9)).unwrap();
        let cut_off = |step| StepRecord::new(step).with("completions/clipped_ratio", 0.5);
        let records: Vec<StepRecord> = (1..=5).map(cut_off).collect();
        let diagnosis = Diagnosis::of(&records);
        progress.on_finding(&diagnosis.findings()[0]).unwrap();
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert!(
            text.starts_with("warning: truncation (steps 1-5): 50% of"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);

        let terminal = Terminal::default();
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let run = run(0, 9);
        progress.sink = Sink::Drawn(drawn(&run, &Clock::new(&run), target));
        progress.on_finding(&diagnosis.findings()[0]).unwrap();
        let drawn = terminal.0.lock().unwrap().clone();
        assert!(drawn.contains("truncation (steps 1-5)"), "{drawn}");
    }

    #[test]
    fn memory_is_printed_at_the_start_and_at_the_end() {
        let shared = Shared::default();
        let mut progress = ProgressBar::plain_to(0, Box::new(shared.clone()));
        let known = RunInfo {
            predicted_memory: Some(1_340_000_000),
            ..run(0, 9)
        };
        progress.on_start(&known).unwrap();
        let before = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert!(before.starts_with("memory: 1.34 GB predicted"), "{before}");
        progress
            .on_step(&full(1).with("memory/peak", 1.5e9))
            .unwrap();
        progress.on_end().unwrap();
        let after = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert!(
            after.ends_with(
                "memory: 1.50 GB peak of this process, 1.34 GB predicted for an update\n"
            ),
            "{after}"
        );
    }

    #[test]
    fn with_interval_zero_only_the_last_step_is_printed() {
        let shared = Shared::default();
        let mut progress = ProgressBar::plain_to(0, Box::new(shared.clone()));
        progress.on_start(&run(0, 3)).unwrap();
        (0..=3).for_each(|step| progress.on_step(&full(step)).unwrap());
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.starts_with("3/3 | reward 1.43 | held-out - | "),
            "{text}"
        );
    }

    #[test]
    fn the_remaining_time_counts_only_steps_of_this_run() {
        let minute = Duration::from_secs(60);
        assert_eq!(time_left(100, 110, 150, minute), Some(4 * minute));
        assert_eq!(time_left(0, 150, 150, minute), Some(Duration::ZERO));
        assert_eq!(time_left(100, 100, 150, minute), None);
        let clock = Clock::new(&run(100, 150));
        assert_eq!(clock.text(minute), "01:00 < -");
        *clock.latest.lock().unwrap() = (110, minute);
        assert_eq!(clock.text(minute), "01:00 < 04:00");
        // Half a minute into step 111, half a minute of the estimate is over.
        assert_eq!(clock.text(minute * 3 / 2), "01:30 < 03:30");
        assert_eq!(clock.text(minute * 61), "1h01m < 00:00");
    }

    #[test]
    fn rates_and_lines_are_short() {
        let values = [
            812.4,
            999.6,
            8123.0,
            99_949.0,
            99_960.0,
            999_600.0,
            1_234_567.0,
        ];
        let texts = ["812", "1.0k", "8.1k", "99.9k", "100k", "1.0M", "1.2M"];
        assert_eq!(values.map(short), texts);
        let record = full(9999)
            .with("reward", -10.0)
            .with("completions/mean_length", 1021.3);
        let text = message(&record, 9999, Some(1.0));
        let line = format!("[########] {text} | 1h00m < 12h01m");
        assert_eq!(line.len(), 109, "{line}");
    }

    #[test]
    fn write_errors_are_ignored() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut progress = ProgressBar::plain_to(1, Box::new(Gone));
        progress.on_start(&run(0, 2)).unwrap();
        progress.on_step(&full(1)).unwrap();
    }

    /// A terminal that records its output.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl indicatif::TermLike for Terminal {
        fn width(&self) -> u16 {
            110
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            self.0.lock().unwrap().push('\n');
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_is_drawn_as_documented() {
        let (run, terminal) = (run(30, 150), Terminal::default());
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let clock = Clock::new(&run);
        let bar = drawn(&run, &clock, target);
        clock.step_done(34);
        bar.set_message(message(&full(34), 150, Some(0.715)));
        bar.set_position(34);
        bar.abandon();
        let written = terminal.0.lock().unwrap().clone();
        let last = written.lines().rfind(|line| !line.trim().is_empty());
        assert_eq!(
            last.map(str::trim_end),
            Some(
                "[##------] 34/150 | reward 1.43 | held-out 71.5% | length 21.3 | kl 0.012 | 8.1k tok/s | 00:00 < 00:00"
            ),
            "{written}"
        );
    }
}
