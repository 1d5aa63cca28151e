//! What finds the failures in the other tests finds those that are there.

use std::time::Duration;

use crate::support::demo::load::{Kind, Plan, start};
use crate::support::hello::Hello;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_sent_and_an_app_that_dies_is_noticed() {
    let app = Hello::start(1).await;
    let plan = Plan {
        slow: Duration::from_millis(50),
        ..Plan::new(app.address, "hello.test")
    };

    let load = start(plan.clone());
    load.until_more(200).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.kinds.len(), Kind::ALL.len(), "{report}");
    assert_eq!(
        report.posted.len() as u64,
        report.kinds[&Kind::Post].requests
    );

    let load = start(plan);
    load.until_more(50).await;
    app.stop().await;
    load.until_more(50).await;
    let report = load.stop().await;
    for kind in Kind::ALL {
        assert!(report.kinds[&kind].failed > 0, "{kind:?}\n{report}");
    }
}
