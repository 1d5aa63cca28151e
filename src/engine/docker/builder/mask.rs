//! Hides the values of secrets, and of build arguments whose names look like secrets, wherever the builder
//! or a program prints them.

use std::collections::BTreeMap;

use crate::config::looks_secret;
use crate::engine::BuildFailure;

/// A shorter value would also be found where it is none.
const SHORTEST: usize = 6;

pub(super) struct Mask<'a>(Vec<&'a str>);

impl<'a> Mask<'a> {
    pub(super) fn new(
        args: &'a BTreeMap<String, String>,
        secrets: &'a BTreeMap<String, Vec<u8>>,
    ) -> Self {
        let args = args.iter().filter(|(name, _)| looks_secret(name));
        let args = args.map(|(_, value)| value.as_str());
        let secrets = secrets
            .values()
            .filter_map(|value| std::str::from_utf8(value).ok());
        // The builder's output comes line by line.
        let values = args.chain(secrets).flat_map(str::lines).map(str::trim);
        let mut values: Vec<_> = values.filter(|value| value.len() >= SHORTEST).collect();
        // One may contain another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values)
    }

    pub(super) fn hide(&self, text: String) -> String {
        let hidden = |text: String, value: &&str| text.replace(*value, "***");
        self.0.iter().fold(text, hidden)
    }

    pub(super) fn hide_in(&self, failure: BuildFailure) -> BuildFailure {
        match failure {
            BuildFailure::Step {
                step,
                message,
                log_tail,
            } => BuildFailure::Step {
                step: self.hide(step),
                message: self.hide(message),
                log_tail: log_tail.into_iter().map(|line| self.hide(line)).collect(),
            },
            engine => engine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_hidden_and_nothing_else() {
        let arg = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let args = [
            ("NPM_TOKEN", "hush-hush"),
            ("OTHER_TOKEN", "hush-hush-2"),
            ("API_KEY", "1"),
            ("VERSION", "version-1"),
        ];
        let args = args.map(arg).into();
        let secrets = [("npmrc".to_owned(), b"//npm/:_auth=quiet-1\nx\n".to_vec())].into();
        let mask = Mask::new(&args, &secrets);
        let said = "echo hush-hush hush-hush-2 1 version-1 //npm/:_auth=quiet-1";
        assert_eq!(mask.hide(said.to_owned()), "echo *** *** 1 version-1 ***");
        let failure = BuildFailure::Step {
            step: "RUN x hush-hush".into(),
            message: "x hush-hush".into(),
            log_tail: vec!["y hush-hush".into()],
        };
        assert!(!format!("{:?}", mask.hide_in(failure)).contains("hush"));
    }
}
