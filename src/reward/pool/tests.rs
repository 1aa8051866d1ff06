//! Jobs that return late, fail, or never return.

use std::sync::Condvar;

use super::*;

/// A pool with one lane and one limit for all jobs.
struct One {
    pool: Pool,
    limit: Duration,
    threads: usize,
}

fn pool(limit_ms: u64, threads: usize, most_abandoned: usize) -> One {
    One {
        pool: Pool::new(most_abandoned),
        limit: Duration::from_millis(limit_ms),
        threads,
    }
}

impl One {
    fn plan(&self, jobs: usize) -> Plan {
        let lane = Lane {
            jobs: (0..jobs).collect(),
            threads: self.threads,
        };
        Plan {
            limits: vec![self.limit; jobs],
            lanes: vec![lane],
        }
    }

    fn run(&self, jobs: usize, job: Job) -> Vec<RewardOutcome> {
        outcomes(self.pool.run(self.plan(jobs), job))
    }

    fn abandoned(&self) -> usize {
        self.pool.abandoned()
    }
}

/// Jobs of one completion each.
fn each(outcome: impl Fn(usize) -> RewardOutcome + Send + Sync + 'static) -> Job {
    Arc::new(move |index| vec![outcome(index)])
}

fn outcomes(done: Vec<Done>) -> Vec<RewardOutcome> {
    done.into_iter().flat_map(|done| done.outcomes).collect()
}

