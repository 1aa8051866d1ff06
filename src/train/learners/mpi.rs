//! Learners as processes under MPI.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence};

use super::{Learners, check_length, slice};
use crate::{Error, Result};

/// Learners as processes under MPI, on one machine or many (feature `mpi`).
///
/// ```no_run
/// use rlvr::train::{Learners, Mpi};
/// use std::time::Duration;
///
/// fn train(learners: Mpi) -> rlvr::Result<()> {
///     if learners.rank() == 0 {
///         println!("{} learners", learners.size());
///     }
///     // Trainer::builder(..).learners(learners).build()?.run(..)
///     Ok(())
/// }
///
/// fn main() -> rlvr::Result<()> {
///     Mpi::run(Duration::from_secs(1800), train, |error| {
///         eprintln!("error: {error}")
///     })
/// }
/// ```
///
/// # Launching
///
/// Building needs an MPI library with `mpicc` on the path, and libclang (Debian:
/// `libopenmpi-dev openmpi-bin libclang-dev`). A program must run with the library it was built
/// with. Without a launcher it is a single learner.
///
/// ```text
/// RAYON_NUM_THREADS=8 mpirun -n 4 --map-by slot:PE=8 \
///     target/release/examples/r1_zero --learners mpi --shards 4
/// RAYON_NUM_THREADS=8 mpirun --hostfile hosts -x RAYON_NUM_THREADS --map-by slot:PE=8 \
///     PROGRAM ...
/// srun --mpi=pmix --ntasks 4 --cpus-per-task 8 PROGRAM ...
/// ```
///
/// - **Binding.** Open MPI binds one or two processes to a single core each, so each process
///   computes with one thread. `--map-by slot:PE=n` gives each process `n` cores, and
///   `--bind-to none` all. `RAYON_NUM_THREADS` is the number of threads of a process: the cores of
///   a machine divided by its number of learners.
/// - **More learners than cores** need `--oversubscribe`. A waiting learner keeps its core busy, so
///   use this for tests only.
/// - **As root**, in containers, Open MPI requires `OMPI_ALLOW_RUN_AS_ROOT=1` and
///   `OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1`.
/// - **Stopping.** Ctrl-C at `mpirun` ends all processes immediately. To stop after a step, set the
///   stop flag of [`Trainer::run`](crate::train::Trainer::run) on one learner: all of them stop.
/// - **GPUs.** [`local_rank`](Self::local_rank) numbers the learners of a machine. Each should
///   select the device with that number before it creates a tensor. Gradients are exchanged in host
///   memory. Runs on several GPUs have not been tested.
/// - **Processors of different kinds** round differently: the learners compare their weights at the
///   start of training and at every checkpoint, and a difference is an error. Different settings
///   are an error too.
///
/// # Failure
///
/// MPI has no time limit, and the other processes wait if one ends without finalizing it.
/// [`run`](Self::run) therefore catches the errors and panics of its learner and aborts the job,
/// with exit code 2 or 101. If a process is killed, `mpirun` ends the others. If a learner hangs,
/// the first learner to wait longer than the limit aborts the job. In each case the last checkpoint
/// is complete, and any number of learners that divides the shards can continue from it.
#[derive(Clone, Debug)]
pub struct Mpi {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    place: Place,
    limit: Duration,
    line: Mutex<Line>,
}

/// The ranks of a process.
#[derive(Clone, Copy, Debug)]
struct Place {
    rank: usize,
    size: usize,
    local_rank: usize,
}

/// The channels to the only thread that calls MPI.
#[derive(Debug)]
struct Line {
    calls: Sender<Call>,
    replies: Receiver<Result<Reply>>,
    /// Set when a call did not return in time: the thread hangs.
    lost: bool,
}

#[derive(Debug)]
enum Call {
    Gather(Vec<u8>),
    Exchange(Vec<f32>),
    Concat(Vec<f32>),
    Sum(Vec<f32>),
    Finish,
    Abort(i32),
}

/// The names of the collective calls in errors.
const NAMES: [&str; 5] = ["gather", "exchange", "concat", "sum", "the end of its work"];

