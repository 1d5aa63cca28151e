//! "Did you mean": the name that was most likely meant.

/// The known name that `name` differs least from, if it differs little.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let name = name.to_lowercase();
    // What somebody else chose may be long, and the time that it takes grows with the square.
    let name: String = name.chars().take(100).collect();
    let known = known.into_iter();
    let near = known.filter_map(|known| {
        let distance = strsim::damerau_levenshtein(&name, known);
        let most = known.len().max(name.len()).div_ceil(3);
        (distance <= most).then_some((distance, known))
    });
    near.min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["st-hook", "shop", "api"];
        assert_eq!(nearest("st-hok", known), Some("st-hook"));
        assert_eq!(nearest("SHOP", known), Some("shop"));
        assert_eq!(nearest("billing", known), None);
        assert_eq!(nearest("", known), None);
    }
}
