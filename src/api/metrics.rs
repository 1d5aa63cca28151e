//! The metrics of the agent and the proxy, in Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::responses::Unauthorized;
use super::{ApiError, Shared, auth};
use crate::certificates::names::Name;
use crate::deploy::tend::Tend;
use crate::deploy::traces::Traces;
use crate::ids::AppName;
use crate::proxy::control::RouteStats;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Read the metrics of the agent and the proxy
///
/// In Prometheus' text format, version 0.0.4. If `agent.domain` is set, only for whoever has a token for all
/// apps, or comes over the Unix socket.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "agent",
    responses(
        (
            status = 200,
            description = "The metrics",
            body = String,
            content_type = "text/plain",
            example = "# HELP cutover_proxy_up Whether the proxy answers the agent.\n\
                       # TYPE cutover_proxy_up gauge\ncutover_proxy_up 1\n",
        ),
        (status = 401, response = Unauthorized),
    ),
)]
pub async fn metrics(State(api): Shared, request: Request) -> Result<Response, ApiError> {
    if !auth::sees_server(&api, &request.into_parts().0).await {
        return Err(auth::unauthorized());
    }
    let deployments = api.agent.store.read(crate::store::deployments::counts);
    let deployments = deployments.await.unwrap_or_default();
    let mut text = Families::default();
    let states = deployments
        .into_iter()
        .map(|(app, state, count)| (format!("app=\"{app}\",state=\"{state}\""), count));
    text.family(
        "cutover_deployments",
        "gauge",
        "Deployments by state.",
        states,
    );
    tended(&mut text, &api.agent.tend);
    if let Ok((names, _)) = super::certificates::all(&api).await {
        certificates(&mut text, &names);
    }
    traces(&mut text, &api.agent.traces);
    let routes = api.agent.proxy.stats().await;
    let up = [("".to_owned(), u64::from(routes.is_ok()))];
    let help = "Whether the proxy answers the agent.";
    text.family("cutover_proxy_up", "gauge", help, up);
    proxy(
        &mut text,
        &api.agent.totals.take(routes.unwrap_or_default()),
    );
    Ok(([(header::CONTENT_TYPE, TEXT)], text.0).into_response())
}

/// Adds what the reconciler has found and done.
fn tended(text: &mut Families, tend: &Tend) {
    let of = |app: AppName, count: u64| (format!("app=\"{app}\""), count);
    text.family(
        "cutover_instances_down",
        "gauge",
        "Instances of live releases that do not serve.",
        tend.down().into_iter().map(|(app, count)| of(app, count)),
    );
    let repaired = tend.repaired().into_iter();
    text.family(
        "cutover_instances_repaired_total",
        "counter",
        "Times that an instance was brought back, by what had become of it.",
        repaired.map(|((app, was), count)| (format!("app=\"{app}\",was=\"{was}\""), count)),
    );
    text.family(
        "cutover_instance_crashes_total",
        "counter",
        "Times that an instance of a live release ended by itself.",
        tend.crashed()
            .into_iter()
            .map(|(app, count)| of(app, count)),
    );
    text.family(
        "cutover_instance_oom_kills_total",
        "counter",
        "Times that an instance of a live release was killed because it used more memory than it may.",
        tend.out_of_memory()
            .into_iter()
            .map(|(app, count)| of(app, count)),
    );
}

/// Adds what became of the spans of traces.
fn traces(text: &mut Families, traces: &Traces) {
    for (name, help, count) in [
        (
            "cutover_trace_spans_sent_total",
            "Spans that the collector has taken.",
            &traces.sent,
        ),
        (
            "cutover_trace_spans_lost_total",
            "Spans that the collector refused, or that were let go while it was down.",
            &traces.lost,
        ),
    ] {
        text.family(
            name,
            "counter",
            help,
            [(String::new(), count.load(Relaxed))],
        );
    }
}

