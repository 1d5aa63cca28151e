//! 200 MB of output: of which Docker keeps 30, and a page a little.

use std::time::{Duration, Instant};

use crate::dashboard::signed_in;
use crate::server::{APP, SETTINGS, Server};

const LINES: usize = 20_000;
const WORKER: &str = "[apps.hello.processes.worker]
command = [\"/hello\", \"work\"]
health = { running = \"100ms\" }
";

/// What the agent has of its own, in bytes.
fn memory(server: &mut Server) -> u64 {
    let pid = server.agent().child.id().unwrap();
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_200_mb_is_followed_and_its_page_stays_usable() {
    let mut server = Server::with(&format!("{SETTINGS}{WORKER}")).await;
    server.go_live("v1").await;
    let (browser, site) = signed_in(&mut server).await;
    let log = format!("{site}/apps/{APP}/log");
    browser.open(&log).await;
    browser.until("v1 works").await;
    let before = memory(&mut server);

    server.push("v2", &format!("worker-prints {LINES}")).await;
    let begun = Instant::now();
    let (mut largest, mut slowest, mut most) = (0, Duration::ZERO, 0);
    loop {
        let asked = Instant::now();
        let script = "const text = document.getElementById('output').textContent; \
                      return [text.length, text.includes('v2 has printed'), text.includes('v2 works')]";
        let seen = browser.run(script).await;
        slowest = slowest.max(asked.elapsed());
        largest = largest.max(seen[0].as_u64().unwrap());
        most = most.max(memory(&mut server));
        if seen[1] == true {
            break;
        }
        let late = begun.elapsed() > Duration::from_secs(240);
        assert!(!late, "{seen}, {largest}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let used = most.saturating_sub(before);
    println!(
        "{LINES} lines in {:?}: at most {largest} characters, {used} bytes, {slowest:?}",
        begun.elapsed()
    );
    assert!(largest < 2_200_000, "{largest}");
    assert!(used < 100 << 20, "{used}");

    // Opened anew, its end is there at once, and more of it on request.
    let size = "return performance.getEntriesByType('navigation')[0].decodedBodySize";
    for (path, most) in [
        (log.clone(), 400_000),
        (format!("{log}?more=yes"), 3_000_000),
    ] {
        let asked = Instant::now();
        browser.open(&path).await;
        browser.until("v2 has printed").await;
        let size = browser.run(size).await.as_u64().unwrap();
        println!("{path}: {size} bytes in {:?}", asked.elapsed());
        assert!(size < most, "{path}: {size}");
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    server.stop().await;
}
