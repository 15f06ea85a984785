//! The client of the control API: one request for each connection, with one deadline for all of it.
//!
//! The switch may have been taken over. Its answer is read up to [`Operation::answer_max`] bytes,
//! straight into the answer's type; an error quotes little of it, and that plain.
//!
//! [`Operation::answer_max`]: crate::endpoint::Operation::answer_max

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use crate::endpoint::{Endpoint, Failure, Operation};
use crate::plain::quote;
use crate::{PREFER, REQUEST_ID};

/// The largest head of an answer, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens on the socket.
    #[error(
        "{socket}: {source}; is the switch running, and is this its control socket?",
        socket = socket.display()
    )]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The switch took too long.
    #[error(
        "{socket}: no answer in {timeout:.0?}; a switch on a slow machine may need a longer \
         --timeout",
        socket = socket.display()
    )]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long the client waited.
        timeout: Duration,
    },
    /// What came back is not an answer to the request.
    #[error("{socket}: {error}; is this a switch's control socket?", socket = socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it; plain.
        error: String,
    },
    /// What came back is the answer to another client's request, which can happen where clients
    /// share a VM's channel.
    #[error("{socket}: this is the answer to another's request", socket = socket.display())]
    Foreign {
        /// The socket.
        socket: PathBuf,
    },
    /// The switch answered with an error.
    #[error("the switch refuses: {0}")]
    Refused(
        /// Its reason; plain and short.
        String,
    ),
}

impl ClientError {
    /// Whether what came may have been for another client of a VM's channel: of one that has gone,
    /// an answer or the rest of one. Then a second try is worth it.
    pub fn may_be_anothers(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Protocol { .. })
    }
}

/// A client of one switch.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
    connection: Connection,
}

/// How a client comes to its connections.
#[derive(Debug)]
enum Connection {
    /// One for each request.
    Own,
    /// It was given one, for one request.
    Given(Mutex<Option<UnixStream>>),
}

/// A request, and how much of its answer is read.
struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    answer_max: usize,
}

impl Client {
    /// A client of the switch that listens on `socket`. A request may take `timeout` in all, from
    /// the connection to the last byte of the answer.
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self {
            socket: socket.into(),
            timeout,
            connection: Connection::Own,
        }
    }

    /// A client for one request over `stream`, which is connected to `socket`.
    pub fn connected(stream: UnixStream, socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self {
            connection: Connection::Given(Mutex::new(Some(stream))),
            ..Self::new(socket, timeout)
        }
    }

    /// `GET` with that query, which is empty or begins with `?`: the bytes of the answer. Asks once
    /// more within the same time if what came is no answer to this request, and if there can be
    /// another connection.
    ///
    /// # Errors
    /// If there is no answer, or one with a status other than 200.
    pub fn get(&self, endpoint: Endpoint, query: &str) -> Result<Vec<u8>, ClientError> {
        let spec = endpoint.spec();
        let path = format!("{}{query}", spec.path);
        let until = Instant::now() + self.timeout;
        let ask = || {
            let call = Call {
                method: Method::GET,
                path: &path,
                body: Bytes::new(),
                answer_max: spec.get.answer_max,
            };
            self.request(call, until)
        };
        match ask() {
            Err(error) if error.may_be_anothers() && self.can_reconnect() => ask(),
            answer => answer,
        }
    }

    /// [`Self::get`], read as a `T`.
    ///
    /// # Errors
    /// As for [`Self::get`], and if the answer is not a `T`.
    pub fn read<T: DeserializeOwned>(&self, endpoint: Endpoint) -> Result<T, ClientError> {
        self.parse(&self.get(endpoint, "")?)
    }

    /// `PUT`, whose answer is read as a `T`.
    ///
    /// # Errors
    /// If the endpoint has no such method, if there is no answer or one with a status other than
    /// 200, or if the answer is not a `T`.
    pub fn put<T: DeserializeOwned>(
        &self,
        endpoint: Endpoint,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let spec = endpoint.spec();
        let Some(put) = &spec.put else {
            return Err(self.protocol(format!("PUT is not a method of {}", spec.path)));
        };
        let Operation { answer_max, .. } = put.operation;
        let call = Call {
            method: Method::PUT,
            path: spec.path,
            body: body.into(),
            answer_max,
        };
        self.parse(&self.request(call, Instant::now() + self.timeout)?)
    }

    /// An answer that cannot be understood.
    pub fn protocol(&self, error: impl ToString) -> ClientError {
        ClientError::Protocol {
            socket: self.socket.clone(),
            error: quote(&error.to_string()),
        }
    }

    fn parse<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|error| self.protocol(error))
    }

    fn request(&self, call: Call<'_>, until: Instant) -> Result<Vec<u8>, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| self.connect(error))?;
        runtime.block_on(async {
            tokio::time::timeout_at(until.into(), self.exchange(call))
                .await
                .unwrap_or_else(|_| {
                    Err(ClientError::Timeout {
                        socket: self.socket.clone(),
                        timeout: self.timeout,
                    })
                })
        })
    }

    fn can_reconnect(&self) -> bool {
        matches!(self.connection, Connection::Own)
    }

    async fn stream(&self) -> io::Result<tokio::net::UnixStream> {
        let given = match &self.connection {
            Connection::Own => return tokio::net::UnixStream::connect(&self.socket).await,
            Connection::Given(given) => given,
        };
        let stream = given.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = stream.ok_or(io::ErrorKind::NotConnected)?;
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    }

    async fn exchange(&self, call: Call<'_>) -> Result<Vec<u8>, ClientError> {
        let Call {
            method,
            path,
            body,
            answer_max,
        } = call;
        let stream = self.stream().await.map_err(|error| self.connect(error))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.protocol(error))?;
        tokio::spawn(connection);
        let id = new_id();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "vswitch")
            .header(REQUEST_ID, &id)
            .header(PREFER, format!("wait={}", self.timeout.as_secs()))
            .body(Full::new(body))
            .map_err(|error| self.protocol(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.protocol(error))?;
        let answered = response.headers().get(REQUEST_ID);
        if answered.is_some_and(|other| other != id.as_str()) {
            let socket = self.socket.clone();
            return Err(ClientError::Foreign { socket });
        }
        let status = response.status();
        let answer = self.collect(response.into_body(), answer_max).await?;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let failure: Failure = self.parse(&answer)?;
        Err(ClientError::Refused(quote(&failure.error)))
    }

    /// Reads a body into one piece of memory: a list of small pieces would take many times more.
    async fn collect<B>(&self, mut body: B, most: usize) -> Result<Vec<u8>, ClientError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let too_long = || self.protocol(format!("the answer has more than {most} bytes"));
        if body.size_hint().lower() > most as u64 {
            return Err(too_long());
        }
        let mut answer = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.protocol(error))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if data.len() > most - answer.len() {
                return Err(too_long());
            }
            answer.extend_from_slice(data);
        }
        Ok(answer)
    }

    fn connect(&self, source: io::Error) -> ClientError {
        ClientError::Connect {
            socket: self.socket.clone(),
            source,
        }
    }
}

