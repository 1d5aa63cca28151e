//! What a request proves itself with.

use super::answer::Problem;
use crate::config;

/// The token as it is at this moment.
pub async fn read(report: &config::Report) -> Result<String, Problem> {
    let config::Auth::Token(secret) = report.auth.clone();
    let read = tokio::task::spawn_blocking(move || secret.read_text()).await;
    match read {
        Ok(Ok(token)) => Ok(token),
        Ok(Err(error)) => Err(Problem::Refused(error.to_string())),
        Err(error) => Err(Problem::later(format!("reading the token broke: {error}"))),
    }
}
