//! Which pushes an app deploys.

use crate::config::{App, Pattern};
use crate::webhook::Ref;

/// Marks in a head commit's message, in upper or lower case, by which its push is not deployed: those of
/// GitHub, GitLab, Gitea, Bitbucket and Azure, and our own.
const SKIP: [&str; 8] = [
    "[skip ci]",
    "[ci skip]",
    "[no ci]",
    "[skip actions]",
    "[actions skip]",
    "***no_ci***",
    "[skip deploy]",
    "[deploy skip]",
];

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

/// The mark by which a message asks not to be deployed. It counts in the subject, and at the message's
/// end among its trailers or alone: where a person puts it who means this very commit. The body of a
/// squash lists the messages of other commits, and the subject of a revert quotes one.
fn skipped(message: &str) -> Option<&'static str> {
    let lower = message.trim().to_ascii_lowercase();
    let (subject, body) = lower.split_once('\n').unwrap_or((&lower, ""));
    let subject = unquoted(subject);
    let in_subject = SKIP.into_iter().find(|mark| subject.contains(mark));
    in_subject.or_else(|| in_trailers(body))
}

/// The subject of a revert without the subject that it quotes.
fn unquoted(subject: &str) -> String {
    let quotes = ["revert \"", "reapply \""]
        .iter()
        .any(|it| subject.starts_with(it));
    match (subject.split_once('"'), subject.rsplit_once('"')) {
        (Some((before, rest)), Some((_, after))) if quotes => match rest.contains('"') {
            true => format!("{before} {after}"),
            // Cut off within the quotation.
            false => before.to_owned(),
        },
        _ => subject.to_owned(),
    }
}

/// The mark in the last paragraph, if it consists of nothing but trailers and marks.
fn in_trailers(body: &str) -> Option<&'static str> {
    let paragraph = |line: &&str| !line.trim().is_empty();
    let mut found = None;
    for line in body
        .lines()
        .rev()
        .skip_while(|it| !paragraph(it))
        .take_while(paragraph)
    {
        found = mark_alone(line).or(found);
        if mark_alone(line).is_none() && !is_trailer(line) {
            return None;
        }
    }
    found
}

fn mark_alone(line: &str) -> Option<&'static str> {
    if ["skip-checks: true", "skip-checks:true"].contains(&line.trim_end()) {
        return Some("skip-checks: true");
    }
    let mark = SKIP.into_iter().find(|mark| line.starts_with(mark))?;
    let rest = line[mark.len()..].trim();
    (rest.is_empty() || mark_alone(rest).is_some()).then_some(mark)
}

/// `Token: value`, or the continuation of the one before.
fn is_trailer(line: &str) -> bool {
    let token = line.split_once(':').map(|(token, _)| token);
    let is_token = |token: &str| {
        let mut bytes = token.bytes();
        !token.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    line.starts_with([' ', '\t']) || token.is_some_and(is_token)
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
    fn a_message_asks_for_no_deployment_in_its_subject_and_its_trailers() {
        for (skip, mark) in [
            ("[skip ci]", "[skip ci]"),
            ("fix\n\n[CI skip]", "[ci skip]"),
            ("a [Skip Deploy] b", "[skip deploy]"),
            ("docs [no ci]\n\nbody", "[no ci]"),
            ("[skip actions] x", "[skip actions]"),
            ("x [actions skip]", "[actions skip]"),
            ("Merged PR 12: docs ***NO_CI***", "***no_ci***"),
            (
                "x\n\nbody\n\n\nSigned-off-by: A <a@b>\nskip-checks: true\n",
                "skip-checks: true",
            ),
            ("x\n\nskip-checks:true", "skip-checks: true"),
            (
                "x\n\nbody\n\nCo-authored-by: A <a@b>\n[skip ci] [skip deploy]\n",
                "[skip ci]",
            ),
            // Its own, beside the quoted one.
            ("Revert \"docs [no ci]\" [skip ci]", "[skip ci]"),
            ("\n\n  x [ci skip]\r\n\r\nbody", "[ci skip]"),
        ] {
            let reason = wants_message(skip).unwrap_err();
            assert_eq!(
                reason,
                format!("the head commit's message contains `{mark}`")
            );
        }
    }

    #[test]
    fn a_mark_that_is_about_another_commit_does_not_count() {
        for deployed in [
            "",
            "x",
            "Revert \"docs [skip ci]\"\n\nThis reverts commit 1234567.",
            "Revert \"Revert \"docs [skip ci]\"\"",
            "Reapply \"docs [skip ci]\"",
            "Revert \"a subject that is cut off [skip ci]",
            // Squashes of GitHub, of GitLab and of git itself.
            "Add colours (#12)\n\n* colours\n\n* docs [skip ci]",
            "Add colours (#12)\n\n* docs [skip ci]\n\nbody\n\n---------\n\nCo-authored-by: A <a@b>",
            "Add colours\n\nfeat: colours\n\ndocs: say so [skip ci]",
            "Squashed commit of the following:\n\ncommit 12\nAuthor: A <a@b>\n\n    docs [skip ci]",
            "x\n\nWhere `[skip ci]` counts is now documented.",
            "x\n\nskip-checks: false",
            "x\n\nbody says skip-checks: true here",
        ] {
            assert_eq!(wants_message(deployed), Ok(()), "{deployed}");
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
