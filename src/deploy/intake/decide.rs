//! Which ref of a push an app deploys, and why it does not deploy the others. Pure.

use super::queue::Placed;
use super::{Moved, Outcome};
use crate::config::App;
use crate::deploy::filter;
use crate::ids::{AppName, DeploymentId};
use crate::webhook::Ref;

/// What an app does with a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The ref that is deployed; if none is, the one that is skipped.
    pub chosen: Option<usize>,
    /// A tag that is deployed before it: the chosen branch may turn out to have changed nothing under `paths`.
    pub first: Option<usize>,
    /// For each ref, why it is not deployed; `None` if its commit is.
    reasons: Vec<Option<Unwanted>>,
}

/// Why a ref is not deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unwanted {
    /// It is not for this app, or there is nothing to deploy.
    Never(String),
    /// The app deploys it, but its commit or its pusher asks not to.
    Skipped(Ref, String),
    /// The app deploys it, but is pinned.
    Pinned(String),
}

impl Unwanted {
    fn why(&self) -> &str {
        let (Self::Never(why) | Self::Skipped(_, why) | Self::Pinned(why)) = self;
        why
    }
}

impl From<String> for Unwanted {
    fn from(why: String) -> Self {
        Self::Never(why)
    }
}

/// What a ref led to.
#[derive(Clone, Copy, Default)]
pub(super) struct Led<'a> {
    pub to: Option<&'a DeploymentId>,
    /// Why the deployment is an earlier one.
    pub reason: Option<&'a str>,
}

impl<'a> From<&'a Placed> for Led<'a> {
    fn from(placed: &'a Placed) -> Self {
        Self {
            to: Some(&placed.deployment.id),
            reason: placed.reason.as_deref(),
        }
    }
}

impl Decision {
    /// What became of each ref, if this is what the chosen one led to, and the one before it.
    pub(super) fn outcomes(
        &self,
        app: &AppName,
        refs: &[Moved],
        chosen: Led<'_>,
        first: Led<'_>,
    ) -> Vec<Outcome> {
        let goes_first = |moved: &Moved| self.first.is_some_and(|at| is_same(&refs[at], moved));
        let outcome = |(at, (moved, why)): (usize, (&Moved, &Option<Unwanted>))| {
            let led = if goes_first(moved) { first } else { chosen };
            let is_deployed = why.is_none() || self.chosen == Some(at);
            Outcome {
                git_ref: moved.git_ref.clone(),
                app: Some(app.clone()),
                deployment: led.to.filter(|_| is_deployed).cloned(),
                reason: (why.as_ref().map(Unwanted::why).or(led.reason)).map(str::to_owned),
                skipped: matches!(why, Some(Unwanted::Skipped(..) | Unwanted::Pinned(_))),
            }
        };
        let each = refs.iter().zip(&self.reasons).enumerate();
        each.map(outcome).collect()
    }

    /// What would be deployed is skipped, if there is a reason why the app is pinned.
    pub(super) fn unless_pinned(mut self, why: Option<String>) -> Self {
        if let Some(why) = why {
            self.first = None;
            for deployed in self.reasons.iter_mut().filter(|reason| reason.is_none()) {
                *deployed = Some(Unwanted::Pinned(why.clone()));
            }
        }
        self
    }

    /// Why the chosen ref is skipped, if it is.
    pub(super) fn skip(&self, chosen: usize) -> Option<&str> {
        self.reasons[chosen].as_ref().map(Unwanted::why)
    }
}

