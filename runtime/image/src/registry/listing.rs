//! What a registry has: the tags of a repository, and its repositories where it tells them.

use super::client::{Client, header};
use super::retry::with_retries;
use crate::error::ImageError;
use crate::manifest::MAX_MANIFEST;
use serde::Deserialize;
use ureq::http::header::LINK;

/// More is nobody's repository.
const MAX_NAMES: usize = 100_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Client {
    /// All tags of the repository.
    pub(crate) fn tags(&self) -> Result<Vec<String>, ImageError> {
        self.pages(&format!("/v2/{}/tags/list", self.reference.path()))
    }

    /// All repositories of the registry; not every registry tells them.
    pub(crate) fn catalog(&self) -> Result<Vec<String>, ImageError> {
        self.pages("/v2/_catalog").map_err(|e| match e {
            ImageError::Registry { object, why, .. } => ImageError::Registry {
                object,
                why,
                hint: Some("the registry does not offer a search: name the image, or look at its web page".to_owned()),
            },
            other => other,
        })
    }

    fn pages(&self, path: &str) -> Result<Vec<String>, ImageError> {
        let mut names: Vec<String> = Vec::new();
        let mut url = format!("{}{path}", self.base);
        loop {
            let (page, next) = with_retries(|| {
                let mut response = self.get(&url, &[])?;
                let next = header(&response, LINK).and_then(|link| next_page(&link));
                let bytes = self.read_small(&mut response, MAX_MANIFEST)?;
                let page: Page =
                    serde_json::from_slice(&bytes).map_err(|e| self.broken(format!("its list cannot be read: {e}")))?;
                Ok((page, next))
            })?;
            // They go to a terminal.
            let fit = |name: &String| !name.contains(char::is_control);
            names.extend(page.tags.into_iter().chain(page.repositories).flatten().filter(fit));
            match next {
                None => return Ok(names),
                Some(_) if names.len() > MAX_NAMES => return Err(self.broken("its list has no end".to_owned())),
                Some(path) => url = format!("{}{path}", self.base),
            }
        }
    }
}

/// The path of a `Link` header's next page; only on the same server.
pub(super) fn next_page(link: &str) -> Option<String> {
    let (target, relation) = link.split_once('>')?;
    let path = target.trim().strip_prefix('<')?;
    (relation.contains("next") && path.starts_with('/') && !path.starts_with("//")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_on_the_same_server() {
        assert_eq!(
            next_page(r#"</v2/a/tags/list?n=1&last=x>; rel="next""#).as_deref(),
            Some("/v2/a/tags/list?n=1&last=x")
        );
        for other in
            [r#"<https://evil.example/v2/>; rel="next""#, r#"<//evil.example/>; rel="next""#, "</v2/>; rel=prev", ""]
        {
            assert_eq!(next_page(other), None, "{other}");
        }
    }
}
