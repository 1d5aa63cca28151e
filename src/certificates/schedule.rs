//! When a certificate is ordered, and when an order that failed is tried again.

use std::time::Duration;

use super::Failure;
use super::leaf::Leaf;
use crate::store::certificates::State;
use crate::store::now;

/// The most orders in an [`HOUR`]. Let's Encrypt takes 300 in three hours.
pub const ORDERS: usize = 100;
pub const HOUR: i64 = 3_600_000;

/// The pauses after a refusal, in minutes: Let's Encrypt takes five that fail in an hour, per name.
const REFUSED: [u64; 7] = [1, 4, 16, 60, 180, 360, 720];
/// The first pause after an authority could not be reached, which doubles up to the longest.
const AWAY: Duration = Duration::from_secs(5);
const LONGEST_AWAY: Duration = Duration::from_secs(600);

/// When the next order of a name is due, in milliseconds since 1970; now or earlier: at once.
pub fn due(state: &State, leaf: Option<&Leaf>, directory: &str) -> i64 {
    let wanted = match leaf {
        // Of another authority, perhaps one that was only for a trial.
        Some(_) if state.directory.as_deref().is_some_and(|it| it != directory) => 0,
        // What was begun is brought to an end.
        Some(leaf)
            if state.asked_at.is_none() && state.order_url.is_none() && state.failures == 0 =>
        {
            renewal(state, leaf)
        }
        _ => 0,
    };
    wanted.max(state.next_try.unwrap_or(0))
}

/// When its authority wants it renewed; where that does not say, when two thirds of its lifetime are over.
pub fn renewal(state: &State, leaf: &Leaf) -> i64 {
    let own = own_renewal(leaf);
    let said = (state.renewal.as_ref()).filter(|it| Some(&it.of) == leaf.id.as_ref());
    let Some(said) = said.and_then(|it| it.at) else {
        return own;
    };
    // Whatever an authority says, what it wants late must not expire meanwhile, and what it wants early
    // must not be ordered each time that it is asked.
    let latest = leaf.not_after - lifetime(leaf) / 10;
    match state.hastened_at {
        Some(last) if said < own => {
            let next = last
                .saturating_add(lifetime(leaf) / 3)
                .min(last.saturating_add(24 * HOUR));
            said.max(next).min(own)
        }
        _ => said.min(latest),
    }
}

/// Whether a certificate is renewed now only because its authority wants it early.
pub fn is_hastened(state: &State, leaf: &Leaf) -> bool {
    state.asked_at.is_none()
        && renewal(state, leaf) < own_renewal(leaf)
        && now() < own_renewal(leaf)
}

fn lifetime(leaf: &Leaf) -> i64 {
    (leaf.not_after - leaf.not_before).max(0)
}

