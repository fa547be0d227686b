//! Edges of windows by table, and what holds for all of them.

use proptest::prelude::*;
use time::{Weekday, format_description::well_known::Rfc3339};

use super::*;
use crate::model::Spent;

fn at(text: &str) -> i64 {
    OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp()
}

fn limit(reset: Reset, next: Option<&str>) -> UsageLimit {
    let next_reset_at = next.map(|next| OffsetDateTime::from_unix_timestamp(at(next)).unwrap());
    UsageLimit { counts: Spent::Cost, limit: 1, alert_threshold: None, reset, next_reset_at, reset_at: 0 }
}

fn shown(window: Window) -> (String, String) {
    let text = |at: i64| match OffsetDateTime::from_unix_timestamp(at) {
        Ok(moment) => moment.format(&Rfc3339).unwrap(),
        Err(_) => "-".to_owned(),
    };
    (text(window.start), text(window.end))
}

#[test]
fn each_unit_begins_and_ends_where_utc_does() {
    use RateUnit::*;
    #[rustfmt::skip]
    let cases = [
        (Second, "2026-11-25T10:46:35Z", "2026-11-25T10:46:35Z", "2026-11-25T10:46:36Z"),
        (Minute, "2026-11-25T10:46:00Z", "2026-11-25T10:46:00Z", "2026-11-25T10:47:00Z"),
        (Minute, "2026-11-25T10:46:59Z", "2026-11-25T10:46:00Z", "2026-11-25T10:47:00Z"),
        (Hour, "2026-11-25T10:59:59Z", "2026-11-25T10:00:00Z", "2026-11-25T11:00:00Z"),
        (Hour, "2026-11-25T11:00:00Z", "2026-11-25T11:00:00Z", "2026-11-25T12:00:00Z"),
        // Central European Time ends and begins on these nights.
        (Day, "2026-10-25T00:59:59Z", "2026-10-25T00:00:00Z", "2026-10-26T00:00:00Z"),
        (Day, "2026-10-25T01:00:00+02:00", "2026-10-24T00:00:00Z", "2026-10-25T00:00:00Z"),
        (Hour, "2026-10-25T02:30:00+02:00", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
        (Hour, "2026-10-25T02:30:00+01:00", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
        (Day, "2027-03-28T01:00:00Z", "2027-03-28T00:00:00Z", "2027-03-29T00:00:00Z"),
        (Day, "2026-12-31T23:59:59Z", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
        (Week, "2026-12-31T23:59:59Z", "2026-12-27T00:00:00Z", "2027-01-03T00:00:00Z"),
        (Week, "2026-11-28T23:59:59Z", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
        (Week, "2026-11-29T00:00:00Z", "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"),
        (Week, "1969-12-31T00:00:00Z", "1969-12-28T00:00:00Z", "1970-01-04T00:00:00Z"),
    ];
    for (unit, now, start, end) in cases {
        assert_eq!(shown(Window::of_rate(unit, at(now))), (start.to_owned(), end.to_owned()), "{unit:?} {now}");
    }
}

#[test]
fn periods_follow_the_calendar_or_what_is_announced() {
    use Reset::*;
    #[rustfmt::skip]
    let cases = [
        (Never, None, "2026-11-25T10:00:00Z", "-", "-"),
        (Never, Some("2026-12-01T00:00:00Z"), "2026-11-25T10:00:00Z", "-", "2026-12-01T00:00:00Z"),
        (Never, Some("2026-11-01T00:00:00Z"), "2026-11-25T10:00:00Z", "2026-11-01T00:00:00Z", "-"),
        (Weekly, None, "2026-11-25T10:00:00Z", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
        (Weekly, Some("2026-11-29T00:00:00Z"), "2026-11-25T10:00:00Z", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
        (Weekly, Some("2026-11-27T00:00:00Z"), "2026-11-25T10:00:00Z", "2026-11-22T00:00:00Z", "2026-11-27T00:00:00Z"),
        (Weekly, Some("2026-11-27T00:00:00Z"), "2026-11-27T00:00:00Z", "2026-11-27T00:00:00Z", "2026-11-29T00:00:00Z"),
        (Weekly, Some("2026-11-27T00:00:00Z"), "2026-11-29T00:00:00Z", "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"),
        (Monthly, None, "2026-11-30T23:59:59Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        (Monthly, None, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        (Monthly, None, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        (Monthly, Some("2026-12-24T00:00:00Z"), "2026-12-02T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-24T00:00:00Z"),
        (Monthly, Some("2026-12-24T00:00:00Z"), "2026-12-25T00:00:00Z", "2026-12-24T00:00:00Z", "2027-01-01T00:00:00Z"),
        (Days(30), Some("2026-12-10T00:00:00Z"), "2026-12-09T23:59:59Z", "2026-11-10T00:00:00Z", "2026-12-10T00:00:00Z"),
        (Days(30), Some("2026-12-10T00:00:00Z"), "2026-12-10T00:00:00Z", "2026-12-10T00:00:00Z", "2027-01-09T00:00:00Z"),
        (Days(30), Some("2026-12-10T00:00:00Z"), "2027-01-09T00:00:00Z", "2027-01-09T00:00:00Z", "2027-02-08T00:00:00Z"),
        (Days(1), None, "2026-12-31T23:00:00Z", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
    ];
    for (reset, next, now, start, end) in cases {
        let window = Window::of_usage(&limit(reset, next), at(now));
        assert_eq!(shown(window), (start.to_owned(), end.to_owned()), "{reset:?} {next:?} {now}");
    }
}

#[test]
fn waiting_is_at_least_a_second() {
    let window = Window { start: 0, end: 60, reset_at: 0 };
    for (now, secs) in [(0, 60), (59, 1), (60, 1), (61, 1)] {
        assert_eq!(window.remaining_secs(now), secs, "{now}");
    }
    assert_eq!(Window::EVER.over_at(), None);
}

/// From year 1 to 9999.
fn moment() -> impl Strategy<Value = i64> {
    -62_135_596_800i64..253_402_300_800
}

fn reset() -> impl Strategy<Value = Reset> {
    prop_oneof![Just(Reset::Never), Just(Reset::Weekly), Just(Reset::Monthly), (1u16..=365).prop_map(Reset::Days)]
}

proptest! {
    #[test]
    fn a_moment_lies_in_its_window_and_windows_touch(now in moment(), unit in prop::sample::select(RateUnit::ALL.to_vec())) {
        let window = Window::of_rate(unit, now);
        prop_assert!(window.start <= now && now < window.end);
        prop_assert_eq!(Window::of_rate(unit, window.start), window);
        prop_assert_eq!(Window::of_rate(unit, window.end - 1), window);
        prop_assert_eq!(Window::of_rate(unit, window.end).start, window.end);
        let length = [1, 60, 3600, DAY, WEEK][RateUnit::ALL.iter().position(|other| *other == unit).unwrap()];
        prop_assert_eq!(window.end - window.start, length);
    }

    #[test]
    fn a_clock_elsewhere_on_earth_sees_the_same_windows(now in moment(), hours in -12i8..=14, minutes in 0i8..60) {
        let minutes = if hours < 0 { -minutes } else { minutes };
        let offset = UtcOffset::from_hms(hours, minutes, 0).unwrap();
        let utc = OffsetDateTime::from_unix_timestamp(now).unwrap();
        // The ends of what the calendar can show.
        prop_assume!(utc.checked_to_offset(offset).is_some());
        let there = utc.to_offset(offset).unix_timestamp();
        for unit in RateUnit::ALL {
            prop_assert_eq!(Window::of_rate(unit, there), Window::of_rate(unit, now));
        }
    }

    #[test]
    fn periods_are_whole_days_and_touch(now in moment(), reset in reset(), ahead in prop::option::of(-800i64..800)) {
        let midnight = now.div_euclid(DAY) * DAY;
        let next = ahead.and_then(|days| OffsetDateTime::from_unix_timestamp(midnight + days * DAY).ok());
        let limit = UsageLimit { next_reset_at: next, ..limit(reset, None) };
        let window = Window::of_usage(&limit, now);
        prop_assert!(window.start <= now && now < window.end, "{window:?} {now}");
        if window.start != i64::MIN {
            prop_assert_eq!(window.start.rem_euclid(DAY), 0);
        }
        if window.end != i64::MAX {
            prop_assert_eq!(window.end.rem_euclid(DAY), 0);
            prop_assert_eq!(Window::of_usage(&limit, window.end - 1).end, window.end);
            prop_assert_eq!(Window::of_usage(&limit, window.end).start, window.end);
        }
        if let (None, Ok(start)) = (next, OffsetDateTime::from_unix_timestamp(window.start)) {
            match reset {
                Reset::Never => {}
                Reset::Weekly => prop_assert_eq!(start.weekday(), Weekday::Sunday),
                Reset::Monthly => prop_assert_eq!(start.day(), 1),
                Reset::Days(days) => prop_assert_eq!(window.end - window.start, i64::from(days) * DAY),
            }
            prop_assert_eq!(start - start.replace_time(Time::MIDNIGHT), Duration::ZERO);
        }
    }
}
