//! Jobs that come back late, broken, or not at all.

use std::sync::Condvar;

use super::*;

fn pool(limit_ms: u64, threads: usize, most_abandoned: usize) -> Pool {
    Pool::new(Duration::from_millis(limit_ms), threads, most_abandoned)
}

/// A door that jobs wait at until it is opened.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
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

fn settles_at(pool: &Pool, abandoned: usize) -> bool {
    let start = Instant::now();
    while pool.abandoned() != abandoned && start.elapsed() < Duration::from_secs(20) {
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
        let outcomes = pool(20_000, threads, 64).run(jobs, Arc::new(index));
        assert_eq!(outcomes, (0..jobs).map(index).collect::<Vec<_>>());
    }
}

#[test]
fn panics_keep_their_message() {
    let outcomes = pool(20_000, 2, 64).run(
        4,
        Arc::new(|i| match i {
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
fn one_thread_survives_every_second_job_hanging() {
    let door = Door::default();
    let wait = door.clone();
    let pool = pool(100, 1, 64);
    let start = Instant::now();
    let job = move |i| {
        if i % 2 == 1 {
            wait.wait();
        }
        index(i)
    };
    let outcomes = pool.run(6, Arc::new(job));
    // Three jobs are overdue one after the other, and nothing else takes time.
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(10));
    let late = RewardOutcome::TimedOut(0.1);
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
    door.open();
    assert!(settles_at(&pool, 0));
}

#[test]
fn late_results_reach_neither_this_batch_nor_the_next() {
    let door = Door::default();
    let wait = door.clone();
    let pool = pool(300, 2, 64);
    let job: Job = Arc::new(move |i| {
        if i == 1 {
            wait.wait();
        }
        RewardOutcome::Score(1.0)
    });
    let first = pool.run(3, Arc::clone(&job));
    let expected = [
        RewardOutcome::Score(1.0),
        RewardOutcome::TimedOut(0.3),
        RewardOutcome::Score(1.0),
    ];
    assert_eq!(first, expected);
    door.open();
    assert!(settles_at(&pool, 0));
    // The door is open, the same job is quick now, and the late worker has not disturbed anything.
    assert_eq!(pool.run(3, job), vec![RewardOutcome::Score(1.0); 3]);
    assert_eq!(first, expected);
}

#[test]
fn slow_is_overdue_whoever_notices() {
    // Longer than the limit by so little that supervisor and worker race: the record is the same.
    let pool = pool(20, 2, 64);
    let job = |_| {
        thread::sleep(Duration::from_millis(20));
        RewardOutcome::Score(1.0)
    };
    let outcomes = pool.run(20, Arc::new(job));
    assert_eq!(outcomes, vec![RewardOutcome::TimedOut(0.02); 20]);
    assert!(settles_at(&pool, 0));
}

#[test]
fn abandoned_threads_are_capped_and_come_back() {
    let door = Door::default();
    let wait = door.clone();
    let pool = pool(100, 2, 3);
    let job: Job = Arc::new(move |i| {
        wait.wait();
        index(i)
    });
    let outcomes = pool.run(50, Arc::clone(&job));
    let late = outcomes
        .iter()
        .filter(|o| **o == RewardOutcome::TimedOut(0.1));
    // The cap is looked at before a job starts: two that have started may both pass it.
    assert!((3..=4).contains(&late.count()));
    assert_eq!(outcomes[0], RewardOutcome::TimedOut(0.1));
    let RewardOutcome::Failed(message) = &outcomes[49] else {
        panic!("{:?}", outcomes[49])
    };
    assert!(message.contains("threads still busy"), "{message}");
    // A batch that comes meanwhile is refused.
    assert!(pool.run(1, Arc::new(index))[0].is_failure());
    door.open();
    assert!(settles_at(&pool, 0));
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
        pool(20_000, 4, 64).run(100, Arc::new(job));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn an_endless_limit_is_no_overflow() {
    let outcomes = Pool::new(Duration::MAX, 2, 64).run(10, Arc::new(index));
    assert_eq!(outcomes[9], index(9));
}
