//! Every resource of the operating API in one table: routing, 405 answers, metric labels and the OpenAPI document
//! are made from it.

use actix_web::http::Method;
use actix_web::{Resource, Route, web};
use http_support::{Error, RouteLabel};
use serde_json::{Value, json};

use crate::api;

/// One resource.
pub struct Entry {
    /// Its pattern, also its metric label.
    pub path: &'static str,
    /// What it can do.
    pub operations: &'static [Operation],
}

/// One method of a resource.
pub struct Operation {
    /// Which.
    pub method: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Media type and meaning of the good answer.
    pub answers: (u16, &'static str),
    /// Media type of the body that it takes.
    pub takes: Option<&'static str>,
    /// Makes its handler.
    pub handler: fn() -> Route,
}

const JSON: &str = "application/json";

const fn get(summary: &'static str, media: &'static str, handler: fn() -> Route) -> Operation {
    Operation { method: "GET", summary, answers: (200, media), takes: None, handler }
}

const fn reserved(method: &'static str) -> Operation {
    let summary = "Reserved for a later version";
    let handler = || web::to(api::reserved);
    Operation { method, summary, answers: (501, "application/problem+json"), takes: None, handler }
}

/// All of them.
#[rustfmt::skip]
pub static ROUTES: &[Entry] = &[
    Entry { path: "/v1/tree", operations: &[
        get("The supervision tree of all nodes; with Accept: text/event-stream each transition as it happens, resumable by Last-Event-ID", JSON, || web::to(api::tree)),
    ]},
    Entry { path: "/v1/faults", operations: &[
        get("The faults in force", JSON, || web::to(api::list_faults)),
        Operation { method: "POST", summary: "Injects a fault", answers: (201, JSON), takes: Some(JSON), handler: || web::to(api::inject) },
        Operation { method: "DELETE", summary: "Ends every fault", answers: (200, JSON), takes: None, handler: || web::to(api::clear_all) },
    ]},
    Entry { path: "/v1/faults/{id}", operations: &[
        get("A fault in force", JSON, || web::to(api::get_fault)),
        Operation { method: "DELETE", summary: "Ends a fault now", answers: (204, ""), takes: None, handler: || web::to(api::clear) },
    ]},
    Entry { path: "/v1/services", operations: &[
        get("What discovery knows", JSON, || web::to(api::services)),
    ]},
    Entry { path: "/v1/experiments", operations: &[reserved("GET"), reserved("POST")] },
    Entry { path: "/v1/experiments/{id}", operations: &[reserved("GET"), reserved("DELETE")] },
    Entry { path: "/v1/openapi.json", operations: &[
        get("This document", JSON, || web::to(api::openapi)),
    ]},
    Entry { path: "/metrics", operations: &[
        get("Metrics of this node", "application/openmetrics-text", || web::to(api::metrics)),
    ]},
    Entry { path: "/healthz", operations: &[
        get("The process lives", "text/plain", || web::to(api::healthz)),
    ]},
    Entry { path: "/readyz", operations: &[
        get("Everything on this node runs; 503 says what does not", JSON, || web::to(api::readyz)),
    ]},
    Entry { path: "/", operations: &[
        get("The live page", "text/html", || web::to(api::page)),
    ]},
    Entry { path: "/fragments/tree", operations: &[
        get("The tree of the live page", "text/html", || web::to(api::tree_fragment)),
    ]},
    Entry { path: "/fragments/panels", operations: &[
        get("The panels of the live page", "text/html", || web::to(api::panels_fragment)),
    ]},
    Entry { path: "/assets/{version}/{name}", operations: &[
        get("Style sheet and script of the live page", "text/css, text/javascript", || web::to(api::asset)),
    ]},
];

impl Entry {
    /// The resource for actix: its handlers, its label, and 405 with `Allow` for every other method.
    #[must_use]
    pub fn resource(&self) -> Resource {
        let allow = self.allow();
        let mut resource = web::resource(self.path).app_data(RouteLabel(self.path));
        for operation in self.operations {
            let method = Method::from_bytes(operation.method.as_bytes()).expect("the table has real methods");
            resource = resource.route((operation.handler)().method(method));
            if operation.method == "GET" {
                resource = resource.route((operation.handler)().method(Method::HEAD));
            }
        }
        resource.default_service(web::to(move || {
            let refused = Error::method_not_allowed(&allow);
            async move { Err::<actix_web::HttpResponse, Error>(refused) }
        }))
    }

