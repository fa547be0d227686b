//! The known name a mistyped one was meant to be.

/// Longest name worth a search, in bytes.
const LONGEST: usize = 64;

/// The candidate that differs from `name` in the fewest letters, unless that is more than a third of them. A key without
/// its unit (`cache.ttl`) is found by its beginning, one in the wrong section (`ttl_secs`) by its last part.
pub fn nearest(name: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    if name.len() > LONGEST {
        return None;
    }
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(edits, candidate)| {
            let unit_left_out =
                !name.is_empty() && candidate.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
            edits * 3 <= candidate.len() || unit_left_out || last(name) == last(candidate)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove, replace or swap with their neighbour to make `one` into `other` (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, wanted) in other.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(letter != wanted);
            let mut best = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *wanted {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["cache.ttl_secs", "cache.stale_secs", "listen", "admin_listen"];

    #[test]
    fn the_nearest_name_is_found_or_none() {
        struct Case {
            name: &'static str,
            nearest: Option<&'static str>,
        }
        let cases = [
            Case { name: "cache.tll_secs", nearest: Some("cache.ttl_secs") },
            Case { name: "cahce.stale_secs", nearest: Some("cache.stale_secs") },
            Case { name: "cache.ttl", nearest: Some("cache.ttl_secs") },
            Case { name: "ttl_secs", nearest: Some("cache.ttl_secs") },
            Case { name: "limits.stale_secs", nearest: Some("cache.stale_secs") },
            Case { name: "lisen", nearest: Some("listen") },
            Case { name: "admin.listen", nearest: Some("admin_listen") },
            Case { name: "password", nearest: None },
            Case { name: "", nearest: None },
        ];
        for Case { name, nearest: expected } in cases {
            assert_eq!(nearest(name, KNOWN.into_iter()), expected, "{name}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        for (one, other, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
            ("cahce", "cache", 1),
            ("é", "e", 1),
        ] {
            assert_eq!(distance(one, other), edits, "{one} {other}");
            assert_eq!(distance(other, one), edits, "{other} {one}");
        }
    }
}
