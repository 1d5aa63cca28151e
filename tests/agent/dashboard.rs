//! The dashboard in a real browser: sign in, watch a push go live, roll back, read why a build failed.

use ::http::Request;
use serde_json::{Value, json};

use crate::bake_traffic;
use crate::browser::Browser;
use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::demo::http::Answer;
use crate::support::wait::soon;

const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

/// Signed in by a one-time link.
pub async fn signed_in(server: &mut Server) -> (Browser, String) {
    let site = format!("http://{}", server.agent().address);
    let browser = Browser::start().await;
    let link = server.cutover(&["open", "--print"]).output().unwrap();
    let link = String::from_utf8(link.stdout).unwrap();
    assert!(link.starts_with(&format!("{site}/open?code=")), "{link}");
    browser.open(link.trim()).await;
    browser.until("Apps").await;
    (browser, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_watched_and_rolled_back_in_the_browser() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let site = format!("http://{}", server.agent().address);
    let browser = Browser::start().await;

    // By keyboard alone: the form, then the app, the first thing after the navigation.
    browser.open(&site).await;
    browser.enter("#token", "wrong").await;
    browser.press(ENTER).await;
    browser.until("not a token that is accepted here").await;
    // That the browser says that the sign-in was refused is no fault.
    browser.complaints().await;
    browser.enter("#token", &server.token()).await;
    browser.press(ENTER).await;
    browser.until("serving").await;
    browser.run("document.querySelector('main').focus()").await;
    browser.press(TAB).await;
    browser.press(ENTER).await;
    browser.until("Deployments").await;

    // A push goes live in the page that is open.
    browser.run("window.stays = true").await;
    let id = server.push("v2", "").await;
    browser.until("v2").await;
    server.ended(&id).await;
    let live = "return document.querySelector('#deployments li').innerText";
    let shown = soon(async || {
        let first = browser.run(live).await.to_string();
        first.contains("live") && first.contains("v2")
    });
    assert!(shown.await, "{}", browser.text().await);
    assert_eq!(browser.run("return window.stays").await, true, "no reload");

    // The way back says from what to what.
    browser.click("a[href$='/rollback']").await;
    browser.until("It does not undo").await;
    let text = browser.text().await;
    let (from, to) = (text.find("v2").unwrap(), text.find("v1").unwrap());
    assert!(from < to, "{text}");
    browser.click("form.actions button.main").await;
    browser.until("rolled back by token admin").await;
    browser.until("serves now").await;
    // The page knows it from the record, a moment before the proxy has the route.
    assert!(soon(async || server.version().await == "v1").await);

    // A build that fails: why comes first.
    let broken = vec![File::new("Dockerfile", "FROM scratch\nCOPY not-there /\n")];
    let id = server.push_files(&broken, "Break it").await;
    browser.open(&format!("{site}/deployments/{id}")).await;
    browser.until("failed").await;
    let failed = soon(async || {
        let error = browser
            .run("return document.getElementById('error')?.innerText")
            .await;
        error.to_string().contains("not-there")
    });
    assert!(failed.await, "{}", browser.text().await);
    browser.until("[build] failed").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_that_the_agent_is_away_and_comes_back() {
    let mut server = Server::start().await;
    // Its address has to stay the same.
    let address = server.agent().address.to_string();
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replacen("127.0.0.1:0", &address, 1);
    std::fs::write(&server.stage.config, text).unwrap();
    let (browser, _) = signed_in(&mut server).await;
    browser.run("window.stays = true").await;
    server.agent().kill().await.unwrap();
    browser.until("The agent does not answer").await;
    server.serve().await;
    let back = soon(async || !browser.text().await.contains("does not answer")).await;
    assert!(back, "{}", browser.text().await);
    server.go_live("v1").await;
    browser.until("serving").await;
    assert_eq!(browser.run("return window.stays").await, true);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_s_log_is_followed_through_a_switch() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let (browser, site) = signed_in(&mut server).await;
    browser.open(&format!("{site}/apps/{APP}/log")).await;
    browser.until("v1 listens").await;
    browser.run("window.stays = true").await;
    server.go_live("v2").await;
    browser.until("v2 listens").await;
    browser.until("v1 listens").await;
    assert_eq!(browser.run("return window.stays").await, true, "no reload");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    server.stop().await;
}

/// Runs where it becomes part of a page, in whichever way.
const HOSTILE: &str = "\"'><img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>";

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_only_text() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let mut ids = vec![server.push_files(&files(HOSTILE, ""), HOSTILE).await];
    server.ended(&ids[0]).await;
    // In a build's output, and in its error.
    let dockerfile = format!(
        "FROM scratch\nCOPY [\"{}\", \"/\"]\n",
        "<img src=x onerror=window.pwned=1>"
    );
    ids.push(
        server
            .push_files(&[File::new("Dockerfile", dockerfile)], HOSTILE)
            .await,
    );
    server.ended(&ids[1]).await;
    let body = json!({ "ref": HOSTILE.replace([' ', '"'], "") }).to_string();
    let request = Request::post(format!("/api/v1/apps/{APP}/deployments"))
        .header("authorization", format!("Bearer {}", server.token()));
    let asked: Value = server.ask(request, body).await.json();
    if let Some(id) = asked["id"].as_str() {
        server.ended(id).await;
        ids.push(id.to_owned());
    }
    // A commit whose author, message and branch are all of that kind: git itself would not write it.
    let (author, branch) = (HOSTILE.replace('\n', ""), HOSTILE.replace([' ', '"'], ""));
    let id = hostile_commit(&server.stage.repo, &author, &format!("refs/heads/{branch}"));
    let body = json!({ "ref": id }).to_string();
    let request = Request::post(format!("/api/v1/apps/{APP}/deployments"))
        .header("authorization", format!("Bearer {}", server.token()));
    let asked: Value = server.ask(request, body).await.json();
    let id = asked["id"].as_str().unwrap().to_owned();
    let (ended, _) = server.ended(&id).await;
    assert_eq!(ended.state, "live", "{ended:?}");
    let shown = server.api(&format!("/api/v1/deployments/{id}")).await;
    assert!(
        shown["author"].as_str().unwrap().contains("<script>"),
        "{shown}"
    );
    ids.push(id);
    // The app's own output.
    let said = server.cutover(&["logs", APP]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("<img src=x"), "{said}");
    // A browser that signs in says what it is.
    let link = server.cutover(&["open", "--print"]).output().unwrap();
    let link = String::from_utf8(link.stdout).unwrap();
    let path = link.trim().split_once("/open").unwrap().1;
    let open = Request::get(format!("/open{path}")).header("user-agent", HOSTILE);
    server.ask(open, "").await;
    let (browser, site) = signed_in(&mut server).await;
    let mut paths = vec![
        "/".into(),
        format!("/apps/{APP}"),
        "/server".into(),
        format!("/apps/{APP}/rollback"),
    ];
    paths.extend(ids.iter().map(|id| format!("/deployments/{id}")));
    let query: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    paths.push(format!("/apps/{APP}/log"));
    paths.push(format!("/apps/{APP}/deliveries"));
    paths.push(format!("/apps/{APP}/log?grep={query}&instance={query}"));
    paths.push(format!("/apps/{query}"));
    for path in &paths {
        browser.open(&format!("{site}{path}")).await;
        let found = browser.run("return [window.pwned ?? 0, document.querySelectorAll('main img, main script, body > img, body > script').length]").await;
        assert_eq!(found, json!([0, 0]), "{path}");
        let text = browser.text().await;
        let complaints = browser.complaints().await;
        let complaints: Vec<_> = complaints.iter().filter(|it| !it.contains("404")).collect();
        assert!(complaints.is_empty(), "{path}: {complaints:?}\n{text}");
    }
    browser
        .open(&format!("{site}/deployments/{}", ids[0]))
        .await;
    browser.until("<img src=x").await;
    server.stop().await;
}

/// What a visitor asks for is named where a release is rolled back for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_s_path_is_only_text() {
    let settings = bake_traffic::SETTINGS.replace("\"5s\"", "\"60s\"");
    let mut server = Server::with(&settings).await;
    let path = "/'\"%3Cimg%20src=x%20onerror=1";
    bake_traffic::baking(&server, "v1", "").await;
    bake_traffic::visit(&mut server, path, 10).await;
    let id = bake_traffic::baking(&server, "v2", &format!("fail 1 {path}")).await;
    bake_traffic::visit(&mut server, path, 20).await;
    let (bad, log) = server.ended(&id).await;
    assert_eq!(bad.state, "rolled_back", "{log:#?}");
    let (browser, site) = signed_in(&mut server).await;
    for place in [
        format!("/deployments/{id}"),
        format!("/apps/{APP}"),
        "/".into(),
    ] {
        browser.open(&format!("{site}{place}")).await;
        let found = browser
            .run("return [...document.querySelectorAll('main img, [onerror]')].length")
            .await;
        assert_eq!(found, 0, "{place}");
        assert_eq!(browser.complaints().await, Vec::<String>::new(), "{place}");
    }
    browser.open(&format!("{site}/deployments/{id}")).await;
    browser.until("%3Cimg%20src=x%20onerror=1").await;
    server.stop().await;
}

