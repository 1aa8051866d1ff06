//! Engines elsewhere: a server that is real but for its size, asked by [`RemoteEngines`](rlvr::rollout::remote::RemoteEngines).

mod bench;
mod conformance;
mod faults;
mod life;
mod mock;
mod probe;
mod real;
mod weights;
