//! Which tiers a node starts, in which order, and how each is wired. The one place that names them all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use dbclient::{Database, Replicas};
use discovery::Identity;
use futures_util::future::try_join_all;

use crate::cli::Tier;
use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome, with_causes};
use crate::settings::{Settings, Stack};

use super::{Node, names};

/// What a node starts: tiers in order of start, each with its instances, which start together. A tier uses the tiers
/// before it.
pub struct Plan {
    tiers: Vec<(Tier, Vec<String>)>,
    whole: bool,
}

impl Plan {
    /// Every tier, for `standfast up`. The console is first up and last down: the start and the end are seen too. The
    /// front door opens last, when all behind it serves.
    pub fn whole_stack(settings: &Settings) -> Self {
        let Stack { databases, apps, runners, webs, balancers, edges } = settings.stack;
        let counts = [
            (Tier::Console, 1),
            (Tier::Database, databases),
            (Tier::App, apps),
            (Tier::Jobs, runners),
            (Tier::Web, webs),
            (Tier::Balancer, balancers),
            (Tier::Edge, edges),
        ];
        let names = |(tier, count): (Tier, u32)| {
            (tier, (1..=count).map(|n| format!("{}-{n}", tier.as_str())).collect())
        };
        Self { tiers: counts.into_iter().map(names).collect(), whole: true }
    }

    /// One instance, for `standfast run`.
    pub fn one(tier: Tier, instance: String) -> Self {
        Self { tiers: vec![(tier, vec![instance])], whole: false }
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
            // Whoever stands furthest in front, of those that are started.
            let front = ["edge-1", "balancer-1", "web-1", "app-1"].into_iter().find_map(address);
            let or_none = |address: Option<String>| address.unwrap_or_else(|| "-".to_owned());
            return format!("ready {} console {}", or_none(front), or_none(address("console-1")));
        }
        let parts =
            self.tiers.iter().flat_map(|(_, instances)| instances).map(|instance| match address(instance) {
                Some(address) => format!("{instance} {address}"),
                None => instance.clone(),
            });
        format!("ready {}", parts.collect::<Vec<_>>().join(" "))
    }
}

impl Node {
    /// Starts what the plan says.
    pub async fn start_tiers(&self, plan: &Plan) -> Outcome {
        for (tier, instances) in &plan.tiers {
            self.root.add_tier(tier.as_str(), super::TIER_INTENSITY).await;
            let started = instances
                .iter()
                .map(|instance| self.start_instance(*tier, instance, plan.own_port(instance)));
            try_join_all(started).await?;
        }
        Ok(())
    }

    async fn start_instance(&self, tier: Tier, instance: &str, own_port: bool) -> Outcome {
        match tier {
            Tier::Database => self.start_database(instance, own_port).await,
            Tier::App => self.start_app(instance, own_port).await,
            Tier::Jobs => self.start_jobs(instance).await,
            Tier::Console => self.start_console(instance).await,
            Tier::Web => self.start_web(instance, own_port).await,
            Tier::Balancer => self.start_balancer(instance, own_port).await,
            Tier::Edge => self.start_edge(instance, own_port).await,
        }
    }

    /// A replica of the clients' database, and one of the jobs' database beside it.
    async fn start_database(&self, instance: &str, own_port: bool) -> Outcome {
        let mut config = self.settings.database.clone();
        config.hosts.extend(names::of_the_stack(&self.settings));
        instance.clone_into(&mut config.instance);
        config.data_dir = self.directory(instance);
        if !own_port {
            config.listen = port_zero(&config.listen);
        }
        let mut jobs = config.for_jobs();
        jobs.data_dir = self.directory(&jobs.instance);
        let both = [(&database::CLIENTS, config), (&database::JOBS, jobs)];
        try_join_all(both.map(|(group, config)| self.start_replica(group, config))).await.map(drop)
    }

    async fn start_replica(&self, group: &'static database::Group, config: database::Config) -> Outcome {
        let instance = config.instance.clone();
        let link = self.link("database", &instance);
        let built = database::env_of(group, config, link, self.registry.clone());
        let (env, _listener) = built.map_err(|error| refused(&instance, &error))?;
        self.names_on_reload("database", &instance, &env, |settings| {
            (settings.database.hosts.clone(), settings.database.page_origins.clone())
        });
        self.add("database", &instance, &database::TREE, env).await
    }

    async fn start_app(&self, instance: &str, own_port: bool) -> Outcome {
        let link = self.link("app", instance);
        let mut config = self.settings.app.clone();
        config.hosts.extend(names::of_the_stack(&self.settings));
        if !own_port {
            config.listen.set_port(0);
        }
        let built = app::env(config, link.clone(), self.database(), self.registry.clone());
        let (env, listener) = built.map_err(|error| refused(instance, &error))?;
        self.names_on_reload("app", instance, &env, |settings| {
            (settings.app.hosts.clone(), settings.app.page_origins.clone())
        });
        let identity = Identity::new("app", instance).at(listener.bound_url()).over(link);
        let _ = self.registry.announce(identity);
        self.add("app", instance, &app::TREE, env).await
    }

