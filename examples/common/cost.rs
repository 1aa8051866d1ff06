//! What devices cost, and the budget of a run.

use clap::Args;
use rlvr::plan::{LedgerConfig, StopAfter};

/// Price, peak and budget. What a run costs is among its metrics, as `cost/..` and `forecast/..`.
#[derive(Args, Debug)]
pub struct CostArgs {
    /// Dollars for a device and hour
    #[arg(long)]
    price: Option<f64>,
    /// Peak of a device in TFLOP/s, for the utilisation among the metrics
    #[arg(long)]
    peak_tflops: Option<f64>,
    /// Stop before the step that would cost more dollars than this in all
    #[arg(long, requires = "price")]
    stop_after_dollars: Option<f64>,
    /// Stop before the step that would take more hours than this in all
    #[arg(long)]
    stop_after_hours: Option<f64>,
}

impl CostArgs {
    /// The ledger that they ask for.
    pub fn ledger(&self) -> LedgerConfig {
        LedgerConfig {
            price: self.price,
            peak_tflops: self.peak_tflops,
            stop_after: StopAfter {
                dollars: self.stop_after_dollars,
                hours: self.stop_after_hours,
                ..StopAfter::default()
            },
            ..LedgerConfig::default()
        }
    }
}
