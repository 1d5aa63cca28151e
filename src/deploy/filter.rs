//! Which pushes an app deploys.

use crate::config::{App, Pattern};
use crate::webhook::Ref;

/// Marks in a head commit's message, in upper or lower case, by which its push is not deployed.
const SKIP: [&str; 4] = ["[skip ci]", "[ci skip]", "[skip deploy]", "[deploy skip]"];

/// Whether a push to this ref is deployed; an error is the reason why not.
pub fn wants_ref(app: &App, git_ref: &Ref) -> Result<(), String> {
    let matches =
        |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
    match git_ref {
        Ref::Branch(name) if *name == app.branch || matches(&app.branches, name) => Ok(()),
        Ref::Branch(name) => Err(format!(
            "a push to `{name}`; `{}` deploys {}",
            app.name,
            deployed(app)
        )),
        Ref::Tag(name) if matches(&app.tags, name) => Ok(()),
        Ref::Tag(name) => Err(format!(
            "a tag, `{name}`; `{}` deploys {}",
            app.name,
            deployed(app)
        )),
    }
}

/// All branches and tags that the app deploys, for messages.
fn deployed(app: &App) -> String {
    let branches = app.branches.iter().map(|branch| format!("`{branch}`"));
    let tags = app.tags.iter().map(|tag| format!("tags `{tag}`"));
    let mut all = vec![format!("`{}`", app.branch)];
    all.extend(branches.chain(tags));
    all.join(", ")
}

/// Whether a push with this head commit is deployed; an error is the reason why not.
pub fn wants_message(message: &str) -> Result<(), String> {
    match skipped(message) {
        Some(mark) => Err(format!("the head commit's message contains `{mark}`")),
        None => Ok(()),
    }
}

fn skipped(message: &str) -> Option<&'static str> {
    let lower = message.to_ascii_lowercase();
    SKIP.into_iter().find(|mark| lower.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(more: &str) -> std::sync::Arc<App> {
        let text = format!("[apps.a]\nrepo = '/srv/a.git'\nport = 1\n{more}\n");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        config.apps.into_values().next().unwrap()
    }

    #[test]
    fn by_itself_an_app_wants_its_branch_alone() {
        let app = app("");
        assert_eq!(wants_ref(&app, &Ref::Branch("main".into())), Ok(()));
        assert!(wants_ref(&app, &Ref::Branch("other".into())).is_err());
        assert!(wants_ref(&app, &Ref::Tag("main".into())).is_err());
    }

    #[test]
    fn a_message_can_ask_for_no_deployment() {
        assert_eq!(wants_message("x"), Ok(()));
        for skip in ["[skip ci]", "fix\n\n[CI skip]", "a [Skip Deploy] b"] {
            let reason = wants_message(skip).unwrap_err();
            assert!(
                reason.contains("the head commit's message contains"),
                "{reason}"
            );
        }
    }

    #[test]
    fn patterns_add_branches_and_tags() {
        let app = app("branches = ['release/*']\ntags = 'v*'");
        let of = |git_ref| wants_ref(&app, &git_ref);
        for good in [
            Ref::Branch("main".into()),
            Ref::Branch("release/1".into()),
            Ref::Tag("v1".into()),
        ] {
            assert_eq!(of(good), Ok(()));
        }
        let like_a_tag = of(Ref::Branch("v1".into())).unwrap_err();
        let like_the_branch = of(Ref::Tag("main".into())).unwrap_err();
        let all = "`a` deploys `main`, `release/*`, tags `v*`";
        assert_eq!(like_a_tag, format!("a push to `v1`; {all}"));
        assert_eq!(like_the_branch, format!("a tag, `main`; {all}"));
    }
}
