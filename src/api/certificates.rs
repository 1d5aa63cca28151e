//! The names that are served over TLS, and their certificates.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ErrorBody;
use super::json::NoBody;
use super::page::{NamesQuery, Page};
use super::responses::{Forbidden, Malformed};
use super::view::rfc3339;
use super::{Api, ApiError, Shared, auth};
use crate::certificates::names::{self, Broken, Name, Source, renewal_explanation, renews_at};
use crate::principal::{Principal, Role, Scope};
use crate::store::{actions, certificates as table};

/// A name, and how it stands with its certificate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Certificate)]
pub struct CertificateView {
    #[schema(example = "hello.example.com")]
    name: String,
    source: CertificateSource,
    /// The owner's file that it is in; null otherwise.
    #[schema(required, example = json!(null))]
    file: Option<String>,
    /// Null without a certificate.
    #[schema(required, example = "Let's Encrypt R11")]
    issuer: Option<String>,
    /// When it expires; null without a certificate.
    #[schema(required, format = DateTime, example = "2026-08-02T09:30:00.000Z")]
    expires_at: Option<String>,
    /// When it is renewed; null if nobody renews it.
    #[schema(required, format = DateTime, example = "2026-07-03T09:30:00.000Z")]
    renews_at: Option<String>,
    /// Where its authority explains when it wants it renewed; null if it does not.
    #[schema(required, example = json!(null))]
    renewal_explanation: Option<String>,
    /// Whether a new one is being ordered.
    ordering: bool,
    /// How many attempts have failed since the last success.
    failures: u32,
    /// When the next attempt is made after one that failed.
    #[schema(required, format = DateTime, example = json!(null))]
    next_try: Option<String>,
    /// What is wrong, and what to do; null if all is well.
    #[schema(required, example = json!(null))]
    problem: Option<String>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// The folder `proxy.certificates`.
    File,
    /// The authority in `proxy.acme`.
    Acme,
    /// There is none, and none is ordered.
    None,
    /// It was ordered for a name that is no longer in deploy.toml, and is removed when it has expired.
    Unused,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct NamePath {
    /// A domain of deploy.toml
    #[param(example = "hello.example.com")]
    name: String,
}

/// List the certificates
///
/// The names that are served over TLS, sorted, in one page unless there is a `limit`; without `proxy.https` there
/// are none.
#[utoipa::path(
    get,
    path = "/api/v1/certificates",
    operation_id = "listCertificates",
    tag = "agent",
    params(NamesQuery),
    responses(
        (status = 200, description = "A page of names", body = Page<CertificateView>),
        (status = 400, response = Malformed),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<NamesQuery>,
) -> Result<Json<Page<CertificateView>>, ApiError> {
    let (mut names, _) = all(&api).await?;
    let (in_force, states) = (
        api.agent.in_force(),
        api.agent.store.read(table::all).await?,
    );
    let unused = tokio::task::spawn_blocking(move || names::unused(&in_force.config, &states));
    names.extend(unused.await.unwrap_or_default());
    names.sort_by(|one, other| one.name.cmp(&other.name));
    let visible = visible(&api, &caller);
    let names = names.into_iter();
    let of_seen = |it: &Name| {
        let app = it.state.app.as_ref().and_then(|app| app.parse().ok());
        app.is_some_and(|app| caller.sees(&app))
    };
    let seen = |it: &Name| {
        let all = visible.as_ref();
        all.is_none_or(|all| all.contains(&it.name) || of_seen(it))
    };
    let names = names.filter(seen).map(CertificateView::from);
    Page::by_name(names, query, |it| &it.name).map(Json)
}

/// Renew a certificate
///
/// A new one is ordered now, with a new key; the present one is served until it is there. For one that
/// was revoked, or whose key may be known to others.
#[utoipa::path(
    post,
    path = "/api/v1/certificates/{name}/renew",
    operation_id = "renewCertificate",
    tag = "agent",
    params(NamePath),
    responses(
        (status = 202, description = "It will be ordered", body = CertificateView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, description = "No such name", body = ErrorBody, example = json!({"error": {
            "code": "unknown_name",
            "message": "`helo.example.com` is not served over TLS",
            "hint": "`cutover certificates` lists the names",
        }})),
        (status = 409, description = "None can be ordered", body = ErrorBody, example = json!({"error": {
            "code": "not_ordered",
            "message": "no certificate is ordered for `hello.example.com`: it has one in `certs/hello.pem`",
            "hint": "",
        }})),
    ),
)]
pub async fn renew(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<NamePath>,
    _: NoBody,
) -> Result<(StatusCode, Json<CertificateView>), ApiError> {
    auth::check_role(&caller, Role::Admin)?;
    let wanted = path.name.to_ascii_lowercase();
    let find = |names: Vec<Name>| {
        let found = names.into_iter().find(|it| it.name == wanted);
        found.ok_or_else(|| {
            let message = format!("`{}` is not served over TLS", wanted.escape_debug());
            let hint = "`cutover certificates` lists the names";
            ApiError::new(StatusCode::NOT_FOUND, "unknown_name", message, hint)
        })
    };
    let found = find(all(&api).await?.0)?;
    if found.due.is_none() {
        let why = match (&found.source, &found.problem) {
            (Source::File(path), _) => format!("it has one in `{}`", path.display()),
            (_, Some(problem)) => problem.clone(),
            _ => "`proxy.acme` is off".to_owned(),
        };
        let message = format!("no certificate is ordered for `{wanted}`: {why}");
        let code = "not_ordered";
        return Err(ApiError::new(StatusCode::CONFLICT, code, message, ""));
    }
    let name = wanted.clone();
    let ask = api.agent.store.write(move |db| {
        let detail = serde_json::json!({ "name": name });
        actions::insert(db, actions::Kind::Renew, None, &detail, &caller.who)?;
        table::ask(db, &name)
    });
    ask.await?;
    api.agent.certifying.notify_one();
    let found = find(all(&api).await?.0)?;
    Ok((StatusCode::ACCEPTED, Json(found.into())))
}