#[derive(Debug)]
enum Reply {
    Bytes(Vec<Vec<u8>>),
    Parts(Vec<Vec<f32>>),
    Numbers(Vec<f32>),
    Finished,
}

/// The exit codes of a job when a learner returns an error, or panics.
const FAILED: i32 = 2;
const PANICKED: i32 = 101;

impl Mpi {
    /// Initializes MPI, runs `work` as one learner, and finalizes MPI. A collective call that a
    /// learner does not join within `limit` is an error, so `limit` must be longer than the longest
    /// phase of a step.
    ///
    /// If `work` fails, `report` is called with the error and the job is aborted: this function
    /// then does not return. Code that may exit the process, such as an argument parser, must run
    /// before this function.
    ///
    /// # Errors
    /// Returns an error if MPI cannot be initialized.
    pub fn run<T>(
        limit: Duration,
        work: impl FnOnce(Self) -> Result<T>,
        report: impl FnOnce(&Error),
    ) -> Result<T> {
        let (calls, to_thread) = channel();
        let (from_thread, replies) = channel();
        let (started, start) = channel();
        let (ended, end) = channel();
        thread::spawn(move || {
            serve(&started, &to_thread, &from_thread);
            // The receiver is gone if it waited too long.
            let _ = ended.send(());
        });
        let gone = |_| {
            Error::config(
                "MPI",
                "its thread ended",
                "a library that can be initialized",
            )
        };
        let place = start.recv().map_err(gone)??;
        let learner = Self {
            handle: Arc::new(Handle {
                place,
                limit,
                line: Mutex::new(Line {
                    calls,
                    replies,
                    lost: false,
                }),
            }),
        };
        let own = learner.clone();
        let outcome = catch_unwind(AssertUnwindSafe(move || work(own)));
        let code = match outcome {
            Ok(Ok(value)) => match learner.call(Call::Finish) {
                // A process that does not finalize MPI would block the others.
                Ok(_) if end.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) => {
                    return Ok(value);
                }
                Ok(_) => FAILED,
                Err(error) => {
                    report(&error);
                    FAILED
                }
            },
            Ok(Err(error)) => {
                report(&error);
                FAILED
            }
            Err(_) => PANICKED,
        };
        learner.abort(code)
    }

    /// Returns the index of this learner among those of its machine, which can serve as the index
    /// of its GPU.
    pub fn local_rank(&self) -> usize {
        self.handle.place.local_rank
    }

    fn call(&self, call: Call) -> Result<Reply> {
        let Handle { place, limit, line } = &*self.handle;
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        let name = NAMES[call.number()];
        let lost = |reason: String| Err(Error::learner(place.rank, reason));
        if line.lost {
            return lost(format!("`{name}` was called after a call that timed out"));
        }
        if line.calls.send(call).is_err() {
            return lost(format!("MPI has ended before `{name}`"));
        }
        match line.replies.recv_timeout(*limit) {
            Ok(reply) => reply,
            Err(RecvTimeoutError::Timeout) => {
                line.lost = true;
                lost(format!(
                    "it waited {limit:?} for the others in `{name}`: one of them hangs, or needs more time than this limit"
                ))
            }
            Err(RecvTimeoutError::Disconnected) => lost(format!("MPI has ended in `{name}`")),
        }
    }

    /// Aborts all processes of the job.
    fn abort(&self, code: i32) -> ! {
        let patience = Duration::from_secs(5);
        let line = &self.handle.line;
        let line = line.lock().unwrap_or_else(PoisonError::into_inner);
        if !line.lost && line.calls.send(Call::Abort(code)).is_ok() {
            // MPI ends this process while it waits.
            let _ = line.replies.recv_timeout(patience);
        }
        // The launcher ends the others when a process ends without finalizing. Exit handlers may
        // hang too.
        thread::spawn(move || {
            thread::sleep(patience);
            process::abort();
        });
        process::exit(code)
    }
}

impl Learners for Mpi {
    fn rank(&self) -> usize {
        self.handle.place.rank
    }