/// Adds the names that are served over TLS.
fn certificates(text: &mut Families, names: &[Name]) {
    let of = |it: &Name| format!("name=\"{}\"", it.name);
    let expiry = names.iter().filter_map(|it| {
        let leaf = it.leaf.as_ref()?;
        Some((of(it), leaf.not_after / 1000))
    });
    text.family(
        "cutover_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the certificate of a name expires.",
        expiry,
    );
    let failing = names
        .iter()
        .map(|it| (of(it), u64::from(it.problem.is_some())));
    text.family(
        "cutover_certificate_problem",
        "gauge",
        "Whether something is wrong with the certificate of a name.",
        failing,
    );
}

/// Families of samples, in the text format.
#[derive(Default)]
struct Families(String);

impl Families {
    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }
}

fn proxy(text: &mut Families, apps: &BTreeMap<String, RouteStats>) {
    let routes: Vec<_> = apps
        .iter()
        .map(|(app, route)| (format!("app=\"{app}\""), route))
        .collect();
    let each = |value: fn(&RouteStats) -> u64| {
        let sample = |(labels, route): &(String, &RouteStats)| (labels.clone(), value(route));
        routes.iter().map(sample).collect::<Vec<_>>()
    };
    let mut classes = Vec::new();
    for (labels, route) in &routes {
        let answered: u64 = route.by_class.iter().sum();
        // Requests that got no response at all, mostly because the client did not wait for it.
        let none = route.requests.saturating_sub(answered);
        let of = |class: &str| format!("{labels},class=\"{class}\"");
        let names = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        classes.extend(names.map(of).into_iter().zip(route.by_class));
        classes.push((of("none"), none));
    }
    text.family(
        "cutover_requests_total",
        "counter",
        "Requests that have ended, by the class of the status that the client got.",
        classes,
    );
    let mut causes = Vec::new();
    for (labels, route) in &routes {
        for (cause, count) in route.failures.by_cause() {
            causes.push((format!("{labels},cause=\"{cause}\""), count));
        }
    }
    text.family(
        "cutover_requests_failed_total",
        "counter",
        "Requests that did not get the app's whole answer, by cause.",
        causes,
    );
    text.family(
        "cutover_requests_retried_total",
        "counter",
        "Requests sent again: certainly not processed, or harmless to repeat.",
        each(|route| route.retried),
    );
    text.family(
        "cutover_requests_rescued_total",
        "counter",
        "Requests that this release failed and another one of the app answered.",
        each(|route| route.rescued),
    );
    text.family(
        "cutover_requests_in_flight",
        "gauge",
        "Requests that are under way.",
        each(|route| route.in_flight),
    );
    text.family(
        "cutover_websockets",
        "gauge",
        "WebSockets and other tunnels that are open.",
        each(|route| route.websockets),
    );
    text.family(
        "cutover_websockets_closed_total",
        "counter",
        "WebSockets that were told to come back to a newer release.",
        each(|route| route.websockets_closed),
    );
    text.family(
        "cutover_requests_header_too_long_total",
        "counter",
        "Requests that were refused with 431, because their header is too long.",
        each(|route| route.long_requests),
    );
    let name = "cutover_request_duration_seconds";
    let help = "From a request's arrival to the end of its answer.";
    text.head(name, "histogram", help);
    for (labels, route) in &routes {
        histogram(text, name, labels, route);
    }
}

