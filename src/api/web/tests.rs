//! Signing in and out, forms, roles and headers, without a browser.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use tower::ServiceExt;

use crate::api::peer::Peer;
use crate::api::{Api, fixture, router};

struct Site {
    api: Arc<Api>,
    router: Router,
}

/// A page, as a browser gets it.
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    /// The cookies that it sets, as a request sends them.
    fn cookies(&self) -> String {
        let all = self.headers.get_all("set-cookie").iter();
        let pairs = all.map(|it| it.to_str().unwrap().split(';').next().unwrap().to_owned());
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// The value of the first hidden field of this name.
    fn field(&self, name: &str) -> String {
        let begin = format!("name=\"{name}\" value=\"");
        let rest = self.text.split(&begin).nth(1);
        let rest = rest.unwrap_or_else(|| panic!("no {name} in {}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Site {
    async fn new(folder: &Path) -> Self {
        let api = fixture::api(folder).await;
        let router = router(api.clone());
        Self { api, router }
    }

    async fn send(&self, request: axum::http::request::Builder, body: String) -> Got {
        let mut request = request.body(Body::from(body)).unwrap();
        let peer = Peer([192, 0, 2, 1].into());
        request.extensions_mut().insert(peer);
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = to_bytes(body, 1 << 22).await.unwrap();
        Got {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    async fn get(&self, path: &str, cookies: &str) -> Got {
        let request = Request::get(path)
            .header("cookie", cookies)
            .header("accept", "text/html");
        self.send(request, String::new()).await
    }

    async fn post(&self, path: &str, cookies: &str, body: String) -> Got {
        let request = Request::post(path)
            .header("cookie", cookies)
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(request, body).await
    }

    async fn try_to_sign_in(&self, token: &str) -> Got {
        let form = self.get("/sign-in?next=/server", "").await;
        let body = format!("csrf={}&next=/server&token={token}", form.field("csrf"));
        self.post("/sign-in", &form.cookies(), body).await
    }

    async fn sign_in(&self, token: &str) -> String {
        let got = self.try_to_sign_in(token).await;
        assert_eq!(
            (got.status, got.header("location")),
            (StatusCode::SEE_OTHER, "/server")
        );
        got.cookies()
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    for path in [
        "/",
        "/apps/hello",
        "/server",
        "/apps/hello/deploy",
        "/live",
        "/deployments/x/log",
    ] {
        let got = site.get(path, "").await;
        assert_eq!(got.status, StatusCode::SEE_OTHER, "{path}");
        assert!(
            got.header("location").starts_with("/sign-in?next=%2F"),
            "{path}"
        );
        let got = site
            .get(path, &format!("cutover_{}=00", site.api.agent.id))
            .await;
        assert_eq!(got.status, StatusCode::SEE_OTHER, "{path}");
    }
    let got = site.post("/apps/hello/deploy", "", String::new()).await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
    let wrong = site.try_to_sign_in("wrong").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.text.contains("role=\"alert\""));
    // As often as the API refuses a token; the right one is let in all the same.
    let mut last = StatusCode::OK;
    for _ in 0..120 {
        last = site.try_to_sign_in("wrong").await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    site.sign_in("right").await;
}

#[tokio::test]
async fn a_link_of_another_site_is_followed_with_the_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let request = Request::get("/deployments/d1?x=\"><b>").header("sec-fetch-site", "cross-site");
    assert!(request.body(()).is_err(), "such a path is none");
    let request = Request::get("/deployments/d1?x=1").header("sec-fetch-site", "cross-site");
    let got = site.send(request, String::new()).await;
    assert_eq!(got.status, StatusCode::OK);
    assert!(
        got.text
            .contains("http-equiv=\"refresh\" content=\"0; url=/deployments/d1?x=1\"")
    );
}

#[tokio::test]
async fn a_session_is_closed_to_scripts_and_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let got = site.try_to_sign_in("right").await;
    let cookie = got.header("set-cookie").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains("Secure"), "{cookie}");
    let form = site.get("/sign-in", "").await;
    let request = Request::post("/sign-in")
        .header("cookie", form.cookies())
        .header("x-forwarded-proto", "https");
    let body = format!("csrf={}&token=right", form.field("csrf"));
    let over_https = site.send(request, body).await;
    assert!(over_https.header("set-cookie").ends_with("; Secure"));

    let cookies = got.cookies();
    let home = site.get("/", &cookies).await;
    assert_eq!(home.status, StatusCode::OK);
    assert!(home.text.contains("/apps/hello") && home.text.contains("/apps/far"));
    assert!(
        !home.text.contains(cookies.split('=').nth(1).unwrap()),
        "no secret in a page"
    );
    let csrf = home.field("csrf");
    let out = site
        .post("/sign-out", &cookies, format!("csrf={csrf}"))
        .await;
    assert_eq!(out.header("location"), "/sign-in");
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(site.get("/", &cookies).await.status, StatusCode::SEE_OTHER);
    let replayed = site
        .post("/apps/hello/deploy", &cookies, format!("csrf={csrf}"))
        .await;
    assert_eq!(replayed.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_form_works_only_in_the_session_that_it_was_made_for() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let (one, two) = (site.sign_in("right").await, site.sign_in("right").await);
    let page = site.get("/apps/hello/deploy", &one).await;
    assert_eq!(page.status, StatusCode::OK);
    let csrf = page.field("csrf");
    for body in [String::new(), "csrf=".into(), "csrf=wrong".into()] {
        let got = site.post("/apps/hello/deploy", &one, body).await;
        assert_eq!(got.status, StatusCode::FORBIDDEN);
    }
    let stolen = site
        .post("/apps/hello/deploy", &two, format!("csrf={csrf}"))
        .await;
    assert_eq!(stolen.status, StatusCode::FORBIDDEN);
    let list = site.get("/apps/hello", &one).await;
    assert!(list.text.contains("None yet"), "nothing was done");
    let done = site
        .post("/apps/hello/deploy", &one, format!("csrf={csrf}"))
        .await;
    assert!(
        done.header("location").starts_with("/deployments/d"),
        "{}",
        done.text
    );
    let shown = site.get(done.header("location"), &one).await;
    assert!(shown.text.contains("waiting"), "{}", shown.text);
    let cancel = format!("{}/cancel", done.header("location"));
    let cancelled = site.post(&cancel, &one, format!("csrf={csrf}")).await;
    let shown = site.get(cancelled.header("location"), &one).await;
    assert!(
        shown.text.contains("cancelled by token <code>admin</code>"),
        "{}",
        shown.text
    );
}

#[tokio::test]
async fn who_may_only_read_has_no_buttons_and_no_way_around_them() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let reader = site.sign_in("reader").await;
    let page = site.get("/apps/hello", &reader).await;
    assert!(!page.text.contains("/apps/hello/deploy"), "{}", page.text);
    let csrf = page.field("csrf");
    for path in [
        "/apps/hello/deploy",
        "/apps/hello/rollback",
        "/apps/hello/restart",
    ] {
        assert_eq!(
            site.get(path, &reader).await.status,
            StatusCode::FORBIDDEN,
            "{path}"
        );
        let got = site.post(path, &reader, format!("csrf={csrf}")).await;
        assert_eq!(got.status, StatusCode::FORBIDDEN, "{path}");
    }
    let server = site.get("/server", &reader).await;
    assert!(!server.text.contains("tokens-head"), "{}", server.text);
    // Only its own session is shown, and only its own can be ended.
    let admin = site.sign_in("right").await;
    let all = site.get("/server", &admin).await;
    let others = all.field("session");
    let got = site.post(
        "/sessions/end",
        &admin,
        format!("csrf={}&session={others}", all.field("csrf")),
    );
    assert_eq!(got.await.status, StatusCode::SEE_OTHER);
    assert_eq!(site.get("/", &reader).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_one_time_link_signs_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let request = Request::post("/api/v1/links").header("authorization", "Bearer reader");
    let link: serde_json::Value =
        serde_json::from_str(&site.send(request, String::new()).await.text).unwrap();
    let path = link["path"].as_str().unwrap();
    let opened = site.get(path, "").await;
    assert_eq!(opened.header("location"), "/");
    let home = site.get("/", &opened.cookies()).await;
    assert!(
        home.text.contains("token <code>reader</code>"),
        "{}",
        home.text
    );
    assert_eq!(site.get(path, "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whoever_signed_in_with_a_token_that_is_revoked_is_out() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let api = |request: axum::http::request::Builder, body: &str| {
        let request = request.header("authorization", "Bearer right");
        site.send(request, body.to_owned())
    };
    let body = r#"{"name": "ci", "role": "deploy", "apps": ["hello"], "expires": "1h"}"#;
    let created = api(Request::post("/api/v1/tokens"), body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let created: serde_json::Value = serde_json::from_str(&created.text).unwrap();
    let cookies = site.sign_in(created["secret"].as_str().unwrap()).await;
    let home = site.get("/", &cookies).await;
    assert!(home.text.contains("/apps/hello") && !home.text.contains("/apps/far"));
    assert_eq!(
        site.get("/apps/far", &cookies).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        site.get("/apps/hello/deploy", &cookies).await.status,
        StatusCode::OK
    );
    let list = api(Request::get("/api/v1/tokens"), "").await.text;
    assert!(
        !list.contains(created["secret"].as_str().unwrap()),
        "{list}"
    );
    let again = api(Request::post("/api/v1/tokens"), body).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let revoked = api(Request::delete("/api/v1/tokens/ci"), "").await;
    assert_eq!(revoked.status, StatusCode::OK);
    assert_eq!(site.get("/", &cookies).await.status, StatusCode::SEE_OTHER);
    let admin = site.sign_in("right").await;
    let server = site.get("/server", &admin).await;
    assert!(server.text.contains("revoke-token"), "{}", server.text);
}

#[tokio::test]
async fn every_page_is_guarded_small_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let cookies = site.sign_in("right").await;
    for path in [
        "/",
        "/apps/hello",
        "/apps/hello/deploy",
        "/apps/nobody",
        "/server",
        "/sign-in",
        "/nowhere",
    ] {
        let got = site.get(path, &cookies).await;
        let policy = got.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        assert_eq!(got.header("cache-control"), "no-store", "{path}");
        assert!(
            got.text.starts_with("<!DOCTYPE html>"),
            "{path}: {}",
            got.text
        );
        assert!(
            !got.text.contains(" style=") && !got.text.contains("<style"),
            "{path}"
        );
        assert!(got.text.len() < 60_000, "{path}");
    }
    let page = site.get("/", &cookies).await;
    let request = Request::get("/")
        .header("cookie", &cookies)
        .header("accept-encoding", "gzip, br");
    let small = site.send(request, String::new()).await;
    assert_eq!(small.header("content-encoding"), "gzip");
    assert!(small.text.len() < page.text.len());
    let style = page
        .text
        .split("href=\"")
        .find(|it| it.contains("style.css"))
        .unwrap();
    let style = style.split('"').next().unwrap();
    let got = site.get(style, "").await;
    assert!(got.header("cache-control").contains("immutable"));
    let request = Request::get(style).header("if-none-match", got.header("etag"));
    assert_eq!(
        site.send(request, String::new()).await.status,
        StatusCode::NOT_MODIFIED
    );
    assert_eq!(
        site.get("/assets/0/style.css", "").await.status,
        StatusCode::NOT_FOUND
    );
    // For programs, what is missing is JSON.
    let request = Request::get("/nowhere").header("accept", "*/*");
    assert_eq!(
        site.send(request, String::new())
            .await
            .header("content-type"),
        "application/json"
    );
}

#[tokio::test]
async fn a_card_says_what_its_app_waits_for_and_that_it_is_being_removed() {
    use crate::state::{Event, Step};
    use crate::store::{app_names, deployments, fixture as rows};
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(folder.path()).await;
    let begin = site.api.agent.store.write(|db| {
        let id = rows::release(db, 1)?.deployment;
        for step in [Step::Fetch, Step::Build, Step::Start, Step::Probe] {
            deployments::apply(db, &id, Event::Begin(step))?;
        }
        Ok(())
    });
    begin.await.unwrap();
    let cookie = site.sign_in("right").await;
    let shown = site.get("/", &cookie).await.text;
    assert!(
        !shown.contains("waiting for Docker") && !shown.contains("being removed"),
        "{shown}"
    );
    site.api.agent.tend.engine_is_away();
    let app = "hello".parse().unwrap();
    let remove = move |db: &_| app_names::begin_removal(db, &app, false);
    site.api.agent.store.write(remove).await.unwrap();
    let shown = site.get("/", &cookie).await.text;
    assert!(
        shown.contains("waiting for Docker") && shown.contains("being removed"),
        "{shown}"
    );
    let shown = site.get("/apps/hello", &cookie).await.text;
    assert!(shown.contains("This app is being removed"), "{shown}");
}
