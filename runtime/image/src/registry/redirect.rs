//! Where a redirect leads (RFC 9110, 10.2.2), and whether a password may go along.

use super::client::{Client, header};
use super::retry::Failed;
use ureq::Body;
use ureq::http::header::{AUTHORIZATION, LOCATION};
use ureq::http::uri::Scheme;
use ureq::http::{Response, Uri};

/// As many as other engines follow.
const MAX_REDIRECTS: usize = 10;

impl Client {
    /// Redirects are followed here: a password goes on to where it was for, the same host and port, and nowhere else.
    pub(super) fn send(
        &self,
        url: &str,
        headers: &[(&str, String)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Failed> {
        let (mut url, mut authorization) = (url.to_owned(), authorization);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let request = request.config().max_redirects(0).max_redirects_will_error(false).build();
            let response = request.call().map_err(|e| self.failed(&e))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = header(&response, LOCATION);
            let next = location.as_deref().and_then(|location| target(&url, location));
            let next = next.ok_or_else(|| {
                let to = location.map(|l| l.escape_default().to_string()).unwrap_or_default();
                Failed::For(self.broken(format!("it redirects to `{to}`, which is no place in the web")))
            })?;
            authorization = authorization.filter(|_| is_same_place(&url, &next));
            url = next;
        }
        Err(Failed::For(self.broken(format!("it redirects more than {MAX_REDIRECTS} times"))))
    }
}

/// The place that `location` means in an answer from `from`; None for one that is not in the web.
pub(super) fn target(from: &str, location: &str) -> Option<String> {
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    // What stands behind a `#` is for whoever shows the page.
    let location = location.split('#').next().unwrap_or_default();
    let absolute = if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else if location.is_empty() {
        return None;
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let next: Uri = absolute.parse().ok()?;
    let in_the_web = matches!(next.scheme_str(), Some("http" | "https")) && next.host().is_some_and(|h| !h.is_empty());
    in_the_web.then_some(absolute)
}

/// `name:`, before any slash.
fn has_scheme(location: &str) -> bool {
    let scheme = location.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.'))
}

/// The same host and port, by the same protocol. Another port of a host may be another user's.
pub(super) fn is_same_place(from: &str, to: &str) -> bool {
    let place = |url: &str| {
        let url: Uri = url.parse().ok()?;
        let standard = if url.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = url.port_u16().unwrap_or(standard);
        Some((url.scheme_str()?.to_owned(), url.host()?.to_ascii_lowercase(), port))
    };
    let from = place(from);
    from.is_some() && from == place(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_as_browsers_find_them() {
        let from = "https://r.example:5000/v2/a/blobs/x?y=1";
        for (location, to) in [
            ("/other?z#part", "https://r.example:5000/other?z"),
            ("//cdn.example/b", "https://cdn.example/b"),
            ("http://cdn.example/b", "http://cdn.example/b"),
            ("z", "https://r.example:5000/v2/a/blobs/z"),
            ("?z=1", "https://r.example:5000/v2/a/blobs/x?z=1"),
        ] {
            assert_eq!(target(from, location).as_deref(), Some(to), "{location}");
        }
        for nowhere in ["", "//", "http://", "file:///etc/passwd", "gopher://a/", "mailto:a@b", "\u{1}", "#"] {
            assert_eq!(target(from, nowhere), None, "{nowhere:?}");
        }
    }

    #[test]
    fn a_password_stays_with_its_host_port_and_protocol() {
        let from = "https://r.example/v2/";
        for same in ["https://r.example/x", "https://R.Example:443/x"] {
            assert!(is_same_place(from, same), "{same}");
        }
        for other in [
            "http://r.example/x",
            "https://r.example:444/x",
            "https://cdn.r.example/x",
            "https://r.example.evil.example/x",
            "https://r.example@evil.example/x",
            "",
        ] {
            assert!(!is_same_place(from, other), "{other}");
        }
    }
}
