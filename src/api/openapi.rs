//! The API's description, for programs. Kept as a file, since the shapes are fixed.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("openapi.json");

pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::state::State;

    #[test]
    fn every_state_is_described() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let states =
            &document["components"]["schemas"]["Deployment"]["properties"]["state"]["enum"];
        let names: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(*states, serde_json::json!(names));
    }
}