    fn size(&self) -> usize {
        self.handle.place.size
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        match self.call(Call::Gather(bytes))? {
            Reply::Bytes(all) => Ok(all),
            other => Err(self.confused(&other)),
        }
    }

    fn exchange(&self, numbers: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        match self.call(Call::Exchange(numbers))? {
            Reply::Parts(parts) => Ok(parts),
            other => Err(self.confused(&other)),
        }
    }

    fn concat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        match self.call(Call::Concat(numbers))? {
            Reply::Numbers(all) => Ok(all),
            other => Err(self.confused(&other)),
        }
    }

    fn sum(&self, numbers: &mut Vec<f32>) -> Result<()> {
        match self.call(Call::Sum(std::mem::take(numbers)))? {
            Reply::Numbers(sums) => {
                *numbers = sums;
                Ok(())
            }
            other => Err(self.confused(&other)),
        }
    }
}

impl Mpi {
    fn confused(&self, reply: &Reply) -> Error {
        let kind = match reply {
            Reply::Bytes(_) => "bytes",
            Reply::Parts(_) => "parts",
            Reply::Numbers(_) => "numbers",
            Reply::Finished => "the end",
        };
        Error::learner(self.rank(), format!("MPI returned {kind} for another call"))
    }
}

impl Call {
    /// Its place in [`NAMES`].
    fn number(&self) -> usize {
        match self {
            Self::Gather(_) => 0,
            Self::Exchange(_) => 1,
            Self::Concat(_) => 2,
            Self::Sum(_) => 3,
            Self::Finish | Self::Abort(_) => 4,
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Gather(bytes) => bytes.len(),
            Self::Exchange(numbers) | Self::Concat(numbers) | Self::Sum(numbers) => numbers.len(),
            Self::Finish | Self::Abort(_) => 0,
        }
    }
}

/// Makes all calls to MPI on this thread, until the end.
fn serve(started: &Sender<Result<Place>>, calls: &Receiver<Call>, replies: &Sender<Result<Reply>>) {
    let refuse = |value: &str, expected: &str| {
        let _ = started.send(Err(Error::config("MPI", value, expected)));
    };
    let Some((universe, granted)) = mpi::initialize_with_threading(Threading::Serialized) else {
        return refuse(
            "already initialized",
            "a program that initializes it only in Mpi::run",
        );
    };
    if granted < Threading::Serialized {
        return refuse(
            "without threads",
            "a library that grants MPI_THREAD_SERIALIZED",
        );
    }
    let world = universe.world();
    let number = |rank: i32| usize::try_from(rank).unwrap_or_default();
    let place = Place {
        rank: number(world.rank()),
        size: number(world.size()),
        local_rank: number(world.split_shared(world.rank()).rank()),
    };
    let mut open = started.send(Ok(place)).is_ok();
    while open {
        let Ok(call) = calls.recv() else {
            world.abort(FAILED);
        };
        if let Call::Abort(code) = call {
            world.abort(code);
        }
        let reply = answer(&world, place, call);
        open = !matches!(reply, Ok(Reply::Finished)) && replies.send(reply).is_ok();
    }
    // Unblock a receiver that waits for the end; dropping `universe` finalizes MPI.
    let _ = replies.send(Ok(Reply::Finished));
}

fn answer(world: &SimpleCommunicator, place: Place, call: Call) -> Result<Reply> {
    let lengths = check_call(world, place, &call)?;
    Ok(match call {
        Call::Gather(bytes) => Reply::Bytes(all_gather(world, &bytes, &lengths)),
        Call::Concat(numbers) => Reply::Numbers(all_gather(world, &numbers, &lengths).concat()),
        Call::Exchange(numbers) => {
            check_lengths(place, &lengths)?;
            Reply::Parts(all_to_all(world, place, &numbers))
        }
        Call::Sum(numbers) => {
            check_lengths(place, &lengths)?;
            let mut sums = vec![0.0; numbers.len()];
            let windows = numbers.chunks(WINDOW).zip(sums.chunks_mut(WINDOW));
            for (numbers, sums) in windows {
                world.all_reduce_into(numbers, sums, SystemOperation::sum());
            }
            Reply::Numbers(sums)
        }
        Call::Finish | Call::Abort(_) => Reply::Finished,
    })
}

