//! What the audience sees: a spinner while something is awaited, a tick for each act, tables at the
//! end; plain lines if the output is a pipe.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use console::style;
use indicatif::{ProgressBar, ProgressStyle};

use super::agent::Agent;
use super::load::Report;
use super::stage::{APP, Stage};
use crate::cli::client::view::Deployment;
use crate::cli::print;
use crate::cli::table::Table;
use crate::cli::words::took;

pub struct Screen {
    spinner: ProgressBar,
}

fn indented(headers: &[&str], rows: Vec<Vec<String>>) {
    let table = Table {
        headers,
        spare: &[],
        margin: "  ",
    };
    table.show(rows);
}

impl Screen {
    pub fn new() -> Self {
        let spinner = ProgressBar::new_spinner();
        // Truncated to the terminal's width, so that a long line never wraps.
        if let Ok(look) = ProgressStyle::with_template("  {spinner:.cyan} {wide_msg}") {
            spinner.set_style(look);
        }
        Self { spinner }
    }

    pub fn title(&self) {
        let title = style("Cutover: push a commit, and nobody notices").bold();
        print::styled(format_args!("\n  {title}\n"));
    }

    /// Shows what is being waited for.
    pub fn wait(&self, what: &str) {
        if self.spinner.is_finished() {
            self.spinner.reset();
        }
        self.spinner.enable_steady_tick(Duration::from_millis(80));
        self.spinner.set_message(what.to_owned());
    }

    /// Removes the spinner.
    pub fn clear(&self) {
        self.spinner.finish_and_clear();
    }

    /// Reports an act that went as promised.
    pub fn done(&self, what: impl Display) {
        self.print(format_args!("  {} {what}", style("✔").green().bold()));
    }

    /// Reports a step of the set-up.
    pub fn note(&self, what: &str) {
        self.print(format_args!("  {} {what}", style("•").cyan()));
    }

    /// Prints a text of another program.
    pub fn quote(&self, text: &str) {
        if !text.is_empty() {
            self.print(format_args!("      {}", style(text).dim()));
        }
    }

    fn print(&self, line: impl Display) {
        self.clear();
        print::styled(line);
    }

    /// Prints the time of each step, with one column for each deployment.
    pub fn timeline(&self, deployments: &[(&str, &Deployment)]) {
        let mut steps: Vec<&str> = Vec::new();
        for (_, deployment) in deployments {
            for step in &deployment.steps {
                if !steps.contains(&step.name.as_str()) {
                    steps.push(&step.name);
                }
            }
        }
        let millis = |ms: f64| took(Duration::from_secs_f64((ms / 1e3).max(0.0)));
        let mut rows: Vec<Vec<String>> = Vec::new();
        for step in steps {
            let time = |(_, deployment): &(&str, &Deployment)| {
                let ms = deployment.timings_ms.get(step);
                ms.map_or("-".to_owned(), |ms| millis(*ms))
            };
            let mut row = vec![step.to_owned()];
            row.extend(deployments.iter().map(time));
            rows.push(row);
        }
        let mut total = vec!["push to live".to_owned()];
        total.extend(deployments.iter().map(|(_, deployment)| {
            let time = deployment.live_after().map(took);
            time.unwrap_or_else(|| deployment.state.clone())
        }));
        rows.push(total);
        let mut headers = vec!["STEP"];
        headers.extend(deployments.iter().map(|(name, _)| *name));
        print::line("");
        indented(&headers, rows);
    }

    /// Prints the results of the load.
    pub fn report(&self, report: &Report) {
        let rows = report.kinds.iter().map(|(kind, tally)| {
            vec![
                kind.name().to_owned(),
                tally.requests.to_string(),
                tally.failed.to_string(),
                took(tally.slowest),
            ]
        });
        let mut rows: Vec<_> = rows.collect();
        rows.push(vec![
            "all".to_owned(),
            report.requests().to_string(),
            report.failures.len().to_string(),
            String::new(),
        ]);
        print::line("");
        let headers = [
            "LOAD, THROUGH BOTH SWITCHES",
            "REQUESTS",
            "FAILED",
            "SLOWEST",
        ];
        indented(&headers, rows);
        print::line("");
    }

    /// Says where to look and what to try while everything is running.
    pub fn what_now(&self, stage: &Stage, agent: &Agent, program: &Path) {
        let row = |name: &str, value: &dyn Display| {
            print::styled(format_args!("  {:<14} {value}", style(name).bold()));
        };
        row("The app", &format_args!("http://{}", agent.proxy));
        row("The agent", &format_args!("http://{}", agent.address));
        row("Its folder", &stage.folder.display());
        let (config, program) = (stage.config.display(), program.display());
        print::line("\n  Try, in another terminal (v4 is committed; the last line deploys it):");
        for command in [
            format_args!("export CUTOVER_CONFIG={config}"),
            format_args!("cutover={program}"),
            format_args!("$cutover status"),
            format_args!("$cutover deployments {APP}"),
            format_args!("$cutover rollback {APP} --follow"),
            format_args!("curl -X POST -H \"Authorization: Bearer $($cutover token)\" \\"),
            format_args!(
                "  \"http://{}/api/v1/apps/{APP}/deployments?follow=true\"",
                agent.address
            ),
        ] {
            print::line(format_args!("    {command}"));
        }
        print::line("\n  Ctrl-C stops the demo and removes everything.\n");
    }
}
