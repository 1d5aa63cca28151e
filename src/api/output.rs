//! What an app's instances write.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::path::{AppPath, known};
use super::responses::{Malformed, UnknownApp};
use super::{ApiError, Shared};
use crate::deploy::output::{self, Query as Wanted};
use crate::engine::output::Stream;
use crate::principal::{Principal, Role};

const LINES: usize = 100;
const MOST: usize = 10_000;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// Go on with what is written from now on, across switches.
    #[serde(default)]
    #[param(default = false)]
    follow: bool,
    /// How many lines of the past, at most 10000.
    #[param(default = 100, maximum = 10000)]
    lines: Option<usize>,
    /// Only lines since then: a time in RFC 3339, or how long ago, such as `10m`.
    #[param(example = "10m")]
    since: Option<String>,
    /// Only this instance: its name or the end of it.
    #[param(example = "worker-0")]
    instance: Option<String>,
    /// Only instances of this process.
    #[param(example = "worker")]
    process: Option<String>,
    /// Only lines that contain this text.
    grep: Option<String>,
}

/// A line of an app's output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutputLine)]
struct LineView {
    #[schema(format = DateTime, example = "2026-05-04T09:30:01.020304050Z")]
    time: String,
    #[schema(inline)]
    stream: Stream,
    /// Without control characters; of a line longer than 16 KiB, the beginning.
    #[schema(example = "listening on port 8080")]
    text: String,
    /// The container that wrote it.
    #[schema(example = "cutover-hello-d01m5z8k2q4x7a-0")]
    instance: String,
}

/// Read the output of an app
///
/// The lines of all its instances by time, one JSON object a line; of instances that are gone, the last
/// ones are kept.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/logs",
    operation_id = "getOutput",
    tag = "apps",
    params(AppPath, OutputQuery),
    responses(
        (
            status = 200,
            description = "Lines",
            body = LineView,
            content_type = "application/x-ndjson",
        ),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn show(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<OutputQuery>,
) -> Result<Response, ApiError> {
    let app = known(&api, &caller, Role::Read, &path.app).await?;
    let wrong_time = || {
        let message = "`since` must be a time in RFC 3339, or a number of `s`, `m`, `h` or `d`";
        ApiError::bad_request(message)
    };
    let since = query.since.as_deref();
    let since = since.map(|since| time_of(since).ok_or_else(wrong_time));
    let wanted = Wanted {
        lines: query.lines.unwrap_or(LINES).min(MOST),
        since: since.transpose()?,
        instance: query.instance,
        process: query.process,
        grep: query.grep.filter(|text| !text.is_empty()),
        follow: query.follow,
    };
    let lines = output::output(api.agent.clone(), app, wanted);
    let lines = stream::unfold(lines, |mut lines| async move {
        lines.recv().await.map(|line| (line, lines))
    });
    let lines = lines.map(|said| {
        let view = LineView {
            time: said.line.time,
            stream: said.line.stream,
            text: said.line.text,
            instance: said.instance,
        };
        let text = serde_json::to_string(&view)? + "\n";
        Ok::<_, serde_json::Error>(Bytes::from(text))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// In seconds since 1970.
pub fn time_of(text: &str) -> Option<i64> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time.unix_timestamp());
    }
    Some(OffsetDateTime::now_utc().unix_timestamp() - i64::from(seconds(text)?))
}

/// A number of `s`, `m`, `h` or `d`, in seconds.
pub fn seconds(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = number.parse().ok()?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(time_of("1970-01-01T00:01:00Z"), Some(60));
        let ago = OffsetDateTime::now_utc().unix_timestamp() - time_of("2h").unwrap();
        assert!((7200..7205).contains(&ago));
        for wrong in ["", "m", "-1m", "5", "5w", "yesterday", "9999999999d", "ä"] {
            assert_eq!(time_of(wrong), None, "{wrong}");
        }
    }
}