/// The largest number of elements in one MPI call, whose counts have 32 bits.
const WINDOW: usize = 1 << 28;

/// Checks that all learners make the same call, which MPI does not do, and returns the lengths of
/// their data.
fn check_call(world: &SimpleCommunicator, place: Place, call: &Call) -> Result<Vec<usize>> {
    let mine = [call.number() as u64, call.length() as u64];
    let mut all = vec![0u64; 2 * place.size];
    world.all_gather_into(&mine[..], &mut all[..]);
    let all = all.chunks_exact(2);
    if let Some((rank, other)) = all
        .clone()
        .enumerate()
        .find(|(_, other)| other[0] != mine[0])
    {
        let name = |number: u64| NAMES.get(number as usize).unwrap_or(&"an unknown call");
        let reason = format!(
            "it is at `{}` while learner {} is at `{}`",
            name(other[0]),
            place.rank,
            name(mine[0])
        );
        return Err(Error::learner(rank, reason));
    }
    Ok(all.map(|other| other[1] as usize).collect())
}

fn check_lengths(place: Place, lengths: &[usize]) -> Result<()> {
    let own = lengths[place.rank];
    let mut all = lengths.iter().enumerate();
    all.try_for_each(|(rank, &length)| check_length(rank, length, place.rank, own))
}

/// Gathers the data of all learners, by rank.
fn all_gather<T: Equivalence + Clone + Default>(
    world: &SimpleCommunicator,
    mine: &[T],
    lengths: &[usize],
) -> Vec<Vec<T>> {
    let window = WINDOW / lengths.len();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut all: Vec<Vec<T>> = lengths
        .iter()
        .map(|&length| Vec::with_capacity(length))
        .collect();
    for start in (0..longest).step_by(window) {
        let part = |length: usize| start.min(length)..(start + window).min(length);
        let counts: Vec<i32> = lengths
            .iter()
            .map(|&length| part(length).len() as i32)
            .collect();
        let starts = counts.iter().scan(0, |next, count| {
            let start = *next;
            *next += count;
            Some(start)
        });
        let starts: Vec<i32> = starts.collect();
        let total: usize = counts.iter().map(|&count| count as usize).sum();
        let mut received = vec![T::default(); total];
        let mut partition = PartitionMut::new(&mut received[..], &counts[..], &starts[..]);
        world.all_gather_varcount_into(&mine[part(mine.len())], &mut partition);
        let mut rest = &received[..];
        for (all, &count) in all.iter_mut().zip(&counts) {
            let (part, later) = rest.split_at(count as usize);
            all.extend_from_slice(part);
            rest = later;
        }
    }
    all
}

/// Exchanges data so that this learner gets its slice of every learner's data, by rank.
fn all_to_all(world: &SimpleCommunicator, place: Place, mine: &[f32]) -> Vec<Vec<f32>> {
    let Place { rank, size, .. } = place;
    let slices: Vec<&[f32]> = (0..size)
        .map(|to| &mine[slice(mine.len(), to, size)])
        .collect();
    let own = slices[rank].len();
    let longest = slices.iter().map(|slice| slice.len()).max().unwrap_or(0);
    let mut parts: Vec<Vec<f32>> = (0..size).map(|_| Vec::with_capacity(own)).collect();
    let window = WINDOW / size;
    for start in (0..longest).step_by(window) {
        // Slices differ by at most one number, so all are padded to the longest.
        let width = window.min(longest - start);
        let part = |length: usize| start.min(length)..(start + width).min(length);
        let mut send = Vec::with_capacity(width * size);
        for (to, slice) in slices.iter().enumerate() {
            send.extend_from_slice(&slice[part(slice.len())]);
            send.resize((to + 1) * width, 0.0);
        }
        let mut received = vec![0.0f32; width * size];
        world.all_to_all_into(&send[..], &mut received[..]);
        for (part_of, received) in parts.iter_mut().zip(received.chunks_exact(width)) {
            part_of.extend_from_slice(&received[..part(own).len()]);
        }
    }
    parts
}