    fn allow(&self) -> String {
        let mut methods: Vec<&str> = Vec::new();
        for operation in self.operations {
            methods.push(operation.method);
            if operation.method == "GET" {
                methods.push("HEAD");
            }
        }
        methods.join(", ")
    }
}

/// The OpenAPI 3.1 document of this API.
#[must_use]
pub fn openapi() -> Value {
    let paths = ROUTES.iter().map(|entry| {
        let operations = entry.operations.iter().map(|o| (o.method.to_lowercase(), operation(o)));
        let mut item: serde_json::Map<String, Value> = operations.collect();
        let parameters = parameters(entry.path);
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), parameters.into());
        }
        (entry.path.to_owned(), Value::Object(item))
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Standfast operating API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Watch the stack and break it on purpose. The jobs API has a document of its own at the front door, under the same path.",
        },
        "paths": paths.collect::<serde_json::Map<String, Value>>(),
        "components": { "schemas": schemas() },
    })
}

fn operation(o: &Operation) -> Value {
    let (status, media) = o.answers;
    let mut good = json!({ "description": o.summary });
    if !media.is_empty() {
        let content = media.split(", ").map(|m| (m.to_owned(), json!({})));
        good["content"] = Value::Object(content.collect());
    }
    let mut made = json!({
        "summary": o.summary,
        "responses": {
            status.to_string(): good,
            "default": {
                "description": "What went wrong (RFC 9457)",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            },
        },
    });
    if let Some(media) = o.takes {
        let schema = json!({ "schema": { "$ref": "#/components/schemas/Fault" } });
        made["requestBody"] = json!({ "required": true, "content": { media: schema } });
    }
    made
}

fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|level| level.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect()
}

fn schemas() -> Value {
    let kinds = faults::Kind::ALL.map(faults::Kind::as_str);
    json!({
        "Fault": {
            "type": "object",
            "required": ["target", "kind"],
            "additionalProperties": false,
            "properties": {
                "target": { "type": "string", "description": "Path glob: * is one level, ** any number of them", "examples": ["/laptop/jobs/*/workers/**"] },
                "kind": { "enum": kinds },
                "for_ms": { "type": "integer", "minimum": 1, "default": 10_000 },
                "probability": { "type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1 },
                "amount_ms": { "type": "integer", "minimum": 1, "description": "Of slow and delay" },
            },
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status"],
            "properties": {
                "type": { "type": "string" }, "title": { "type": "string" }, "status": { "type": "integer" },
                "detail": { "type": "string" }, "instance": { "type": "string" },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_route() {
        let document = openapi();
        for entry in ROUTES {
            for operation in entry.operations {
                let made = &document["paths"][entry.path][operation.method.to_lowercase()];
                assert!(made["responses"].is_object(), "{} {}", operation.method, entry.path);
            }
        }
        assert_eq!(document["paths"]["/v1/faults/{id}"]["parameters"][0]["name"], "id");
        assert_eq!(document["components"]["schemas"]["Fault"]["properties"]["kind"]["enum"][0], "panic");
    }

    #[test]
    fn allow_names_head_with_get() {
        let faults = ROUTES.iter().find(|e| e.path == "/v1/faults").expect("in the table");
        assert_eq!(faults.allow(), "GET, HEAD, POST, DELETE");
    }
}
