//! The API described for programs: OpenAPI 3.1, served as it is at `/v1/openapi.json`.
//!
//! The document is made by the test below from the same table that the router and the check of queries read, and from
//! the types that answers are made of; it fails when the file is not what they say. So the gateway carries a text, not
//! what it takes to make it, and a change of the API is seen in a commit.

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::{SchemaGenerator, generate::SchemaSettings};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::peers::{
        answer::{GapsTold, PointsTold},
        cursor::Cursor,
        days::Package,
        health::Digest,
        page::{Block, GapLine, Onward, OnwardBack, OnwardInRange, Row},
        refusal::{Code, PROBLEM, Problem},
        resource::{Form, Parameter, Place, ROUTES, Resource, Route, SENML},
        senml::Record,
    };

    /// `CLOCHER_WRITE_OPENAPI=1 cargo test --lib openapi` writes it anew.
    #[test]
    fn the_document_says_what_the_code_does() {
        let mut made = Vec::new();
        // A byte a level: the text is carried by every gateway.
        let narrow = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut writer = serde_json::Serializer::with_formatter(&mut made, narrow);
        serde::Serialize::serialize(&document(), &mut writer).expect("written");
        let made = String::from_utf8(made).expect("UTF-8") + "\n";
        if std::env::var_os("CLOCHER_WRITE_OPENAPI").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/peers/openapi.json"), &made).expect("written");
            return;
        }
        let differs = DOCUMENT.lines().zip(made.lines()).find(|(old, new)| old != new);
        assert_eq!(
            differs, None,
            "src/peers/openapi.json is not what the code says: CLOCHER_WRITE_OPENAPI=1 cargo test --lib openapi"
        );
        assert_eq!(DOCUMENT.len(), made.len());
    }

    fn document() -> Value {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        let mut schemas = settings.into_generator();
        let paths: Map<_, _> = ROUTES
            .iter()
            .map(|route| (route.template.to_owned(), json!({"get": operation(route, &mut schemas)})))
            .collect();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Clocher, the pull API",
                "version": "1",
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
                "description": "How central servers take readings from the gateway of a village hall. Over mutual TLS: \
                    the client's certificate says which peer it is, and the gateway's configuration which sharing \
                    classes that peer sees. Nothing is written, nothing is pushed. Every reading given is entered into \
                    the gateway's access register. Bodies are packed as `Accept-Encoding` asks (zstd, gzip).",
            },
            "servers": [{"url": "https://{gateway}:{port}", "variables": {
                "gateway": {"default": "gateway.example"}, "port": {"default": "8444"},
            }}],
            "security": [{"certificate": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"certificate": {
                    "type": "mutualTLS", "description": "Issued by the authority that the gateway's configuration names.",
                }},
                "schemas": schemas.take_definitions(true),
            },
        })
    }

    fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
        let mut parameters: Vec<_> = route.parameters.iter().map(|parameter| described(parameter)).collect();
        if route.tagged {
            parameters.push(json!({
                "name": "If-None-Match", "in": "header", "schema": {"type": "string"},
                "description": "The tag of an earlier answer: 304 when it would be the same again.",
            }));
        }
        let mut responses = BTreeMap::from([("200".to_owned(), answer(route, schemas))]);
        if route.tagged {
            responses.insert("304".to_owned(), json!({"description": "As it was.", "headers": headers(route)}));
        }
        for (status, codes) in refusals(route) {
            responses.insert(status.to_string(), refusal(status, &codes, schemas));
        }
        let name = format!("{:?}", route.resource);
        json!({
            "operationId": name[..1].to_lowercase() + &name[1..], "summary": route.summary, "description": route.doc,
            "parameters": parameters, "responses": responses,
        })
    }

    fn described(parameter: &Parameter) -> Value {
        let place = match parameter.place {
            Place::Query => "query",
            Place::Path => "path",
        };
        let (schema, more) = match parameter.form {
            Form::Whole { least, usual, most } => {
                let mut schema = json!({"type": "integer", "minimum": least});
                if let Some(usual) = usual {
                    schema["default"] = usual.into();
                }
                (schema, if most < u64::MAX { format!(" More than {most} is taken as {most}.") } else { String::new() })
            }
            Form::Word(words) => (json!({"type": "string", "enum": words, "default": words[0]}), String::new()),
            Form::Cursor => (json!({"type": "string", "pattern": Cursor::PATTERN}), String::new()),
            Form::Date => (json!({"type": "string", "format": "date"}), String::new()),
            Form::Bound => {
                let time = json!({"type": "string", "format": "date-time"});
                (json!({"anyOf": [{"type": "integer", "minimum": 0}, time]}), String::new())
            }
        };
        json!({
            "name": parameter.name, "in": place, "required": parameter.place == Place::Path, "schema": schema,
            "description": format!("{}{more}", parameter.doc),
        })
    }

    fn answer(route: &Route, schemas: &mut SchemaGenerator) -> Value {
        let content: Map<_, _> = route
            .media
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": body(route, media, schemas)})))
            .collect();
        json!({"description": route.summary, "headers": headers(route), "content": content})
    }

    fn body(route: &Route, media: &str, schemas: &mut SchemaGenerator) -> Value {
        let schema = match (route.resource, media) {
            (Resource::Observations, SENML) => {
                return json!({"type": "array", "minItems": 1, "items": schemas.subschema_for::<Record<'_>>()});
            }
            (Resource::Observations, _) => {
                let lines = [
                    schemas.subschema_for::<Row<'_>>(),
                    schemas.subschema_for::<Block<'_>>(),
                    schemas.subschema_for::<GapLine>(),
                    schemas.subschema_for::<Onward>(),
                    schemas.subschema_for::<OnwardInRange>(),
                    schemas.subschema_for::<OnwardBack>(),
                ];
                return json!({"type": "array", "minItems": 1, "description": "An item a line.", "items": {"anyOf": lines}});
            }
            (Resource::Metrics | Resource::Day, _) => return json!({"type": "string"}),
            (Resource::DaySchema | Resource::OpenApi, _) => return json!({"type": "object"}),
            (Resource::Points, _) => schemas.subschema_for::<PointsTold<'_>>(),
            (Resource::Gaps, _) => schemas.subschema_for::<GapsTold>(),
            (Resource::Health, _) => schemas.subschema_for::<Digest>(),
            (Resource::Days, _) => schemas.subschema_for::<Package>(),
        };
        schema.to_value()
    }

    fn headers(route: &Route) -> Value {
        let text =
            |doc: &str, required: bool| json!({"schema": {"type": "string"}, "description": doc, "required": required});
        let mut headers = json!({"Vary": text("`accept, accept-encoding`.", true)});
        if route.tagged {
            headers["ETag"] =
                text("Changes when the answer does. A day has one once it is over.", route.resource != Resource::Day);
        }
        if route.resource == Resource::Observations {
            headers["Link"] = text(
                "The next request with `rel=\"next\"`, but for a range or the newest when complete; of a SenML pack, the same \
                 readings as rows with `rel=\"alternate\"` (RFC 8288).",
                false,
            );
            headers["Retry-After"] = json!({"schema": {"type": "integer"}, "required": false, "description":
                "Seconds after which to ask again, when there is no more for now and `wait` was not said.",
            });
        }
        headers
    }

    fn refusals(route: &Route) -> BTreeMap<u16, Vec<Code>> {
        let mut refusals = BTreeMap::<u16, Vec<Code>>::new();
        for code in route.refusals.iter().chain(Code::OF_ALL) {
            refusals.entry(code.status().as_u16()).or_default().push(*code);
        }
        refusals
    }

    fn refusal(status: u16, codes: &[Code], schemas: &mut SchemaGenerator) -> Value {
        let names: Vec<_> =
            codes.iter().map(|code| format!("`{}`", json!(code).as_str().unwrap_or_default())).collect();
        let mut refusal = json!({
            "description": format!("`error` is {}.", names.join(" or ")),
            "content": {PROBLEM: {"schema": schemas.subschema_for::<Problem>()}},
        });
        match status {
            405 => refusal["headers"]["Allow"] = json!({"schema": {"type": "string"}, "description": "`GET`."}),
            429 | 503 => {
                let doc =
                    "Seconds after which to ask again; different for each, so that many do not come back together.";
                refusal["headers"]["Retry-After"] = json!({"schema": {"type": "integer"}, "description": doc});
            }
            _ => {}
        }
        refusal
    }
}
