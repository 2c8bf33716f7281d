//! Sizes, counts, times and tables for people; times for JSON.

use podkeep_engine::operations::SpaceNeed;
use podkeep_format::item::Escaped;
use podkeep_format::tree::Time;

/// Decimal units, two to three digits: `0 B`, `4.1 KB`, `19.8 MB`, `925 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would be shown as 1000 belongs to the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// What a restore needs on a file system.
pub fn need(need: &SpaceNeed) -> String {
    format!(
        "needs {} in {}, {} free",
        size(need.bytes),
        Escaped(need.place.as_os_str().as_encoded_bytes()),
        size(need.bytes_free),
    )
}

/// Digits in groups of three: `48,990`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `1,214 files`; `plural` is the whole word.
pub fn counted(number: u64, one: &str, plural: &str) -> String {
    format!(
        "{} {}",
        count(number),
        if number == 1 { one } else { plural }
    )
}

/// `0.4 s`, `6.8 s`, `1:12`, `2:03:04`.
pub fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// Of a moment that is `zone_minutes` ahead of UTC.
struct Civil {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

/// The proleptic Gregorian calendar, for every time that an `i64` of seconds can hold.
/// The method is H. Hinnant's `civil_from_days`: years begin in March, eras are 400 years.
fn civil(secs: i64, zone_minutes: i16) -> Civil {
    let local = i128::from(secs) + i128::from(zone_minutes) * 60;
    let days = local.div_euclid(86_400) + 719_468;
    let second_of_day = local.rem_euclid(86_400) as u32;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    Civil {
        year: year as i64,
        month: month as u8,
        day: day as u8,
        hour: (second_of_day / 3600) as u8,
        minute: (second_of_day / 60 % 60) as u8,
        second: (second_of_day % 60) as u8,
    }
}

fn year(year: i64) -> String {
    // ISO 8601 wants a sign in front of what has more than four digits.
    match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+05}"),
    }
}

/// RFC 3339 with nanoseconds: `2026-11-25T03:00:00.000000001+01:00`; UTC ends in `Z`.
pub fn rfc3339(time: Time, zone_minutes: i16) -> String {
    let c = civil(time.secs, zone_minutes);
    let zone = match zone_minutes {
        0 => "Z".to_owned(),
        _ => {
            let (sign, minutes) = (
                if zone_minutes < 0 { '-' } else { '+' },
                zone_minutes.unsigned_abs(),
            );
            format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
    };
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}{zone}",
        year(c.year),
        c.month,
        c.day,
        c.hour,
        c.minute,
        c.second,
        time.nanos
    )
}

/// `2026-11-25 03:00`, in the zone given.
pub fn minute(time: Time, zone_minutes: i16) -> String {
    let c = civil(time.secs, zone_minutes);
    format!(
        "{}-{:02}-{:02} {:02}:{:02}",
        year(c.year),
        c.month,
        c.day,
        c.hour,
        c.minute
    )
}

/// `drwxr-x--t`, as `ls -l` writes it.
pub fn mode(kind: char, mode: u16) -> String {
    let mut text = String::with_capacity(10);
    text.push(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// On which side a table's column is filled up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Lines of aligned columns, two spaces apart, without spaces at their ends.
pub fn table(align: &[Align], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..align.len()).map(width).collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                let fill = widths[column].saturating_sub(cell.chars().count());
                if align[column] == Align::Right {
                    line.extend(std::iter::repeat_n(' ', fill));
                }
                line.push_str(cell);
                if align[column] == Align::Left {
                    line.extend(std::iter::repeat_n(' ', fill));
                }
            }
            line.truncate(line.trim_end_matches(' ').len());
            line
        })
        .collect()
}

/// An image's name; of an ID or digest as many digits as Podman shows.
pub fn image_name(name: &str) -> String {
    const DIGITS: usize = 12;
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex(name) {
        return name[..DIGITS].to_owned();
    }
    match name.split_once("@sha256:") {
        Some((repository, digest)) if is_hex(digest) => {
            format!("{repository}@sha256:{}...", &digest[..DIGITS])
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_shown_by_what_people_know_it_by() {
        let id = "0c190cc595a64c9ce859db4f59c54babf7302af61c14d50723850fb62ca992da";
        assert_eq!(image_name(id), "0c190cc595a6");
        assert_eq!(
            image_name(&format!("h:5000/x@sha256:{id}")),
            "h:5000/x@sha256:0c190cc595a6..."
        );
        assert_eq!(image_name("localhost/lab:1"), "localhost/lab:1");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KB"),
            (4096, "4.1 KB"),
            (19_800_000, "19.8 MB"),
            (99_960_000, "100 MB"),
            (925_000_000, "925 MB"),
            (999_600, "1.0 MB"),
            (1_100_000_000, "1.1 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn counts_and_durations() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(duration(6.84), "6.8 s");
        assert_eq!(duration(59.97), "1:00");
        assert_eq!(duration(72.4), "1:12");
        assert_eq!(duration(7384.0), "2:03:04");
    }

    #[test]
    fn times_of_every_age() {
        let at = |secs, nanos, zone| rfc3339(Time { secs, nanos }, zone);
        assert_eq!(at(0, 0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(-1, 999_999_999, 0), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(at(951_782_400, 0, 0), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(
            at(1_795_561_200, 1, 60),
            "2026-11-25T00:00:00.000000001+01:00"
        );
        assert_eq!(at(0, 0, -210), "1969-12-31T20:30:00.000000000-03:30");
        assert_eq!(
            at(i64::MAX, 0, 0),
            "+292277026596-12-04T15:30:07.000000000Z"
        );
        assert_eq!(
            at(i64::MIN, 0, 0),
            "-292277022657-01-27T08:29:52.000000000Z"
        );
        assert_eq!(minute(Time { secs: 60, nanos: 0 }, 0), "1970-01-01 00:01");
    }

    #[test]
    fn modes_as_ls_writes_them() {
        assert_eq!(mode('-', 0o644), "-rw-r--r--");
        assert_eq!(mode('d', 0o1777), "drwxrwxrwt");
        assert_eq!(mode('-', 0o6711), "-rws--s--x");
        assert_eq!(mode('-', 0o2644), "-rw-r-Sr--");
    }

    #[test]
    fn tables_align() {
        let rows = vec![
            vec!["ID".to_owned(), "Size".to_owned(), String::new()],
            vec!["c41e".to_owned(), "1 B".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&[Align::Left, Align::Right, Align::Left], &rows),
            ["ID    Size", "c41e   1 B"]
        );
    }
}
