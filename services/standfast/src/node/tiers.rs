//! Which tiers a node starts, in which order, and how each is wired. The one place that names them all.

use crate::cli::Tier;
use crate::failure::Outcome;
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
        let _ = plan;
        Ok(())
    }
}

/// Bounds of faults on this node.
pub fn fault_limits(settings: &Settings) -> faults::Limits {
    let _ = settings;
    faults::Limits::default()
}
