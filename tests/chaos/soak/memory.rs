//! The resident memory of processes over time, and whether it grows.

use std::fs;
use std::time::{Duration, Instant};

/// How often it is looked at.
pub const EVERY: Duration = Duration::from_secs(10);
/// What comes first is left out: pools, caches and duplicate windows (two minutes) are filled then.
pub const WARM: Duration = Duration::from_secs(240);
/// Over less than that a line says nothing.
pub const JUDGED_FROM: Duration = Duration::from_secs(300);
const MIB: f64 = 1024.0 * 1024.0;

/// One process, from its beginning to its end.
pub struct Memory {
    pub name: &'static str,
    pid: u32,
    /// By how many MiB a minute the line may rise; `None`: it is not judged.
    bound: Option<f64>,
    began: Instant,
    /// When, and how many bytes.
    samples: Vec<(Duration, u64)>,
}

impl Memory {
    pub fn of(name: &'static str, pid: u32, bound: Option<f64>) -> Self {
        Self {
            name,
            pid,
            bound,
            began: Instant::now(),
            samples: Vec::new(),
        }
    }

    /// It is another process from now on.
    pub fn follows(&mut self, pid: u32) {
        self.pid = pid;
    }

    /// Does nothing when the process has ended.
    pub fn sample(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        if let Some(kib) = kib {
            self.samples.push((self.began.elapsed(), kib * 1024));
        }
    }

    fn warm(&self) -> &[(Duration, u64)] {
        let first = self.samples.partition_point(|(at, _)| *at < WARM);
        &self.samples[first..]
    }

    /// In MiB a minute, by the line that fits best what was seen after it was warm. `None`: that is too short a time.
    pub fn slope(&self) -> Option<f64> {
        let warm = self.warm();
        let (first, last) = (warm.first()?.0, warm.last()?.0);
        if last - first < JUDGED_FROM {
            return None;
        }
        let points = warm
            .iter()
            .map(|(at, bytes)| (at.as_secs_f64() / 60.0, *bytes as f64 / MIB));
        Some(slope(&points.collect::<Vec<_>>()))
    }

    pub fn grows(&self) -> bool {
        let bound = self.bound.unwrap_or(f64::INFINITY);
        self.slope().is_some_and(|slope| slope > bound)
    }

    /// All of them, in MiB.
    pub fn samples(&self) -> String {
        let each = self
            .samples
            .iter()
            .map(|(at, bytes)| format!("{}s:{:.1}", at.as_secs(), *bytes as f64 / MIB));
        format!("{}: {}", self.name, each.collect::<Vec<_>>().join(" "))
    }

    /// A row of the table.
    pub fn row(&self) -> String {
        let mib = |bytes: u64| format!("{:.0}", bytes as f64 / MIB);
        let median = |part: &[(Duration, u64)]| {
            let mut all: Vec<u64> = part.iter().map(|(_, bytes)| *bytes).collect();
            all.sort_unstable();
            all.get(all.len() / 2).map_or("-".to_owned(), |bytes| mib(*bytes))
        };
        let warm = self.warm();
        let third = warm.len() / 3;
        let most = self.samples.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            self.samples.len(),
            self.samples.first().map_or("-".to_owned(), |(_, bytes)| mib(*bytes)),
            median(&warm[..third]),
            median(&warm[warm.len() - third..]),
            mib(most),
            self.slope().map_or("-".to_owned(), |slope| format!("{slope:+.2}")),
            self.bound.map_or("-".to_owned(), |bound| bound.to_string()),
        )
    }
}

/// Of the straight line with the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let rise: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let run: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    rise / run
}
