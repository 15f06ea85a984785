//! The API as an OpenAPI 3.1 document, made from the table of endpoints.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::endpoint::{Endpoint, Failure, Operation, Reply, SchemaOf, schema_of};

/// The whole document.
pub fn document() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = Map::new();
    for endpoint in Endpoint::ALL {
        let spec = endpoint.spec();
        let mut methods = Map::new();
        methods.insert("get".to_owned(), operation(&spec.get, &mut schemas));
        if let Some(put) = &spec.put {
            let mut object = operation(&put.operation, &mut schemas);
            object["requestBody"] = json!({
                "required": true,
                "content": json_content(put.body, &mut schemas),
            });
            methods.insert("put".to_owned(), object);
        }
        paths.insert(spec.path.to_owned(), methods.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The control API of vswitch",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP/1.1 on the switch's unix socket. GET also answers HEAD. An answer \
                has the X-Request-Id of its request.",
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn operation(operation: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let content = match operation.reply {
        Reply::Json(schema) => json_content(schema, schemas),
        Reply::Text(content_type) => json!({ content_type: { "schema": { "type": "string" } } }),
    };
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "Done", "content": content }),
    );
    for (status, reason) in operation.failures {
        let content = json_content(schema_of::<Failure>, schemas);
        let response = json!({ "description": reason, "content": content });
        responses.insert(status.to_string(), response);
    }
    let mut object = json!({ "summary": operation.summary, "responses": responses });
    if !operation.flags.is_empty() {
        let flags = operation.flags.iter().map(|flag| {
            json!({
                "name": flag.name, "in": "query", "description": flag.help,
                "schema": { "enum": ["", "1", "true"] },
            })
        });
        object["parameters"] = flags.collect();
    }
    object
}

fn json_content(schema: SchemaOf, schemas: &mut SchemaGenerator) -> Value {
    json!({ "application/json": { "schema": schema(schemas) } })
}
