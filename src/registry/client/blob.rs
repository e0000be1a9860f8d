//! Blobs of any size, read piece by piece, from the beginning or from where an earlier attempt broke off.

use bytes::Bytes;
use reqwest::{
    StatusCode,
    header::{CONTENT_RANGE, HeaderMap},
};
use url::Url;

use crate::{
    base::digest::Digest,
    registry::{
        ask::{Ask, Failing},
        client::{Client, Inner, pull, short},
        error::{Error, Reason},
        manners::Cheaper,
        transport::{HttpAnswer, Opened},
    },
};

/// A blob that is being read. The bytes are not verified: the caller that keeps them must compare their digest.
pub(crate) struct Body {
    client: Client,
    doing: String,
    url: Url,
    response: reqwest::Response,
    from: u64,
    left: u64,
}

impl Client {
    /// Opens a blob of `size` bytes, as its descriptor says, at byte `from`. The caller bounds how many are open at
    /// once.
    ///
    /// # Errors
    /// Those of every request, and [`Reason::Invalid`] when the answer is not the part of the blob that was asked for.
    pub(crate) async fn open_blob(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
        from: u64,
    ) -> Result<Body, Error> {
        self.check_repository(repository)?;
        let doing = format!("blob {} of {repository}", short(digest));
        let mut ask = self.ask(&format!("{repository}/blobs/{digest}"), usize::MAX, doing)?;
        ask.from = (from > 0 && !self.manners().refuses_ranges).then_some(from);
        ask.failing = if ask.from.is_some() { Failing::Plainer } else { Failing::Again };
        let mut opened = self.open(&ask, &pull(repository)).await?;
        let mut start = first_byte(&opened, ask.from, size);
        if start.is_err() && ask.from.is_some() {
            // The registry handles ranges in its own way, or not at all: start from the beginning. 416 only says that
            // it has nothing at this position.
            let is_past_its_end = matches!(&opened, Opened::Whole(answer) if answer.status == StatusCode::RANGE_NOT_SATISFIABLE);
            (ask.from, ask.failing) = (None, Failing::Again);
            opened = self.open(&ask, &pull(repository)).await?;
            start = first_byte(&opened, None, size);
            if start.is_ok() && !is_past_its_end {
                let mut manners = self.0.net.manners.lock();
                manners.known.refuses_ranges |= manners.was_refused(Cheaper::Range);
            }
        } else if ask.from.is_some() {
            self.0.net.manners.lock().was_answered(Cheaper::Range);
        }
        let (response, url) = match opened {
            Opened::Coming { response, url, .. } => (response, url),
            Opened::Whole(answer) => return Err(self.refusal(&ask, &answer)),
        };
        let from = start.map_err(|why| self.fail(&ask, Reason::Invalid(why.into())))?;
        let left = size.saturating_sub(from);
        if response.content_length().is_some_and(|length| length != left) {
            let why = "its length is not what its descriptor says";
            return Err(self.fail(&ask, Reason::Invalid(why.into())));
        }
        Ok(Body { client: self.clone(), doing: ask.doing, url, response, from, left })
    }

    /// Sends a request as [`Client::send`] does, but leaves the body of the answer to be read as it comes.
    async fn open(&self, ask: &Ask, scope: &str) -> Result<Opened, Error> {
        let Inner { net, auth, .. } = &*self.0;
        let shown = auth.show(net, scope).await?;
        match net.open(ask, shown.header()).await? {
            Opened::Whole(HttpAnswer { status: StatusCode::UNAUTHORIZED, headers, url, .. })
                if net.policy.is_home(&url) =>
            {
                let fresh = auth.answer(net, &ask.doing, &headers, scope, shown).await?;
                net.open(ask, Some(&fresh)).await
            }
            opened => auth.trust(shown, opened.status(), opened),
        }
    }
}

impl Body {
    /// The position of the first byte in the blob: the one asked for, or 0 if the registry does not support ranges.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// Returns the next piece, of a few hundred kilobytes at most; `None` after the last byte.
    ///
    /// # Errors
    /// A connection that broke or went silent, where opening the rest may help; more bytes than the size says.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let net = &self.client.0.net;
        let piece = net.piece(&self.url, &mut self.response).await;
        match piece.map_err(|reason| net.error(&self.doing, reason))? {
            Some(piece) => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                let Some(left) = self.left.checked_sub(length) else {
                    let why = "it has more bytes than its descriptor says";
                    return Err(net.error(&self.doing, Reason::Invalid(why.into())));
                };
                self.left = left;
                Ok(Some(piece))
            }
            None if self.left > 0 => {
                Err(net.error(&self.doing, Reason::Unreachable("the body ended before its end".into())))
            }
            None => Ok(None),
        }
    }
}

/// Where in the blob the body of this answer begins.
fn first_byte(opened: &Opened, asked: Option<u64>, size: u64) -> Result<u64, &'static str> {
    match opened {
        Opened::Coming { status, response, .. } => start(*status, response.headers(), asked, size),
        Opened::Whole(_) => Err("it is refused"),
    }
}

/// Where in the blob the body behind this head begins.
fn start(
    status: StatusCode,
    headers: &HeaderMap,
    asked: Option<u64>,
    size: u64,
) -> Result<u64, &'static str> {
    match (status, asked) {
        (StatusCode::OK, _) => Ok(0),
        (StatusCode::PARTIAL_CONTENT, Some(from)) => {
            let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            match range.and_then(read_range) {
                Some((first, whole)) if first == from && whole.is_none_or(|whole| whole == size) => Ok(from),
                _ => Err("it is not the part that was asked for"),
            }
        }
        _ => Err("the status says neither a blob nor a part of one"),
    }
}

/// The first byte and the whole length of `bytes 5-9/10` (RFC 9110, 14.4).
fn read_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let whole = if whole == "*" { None } else { Some(whole.parse().ok()?) };
    Some((first.parse().ok()?, whole))
}

#[cfg(test)]
mod tests {
    use reqwest::{StatusCode, header::HeaderMap};

    use super::start;

    #[test]
    fn only_the_part_that_was_asked_for_is_taken() {
        let begins = |status: u16, range: &str, asked| {
            let mut headers = HeaderMap::new();
            if !range.is_empty() {
                headers.insert("content-range", range.parse().unwrap());
            }
            start(StatusCode::from_u16(status).unwrap(), &headers, asked, 10).ok()
        };
        assert_eq!(begins(200, "", None), Some(0));
        assert_eq!(begins(200, "", Some(5)), Some(0), "a registry that does no ranges sends all of it");
        assert_eq!(begins(206, "bytes 5-9/10", Some(5)), Some(5));
        assert_eq!(begins(206, "bytes 5-9/*", Some(5)), Some(5));
        for (status, range, asked) in [
            (206, "bytes 4-9/10", Some(5)),
            (206, "bytes 5-9/11", Some(5)),
            (206, "bytes 5-9", Some(5)),
            (206, "5-9/10", Some(5)),
            (206, "", Some(5)),
            (206, "bytes 0-9/10", None),
            (204, "", None),
        ] {
            assert_eq!(begins(status, range, asked), None, "{status} {range}");
        }
    }
}
