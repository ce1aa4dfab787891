//! One connection to one gateway: opened when needed, kept while it works. Every wait is bounded.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use jiff::{Timestamp, fmt::rfc2822};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::{LinkError, PullError};
use crate::peers::encoding::Encoding;

/// A page is 16 MiB at most on the gateway's side; a larger one is not a page.
const LARGEST: usize = 24 << 20;

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// Unpacked.
    pub(super) body: Vec<u8>,
    /// Bytes of the body before it was unpacked.
    pub(super) received: u64,
}

/// The way to a gateway.
pub(super) struct Link {
    host: String,
    port: u16,
    authority: String,
    prefix: String,
    name: ServerName<'static>,
    tls: TlsConnector,
    silence: Duration,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Empty<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Link {
    /// Understands the address; connects later.
    pub(super) fn new(url: &str, tls: Arc<ClientConfig>, silence: Duration) -> Result<Self, PullError> {
        let wrong = || PullError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (Some("https"), Some(authority), None) = (uri.scheme_str(), uri.authority(), uri.query()) else {
            return Err(wrong());
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        Ok(Self {
            port: authority.port_u16().unwrap_or(443),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            host,
            name,
            tls: TlsConnector::from(tls),
            silence,
            open: None,
        })
    }

    /// Asks once. The gateway may take `wait` to begin its answer.
    pub(super) async fn get(&mut self, path: &str, wait: Duration) -> Result<Answer, LinkError> {
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT_ENCODING, "zstd, gzip")
            .header(header::USER_AGENT, concat!("clocher/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|wrong| LinkError::Page(wrong.to_string()))?;
        let limit = wait + self.silence;
        let sender = self.sender().await?;
        let response = timeout(limit, sender.send_request(request)).await.map_err(|_| LinkError::Silent(limit))??;
        receive(response, self.silence).await
    }

    /// Forgets the connection, so that the next request opens another.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Empty<Bytes>>, LinkError> {
        let usable = match &mut self.open {
            Some(open) => open.sender.ready().await.is_ok(),
            None => false,
        };
        let open = match self.open.take().filter(|_| usable) {
            Some(open) => open,
            None => timeout(self.silence, self.connect()).await.map_err(|_| LinkError::Silent(self.silence))??,
        };
        Ok(&mut self.open.insert(open).sender)
    }

    async fn connect(&self) -> Result<Open, LinkError> {
        let failed = |source| LinkError::Connect { host: self.authority.clone(), source };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        let _ = stream.set_nodelay(true);
        let stream = self.tls.connect(self.name.clone(), stream).await.map_err(failed)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends the connection is seen by whoever uses it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Open { sender, _driver: AbortOnDropHandle::new(driver) })
    }
}

/// The whole body, unpacked. Each part of it must come within `silence`.
async fn receive(response: Response<Incoming>, silence: Duration) -> Result<Answer, LinkError> {
    let (head, mut body) = response.into_parts();
    let mut packed = Vec::new();
    while let Some(frame) = timeout(silence, body.frame()).await.map_err(|_| LinkError::Silent(silence))? {
        let Ok(data) = frame?.into_data() else { continue };
        if packed.len() + data.len() > LARGEST {
            return Err(LinkError::Page(format!("more than {LARGEST} bytes")));
        }
        packed.extend_from_slice(&data);
    }
    let received = packed.len() as u64;
    let body = encoding(&head.headers)
        .and_then(|encoding| encoding.undo(&packed, LARGEST))
        .map_err(|wrong| LinkError::Page(wrong.to_string()))?;
    Ok(Answer { status: head.status.as_u16(), retry_after: retry_after(&head.headers), body, received })
}

fn encoding(headers: &HeaderMap) -> io::Result<Encoding> {
    let Some(name) = headers.get(header::CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    let known = name.to_str().ok().and_then(Encoding::named);
    known.ok_or_else(|| io::Error::other(format!("packed as {name:?}, which was not asked for")))
}

/// Seconds, or a date (RFC 9110, 10.2.3), which is counted from the date of the answer: the clocks of both ends may differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let told = headers.get(header::DATE).and_then(|date| date.to_str().ok()).and_then(date);
    let left = date(text)?.duration_since(told.unwrap_or_else(Timestamp::now));
    // A date that is over asks for nothing.
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, as all dates of HTTP are to be written.
fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date_by_the_gateway_s_own_clock() {
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let named = |name: &str| header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            let headers = pairs.iter().map(|(name, value)| (named(name), value.parse().expect("a value")));
            retry_after(&headers.collect())
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(asked(&[("retry-after", "120")]), Some(Duration::from_secs(120)));
        assert_eq!(asked(&[date, ("retry-after", "Sun, 06 Nov 1994 08:51:07 GMT")]), Some(Duration::from_secs(90)));
        assert_eq!(asked(&[date, ("retry-after", "Sat, 05 Nov 1994 08:51:07 GMT")]), Some(Duration::ZERO));
        assert_eq!(asked(&[("retry-after", "Sun, 06 Nov 1994 08:51:07 GMT")]), Some(Duration::ZERO));
        assert_eq!((asked(&[date]), asked(&[("retry-after", "soon")])), (None, None));
    }

    #[test]
    fn only_the_address_of_a_gateway_is_taken() {
        let directory = tempfile::tempdir().expect("a folder");
        let authority = directory.path().join("ca.pem");
        std::fs::write(&authority, tls::Authority::new("x").expect("made").certificate()).expect("written");
        let config = tls::client(None, &authority).expect("a configuration");
        let link = |url: &str| Link::new(url, Arc::clone(&config), Duration::ZERO);
        for wrong in ["", "mairie", "http://mairie:8444", "https://", "https://a b", "https://mairie/?x=1", "/v1"] {
            assert!(link(wrong).is_err(), "{wrong}");
        }
        let of = |url: &str| link(url).map(|l| (l.host, l.port, l.prefix)).expect("an address");
        assert_eq!(of("https://mairie.example"), ("mairie.example".to_owned(), 443, String::new()));
        assert_eq!(of("https://[::1]:8444/box/"), ("::1".to_owned(), 8444, "/box".to_owned()));
    }
}
