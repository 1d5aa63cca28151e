//! Every page of the dashboard, in both themes and narrow and wide, as axe-core
//! (<https://github.com/dequelabs/axe-core>) sees it. With `CUTOVER_SCREENSHOTS=FOLDER`, what was looked at is
//! kept as images.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::browser::Browser;
use crate::dashboard::signed_in;
use crate::server::{APP, File, SETTINGS, Server};

const VERSION: &str = "4.10.3";

/// The script, from npm, kept outside of the checkout; `None` where npm is missing and may be.
fn axe() -> Option<String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or("/tmp".into())).join(".cache");
    let folder = cache.unwrap_or_else(home).join("cutover/axe").join(VERSION);
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        let mut npm = Command::new("npm");
        let npm = npm
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
            .arg("--prefix")
            .arg(&folder)
            .arg(format!("axe-core@{VERSION}"));
        match npm.output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) if std::env::var_os("CI").is_some() => panic!("npm: {error}"),
            Err(_) => {
                println!("skipped: npm is missing");
                return None;
            }
        }
    }
    Some(std::fs::read_to_string(script).unwrap())
}

/// What is wrong, and serious, on the page that is open.
async fn problems(browser: &Browser, axe: &str) -> Vec<String> {
    browser.run(axe).await;
    let found = browser
        .run(
            "return axe.run(document).then(found => found.violations
                .filter(it => ['serious', 'critical'].includes(it.impact))
                .flatMap(it => it.nodes.map(node => it.id + ': ' + node.html.slice(0, 200) + ' '
                    + node.failureSummary.replaceAll('\\n', ' '))))",
        )
        .await;
    let found = found.as_array().cloned().expect("a list");
    found.iter().map(Value::to_string).collect()
}

async fn keep(browser: &Browser, folder: &Path, name: &str) {
    let image = browser.picture().await;
    let image = STANDARD.decode(image).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(format!("{name}.png")), image).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_shuts_anybody_out() {
    let Some(axe) = axe() else { return };
    let kept = std::env::var_os("CUTOVER_SCREENSHOTS").map(PathBuf::from);
    let cron = "[apps.hello.cron.tidy]\nschedule = \"0 3 * * *\"\ncommand = [\"/hello\", \"exit\", \"0\"]\n";
    let mut server = Server::with(&format!("{SETTINGS}{cron}")).await;
    server.go_live("v1").await;
    server.go_live("v2").await;
    for _ in 0..40 {
        server.get("/").await;
    }
    let live = format!("/api/v1/apps/{APP}/deployments?state=live");
    let live = server.api(&live).await["items"][0]["id"].clone();
    let live = live.as_str().unwrap();
    let broken = [File::new("Dockerfile", "FROM scratch\nCOPY not-there /\n")];
    let failed = server.push_files(&broken, "Break it").await;
    server.ended(&failed).await;
    let made = server.cutover(&["token", "create", "ci", "--role", "deploy"]);
    assert!({ made }.output().unwrap().status.success());

    let (browser, site) = signed_in(&mut server).await;
    let app = format!("/apps/{APP}");
    let pages = [
        ("apps", "/".to_owned()),
        ("app", app.clone()),
        ("deployment", format!("/deployments/{live}")),
        ("failed", format!("/deployments/{failed}")),
        ("deploy", format!("{app}/deploy")),
        ("rollback", format!("{app}/rollback")),
        ("restart", format!("{app}/restart")),
        ("scale", format!("{app}/scale")),
        ("stop", format!("{app}/stop")),
        ("pin", format!("{app}/pin")),
        ("maintenance", format!("{app}/maintenance")),
        ("log", format!("{app}/log")),
        ("deliveries", format!("{app}/deliveries")),
        ("server", "/server".to_owned()),
        ("missing", "/apps/nobody".to_owned()),
        ("sign-in", "/sign-in".to_owned()),
    ];
    let mut wrong = Vec::new();
    for theme in ["light", "dark"] {
        for width in [1280, 360] {
            browser.show(theme, width).await;
            for (name, path) in &pages {
                browser.open(&format!("{site}{path}")).await;
                let found = problems(&browser, &axe).await;
                wrong.extend(
                    found
                        .iter()
                        .map(|it| format!("{name}, {theme}, {width}: {it}")),
                );
                let wide = browser
                    .run("return document.documentElement.scrollWidth - innerWidth")
                    .await;
                if wide.as_i64().unwrap_or_default() > 0 {
                    wrong.push(format!("{name}, {theme}, {width}: {wide} pixels too wide"));
                }
                if let Some(folder) = &kept {
                    keep(&browser, folder, &format!("{name}-{theme}-{width}")).await;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    server.stop().await;
}
