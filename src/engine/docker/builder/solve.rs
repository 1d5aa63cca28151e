//! Has an image built the way Docker's own client does: by BuildKit's service `Control`, on a connection to the
//! engine that is turned over to gRPC. It takes what `POST /build` has no words for.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::buildkit::v1::{SolveRequest, SolveResponse, StatusRequest, StatusResponse};
use futures_util::future::BoxFuture;
use futures_util::future::ready;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::Uri;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioExecutor;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body as Message;
use tower_service::Service;

use super::Said;
use super::call::{Body, Connection, call};

/// A longer message is nothing that an engine sends, in bytes.
const LONGEST: usize = 32 << 20;
/// A build's failure comes as trailers, with the whole Dockerfile several times over; in bytes.
const REFUSAL: u32 = 16 << 20;
/// How long the last messages may take once a build has ended.
const LAST: Duration = Duration::from_secs(5);
/// The key of the image's id in what is answered.
const IMAGE: &str = "containerimage.digest";

/// What the builder says while it builds, last of all the image or the failure. Dropping it ends the build on
/// the engine too. `None`: the engine has no such service.
pub(super) async fn solve(
    host: &str,
    request: SolveRequest,
) -> io::Result<Option<impl Stream<Item = io::Result<Said>>>> {
    let Some(control) = Control::open(host).await? else {
        return Ok(None);
    };
    let id = request.r#ref.clone();
    let (mut client, mut other) = (control.client.clone(), control.client);
    let (ended, end) = oneshot::channel::<()>();
    let solving = AbortOnDropHandle::new(tokio::spawn(async move {
        let solved = client.solve(request).await;
        drop(ended);
        solved.map(tonic::Response::into_inner)
    }));
    // The builder waits for a build of this name to begin.
    let status = async move { other.status(StatusRequest { r#ref: id }).await };
    let last = async {
        let _ = end.await;
        tokio::time::sleep(LAST).await;
    };
    let statuses = stream::once(status)
        .map(|begun| match begun {
            Ok(statuses) => statuses.into_inner().left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
        .flatten()
        .take_until(Box::pin(last))
        // Whatever ends them, the outcome tells.
        .take_while(|status: &Result<StatusResponse, Status>| ready(status.is_ok()))
        .filter_map(|status| ready(status.ok()))
        .map(|status| Ok(Said::Status(status)));
    let outcome = stream::once(async move {
        let _connection = control.connection;
        outcome(solving.await.map_err(io::Error::other)?)
    });
    Ok(Some(statuses.chain(outcome)))
}

fn outcome(solved: Result<SolveResponse, Status>) -> io::Result<Said> {
    match solved {
        Ok(mut solved) => Ok(Said::Image(solved.exporter_response.remove(IMAGE))),
        // The connection broke: what the builder itself says comes from no other error.
        Err(status) if std::error::Error::source(&status).is_some() => {
            Err(io::Error::other(status))
        }
        Err(status) => Ok(Said::Failed(status.message().to_owned())),
    }
}

struct Control {
    client: ControlClient<Http2>,
    connection: Connection,
}

impl Control {
    async fn open(host: &str) -> io::Result<Option<Self>> {
        let request = Request::post("/grpc")
            .header(HOST, "docker")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "h2c")
            .body(Body::default())
            .map_err(io::Error::other)?;
        let (answer, connection) = call(host, request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            tracing::debug!(status = %answer.status(), "the engine's builder has no gRPC");
            return Ok(None);
        }
        let io = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
        let mut http2 = Builder::new(TokioExecutor::new());
        let shaken = http2.max_header_list_size(REFUSAL).handshake(io).await;
        let (sender, driver) = shaken.map_err(io::Error::other)?;
        // Ends with the connection below it; its errors are those of the answers too.
        tokio::spawn(driver.map(drop));
        let client = ControlClient::with_origin(Http2(sender), Uri::from_static("http://docker"));
        Ok(Some(Self {
            client: client.max_decoding_message_size(LONGEST),
            connection,
        }))
    }
}

/// An HTTP/2 connection as tonic wants to have it.
#[derive(Clone)]
struct Http2(SendRequest<Message>);

impl Service<Request<Message>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}
