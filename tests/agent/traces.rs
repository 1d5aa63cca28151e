//! What a collector of traces gets: bodies as OTLP's JSON has them, of deployments and of requests.

use std::collections::BTreeSet;

use http::Request;
use serde_json::Value;

use crate::notify::receiver;
use crate::server::{File, SETTINGS, Server};
use crate::support::wait::soon;

/// A message's fields have these names, and no others (opentelemetry-proto, JSON mapping).
fn has_only(message: &Value, names: &[&str]) {
    let fields = message.as_object().expect("an object").keys();
    let others: Vec<_> = fields.filter(|it| !names.contains(&it.as_str())).collect();
    assert!(others.is_empty(), "{others:?} in {message}");
}

/// Of this many digits, and not zero.
fn is_id(id: &Value, digits: usize) {
    let text = id.as_str().expect("ids are text");
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    assert!(text.len() == digits && text.bytes().all(hex), "{text}");
    assert!(text.bytes().any(|b| b != b'0'), "{text}");
}

fn attribute<'a>(of: &'a Value, key: &str) -> &'a str {
    let all = of["attributes"].as_array().expect("attributes");
    let value = all
        .iter()
        .find(|it| it["key"] == key)
        .map(|it| &it["value"]);
    let value = value.unwrap_or_else(|| panic!("no {key} in {of}"));
    let text = value.get("stringValue").or(value.get("intValue"));
    text.and_then(Value::as_str)
        .expect("a 64-bit number is text too")
}

fn nanos(value: &Value) -> u64 {
    let text = value.as_str().expect("64-bit numbers are text");
    text.parse().expect("of digits")
}

/// The spans in a body with the names of their services, each checked.
fn spans(body: &str) -> Vec<(String, Value)> {
    let body: Value = serde_json::from_str(body).expect("JSON");
    has_only(&body, &["resourceSpans"]);
    let mut all = Vec::new();
    for resource in body["resourceSpans"].as_array().unwrap() {
        has_only(resource, &["resource", "scopeSpans", "schemaUrl"]);
        has_only(
            &resource["resource"],
            &["attributes", "droppedAttributesCount"],
        );
        let service = attribute(&resource["resource"], "service.name");
        for scope in resource["scopeSpans"].as_array().unwrap() {
            has_only(scope, &["scope", "spans", "schemaUrl"]);
            has_only(&scope["scope"], &["name", "version", "attributes"]);
            for span in scope["spans"].as_array().unwrap() {
                check(span);
                all.push((service.to_owned(), span.clone()));
            }
        }
    }
    all
}

