//! The client of the control API: one request for each connection, with a bounded wait.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::{PREFER, REQUEST_ID};

/// The largest answer that is read: more than the largest that a switch gives.
const ANSWER_MAX: usize = 64 << 20;

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
        "{socket}: no answer in {timeout:?}; a switch on a slow machine may need a longer \
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
        /// What is wrong with it.
        error: String,
    },
    /// The switch answered with an error.
    #[error("the switch refuses: {0}")]
    Refused(String),
}

/// A client of one switch.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the switch that listens on `socket`. Each answer may take `timeout`.
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self {
            socket: socket.into(),
            timeout,
        }
    }

    /// `GET`: the answer's JSON. Asks once more if the first answer is not to this request, which
    /// can happen where clients share a VM's channel.
    ///
    /// # Errors
    /// If there is no answer, or one with a status other than 200.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        match self.request(Method::GET, path, Bytes::new()) {
            Err(ClientError::Protocol { .. }) => self.request(Method::GET, path, Bytes::new()),
            answer => answer,
        }
    }

    /// [`Self::get`], read as a `T`.
    ///
    /// # Errors
    /// As for [`Self::get`], and if the answer is not a `T`.
    pub fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        serde_json::from_value(self.get(path)?).map_err(|error| self.protocol(error))
    }

    /// `PUT`: the answer's JSON.
    ///
    /// # Errors
    /// If there is no answer, or one with a status other than 200.
    pub fn put(&self, path: &str, body: Vec<u8>) -> Result<Value, ClientError> {
        self.request(Method::PUT, path, body.into())
    }

    /// An answer that cannot be understood.
    pub fn protocol(&self, error: impl ToString) -> ClientError {
        ClientError::Protocol {
            socket: self.socket.clone(),
            error: error.to_string(),
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| self.connect(error))?;
        runtime.block_on(async {
            let answer = self.exchange(method, path, body);
            tokio::time::timeout(self.timeout, answer)
                .await
                .unwrap_or_else(|_| {
                    Err(ClientError::Timeout {
                        socket: self.socket.clone(),
                        timeout: self.timeout,
                    })
                })
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Value, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = TokioIo::new(stream.map_err(|error| self.connect(error))?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
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
            return Err(self.protocol("this is the answer to another's request"));
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|error| self.protocol(error))?;
        let value: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| self.protocol(error))?;
        if status == StatusCode::OK {
            return Ok(value);
        }
        let error = value["error"].as_str().unwrap_or("it gives no reason");
        Err(ClientError::Refused(error.to_owned()))
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

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

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
        response(
            "200 OK",
            &format!("{}\r\n", id.expect("an id")),
            r#"{"generation":7}"#,
        )
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
        assert_eq!(
            client.get("/v1/worker").expect("an answer"),
            json!({ "generation": 7 })
        );
    }

    #[test]
    fn get_asks_once_more_after_an_answer_to_another_request() {
        let (client, _directory) = switch(&[answer_to_another, ok]);
        assert_eq!(
            client.get("/").expect("an answer"),
            json!({ "generation": 7 })
        );
        let (client, _directory) = switch(&[answer_to_another, answer_to_another]);
        assert!(matches!(client.get("/"), Err(ClientError::Protocol { .. })));
    }

    #[test]
    fn put_is_not_repeated() {
        let (client, _directory) = switch(&[answer_to_another, ok]);
        assert!(matches!(
            client.put("/", Vec::new()),
            Err(ClientError::Protocol { .. })
        ));
    }

    #[test]
    fn failure_is_refused_with_its_sentence() {
        let (client, _directory) = switch(&[conflict]);
        let error = client.put("/v1/config", b"{}".to_vec()).expect_err("409");
        assert_eq!(error.to_string(), "the switch refuses: memory is another");
    }

    #[test]
    fn missing_socket_is_a_connect_error() {
        let client = Client::new("/nowhere/control.sock", Duration::from_secs(1));
        assert!(matches!(client.get("/"), Err(ClientError::Connect { .. })));
    }

    #[test]
    fn silent_switch_times_out() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("control.sock");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let client = Client::new(path, Duration::from_millis(50));
        assert!(matches!(client.get("/"), Err(ClientError::Timeout { .. })));
    }
}
