//! User IDs for runs that root starts: one for each run, because the kernel counts processes by
//! user, and processes of one user can signal each other.

use std::fs;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// The number of concurrent runs of this process; further ones wait.
const SLOTS: u32 = 128;
/// User IDs from 1,879,048,192 to 2,147,483,647 are unused by convention, also by container ranges.
const FREE_RANGE: u32 = 1_900_000_000;
/// The number of ranges, which the process ID selects from. Two processes with the same range share
/// the limits on processes.
const RANGES: u32 = 1 << 20;

/// The user IDs of this process.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) first: u32,
    taken: Mutex<[bool; SLOTS as usize]>,
    freed: Condvar,
}

/// A user ID in use.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: u32,
    of: &'static Users,
}

impl Users {
    /// Returns the user IDs of this process, `None` in a user namespace that has only root.
    pub(super) fn get() -> Option<&'static Self> {
        static USERS: OnceLock<Option<Users>> = OnceLock::new();
        let users = USERS.get_or_init(|| {
            let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let first = first_user(&map, std::process::id())?;
            Some(Users {
                first,
                taken: Mutex::new([false; SLOTS as usize]),
                freed: Condvar::new(),
            })
        });
        users.as_ref()
    }

    /// Returns a user ID that no other run has, waiting for one if necessary.
    pub(super) fn take(&'static self) -> User {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(slot) = taken.iter().position(|taken| !taken) {
                taken[slot] = true;
                return User {
                    id: self.first + slot as u32,
                    of: self,
                };
            }
            let waited = self.freed.wait(taken);
            taken = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken[(self.id - self.of.first) as usize] = false;
        self.of.freed.notify_one();
    }
}

/// Returns the first user ID of this process, by the map of its user namespace. Its lines are
/// (first ID inside, first ID outside, count).
fn first_user(map: &str, process: u32) -> Option<u32> {
    let mut end = 0;
    for line in map.lines() {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            continue;
        };
        let own = FREE_RANGE + (process % RANGES) * SLOTS;
        if first <= u64::from(FREE_RANGE) && first + count > u64::from(own + SLOTS) {
            return Some(own);
        }
        end = end.max(first + count);
    }
    // The map of a container: near the upper end, below `nobody` (65534).
    let first = end.checked_sub(u64::from(2 * SLOTS))?;
    (first > 1000)
        .then_some(first)
        .and_then(|first| u32::try_from(first).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_in_the_map() {
        let whole = "         0          0 4294967295\n";
        assert_eq!(first_user(whole, 0), Some(FREE_RANGE));
        assert_eq!(first_user(whole, 3), Some(FREE_RANGE + 3 * SLOTS));
        assert_eq!(first_user(whole, RANGES + 3), Some(FREE_RANGE + 3 * SLOTS));
        // Positive as a signed number of 32 bits.
        assert!(first_user(whole, RANGES - 1).unwrap() < 1 << 31);
        let container = "0 1000 1\n1 100000 65535\n";
        assert_eq!(first_user(container, 9), Some(65536 - 256));
        assert_eq!(first_user("0 1000 1\n", 9), None);
        assert_eq!(first_user("", 9), None);
        assert_eq!(first_user("a b c\n", 9), None);
    }

    #[test]
    fn a_user_id_is_used_by_one_run_at_a_time() {
        static USERS: Users = Users {
            first: 70_000,
            taken: Mutex::new([false; SLOTS as usize]),
            freed: Condvar::new(),
        };
        let all: Vec<User> = (0..SLOTS).map(|_| USERS.take()).collect();
        let mut ids: Vec<u32> = all.iter().map(|user| user.id).collect();
        ids.dedup();
        assert_eq!(ids, (70_000..70_000 + SLOTS).collect::<Vec<_>>());
        let waiting = std::thread::spawn(|| USERS.take().id);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(all);
        assert_eq!(waiting.join().unwrap(), 70_000);
    }
}
