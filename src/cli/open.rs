//! `cutover open`: a link that signs in to the dashboard.

use std::process::{Command, Stdio};

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::{Error, Global, configuration, print};
use crate::config::Config;

/// Open the dashboard, signed in: prints a link that works once, within two minutes
#[derive(Debug, Args)]
pub struct Open {
    /// Only print the link
    #[arg(long)]
    print: bool,
}

/// Prints the link, and opens it where there is a browser.
pub async fn run(args: Open, global: &Global) -> Result<(), Error> {
    let client = Client::new(global)?;
    let answer = client.post("/api/v1/links", &Value::Null).await?;
    let path = answer["path"].as_str().unwrap_or("/");
    let link = format!("{}{path}", base(global)?);
    print::line(&link);
    if let Some(here) = here(global)? {
        print::line(format_args!("or, on this machine, {here}{path}"));
    }
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if has_screen && !args.print {
        // Where it cannot be opened, it is still printed.
        let _ = Command::new("xdg-open")
            .arg(&link)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
    }
    Ok(())
}

/// The address at which a browser finds the agent.
fn base(global: &Global) -> Result<String, Error> {
    if let Some(url) = &global.url {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let (_, config) = configuration::load(global)?;
    if let Some(domain) = &config.agent.domain {
        return Ok(config.url(domain));
    }
    Ok(listens(&config))
}

/// The same without the domain, which DNS may not know yet; `None` if there is none.
fn here(global: &Global) -> Result<Option<String>, Error> {
    if global.url.is_some() {
        return Ok(None);
    }
    let (_, config) = configuration::load(global)?;
    Ok(config.agent.domain.is_some().then(|| listens(&config)))
}

fn listens(config: &Config) -> String {
    // With port 0 in the configuration, only the agent knows.
    let path = config.agent.data_dir.join("agent.addr");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let address: Value = serde_json::from_str(&text).unwrap_or_default();
    let address = address["http"].as_str().map(str::to_owned);
    let address = address.unwrap_or_else(|| config.agent.listen.to_string());
    format!("http://{address}")
}
