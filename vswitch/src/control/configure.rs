//! Installs a new configuration: `PUT /v1/config`.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use pipeline::Generation;
use pipeline::ipsec::Rules;
use tenant_config::SwitchConfig;
use vswitch_api::endpoint::CONFIG_MAX;
use vswitch_api::endpoint::config::Installed;

use super::{Control, HttpError, Reply, WORKER_TIMEOUT, json_reply, within};
use crate::worker::load;

impl Control {
    pub(super) async fn configure(&self, body: Incoming) -> Result<Reply, HttpError> {
        let new = read_config(body).await?;
        // Locked after the body has arrived: a slow client must not make the others wait.
        let _one_at_a_time = self.swap.lock().await;
        let difference = self.config.borrow().needs_restart(&new);
        if let Some(difference) = difference {
            return Err(HttpError(
                StatusCode::CONFLICT,
                format!("{difference}: that takes a restart of the switch"),
            ));
        }
        let generation = self.build(&new);
        let generation = self
            .install(generation, new)
            .await
            .map_err(|error| HttpError(StatusCode::SERVICE_UNAVAILABLE, error.to_owned()))?;
        Ok(json_reply(&Installed { generation }))
    }

    /// Builds the generation that follows the one in use.
    pub(super) fn build(&self, config: &SwitchConfig) -> Generation {
        let (tables, counters) = (self.tables.borrow(), self.counters.borrow());
        Generation::build(config, Some((&tables, &counters)))
    }

    /// Passes the worker a generation built from `config`, and waits until it is in use; returns
    /// its number. The caller holds `swap`.
    pub(super) async fn install(
        &self,
        generation: Generation,
        config: SwitchConfig,
    ) -> Result<u64, &'static str> {
        let stats = self.link.stats();
        let before = load(&stats.generation);
        let (counters, tables) = (generation.counters(), generation.tables());
        // A generation that the worker returned after its request had timed out.
        drop(self.link.take_retired());
        self.link
            .install(generation)
            .map_err(|_| "the worker has not taken the configuration before this one")?;
        // The worker takes this one next, so it is the one to show.
        self.counters.replace(counters);
        self.tables.replace(tables);
        if let Some(ike) = &self.ike {
            ike.set_rules(Rules::of(&config));
        }
        if let Some(metadata) = &self.metadata {
            metadata.configure(&config);
        }
        self.config.replace(config);
        let taken = || load(&stats.generation) != before;
        if !within(WORKER_TIMEOUT, taken).await {
            return Err(
                "the worker does not go round; the configuration will be in use when it does",
            );
        }
        drop(self.link.take_retired());
        let generation = before + 1;
        tracing::info!(generation, "configuration in use");
        Ok(generation)
    }
}

async fn read_config(body: Incoming) -> Result<SwitchConfig, HttpError> {
    let body = Limited::new(body, CONFIG_MAX)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let error = format!("the body is larger than {CONFIG_MAX} bytes");
                HttpError(StatusCode::PAYLOAD_TOO_LARGE, error)
            } else {
                HttpError(StatusCode::BAD_REQUEST, format!("the body: {error}"))
            }
        })?;
    let invalid = |error: String| HttpError(StatusCode::UNPROCESSABLE_ENTITY, error);
    let bytes = body.to_bytes();
    let text = std::str::from_utf8(&bytes).map_err(|error| invalid(error.to_string()))?;
    let config = SwitchConfig::from_json("the request's body", text);
    config.map_err(|errors| invalid(errors.to_string()))
}
