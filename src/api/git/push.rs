//! A push: checked, taken by git, deployed, and followed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::super::push_option;
use super::backend::{self, Backend, read, stream};
use super::commands::{Commands, Update};
use super::packet::{FLUSH, remark};
use super::report::{Report, refused};
use super::{Log, PendingPush, Refusal, Repository, Shared};
use crate::deploy::ending;
use crate::deploy::follow::Until;
use crate::deploy::intake::{Moved, Outcome};
use crate::ids::AppName;
use crate::log_limit::limited;
use crate::principal::{Principal, Requester};
use crate::printable::printable;

const SERVICE: &str = "git-receive-pack";
/// How often something is sent while there is nothing to say: proxies close a connection that has been
/// silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How much of a refused push is read, in bytes, so that its sender receives the reason.
const DRAIN: usize = 256 << 20;

type Answer = mpsc::Sender<Result<Bytes, std::io::Error>>;

pub(super) async fn receive(
    shared: Arc<Shared>,
    repository: Repository,
    pusher: Principal,
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
        // A client with much to send first checks whether it is authorized.
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
    // A task of its own, beginning with the first write: if the pusher hangs up, even before git has
    // started, nothing stays pending, and what git has accepted is deployed all the same.
    let (begun, beginning) = oneshot::channel();
    tokio::spawn(async move {
        let pushes = pushes(&commands, &repository, &pusher.who);
        let git = begin(&shared, &repository, &headers, &pushes).await;
        let (sender, receiver) = mpsc::channel(16);
        match git {
            Ok(git) => {
                let _ = begun.send(Ok(answer(Body::from_stream(stream(receiver)))));
                let push = Push {
                    app: &repository.app,
                    commands: &commands,
                    refs: &pushes,
                    pusher: &pusher,
                };
                run(&shared, push, git, body, &sender).await;
            }
            Err(refusal) => drop(begun.send(Err(refusal))),
        }
        // If this fails, the pushes are found at the next start, and nothing is left to do for them.
        let _ = (shared.git.end)(pushes).await;
        let _ = sender.send(Ok(Bytes::from_static(FLUSH))).await;
    });
    let failed = |_| Refusal::failed("the push was interrupted".into());
    beginning.await.map_err(failed)?
}

/// Stores what git is about to accept, and starts git.
async fn begin(
    shared: &Shared,
    repository: &Repository,
    headers: &HeaderMap,
    pushes: &[PendingPush],
) -> Result<Backend, Refusal> {
    (shared.git.begin)(pushes.to_vec())
        .await
        .map_err(|why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
    Backend::start(shared, repository, SERVICE, &Method::POST, headers, "").await
}

/// A push that git is given.
struct Push<'a> {
    app: &'a AppName,
    commands: &'a Commands,
    refs: &'a [PendingPush],
    pusher: &'a Principal,
}

