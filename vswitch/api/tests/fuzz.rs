//! Coverage-guided fuzzing of what a client reads of a switch: `scripts/fuzz`. As an ordinary test,
//! the target replays its corpus in `__fuzz__`.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vswitch_api::Endpoint;
use vswitch_api::client::Client;
use vswitch_api::endpoint::Form;

/// Any bytes that a switch sends are an answer or an error, and neither shows anything to a
/// terminal that is not plain text. A byte for the endpoint, then what it sends.
#[test]
fn answer_is_read_or_refused() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let Some((choice, sent)) = input.split_first() else {
                return;
            };
            let endpoint = Endpoint::ALL[usize::from(*choice) % Endpoint::ALL.len()];
            let (ours, mut switch) = UnixStream::pair().expect("a pair");
            // So few bytes fit into the socket.
            switch.write_all(sent).expect("it is sent");
            switch.shutdown(Shutdown::Write).expect("it ends");
            let client = Client::connected(ours, "/fuzz/control.sock", Duration::from_secs(5));
            let text = match client.get(endpoint, "") {
                Err(error) => error.to_string(),
                Ok(body) => {
                    assert!(body.len() <= sent.len());
                    let Some(show) = &endpoint.spec().show else {
                        return;
                    };
                    let table = (show.print)(&body, Form::Table);
                    assert_eq!(table.is_ok(), (show.print)(&body, Form::Json).is_ok());
                    table.unwrap_or_else(|error| vswitch_api::plain::quote(&error.to_string()))
                }
            };
            let is_plain = |it: char| it == '\n' || !it.is_control();
            assert!(text.chars().all(is_plain), "{text:?}");
        });
}
