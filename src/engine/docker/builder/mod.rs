//! Builds and names images with the BuildKit that is part of the Docker Engine.

use std::io;
use std::sync::Arc;

use bollard::moby::buildkit::v1::StatusResponse;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::TagImageOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;

use super::{Docker, EngineError, Result, build_rank, status_code};
use crate::engine::files::{FileEntry, FileKind, Files};
use crate::engine::{BuildFailure, BuildSpec, BuiltImage};
use crate::mask::Mask;
use crate::store::log::Log;

mod attributes;
mod cache;
mod call;
mod logins;
mod mask;
mod messages;
mod progress;
mod query;
mod secrets;
mod session;
mod solve;
mod sources;
mod ssh;
mod tar;

use call::{Body, call};
pub(super) use logins::login;
use mask::{hidden, mask_of};
use messages::messages;
use progress::Progress;
use secrets::Values;
use session::{Services, Session};
use sources::Sources;
use ssh::Agents;

/// The longest message of a refusal, in bytes.
const LONGEST: usize = 64 << 10;

/// Why steps run where Docker places them, if nothing else is the reason.
const NO_SERVICE: &str =
    "Docker, or what stands between it and the agent, does not pass requests on to BuildKit";

/// What the engine says while it builds.
enum Said {
    Status(StatusResponse),
    /// The image's id, last of all.
    Image(Option<String>),
    Failed(String),
    Nothing,
}

impl Docker {
    pub async fn build(
        &self,
        spec: &BuildSpec<'_>,
        dockerfile: Arc<Mutex<dyn Files>>,
        context: Arc<Mutex<dyn Files>>,
        log: Option<&Log>,
    ) -> std::result::Result<BuiltImage, BuildFailure> {
        let build = self.run_build(spec, dockerfile, context, log);
        match self.build_group().await {
            None => build.await,
            Some(group) => tokio::select! {
                built = build => built,
                never = build_rank::keep(group, self.builds.clone()) => match never {},
            },
        }
    }

    async fn run_build(
        &self,
        spec: &BuildSpec<'_>,
        dockerfile: Arc<Mutex<dyn Files>>,
        context: Arc<Mutex<dyn Files>>,
        log: Option<&Log>,
    ) -> std::result::Result<BuiltImage, BuildFailure> {
        let services = Services {
            sources: Arc::new(Sources {
                context: context.clone(),
                dockerfile,
            }),
            secrets: Arc::new(Values(spec.secrets.clone())),
            ssh: Arc::new(Agents(spec.ssh.clone())),
        };
        let session = Session::open(&self.host, spec.shared_key, services).await;
        let session = session.map_err(|error| self.unreachable(&error))?;
        let mask = mask_of(spec.args, &spec.secrets);
        let session_id = session.as_ref().map(|session| session.id.as_str());
        let odd = odd(&context);
        let asks_for_files = session.is_some() && odd.is_none();
        let request = session_id.filter(|_| asks_for_files);
        let group = self.builds_belong().await;
        let apart = attributes::apart(spec, asks_for_files);
        let place = group.clone().filter(|_| apart.is_none());
        let request = request.and_then(|session| attributes::request(spec, session, place));
        let solved = match request {
            Some(request) => solve::solve(&self.host, request).await,
            None => Ok(None),
        };
        let solved = solved.map_err(|error| self.unreachable(&error))?;
        let apart = apart.or_else(|| solved.is_none().then_some(NO_SERVICE));
        if let (Some(why), Some(_), Some(log)) = (apart, group, log)
            && self.limits_builds().await
        {
            log.line(&format!(
                "[build] warning: `docker.build_memory` and `docker.build_cpus` do not hold for this build: {why}"
            ));
        }
        if let Some(said) = solved {
            let followed = self.follow(said, &mask, log).await;
            return followed.map_err(|failure| hidden(failure, &mask));
        }
        let files = (!asks_for_files).then_some(context);
        let posted = self.post_build(spec, session_id, files, odd, &mask, log);
        posted.await.map_err(|failure| hidden(failure, &mask))
    }

