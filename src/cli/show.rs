//! `cutover show`: shows one deployment.

use std::time::Duration;

use clap::Args;

use super::client::{Client, view};
use super::{Error, Global, print, table, words};
use crate::principal::Requester;

/// Show one deployment: its steps, their times and what the switch cost
#[derive(Debug, Args)]
pub struct Show {
    /// Id of the deployment
    id: String,
    /// Print the API's response as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the deployment.
pub async fn run(args: Show, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let path = format!("/api/v1/deployments/{}", view::segment(&args.id));
    let answer = client.get(&path).await?;
    if args.json {
        print::json(&answer);
        return Ok(());
    }
    let deployment: view::Deployment = view::read(&answer)?;
    head(&deployment);
    steps(&deployment);
    if let Some(tests) = &deployment.tests {
        self::tests(tests);
    }
    if let Some(receipt) = &deployment.receipt {
        print::line(format_args!("\n{}", receipt_line(receipt)));
    }
    if let Some(error) = &deployment.error {
        let step = error.step.as_deref().unwrap_or("deployment");
        print::line(format_args!("\n{step}: {}", error.message));
        for line in &error.log_tail {
            print::line(format_args!("  {line}"));
        }
    }
    Ok(())
}

fn tests(tests: &view::Tests) {
    let (count, failed) = (words::counted(tests.tests, "test"), tests.failed);
    let skipped = match tests.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    print::line(format_args!("\n{count}, {failed} failed{skipped}"));
    for name in &tests.failures {
        print::line(format_args!("  failed: {name}"));
    }
    let more = failed.saturating_sub(tests.failures.len() as u64);
    if more > 0 {
        print::line(format_args!("  and {more} more"));
    }
}

fn head(deployment: &view::Deployment) {
    let row = |name: &str, value: &str| {
        if !value.is_empty() {
            print::line(format_args!("{name:<12} {value}"));
        }
    };
    let current = match deployment.current {
        true => ", serving now",
        false => "",
    };
    row("Deployment", &deployment.id);
    row("App", &deployment.app);
    row("State", &format!("{}{current}", deployment.state));
    row("Trigger", &deployment.trigger);
    row("Requested by", &by(&deployment.requested_by));
    row("Cancelled by", &by(&deployment.cancelled_by));
    row("Ref", deployment.git_ref.as_deref().unwrap_or_default());
    row("Commit", deployment.commit.as_deref().unwrap_or_default());
    let message = deployment.message.as_deref().unwrap_or_default();
    row("Subject", &words::subject(message));
    row("Author", deployment.author.as_deref().unwrap_or_default());
    let image = deployment.image.as_deref().unwrap_or_default();
    let gone = match deployment.image_gone {
        true => ", gone: it was removed from Docker",
        false => "",
    };
    row("Image", &format!("{image}{gone}"));
    if let Some(from) = &deployment.provenance {
        let other = Some(&from.built_by).filter(|it| **it != deployment.id);
        let other = other.map_or(String::new(), |it| format!(", by `{it}`"));
        row("Built from", &format!("{}{other}", from.source));
        let target = from.target.as_ref();
        let target = target.map_or(String::new(), |it| format!(", stage {it}"));
        if let Some(file) = &from.dockerfile {
            let id = from.dockerfile_id.as_deref().unwrap_or_default();
            row(
                "Dockerfile",
                &format!("{file} ({}){target}", words::short(id)),
            );
        }
        row("Built by", from.command.as_deref().unwrap_or_default());
        for base in &from.bases {
            let known = base.digest.as_ref().or(base.image_id.as_ref());
            let known = known.map_or(String::new(), |id| format!(" ({id})"));
            row("Base", &format!("{}{known}", base.name));
        }
        if let Some(digest) = &from.attestation {
            row("Provenance", &format!("SLSA ({digest})"));
        }
    }
    let options = [
        (deployment.no_cache, "--no-cache"),
        (deployment.pull, "--pull"),
    ];
    let given: Vec<_> = options.iter().filter(|it| it.0).map(|it| it.1).collect();
    row("Options", &given.join(" "));
    row("Created", &deployment.created_at);
    row("Ended", deployment.ended_at.as_deref().unwrap_or_default());
    for report in &deployment.reports {
        row("Reported", &report_line(report));
    }
    for volume in &deployment.volumes {
        row(
            "Volume kept",
            &format!("{} (was `{}`)", volume.name, volume.path),
        );
    }
}

fn by(who: &Option<Requester>) -> String {
    who.as_ref().map(Requester::to_string).unwrap_or_default()
}

fn steps(deployment: &view::Deployment) {
    if deployment.steps.is_empty() {
        return;
    }
    print::line("");
    // The error stands below, whole.
    let shown_below = |detail: &str| (deployment.error.iter()).any(|it| it.message == detail);
    let rows = deployment.steps.iter().map(|step| {
        let detail = step.detail.as_deref().unwrap_or_default();
        let took = deployment.timings_ms.get(&step.name);
        let took = took.map(|ms| words::took(Duration::from_secs_f64((ms / 1e3).max(0.0))));
        vec![
            step.name.clone(),
            step.state.clone(),
            took.unwrap_or_default(),
            match shown_below(detail) {
                true => "see below".to_owned(),
                false => detail.replace('\n', " "),
            },
        ]
    });
    table::show(&["STEP", "STATE", "TOOK", "DETAIL"], rows.collect());
}

/// `status: live`, followed by the reason if the forge does not know that.
fn report_line(report: &view::Report) -> String {
    let what = format!("{}: {}", report.kind, report.phase);
    let why = report.error.as_deref().unwrap_or_default();
    match (report.state.as_str(), why) {
        ("told", _) => what,
        ("waiting", "") => format!("{what}, not sent yet"),
        ("waiting", why) => format!("{what}, not sent yet: {why}"),
        (_, why) => format!("{what}, rejected: {why}"),
    }
}

/// A receipt in words.
pub fn receipt_line(receipt: &view::Receipt) -> String {
    let rescued = match receipt.rescued {
        0 => String::new(),
        some => format!(", {some} answered by the other release"),
    };
    format!(
        "Switch: {}, {} failed, {} retried{rescued}; {} drained in {} ms, {} closed",
        words::counted(receipt.requests, "request"),
        receipt.failed,
        receipt.retried,
        receipt.drained,
        receipt.drain_ms,
        words::counted(receipt.websockets_closed, "WebSocket")
    )
}
