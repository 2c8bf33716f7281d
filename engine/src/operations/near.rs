//! Names that somebody who mistyped one may have meant.

/// Names shown at most.
const NEAR_MAX: usize = 3;
/// Characters of a name that are compared.
const COMPARED_MAX: usize = 256;

/// The candidates that are closest to `name`: a few edits away, or with one inside the other.
/// Nearest first, at most three.
pub fn near_names<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    let mut near: Vec<(usize, &str)> = candidates
        .filter_map(|candidate| {
            let edits = distance(name, candidate);
            let inside = name.len() >= 3 && (candidate.contains(name) || name.contains(candidate));
            (edits <= allowed || inside).then_some((edits, candidate))
        })
        .collect();
    near.sort();
    near.dedup();
    near.truncate(NEAR_MAX);
    near.into_iter()
        .map(|(_, candidate)| candidate.to_owned())
        .collect()
}

/// Levenshtein's distance, of the first [`COMPARED_MAX`] characters, without case.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars()
            .flat_map(char::to_lowercase)
            .take(COMPARED_MAX)
            .collect()
    };
    let (a, b) = (fold(a), fold(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_are_near() {
        let names = ["pgdata", "uploads", "pgdata-old", "cache"];
        let near = |name| near_names(name, names.into_iter());
        assert_eq!(near("pgdta"), ["pgdata"]);
        assert_eq!(near("PGDATA"), ["pgdata"]);
        assert_eq!(near("data"), ["pgdata", "pgdata-old"]);
        assert!(near("zzz").is_empty());
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
