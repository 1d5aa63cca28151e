//! A push: checked, taken by git, deployed, and followed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::super::push_option;
use super::backend::{self, Backend, read, stream};
use super::commands::{Commands, Update};
use super::packet::{FLUSH, remark};
use super::report::{Report, refused};
use super::{PendingPush, Refusal, Repository, Shared};

const SERVICE: &str = "git-receive-pack";
/// Proxies close a connection on which nothing happens for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What is read of a push that is refused, so that its sender comes to reading the reason.
const DRAIN: usize = 256 << 20;

type Answer = mpsc::Sender<Result<Bytes, std::io::Error>>;

pub(super) async fn receive(
    shared: Arc<Shared>,
    repository: Repository,
    request: Request,
) -> Result<Response, Refusal> {
    let bad = |why: &str| Refusal::new(StatusCode::BAD_REQUEST, why.to_owned());
    let headers = request.headers().clone();
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(bad("compressed requests are not supported"));
    }
    let mut body = request.into_body().into_data_stream();
    let commands = Commands::read(&mut body).await.map_err(bad)?;
    if commands.updates.is_empty() {
        // A client with much to send first asks whether it is let in.
        return Ok(answer(Body::empty()));
    }
    if !commands.can_report {
        return Err(bad(
            "this version of git is too old: it cannot show the outcome of a push",
        ));
    }
    let reasons = reasons(&commands, &repository);
    if !reasons.is_empty() {
        let mut drained = 0;
        while let Some(Ok(chunk)) = body.next().await {
            drained += chunk.len();
            if drained > DRAIN {
                break;
            }
        }
        return Ok(answer(Body::from(refused(&reasons))));
    }
    let pushes = pushes(&commands, &repository);
    (shared.git.begin)(pushes.clone())
        .await
        .map_err(|why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
    let start = Backend::start(&shared, &repository, SERVICE, &Method::POST, &headers, "");
    let mut git = start.await?;
    let (sender, receiver) = mpsc::channel(16);
    // A task of its own: when the pusher hangs up in the middle of the log, what git has taken is
    // deployed all the same.
    tokio::spawn(async move {
        let sending = backend::send(commands.bytes.clone(), body, git.input);
        let taking = take(&mut git.output, &sender);
        let (sent, report) = tokio::join!(sending, taking);
        let _ = git.child.wait().await;
        drop(git.place);
        match (sent, report) {
            (Ok(()), Ok(report)) => follow(&shared, repository, &commands, &report, &sender).await,
            (Err(why), _) => tracing::info!(app = %repository.app, why, "a push broke off"),
            (_, Err(why)) => say(&sender, &format!("the push was rejected: {why}\n")).await,
        }
        // Where this fails they are found at the next start, with nothing left to do for them.
        let _ = (shared.git.end)(pushes).await;
        let _ = sender.send(Ok(Bytes::from_static(FLUSH))).await;
    });
    Ok(answer(Body::from_stream(stream(receiver))))
}

fn answer(body: Body) -> Response {
    let kind = "application/x-git-receive-pack-result";
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        body,
    )
        .into_response()
}

/// Why the push is not taken; empty if it is. All of it or nothing.
fn reasons<'a>(commands: &'a Commands, repository: &Repository) -> Vec<(&'a str, String)> {
    if let Some(why) = push_option::unknown(&commands.options) {
        let refs = commands.updates.iter();
        let refused = refs.map(|update| (update.git_ref.as_str(), why.clone()));
        return refused.collect();
    }
    let mut good = true;
    let mut reasons = Vec::new();
    for update in &commands.updates {
        let why = if let Err(why) = (repository.wants)(&update.git_ref) {
            why
        } else if update.new.bytes().all(|byte| byte == b'0') {
            "a branch or tag that is deployed cannot be deleted".into()
        } else {
            let why = "pushed together with a ref that is refused";
            reasons.push((update.git_ref.as_str(), why.into()));
            continue;
        };
        good = false;
        reasons.push((update.git_ref.as_str(), why));
    }
    if good { Vec::new() } else { reasons }
}

/// What is deployed once git has taken it.
fn pushes(commands: &Commands, repository: &Repository) -> Vec<PendingPush> {
    if commands.has("cutover.skip") {
        return Vec::new();
    }
    let pushed = |update: &Update| {
        Some(PendingPush {
            app: repository.app.clone(),
            git_ref: update.git_ref.clone(),
            commit: update.new.parse().ok()?,
            no_cache: commands.has("cutover.no-cache"),
        })
    };
    commands.updates.iter().filter_map(pushed).collect()
}

/// Passes git's answer on but for its end.
async fn take(output: &mut tokio::process::ChildStdout, sender: &Answer) -> Result<Report, String> {
    let (head, mut piece) = backend::head(output).await?;
    if !head.is_success() {
        return Err("git rejected the push; see the agent's log".into());
    }
    let mut report = Report::default();
    loop {
        let on = report.take(&piece).map_err(str::to_owned)?;
        if !on.is_empty() {
            // A pusher that has gone changes nothing: git is read to its end.
            let _ = sender.send(Ok(Bytes::from(on))).await;
        }
        piece = read(output).await?;
        if piece.is_empty() {
            return Ok(report);
        }
    }
}

async fn follow(
    shared: &Shared,
    repository: Repository,
    commands: &Commands,
    report: &Report,
    sender: &Answer,
) {
    let mut updates = commands.updates.iter();
    if updates
        .clone()
        .any(|update| report.is_shallow(&update.git_ref))
    {
        let advice = "the clone that this was pushed from is shallow: run `git fetch --unshallow` in it, \
                      or set `fetch-depth: 0` where CI checks it out, and push again\n";
        return say(sender, advice).await;
    }
    let Some(update) = updates.find(|update| report.took(&update.git_ref)) else {
        return;
    };
    let hook = repository.path.join("hooks/post-receive");
    if hook.exists() {
        // It has handed the push over already, and its output was part of git's answer.
        return;
    }
    if commands.has("cutover.skip") {
        return say(sender, "stored, not deployed: cutover.skip\n").await;
    }
    let Ok(commit) = update.new.parse() else {
        return say(sender, "stored, not deployed: not a SHA-1 commit\n").await;
    };
    let pushed = (shared.git.pushed)(PendingPush {
        app: repository.app,
        git_ref: update.git_ref.clone(),
        commit,
        no_cache: commands.has("cutover.no-cache"),
    });
    let mut log = match pushed.await {
        Ok(log) => log,
        Err(why) => return say(sender, &format!("stored, not deployed: {why}\n")).await,
    };
    if commands.has("cutover.wait=false") {
        return say(sender, "the deployment is queued\n").await;
    }
    loop {
        let piece = tokio::time::timeout(KEEP_ALIVE, log.recv()).await;
        let packets = match &piece {
            Ok(Some(piece)) => remark(piece),
            Ok(None) => return,
            // An empty remark is shown as nothing.
            Err(_) => b"0005\x02".to_vec(),
        };
        if sender.send(Ok(Bytes::from(packets))).await.is_err() {
            return;
        }
    }
}

async fn say(sender: &Answer, text: &str) {
    let _ = sender.send(Ok(Bytes::from(remark(text.as_bytes())))).await;
}
