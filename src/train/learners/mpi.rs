//! Learners as processes under MPI. (placeholder module while the rest is compiled)
