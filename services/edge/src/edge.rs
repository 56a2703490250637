//! What the children of a point of presence share; it lives in the `Env` and survives each of them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use discovery::{Announcer, Registry};
use http_support::Gate;
use http_support::access_log::AccessLog;
use http_support::gateway::{Binding, GatewayLimits, Timeouts};
use http_support::wire::covers;

use crate::certificates::Certificates;
use crate::config::Config;
use crate::fill::Fills;
use crate::origins::Origins;
use crate::rules::report::Voice;
use crate::rules::sharing::Rules;
use crate::store::Store;
use crate::telemetry::Telemetry;

/// What a time that is left open is where nobody has said what lies behind, milliseconds.
const FOLLOWS_MS: u64 = 120_000;

/// See the module.
pub struct Edge {
    pub config: Config,
    /// `edge-1`: its name in `Cache-Status` and `Via`.
    pub instance: String,
    /// `edge-1.laptop`: its name in `CDN-Loop`, unique in the stack.
    pub loop_id: String,
    pub store: Arc<Store>,
    pub fills: Arc<Fills>,
    pub origins: Origins,
    pub bus: Bus,
    pub registry: Registry,
    pub announcer: Announcer,
    pub telemetry: Telemetry,
    /// The way to the access log's writer.
    pub log: AccessLog,
    pub voice: Voice,
    pub bindings: Vec<Binding>,
    /// Whose requests its own routes take.
    pub gate: Gate,
    /// The TLS side of its listener.
    pub tls: Option<Arc<Certificates>>,
    /// Its own directory.
    pub data_dir: PathBuf,
    /// `CDN-Loop: edge-1.laptop\r\n`.
    pub loop_line: Vec<u8>,
}

impl Edge {
    /// How long an origin may take.
    pub fn timeouts(&self) -> Timeouts {
        let ms = Duration::from_millis;
        // What follows from other sections was put in before; alone, an edge takes what suits their defaults.
        let or_follows = |given: u64| ms(if given > 0 { given } else { FOLLOWS_MS });
        Timeouts {
            connect: ms(self.config.connect_timeout_ms),
            first_byte: or_follows(self.config.first_byte_timeout_ms),
            idle: or_follows(self.config.idle_timeout_ms),
            total: None,
        }
    }

    /// Whether what this peer says of earlier hops is believed, and passed on.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let trusted = &self.config.trusted;
        !trusted.is_empty() && covers(trusted, peer)
    }

    /// What is shared where a response says nothing about it.
    pub fn rules(&self) -> Rules {
        Rules { sharing: self.config.cache, heuristic_max_s: self.config.heuristic_max_s, private: false }
    }

    /// Bounds of one worker.
    pub fn limits(&self) -> GatewayLimits {
        self.config.limits.gateway()
    }
}
