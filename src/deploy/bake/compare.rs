//! Whether the new release fails more than the old one did.
//!
//! The old release's share of failed requests in its last minutes is what is normal: as a whole, and at
//! each path. The new one is worse where Fisher's exact test, one-sided, says that a share as large as
//! its own would come by chance in fewer than [`ALPHA`] of cases if both were alike (R. A. Fisher, "On
//! the interpretation of chi-square from contingency tables, and the calculation of P", Journal of the
//! Royal Statistical Society 85, 1922; NIST/SEMATECH e-Handbook, 7.3.3.1). The test is exact for any
//! number of requests, also where the old release never failed.
//!
//! A path at which the old release failed too is compared with itself alone: a page that was broken
//! before, and that a scanner happens to ask for now, says nothing about the rest.

use std::collections::BTreeSet;

use crate::proxy::control::{PathTally, Tally};

/// How improbable chance has to be. The bake looks twice a second and at several paths, so that one
/// look must be far more certain than the usual 0.05.
const ALPHA: f64 = 1e-4;
/// A difference below this is not worth a rollback, however certain it is.
const LEAST_DIFFERENCE: f64 = 0.01;
/// Fewer requests than this are not enough for a verdict.
const FEWEST: u64 = 20;
/// Failures of fewer clients than this may be theirs.
const CLIENTS: usize = 3;
/// The limits where there is nothing to compare with.
const FEWEST_FAILED: u64 = 10;
const WORST_SHARE: f64 = 0.1;

/// Requests, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub requests: u64,
    pub failed: u64,
}

/// In one sentence how the new release is worse than the old one, if it is.
pub fn worse(new: &Tally, old: &Tally) -> Option<String> {
    let mut at_paths = new.paths.iter().filter_map(|path| {
        let before = old.path(&path.path)?;
        let bad = is_judged(path.into(), path.clients.len()) && differs(path.into(), before.into());
        bad.then(|| sentence(&format!("at `{}` ", path.path), path.into(), before.into()))
    });
    at_paths.next().or_else(|| worse_elsewhere(new, old))
}

/// The same for all paths at which the old release did not fail, together.
fn worse_elsewhere(new: &Tally, old: &Tally) -> Option<String> {
    let broken: BTreeSet<&str> = failing(old).map(|it| it.path.as_str()).collect();
    let rest = |tally: &Tally| {
        let mut rest = Count::from(tally);
        for path in tally
            .paths
            .iter()
            .filter(|it| broken.contains(it.path.as_str()))
        {
            rest.requests = rest.requests.saturating_sub(path.requests);
            rest.failed = rest.failed.saturating_sub(path.failed).min(rest.requests);
        }
        rest
    };
    let (now, before) = (rest(new), rest(old));
    let own: Vec<_> = failing(new)
        .filter(|it| !broken.contains(it.path.as_str()))
        .collect();
    let clients: BTreeSet<_> = own.iter().flat_map(|it| &it.clients).collect();
    if !is_judged(now, clients.len()) {
        return None;
    }
    let bad = match before.requests {
        // It had no visitors of late: what is normal is not known.
        0 => is_much(now),
        _ => differs(now, before),
    };
    let worst = own.iter().max_by_key(|it| it.failed)?;
    bad.then(|| match worst.failed >= now.failed {
        true => sentence(&format!("at `{}` ", worst.path), now, before),
        false => sentence(&format!("most of them at `{}`: ", worst.path), now, before),
    })
}

/// Without an old release to compare with: in one sentence why the new one fails too much, if it does.
pub fn too_many(count: Count) -> Option<String> {
    let Count { requests, failed } = count;
    is_much(count).then(|| format!("{failed} of {requests} requests failed after the switch"))
}

/// What is said of a release that is not worse.
pub fn good(new: Count, old: Option<Count>) -> String {
    let before = old.filter(|old| old.requests > 0);
    let before = before.map(|old| format!("; of the old version's, {}", shown(old)));
    format!(
        "{}{}, no reason to roll back",
        shown(new),
        before.unwrap_or_default()
    )
}

fn sentence(what: &str, new: Count, old: Count) -> String {
    let before = match old.requests {
        0 => "the old version had none of late".to_owned(),
        _ => format!("of the old version's, {}", shown(old)),
    };
    format!("{what}{} after the switch; {before}", shown(new))
}

/// `11 of 58 requests failed (19 %)`
fn shown(count: Count) -> String {
    let Count { requests, failed } = count;
    let noun = if requests == 1 { "request" } else { "requests" };
    let percent = match failed {
        0 => String::new(),
        _ => match 100.0 * share(count) {
            percent if percent < 10.0 => format!(" ({percent:.1} %)"),
            percent => format!(" ({percent:.0} %)"),
        },
    };
    format!("{failed} of {requests} {noun} failed{percent}")
}

fn failing(tally: &Tally) -> impl Iterator<Item = &PathTally> {
    tally.paths.iter().filter(|it| it.failed > 0)
}

fn share(count: Count) -> f64 {
    count.failed as f64 / count.requests.max(1) as f64
}

fn is_judged(new: Count, clients: usize) -> bool {
    new.requests >= FEWEST && clients >= CLIENTS
}

fn is_much(count: Count) -> bool {
    count.failed >= FEWEST_FAILED && share(count) > WORST_SHARE
}

fn differs(new: Count, old: Count) -> bool {
    old.requests > 0 && share(new) - share(old) >= LEAST_DIFFERENCE && by_chance(new, old) < ALPHA
}

