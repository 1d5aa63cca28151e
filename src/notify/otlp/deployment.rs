//! A deployment as a trace, by OpenTelemetry's conventions for pipelines, version control and deployments.

use sha2::{Digest, Sha256};

use super::json::{Kind, Span, text};
use crate::state::State;
use crate::store::deployments::Deployment;
use crate::store::steps::Record;
use crate::store::traced::Ended;

/// The spans of a deployment: itself, and its steps. Their ids follow from its own, so that telling it
/// twice makes no second trace.
pub fn spans(ended: &Ended) -> Vec<Span> {
    let Ended { deployment, steps } = ended;
    let trace = hex::encode(&Sha256::digest(format!("trace {}", deployment.id))[..16]);
    let id = |of: &str| hex::encode(&Sha256::digest(format!("span {} {of}", deployment.id))[..8]);
    let (root, us) = (id(""), |ms: i64| ms.max(0) as u64 * 1000);
    let at_end = deployment.ended_at.unwrap_or(deployment.created_at);
    let whole = Span {
        trace: trace.clone(),
        id: root.clone(),
        parent: None,
        name: format!("deploy {}", deployment.app),
        kind: Kind::Internal,
        began_us: us(deployment.created_at),
        ended_us: us(at_end),
        attributes: attributes(deployment),
        error: match deployment.state {
            State::Failed | State::Stuck | State::RolledBack => Some(message(deployment)),
            _ => None,
        },
    };
    let step = |step: &Record| Span {
        trace: trace.clone(),
        id: id(&step.name),
        parent: Some(root.clone()),
        name: step.name.clone(),
        kind: Kind::Internal,
        began_us: us(step.started_at),
        ended_us: us(step.ended_at.unwrap_or(at_end)),
        attributes: vec![
            text("cicd.pipeline.task.name", &step.name),
            text("cicd.pipeline.task.run.id", &id(&step.name)),
            text("cicd.pipeline.task.run.result", result_of(step)),
            text("cutover.app", deployment.app.as_str()),
        ],
        error: (step.state == "failed").then(|| message(deployment)),
    };
    let mut all = vec![whole];
    all.extend(steps.iter().map(step));
    all
}

fn attributes(deployment: &Deployment) -> Vec<serde_json::Value> {
    let (result, status) = match deployment.state {
        State::Live => ("success", Some("succeeded")),
        State::Cancelled | State::Superseded => ("cancellation", None),
        State::Skipped => ("skip", None),
        _ => ("failure", Some("failed")),
    };
    let trigger = serde_json::to_value(deployment.trigger).unwrap_or_default();
    let mut all = vec![
        text("cicd.pipeline.name", deployment.app.as_str()),
        text("cicd.pipeline.run.id", deployment.id.as_str()),
        text("cicd.pipeline.result", result),
        text("deployment.id", deployment.id.as_str()),
        text("deployment.name", deployment.app.as_str()),
        text("cutover.app", deployment.app.as_str()),
        text("cutover.state", deployment.state.as_str()),
        text("cutover.trigger", trigger.as_str().unwrap_or_default()),
    ];
    all.extend(status.map(|status| text("deployment.status", status)));
    let optional = [
        ("vcs.ref.head.name", deployment.git_ref.clone()),
        (
            "vcs.ref.head.revision",
            deployment.commit.as_ref().map(ToString::to_string),
        ),
        (
            "cutover.release",
            deployment.release.as_ref().map(ToString::to_string),
        ),
        (
            "error.type",
            deployment.error.as_ref().map(|error| error.code.clone()),
        ),
    ];
    all.extend(
        optional
            .iter()
            .filter_map(|(key, value)| Some(text(key, value.as_deref()?))),
    );
    all
}

fn result_of(step: &Record) -> &'static str {
    match step.state.as_str() {
        "done" => "success",
        "failed" => "failure",
        _ => "cancellation",
    }
}

/// What went wrong, in a line.
fn message(deployment: &Deployment) -> String {
    let error = deployment.error.as_ref();
    let line = error.and_then(|error| error.message.lines().next());
    line.unwrap_or_default().to_owned()
}
