//! BuildKit's session: a connection to the engine that is turned round, on which the builder asks for
//! files, secrets, SSH agents and credentials while it builds.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bollard::health::health_server::{Health, HealthServer};
use bollard::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard::moby::filesync::packet::file_sync_server::FileSyncServer;
use bollard::moby::filesync::v1::auth_server::AuthServer;
use bollard::moby::sshforward::v1::ssh_server::SshServer;
use futures_util::stream::{self, Empty};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body as Answer;
use tower_service::Service;

use super::call::{Body, Connection, call};
use super::logins::Logins;
use super::secrets::Values;
use super::sources::Sources;
use super::ssh::Agents;

/// What the builder may call.
const METHODS: [&str; 6] = [
    "/moby.filesync.v1.Auth/Credentials",
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
];

/// What the builder may ask for.
pub(super) struct Services {
    pub(super) sources: Arc<Sources>,
    pub(super) secrets: Arc<Values>,
    pub(super) ssh: Arc<Agents>,
}

/// An open session, which ends when it is dropped.
pub(super) struct Session {
    /// The name by which a build finds it.
    pub(super) id: String,
    _connection: Connection,
    _served: AbortOnDropHandle<()>,
}

impl Session {
    /// Opens a session. `None`: the engine has none. `shared_key` names the builder's copy of the files,
    /// which the next session of this key finds again.
    pub(super) async fn open(
        host: &str,
        shared_key: &str,
        services: Services,
    ) -> io::Result<Option<Self>> {
        let id = id();
        let mut request = Request::post("/session")
            .header(HOST, "docker")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "h2c")
            .header("x-docker-expose-session-uuid", &id)
            .header("x-docker-expose-session-name", "cutover")
            .header("x-docker-expose-session-sharedkey", shared_key);
        for method in METHODS {
            request = request.header("x-docker-expose-session-grpc-method", method);
        }
        let request = request.body(Body::default()).map_err(io::Error::other)?;
        let (answer, connection) = call(host, request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            tracing::debug!(status = %answer.status(), "the engine has no sessions");
            return Ok(None);
        }
        let io = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
        let services = Arc::new(services);
        let service = service_fn(move |request| answer_to(services.clone(), request));
        let serve = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service);
        let served = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::debug!("the builder's session ended: {error}");
            }
        });
        Ok(Some(Self {
            id,
            _connection: connection,
            _served: AbortOnDropHandle::new(served),
        }))
    }
}

/// A new random name.
pub(super) fn id() -> String {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the operating system provides random bytes");
    format!("cutover-{}", hex::encode(random))
}

async fn answer_to(
    services: Arc<Services>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    match service {
        "grpc.health.v1.Health" => HealthServer::new(Healthy).call(request).await,
        "moby.filesync.v1.Auth" => AuthServer::new(Logins).call(request).await,
        "moby.filesync.v1.FileSync" => {
            let sources = services.sources.clone();
            FileSyncServer::from_arc(sources).call(request).await
        }
        "moby.buildkit.secrets.v1.Secrets" => {
            let secrets = services.secrets.clone();
            SecretsServer::from_arc(secrets).call(request).await
        }
        "moby.sshforward.v1.SSH" => {
            SshServer::from_arc(services.ssh.clone())
                .call(request)
                .await
        }
        other => Ok(Status::unimplemented(other.to_owned()).into_http()),
    }
}

/// The builder ends a session that does not answer.
struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        const SERVING: i32 = 1;
        Ok(tonic::Response::new(HealthCheckResponse {
            status: SERVING,
        }))
    }

    async fn list(
        &self,
        _: tonic::Request<HealthListRequest>,
    ) -> Result<tonic::Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("list"))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Ok(tonic::Response::new(stream::empty()))
    }
}
