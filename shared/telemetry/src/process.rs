//! What the kernel says of this process, read when metrics are scraped.

use clock::WallMs;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks a second in `/proc/self/stat`: fixed by Linux's user ABI.
const TICKS: f64 = 100.0;

#[derive(Debug)]
pub(crate) struct ProcessMetrics {
    started: WallMs,
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self { started: WallMs::now() }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "process_start_time_seconds",
            "When this process began to count, since 1970",
            self.started.0 as f64 / 1e3,
        )?;
        let Some(usage) = Usage::read() else { return Ok(()) };
        gauge("process_resident_memory_bytes", "Memory held in RAM", usage.resident_bytes)?;
        gauge("process_threads", "Operating system threads", usage.threads)?;
        gauge("process_open_fds", "Open file descriptors", usage.open_fds)?;
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let help = "Processor time used, user and system";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)
    }
}

struct Usage {
    resident_bytes: f64,
    threads: f64,
    open_fds: f64,
    cpu_seconds: f64,
}

impl Usage {
    /// `None` where there is no Linux `/proc`.
    fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = |key: &str| -> Option<f64> {
            let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field, the command's name, may hold anything but ends at the last parenthesis (proc(5)).
        let after_name: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 = after_name.get(11..13)?.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        Some(Self {
            resident_bytes: line("VmRSS:")? * 1024.0,
            threads: line("Threads:")?,
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            cpu_seconds: ticks / TICKS,
        })
    }
}