/// When two thirds of its lifetime are over, and a little earlier by a part that differs between
/// certificates: those that were ordered together are not all renewed together.
fn own_renewal(leaf: &Leaf) -> i64 {
    let lifetime = lifetime(leaf);
    let name = leaf.names.first().map_or("", String::as_str);
    let spread = name.bytes().fold(leaf.not_before as u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let early = lifetime / 50 * (spread % 100) as i64 / 100;
    leaf.not_before + lifetime / 3 * 2 - early
}

/// The pause after an attempt that was the `failures`th to fail, counted from 1.
pub fn pause(failure: &Failure, failures: u32) -> Duration {
    let before = failures.saturating_sub(1);
    let pause = match failure {
        Failure::Refused(_) => refused(before),
        Failure::NoAccount => AWAY,
        Failure::Away(_) => AWAY.saturating_mul(1 << before.min(16)).min(LONGEST_AWAY),
        Failure::Wait { pause, .. } => refused(before).max(*pause),
    };
    // By a tenth more at most.
    let mut random = [0; 2];
    let _ = getrandom::fill(&mut random);
    pause + pause / 10 * u32::from(u16::from_ne_bytes(random)) / u32::from(u16::MAX)
}

fn refused(before: u32) -> Duration {
    let last = REFUSED.len() - 1;
    Duration::from_secs(60 * REFUSED[(before as usize).min(last)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::certificates::Renewal;

    const DAY: i64 = 24 * HOUR;

    fn leaf(name: &str) -> Leaf {
        Leaf {
            names: vec![name.into()],
            issuer: String::new(),
            not_before: 1_000,
            not_after: 1_000 + 90 * DAY,
            id: Some("key.serial".into()),
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_are_over_but_not_all_at_once() {
        let at: Vec<i64> = (0..20)
            .map(|n| renewal(&State::default(), &leaf(&format!("{n}.test"))))
            .collect();
        assert!(
            at.iter()
                .all(|at| (58 * DAY..=60 * DAY + 1000).contains(at))
        );
        assert!(at.iter().any(|it| *it != at[0]));
    }

    #[test]
    fn what_is_missing_asked_for_or_from_elsewhere_is_due() {
        let known = State {
            directory: Some("ca".into()),
            ..State::default()
        };
        let leaf = leaf("a.test");
        assert_eq!(due(&known, None, "ca"), 0);
        assert_eq!(due(&known, Some(&leaf), "other"), 0);
        assert_eq!(due(&known, Some(&leaf), "ca"), own_renewal(&leaf));
        // Under way, or failed.
        let begun = State {
            order_url: Some("order/1".into()),
            ..known.clone()
        };
        assert_eq!(due(&begun, Some(&leaf), "ca"), 0);
        let again = State {
            failures: 1,
            next_try: Some(9),
            ..known.clone()
        };
        assert_eq!(due(&again, Some(&leaf), "ca"), 9);
        let asked = State {
            asked_at: Some(1),
            ..known.clone()
        };
        assert_eq!(due(&asked, Some(&leaf), "ca"), 0);
        let failed = State {
            next_try: Some(77),
            ..known
        };
        assert_eq!(due(&failed, None, "ca"), 77);
    }

    #[test]
    fn an_authority_s_word_counts_within_reason() {
        let leaf = leaf("a.test");
        let said = |of: &str, at, hastened_at| State {
            renewal: Some(Renewal {
                of: of.into(),
                at,
                why: None,
                ask_at: 0,
            }),
            hastened_at,
            ..State::default()
        };
        let at = |state: State| renewal(&state, &leaf);
        let own = own_renewal(&leaf);
        assert_eq!(at(said("key.serial", Some(DAY), None)), DAY);
        assert_eq!(at(said("key.serial", Some(70 * DAY), None)), 70 * DAY);
        assert_eq!(at(said("key.serial", None, None)), own);
        assert_eq!(at(said("key.other", Some(DAY), None)), own);
        let never = at(said("key.serial", Some(i64::MAX), None));
        assert_eq!(never, leaf.not_after - 9 * DAY);
        let again = at(said("key.serial", Some(DAY), Some(DAY)));
        assert_eq!(again, 2 * DAY, "once a day");
        let again = at(said("key.serial", Some(DAY), Some(80 * DAY)));
        assert_eq!(again, own);
    }

    #[test]
    fn pauses_grow_and_an_authority_s_own_counts() {
        let seconds = |failure: &Failure, n| pause(failure, n).as_secs();
        let refused = Failure::Refused(String::new());
        assert!((60..=66).contains(&seconds(&refused, 1)));
        assert!((43_200..=47_520).contains(&seconds(&refused, 99)));
        // At most four attempts in the first hour.
        let hour: u64 = (1..=4).map(|n| seconds(&refused, n)).sum();
        assert!(hour >= 3600, "{hour}");
        let away = Failure::Away(String::new());
        assert!((5..=6).contains(&seconds(&away, 1)));
        assert!((600..=660).contains(&seconds(&away, 40)));
        let wait = Failure::Wait {
            why: String::new(),
            pause: Duration::from_secs(7200),
        };
        assert!(seconds(&wait, 1) >= 7200);
    }
}
