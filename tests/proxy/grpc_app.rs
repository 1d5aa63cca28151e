//! A gRPC app and its client, of tonic, with plain text for messages.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures_util::{Stream, StreamExt};
use http::Request;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::StreamingService;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

#[derive(Default, Clone)]
pub struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// An app that says its version with every message; killed, it is gone with all its connections.
pub struct GrpcApp {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl GrpcApp {
    pub async fn start(version: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(move |request: Request<Incoming>| async move {
                    let method = Method(version, request.uri().path().to_owned());
                    let answer = tonic::server::Grpc::new(Text)
                        .streaming(method, request)
                        .await;
                    Ok::<_, Infallible>(answer)
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, task }
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

struct Method(u64, String);

impl StreamingService<String> for Method {
    type Response = String;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<String>>) -> Self::Future {
        let (version, path) = (self.0, self.1.clone());
        Box::pin(async move {
            let mut asked = request.into_inner();
            let answers: Answers = match path.as_str() {
                // All that was sent, in one message.
                "/t/Collect" => {
                    let mut all = String::new();
                    while let Some(part) = asked.message().await? {
                        all += &part;
                    }
                    let answer = Ok(format!("{version} {all}"));
                    Box::pin(futures_util::stream::iter([answer]))
                }
                // As many messages as the first one says, and then an error.
                "/t/Count" => {
                    let upto: u64 = asked.message().await?.unwrap().parse().unwrap();
                    let numbers = futures_util::stream::iter(0..upto).then(move |n| async move {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        Ok(format!("{version} {n}"))
                    });
                    let mut over = Status::resource_exhausted("that was all");
                    over.metadata_mut().insert("x-last", upto.into());
                    Box::pin(numbers.chain(futures_util::stream::iter([Err(over)])))
                }
                // Each message back.
                _ => Box::pin(asked.map(move |text| Ok(format!("{version} {}", text?)))),
            };
            Ok(Response::new(answers))
        })
    }
}

/// tonic's own client over some connection.
pub struct Caller(tonic::client::Grpc<Channel>);

impl Caller {
    pub fn new(channel: Channel) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    pub async fn to(proxy: SocketAddr) -> Self {
        let endpoint = Channel::from_shared(format!("http://{proxy}")).unwrap();
        Self::new(endpoint.connect().await.unwrap())
    }

    pub async fn unary(&mut self, text: &str) -> Result<String, Status> {
        self.0.ready().await.unwrap();
        let request = tonic::Request::new(text.to_owned());
        let path = PathAndQuery::from_static("/t/Echo");
        Ok(self.0.unary(request, path, Text).await?.into_inner())
    }

    pub async fn collect(&mut self, parts: &[&str]) -> Result<String, Status> {
        self.0.ready().await.unwrap();
        let parts: Vec<_> = parts.iter().map(|p| p.to_string()).collect();
        let request = tonic::Request::new(futures_util::stream::iter(parts));
        let path = PathAndQuery::from_static("/t/Collect");
        let answer = self.0.client_streaming(request, path, Text).await?;
        Ok(answer.into_inner())
    }

    pub async fn count(&mut self, upto: u64) -> Result<Streaming<String>, Status> {
        self.0.ready().await.unwrap();
        let request = tonic::Request::new(upto.to_string());
        let path = PathAndQuery::from_static("/t/Count");
        let answer = self.0.server_streaming(request, path, Text).await?;
        Ok(answer.into_inner())
    }

    pub async fn chat(
        &mut self,
        asked: impl Stream<Item = String> + Send + 'static,
    ) -> Result<Streaming<String>, Status> {
        self.0.ready().await.unwrap();
        let request = tonic::Request::new(asked);
        let path = PathAndQuery::from_static("/t/Echo");
        Ok(self.0.streaming(request, path, Text).await?.into_inner())
    }
}