/// Passes the push to git and git's response back, and continues with what git has accepted.
async fn run(
    shared: &Shared,
    push: Push<'_>,
    mut git: Backend,
    body: BodyDataStream,
    sender: &Answer,
) {
    let sending = backend::send(push.commands.bytes.clone(), body, git.input);
    let taking = take(&mut git.output, sender);
    let (sent, report) = tokio::join!(sending, taking);
    let _ = git.child.wait().await;
    drop(git.place);
    let app = push.app;
    match (sent, report) {
        (Ok(()), Ok(report)) => follow(shared, push, &report, sender).await,
        (Err(why), _) => {
            limited!(info, "a push was interrupted", %app, why, "a push was interrupted");
        }
        (_, Err(why)) => say(sender, &format!("git rejected the push: {why}")).await,
    }
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

/// Why the push is refused; empty if it is accepted. A push is accepted completely or not at all.
fn reasons<'a>(commands: &'a Commands, repository: &Repository) -> Vec<(&'a str, String)> {
    if let Some(why) = push_option::unknown(&commands.options) {
        let refs = commands.updates.iter();
        let refused = refs.map(|update| (update.git_ref.as_str(), why.clone()));
        return refused.collect();
    }
    let mut good = true;
    let mut reasons = Vec::new();
    for update in &commands.updates {
        let why = if let Err(why) = (repository.ref_policy)(&update.git_ref) {
            why
        } else if is_zero(&update.new) {
            "a branch or tag that is deployed cannot be deleted".into()
        } else if let Err(why) = Moved::read(&update.git_ref, &update.old, &update.new).new {
            why
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

/// The pushes to decide about once git has accepted them. One that moves a ref to something other than
/// a SHA-1 commit cannot be decided about, and has been refused before.
fn pushes(commands: &Commands, repository: &Repository, pusher: &Requester) -> Vec<PendingPush> {
    let pushed = |update: &Update| {
        Some(PendingPush {
            app: repository.app.clone(),
            git_ref: update.git_ref.clone(),
            old: update.old.parse().ok().filter(|_| !is_zero(&update.old)),
            commit: update.new.parse().ok()?,
            no_cache: commands.has("cutover.no-cache"),
            pull: commands.has("cutover.pull"),
            skip: push_option::SKIP.iter().any(|option| commands.has(option)),
            requested_by: pusher.clone(),
        })
    };
    commands.updates.iter().filter_map(pushed).collect()
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

/// Passes git's response on, except its end.
async fn take(output: &mut tokio::process::ChildStdout, sender: &Answer) -> Result<Report, String> {
    let (head, mut piece) = backend::head(output).await?;
    if !head.is_success() {
        return Err("git rejected the push; see the agent's log".into());
    }
    let mut report = Report::default();
    loop {
        let on = report.take(&piece).map_err(str::to_owned)?;
        if !on.is_empty() {
            // It does not matter if the pusher has gone: git's output is read to its end.
            let _ = sender.send(Ok(Bytes::from(on))).await;
        }
        piece = read(output).await?;
        if piece.is_empty() {
            return Ok(report);
        }
    }
}

/// Tells the pusher the outcome for each ref, and shows the log of each deployment that it led to.
async fn follow(shared: &Shared, push: Push<'_>, report: &Report, sender: &Answer) {
    let mut updates = push.commands.updates.iter();
    if updates.any(|update| report.is_shallow(&update.git_ref)) {
        let advice = "the clone that this was pushed from is shallow: run `git fetch --unshallow` in it, \
                      or set `fetch-depth: 0` where CI checks it out, and push again";
        say(sender, advice).await;
    }
    let taken = push.refs.iter().filter(|one| report.took(&one.git_ref));
    let outcomes = match (shared.git.moved)(taken.cloned().collect()).await {
        Ok(outcomes) => outcomes,
        Err(why) => return say(sender, &format!("stored, not deployed: {why}")).await,
    };
    let sees = |outcome: &Outcome| outcome.app.as_ref().is_none_or(|app| push.pusher.sees(app));
    let outcomes: Vec<_> = outcomes.into_iter().filter(sees).collect();
    for outcome in &outcomes {
        say(sender, &outcome.to_string()).await;
    }
    let led_to = Outcome::deployments(&outcomes);
    let until = push_option::wait(|option| push.commands.has(option));
    for (app, id) in &led_to {
        if until == Until::Now {
            say(sender, &push_option::not_waited_for(id.as_str())).await;
            continue;
        }
        if led_to.len() > 1 {
            say(sender, &ending::section(app.as_str(), id.as_str())).await;
        }
        if show((shared.git.follow)(id.clone(), until), sender)
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Shows a log to its end; `None` if the pusher has gone.
async fn show(mut log: Log, sender: &Answer) -> Option<()> {
    loop {
        let piece = tokio::time::timeout(KEEP_ALIVE, log.recv()).await;
        let packets = match &piece {
            Ok(Some(piece)) => remark(piece),
            Ok(None) => return Some(()),
            // A remark without text is shown as nothing.
            Err(_) => b"0005\x02".to_vec(),
        };
        sender.send(Ok(Bytes::from(packets))).await.ok()?;
    }
}

async fn say(sender: &Answer, line: &str) {
    let remark = remark(format!("{}\n", printable(line)).as_bytes());
    let _ = sender.send(Ok(Bytes::from(remark))).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::Semaphore;

    use super::super::packet::{FLUSH, wrap};
    use super::super::{Found, Git};
    use super::*;

    /// Counts the calls of `begin` and `end`.
    fn shared(calls: &Arc<[AtomicUsize; 2]>, processes: Semaphore) -> Arc<Shared> {
        let count = |index: usize| -> Box<super::super::Step<()>> {
            let calls = calls.clone();
            Box::new(move |push| {
                calls[index].fetch_add(push.len(), SeqCst);
                Box::pin(async { Ok(()) })
            })
        };
        let git = Git {
            repository: Box::new(|_| Found::NoSuchApp),
            nearest: Box::new(|_, _| None),
            principal: Box::new(|_| Box::pin(async { None })),
            begin: count(0),
            end: count(1),
            moved: Box::new(|_| Box::pin(async { Ok(vec![]) })),
            follow: Box::new(|_, _| mpsc::channel(1).1),
        };
        let processes = Arc::new(processes);
        Arc::new(Shared { git, processes })
    }

    #[tokio::test]
    async fn a_push_for_which_git_does_not_start_is_not_left_pending() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository {
            app: "hello".parse().unwrap(),
            path: folder.path().to_owned(),
            branch: "main".to_owned(),
            ref_policy: Arc::new(|_| Ok(())),
        };
        let (old, new) = ("0".repeat(40), "1".repeat(40));
        let command = format!("{old} {new} refs/heads/main\0report-status side-band-64k");
        let body = [wrap(command.as_bytes()), FLUSH.to_vec()].concat();
        let request = Request::new(Body::from(body));
        let calls = Arc::<[AtomicUsize; 2]>::default();
        let processes = Semaphore::new(0);
        processes.close();
        let shared = shared(&calls, processes);
        let pusher = Principal::admin(Requester::Agent);
        let answer = receive(shared, repository, pusher, request).await;
        let status = answer.err().map(|refusal| refusal.status);
        assert_eq!(status, Some(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(calls[0].load(SeqCst), 1);
        let ended = async {
            while calls[1].load(SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        };
        let within = Duration::from_secs(10);
        assert!(
            tokio::time::timeout(within, ended).await.is_ok(),
            "it is still pending"
        );
    }
}
