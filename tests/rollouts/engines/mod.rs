//! [`RemoteEngines`](rlvr::rollout::remote::RemoteEngines) against a mock server.

mod bench;
mod conformance;
mod faults;
mod lifecycle;
mod mock;
mod probe;
mod real;
mod weights;