/// A latch that jobs wait for until it is opened.
#[derive(Clone, Default)]
struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    fn wait(&self) {
        let (open, changed) = &*self.0;
        let guard = open.lock().unwrap();
        drop(changed.wait_while(guard, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

fn abandoned_becomes(pool: &One, abandoned: usize) -> bool {
    let start = Instant::now();
    while pool.abandoned() != abandoned && start.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(1));
    }
    pool.abandoned() == abandoned
}

fn index(i: usize) -> RewardOutcome {
    RewardOutcome::Score(i as f64)
}

#[test]
fn outcomes_are_in_the_order_of_the_jobs() {
    for (jobs, threads) in [(0, 4), (1, 4), (1000, 1), (1000, 7)] {
        let outcomes = pool(20_000, threads, 64).run(jobs, each(index));
        assert_eq!(outcomes, (0..jobs).map(index).collect::<Vec<_>>());
    }
}

#[test]
fn panics_keep_their_message() {
    let outcomes = pool(20_000, 2, 64).run(
        4,
        each(|i| match i {
            0 => panic!("job {i}"),
            1 => panic!("literal"),
            2 => std::panic::panic_any(7u8),
            _ => index(i),
        }),
    );
    let panicked = |text: &str| RewardOutcome::Panicked(text.into());
    let expected = [
        panicked("job 0"),
        panicked("literal"),
        panicked("a panic without a text message"),
        index(3),
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn a_single_worker_is_replaced_whenever_a_job_hangs() {
    let latch = Latch::default();
    let wait = latch.clone();
    let pool = pool(500, 1, 64);
    let start = Instant::now();
    let job = move |i| {
        if i % 2 == 1 {
            wait.wait();
        }
        index(i)
    };
    let outcomes = pool.run(6, each(job));
    // Three jobs are overdue one after the other.
    assert!(start.elapsed() >= Duration::from_millis(1500));
    let late = RewardOutcome::TimedOut(0.5);
    let expected = [
        index(0),
        late.clone(),
        index(2),
        late.clone(),
        index(4),
        late.clone(),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(pool.abandoned(), 3);
    latch.open();
    assert!(abandoned_becomes(&pool, 0));
}

#[test]
fn late_results_are_dropped() {
    let latch = Latch::default();
    let wait = latch.clone();
    let pool = pool(1000, 2, 64);
    let job: Job = each(move |i| {
        if i == 1 {
            wait.wait();
        }
        RewardOutcome::Score(1.0)
    });
    let first = pool.run(3, Arc::clone(&job));
    let expected = [
        RewardOutcome::Score(1.0),
        RewardOutcome::TimedOut(1.0),
        RewardOutcome::Score(1.0),
    ];
    assert_eq!(first, expected);
    latch.open();
    assert!(abandoned_becomes(&pool, 0));
    // The latch is open now and the same job is quick; the late worker has had no effect.
    assert_eq!(pool.run(3, job), vec![RewardOutcome::Score(1.0); 3]);
    assert_eq!(first, expected);
}

#[test]
fn a_job_past_its_limit_is_overdue_even_if_it_returns() {
    // The job exceeds the limit by so little that supervisor and worker race; the record is the
    // same.
    let pool = pool(20, 2, 64);
    let job = |_| {
        thread::sleep(Duration::from_millis(20));
        RewardOutcome::Score(1.0)
    };
    let outcomes = pool.run(20, each(job));
    assert_eq!(outcomes, vec![RewardOutcome::TimedOut(0.02); 20]);
    assert!(abandoned_becomes(&pool, 0));
}

#[test]
fn abandoned_threads_are_capped_until_they_return() {
    let latch = Latch::default();
    let wait = latch.clone();
    let pool = pool(1000, 2, 3);
    let job: Job = each(move |i| {
        wait.wait();
        index(i)
    });
    let outcomes = pool.run(50, Arc::clone(&job));
    let late = outcomes
        .iter()
        .filter(|o| **o == RewardOutcome::TimedOut(1.0));
    // The cap is checked before a job starts: two jobs that already run may both exceed it.
    assert!((3..=4).contains(&late.count()));
    assert_eq!(outcomes[0], RewardOutcome::TimedOut(1.0));
    let RewardOutcome::Failed(message) = &outcomes[49] else {
        panic!("{:?}", outcomes[49])
    };
    assert!(message.contains("threads still busy"), "{message}");
    // A new batch is not run in the meantime.
    assert!(pool.run(1, each(index))[0].is_failure());
    latch.open();
    assert!(abandoned_becomes(&pool, 0));
    assert_eq!(pool.run(2, job), [index(0), index(1)]);
}

#[test]
fn inputs_are_freed_when_the_call_returns() {
    let held = Arc::new(());
    for _ in 0..50 {
        let copy = Arc::clone(&held);
        let job = move |i| {
            let _ = &copy;
            index(i)
        };
        pool(20_000, 4, 64).run(100, each(job));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn the_longest_limit_does_not_overflow() {
    let pool = One {
        limit: Duration::MAX,
        ..pool(1, 2, 64)
    };
    assert_eq!(pool.run(10, each(index))[9], index(9));
}

#[test]
fn every_job_has_its_own_limit() {
    // Four jobs hang: two for 100 ms one after the other, and two for 400 ms in parallel. Ten are
    // quick.
    let latch = Latch::default();
    let wait = latch.clone();
    let ms = Duration::from_millis;
    let mut limits = vec![ms(20_000); 10];
    limits.extend([ms(100), ms(100), ms(400), ms(400)]);
    let lane = |jobs: std::ops::Range<usize>, threads| Lane {
        jobs: jobs.collect(),
        threads,
    };
    let plan = Plan {
        limits,
        lanes: vec![lane(0..10, 1), lane(10..12, 1), lane(12..14, 2)],
    };
    let job = move |i| {
        if i >= 10 {
            wait.wait();
        }
        index(i)
    };
    let pool = Pool::new(64);
    let done = pool.run(plan, each(job));
    let seconds: Vec<f64> = done.iter().map(|done| done.seconds).collect();
    assert_eq!(seconds[10..], [0.1, 0.1, 0.4, 0.4]);
    let late = |limit| RewardOutcome::TimedOut(limit);
    let mut expected: Vec<RewardOutcome> = (0..10).map(index).collect();
    expected.extend([late(0.1), late(0.1), late(0.4), late(0.4)]);
    assert_eq!(outcomes(done), expected);
    assert_eq!(pool.abandoned(), 4);
    latch.open();
}

#[test]
fn lanes_do_not_wait_for_each_other() {
    // The jobs of the first lane block until all of the second have run.
    let lane = |jobs: std::ops::Range<usize>, threads| Lane {
        jobs: jobs.collect(),
        threads,
    };
    let plan = Plan {
        limits: vec![Duration::from_secs(60); 12],
        lanes: vec![lane(0..2, 2), lane(2..12, 1)],
    };
    let (latch, ran) = (Latch::default(), AtomicUsize::new(0));
    let job = move |i| {
        if i < 2 {
            latch.wait();
        } else if ran.fetch_add(1, Ordering::Relaxed) == 9 {
            latch.open();
        }
        index(i)
    };
    let found = outcomes(Pool::new(64).run(plan, each(job)));
    assert_eq!(found, (0..12).map(index).collect::<Vec<_>>());
}

#[test]
fn a_short_limit_is_enforced_beside_a_long_one() {
    // The job with the short limit starts after the supervisor has begun to wait for the long one.
    let latch = Latch::default();
    let wait = latch.clone();
    let ms = Duration::from_millis;
    let plan = Plan {
        limits: vec![ms(60_000), ms(60_000), ms(100)],
        lanes: vec![
            Lane {
                jobs: vec![0],
                threads: 1,
            },
            Lane {
                jobs: vec![1, 2],
                threads: 1,
            },
        ],
    };
    let done = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&done);
    let job = move |i| {
        match i {
            0 => {
                // Runs past the limit of the short job, without a known end.
                while seen.load(Ordering::Relaxed) == 0 {
                    thread::sleep(ms(1));
                }
            }
            1 => thread::sleep(ms(50)),
            _ => {
                let seen = Arc::clone(&seen);
                thread::spawn(move || {
                    thread::sleep(ms(1000));
                    seen.store(1, Ordering::Relaxed);
                });
                wait.wait();
            }
        }
        index(i)
    };
    let start = Instant::now();
    let found = outcomes(Pool::new(64).run(plan, each(job)));
    assert!(start.elapsed() < ms(40_000));
    assert_eq!(found, [index(0), index(1), RewardOutcome::TimedOut(0.1)]);
    latch.open();
}