    async fn start_jobs(&self, instance: &str) -> Outcome {
        let on = jobs::Dependencies {
            instance: instance.to_owned(),
            bus: self.link("jobs", instance),
            registry: self.registry.clone(),
            database: self.database(),
            handlers: HashMap::new(),
            helper: jobs::Helper::default(),
        };
        let env = jobs::env(self.settings.jobs.clone(), on).map_err(|error| refused(instance, &error))?;
        self.add("jobs", instance, &jobs::TREE, env).await
    }

    async fn start_console(&self, instance: &str) -> Outcome {
        let bus = self.link("console", instance);
        let (agent, registry, database) = (self.agent.clone(), self.registry.clone(), self.database());
        let deps = console::Deps { agent, bus, registry, database };
        let mut config = self.settings.console.clone();
        config.hosts.extend(names::of_the_stack(&self.settings));
        let env = console::env(config, instance, deps).map_err(|error| refused(instance, &error))?;
        self.names_on_reload("console", instance, &env, |settings| {
            (settings.console.hosts.clone(), settings.console.page_origins.clone())
        });
        self.add("console", instance, &console::TREE, env).await
    }

    async fn start_web(&self, instance: &str, own_port: bool) -> Outcome {
        let on = web::Dependencies {
            instance: instance.to_owned(),
            bus: self.link("web", instance),
            registry: self.registry.clone(),
            data_dir: self.directory(instance),
        };
        let config = move |settings: &Settings| {
            let mut config = settings.web.clone();
            config.hosts.extend(names::of_the_stack(settings));
            own_ports(own_port, &mut config.listen, &mut config.tls_listen);
            config
        };
        let env = web::env(config(&self.settings), on).map_err(|error| refused(instance, &error))?;
        let of = env.clone();
        self.on_reload("web", instance, move |settings| {
            web::reload(&of, &config(settings)).map_err(|error| with_causes(&error))
        });
        self.add("web", instance, &web::TREE, env).await
    }

    async fn start_balancer(&self, instance: &str, own_port: bool) -> Outcome {
        let on = balancer::Dependencies {
            instance: instance.to_owned(),
            bus: self.link("balancer", instance),
            registry: self.registry.clone(),
            data_dir: self.directory(instance),
        };
        let config = move |settings: &Settings| {
            let mut config = settings.balancer.clone();
            own_ports(own_port, &mut config.listen, &mut config.tls_listen);
            config
        };
        let env = balancer::env(config(&self.settings), on).map_err(|error| refused(instance, &error))?;
        let of = env.clone();
        self.on_reload("balancer", instance, move |settings| {
            balancer::reconfigure(&of, config(settings)).map_err(|error| with_causes(&error))
        });
        self.add("balancer", instance, &balancer::TREE, env).await
    }

    async fn start_edge(&self, instance: &str, own_port: bool) -> Outcome {
        let on = edge::Dependencies {
            instance: instance.to_owned(),
            bus: self.link("edge", instance),
            registry: self.registry.clone(),
            data_dir: self.directory(instance),
        };
        let web_data = self.directory("web-1");
        let config = move |settings: &Settings| {
            let mut config = settings.edge.clone();
            config.hosts.extend(names::of_the_stack(settings));
            own_ports(own_port, &mut config.listen, &mut config.tls_listen);
            // What is issued to the stack is for its front door too, unless that is told to look elsewhere.
            let issued = || web::tls_config(&settings.web, &web_data).directory;
            config.tls.directory = config.tls.directory.or_else(issued);
            config
        };
        let env = edge::env(config(&self.settings), on).map_err(|error| refused(instance, &error))?;
        self.names_on_reload("edge", instance, &env, |settings| (settings.edge.hosts.clone(), Vec::new()));
        let of = env.clone();
        self.on_reload("edge", instance, move |settings| {
            edge::reload(&of, &config(settings)).map_err(|error| with_causes(&error))
        });
        self.add("edge", instance, &edge::TREE, env).await
    }

    /// What an instance keeps is below this directory.
    fn directory(&self, instance: &str) -> PathBuf {
        self.data.as_ref().map_or(self.settings.data.as_path(), DataDir::path).join(instance)
    }

    /// The client of the jobs' database that all instances of this node share.
    fn database(&self) -> Database {
        let replicas = || Replicas::of_jobs(self.registry.clone());
        self.database.get_or_init(|| Database::new(replicas())).clone()
    }
}

/// An instance that may not have the configured ports takes free ones.
fn own_ports(own: bool, plain: &mut SocketAddr, tls: &mut Option<SocketAddr>) {
    if !own {
        plain.set_port(0);
        tls.iter_mut().for_each(|address| address.set_port(0));
    }
}

/// The same interface, and a port of the system's choice.
fn port_zero(listen: &str) -> String {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    format!("{host}:0")
}

fn refused(instance: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::failed(format!("{instance}: {}", with_causes(error)))
}

/// Bounds of faults on this node.
pub fn fault_limits(settings: &Settings) -> faults::Limits {
    settings.console.agent_limits()
}
