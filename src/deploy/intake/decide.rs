//! Which ref of a push an app deploys, and why it does not deploy the others. Pure.

use super::{Moved, Outcome};
use crate::config::App;
use crate::deploy::filter;
use crate::ids::{AppName, DeploymentId};
use crate::webhook::Ref;

/// What an app does with a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The ref that is deployed.
    pub deploy: Option<usize>,
    /// For each ref, why it is not deployed; `None` if its commit is.
    pub reasons: Vec<Option<String>>,
}

impl Decision {
    /// What became of each ref, if the push led to this deployment.
    pub(super) fn outcomes(
        &self,
        app: &AppName,
        refs: &[Moved],
        led_to: Option<&DeploymentId>,
        reason: Option<&str>,
    ) -> Vec<Outcome> {
        let outcome = |(moved, why): (&Moved, &Option<String>)| Outcome {
            git_ref: moved.git_ref.clone(),
            app: Some(app.clone()),
            deployment: led_to.filter(|_| why.is_none()).cloned(),
            reason: why.clone().or_else(|| reason.map(str::to_owned)),
        };
        refs.iter().zip(&self.reasons).map(outcome).collect()
    }
}

/// One release serves at a time, so one commit of a push is deployed: that of the app's own branch,
/// or else that of the first ref that the app deploys.
pub(super) fn decide(app: &App, refs: &[Moved], skip: bool) -> Decision {
    let wanted: Vec<_> = refs.iter().map(|moved| wanted(app, moved, skip)).collect();
    let own = |wanted: &Result<Ref, String>| matches!(wanted, Ok(Ref::Branch(name)) if *name == app.branch);
    let first = wanted.iter().position(own);
    let deploy = first.or_else(|| wanted.iter().position(Result::is_ok));
    let chosen = deploy.and_then(|at| Some((&refs[at], wanted[at].as_ref().ok()?)));
    let reason = |(moved, wanted): (&Moved, &Result<Ref, String>)| match (wanted, chosen) {
        (Err(why), _) => Some(why.clone()),
        (Ok(_), Some((chosen, _))) if chosen.commit() == moved.commit() => None,
        (Ok(_), Some((_, name))) => Some(format!(
            "it was pushed together with the {name}, which is deployed instead"
        )),
        (Ok(_), None) => None,
    };
    let reasons = refs.iter().zip(&wanted).map(reason).collect();
    Decision { deploy, reasons }
}

fn wanted(app: &App, moved: &Moved, skip: bool) -> Result<Ref, String> {
    let name = refusal(app, &moved.git_ref)?;
    match &moved.new {
        Err(why) => return Err(why.clone()),
        Ok(None) => {
            return Err(format!(
                "the {name} was deleted; the live release keeps serving"
            ));
        }
        Ok(Some(_)) if skip => return Err("cutover.skip".to_owned()),
        Ok(Some(_)) => {}
    }
    filter::wants_message(moved.message.as_deref().unwrap_or_default())?;
    Ok(name)
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
        let Decision { deploy, reasons } = decide(app, refs, false);
        (deploy.map(|at| refs[at].git_ref.clone()), reasons)
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
        assert_eq!(deployed, None);
        let reasons: Vec<_> = reasons.into_iter().map(Option::unwrap).collect();
        assert_eq!(reasons, expected);
    }

    #[test]
    fn an_option_skips_all() {
        let refs = [to("refs/heads/main", '1'), to("refs/heads/x", '1')];
        let decision = decide(&app("branches = ['x']"), &refs, true);
        let skipped = Some("cutover.skip".to_owned());
        assert_eq!(decision.deploy, None);
        assert_eq!(decision.reasons, [skipped.clone(), skipped]);
    }
}