fn check(span: &Value) {
    let names = [
        "traceId",
        "spanId",
        "parentSpanId",
        "name",
        "kind",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "status",
    ];
    has_only(span, &names);
    is_id(&span["traceId"], 32);
    is_id(&span["spanId"], 16);
    if let Some(parent) = span.get("parentSpanId") {
        is_id(parent, 16);
    }
    assert!(span["name"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(span["kind"].is_u64(), "enums are numbers: {span}");
    assert!(nanos(&span["startTimeUnixNano"]) <= nanos(&span["endTimeUnixNano"]));
    assert!(nanos(&span["startTimeUnixNano"]) > 1_700_000_000_000_000_000);
    has_only(&span["status"], &["code", "message"]);
    for attribute in span["attributes"].as_array().unwrap() {
        has_only(attribute, &["key", "value"]);
        has_only(&attribute["value"], &["stringValue", "intValue"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_deployments_and_requests() {
    let unwell = [
        "503 Later\r\nretry-after: 0\r\n",
        "429 Slowly\r\nretry-after: 0\r\n",
        "200 OK\r\n|{\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"too old\"}}",
    ];
    let (collector, got) = receiver(&unwell).await;
    let otlp = format!(
        "\n[agent.otlp]\nendpoint = '{collector}'\nheaders = {{ x-key = {{ env = 'OTLP_KEY' }} }}\nsample = 1\n"
    );
    let mut server = Server::idle(&format!("{SETTINGS}{otlp}")).await;
    server.set_env("OTLP_KEY", "hunter3");
    server.serve().await;
    let live = server.go_live("v1").await;
    let broken = vec![File::new("Dockerfile", "FROM scratch\nCOPY not-there /\n")];
    let failed = server.push_files(&broken, "Break it").await;
    server.ended(&failed).await;
    server.get("/traced").await;
    let all = || -> Vec<(String, Value)> {
        let got = got.lock();
        let each = got.iter().map(|(_, body)| spans(body));
        each.inspect(|spans| assert!(!spans.is_empty(), "nothing to say"))
            .flatten()
            .collect()
    };
    let named = |name: &str| -> Vec<Value> {
        let all = all().into_iter().map(|(_, span)| span);
        all.filter(|span| span["name"] == name).collect()
    };
    let here = soon(async || named("deploy hello").len() == 2 && !named("GET").is_empty()).await;
    assert!(here, "{:?}\n{}", got.lock(), server.log());

    let (head, _) = got.lock()[0].clone();
    assert!(head.starts_with("post /hunter2/v1/traces "), "{head}");
    assert!(
        head.contains("content-type: application/json\r\n"),
        "{head}"
    );
    assert!(head.contains("x-key: hunter3\r\n"), "{head}");
    assert!(head.contains("content-encoding: gzip\r\n"), "{head}");

    let whole = named("deploy hello");
    let of = |id: &str| whole.iter().find(|it| attribute(it, "deployment.id") == id);
    let (good, bad) = (of(&live.id).unwrap(), of(&failed).unwrap());
    assert_eq!(attribute(good, "cicd.pipeline.result"), "success");
    assert_eq!(attribute(good, "deployment.status"), "succeeded");
    assert_eq!(attribute(good, "cutover.app"), "hello");
    assert_eq!(attribute(good, "vcs.ref.head.revision").len(), 40);
    assert!(good["status"].get("code").is_none() && good.get("parentSpanId").is_none());
    assert_eq!(
        (&bad["status"]["code"], &bad["kind"]),
        (&2.into(), &1.into())
    );
    assert_eq!(attribute(bad, "error.type"), "build_failed");
    let steps: BTreeSet<String> = all()
        .into_iter()
        .filter(|(_, span)| span["parentSpanId"] == good["spanId"])
        .map(|(service, span)| {
            assert_eq!((&*service, &span["traceId"]), ("cutover", &good["traceId"]));
            span["name"].as_str().unwrap().to_owned()
        })
        .collect();
    for step in ["fetch", "build", "start", "probe", "switch"] {
        assert!(steps.contains(step), "{steps:?}");
    }

    let (service, request) = all()
        .into_iter()
        .find(|(_, span)| span["kind"] == 2 && attribute(span, "url.path") == "/traced")
        .expect("the request");
    assert_eq!(service, "cutover-proxy");
    assert_eq!(attribute(&request, "server.address"), "hello.test");
    assert_eq!(attribute(&request, "http.request.method"), "GET");
    assert!(attribute(&request, "http.response.status_code").len() == 3);

    // They are counted once the collector's answer has been read.
    let metrics = async || server.ask(Request::get("/metrics"), "").await.text();
    let counted = soon(async || {
        let metrics = metrics().await;
        let mut lines = metrics.lines();
        let sent = lines.find_map(|line| line.strip_prefix("cutover_trace_spans_sent_total "));
        sent.is_some_and(|sent| sent.parse::<u64>().unwrap() > 8)
            && metrics.contains("\ncutover_trace_spans_lost_total 1\n")
    });
    assert!(counted.await, "{}", metrics().await);
    let said = soon(async || server.log().contains("refused 1 spans: too old")).await;
    assert!(said, "{}", server.log());
    assert!(!server.log().contains("hunter3"), "{}", server.log());

    // Turned off, the proxy traces nothing more.
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    std::fs::write(&server.stage.config, text.replace(&otlp, "\n")).unwrap();
    let reloaded = server.cutover(&["reload"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    let table = server.stage.data_dir.join("proxy.sock");
    let table = cutover::proxy::control::Client::new(table).table().await;
    assert_eq!(table.unwrap().traced, 0);
}
