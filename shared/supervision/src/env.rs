//! What an instance's children are given, and what outlives their restarts.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::sync::Arc;

/// Typed values of one instance: configuration, listening sockets, queues. They survive every restart.
#[derive(Clone, Default)]
pub struct Env {
    values: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pools: HashMap<&'static str, usize>,
}

/// How many children the pool with this id starts with. Given to [`Env::with`], once per pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize(pub &'static str, pub usize);

impl Env {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value`; one of each type, the last wins. A [`PoolSize`] is one per pool.
    #[must_use]
    pub fn with<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        if let Some(size) = (&value as &dyn Any).downcast_ref::<PoolSize>() {
            self.pools.insert(size.0, size.1);
        } else {
            self.values.insert(TypeId::of::<T>(), Arc::new(value));
        }
        self
    }

    /// The value of this type, if there is one.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.values.get(&TypeId::of::<T>()).and_then(|value| Arc::clone(value).downcast().ok())
    }

    pub(crate) fn expect<T: Send + Sync + 'static>(&self, path: &str) -> Arc<T> {
        self.get().unwrap_or_else(|| {
            panic!("`{path}` needs a `{}` in the Env its instance was started with", type_name::<T>())
        })
    }

    pub(crate) fn pool_size(&self, id: &str) -> usize {
        self.pools.get(id).copied().unwrap_or(1)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("values", &self.values.len()).field("pools", &self.pools).finish()
    }
}