/// Unique on this machine: no process makes two within a nanosecond.
fn new_id() -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!(
        "{}-{}",
        std::process::id(),
        time.unwrap_or_default().as_nanos()
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use tempfile::TempDir;

    use super::*;
    use crate::endpoint::config::Installed;

    const GENERATION: &str = r#"{"generation":7}"#;

    fn get(client: &Client) -> Result<Vec<u8>, ClientError> {
        client.get(Endpoint::Worker, "")
    }

    fn put(client: &Client) -> Result<Installed, ClientError> {
        client.put(Endpoint::Config, b"{}".to_vec())
    }

    /// Makes the response to a request.
    type Answer = fn(&str) -> String;

    /// A client of a socket that answers one connection after the other, then closes.
    fn switch(answers: &'static [Answer]) -> (Client, TempDir) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = [0; 4096];
                let length = stream.read(&mut request).expect("a request");
                let request = String::from_utf8_lossy(&request[..length]);
                let _ = stream.write_all(answer(&request).as_bytes());
            }
        });
        (Client::new(path, Duration::from_secs(20)), directory)
    }

    fn response(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    fn ok(request: &str) -> String {
        let id = request
            .lines()
            .find(|line| line.starts_with("x-request-id: "));
        response("200 OK", &format!("{}\r\n", id.expect("an id")), GENERATION)
    }

    fn answer_to_another(_: &str) -> String {
        response("200 OK", "x-request-id: 1-1\r\n", r#"{"generation":6}"#)
    }

    fn conflict(_: &str) -> String {
        response("409 Conflict", "", r#"{"error":"memory is another"}"#)
    }

    #[test]
    fn get_returns_the_answer_and_states_its_wait() {
        fn checked(request: &str) -> String {
            assert!(
                request.starts_with("GET /v1/worker HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains("\r\nprefer: wait=20\r\n"), "{request}");
            ok(request)
        }
        let (client, _directory) = switch(&[checked]);
        assert_eq!(get(&client).expect("an answer"), GENERATION.as_bytes());
    }

    #[test]
    fn get_asks_once_more_after_an_answer_to_another_request() {
        let (client, _directory) = switch(&[answer_to_another, ok]);
        assert_eq!(get(&client).expect("an answer"), GENERATION.as_bytes());
        let (client, _directory) = switch(&[answer_to_another, answer_to_another]);
        assert!(matches!(get(&client), Err(ClientError::Foreign { .. })));
    }

    #[test]
    fn get_asks_once_more_after_the_rest_of_an_answer_to_another() {
        fn rest(_: &str) -> String {
            answer_to_another("")[20..].to_owned()
        }
        let (client, _directory) = switch(&[rest, ok]);
        assert_eq!(get(&client).expect("an answer"), GENERATION.as_bytes());
    }

    #[test]
    fn get_asks_once_where_the_connection_is_given() {
        let (client, _directory) = switch(&[answer_to_another, ok]);
        let stream = UnixStream::connect(&client.socket).expect("it listens");
        let client = Client::connected(stream, client.socket, client.timeout);
        assert!(matches!(get(&client), Err(ClientError::Foreign { .. })));
    }

    #[test]
    fn put_is_not_repeated() {
        let (client, _directory) = switch(&[answer_to_another, ok]);
        assert!(matches!(put(&client), Err(ClientError::Foreign { .. })));
    }

    #[test]
    fn failure_is_refused_with_its_sentence() {
        let (client, _directory) = switch(&[conflict]);
        let error = put(&client).expect_err("409");
        assert_eq!(error.to_string(), "the switch refuses: memory is another");
    }

    #[test]
    fn missing_socket_is_a_connect_error() {
        let client = Client::new("/nowhere/control.sock", Duration::from_secs(1));
        assert!(matches!(get(&client), Err(ClientError::Connect { .. })));
    }

    #[test]
    fn silent_switch_times_out() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("control.sock");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let client = Client::new(path, Duration::from_millis(50));
        assert!(matches!(get(&client), Err(ClientError::Timeout { .. })));
    }
}