/// Adds a histogram. The proxy's bucket bounds double; every second one is enough here.
fn histogram(text: &mut Families, name: &str, labels: &str, route: &RouteStats) {
    let (mut below, last) = (0, route.latency_us.len().saturating_sub(1));
    for (i, (bound_us, count)) in route.latency_us.iter().enumerate() {
        below += count;
        let bound = match i {
            i if i == last => "+Inf".to_owned(),
            i if i % 2 == 0 && i >= 6 => format!("{}", *bound_us as f64 / 1e6),
            _ => continue,
        };
        text.sample(
            &format!("{name}_bucket"),
            &format!("{labels},le=\"{bound}\""),
            below,
        );
    }
    let sum = route.latency_sum_us as f64 / 1e6;
    text.sample(&format!("{name}_sum"), labels, sum);
    text.sample(&format!("{name}_count"), labels, below);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::totals::Totals;
    use crate::proxy::control::{Failures, State};

    fn route(generation: u64) -> RouteStats {
        RouteStats {
            app: "hello".into(),
            release: "r1".into(),
            generation,
            state: State::Serving,
            requests: 7,
            by_class: [0, 4, 0, 1, 1],
            failures: Failures {
                timeout: 1,
                client: 1,
                ..Default::default()
            },
            retried: 2,
            rescued: 1,
            in_flight: 3,
            websockets: 1,
            websockets_closed: 5,
            long_requests: 6,
            latency_us: (0..28).map(|i| (1 << i, u64::from(i == 7))).collect(),
            latency_sum_us: 1_500_000,
        }
    }

    fn text(routes: Vec<RouteStats>) -> String {
        let mut text = Families::default();
        proxy(&mut text, &Totals::default().take(routes));
        text.0
    }

    #[test]
    fn every_counter_has_its_line_once() {
        let text = text(vec![route(1), route(2)]);
        let of = |name: &str, more: &str| {
            let labels = format!("app=\"hello\"{more}");
            let start = format!("{name}{{{labels}}} ");
            let lines: Vec<_> = text
                .lines()
                .filter_map(|l| l.strip_prefix(&start))
                .collect();
            assert_eq!(lines.len(), 1, "{start}\n{text}");
            lines[0].parse::<f64>().unwrap()
        };
        let requests = "cutover_requests_total";
        assert_eq!(of(requests, ",class=\"2xx\""), 8.0);
        assert_eq!(of(requests, ",class=\"none\""), 2.0);
        let failed = "cutover_requests_failed_total";
        assert_eq!(of(failed, ",cause=\"timeout\""), 2.0);
        assert_eq!(of(failed, ",cause=\"client\""), 2.0);
        assert_eq!(of("cutover_requests_retried_total", ""), 4.0);
        assert_eq!(of("cutover_requests_rescued_total", ""), 2.0);
        assert_eq!(of("cutover_requests_in_flight", ""), 6.0);
        assert_eq!(of("cutover_websockets", ""), 2.0);
        assert_eq!(of("cutover_websockets_closed_total", ""), 10.0);
        let long = of("cutover_requests_header_too_long_total", "");
        assert_eq!(long, 12.0);
        let took = "cutover_request_duration_seconds";
        let bucket = format!("{took}_bucket");
        assert_eq!(of(&bucket, ",le=\"0.000064\""), 0.0);
        assert_eq!(of(&bucket, ",le=\"0.000256\""), 2.0);
        assert_eq!(of(&bucket, ",le=\"+Inf\""), 2.0);
        assert_eq!(of(&format!("{took}_count"), ""), 2.0);
        assert_eq!(of(&format!("{took}_sum"), ""), 3.0);
    }

    /// What the examples name has to exist.
    #[test]
    fn the_examples_name_only_metrics_that_exist() {
        let source = include_str!("metrics.rs");
        for example in [
            include_str!("../../examples/watch/alerts.yml"),
            include_str!("../../examples/watch/grafana.json"),
        ] {
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            let names: std::collections::BTreeSet<_> = example
                .split(word)
                .filter(|it| it.starts_with("cutover_"))
                .map(|it| it.strip_suffix("_bucket").unwrap_or(it))
                .collect();
            assert!(names.len() > 5, "{names:?}");
            for name in names {
                assert!(source.contains(&format!("\"{name}\"")), "{name}");
            }
        }
    }

    #[test]
    fn every_sample_belongs_to_a_family_that_was_announced() {
        let text = text(vec![route(1)]);
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family) && !family.is_empty(), "{line}");
            }
        }
    }
}
