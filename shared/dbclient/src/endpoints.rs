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