/// One release serves at a time, so one commit of a push is deployed: that of the app's own branch,
/// or else that of the first ref that the app deploys; of several tags, of the one with the highest version. With
/// `paths`, a tag on another commit than its branch is deployed too, before the branch: nobody knows yet whether
/// that changes anything.
pub(super) fn decide(app: &App, refs: &[Moved], skip: bool) -> Decision {
    let wanted: Vec<_> = refs.iter().map(|moved| wanted(app, moved, skip)).collect();
    let is_own = |name: &Ref| matches!(name, Ref::Branch(name) if *name == app.branch);
    // The own one, or else the first, of those that `of` picks.
    let choose = |of: fn(&Result<Ref, Unwanted>) -> Option<&Ref>| {
        let mut own = wanted.iter();
        let own = own.position(|it| of(it).is_some_and(is_own));
        own.or_else(|| wanted.iter().position(|it| of(it).is_some()))
    };
    let deploy = choose(|it| it.as_ref().ok()).map(|at| match &wanted[at] {
        Ok(Ref::Tag(_)) => highest(&wanted).unwrap_or(at),
        // Unlike its branch, a tag is deployed whatever its commit changes.
        Ok(Ref::Branch(_)) if app.paths.is_some() => {
            let is_tag = |it: &usize| matches!(wanted[*it], Ok(Ref::Tag(_)));
            let mut tags = (0..refs.len()).filter(is_tag);
            tags.find(|it| is_same(&refs[*it], &refs[at])).unwrap_or(at)
        }
        _ => at,
    });
    let first =
        deploy.filter(|at| app.paths.is_some() && matches!(wanted[*at], Ok(Ref::Branch(_))));
    let first = first.and_then(|_| highest(&wanted));
    let skipped = choose(|it| match it {
        Err(Unwanted::Skipped(name, _)) => Some(name),
        _ => None,
    });
    let chosen = deploy.and_then(|at| Some((&refs[at], wanted[at].as_ref().ok()?)));
    let also = first.map(|at| &refs[at]);
    let reason = |(moved, wanted): (&Moved, &Result<Ref, Unwanted>)| match (wanted, chosen) {
        (Err(why), _) => Some(why.clone()),
        (Ok(_), _) if also.is_some_and(|also| is_same(also, moved)) => None,
        (Ok(_), Some((chosen, _))) if is_same(chosen, moved) => None,
        (Ok(_), Some((_, name))) => Some(Unwanted::Never(format!(
            "it was pushed together with the {name}, which is deployed instead"
        ))),
        (Ok(_), None) => None,
    };
    let reasons = refs.iter().zip(&wanted).map(reason).collect();
    Decision {
        chosen: deploy.or(skipped),
        first,
        reasons,
    }
}

/// The tag with the highest version.
fn highest(wanted: &[Result<Ref, Unwanted>]) -> Option<usize> {
    let tags = wanted.iter().enumerate().filter_map(|(at, it)| match it {
        Ok(Ref::Tag(name)) => Some((version(name), at)),
        _ => None,
    });
    tags.max().map(|(_, at)| at)
}

/// The numbers of a version, to be compared. What leads to a release (`-rc1`) comes before it.
fn version(name: &str) -> (Vec<u64>, bool, Vec<u64>) {
    let numbers = |text: &str| {
        let runs = text.split(|c: char| !c.is_ascii_digit());
        runs.filter_map(|run| run.parse().ok()).collect()
    };
    let (release, candidate) = match name.split_once('-') {
        Some((release, candidate)) => (release, Some(candidate)),
        None => (name, None),
    };
    let of_candidate = candidate.map(numbers).unwrap_or_default();
    (numbers(release), candidate.is_none(), of_candidate)
}

/// Whether two refs lead to the same commit.
fn is_same(one: &Moved, other: &Moved) -> bool {
    let known = one.points_to.is_some() && one.points_to == other.points_to;
    known || one.commit() == other.commit()
}

fn wanted(app: &App, moved: &Moved, skip: bool) -> Result<Ref, Unwanted> {
    let name = refusal(app, &moved.git_ref)?;
    match &moved.new {
        Err(why) => return Err(why.clone().into()),
        Ok(None) => {
            return Err(format!("the {name} was deleted; the live release keeps serving").into());
        }
        Ok(Some(_)) if skip => {
            let why = "the pusher asked for it (`-o ci.skip` or `-o cutover.skip`)";
            return Err(Unwanted::Skipped(name, why.to_owned()));
        }
        Ok(Some(_)) => {}
    }
    // A tag is an explicit act, whatever its commit says.
    let message = moved.message.as_deref().unwrap_or_default();
    match filter::wants_message(message) {
        Err(why) if matches!(name, Ref::Branch(_)) => Err(Unwanted::Skipped(name, why)),
        _ => Ok(name),
    }
}

