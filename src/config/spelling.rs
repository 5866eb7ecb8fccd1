//! Which word was meant.

/// The known word that differs from `word` by a slip of the keyboard, if there is one: the first of those that are as near.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let (distance, nearest) =
        known.map(|known| (distance(word, known), known)).min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && distance * 2 <= nearest.len()).then_some(nearest)
}

/// Changes that make one word of the other, of at most 64 characters each: a character put in, left out or replaced, or
/// two neighbours swapped.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut above2: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut before = None;
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut least =
                (at(&above, j) + usize::from(ca != *cb)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            if j > 0 && before == Some(*cb) && b.get(j - 1) == Some(&ca) {
                least = least.min(at(&above2, j - 1) + 1);
            }
            row.push(least);
        }
        above2 = std::mem::replace(&mut above, row);
        before = Some(ca);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn edit_distance_counts_changes() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("listen", "listne", 1),
            ("lisen", "listen", 1),
            ("금곡", "금", 1),
            ("rtps", "rtsp", 1),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
