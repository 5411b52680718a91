//! What Linux tells of this process (`man 5 proc`).

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Figures of a process; `None`: the system does not tell.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct ProcessFigures {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub open_files_max: Option<u64>,
    /// Seconds since the Unix epoch.
    pub started: Option<f64>,
}

impl ProcessFigures {
    pub fn read() -> ProcessFigures {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
            line.trim().parse::<f64>().ok()
        });
        let files = fs::read_dir("/proc/self/fd").ok();
        ProcessFigures {
            open_files: files.map(|files| files.count() as u64),
            open_files_max: getrlimit(Resource::Nofile).current,
            ..of_stat(&stat, rustix::param::clock_ticks_per_second(), boot)
        }
    }
}

/// `ticks`: in a second. `boot`: when the system began.
fn of_stat(stat: &str, ticks: u64, boot: Option<f64>) -> ProcessFigures {
    // The second field is a name that may hold anything.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return ProcessFigures::default();
    };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first of these is the third of the page.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let seconds = |field: usize| Some(number(field)? as f64 / ticks as f64);
    ProcessFigures {
        cpu_seconds: seconds(14).zip(seconds(15)).map(|(user, system)| user + system),
        resident_bytes: number(24).map(|pages| pages * rustix::param::page_size() as u64),
        started: boot.zip(seconds(22)).map(|(boot, after)| boot + after),
        ..ProcessFigures::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_process_are_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "7 (a) b c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 400 1000000 3 18446744073709551615";
        let figures = of_stat(stat, 100, Some(1000.0));
        assert_eq!(figures.cpu_seconds, Some(3.0));
        assert_eq!(figures.resident_bytes, Some(3 * rustix::param::page_size() as u64));
        assert_eq!(figures.started, Some(1004.0));
        assert_eq!(of_stat("", 100, None), ProcessFigures::default());
    }

    #[test]
    fn this_process_has_all_of_them() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(figures.open_files.is_some_and(|files| files > 2));
        assert!(figures.started.is_some_and(|at| at > 1.7e9) && figures.cpu_seconds.is_some());
    }
}
