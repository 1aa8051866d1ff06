//! Engines elsewhere: a server that is real but for its size, asked by [`RemoteEngines`](rlvr::rollout::remote::RemoteEngines).

mod bench;
mod conformance;
mod faults;
mod life;
#[path = "../common/metric_table.rs"]
#[allow(dead_code)]
mod metric_table;
mod mock;
mod probe;
mod real;
mod weights;