/// The ref's name, or the reason why the app does not deploy it.
pub fn refusal(app: &App, git_ref: &str) -> Result<Ref, String> {
    let name = Ref::parse(git_ref).map_err(|error| error.to_string())?;
    let name = name.ok_or("it is neither a branch nor a tag")?;
    filter::wants_ref(app, &name)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn app(more: &str) -> Arc<App> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let text = format!("[apps.a]\nrepo = '/srv/a.git'\nport = 1\n{more}\n");
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        config.apps.into_values().next().unwrap()
    }

    fn to(git_ref: &str, digit: char) -> Moved {
        let id = digit.to_string().repeat(40);
        Moved::read(git_ref, &"0".repeat(40), &id)
    }

    /// The ref that is deployed, and the reasons of all.
    fn of(app: &App, refs: &[Moved]) -> (Option<String>, Vec<Option<String>>) {
        let Decision {
            chosen, reasons, ..
        } = decide(app, refs, false);
        let why = |it: Option<Unwanted>| it.map(|it| it.why().to_owned());
        let reasons = reasons.into_iter().map(why).collect();
        (chosen.map(|at| refs[at].git_ref.clone()), reasons)
    }

    #[test]
    fn the_apps_own_branch_is_deployed_and_the_rest_is_named() {
        let app = app("branches = ['*']\ntags = '*'");
        let (next, main) = (to("refs/heads/next", '1'), to("refs/heads/main", '2'));
        // What leads to the same commit is deployed with it.
        let tag = to("refs/tags/main", '2');
        let why = "it was pushed together with the branch `main`, which is deployed instead";
        assert_eq!(
            of(&app, &[next.clone(), tag.clone(), main.clone()]),
            (Some(main.git_ref), vec![Some(why.into()), None, None])
        );
        // Without the own branch the first one goes.
        let why = "it was pushed together with the tag `main`, which is deployed instead";
        assert_eq!(
            of(&app, &[tag.clone(), next]),
            (Some(tag.git_ref), vec![None, Some(why.into())])
        );
    }

    #[test]
    fn of_several_tags_the_highest_version_goes() {
        let app = app("tags = '*'");
        for (tags, expected) in [
            (&["v8", "v9", "v10"][..], "v10"),
            (&["v1.2.0", "v1.10.0", "v1.9.9"], "v1.10.0"),
            (&["v2.0.0-rc2", "v2.0.0", "v2.0.0-rc10"], "v2.0.0"),
            (&["v2.0.0-rc10", "v2.0.0-rc9"], "v2.0.0-rc10"),
            (&["a", "b"], "b"),
        ] {
            let refs = tags.iter().zip('1'..);
            let refs: Vec<_> = refs
                .map(|(tag, digit)| to(&format!("refs/tags/{tag}"), digit))
                .collect();
            let (deployed, reasons) = of(&app, &refs);
            assert_eq!(deployed, Some(format!("refs/tags/{expected}")));
            let others = reasons.iter().flatten();
            assert_eq!(others.count(), tags.len() - 1, "{reasons:?}");
        }
    }

    /// A branch's commit may change nothing under `paths`, which a tag need not.
    #[test]
    fn a_tag_on_the_branch_s_commit_is_what_counts_where_paths_do() {
        let refs = [to("refs/heads/main", '1'), to("refs/tags/v1", '1')];
        let of_paths = |more: &str| of(&app(&format!("tags = '*'\n{more}")), &refs).0;
        assert_eq!(
            of_paths("paths = ['a/**']").as_deref(),
            Some("refs/tags/v1")
        );
        assert_eq!(of_paths("").as_deref(), Some("refs/heads/main"));
    }

    #[test]
    fn a_tag_beside_a_branch_that_may_change_nothing_goes_before_it() {
        let refs = [
            to("refs/heads/main", '1'),
            to("refs/tags/v1", '2'),
            to("refs/tags/v2", '3'),
            to("refs/tags/stable", '3'),
        ];
        let of = |more: &str| decide(&app(&format!("tags = '*'\n{more}")), &refs, false);
        let decision = of("paths = ['a/**']");
        assert_eq!((decision.chosen, decision.first), (Some(0), Some(2)));
        let (main, tag) = (DeploymentId::new(), DeploymentId::new());
        let name = "a".parse().unwrap();
        let led = |to, reason| Led {
            to: Some(to),
            reason: Some(reason),
        };
        let outcomes = decision.outcomes(&name, &refs, led(&main, "a"), led(&tag, "b"));
        let led_to: Vec<_> = outcomes.iter().map(|it| it.deployment.as_ref()).collect();
        assert_eq!(led_to, [Some(&main), None, Some(&tag), Some(&tag)]);
        let why: Vec<_> = outcomes
            .iter()
            .filter_map(|it| it.reason.as_deref())
            .collect();
        let instead = "it was pushed together with the branch `main`, which is deployed instead";
        assert_eq!(why, ["a", instead, "b", "b"]);
        let pinned = decision.unless_pinned(Some("no".into()));
        assert_eq!(pinned.first, None);
        assert_eq!(of("").first, None);
    }

    #[test]
    fn each_ref_that_is_not_deployed_has_its_reason() {
        let app = app("branches = ['*']");
        let mut left = to("refs/heads/main", '1');
        left.message = Some("x [skip ci]".into());
        let gone = Moved::read("refs/heads/old", &"1".repeat(40), &"0".repeat(40));
        let long = Moved::read("refs/heads/x", &"0".repeat(40), "12");
        let refs = [
            left,
            gone,
            long,
            to("refs/tags/v1", '2'),
            to("refs/notes/x", '3'),
            to("refs/heads/bad..name", '4'),
        ];
        let (deployed, reasons) = of(&app, &refs);
        let expected = [
            "the head commit's message contains `[skip ci]`",
            "the branch `old` was deleted; the live release keeps serving",
            "`12` is not a commit id: expected 40 hex digits",
            "a tag, `v1`; `a` deploys `main`, `*`",
            "it is neither a branch nor a tag",
            "the name of a ref is not valid in git",
        ];
        assert_eq!(
            deployed.as_deref(),
            Some("refs/heads/main"),
            "it is skipped"
        );
        let reasons: Vec<_> = reasons.into_iter().map(Option::unwrap).collect();
        assert_eq!(reasons, expected);
    }

    #[test]
    fn an_option_skips_all() {
        let refs = [to("refs/heads/main", '1'), to("refs/heads/x", '1')];
        let decision = decide(&app("branches = ['x']"), &refs, true);
        assert_eq!(decision.chosen, Some(0));
        let why = decision.skip(0).unwrap();
        assert!(why.contains("-o ci.skip"), "{why}");
        assert_eq!(decision.skip(1), Some(why));
    }

    #[test]
    fn a_tag_on_a_commit_that_asks_to_be_skipped_is_deployed() {
        let app = app("tags = '*'");
        let says = |mut moved: Moved| {
            moved.message = Some("chore(release): 1.0.0 [skip ci]".into());
            moved
        };
        let (main, tag) = (
            says(to("refs/heads/main", '1')),
            says(to("refs/tags/v1", '1')),
        );
        let (deployed, reasons) = of(&app, &[main.clone(), tag]);
        assert_eq!(deployed.as_deref(), Some("refs/tags/v1"));
        assert!(reasons[0].is_some() && reasons[1].is_none(), "{reasons:?}");
        let (chosen, reasons) = of(&app, &[main]);
        assert_eq!(chosen.as_deref(), Some("refs/heads/main"));
        assert!(reasons[0].as_ref().unwrap().contains("`[skip ci]`"));
    }
}
