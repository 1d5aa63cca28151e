//! Hides the values of secrets, and of build arguments whose names look like secrets, wherever the builder
//! or a program prints them.

use std::collections::BTreeMap;

use crate::config::looks_secret;
use crate::engine::BuildFailure;
use crate::mask::Mask;

pub(super) fn mask_of(
    args: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, Vec<u8>>,
) -> Mask {
    let args = args.iter().filter(|(name, _)| looks_secret(name));
    let args = args.map(|(_, value)| value.as_str());
    let secrets = secrets.values();
    let secrets = secrets.filter_map(|value| std::str::from_utf8(value).ok());
    Mask::of(args.chain(secrets))
}

pub(super) fn hidden(failure: BuildFailure, mask: &Mask) -> BuildFailure {
    match failure {
        BuildFailure::Step {
            step,
            message,
            log_tail,
        } => BuildFailure::Step {
            step: mask.hide(step),
            message: mask.hide(message),
            log_tail: mask.hide_all(log_tail),
        },
        engine => engine,
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
        let mask = mask_of(&args, &secrets);
        let said = "echo hush-hush hush-hush-2 1 version-1 //npm/:_auth=quiet-1";
        assert_eq!(mask.hide(said.to_owned()), "echo *** *** 1 version-1 ***");
        let failure = BuildFailure::Step {
            step: "RUN x hush-hush".into(),
            message: "x hush-hush".into(),
            log_tail: vec!["y hush-hush".into()],
        };
        assert!(!format!("{:?}", hidden(failure, &mask)).contains("hush"));
    }
}
