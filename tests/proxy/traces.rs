//! Some of the requests are traced: what the app is told of that, and what the agent fetches.

use std::net::SocketAddr;

use cutover::proxy::control::Span;
use cutover::proxy::table::Table;

use crate::front::{get, mirror};
use crate::proxy::{Proxy, route};
use crate::support::wait::soon;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

async fn publish(proxy: &Proxy, generation: u64, traced: u32, target: SocketAddr) {
    let table = Table {
        traced,
        ..Table::new(generation, vec![route("app", 1, &[target])])
    };
    proxy.client.publish(&table).await.unwrap();
}

/// The one span that is there, once it is.
async fn only(proxy: &Proxy) -> Span {
    let mut all = Vec::new();
    let found = soon(async || {
        all.extend(proxy.client.spans().await.unwrap().spans);
        !all.is_empty()
    });
    assert!(found.await);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The values of a field in the head that the app got.
fn fields(answer: &str, name: &str) -> Vec<String> {
    let start = format!("{name}: ");
    let lines = answer.lines().filter_map(|line| line.strip_prefix(&start));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_traced_request_goes_on_in_its_trace_below_the_proxy_s_span() {
    let proxy = Proxy::start().await;
    let target = mirror().await;
    publish(&proxy, 1, 1_000_000, target).await;
    let sent = format!("traceparent: 00-{TRACE}-{SPAN}-00\r\ntracestate: a=b\r\n");
    let answer = get(&proxy, "a.test:81", "/x?token=1", &sent).await;
    let span = only(&proxy).await;
    assert_eq!((&*span.trace, span.parent.as_deref()), (TRACE, Some(SPAN)));
    let passed = format!("00-{TRACE}-{}-01", span.id);
    assert_eq!(fields(&answer, "traceparent"), [passed]);
    assert_eq!(fields(&answer, "tracestate"), ["a=b"]);
    let (app, path, outcome) = (&*span.app, &*span.path, &*span.outcome);
    assert_eq!((app, path, outcome), ("app", "/x", "answered"));
    let (method, host) = (&*span.method, &*span.host);
    assert_eq!((method, host, span.status), ("GET", "a.test:81", 200));
    assert!(span.took_us > 0 && span.began_us > 0, "{span:?}");

    // One without a trace, or with an invalid one, begins a trace.
    for sent in ["", "traceparent: 00-1-2-01\r\ntracestate: a=b\r\n"] {
        let answer = get(&proxy, "a.test", "/", sent).await;
        let span = only(&proxy).await;
        assert_eq!(span.parent, None);
        assert_ne!(span.trace, TRACE);
        let passed = format!("00-{}-{}-01", span.trace, span.id);
        assert_eq!(fields(&answer, "traceparent"), [passed]);
        assert_eq!(fields(&answer, "tracestate"), [""; 0]);
    }

    // What the proxy answers itself is traced too.
    publish(&proxy, 2, 1_000_000, "127.0.0.1:1".parse().unwrap()).await;
    get(&proxy, "a.test", "/", "").await;
    let span = only(&proxy).await;
    assert_eq!((span.status, &*span.outcome), (503, "connect"));
    proxy.stop().await;
}

#[tokio::test]
async fn all_others_are_passed_on_as_they_are() {
    let proxy = Proxy::start().await;
    let target = mirror().await;
    publish(&proxy, 1, 1_000_000, target).await;
    publish(&proxy, 2, 0, target).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let sent = format!("traceparent: {parent}\r\ntracestate: a=b\r\n");
    let answer = get(&proxy, "a.test", "/", &sent).await;
    assert_eq!(fields(&answer, "traceparent"), [parent]);
    assert_eq!(fields(&answer, "tracestate"), ["a=b"]);
    let answer = get(&proxy, "a.test", "/", "").await;
    assert_eq!(fields(&answer, "traceparent"), [""; 0]);
    let taken = proxy.client.spans().await.unwrap();
    assert_eq!((taken.spans.len(), taken.lost), (0, 0));
    proxy.stop().await;
}
