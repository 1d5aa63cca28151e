//! How many requests each client has sent of late, in memory of a fixed size however many clients there
//! are: where there are too many, those that have been silent for longest are forgotten.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::front::RateLimit;
use super::visit::ClientKey;

/// How many clients fit: `SETS * WAYS`, in a megabyte.
const SETS: usize = 1 << 14;
const WAYS: usize = 4;

/// A client by a hash that none can predict, and the time at which it will have used up what it has sent
/// (the generic cell rate algorithm), in microseconds.
#[derive(Clone, Copy, Default)]
struct Cell {
    client: u64,
    until: u64,
}

pub struct Rates {
    keys: RandomState,
    sets: Box<[Mutex<[Cell; WAYS]>]>,
}

/// Those of this process, made when the first route with a limit is asked for.
static RATES: LazyLock<Rates> = LazyLock::new(Rates::new);

/// Counts a request. `Err`: it is too many, and how long to wait.
pub fn count(app: &str, client: &ClientKey, limit: RateLimit, now_ms: u64) -> Result<(), Duration> {
    RATES.pass(app, client, limit, now_ms, true)
}

/// Whether a request would be too many, and how long to wait. Counts nothing.
pub fn ask(app: &str, client: &ClientKey, limit: RateLimit, now_ms: u64) -> Result<(), Duration> {
    RATES.pass(app, client, limit, now_ms, false)
}

impl Rates {
    fn new() -> Self {
        Self {
            keys: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    fn pass(
        &self,
        app: &str,
        client: &ClientKey,
        limit: RateLimit,
        now_ms: u64,
        counts: bool,
    ) -> Result<(), Duration> {
        let client = self.keys.hash_one((app, client)).max(1);
        let now = now_ms * 1000;
        let each = (limit.window_ms * 1000 / u64::from(limit.requests.max(1))).max(1);
        let room = each * u64::from(limit.burst.max(1) - 1);
        let mut set = self.sets[client as usize % SETS].lock();
        let place = match set.iter().position(|cell| cell.client == client) {
            Some(place) => place,
            None if !counts => return Ok(()),
            None => {
                let silent = (0..WAYS).min_by_key(|&place| set[place].until);
                let place = silent.unwrap_or(0);
                set[place] = Cell { client, until: 0 };
                place
            }
        };
        let until = set[place].until.max(now);
        if until > now + room {
            return Err(Duration::from_micros(until - now - room));
        }
        if counts {
            set[place].until = until + each;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit {
        requests: 10,
        window_ms: 1000,
        burst: 3,
    };

    #[test]
    fn a_burst_is_taken_and_then_one_request_after_the_other() {
        let rates = Rates::new();
        let at = |ms| rates.pass("a", &[1; 16], LIMIT, ms, true);
        assert_eq!([at(0), at(0), at(0)], [Ok(()); 3]);
        let asked = |client| rates.pass("a", &[client; 16], LIMIT, 0, false);
        assert!(asked(1).is_err());
        assert_eq!([asked(3); 4], [Ok(()); 4], "asking counts nothing");
        assert_eq!(at(0), Err(Duration::from_millis(100)));
        assert_eq!(at(100), Ok(()));
        assert!(at(100).is_err());
        // Others are not concerned.
        assert_eq!(rates.pass("a", &[2; 16], LIMIT, 100, true), Ok(()));
        assert_eq!(rates.pass("b", &[1; 16], LIMIT, 100, true), Ok(()));
        let taken = (0..100).filter(|n| at(1000 + n * 10).is_ok()).count();
        assert!((10..=13).contains(&taken), "{taken}");
    }

    #[test]
    fn any_number_of_clients_fits_and_who_is_busy_is_not_forgotten_for_one_that_is_silent() {
        let rates = Rates::new();
        let key = |n: u32| {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&n.to_be_bytes());
            key
        };
        for n in 0..200_000 {
            let _ = rates.pass("a", &key(n), LIMIT, 0, true);
        }
        let busy = key(7_000_000);
        while rates.pass("a", &busy, LIMIT, 1000, true).is_ok() {}
        for n in 0..10_000 {
            let _ = rates.pass("a", &key(n), LIMIT, 1000, true);
        }
        assert!(rates.pass("a", &busy, LIMIT, 1000, true).is_err());
    }
}
