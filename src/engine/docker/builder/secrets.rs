//! The secrets that `RUN --mount=type=secret` mounts.

use std::collections::BTreeMap;

use bollard::moby::buildkit::secrets::v1::secrets_server::Secrets;
use bollard::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

/// By id. Not `Debug`, so that no value can be logged.
pub(super) struct Values(pub(super) BTreeMap<String, Vec<u8>>);

#[tonic::async_trait]
impl Secrets for Values {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        match self.0.get(id) {
            Some(value) => Ok(Response::new(GetSecretResponse {
                data: value.clone(),
            })),
            // The step goes on without it, unless it says `required`.
            None => Err(Status::not_found(format!("secret {id}: not found"))),
        }
    }
}
