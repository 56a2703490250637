//! Reads that take long, beside short ones.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics with what went wrong")]

mod common;

use bus::BusConfig;
use common::{Cluster, run};
use database::Config;
use futures_util::future::join_all;
use serde_json::json;

const LONG: &str =
    "[\"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n\"]";

/// A few reads of one client that ran up to their limit had taken every connection, and all others were told that the
/// replica is busy.
#[test]
fn long_reads_wait_for_each_other_and_short_ones_do_not_wait_for_them() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bus = BusConfig::embedded(dir.path().join("bus"));
        let tune = |c| Config { readers: 2, read_time_ms: 6000, wait_ms: 2000, ..c };
        let cluster = Cluster::start_on(&bus, dir.path(), 1, tune).await;
        cluster.primary().await;
        let url = format!("{}/db/query?level=eventual", cluster.urls[0]);
        let long = join_all((0..8).map(|_| cluster.post(&url, LONG)));
        let short = async {
            // Until the long ones are over: each is answered, however many of the others wait.
            for n in 0..40 {
                let (status, answer, _) = cluster.post(&url, &format!("[\"SELECT {n}\"]")).await;
                assert_eq!((status, &answer["results"][0]["values"]), (200, &json!([[n]])), "{answer}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        let (long, ()) = futures_util::join!(long, short);
        let ended = long.iter().filter(|(status, answer, _)| {
            let text = answer.to_string();
            (*status == 503 && text.contains("take long")) || text.contains("longer than allowed")
        });
        assert_eq!(ended.count(), long.len(), "{long:?}");
        let refused = long.iter().filter(|(status, ..)| *status == 503).count();
        assert!((1..8).contains(&refused), "{refused} of 8 are told to come again");
        cluster.stop().await;
    });
}
