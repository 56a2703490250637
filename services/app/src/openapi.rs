//! `GET /v1/openapi.json`: the shapes are written by hand in `openapi.json`, the paths come from [`ROUTES`].

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::routes::{ROUTES, Route};

/// The document, OpenAPI 3.1.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let mut document: Value =
            serde_json::from_str(include_str!("openapi.json")).expect("the file is part of this crate");
        let mut paths = Map::new();
        for route in ROUTES {
            let path =
                paths.entry(route.path).or_insert_with(|| json!({ "parameters": parameters(route.path) }));
            path[route.method.as_str().to_ascii_lowercase()] = operation(route);
        }
        document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
        document["paths"] = paths.into();
        document
    });
    &DOCUMENT
}

fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect()
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    for status in route.statuses {
        let description =
            actix_web::http::StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason());
        responses.insert(status.to_string(), answer(route, *status, description.unwrap_or("Answer")));
    }
    responses.insert("default".into(), problem("Any other answer is a problem"));
    let mut operation = json!({ "summary": route.summary, "responses": responses });
    if reads(route) {
        operation["parameters"] = json!([{
            "name": "consistency",
            "in": "query",
            "description": "strong: as fresh as every answer that any app server has given. eventual: as a replica has it, \
                which costs less and works while there is no primary.",
            "schema": { "type": "string", "enum": ["strong", "eventual"], "default": "strong" },
        }]);
    }
    let body = match (route.method.as_str(), route.path) {
        ("POST", "/v1/jobs") => Some(("application/json", "Submit")),
        ("POST", "/v1/jobs:bulk") => Some(("application/x-ndjson", "Submit")),
        ("PUT" | "PATCH", "/v1/queues/{queue}") => Some(("application/json", "QueueSettings")),
        _ => None,
    };
    if let Some((media, schema)) = body {
        operation["requestBody"] =
            json!({ "required": true, "content": { media: { "schema": reference(schema) } } });
    }
    operation
}

/// Whether the route reads jobs or queues.
fn reads(route: &Route) -> bool {
    route.method == "GET"
        && !route.is_reserved()
        && ["/v1/jobs", "/v1/queues"].iter().any(|root| route.path.starts_with(root))
}

fn answer(route: &Route, status: u16, description: &str) -> Value {
    if status >= 400 {
        return problem(description);
    }
    let is_job = route.path.starts_with("/v1/jobs/{id}") && !route.path.contains("}/");
    let schema = match (status, route.path) {
        (204 | 304, _) => return json!({ "description": description }),
        (_, "/v1/jobs") if route.method == "POST" => "Job",
        (_, "/v1/jobs" | "/v1/queues/{queue}/dead") => "Page",
        (_, "/v1/queues/{queue}" | "/v1/queues/{queue}:pause" | "/v1/queues/{queue}:resume") => "Queue",
        _ if is_job => "Job",
        _ => return json!({ "description": description }),
    };
    json!({ "description": description, "content": { "application/json": { "schema": reference(schema) } } })
}

fn problem(description: &str) -> Value {
    let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
    json!({ "description": description, "content": content })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let document = document();
        for route in ROUTES {
            let method = route.method.as_str().to_ascii_lowercase();
            let summary = &document["paths"][route.path][method]["summary"];
            assert_eq!(summary, route.summary, "{} {}", route.method, route.path);
        }
        let text = document.to_string();
        for schema in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
        }
    }

    /// The hand-written shapes name exactly the members that the wire types have.
    #[test]
    fn the_shapes_are_those_of_the_wire_types() {
        let members = |schema: &str| -> BTreeSet<String> {
            let properties = document()["components"]["schemas"][schema]["properties"].as_object();
            properties.expect("an object schema").keys().cloned().collect()
        };
        let submit = json!({"kind": "a", "queue": "q", "priority": 1, "delay_ms": 1, "run_at": "", "max_attempts": 1,
            "timeout_ms": 1, "key": "k", "unique": {}, "callback": {}, "tags": ["t"], "payload": 1});
        let submit: messages::job::Submit = serde_json::from_value(submit).expect("all fields");
        let keys =
            |value: Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(members("Submit"), keys(serde_json::to_value(&submit).expect("JSON")));
        let job = json!({"id": uuid::Uuid::nil(), "kind": "", "queue": "", "state": "running", "attempt": 1,
            "max_attempts": 1, "priority": 1, "timeout_ms": 1, "payload": 1, "inserted_at": "", "run_at": "",
            "started_at": "", "finished_at": "", "result": 1, "errors": [], "progress": 1, "tags": ["t"],
            "cancel_requested": true, "runner": "", "version": 1, "postponed": 1, "unreadable": ["payload"]});
        let job: messages::job::Job = serde_json::from_value(job).expect("all fields");
        assert_eq!(members("Job"), keys(serde_json::to_value(&job).expect("JSON")));
    }
}
