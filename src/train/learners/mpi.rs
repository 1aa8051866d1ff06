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
/// use std::time::Duration;
/// use rlvr::train::{Learners, Mpi};
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
///     Mpi::run(Duration::from_secs(1800), train, |error| eprintln!("error: {error}"))
/// }
/// ```
///
/// # Launching
///
/// Building needs an MPI library with `mpicc` on the path, and libclang (Debian: `libopenmpi-dev openmpi-bin libclang-dev`). A program
/// belongs to the library that it was built with. Without a launcher it is one learner.
///
/// ```text
/// RAYON_NUM_THREADS=8 mpirun -n 4 --map-by slot:PE=8 target/release/examples/r1_zero --learners mpi --shards 4
/// RAYON_NUM_THREADS=8 mpirun --hostfile hosts -x RAYON_NUM_THREADS --map-by slot:PE=8 PROGRAM ...
/// srun --mpi=pmix --ntasks 4 --cpus-per-task 8 PROGRAM ...
/// ```
///
/// - **Binding.** Open MPI binds each of one or two processes to a single core, so that a process computes with one thread.
///   `--map-by slot:PE=n` gives each process `n` cores, and `--bind-to none` all. `RAYON_NUM_THREADS` is the number of threads of a
///   process: the cores of a machine divided by its learners.
/// - **More learners than cores** need `--oversubscribe`. A learner that waits keeps its core busy, so that this is for tests.
/// - **As root**, in containers, Open MPI wants `OMPI_ALLOW_RUN_AS_ROOT=1` and `OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1`.
/// - **Stopping.** Ctrl-C at `mpirun` ends all processes at once. To stop after a step, raise the stop flag of
///   [`Trainer::run`](crate::train::Trainer::run) on one learner: all of them stop.
/// - **GPUs.** [`local_rank`](Self::local_rank) numbers the learners of a machine: each takes the device of that number, before it makes a
///   tensor. Gradients are exchanged in host memory. Runs on several GPUs have not been tested.
/// - **Processors of different kinds** round differently: the learners compare their weights when training begins and at every
///   checkpoint, and a difference is an error. So is a program that was started with different settings.
///
/// # Failure
///
/// MPI itself has no time limit, and a program that ends without telling it makes the others wait. [`run`](Self::run) therefore
/// catches the errors and panics of its learner and aborts the job, with exit code 2 or 101. A killed process is noticed by `mpirun`,
/// which ends the others. A learner that hangs is noticed by the first that has waited for it longer than the limit. In each
/// case the last checkpoint is whole, and any number of learners that divides the shards can continue from it.
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

/// Where a process stands among the others.
#[derive(Clone, Copy, Debug)]
struct Place {
    rank: usize,
    size: usize,
    local_rank: usize,
}

/// To the thread that alone calls MPI.
#[derive(Debug)]
struct Line {
    calls: Sender<Call>,
    replies: Receiver<Result<Reply>>,
    /// A call has not come back: the thread hangs in it.
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

/// The calls that all learners make together, as they tell each other.
const NAMES: [&str; 5] = ["gather", "exchange", "concat", "sum", "the end of its work"];

#[derive(Debug)]
enum Reply {
    Bytes(Vec<Vec<u8>>),
    Parts(Vec<Vec<f32>>),
    Numbers(Vec<f32>),
    Finished,
}

/// The exit codes of a job whose learner returned an error, or panicked.
const FAILED: i32 = 2;
const PANICKED: i32 = 101;

impl Mpi {
    /// Starts MPI, runs `work` as one learner, and ends MPI. A call that some learner does not join within `limit` is an error: it must be
    /// longer than the longest phase of a step.
    ///
    /// If `work` fails, `report` is given the error and the job is aborted: this function does not return then. Exits before or
    /// within `work`, such as those of a parser of arguments, belong before `run`.
    ///
    /// # Errors
    /// If MPI cannot be started.
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
                // Who does not come to the end of MPI would be waited for.
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

    /// The number of this learner among those of its machine; on a machine with several GPUs, the number of its device.
    pub fn local_rank(&self) -> usize {
        self.handle.place.local_rank
    }

    fn call(&self, call: Call) -> Result<Reply> {
        let Handle { place, limit, line } = &*self.handle;
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        let name = NAMES[call.number()];
        let lost = |reason: String| Err(Error::learner(place.rank, reason));
        if line.lost {
            return lost(format!("no `{name}` after one that was given up"));
        }
        if line.calls.send(call).is_err() {
            return lost(format!("MPI has ended before `{name}`"));
        }
        match line.replies.recv_timeout(*limit) {
            Ok(reply) => reply,
            Err(RecvTimeoutError::Timeout) => {
                line.lost = true;
                lost(format!(
                    "it waited {limit:?} for the others in `{name}`: one of them hangs, or its work takes longer than this limit"
                ))
            }
            Err(RecvTimeoutError::Disconnected) => lost(format!("MPI has ended in `{name}`")),
        }
    }

    /// Ends all processes of the job.
    fn abort(&self, code: i32) -> ! {
        let patience = Duration::from_secs(5);
        let line = &self.handle.line;
        let line = line.lock().unwrap_or_else(PoisonError::into_inner);
        if !line.lost && line.calls.send(Call::Abort(code)).is_ok() {
            // MPI ends this process while it waits.
            let _ = line.replies.recv_timeout(patience);
        }
        // The launcher ends the others when one of them ends without its consent. What is called on exit may hang as well.
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
        Error::learner(
            self.rank(),
            format!("MPI answered another call, with {kind}"),
        )
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

/// Makes the calls to MPI, all of them on this thread, until the end.
fn serve(started: &Sender<Result<Place>>, calls: &Receiver<Call>, replies: &Sender<Result<Reply>>) {
    let refuse = |value: &str, expected: &str| {
        let _ = started.send(Err(Error::config("MPI", value, expected)));
    };
    let Some((universe, granted)) = mpi::initialize_with_threading(Threading::Serialized) else {
        return refuse("initialized before", "a program that leaves it to Mpi::run");
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
    // A receiver that waits for the end is told; MPI ends with `universe`.
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

/// Numbers that travel in one call of MPI, which counts in 32 bits.
const WINDOW: usize = 1 << 28;

/// The lengths of what all learners bring, once it is known that they make the same call: MPI cannot tell, and would mix the data up.
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

/// What all learners bring, by rank.
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

/// This learner's slice of what each learner brings, by rank.
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
        // Slices differ by at most one number: they are sent as if all were as long as the longest.
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
