//! Where the replicas are.

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Base URL: `http://127.0.0.1:4001`.
    pub url: String,
    /// Whether it said that it is the primary.
    pub primary: bool,
}

/// A source of endpoints, asked at each request.
pub trait Endpoints: Send + Sync + 'static {
    /// The replicas known now, in any order.
    fn endpoints(&self) -> Vec<Endpoint>;
}

/// Whoever discovery knows in tier `database`, in the role that each says it has.
impl Endpoints for discovery::Registry {
    fn endpoints(&self) -> Vec<Endpoint> {
        let all = self.snapshot();
        let of_tier = all.iter().filter(|it| it.tier == "database");
        let primary =
            |it: &messages::service::Announcement| it.facts.get("role").is_some_and(|role| role == "primary");
        // Of two that both say so, the one of the later epoch is.
        let epoch =
            |it: &messages::service::Announcement| it.facts.get("epoch").and_then(|e| e.parse::<u64>().ok());
        let latest = of_tier.clone().filter(|it| primary(it)).map(epoch).max().flatten();
        of_tier
            .filter_map(|it| {
                Some(Endpoint { url: it.address.clone()?, primary: primary(it) && epoch(it) == latest })
            })
            .collect()
    }
}

/// A fixed list of base URLs.
impl Endpoints for Vec<String> {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.iter().map(|url| Endpoint { url: url.clone(), primary: false }).collect()
    }
}

impl<F: Fn() -> Vec<Endpoint> + Send + Sync + 'static> Endpoints for F {
    fn endpoints(&self) -> Vec<Endpoint> {
        self()
    }
}
