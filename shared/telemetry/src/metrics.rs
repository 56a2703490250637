//! The process's metrics, on `prometheus-client`.
//!
//! A family is asked for by name and may be asked for again: all get the same one. What `with` returns is a handle
//! to one series (an `Arc` around an atomic): a hot path asks once and keeps it.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Buckets that OpenTelemetry's semantic conventions advise for durations in seconds
/// (`http.server.request.duration`).
pub const DURATION_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Buckets for what takes microseconds: restarts of a child, commits, publishes.
pub const SHORT_SECONDS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0,
];

/// A family holds at most so many series; further label values are counted under `other`.
pub const SERIES_MAX: usize = 1000;

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0: what a Prometheus server asks for.
    OpenMetrics,
    /// Prometheus' older text format, version 0.0.4: what people and most tools read.
    Text,
}

impl Exposition {
    /// The one that a request with this `Accept` field is to get.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// The process's one registry.
#[must_use]
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// All metrics of the process.
#[must_use]
pub fn render(exposition: Exposition) -> String {
    let text = metrics().render();
    match exposition {
        Exposition::OpenMetrics => text,
        Exposition::Text => older_text(&text),
    }
}

/// OpenMetrics as the older format: there a counter's description names it as its samples do, with `_total`, and
/// there is neither a unit nor an end mark.
fn older_text(openmetrics: &str) -> String {
    let is_counter = |name: &str| openmetrics.contains(&format!("# TYPE {name} counter\n"));
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let suffix = if is_counter(name) { "_total" } else { "" };
        text.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
    }
    text
}

/// A set of metric families.
pub struct Metrics {
    inner: Mutex<Inner>,
}

struct Inner {
    registry: Registry,
    families: HashMap<&'static str, Box<dyn Any + Send>>,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("standfast");
        registry.register_collector(Box::new(crate::process::ProcessMetrics::default()));
        Self { inner: Mutex::new(Inner { registry, families: HashMap::new() }) }
    }

    /// Counters `standfast_<name>_total{labels…}`. Name without prefix and `_total`.
    ///
    /// # Panics
    /// If the name is already a family of another kind or with other labels: a mistake in the program.
    pub fn counters<const N: usize>(
        &self,
        name: &'static str,
        help: &str,
        labels: [&'static str; N],
    ) -> Counters<N> {
        self.family(name, help, || Counters { labels, family: Family::default(), series: Arc::default() })
    }

    /// Gauges `standfast_<name>{labels…}`.
    ///
    /// # Panics
    /// As [`Metrics::counters`].
    pub fn gauges<const N: usize>(
        &self,
        name: &'static str,
        help: &str,
        labels: [&'static str; N],
    ) -> Gauges<N> {
        self.family(name, help, || Gauges { labels, family: Family::default(), series: Arc::default() })
    }

    /// Histograms `standfast_<name>{labels…}`; the unit is the last word of the name (`…_seconds`).
    ///
    /// # Panics
    /// As [`Metrics::counters`].
    pub fn histograms<const N: usize>(
        &self,
        name: &'static str,
        help: &str,
        labels: [&'static str; N],
        buckets: &'static [f64],
    ) -> Histograms<N> {
        let family = || Family::new_with_constructor(Buckets(buckets));
        self.family(name, help, || Histograms { labels, family: family(), series: Arc::default() })
    }

    /// All families in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &inner.registry)
            .expect("writing to a String cannot fail");
        text
    }

    fn family<F: Handle>(&self, name: &'static str, help: &str, new: impl FnOnce() -> F) -> F {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { registry, families } = &mut *inner;
        let known = families.entry(name).or_insert_with(|| {
            let family = new();
            // The registry ends the help text with a full stop of its own.
            registry.register(name, help.trim_end_matches('.'), family.metric());
            Box::new(family)
        });
        known.downcast_ref::<F>().cloned().unwrap_or_else(|| panic!("metric {name} is of two kinds"))
    }
}

trait Handle: Clone + Send + 'static {
    type Family: Metric;
    fn metric(&self) -> Self::Family;
}

