//! Who comes in, and who is sent elsewhere.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use ipnet::IpNet;

use super::download::ResponseBody;
use super::page;
use super::redirect::{Door, moved};
use crate::proxy::downstream::handler::Connection;
use crate::proxy::route::front::{Front, Redirect};
use crate::proxy::route::live::without_port;
use crate::proxy::route::rate;
use crate::proxy::route::visit::client_key;
use crate::proxy::watch::now_ms;
use crate::proxy::wire::headers::FORWARDED_FOR;

/// The proxies in front, whose word on a client's address counts.
pub struct Proxies {
    pub trusted: Vec<IpNet>,
    /// The field in which they name it. Absent: X-Forwarded-For.
    pub client_ip_header: Option<HeaderName>,
}

impl Proxies {
    /// What they say of the client of a request that comes from one of them.
    pub fn named<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let own = self.client_ip_header.as_ref();
        let own = own.and_then(|field| headers.get(field));
        let named = own.or_else(|| headers.get_all(FORWARDED_FOR).iter().next_back());
        named.map(|value| value.as_bytes())
    }
}

/// Whose request it is.
pub struct Visitor<'a> {
    pub address: IpAddr,
    /// As it was asked for.
    pub host: &'a str,
    pub secure: bool,
}

/// Why a request does not reach the app.
pub enum Stopped {
    Elsewhere(Response<ResponseBody>),
    Refused(Response<ResponseBody>),
}

/// Whether a request ends here.
pub fn stopped<B>(
    front: &Front,
    app: &str,
    visitor: &Visitor<'_>,
    door: Option<&Door>,
    request: &Request<B>,
) -> Option<Stopped> {
    if !front.admits(visitor.address) {
        let why = "Clients of this network are not let in.";
        return Some(Stopped::Refused(page::page(StatusCode::FORBIDDEN, why)));
    }
    if let Some(limit) = front.rate_limit {
        let client = client_key(visitor.address, None);
        if let Err(wait) = rate::count(app, &client, limit, now_ms()) {
            let why = "Too many requests; try again later.";
            return Some(Stopped::Refused(too_many(wait, why)));
        }
    }
    let target = request.uri().path_and_query().map_or("/", |it| it.as_str());
    if let Some(to) = &front.redirect {
        return Some(Stopped::Elsewhere(led(to, target)));
    }
    let canonical = front.canonical.as_ref()?;
    if without_port(visitor.host).eq_ignore_ascii_case(canonical) || !target.starts_with('/') {
        return None;
    }
    let door = door.filter(|door| visitor.secure || door.certificates.has(canonical));
    let to = match door {
        Some(door) if door.port == 443 => format!("https://{canonical}{target}"),
        Some(door) => format!("https://{canonical}:{}{target}", door.port),
        None if visitor.secure => format!("https://{canonical}{target}"),
        None => match visitor.host.rsplit_once(':') {
            Some((_, port)) if !port.is_empty() => format!("http://{canonical}:{port}{target}"),
            _ => format!("http://{canonical}{target}"),
        },
    };
    let answer = moved(StatusCode::PERMANENT_REDIRECT, &to);
    Some(Stopped::Elsewhere(answer))
}

/// What a client gets that has to wait.
pub fn too_many(wait: Duration, why: &str) -> Response<ResponseBody> {
    let mut answer = page::page(StatusCode::TOO_MANY_REQUESTS, why);
    let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
    let headers = answer.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

fn led(redirect: &Redirect, target: &str) -> Response<ResponseBody> {
    let status = match redirect.permanent {
        true => StatusCode::PERMANENT_REDIRECT,
        false => StatusCode::TEMPORARY_REDIRECT,
    };
    match redirect.keep_path && target.starts_with('/') {
        true => moved(status, &format!("{}{target}", redirect.to)),
        false => moved(status, &redirect.to),
    }
}

/// The client's address, as the trusted proxies in front tell it: that in their own field, or the last one in
/// X-Forwarded-For that is not a trusted proxy itself.
pub fn client_address<B>(
    proxies: &Proxies,
    connection: &Connection,
    request: &Request<B>,
) -> IpAddr {
    let client = connection.client.lock();
    if !client.trusted {
        return client.address;
    }
    let headers = request.headers();
    let own = proxies.client_ip_header.as_ref();
    let own = own.and_then(|field| address(headers.get(field)?.to_str().ok()?.trim()));
    let named = own.or_else(|| forwarded_for(headers, &proxies.trusted));
    named.unwrap_or(client.address)
}

fn forwarded_for(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut last = None;
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        for part in line.to_str().ok()?.rsplit(',') {
            // What is before one that is no address was not written by a proxy.
            let Some(address) = address(part.trim()) else {
                return last;
            };
            last = Some(address);
            if !trusted.iter().any(|network| network.contains(&address)) {
                return last;
            }
        }
    }
    last
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>();
    let with_port = || Some(text.parse::<std::net::SocketAddr>().ok()?.ip());
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let found = plain.ok().or_else(with_port);
    let found = found.or_else(|| bare?.parse().ok());
    found.map(|address| address.to_canonical())
}

/// What clients get besides what the app sends.
pub fn change_answer(front: &Front, secure: bool, headers: &mut HeaderMap) {
    if let Some(hsts) = &front.hsts
        && secure
        && let Ok(value) = HeaderValue::from_str(hsts)
    {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(value);
    }
    front.response_headers.apply(headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_came_by_tls_is_told_to_stay_with_it_and_the_app_s_own_word_counts() {
        let front = Front {
            hsts: Some("max-age=9".into()),
            ..Front::default()
        };
        let of = |secure, own: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            let own = own.map(HeaderValue::from_static);
            headers.extend(own.map(|own| (header::STRICT_TRANSPORT_SECURITY, own)));
            change_answer(&front, secure, &mut headers);
            let told = headers.get(header::STRICT_TRANSPORT_SECURITY).cloned();
            told.map(|value| value.to_str().unwrap_or_default().to_owned())
        };
        assert_eq!(of(true, None).as_deref(), Some("max-age=9"));
        assert_eq!(of(true, Some("max-age=0")).as_deref(), Some("max-age=0"));
        assert_eq!(of(false, None), None);
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_client_s() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let of = |lines: &[&str]| {
            let lines = lines
                .iter()
                .map(|line| (FORWARDED_FOR, line.parse().unwrap()));
            forwarded_for(&lines.collect(), &trusted).map(|it| it.to_string())
        };
        assert_eq!(
            of(&["6.6.6.6, 192.0.2.1, 10.0.0.9"]).as_deref(),
            Some("192.0.2.1")
        );
        assert_eq!(of(&["192.0.2.1", "10.0.0.9"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(of(&["10.0.0.8, 10.0.0.9"]).as_deref(), Some("10.0.0.8"));
        assert_eq!(of(&["x, 10.0.0.9"]).as_deref(), Some("10.0.0.9"));
        assert_eq!(of(&["[2001:db8::1]:443"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(of(&["192.0.2.1:80"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(of(&[]), None);
    }
}