/// Points a ref to a commit like the newest that works, by this author and with that as its message too.
fn hostile_commit(repo: &std::path::Path, author: &str, git_ref: &str) -> String {
    let git = git2::Repository::open(repo).unwrap();
    let newest = git.head().unwrap().peel_to_commit().unwrap();
    let good = newest.parent(0).unwrap();
    let who = "<x@example.com> 1700000000 +0000";
    let text = format!(
        "tree {}\nparent {}\nauthor {author} {who}\ncommitter {author} {who}\n\n{author}\n",
        good.tree_id(),
        newest.id()
    );
    let odb = git.odb().unwrap();
    let id = odb
        .write(git2::ObjectType::Commit, text.as_bytes())
        .unwrap();
    git.reference(git_ref, id, true, "hostile").unwrap();
    id.to_string()
}

/// Presses a button without a browser: the page's form with what it carries.
async fn press(server: &Server, cookie: &str, page: &str) -> Answer {
    filled(server, cookie, page, &[]).await
}

/// The same, with fields filled in.
pub async fn filled(server: &Server, cookie: &str, page: &str, more: &[(&str, &str)]) -> Answer {
    let get = |path: &str| Request::get(path.to_owned()).header("cookie", cookie);
    let shown = server.ask(get(page), "").await.text();
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    let main = shown.split("<main").nth(1).unwrap();
    for field in main.split("<input type=\"hidden\" ").skip(1) {
        let value = |name: &str| {
            let rest = field.split(&format!("{name}=\"")).nth(1).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        body.append_pair(&value("name"), &value("value"));
    }
    for (name, value) in more {
        assert!(main.contains(&format!("name=\"{name}\"")), "{name}: {main}");
        body.append_pair(name, value);
    }
    let request = Request::post(page).header("cookie", cookie);
    server.ask(request, body.finish()).await
}

pub async fn cookie(server: &Server) -> String {
    let link = server.cutover(&["open", "--print"]).output().unwrap();
    let link = String::from_utf8(link.stdout).unwrap();
    let path = link.trim().split_once("/open").unwrap().1;
    let opened = server.ask(Request::get(format!("/open{path}")), "").await;
    let cookie = opened.headers["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_who_roll_back_at_once_cause_one_rollback() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    server.go_live("v2").await;
    let (one, two) = (cookie(&server).await, cookie(&server).await);
    let page = format!("/apps/{APP}/rollback");
    let (first, second) = tokio::join!(press(&server, &one, &page), press(&server, &two, &page));
    let place = |answer: &Answer| answer.headers.get("location").cloned();
    assert!(place(&first).is_some(), "{}", first.text());
    // The second one comes to the first one's deployment, or too late.
    if place(&second) != place(&first) {
        assert_eq!(second.status, 409, "{}", second.text());
    }
    let id = place(&first).unwrap();
    let id = id.to_str().unwrap().rsplit_once('/').unwrap().1;
    assert_eq!(server.ended(id).await.0.state, "live");
    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    let all = list["items"].as_array().unwrap();
    let rollbacks = all.iter().filter(|it| it["trigger"] == "rollback");
    assert_eq!(rollbacks.count(), 1, "{list}");
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_scaled_on_its_page() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let cookie = cookie(&server).await;
    let page = format!("/apps/{APP}/scale");
    let scaled = filled(&server, &cookie, &page, &[("process-web", "2")]).await;
    let place = scaled.headers["location"].to_str().unwrap().to_owned();
    let id = place.strip_prefix("/deployments/").unwrap();
    assert_eq!(server.ended(id).await.0.state, "live");
    let scale = async || server.api(&format!("/api/v1/apps/{APP}/scale")).await["replicas"].clone();
    assert_eq!(scale().await, 2);
    // The same again changes nothing; what cannot be is refused; empty means what deploy.toml says.
    let again = filled(&server, &cookie, &page, &[("process-web", "2")]).await;
    assert_eq!(again.headers["location"], format!("/apps/{APP}").as_str());
    for wrong in ["0", "101", "many"] {
        let refused = filled(&server, &cookie, &page, &[("process-web", wrong)]).await;
        assert_eq!(refused.status.as_u16(), 400, "{wrong}");
    }
    let back = filled(&server, &cookie, &page, &[("process-web", "")]).await;
    assert!(back.headers.contains_key("location"), "{}", back.text());
    assert_eq!(scale().await, Value::Null);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_pinned_and_put_under_maintenance() {
    let bake = SETTINGS.replace("bake = \"0s\"", "bake = \"2s\"");
    assert_ne!(bake, SETTINGS);
    let mut server = Server::with(&bake).await;
    server.go_live("v1").await;
    let cookie = cookie(&server).await;
    let page = format!("/apps/{APP}");
    let shown = async || {
        let get = Request::get(page.clone()).header("cookie", &cookie);
        server.ask(get, "").await.text()
    };
    let fields = [("text", "until <b>Monday</b>")];
    let pinned = filled(&server, &cookie, &format!("{page}/pin"), &fields).await;
    assert!(pinned.headers.contains_key("location"), "{}", pinned.text());
    let text = shown().await;
    assert!(text.contains("until &lt;b&gt;Monday"), "{text}");
    let id = server.push("v2", "").await;
    assert_eq!(server.ended(&id).await.0.state, "skipped");
    assert_eq!(server.version().await, "v1");
    filled(&server, &cookie, &format!("{page}/pin"), &[]).await;

    // Visitors who are turned away on purpose cost a new release nothing.
    let fields = [("text", "Back at noon.")];
    let path = format!("{page}/maintenance");
    filled(&server, &cookie, &path, &fields).await;
    let answer = server.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["retry-after"], "60");
    assert_eq!(answer.text(), "Back at noon.\n");
    let id = server.push("v3", "").await;
    let visitors = async {
        loop {
            assert_eq!(server.get("/").await.status, 503);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ended = server.ended(&id) => assert_eq!(ended.0.state, "live"),
        () = visitors => {}
    }
    let off = server.cutover(&["maintenance", APP, "--off"]).status();
    assert!(off.unwrap().success());
    assert_eq!(server.version().await, "v3");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_stopped_and_started_and_its_scheduled_commands_are_shown() {
    let cron = "[apps.hello.cron.bad]\nschedule = \"0 0 29 2 *\"\ncommand = [\"/hello\", \"exit\", \"3\"]\n";
    let mut server = Server::with(&format!("{SETTINGS}{cron}")).await;
    server.go_live("v1").await;
    let cookie = cookie(&server).await;
    let run = server.cutover(&["cron", APP, "bad", "--run"]).status();
    assert!(run.unwrap().success());
    let page = format!("/apps/{APP}");
    let shown = async || {
        let get = Request::get(page.clone()).header("cookie", &cookie);
        server.ask(get, "").await.text()
    };
    let failed = soon(async || shown().await.contains("code 3")).await;
    assert!(failed, "{}", shown().await);

    let place = |answer: &Answer| {
        let place = answer.headers.get("location").cloned();
        let place = place.unwrap_or_else(|| panic!("{}", answer.text()));
        place.to_str().unwrap().to_owned()
    };
    let stopped = press(&server, &cookie, &format!("{page}/stop")).await;
    assert_eq!(place(&stopped), page);
    let text = shown().await;
    assert!(
        text.contains("Stopped ") && text.contains("/start\""),
        "{text}"
    );
    assert_eq!(server.get("/").await.status, 503);
    let started = press(&server, &cookie, &format!("{page}/start")).await;
    let place = place(&started);
    let id = place.strip_prefix("/deployments/").unwrap();
    assert_eq!(server.ended(id).await.0.state, "live");
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}
