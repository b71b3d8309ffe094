//! Times as logs have them.

use std::fmt::Write as _;
use std::time::Duration;

/// RFC 3339 in UTC with nanoseconds, as podman writes it.
#[must_use]
pub fn timestamp(since_epoch: Duration) -> String {
    let mut text = utc(since_epoch.as_secs());
    // Writing to a String cannot fail.
    if write!(text, ".{:09}+00:00", since_epoch.subsec_nanos()).is_err() {
        text.clear();
    }
    text
}

/// Seconds since the epoch as RFC 3339 has them in UTC, without a fraction and without the zone.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (year, month, day) = date_of(seconds / 86_400);
    let clock = seconds % 86_400;
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    // With room for a fraction and a zone.
    let mut text = String::with_capacity(40);
    if write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}").is_err() {
        text.clear();
    }
    text
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar; the reverse of [`days_of`]. Years begin in
/// March, so that the leap day is a year's last.
#[must_use]
pub fn date_of(days: u64) -> (u64, u64, u64) {
    // 1970-01-01 is day 719468 since 0000-03-01; 146097 days are 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The day of a date since 1970-01-01, in the proleptic Gregorian calendar; negative before.
#[must_use]
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (days, want) in [
            (0_u64, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_088, (2024, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date_of(days), want, "{days}");
            let [year, month, day] = <[u64; 3]>::from(want).map(|n| i64::try_from(n).unwrap());
            assert_eq!(days_of(year, month, day), i64::try_from(days).unwrap(), "{want:?}");
        }
        assert_eq!(timestamp(Duration::new(1_709_209_815, 5)), "2024-02-29T12:30:15.000000005+00:00");
    }
}
