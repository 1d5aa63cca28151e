//! A real browser, Chromium, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>), which is JSON
//! over HTTP.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use ::http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::free_address;
use crate::support::demo::http;
use crate::support::wait::soon;

/// The key by which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with a profile of its own. Dropped, it is closed.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let address = free_address();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let driver = driver.expect("chromedriver runs (Debian: chromium-driver)");
        let mut browser = Self {
            driver,
            address,
            session: String::new(),
            _profile: profile,
        };
        assert!(soon(async || http::get(address, "localhost", "/status").await.is_ok()).await);
        let arguments = [
            "--headless",
            "--hide-scrollbars",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.post("/session", capabilities).await;
        let session = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{session}");
        browser
    }

    /// What the driver answers; it says in words what went wrong.
    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(path, body)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn ask(&self, path: &str, body: Value) -> Result<Value, String> {
        let path = format!("{}{path}", self.session);
        let request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/json");
        let answer = http::send(self.address, request, body.to_string()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status.is_success() {
            true => Ok(answer.json()["value"].clone()),
            false => Err(answer.text()),
        }
    }

    pub async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Runs a script's body and gives what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] }))
            .await
    }

    async fn find(&self, css: &str) -> Result<String, String> {
        let body = json!({ "using": "css selector", "value": css });
        let found = self.ask("/element", body).await?;
        Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned())
    }

    /// Clicks what a selector finds first, as a person does: it has to be in view. The page may bring that
    /// part up to date just then.
    pub async fn click(&self, css: &str) {
        for _ in 0..10 {
            let element = self.find(css).await;
            let element = element.unwrap_or_else(|error| panic!("{css}: {error}"));
            let click = format!("/element/{element}/click");
            match self.ask(&click, json!({})).await {
                Ok(_) => return,
                Err(error) if error.contains("stale element") => {}
                Err(error) => panic!("{css}: {error}"),
            }
        }
        panic!("{css}: it changes all the time");
    }

    /// Types into what a selector finds first.
    pub async fn enter(&self, css: &str, text: &str) {
        let element = self
            .find(css)
            .await
            .unwrap_or_else(|error| panic!("{css}: {error}"));
        let body = json!({ "text": text });
        self.post(&format!("/element/{element}/value"), body).await;
    }

    /// Presses keys wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("/actions", json!({ "actions": [keyboard] }))
            .await;
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.post("/goog/cdp/execute", body).await
    }

    /// From now on, pages are shown in this theme and this wide.
    pub async fn show(&self, theme: &str, width: u32) {
        let feature = json!({ "name": "prefers-color-scheme", "value": theme });
        let media = json!({ "features": [feature] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
        let size =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// The whole page as a PNG, in base64.
    pub async fn picture(&self) -> String {
        let all = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.devtools("Page.captureScreenshot", all).await;
        picture["data"].as_str().unwrap_or_default().to_owned()
    }

    /// The visible text of the page.
    pub async fn text(&self) -> String {
        let text = self.run("return document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page's visible text says `text`.
    pub async fn until(&self, text: &str) {
        let said = soon(async || self.text().await.contains(text)).await;
        assert!(said, "no `{text}` in:\n{}", self.text().await);
    }

    /// What the browser complained about since the last call: errors of scripts, refused by the policy,
    /// not found. A connection that broke off because its server went away is none.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({ "type": "browser" })).await;
        let lines = log.as_array().cloned().unwrap_or_default().into_iter();
        let lines = lines.filter_map(|line| Some(line["message"].as_str()?.to_owned()));
        lines.filter(|line| !line.contains("net::ERR_")).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver closes its browser when its session is deleted; this also runs while a test unwinds.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                let request = Request::delete(&self.session).header("host", "localhost");
                let _ = runtime.block_on(http::send(self.address, request, Vec::new()));
            });
        });
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
