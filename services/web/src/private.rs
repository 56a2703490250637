//! What was decided for one client is for that client: how an answer says so to every cache.

use http_support::gateway::GATEWAY_ERROR;
use http_support::wire::ResponseHead;

use crate::config::Sharing;

/// The field by which the edges are told how an answer may be shared. They do not pass it on.
const FIELD: &str = "standfast-cache";

/// Fields of an upstream server that a private answer does not keep: what they allow, we do not. The first two are ours
/// alone.
pub const LEFT_OUT: [&str; 7] = [
    FIELD,
    GATEWAY_ERROR,
    "cache-control",
    "cdn-cache-control",
    "surrogate-control",
    "cloudflare-cdn-cache-control",
    "edge-control",
];

/// Of any other answer only the fields that are ours are left out.
pub const LEFT_OUT_ALWAYS: [&str; 2] = [FIELD, GATEWAY_ERROR];

/// The line for the edges: an answer is for one client, or a place has a choice of its own.
#[must_use]
pub fn line(private: bool, cache: Option<Sharing>) -> Option<String> {
    let word = if private { "private" } else { cache?.as_str() };
    Some(format!("{FIELD}: {word}\r\n"))
}

/// The `Cache-Control` line of a private answer: what the upstream server said, without leave to share it.
#[must_use]
pub fn cache_control_of(response: &ResponseHead<'_>) -> Vec<u8> {
    let said: Vec<_> = response.get_all("cache-control").map(String::from_utf8_lossy).collect();
    format!("cache-control: {}\r\n", cache_control(&said.join(", "))).into_bytes()
}

/// The same of a configured value.
#[must_use]
pub fn cache_control(said: &str) -> String {
    let name = |directive: &str| directive.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut kept: Vec<&str> = said.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    kept.retain(|it| !["public", "s-maxage", "proxy-revalidate", "private"].contains(&name(it).as_str()));
    if !kept.iter().any(|it| name(it) == "no-store") {
        kept.insert(0, "private");
    }
    kept.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_to_share_is_taken_back_and_the_rest_stays() {
        for (said, kept) in [
            ("", "private"),
            ("public, max-age=60", "private, max-age=60"),
            ("Public, S-MaxAge=60, must-revalidate", "private, must-revalidate"),
            ("max-age=60, private=\"x-a\"", "private, max-age=60"),
            ("no-store", "no-store"),
            ("no-cache , ,", "private, no-cache"),
        ] {
            assert_eq!(cache_control(said), kept, "{said}");
        }
    }
}