    /// The older way, `POST /build`. `files`: what goes with the request, where the builder cannot ask for it, as for
    /// the name `odd`.
    async fn post_build(
        &self,
        spec: &BuildSpec<'_>,
        session: Option<&str>,
        files: Option<Arc<Mutex<dyn Files>>>,
        odd: Option<String>,
        mask: &Mask,
        log: Option<&Log>,
    ) -> std::result::Result<BuiltImage, BuildFailure> {
        let (tar, body, dockerfile) = match files {
            None => (None, Body::default(), None),
            Some(files) => {
                let own = files.lock().dockerfile();
                let more = own.is_none().then_some(tar::DOCKERFILE);
                // It would get into the image, which only an engine without sessions leaves no choice about.
                if let (Some(_), Some(name), Some(_)) = (session, odd, more) {
                    return Err(refused(not_in_tar(&name)).into());
                }
                let (chunks, task) = tar::send(files, more);
                let dockerfile = own.unwrap_or_else(|| tar::DOCKERFILE.to_owned());
                (Some(task), body_of(chunks), Some(dockerfile))
            }
        };
        let query = query::query(spec, session, dockerfile.as_deref());
        let request = Request::post(format!("/build?{query}"))
            .header(HOST, "docker")
            .header(CONTENT_TYPE, "application/x-tar")
            .body(body);
        let request = request.map_err(|error| refused(error.to_string()))?;
        let called = call(&self.host, request).await;
        let (answer, _connection) = called.map_err(|error| self.unreachable(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(refused(refusal(answer).await).into());
        }
        let said = messages(answer.into_body()).map(|message| Ok(said(message?)));
        let followed = self.follow(said, mask, log).await;
        drop(tar);
        followed
    }

    /// Reads what the engine says to the end.
    async fn follow(
        &self,
        said: impl Stream<Item = io::Result<Said>>,
        mask: &Mask,
        log: Option<&Log>,
    ) -> std::result::Result<BuiltImage, BuildFailure> {
        let mut progress = Progress::default();
        let mut image = None;
        let mut said = std::pin::pin!(said);
        loop {
            let next = said.next();
            let next = match progress.due() {
                Some(due) => tokio::time::timeout_at(due, next).await,
                None => Ok(next.await),
            };
            let Ok(next) = next else {
                return Err(late(&progress));
            };
            let Some(next) = next else {
                break;
            };
            match next.map_err(|error| self.unreachable(&error))? {
                Said::Failed(message) => return Err(failed(&mut progress, message)),
                Said::Status(status) => {
                    let lines = progress.take(status);
                    for (log, line) in lines.into_iter().filter_map(|it| Some((log?, it))) {
                        log.line(&mask.hide(line));
                    }
                }
                Said::Image(id) => image = id,
                Said::Nothing => {}
            }
        }
        let id = image.ok_or_else(|| not_there("it did not report the image's id"))?;
        if let (Some(log), Some(line)) = (log, progress.slowest()) {
            log.line(&mask.hide(line));
        }
        Ok(BuiltImage {
            id,
            from: progress.bases(),
            attestation: progress.attestation(),
        })
    }

    pub async fn tag_image(&self, id: &str, names: &[String]) -> Result<Option<Vec<String>>> {
        let docker = self.client()?;
        let tagged = futures_util::future::join_all(names.iter().map(|name| {
            let (repo, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
            let options = TagImageOptions {
                repo: Some(repo.to_owned()),
                tag: Some(tag.to_owned()),
            };
            docker.tag_image(id, Some(options))
        }));
        for done in tagged.await {
            match done {
                Err(error) if status_code(&error) == Some(404) => return Ok(None),
                done => done.map_err(self.failed(format!("name the image `{id}`")))?,
            }
        }
        let image = match docker.inspect_image(id).await {
            Err(error) if status_code(&error) == Some(404) => return Ok(None),
            found => found.map_err(self.failed(format!("look at the image `{id}`")))?,
        };
        let has = image.repo_tags.unwrap_or_default();
        // The names before the last may be shared with another agent on the same engine, which builds
        // the same commit with labels of its own and may have moved them on already.
        match names.last().filter(|name| !has.contains(name)) {
            Some(name) => Err(not_there(&format!("`{name}` does not point to `{id}`"))),
            None => Ok(Some(
                image.config.and_then(|it| it.volumes).unwrap_or_default(),
            )),
        }
    }
}

/// One of `POST /build`'s messages.
fn said(info: BuildInfo) -> Said {
    if let Some(message) = info.error_detail.and_then(|error| error.message) {
        return Said::Failed(message);
    }
    match info.aux {
        Some(BuildInfoAux::BuildKit(status)) => Said::Status(status),
        Some(BuildInfoAux::Default(id)) => Said::Image(id.id),
        None => Said::Nothing,
    }
}

/// The first name that is not text, for which BuildKit's protocol has no form, or a link that leads to one.
fn odd(files: &Mutex<dyn Files>) -> Option<String> {
    let entries = files.lock().entries();
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let is_odd = |entry: &&FileEntry| {
        !is_text(&entry.path) || matches!(&entry.kind, FileKind::Link(target) if !is_text(target))
    };
    let found = entries.iter().find(is_odd);
    found.map(|entry| entry.path.escape_ascii().to_string())
}

fn not_in_tar(name: &str) -> String {
    format!(
        "`{name}` has, or leads to, a name that is not UTF-8, and then the Dockerfile has to be in the context, \
         unchanged and not excluded by .dockerignore: rename the file, or exclude it in .dockerignore"
    )
}

fn body_of(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// What the engine says in place of building: `{"message": "…"}`.
async fn refusal(answer: Response<Incoming>) -> String {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    let said = body
        .ok()
        .and_then(|body| serde_json::from_slice::<serde_json::Value>(&body.to_bytes()).ok());
    let said = said.as_ref().and_then(|said| said["message"].as_str());
    said.map_or_else(|| status.to_string(), str::to_owned)
}

fn refused(cause: String) -> EngineError {
    EngineError::Refused {
        what: "build the image".into(),
        cause,
    }
}

fn failed(progress: &mut Progress, error: String) -> BuildFailure {
    let (step, message, log_tail) =
        (progress.failure()).unwrap_or_else(|| ("the Dockerfile".into(), error, progress.tail()));
    BuildFailure::Step {
        step,
        message,
        log_tail,
    }
}

/// Dropping the request ends the build on the engine too.
fn late(progress: &Progress) -> BuildFailure {
    let (step, message) = (progress.overdue(tokio::time::Instant::now())).unwrap_or_default();
    BuildFailure::Step {
        step,
        message,
        log_tail: Vec::new(),
    }
}

fn not_there(what: &str) -> EngineError {
    EngineError::Refused {
        what: "keep the image that it built".into(),
        cause: what.into(),
    }
}
