//! `GET /openapi.json`: what is served, generated from the routes.
//!
//! A route is registered with [`Api`], and so known with its methods; what is said of each stands in `openapi/operations.json`,
//! cut from Portkey's public specification (MIT, see `openapi/LICENSE.md`) and brought in line with what is served. A route
//! of which nothing is said fails a test, and so does an operation without a route.

use std::sync::Arc;

use axum::{Router, handler::Handler, response::IntoResponse, routing::MethodRouter};
use bytes::Bytes;
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::Control;

/// What is said of each operation, and the schemas that it names.
const OPERATIONS: &str = include_str!("openapi/operations.json");

/// The routes of the API, and what is known of them.
#[derive(Default)]
pub(super) struct Api {
    router: Router<Arc<Control>>,
    routes: Vec<(String, Vec<Method>)>,
}

/// What a path does, by method.
pub(super) struct Methods {
    router: MethodRouter<Arc<Control>>,
    names: Vec<Method>,
}

/// The document, as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Document(Bytes);

// === impl Api ===

impl Api {
    /// Serves `path`.
    pub(super) fn route(mut self, path: &str, methods: Methods) -> Self {
        self.router = self.router.route(path, methods.router);
        self.routes.push((path.to_owned(), methods.names));
        self
    }

    /// Serves `path` without a word about it.
    pub(super) fn unlisted(mut self, path: &str, methods: MethodRouter<Arc<Control>>) -> Self {
        self.router = self.router.route(path, methods);
        self
    }

    /// The routes, and the document that describes them.
    pub(super) fn finish(self) -> (Router<Arc<Control>>, Document) {
        let document = Document(self.document().to_string().into());
        (self.router, document)
    }

    fn document(&self) -> Value {
        let said: Value = serde_json::from_str(OPERATIONS).unwrap_or_default();
        let mut paths = Map::new();
        for (path, method) in self.operations() {
            let Some((path, operation)) = described(&said, &path, &method) else { continue };
            let Some(item) = paths.entry(path).or_insert_with(|| json!({})).as_object_mut() else { continue };
            item.insert(method, operation.clone());
        }
        json!({
            "openapi": said["openapi"],
            "info": {
                "title": "Sidekey control plane",
                "description": said["info"]["description"],
                "version": env!("CARGO_PKG_VERSION"),
                "license": { "name": "MIT AND Apache-2.0" },
            },
            // The same without the prefix.
            "servers": [{ "url": "/v1" }],
            "security": said["security"],
            "paths": paths,
            "components": said["components"],
        })
    }

    /// Every path with every method it has, in lower case.
    fn operations(&self) -> impl Iterator<Item = (String, String)> {
        let methods = |(path, methods): &(String, Vec<Method>)| {
            let path = path.clone();
            methods.iter().map(|method| (path.clone(), method.as_str().to_ascii_lowercase())).collect::<Vec<_>>()
        };
        self.routes.iter().flat_map(methods).collect::<Vec<_>>().into_iter()
    }
}

// === impl Methods ===

impl Methods {
    /// And this for POST.
    pub(super) fn post<H: Handler<T, Arc<Control>>, T: 'static>(self, handler: H) -> Self {
        self.and(Method::POST, |router| router.post(handler))
    }

    /// And this for PUT.
    pub(super) fn put<H: Handler<T, Arc<Control>>, T: 'static>(self, handler: H) -> Self {
        self.and(Method::PUT, |router| router.put(handler))
    }

    /// And this for DELETE.
    pub(super) fn delete<H: Handler<T, Arc<Control>>, T: 'static>(self, handler: H) -> Self {
        self.and(Method::DELETE, |router| router.delete(handler))
    }

    fn and(self, name: Method, add: impl FnOnce(MethodRouter<Arc<Control>>) -> MethodRouter<Arc<Control>>) -> Self {
        let Self { router, mut names } = self;
        names.push(name);
        Self { router: add(router), names }
    }
}

// === impl Document ===

impl IntoResponse for Document {
    fn into_response(self) -> axum::response::Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

/// The path does this for GET.
pub(super) fn get<H: Handler<T, Arc<Control>>, T: 'static>(handler: H) -> Methods {
    Methods { router: MethodRouter::new().get(handler), names: vec![Method::GET] }
}

/// The path does this for POST.
pub(super) fn post<H: Handler<T, Arc<Control>>, T: 'static>(handler: H) -> Methods {
    Methods { router: MethodRouter::new().post(handler), names: vec![Method::POST] }
}

/// What is said of a route, under the path as it is written there: parameters have better names than the router wants.
fn described<'s>(said: &'s Value, path: &str, method: &str) -> Option<(String, &'s Value)> {
    let shape = |path: &str| -> Vec<String> {
        let segment = |segment: &str| if segment.starts_with('{') { "{}" } else { segment }.to_owned();
        path.split('/').map(segment).collect()
    };
    let wanted = shape(path);
    let mut paths = said["paths"].as_object()?.iter();
    let (path, item) = paths.find(|(path, item)| shape(path) == wanted && item.get(method).is_some())?;
    Some((path.clone(), &item[method]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::control::routes::api;

    #[test]
    fn what_is_routed_is_said_and_what_is_said_is_routed() {
        let api = api();
        let said: Value = serde_json::from_str(OPERATIONS).unwrap();
        let routed: BTreeSet<(String, String)> = api
            .operations()
            .map(|(path, method)| {
                let (path, _) = described(&said, &path, &method)
                    .unwrap_or_else(|| panic!("nothing is said of {method} {path} in openapi/operations.json"));
                (path, method)
            })
            .collect();
        let written: BTreeSet<(String, String)> = said["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())))
            .collect();
        assert_eq!(written, routed);
        let document = api.document();
        let served: usize =
            document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(served, routed.len());
    }

    #[test]
    fn every_schema_that_is_named_is_there_and_used() {
        let document = api().document();
        let mut named = BTreeSet::new();
        references(&document, &mut named);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let there: BTreeSet<String> = schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
        named.retain(|name| name.starts_with("#/components/schemas/"));
        assert_eq!(named, there);
    }

    fn references(value: &Value, named: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match value {
                        Value::String(text) if key == "$ref" => {
                            named.insert(text.clone());
                        }
                        _ => references(value, named),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, named)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
