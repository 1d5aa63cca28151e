//! Sends what has been traced since the last time, every other second.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::json::{Service, Span, body};
use super::{deployment, request};
use crate::config::Otlp;
use crate::deploy::Agent;
use crate::notify::forge::backoff;
use crate::notify::people::{Problem, exchange};
use crate::outbound::Outbound;
use crate::printable::printable;
use crate::store::traced::{self, Told};

const TICK: Duration = Duration::from_secs(2);
/// The longest pause after a failure: what is watched is the present.
const LONGEST: Duration = Duration::from_secs(60);
/// The most deployments of a batch.
const DEPLOYMENTS: usize = 20;

/// What is sent in one go.
struct Batch {
    body: Bytes,
    spans: u64,
    /// What is recorded once it is sent.
    told: Option<Told>,
    /// Whether more waits.
    more: bool,
}

/// Sends until it is dropped, which is safe at any time: a deployment whose sending was not recorded is sent
/// again, with the same ids.
pub async fn start(agent: Arc<Agent>) {
    let outbound = match Outbound::new() {
        Ok(outbound) => outbound,
        Err(error) => {
            tracing::error!("no traces are sent until the agent is restarted: {error}");
            return;
        }
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut waiting, mut attempts, mut until) = (None, 0, Instant::now());
    let (mut forgotten, mut told) = (false, None);
    loop {
        ticks.tick().await;
        let in_force = agent.in_force();
        let Some(otlp) = &in_force.config.agent.otlp else {
            (waiting, told) = (None, None);
            // Else what ends from now on would be sent if it is ever turned on again.
            if !forgotten {
                forgotten = agent.store.write(traced::forget).await.is_ok();
            }
            continue;
        };
        forgotten = false;
        if Instant::now() < until {
            continue;
        }
        if told.is_none() {
            told = agent.store.write(traced::told).await.ok();
        }
        let Some(told) = &mut told else { continue };
        loop {
            let batch = match waiting.take() {
                Some(batch) => batch,
                None => match gather(&agent, otlp, told).await {
                    Some(batch) => batch,
                    None => break,
                },
            };
            // A deployment that has begun is remembered, and there is nothing to be said of it yet.
            let sent = match batch.spans {
                0 => None,
                _ => Some(send(&outbound, otlp, batch.body.clone()).await),
            };
            match sent {
                None => {}
                Some(Ok(refused)) => {
                    let refused = refused.min(batch.spans);
                    if attempts > 0 {
                        tracing::info!("traces are sent again");
                    }
                    attempts = 0;
                    let sent = batch.spans.saturating_sub(refused);
                    agent.traces.sent.fetch_add(sent, Relaxed);
                    agent.traces.lost.fetch_add(refused, Relaxed);
                }
                Some(Err(Problem::Later { wait, why })) => {
                    if attempts == 0 {
                        tracing::warn!("traces are not sent at the moment: the collector: {why}");
                    }
                    until = Instant::now() + wait.unwrap_or(backoff(attempts)).min(LONGEST);
                    attempts += 1;
                    waiting = Some(batch);
                    break;
                }
                // The next batch may be taken.
                Some(Err(Problem::Refused(why))) => {
                    crate::log_limit::limited!(
                        warn,
                        "traces were refused",
                        "traces were refused, and are lost: {why}"
                    );
                    agent.traces.lost.fetch_add(batch.spans, Relaxed);
                }
            }
            if let Some(next) = batch.told {
                *told = next.clone();
                let recorded = agent.store.write(move |db| traced::record(db, &next)).await;
                if let Err(error) = recorded {
                    tracing::warn!(%error, "failed to record which deployments were traced");
                }
            }
            if !batch.more {
                break;
            }
        }
    }
}

/// What is there to be sent now.
async fn gather(agent: &Agent, otlp: &Otlp, told: &Told) -> Option<Batch> {
    let told = told.clone();
    let read = agent.store.read(move |db| {
        let (ended, next) = traced::ended(db, &told, DEPLOYMENTS)?;
        Ok((ended, (next != told).then_some(next)))
    });
    let (ended, told) = match read.await {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, "failed to read which deployments have ended");
            (Vec::new(), None)
        }
    };
    let mut more = ended.len() == DEPLOYMENTS;
    let deployments: Vec<Span> = ended.iter().flat_map(deployment::spans).collect();
    let mut requests = Vec::new();
    // A proxy of an older version traces nothing.
    if otlp.sample > 0
        && let Ok(taken) = agent.proxy.spans().await
    {
        agent.traces.lost.fetch_add(taken.lost, Relaxed);
        more |= taken.more;
        requests.extend(taken.spans.into_iter().map(request::span));
    }
    let spans = (deployments.len() + requests.len()) as u64;
    if spans == 0 && told.is_none() {
        return None;
    }
    let instance = agent.id.to_string();
    let service = |name| Service {
        name,
        instance: &instance,
    };
    let services = [
        (service("cutover"), deployments),
        (service("cutover-proxy"), requests),
    ];
    Some(Batch {
        body: gzip(&body(services).to_string()).ok()?.into(),
        spans,
        told,
        more,
    })
}

/// Returns how many spans the collector did not take.
async fn send(outbound: &Outbound, otlp: &Otlp, body: Bytes) -> Result<u64, Problem> {
    let secrets = otlp.headers.clone();
    // Secrets are read from files, which may be slow.
    let read = tokio::task::spawn_blocking(move || {
        let read = |(name, secret): (String, crate::config::Secret)| {
            secret.read_text().map(|value| (name, value))
        };
        secrets.into_iter().map(read).collect::<Result<Vec<_>, _>>()
    });
    let later = |why: String| Problem::Later { wait: None, why };
    let read = read.await.map_err(|error| later(error.to_string()))?;
    let mut request = Request::post(otlp.endpoint.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_ENCODING, "gzip")
        .header(
            header::USER_AGENT,
            concat!("cutover/", env!("CARGO_PKG_VERSION")),
        );
    for (name, value) in read.map_err(|error| later(error.to_string()))? {
        let unfit = || later(format!("the value of `{name}` is not one line of text"));
        let mut value = HeaderValue::try_from(value).map_err(|_| unfit())?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body));
    let request = request.map_err(|error| later(error.to_string()))?;
    let answer = exchange(outbound, request).await?;
    Ok(refused(&answer))
}

/// What a collector says that took a part only (OTLP's `partialSuccess`); any answer is taken for good otherwise.
fn refused(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let partial = &answer["partialSuccess"];
    // 64-bit numbers are text in JSON, but not everybody's.
    let count = &partial["rejectedSpans"];
    let refused = count.as_u64().or_else(|| count.as_str()?.parse().ok());
    let refused = refused.unwrap_or_default();
    if let Some(why) = partial["errorMessage"]
        .as_str()
        .filter(|why| !why.is_empty())
    {
        let why: String = printable(why).chars().take(300).collect();
        crate::log_limit::limited!(
            warn,
            "spans were refused",
            "the collector of traces refused {refused} spans: {why}"
        );
    }
    refused
}

fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text.as_bytes())?;
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn a_collector_may_take_a_part() {
        for (answer, count) in [
            ("", 0),
            ("{}", 0),
            ("not JSON", 0),
            ("{\"partialSuccess\":{}}", 0),
            (
                "{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"too old\"}}",
                3,
            ),
            ("{\"partialSuccess\":{\"rejectedSpans\":2}}", 2),
            ("{\"partialSuccess\":{\"rejectedSpans\":-1}}", 0),
        ] {
            assert_eq!(refused(answer.as_bytes()), count, "{answer}");
        }
    }
}
