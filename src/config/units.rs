//! Durations and sizes as people write them.

use std::time::Duration;

pub(super) const DURATION: &str = "a duration such as \"500ms\", \"5s\", \"30m\" or \"1h\"";
pub(super) const SIZE: &str = "an amount such as \"64k\", \"10m\" or \"1g\"";
pub(super) const MEMORY: &str = "an amount of memory such as \"512m\" or \"1g\", at least \"6m\"";

/// A year. A longer duration is a typing error, and with this limit sums of durations stay far from
/// overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// The least memory that Docker accepts, in bytes.
const LEAST_MEMORY: u64 = 6 << 20;

/// Parses a whole number with its unit: `500ms`, `5s`, `30m`, `1h`, `0s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(millis)?);
    (duration <= LONGEST).then_some(duration)
}

/// Parses a container's memory limit, in bytes; `None` if invalid or less than Docker accepts.
pub(super) fn memory(text: &str) -> Option<u64> {
    size(text).filter(|&bytes| bytes >= LEAST_MEMORY)
}

/// Parses a size in Docker's notation, in bytes: a number and `b`, `k`, `m`, `g` or `t` (powers of
/// 1024), such as `512m`, `512mb` or `512MiB`; without a unit, it is in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" if unit == "ib" => return None,
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * (1u64 << shift) as f64;
    let fits = bytes >= 0.0 && bytes < (1u64 << 50) as f64;
    fits.then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_whole_number_and_a_unit() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("5s", 5000),
            ("30m", 1_800_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "1.5s",
            "5 s",
            "5S",
            "5d",
            "1m30s",
            "99999999999999999999s",
            "18446744073709551615h",
            "9000h",
            "٥s",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        for (text, bytes) in [
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("512mb", 512 << 20),
            ("512MiB", 512 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("6m", 6 << 20),
            ("8388608", 8 << 20),
            ("8388608b", 8 << 20),
        ] {
            assert_eq!(memory(text), Some(bytes), "{text}");
        }
        for bad in [
            "", "m", "5m", "-512m", "512 m", "512x", "512mm", "1..5g", ".", "ib", "512ib", "nan",
            "inf", "9999999t",
        ] {
            assert_eq!(memory(bad), None, "{bad}");
        }
    }
}
