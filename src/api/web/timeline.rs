//! How long the steps of deployments took, drawn to one scale.

use std::time::Duration;

use maud::{Markup, html};

use super::parts::between;
use crate::api::view::{DeploymentView, StepState, StepView};
use crate::deploy::words::took;

/// In the drawing's own units.
const WIDTH: f64 = 1000.0;
/// The narrowest that a step is drawn.
const LEAST: f64 = 3.0;

/// How long a deployment took, from its request on.
pub fn whole(deployment: &DeploymentView) -> Option<Duration> {
    between(&deployment.created_at, deployment.ended_at.as_deref())
}

pub fn of(step: &StepView) -> Option<Duration> {
    between(&step.started_at, step.ended_at.as_deref())
}

/// The steps one after the other; `scale` is the time that fills the width.
pub fn bar(deployment: &DeploymentView, scale: Duration) -> Markup {
    let scale = scale.as_secs_f64().max(0.001);
    let mut at = 0.0;
    let steps = deployment.steps.iter().filter_map(|step| {
        let took = of(step)?;
        let width = (took.as_secs_f64() / scale * WIDTH).max(LEAST);
        let begin = at;
        at += width;
        Some((step, took, begin, width))
    });
    let steps: Vec<_> = steps.collect();
    let words = steps
        .iter()
        .map(|(step, time, ..)| format!("{} {}", step.name, took(*time)));
    let words = words.collect::<Vec<_>>().join(", ");
    html! {
        @if !steps.is_empty() {
            svg.bar role="img" aria-label=(words) viewBox="0 0 1000 10" preserveAspectRatio="none" {
                @for (step, time, begin, width) in &steps {
                    rect class={ "step " (step.name) (class(step)) }
                        x={ (format!("{begin:.1}")) } y="0" height="10"
                        width={ (format!("{:.1}", (width - 1.0).max(1.0))) } {
                        title { (step.name) " " (took(*time)) }
                    }
                }
            }
        }
    }
}

fn class(step: &StepView) -> &'static str {
    match step.state {
        StepState::Failed => " bad",
        StepState::Started => " busy",
        _ => "",
    }
}
