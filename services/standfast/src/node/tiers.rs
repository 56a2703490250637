//! Which tiers a node starts, in which order, and how each is wired. The one place that names them all.

use dbclient::{Database, Endpoint};
use discovery::{Identity, Registry};
use messages::service::{Announcement, Health};

use crate::cli::Tier;
use crate::failure::{Failure, Outcome, with_causes};
use crate::settings::Settings;

use super::Node;

/// What a node starts: instances in order of start. A tier uses the tiers before it.
pub struct Plan {
    instances: Vec<(Tier, String)>,
    whole: bool,
}

impl Plan {
    /// Every tier, for `standfast up`.
    pub fn whole_stack(settings: &Settings) -> Self {
        let stack = &settings.stack;
        let counts = [
            (Tier::Database, stack.databases),
            (Tier::App, stack.apps),
            (Tier::Jobs, stack.runners),
            (Tier::Console, 1),
        ];
        let named =
            |(tier, count): (Tier, u32)| (1..=count).map(move |n| (tier, format!("{}-{n}", tier.as_str())));
        Self { instances: counts.into_iter().flat_map(named).collect(), whole: true }
    }

    /// One instance, for `standfast run`.
    pub fn one(tier: Tier, instance: String) -> Self {
        Self { instances: vec![(tier, instance)], whole: false }
    }

    /// In one process, only the first instance of a tier has the port that is configured.
    fn own_port(&self, instance: &str) -> bool {
        !self.whole || instance.ends_with("-1")
    }

    /// The first line of stdout.
    pub fn ready_line(&self, node: &Node) -> String {
        let address = |instance: &str| {
            let announcer = node.registry.local(instance)?;
            announcer.announcement().address
        };
        if self.whole {
            let known = |instance: &str| address(instance).unwrap_or_else(|| "-".to_owned());
            return format!("ready {} console {}", known("app-1"), known("console-1"));
        }
        let parts = self.instances.iter().map(|(_, instance)| match address(instance) {
            Some(address) => format!("{instance} {address}"),
            None => instance.clone(),
        });
        format!("ready {}", parts.collect::<Vec<_>>().join(" "))
    }
}

impl Node {
    /// Starts what the plan says.
    pub async fn start_tiers(&self, plan: &Plan) -> Outcome {
        for (tier, instance) in &plan.instances {
            self.root.add_tier(tier.as_str(), super::TIER_INTENSITY).await;
            match tier {
                Tier::Database => {}
                Tier::App => self.start_app(instance, plan.own_port(instance)).await?,
                Tier::Jobs => {}
                Tier::Console => {}
            }
        }
        Ok(())
    }

    async fn start_app(&self, instance: &str, own_port: bool) -> Outcome {
        let link = self.link("app", instance);
        let mut config = self.settings.app.clone();
        if !own_port {
            config.listen.set_port(0);
        }
        let built = app::env(config, link.clone(), self.database(), self.registry.clone());
        let (env, listener) = built.map_err(|error| refused(instance, &error))?;
        let identity = Identity::new("app", instance).at(listener.url()).over(link);
        let _ = self.registry.announce(identity);
        self.add("app", instance, &app::TREE, env).await
    }

    /// The client of the database tier that all instances of this node share.
    fn database(&self) -> Database {
        let registry = self.registry.clone();
        self.database.get_or_init(|| Database::new(move || replicas(&registry))).clone()
    }
}

/// The replicas that discovery knows; one that drains only if there is no other.
fn replicas(registry: &Registry) -> Vec<Endpoint> {
    let picture = registry.snapshot();
    let replicas = || picture.iter().filter(|it| it.tier == Tier::Database.as_str() && it.address.is_some());
    let staying = replicas().any(|it| it.health != Health::Draining);
    let endpoint = |it: &Announcement| Endpoint {
        url: it.address.clone().unwrap_or_default(),
        primary: it.facts.get("role").is_some_and(|role| role == "primary"),
    };
    replicas().filter(|it| !staying || it.health != Health::Draining).map(endpoint).collect()
}

fn refused(instance: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::failed(format!("{instance}: {}", with_causes(error)))
}

/// Bounds of faults on this node.
pub fn fault_limits(settings: &Settings) -> faults::Limits {
    let _ = settings;
    faults::Limits::default()
}
