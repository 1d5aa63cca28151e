//! Who answers requests: this side knows neither routes nor apps.

use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use parking_lot::Mutex;

use std::sync::Arc;

use super::response::ResponseBody;
use crate::proxy::watch::Watch;
use crate::proxy::wire::framing::LongHead;
use crate::proxy::wire::headers::Client;

/// The client's connection that requests arrive on, or one stream of it.
pub struct Connection {
    pub client: Mutex<Client>,
    pub watch: Arc<Watch>,
}

/// Answers every request of every connection.
pub trait Handler: Send + Sync + 'static {
    /// The body of an app's response.
    type Stream: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin;

    fn handle(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody<Self::Stream>>> + Send;

    /// A request was refused because its head is too long.
    fn refused(&self, head: &LongHead);
}