/// All names, and the owner's files that cannot be used.
pub async fn all(api: &Api) -> Result<(Vec<Name>, Vec<Broken>), ApiError> {
    let states = api.agent.store.read(table::all).await?;
    let in_force = api.agent.in_force();
    let read = tokio::task::spawn_blocking(move || names::all(&in_force.config, &states));
    Ok(read.await.unwrap_or_default())
}

/// The names that a token for certain apps may see; `None`: all.
fn visible(api: &Api, caller: &Principal) -> Option<BTreeSet<String>> {
    if caller.apps == Scope::All {
        return None;
    }
    let in_force = api.agent.in_force();
    let apps = in_force.config.apps.values();
    let seen = apps.filter(|app| caller.sees(&app.name));
    Some(seen.flat_map(|app| app.domains.clone()).collect())
}

impl From<Name> for CertificateView {
    fn from(it: Name) -> Self {
        let (source, file) = match &it.source {
            Source::File(path) => (CertificateSource::File, Some(path.display().to_string())),
            Source::Ordered => (CertificateSource::Acme, None),
            Source::Nowhere => (CertificateSource::None, None),
            Source::Unused => (CertificateSource::Unused, None),
        };
        Self {
            source,
            file,
            renews_at: renews_at(&it).map(rfc3339),
            renewal_explanation: renewal_explanation(&it).map(str::to_owned),
            issuer: it.leaf.as_ref().map(|leaf| leaf.issuer.clone()),
            expires_at: it.leaf.as_ref().map(|leaf| rfc3339(leaf.not_after)),
            ordering: it.state.order_url.is_some(),
            failures: it.state.failures,
            next_try: it.state.next_try.map(rfc3339),
            problem: it.problem,
            name: it.name,
        }
    }
}
