//! HTTP/1.1, as much as metadata needs: requests without a body, and the heads of answers.

use std::time::Duration;

use crate::Station;
use crate::documents::{Body, Documents, Form};
use crate::token::{Secret, TTL_MAX};

/// The longest head of a request, in bytes.
pub const HEAD_MAX: usize = 2048;
/// The most header fields of a request.
const FIELDS_MAX: usize = 32;

/// The path of tokens.
const TOKEN_PATH: &str = "/latest/api/token";
/// How long a token is to last, in seconds: a field of its request and its answer.
const TTL_FIELD: &str = "X-aws-ec2-metadata-token-ttl-seconds";
/// The token that a request shows.
const TOKEN_FIELD: &str = "X-aws-ec2-metadata-token";

/// What a request gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Body,
    /// Whether the connection ends with it.
    pub(crate) close: bool,
    /// Whether it may leave the VM's own link: no router may pass it on.
    pub(crate) one_hop: bool,
}

/// What is known of a request that is answered.
#[derive(Debug, Default)]
struct Asked {
    is_head: bool,
    close: bool,
}

/// Reads what has come of a request: its length and what it gets, or `None` if it is not complete.
/// With the last one the connection ends.
pub(crate) fn answer(
    bytes: &[u8],
    served: (&Documents, &Secret, Station),
    is_last: bool,
    now: Duration,
) -> Option<(usize, Answer)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            let answer = refusal(&Asked::ended(), Status::HEAD_TOO_LARGE);
            return Some((bytes.len(), answer));
        }
        Err(_) => return Some((bytes.len(), refusal(&Asked::ended(), Status::BAD_REQUEST))),
    };
    let answer = respond(&request, served, is_last, now);
    Some((len, answer))
}

impl Asked {
    /// A request that cannot be read: what follows it cannot be either.
    fn ended() -> Self {
        Self {
            is_head: false,
            close: true,
        }
    }
}

fn respond(
    request: &httparse::Request<'_, '_>,
    (documents, secret, station): (&Documents, &Secret, Station),
    is_last: bool,
    now: Duration,
) -> Answer {
    let field = |name: &str| {
        let mut fields = request.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| field.value.trim_ascii())
    };
    let method = request.method.unwrap_or_default();
    let mut asked = Asked {
        is_head: method == "HEAD",
        close: is_last || request.version == Some(0) || has_word(field("Connection"), "close"),
    };
    // No request here has a body; where one would end is not guessed.
    if field("Transfer-Encoding").is_some()
        || field("Content-Length").is_some_and(|length| length != b"0")
    {
        asked.close = true;
        return refusal(&asked, Status::CONTENT_TOO_LARGE);
    }
    // It came through a proxy, so whoever asks is not the VM.
    if field("X-Forwarded-For").is_some() {
        return refusal(&asked, Status::FORBIDDEN);
    }
    let path = request.path.unwrap_or_default();
    if !path.starts_with('/') {
        asked.close = true;
        return refusal(&asked, Status::BAD_REQUEST);
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path == TOKEN_PATH {
        return match method {
            "PUT" => token(&asked, field(TTL_FIELD), (secret, station), now),
            _ => refusal(&asked, Status::TOKEN_METHOD),
        };
    }
    if !matches!(method, "GET" | "HEAD") {
        return refusal(&asked, Status::METHOD);
    }
    let (form, found) = documents.find(path);
    if form == Form::Ec2 {
        let token = field(TOKEN_FIELD);
        if token.is_none_or(|token| secret.check(station, token, now).is_err()) {
            return refusal(&asked, Status::UNAUTHORIZED);
        }
    }
    match found {
        Some(document) => found_document(&asked, document.kind, document.body.clone()),
        None => refusal(&asked, Status::NOT_FOUND),
    }
}

/// Whether a list of words has that one.
fn has_word(field: Option<&[u8]>, word: &str) -> bool {
    let mut words = field.unwrap_or_default().split(|byte| *byte == b',');
    words.any(|it| it.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn token(
    asked: &Asked,
    ttl: Option<&[u8]>,
    (secret, station): (&Secret, Station),
    now: Duration,
) -> Answer {
    let ttl = ttl.filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit));
    let ttl = ttl.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    let Some(ttl) = ttl.filter(|ttl| (1..=TTL_MAX).contains(ttl)) else {
        return refusal(asked, Status::BAD_REQUEST);
    };
    let token = secret.token(station, ttl, now);
    let more = format!("{TTL_FIELD}: {ttl}\r\n");
    let mut answer = with(asked, &Status::OK, (TEXT, &more), token.into_bytes().into());
    answer.one_hop = true;
    answer
}

/// The type of documents without another.
pub(crate) const TEXT: &str = "text/plain";

/// A status, and the field that goes with it.
struct Status {
    line: &'static str,
    field: &'static str,
}

impl Status {
    const fn new(line: &'static str) -> Self {
        Self { line, field: "" }
    }

    const OK: Self = Self::new("200 OK");
    const BAD_REQUEST: Self = Self::new("400 Bad Request");
    const UNAUTHORIZED: Self = Self::new("401 Unauthorized");
    const FORBIDDEN: Self = Self::new("403 Forbidden");
    const NOT_FOUND: Self = Self::new("404 Not Found");
    const METHOD: Self = Self {
        line: "405 Method Not Allowed",
        field: "Allow: GET, HEAD\r\n",
    };
    const TOKEN_METHOD: Self = Self {
        line: "405 Method Not Allowed",
        field: "Allow: PUT\r\n",
    };
    const CONTENT_TOO_LARGE: Self = Self::new("413 Content Too Large");
    const HEAD_TOO_LARGE: Self = Self::new("431 Request Header Fields Too Large");
}

fn refusal(asked: &Asked, status: Status) -> Answer {
    let body = format!("{}\n", status.line).into_bytes();
    with(asked, &status, (TEXT, status.field), body.into())
}

fn found_document(asked: &Asked, kind: &str, body: Body) -> Answer {
    with(asked, &Status::OK, (kind, ""), body)
}

/// `more` are whole lines.
fn with(asked: &Asked, status: &Status, (kind, more): (&str, &str), body: Body) -> Answer {
    let connection = if asked.close { "close" } else { "keep-alive" };
    let head = format!(
        "HTTP/1.1 {}\r\nServer: vswitch\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{more}Connection: {connection}\r\n\r\n",
        status.line,
        body.len()
    );
    Answer {
        head: head.into_bytes(),
        body: if asked.is_head { Body::from([]) } else { body },
        close: asked.close,
        one_hop: false,
    }
}
