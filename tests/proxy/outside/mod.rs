//! The proxy beside programs that others wrote: clients, servers, proxies in front, attackers. Each
//! test is skipped where its program is not installed.

mod front;
mod http2;
mod life;
mod slow;
mod varnish;