#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident, $series:ty, $family:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name<const N: usize> {
            labels: [&'static str; N],
            family: $family,
            /// How many series there are; may run over by as many as are made at the same moment.
            series: Arc<AtomicUsize>,
        }

        impl<const N: usize> $name<N> {
            /// The series with these label values, in the order in which the labels were named. Values come from
            /// closed sets; should they not, [`SERIES_MAX`] bounds the family.
            #[must_use]
            pub fn with<V: Into<Cow<'static, str>>>(&self, values: [V; N]) -> $series {
                let mut values = values.into_iter().map(Into::into);
                let labels = self.labels.map(|label| (label, values.next().unwrap_or_default()));
                if let Some(known) = self.family.get(&labels) {
                    return known.clone();
                }
                let full = self.series.fetch_add(1, Relaxed) >= SERIES_MAX;
                let labels = if full { labels.map(|(label, _)| (label, Cow::Borrowed("other"))) } else { labels };
                self.family.get_or_create_owned(&labels)
            }

            /// Forgets the series with these label values: what they described is no more.
            pub fn remove<V: Into<Cow<'static, str>>>(&self, values: [V; N]) {
                let mut values = values.into_iter().map(Into::into);
                if self.family.remove(&self.labels.map(|label| (label, values.next().unwrap_or_default()))) {
                    self.series.fetch_sub(1, Relaxed);
                }
            }
        }

        impl<const N: usize> Handle for $name<N> {
            type Family = $family;
            fn metric(&self) -> Self::Family {
                self.family.clone()
            }
        }
    )+};
}

families! {
    /// Counters under one name.
    Counters, Counter, Family<Labels<N>, Counter>;
    /// Gauges under one name.
    Gauges, Gauge, Family<Labels<N>, Gauge>;
    /// Histograms under one name, with the same buckets.
    Histograms, Histogram, Family<Labels<N>, Histogram, Buckets>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_asked_for_twice_is_one_and_renders_as_openmetrics() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            let restarts = metrics.counters("test_restarts", "Restarts.", ["tier", "reason"]);
            restarts.with(["jobs", "panic"]).inc();
        }
        metrics.gauges("test_depth", "Depth.", []).with([] as [&str; 0]).set(7);
        let durations = metrics.histograms("test_duration_seconds", "Time.", ["route"], DURATION_SECONDS);
        durations.with(["/v1/jobs/{id}"]).observe(0.006);
        let text = metrics.render();
        for line in [
            "# TYPE standfast_test_restarts counter",
            "standfast_test_restarts_total{tier=\"jobs\",reason=\"panic\"} 2",
            "standfast_test_depth{} 7",
            "standfast_test_duration_seconds_bucket{le=\"0.01\",route=\"/v1/jobs/{id}\"} 1",
            "standfast_test_duration_seconds_count{route=\"/v1/jobs/{id}\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    /// Every sample belongs to a family that was described before it, every value is a number, the end is marked.
    #[test]
    fn the_text_parses() {
        let metrics = Metrics::new();
        metrics.counters("test_odd", "Odd.", ["name"]).with(["a \"b\"\nc\\"]).inc();
        let text = metrics.render();
        let mut family = "";
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(described) = line.strip_prefix("# ") {
                family = described.split(' ').nth(1).expect("a name after HELP, TYPE or UNIT");
                continue;
            }
            assert!(line.starts_with(family), "{line} is not of {family}");
            let value = line.rsplit(' ').next().expect("a value");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line} has no value"));
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("standfast_process_resident_memory_bytes"), "{text}");
    }

    /// `promtool check metrics` reads it without a complaint: every sample is of a family described by its own name.
    #[test]
    fn the_older_text_describes_counters_by_the_name_of_their_samples() {
        let metrics = Metrics::new();
        metrics.counters("test_restarts", "Restarts.", ["tier"]).with(["jobs"]).inc();
        metrics.gauges("test_depth", "Depth of a # b.", []).with([] as [&str; 0]).set(7);
        let text = older_text(&metrics.render());
        for line in [
            "# HELP standfast_test_restarts_total Restarts.",
            "# TYPE standfast_test_restarts_total counter",
            "standfast_test_restarts_total{tier=\"jobs\"} 1",
            "# HELP standfast_test_depth Depth of a # b.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
        assert_eq!(Exposition::accepted("text/html"), Exposition::Text);
        assert_eq!(
            Exposition::accepted("application/openmetrics-text;version=1.0.0,*/*;q=0.1"),
            Exposition::OpenMetrics
        );
    }

    #[test]
    fn a_family_is_bounded_whatever_the_labels() {
        let metrics = Metrics::new();
        let counters = metrics.counters("test_names", "Names.", ["name"]);
        for n in 0..2 * SERIES_MAX {
            counters.with([format!("name-{n}")]).inc();
        }
        assert_eq!(counters.with(["other"]).get(), SERIES_MAX as u64);
    }
}