/// The probability that at least as many of the failures fall on the new release, if they are dealt
/// out at random: the upper tail of the hypergeometric distribution.
fn by_chance(new: Count, old: Count) -> f64 {
    let (failed, all) = (new.failed + old.failed, new.requests + old.requests);
    let (good, most) = (all - failed, failed.min(new.requests));
    let first = ln_choose(failed, new.failed) + ln_choose(good, new.requests - new.failed)
        - ln_choose(all, new.requests);
    let (mut term, mut sum) = (1.0_f64, 0.0_f64);
    for of_new in new.failed..=most {
        sum += term;
        // The terms fall beyond the most probable one; what is left does not matter.
        if term < sum * 1e-9 {
            break;
        }
        let other = new.requests - of_new;
        let up = (failed - of_new) as f64 * other as f64;
        let down = (of_new + 1) as f64 * (good + 1 - other) as f64;
        term *= up / down;
    }
    (first.exp() * sum).min(1.0)
}

fn ln_choose(of: u64, chosen: u64) -> f64 {
    match chosen > of {
        true => f64::NEG_INFINITY,
        false => ln_factorial(of) - ln_factorial(chosen) - ln_factorial(of - chosen),
    }
}

fn ln_factorial(n: u64) -> f64 {
    if n < 32 {
        return (2..=n).map(|factor| (factor as f64).ln()).sum();
    }
    // Stirling's series.
    let x = n as f64;
    let correction = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3));
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + correction
}

impl From<&Tally> for Count {
    fn from(tally: &Tally) -> Self {
        Self {
            requests: tally.requests,
            failed: tally.failed.min(tally.requests),
        }
    }
}

impl From<&PathTally> for Count {
    fn from(path: &PathTally) -> Self {
        Self {
            requests: path.requests,
            failed: path.failed.min(path.requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(failed: u64, requests: u64) -> Count {
        Count { requests, failed }
    }

    fn path(path: &str, failed: u64, requests: u64, clients: u32) -> PathTally {
        PathTally {
            path: path.into(),
            requests,
            failed,
            clients: (1..=clients).collect(),
        }
    }

    /// Of a release that served 100 requests elsewhere too, without failing.
    fn tally(paths: Vec<PathTally>) -> Tally {
        Tally {
            requests: 100 + paths.iter().map(|it| it.requests).sum::<u64>(),
            failed: paths.iter().map(|it| it.failed).sum(),
            paths,
            ..Tally::default()
        }
    }

    /// Exact values, computed with fractions.
    #[test]
    fn the_test_is_fishers() {
        for (new, old, exact) in [
            (count(3, 20), count(0, 500), 4.892779459253448e-05),
            (count(11, 58), count(20, 100), 0.6387172358998267),
            (count(20, 20), count(0, 2), 0.004329004329004329),
            (count(10, 20), count(0, 10), 0.006149306299231337),
            (count(30, 1000), count(10, 1000), 0.0010041667809150049),
            (count(0, 5), count(3, 5), 1.0),
        ] {
            let p = by_chance(new, old);
            assert!(
                (p / exact - 1.0).abs() < 1e-6,
                "{new:?} {old:?}: {p} {exact}"
            );
        }
    }

    #[test]
    fn a_share_as_before_is_normal_and_a_larger_one_is_not() {
        let fifth = tally(vec![path("/shop", 40, 200, 3)]);
        assert_eq!(worse(&tally(vec![path("/shop", 11, 58, 3)]), &fifth), None);
        let said = worse(&tally(vec![path("/shop", 50, 58, 3)]), &fifth).unwrap();
        for word in ["`/shop`", "50 of 58", "86 %", "40 of 200", "20 %"] {
            assert!(said.contains(word), "no {word}: {said}");
        }
    }

    #[test]
    fn what_was_broken_before_says_nothing() {
        let old = tally(vec![path("/wp-login.php", 2, 2, 1)]);
        let new = tally(vec![path("/wp-login.php", 60, 60, 3)]);
        assert_eq!(worse(&new, &old), None);
        // Another page is broken now.
        let new = tally(vec![path("/wp-login.php", 60, 60, 3), path("/", 20, 20, 3)]);
        let said = worse(&new, &old).unwrap();
        assert!(said.contains("`/`") && said.contains("20 of 120"), "{said}");
    }

    #[test]
    fn one_client_or_a_few_requests_are_not_enough() {
        let old = tally(vec![path("/", 0, 500, 0)]);
        let new = |failed, requests, clients| Tally {
            requests,
            failed,
            paths: vec![path("/", failed, requests, clients)],
            ..Tally::default()
        };
        assert_eq!(worse(&new(500, 500, 2), &old), None);
        assert_eq!(worse(&new(19, 19, 3), &old), None);
        assert!(worse(&new(20, 20, 3), &old).is_some());
    }

    #[test]
    fn a_difference_that_is_certain_but_tiny_is_let_pass() {
        let old = tally(vec![path("/", 100, 1_000_000, 3)]);
        assert_eq!(
            worse(&tally(vec![path("/", 900, 1_000_000, 3)]), &old),
            None
        );
    }

    #[test]
    fn without_visitors_before_the_absolute_limits_hold() {
        let old = Tally::default();
        assert!(worse(&tally(vec![path("/", 30, 40, 3)]), &old).is_some());
        assert_eq!(worse(&tally(vec![path("/", 9, 40, 3)]), &old), None);
        assert!(too_many(count(0, 0)).is_none());
        assert!(too_many(count(9, 9)).is_none());
        assert!(too_many(count(100, 1000)).is_none());
        assert!(too_many(count(101, 1000)).is_some());
        assert!(too_many(count(10, 10)).is_some());
    }
}
