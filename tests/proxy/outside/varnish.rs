//! varnishtest's scripts in `vtc/`: a client and a server in its own language, the proxy between.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::proxy::Proxy;
use crate::support::tool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_script_passes() {
    let Some(varnishtest) = tool::find("varnishtest", "varnish") else {
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxy/outside/vtc");
    let mut scripts: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "vtc"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 8, "{scripts:?}");
    let each = scripts.into_iter().map(|script| {
        let varnishtest = &varnishtest;
        async move {
            let proxy = Proxy::start_with(|o| o.grace = Duration::ZERO).await;
            let app = tool::free_address();
            proxy.publish(1, &[app]).await;
            let mut command = Command::new(varnishtest);
            command
                .arg(format!("-Dproxy={}", proxy.address))
                .arg(format!("-Dapp={app}"))
                .args(["-t", "20"])
                .arg(&script);
            let (passed, said) = tool::output(&mut command).await;
            proxy.stop().await;
            // The lines of what it gave up at, and those before the end.
            let told = said.lines().filter(|line| line.starts_with("----"));
            let told: Vec<_> = told.collect();
            let lines: Vec<_> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            let told = format!("{}: {}\n{last}", script.display(), told.join("; "));
            (!passed).then_some(told)
        }
    });
    let failed: Vec<_> = futures_util::future::join_all(each)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
