//! Says that this point of presence is there. Last in, first out.

use messages::service::Health;
use supervision::{Life, StartError, Started};

use crate::edge::Edge;

pub fn start(life: Life) -> Result<Started, StartError> {
    let edge = life.env::<Edge>();
    Ok(Started::task(async move {
        edge.announcer.set_health(Health::Ready);
        life.ready();
        life.stopping().await;
        edge.announcer.set_health(Health::Draining);
        Ok(())
    }))
}
