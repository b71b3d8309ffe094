//! Columns, times and sizes as podman prints them.

use rlrun_spec::time::{days_of, utc};
use std::time::SystemTime;

/// Rows as left-aligned columns, two blanks apart, none at the end of a line.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            line.push_str(cell);
            line.push_str(&" ".repeat(pad + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Lines of cells separated by tabs as podman aligns them: two blanks apart, and no column but the last is narrower than 12.
pub(crate) fn aligned(text: &str) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate().take(row.len() - 1) {
            let width = (cell.chars().count() + 2).max(12);
            match widths.get_mut(column) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or_default();
            line.push_str(&format!("{cell:width$}"));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Bytes in decimal units with three significant digits: `4.46 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Hundredths of the unit, so that no floating point is needed.
    let mut unit = 0;
    let mut scale = 1000_u64;
    while bytes / scale >= 1000 && unit + 1 < UNITS.len() {
        scale *= 1000;
        unit += 1;
    }
    let hundredths = bytes / (scale / 100);
    let (whole, part) = (hundredths / 100, hundredths % 100);
    let number = match whole {
        0..10 => format!("{whole}.{part:02}"),
        10..100 => format!("{whole}.{}", part / 10),
        _ => whole.to_string(),
    };
    format!("{number} {}", UNITS[unit])
}

/// How long ago: `3 weeks ago`.
pub(crate) fn ago(then: u64, now: u64) -> String {
    const UNITS: [(u64, &str); 7] = [
        (31_536_000, "year"),
        (2_592_000, "month"),
        (604_800, "week"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let elapsed = now.saturating_sub(then);
    // Two of a unit before it is used, as in podman: 13 days, then 2 weeks.
    let unit = UNITS.iter().find(|(seconds, _)| elapsed >= 2 * seconds).or(UNITS.iter().find(|(s, _)| elapsed >= *s));
    match unit {
        None => "Less than a second ago".to_owned(),
        Some((seconds, name)) => {
            let count = elapsed / seconds;
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {name}{plural} ago")
        }
    }
}

/// Seconds since the epoch, now.
pub(crate) fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs())
}

/// Seconds since the epoch of an RFC 3339 time; None for what is none. Images write them, so anything may stand there.
pub(crate) fn seconds_of(time: &str) -> Option<u64> {
    let (date, rest) = time.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(|p| p.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let second = parts.next()?.split('.').next()?.parse::<i64>().ok()?;
    let good = (1..=12).contains(&month) && (1..=31).contains(&day) && (0..=9999).contains(&year);
    if !good || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(local - offset(zone)?).ok()
}

/// RFC 3339 in UTC of nanoseconds since the epoch; as many digits of the fraction as there are.
pub(crate) fn timestamp(nanoseconds: u64) -> String {
    let fraction = format!("{:09}", nanoseconds % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}Z", utc(nanoseconds / 1_000_000_000))
}

/// Seconds that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_clean() {
        let rows = [vec!["A".to_owned(), "LONGER".to_owned()], vec!["äöü".to_owned(), "x".to_owned()]];
        assert_eq!(columns(&rows), "A    LONGER\näöü  x\n");
    }

    #[test]
    fn cells_line_up_as_podman_has_them() {
        assert_eq!(aligned("A\tB\nlonger than twelve\tx\n"), "A                   B\nlonger than twelve  x\n");
        assert_eq!(aligned("A\tB\tC\nä\ty\n"), "A           B           C\nä           y\n");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (4_456_789, "4.45 MB"), (76_543_210, "76.5 MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(123_456_789_012), "123 GB");
        assert_eq!(size(u64::MAX), "18446 PB");
    }

    #[test]
    fn times_of_all_forms() {
        assert_eq!(seconds_of("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds_of("2024-02-29T12:30:15.123456789Z"), Some(1_709_209_815));
        assert_eq!(seconds_of("2024-02-29T14:30:15+02:00"), Some(1_709_209_815));
        for bad in ["", "yesterday", "2024-13-01T00:00:00Z", "2024-01-01", "1969-01-01T00:00:00Z", "2024-01-01T00:00Z"]
        {
            assert_eq!(seconds_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_timestamp_reads_back() {
        assert_eq!(timestamp(1_709_209_815_120_000_000), "2024-02-29T12:30:15.12Z");
        for seconds in [0, 951_782_400, 951_868_800, 1_709_209_815, 4_102_444_800, 13_569_465_600] {
            assert_eq!(seconds_of(&timestamp(seconds * 1_000_000_000)), Some(seconds));
        }
    }

    #[test]
    fn ages_in_words() {
        for (elapsed, text) in
            [(0, "Less than a second ago"), (1, "1 second ago"), (90, "90 seconds ago"), (3600, "60 minutes ago")]
        {
            assert_eq!(ago(1000, 1000 + elapsed), text);
        }
        assert_eq!(ago(0, 14 * 86_400), "2 weeks ago");
        // A time in the future is a clock that differs, no reason to fail.
        assert_eq!(ago(10, 0), "Less than a second ago");
    }
}
