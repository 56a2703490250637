//! One HTTP worker of the pool.

use actix_web::App as WebApp;
use actix_web::web;
use http_support::serve;
use supervision::{Life, StartError, Started};

use crate::routes;
use crate::state::App;

/// Starts a worker that accepts from the instance's listener.
pub fn start(life: Life) -> Result<Started, StartError> {
    let app = life.env::<App>();
    let (listener, limits, of_routes) = (app.listener.clone(), app.limits.clone(), life.clone());
    let gate = app.gate.clone();
    let web_app = move || {
        WebApp::new().configure(|config: &mut web::ServiceConfig| routes::mount(config, &app, &of_routes))
    };
    Ok(Started::task(serve(listener, gate, web_app, life, limits)))
}
